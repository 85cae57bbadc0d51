//! A daemon of others that a test starts and stops.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    replica::{new_log, tail},
    tools::{PROXIES, Tool},
    wait::wait_until,
};

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// For a daemon of a test that failed: it need not end well.
const DROP_DEADLINE: Duration = Duration::from_secs(10);
const DROP_PAUSE: Duration = Duration::from_millis(20);
const TAIL_LINES: usize = 30;

/// A process that runs until it is told to stop.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits until `client`, run with `question`, gets an answer.
    pub(crate) async fn start(
        name: &'static str,
        command: Command,
        log: &Path,
        client: &Tool,
        question: &[&str],
    ) -> Result<Self> {
        Self::start_until(name, command, log, || client.run(question)).await
    }

    /// Starts it and waits until `ask` gets an answer.
    pub(crate) async fn start_until<F, Asked, Answer>(
        name: &'static str,
        command: Command,
        log: &Path,
        mut ask: F,
    ) -> Result<Self>
    where
        F: FnMut() -> Asked,
        Asked: Future<Output = Result<Answer>>,
    {
        let file = new_log(log)?;
        let mut command = ends_with_this_process(&command)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // The registries that it asks are on this machine.
        for name in PROXIES {
            command.env_remove(name);
        }
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let mut started = Self { child, name, log: log.to_path_buf() };
        let answered = wait_until(&format!("{name} answers"), START_DEADLINE, || {
            let (ended, asked) = (started.child.try_wait(), ask());
            async move {
                if let Some(status) = ended? {
                    bail!("{name} ended by itself: {status}");
                }
                asked.await
            }
        })
        .await;
        answered
            .map_err(|reason| reason.context(format!("{name} said:\n{}", started.log_tail())))?;
        Ok(started)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and waits for its end; one that does not end is killed, and an error.
    pub(crate) async fn stop(mut self) -> Result<()> {
        terminate(&self.child)?;
        let child = &mut self.child;
        wait_until(&format!("{} ends", self.name), STOP_DEADLINE, || {
            let polled = child.try_wait();
            async move { polled?.ok_or_else(|| anyhow!("it still runs")) }
        })
        .await?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), TAIL_LINES)
    }
}

impl Drop for Daemon {
    #[expect(
        clippy::disallowed_methods,
        reason = "a drop cannot await; it waits for a condition, and not for long"
    )]
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Politely: it may have a child of its own that a kill would leave behind.
            let _ = terminate(&self.child);
            let start = Instant::now();
            while let Ok(None) = self.child.try_wait()
                && start.elapsed() < DROP_DEADLINE
            {
                sleep(DROP_PAUSE);
            }
            // Of one that has ended this does nothing.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The same command, told to stop when the test program has died and could not stop it.
fn ends_with_this_process(command: &Command) -> Result<Command> {
    let mut wrapped = Command::new(Tool::find("setpriv")?.path());
    wrapped.args(["--pdeathsig", "TERM"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    Ok(wrapped)
}

fn terminate(child: &Child) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process id is not zero")?;
    Ok(kill_process(pid, Signal::TERM)?)
}
