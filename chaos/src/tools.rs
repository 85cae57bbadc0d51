//! Programs of others that the tests drive: real clients, tar, dpkg.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::not_shown::NotShown;

/// Where `chaos/setup.sh` keeps what it makes.
const CACHE: &str = "TERCET_CACHE";
/// Start of the name of the file where `chaos/setup.sh` writes why it could not build a client.
const WITHOUT: &str = "without-";
/// Variables that name proxies. Those are for the outside; the registries of the tests are on this machine.
pub(crate) const PROXIES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
/// A client that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(180);

/// An installed program.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    environment: Vec<(String, String)>,
    /// Arguments before those of a run.
    first: Vec<String>,
    /// Its only home: nothing of the user who runs the tests counts.
    home: Option<PathBuf>,
}

/// What a program wrote.
#[derive(Clone, Debug)]
pub struct ToolOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Tool {
    /// Finds a program in the cache of `chaos/setup.sh` or on the search path.
    pub fn find(name: &str) -> Result<Self> {
        let mut folders = vec![cache_folder()?.join("bin")];
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        // Daemons live here, and an ordinary user's search path lacks it.
        folders.push(PathBuf::from("/usr/sbin"));
        match folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()) {
            Some(path) => Ok(Self::at(&path)),
            None => {
                let why =
                    format!("no {name} on this machine: run chaos/setup.sh, which installs it");
                Err(NotShown(why).into())
            }
        }
    }

    /// As [`Self::find`] for a client that needs Go to build. `None`, with a printed reason, only where
    /// `chaos/setup.sh` has found that this machine has no Go that can.
    pub fn find_go_built(name: &str) -> Result<Option<Self>> {
        let missing = match Self::find(name) {
            Ok(tool) => return Ok(Some(tool)),
            Err(missing) => missing,
        };
        match std::fs::read_to_string(cache_folder()?.join("bin").join(format!("{WITHOUT}{name}")))
        {
            Ok(reason) => {
                println!("{name} is not tried: {}", reason.trim());
                Ok(None)
            }
            Err(_) => Err(missing),
        }
    }

    /// A program at a known place.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf(), environment: Vec::new(), first: Vec::new(), home: None }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// With arguments that come before those of every run.
    #[must_use]
    pub fn first(mut self, arguments: &[&str]) -> Self {
        self.first.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// As a user with this home folder, who has no other settings, and works in that folder.
    #[must_use]
    pub fn at_home(mut self, folder: &Path) -> Self {
        self.home = Some(folder.to_path_buf());
        self
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it; an exit code other than 0 is an error that carries what it wrote.
    pub async fn run(&self, arguments: &[&str]) -> Result<ToolOutput> {
        self.run_with_input(arguments, "").await
    }

    /// As [`Self::run`], with something to read.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<ToolOutput> {
        let (status, output) = self.output_of(arguments, input).await?;
        if !status.success() {
            bail!("{}\nfailed: {}", self.shown(arguments), output.all());
        }
        Ok(output)
    }

    /// Runs it; an exit code of 0 is an error. Returns all that it wrote.
    pub async fn run_to_fail(&self, arguments: &[&str]) -> Result<String> {
        let (status, output) = self.output_of(arguments, "").await?;
        if status.success() {
            bail!("{}\ndid not fail: {}", self.shown(arguments), output.all());
        }
        Ok(output.all())
    }

    async fn output_of(&self, arguments: &[&str], input: &str) -> Result<(ExitStatus, ToolOutput)> {
        let shown = self.shown(arguments);
        let mut command = Command::new(&self.path);
        if let Some(home) = &self.home {
            command.env_clear().env("HOME", home).current_dir(home);
            command.env("PATH", env::var_os("PATH").unwrap_or_default());
        }
        command.args(&self.first).args(arguments).stdin(Stdio::piped()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in PROXIES {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input closes it.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = timeout(DEADLINE, child.wait_with_output())
            .await
            .with_context(|| format!("not within {DEADLINE:?}: {shown}"))?
            .with_context(|| format!("wait for {shown}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let written = ToolOutput { stdout: text(&output.stdout), stderr: text(&output.stderr) };
        Ok((output.status, written))
    }

    fn shown(&self, arguments: &[&str]) -> String {
        let first = self.first.iter().map(String::as_str);
        let all: Vec<&str> = first.chain(arguments.iter().copied()).collect();
        format!("{} {}", self.path.display(), all.join(" "))
    }
}

impl ToolOutput {
    /// Standard output, then standard error.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// `${TERCET_CACHE:-$HOME/.cache/tercet}`.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(CACHE) {
        return Ok(PathBuf::from(folder));
    }
    let home = env::var_os("HOME").context("neither TERCET_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache").join("tercet"))
}

/// Whether this program may do everything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Some of the real clients need root; says so in words.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!("{what} needs root on this machine: run the tests as root after chaos/setup.sh");
    }
    Ok(())
}
