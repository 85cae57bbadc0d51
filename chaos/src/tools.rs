//! Programs of others that the tests drive: real clients, tar, dpkg.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{process::Command, time::timeout};

/// Where `chaos/setup.sh` keeps what it makes.
const CACHE: &str = "TERCET_CACHE";
/// Where `chaos/setup.sh` writes why it could not build the clients that need Go.
const WITHOUT_GO: &str = "without-go";
/// A client that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(180);

/// An installed program.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    environment: Vec<(String, String)>,
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
            Some(path) => Ok(Self { path, environment: Vec::new() }),
            None => bail!("no {name} on this machine: run chaos/setup.sh, which installs it"),
        }
    }

    /// As [`Self::find`] for a client that needs Go to build. `None`, with a printed reason, only where
    /// `chaos/setup.sh` has found that this machine has no Go that can.
    pub fn find_go_built(name: &str) -> Result<Option<Self>> {
        let missing = match Self::find(name) {
            Ok(tool) => return Ok(Some(tool)),
            Err(missing) => missing,
        };
        match std::fs::read_to_string(cache_folder()?.join("bin").join(WITHOUT_GO)) {
            Ok(reason) => {
                println!("{name} is not tried: {}", reason.trim());
                Ok(None)
            }
            Err(_) => Err(missing),
        }
    }

    /// A program at a known place.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf(), environment: Vec::new() }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it; an exit code other than 0 is an error that carries what it wrote.
    pub async fn run(&self, arguments: &[&str]) -> Result<ToolOutput> {
        let shown = format!("{} {}", self.path.display(), arguments.join(" "));
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        // Proxies are for the outside; the registries of the tests are on this machine.
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = timeout(DEADLINE, command.output())
            .await
            .with_context(|| format!("not within {DEADLINE:?}: {shown}"))?
            .with_context(|| format!("start {shown}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output = ToolOutput { stdout: text(&output.stdout), stderr: text(&output.stderr) }
            .checked(output.status.success(), &shown)?;
        Ok(output)
    }
}

impl ToolOutput {
    fn checked(self, success: bool, shown: &str) -> Result<Self> {
        if !success {
            bail!("{shown}\nfailed: {}{}", self.stdout, self.stderr);
        }
        Ok(self)
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

/// Some of the real clients need root; says so in words.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("{what} needs root on this machine: run the tests as root after chaos/setup.sh");
    }
    Ok(())
}
