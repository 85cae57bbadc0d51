//! One `tercet serve` process and what can be done to it.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{binary::Binary, launch::Launch, planted, wait::wait_until};

/// How much of a log a failure prints.
const TAIL_LINES: usize = 60;

/// A replica of the cluster: its files, its addresses and, while it runs, its process.
#[derive(Debug)]
pub struct Replica {
    /// The configured name.
    pub name: String,
    /// Base URL of the registry listener.
    pub registry: String,
    /// Base URL of the peer listener.
    pub peer: String,
    /// Where the other replicas reach that listener: a proxy of the harness may stand before it.
    pub(crate) advertised: String,
    /// Where clients go instead of [`Self::registry`], if a proxy stands before it.
    pub(crate) front: Option<String>,
    /// Base URL of the ops listener.
    pub ops: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) child: Option<Child>,
    /// On what host the process runs.
    pub(crate) host: Launch,
    /// What else is around the process.
    pub(crate) launch: Launch,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident: u64,
    /// The most that was ever resident (`VmHWM`).
    pub peak: u64,
}

impl Replica {
    /// Starts the process. Its log is appended to, so that it tells the whole story.
    pub fn start(&mut self, binary: &Binary) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.name);
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        // A paused one cannot see its parent go (`--exit-with-parent`), so the kernel ends it. That goes by the thread
        // which starts it: the one that the run or the test is on, and no pool's.
        let dies_with_us = Launch::default().through(&["setpriv", "--pdeathsig", "KILL"]);
        let around = dies_with_us.around(&self.host).around(&self.launch);
        let mut command = around.command(binary.path());
        command.args(["serve", "--exit-with-parent", "--config"]).arg(&self.config);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        clear_settings(&mut command);
        planted::pass_on(&mut command);
        self.host.set_environment(&mut command);
        self.launch.set_environment(&mut command);
        let child =
            command.spawn().with_context(|| format!("start {} serve", binary.path().display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits for the end.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM, SIGSTOP, SIGCONT, …
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id is not zero")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Fails if the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        let child = self.child.as_mut().with_context(|| format!("{} does not run", self.name))?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended by itself: {status}", self.name),
        }
    }

    /// Waits for the process to end by itself.
    pub async fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let what = format!("{} ends", self.name);
        let ended = wait_until(&what, deadline, || {
            let polled = child.try_wait();
            async move { polled?.ok_or_else(|| anyhow!("it still runs")) }
        })
        .await;
        if ended.is_err() {
            // Back in its place, so that the driver's drop can kill it.
            self.child = Some(child);
        }
        ended
    }

    /// Its memory, from `/proc`.
    pub fn memory(&self) -> Result<Memory> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Memory { resident: kilobytes(&text, "VmRSS:")?, peak: kilobytes(&text, "VmHWM:")? })
    }

    /// Lets [`Memory::peak`] begin again with what is resident now (proc_pid_clear_refs(5)).
    pub fn forget_peak(&self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let path = format!("/proc/{pid}/clear_refs");
        fs::write(&path, "5").with_context(|| format!("write {path}"))
    }

    /// Where a blob lies on this replica's disk if it holds it.
    pub fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        let (algorithm, hex) = digest.split_once(':').context("a digest has a colon")?;
        let shard = hex.get(..2).context("a digest has hex digits")?;
        Ok(self.data_dir.join("blobs").join(algorithm).join(shard).join(hex))
    }

    /// The whole log so far.
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The log's end.
    pub fn log_tail(&self) -> String {
        tail(&self.log_text(), TAIL_LINES)
    }

    /// Throws the data folder away. The process must not run.
    pub fn wipe(&self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} still runs: kill it before its data is wiped", self.name);
        }
        fs::remove_dir_all(&self.data_dir)
            .with_context(|| format!("wipe {}", self.data_dir.display()))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // By its own id; one that ended already is what we want.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The registry reads `TERCET_…` as settings and refuses unknown ones; those of the tests are not for it.
pub(crate) fn clear_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TERCET_") {
            command.env_remove(name);
        }
    }
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let skip = text.lines().count().saturating_sub(lines);
    text.lines().skip(skip).collect::<Vec<_>>().join("\n")
}

/// Opens a log file for a child's output, from its start.
pub(crate) fn new_log(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("make {}", path.display()))
}

fn kilobytes(status: &str, field: &str) -> Result<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("no {field} in the process status"))?;
    let number = line.trim().trim_end_matches("kB").trim();
    Ok(number.parse::<u64>().with_context(|| format!("{field} {line}"))? * 1024)
}
