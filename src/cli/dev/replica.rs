//! One replica as a child process.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

use super::layout::ReplicaPlan;
use crate::exit::{Exit, Failure};

/// Lines of a replica's log that are shown when it cannot start.
const LOG_LINES_SHOWN: usize = 20;
/// Bytes of that log that are read for them.
const LOG_BYTES_READ: u64 = 64 * 1024;
/// Variables of this process that its replicas may see; the others would be the same for all of
/// them, where each needs its own.
const VARIABLES_KEPT: &[&str] = &["TERCET_LIMITS_", "TERCET_LOG_"];

/// A child that runs.
pub(super) struct RunningReplica {
    plan: ReplicaPlan,
    child: Child,
    pid: u32,
    input: Option<ChildStdin>,
}

impl RunningReplica {
    pub(super) fn start(plan: &ReplicaPlan) -> Result<Self, Failure> {
        let spawned = spawn(plan);
        let mut child = spawned.map_err(|error| {
            Failure::new(Exit::Io, format!("cannot start {}: {error}", plan.name))
        })?;
        let input = child.stdin.take();
        let pid = child.id().ok_or("it ended at once").map_err(|problem| {
            Failure::new(Exit::Io, format!("cannot start {}: {problem}", plan.name))
        })?;
        Ok(Self { plan: plan.clone(), child, pid, input })
    }

    /// Splits the child into the end that stops it and the wait for its end.
    pub(super) fn supervise(mut self) -> (StopHandle, impl Future<Output = Ended>) {
        let (kill, killed) = oneshot::channel();
        let handle = StopHandle { pid: self.pid, input: self.input.take(), kill };
        let ended = async move {
            let status = tokio::select! {
                status = self.child.wait() => status,
                Ok(()) = killed => {
                    // It may have ended by itself just now.
                    let _ = self.child.start_kill();
                    self.child.wait().await
                }
            };
            Ended { plan: self.plan, pid: self.pid, status }
        };
        (handle, ended)
    }
}

/// Stops a replica: gently first.
pub(super) struct StopHandle {
    pid: u32,
    input: Option<ChildStdin>,
    kill: oneshot::Sender<()>,
}

impl StopHandle {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the child's standard input, upon which it drains. Unlike a signal, this cannot reach
    /// another process that has the number by now.
    pub(super) fn drain(self) -> KillHandle {
        drop(self.input);
        KillHandle(self.kill)
    }
}

/// Kills a replica that was asked to drain.
pub(super) struct KillHandle(oneshot::Sender<()>);

impl KillHandle {
    pub(super) fn kill(self) {
        // Nobody listens when it has ended.
        let _ = self.0.send(());
    }
}

/// A child that ended.
pub(super) struct Ended {
    plan: ReplicaPlan,
    pid: u32,
    status: io::Result<ExitStatus>,
}

impl Ended {
    /// Tells a person what happened and how to go on.
    pub(super) fn report(&self) -> String {
        format!(
            "{} (process {}) ended: {}; the others go on. Its log is {}. Start it again with\n  {} \
             serve --config {}",
            self.plan.name,
            self.pid,
            self.status(),
            self.plan.log.display(),
            shown_program(),
            self.plan.config.display()
        )
    }

    /// The failure of a cluster that lost a replica before it was ready, with its last words.
    pub(super) fn failed_to_start(&self) -> Failure {
        let message = format!(
            "{} did not start: {}; the end of {}:\n{}",
            self.plan.name,
            self.status(),
            self.plan.log.display(),
            log_tail(&self.plan).unwrap_or_else(|error| error.to_string())
        );
        Failure::new(Exit::Unavailable, message)
    }

    fn status(&self) -> String {
        match &self.status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

/// How this program is called in a sentence.
pub(super) fn shown_program() -> String {
    program().map_or_else(|_| "tercet".to_owned(), |path| path.display().to_string())
}

fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

fn spawn(plan: &ReplicaPlan) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&plan.log)?;
    let mut command = Command::new(program()?);
    command
        .args(["serve", "--exit-with-parent", "--config"])
        .arg(&plan.config)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C in the terminal is for `tercet dev`, which then lets every replica drain.
        .process_group(0)
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let kept = VARIABLES_KEPT.iter().any(|prefix| name_text.starts_with(prefix));
        if name_text.starts_with(crate::config::keys::VARIABLE_PREFIX) && !kept {
            command.env_remove(&name);
        }
    }
    command.spawn()
}

fn log_tail(plan: &ReplicaPlan) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(&plan.log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_READ)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_READ).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_SHOWN));
    Ok(shown.map(|line| format!("  {line}\n")).collect())
}
