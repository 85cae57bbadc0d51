//! A Docker daemon of the test's own.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    daemon::Daemon,
    tls::Authority,
    tools::{Tool, require_root},
};

/// Gives the daemon an `/etc/docker` of its own, in which it looks for authorities, and leaves the machine's
/// alone: `sh -c … FOLDER COMMAND…`.
const OWN_ETC: &str = "mount --bind \"$0\" /etc/docker && exec \"$@\"";

/// `dockerd` with its own data, settings, socket and process, without touching the machine's network.
#[derive(Debug)]
pub struct DockerDaemon {
    daemon: Daemon,
    host: String,
    /// In the system's temporary folder: a socket's path may have 108 bytes, a build folder's has more.
    folder: TempDir,
}

impl DockerDaemon {
    /// Starts it and waits until it answers. It believes the authority for these `host:port`.
    ///
    /// Docker checks no certificate of a registry on a loopback address, so those are no use here.
    pub async fn start(authority: &Authority, registries: &[String]) -> Result<Self> {
        require_root("starting a Docker daemon")?;
        let program = Tool::find("dockerd")?;
        let folder = tempfile::Builder::new().prefix("tercet-docker-").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        fs::create_dir_all(file("etc"))?;
        fs::create_dir_all("/etc/docker")?;
        for registry in registries {
            authority.install(&file("etc/certs.d").join(registry).join("ca.crt"))?;
        }
        let host = format!("unix://{}", file("socket").display());
        let mut command = Command::new(Tool::find("unshare")?.path());
        command.args(["--mount", "sh", "-c", OWN_ETC]).arg(file("etc")).arg(program.path());
        command.arg("--data-root").arg(file("data")).arg("--exec-root").arg(file("exec"));
        command.arg("--pidfile").arg(file("pid")).args(["--host", &host]);
        // Nothing is run in containers, so nothing needs a network or kernel file systems.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--storage-driver", "vfs"]);
        let client = client(&host, folder.path())?;
        let daemon = Daemon::start("dockerd", command, &file("log"), &client, &["version"]).await?;
        Ok(Self { daemon, host, folder })
    }

    /// The command line client of this daemon.
    pub fn client(&self) -> Result<Tool> {
        client(&self.host, self.folder.path())
    }

    /// Takes the authority away again for one `host:port`.
    pub fn forget(&self, registry: &str) -> Result<()> {
        let folder = self.folder.path().join("etc/certs.d").join(registry);
        Ok(fs::remove_dir_all(folder)?)
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.daemon.stop().await
    }
}

fn client(host: &str, folder: &Path) -> Result<Tool> {
    // Debian's, where another one comes earlier on the search path: it fits the daemon.
    let debian = Path::new("/usr/bin/docker");
    let tool = if debian.is_file() { Tool::at(debian) } else { Tool::find("docker")? };
    // Its own empty configuration: no credentials, no contexts of the user.
    Ok(tool.with("DOCKER_HOST", host).with("DOCKER_CONFIG", folder))
}
