//! A Docker daemon of the test's own.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    replica::{new_log, tail},
    tools::{Tool, require_root},
    wait::wait_until,
};

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const TAIL_LINES: usize = 30;

/// `dockerd` with its own data, socket and process, without touching the machine's network. Registries on
/// loopback addresses are allowed without TLS by Docker itself.
#[derive(Debug)]
pub struct DockerDaemon {
    child: Child,
    host: String,
    /// In the system's temporary folder: a socket's path may have 108 bytes, a build folder's has more.
    folder: TempDir,
}

impl DockerDaemon {
    /// Starts it and waits until it answers.
    pub async fn start() -> Result<Self> {
        require_root("starting a Docker daemon")?;
        let daemon = Tool::find("dockerd")?;
        let folder = tempfile::Builder::new().prefix("tercet-docker-").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let host = format!("unix://{}", file("socket").display());
        let log = new_log(&file("log"))?;
        let mut command = Command::new(daemon.path());
        command.arg("--data-root").arg(file("data")).arg("--exec-root").arg(file("exec"));
        command.arg("--pidfile").arg(file("pid")).args(["--host", &host]);
        // Nothing is run in containers, so nothing needs a network or kernel file systems.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--storage-driver", "vfs"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child =
            command.spawn().with_context(|| format!("start {}", daemon.path().display()))?;
        let mut started = Self { child, host, folder };
        let client = started.client()?;
        let answered = wait_until("the Docker daemon answers", START_DEADLINE, || {
            let ended = started.child.try_wait();
            let client = client.clone();
            async move {
                if let Some(status) = ended? {
                    bail!("dockerd ended by itself: {status}");
                }
                client.run(&["version"]).await
            }
        })
        .await;
        if let Err(reason) = answered {
            let log = started.log_tail();
            return Err(reason.context(format!("dockerd said:\n{log}")));
        }
        Ok(started)
    }

    /// The command line client of this daemon.
    pub fn client(&self) -> Result<Tool> {
        // Debian's, where another one comes earlier on the search path: it fits the daemon.
        let debian = Path::new("/usr/bin/docker");
        let tool = if debian.is_file() { Tool::at(debian) } else { Tool::find("docker")? };
        // Its own empty configuration: no credentials, no contexts of the user.
        Ok(tool.with("DOCKER_HOST", &self.host).with("DOCKER_CONFIG", self.folder.path()))
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        terminate(&self.child)?;
        let child = &mut self.child;
        wait_until("the Docker daemon ends", STOP_DEADLINE, || {
            let polled = child.try_wait();
            async move { polled?.ok_or_else(|| anyhow!("it still runs")) }
        })
        .await?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        tail(&log, TAIL_LINES)
    }
}

impl Drop for DockerDaemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Politely: it has a containerd of its own that a kill would leave behind.
            let _ = terminate(&self.child);
            let _ = self.child.wait();
        }
    }
}

fn terminate(child: &Child) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process id is not zero")?;
    Ok(kill_process(pid, Signal::TERM)?)
}
