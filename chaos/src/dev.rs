//! A cluster that `tercet dev` runs.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::{
    binary::Binary,
    ports::PortBlock,
    replica::{clear_settings, new_log, tail},
    scratch::Scratch,
    turn::{Share, Turn},
    wait::wait_until,
};

const TAIL_LINES: usize = 120;

/// One line of `cluster.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DevReplica {
    /// The replica's name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `host:port` of the registry listener.
    pub registry: String,
    /// `host:port` of the peer listener.
    pub peer: String,
    /// `host:port` of the ops listener.
    pub ops: String,
    /// `host:port` of the webhook listener.
    pub webhook: String,
    /// The data folder.
    pub data_dir: PathBuf,
}

/// A running (or stopped) `tercet dev` on its own folder.
#[derive(Debug)]
pub struct DevCluster {
    binary: Binary,
    child: Option<Child>,
    replicas: usize,
    passed: bool,
    ports: PortBlock,
    scratch: Scratch,
    _turn: Turn,
}

impl DevCluster {
    /// An empty folder and free ports; nothing runs yet.
    pub async fn prepare(replicas: usize) -> Result<Self> {
        Ok(Self {
            _turn: Turn::take(Share::All).await?,
            binary: Binary::locate()?,
            child: None,
            replicas,
            passed: false,
            ports: PortBlock::reserve()?,
            scratch: Scratch::new()?,
        })
    }

    /// The first replica's registry port.
    pub fn port(&self) -> u16 {
        self.ports.first()
    }

    /// The folder given with `--dir`.
    pub fn folder(&self) -> PathBuf {
        self.scratch.path().join("dev")
    }

    /// Runs the command and waits for `cluster.json`. Returns what it says and how long that took.
    pub async fn start(&mut self, deadline: Duration) -> Result<(Vec<DevReplica>, Duration)> {
        let manifest = self.folder().join("cluster.json");
        // The file of an earlier run must not be mistaken for this one's.
        let before = fs::read(&manifest).ok();
        let log = new_log(&self.log_path())?;
        let mut command = Command::new(self.binary.path());
        command.args(["dev", "--replicas", &self.replicas.to_string(), "--dir"]);
        command.arg(self.folder()).args(["--port", &self.port().to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        clear_settings(&mut command);
        let start = Instant::now();
        self.child = Some(command.spawn()?);
        let replicas = wait_until("cluster.json is written", deadline, || {
            let found = self.check_started(&manifest, before.as_deref());
            async move { found }
        })
        .await?;
        Ok((replicas, start.elapsed()))
    }

    /// Ctrl-C, and waits for the end.
    pub async fn interrupt(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process id is not zero")?;
        kill_process(pid, Signal::INT)?;
        let ended = wait_until("tercet dev ends", deadline, || {
            let polled = child.try_wait();
            async move { polled?.ok_or_else(|| anyhow!("it still runs")) }
        })
        .await;
        if ended.is_err() {
            self.child = Some(child);
        }
        ended
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Marks the test as passed: nothing is printed when the folder goes.
    pub fn passed(mut self) {
        self.passed = true;
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("dev.log")
    }

    fn check_started(
        &mut self,
        manifest: &std::path::Path,
        before: Option<&[u8]>,
    ) -> Result<Vec<DevReplica>> {
        if let Some(status) = self.child.as_mut().context("it does not run")?.try_wait()? {
            bail!("it ended by itself: {status}");
        }
        let bytes = fs::read(manifest).context("cluster.json")?;
        if before == Some(bytes.as_slice()) {
            bail!("cluster.json is the one of the run before");
        }
        serde_json::from_slice(&bytes)
            .with_context(|| format!("cluster.json: {}", String::from_utf8_lossy(&bytes)))
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // Its replicas see the end of their input and go too.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.passed {
            eprintln!("---- the end of tercet dev's output\n{}", tail(&self.output(), TAIL_LINES));
            self.scratch.failed();
        }
    }
}
