//! A containerd daemon of the test's own.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    daemon::Daemon,
    tls::Authority,
    tools::{Tool, require_root},
};

/// `containerd` with its own data, socket and process, and a `hosts.toml` for one name.
#[derive(Debug)]
pub struct ContainerdDaemon {
    daemon: Daemon,
    client: Tool,
    /// In the system's temporary folder: a socket's path may have 108 bytes, a build folder's has more.
    folder: TempDir,
}

impl ContainerdDaemon {
    /// Starts it and waits until it answers.
    pub async fn start() -> Result<Self> {
        require_root("starting containerd")?;
        let program = Tool::find("containerd")?;
        let folder = tempfile::Builder::new().prefix("tercet-containerd-").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let socket = file("socket");
        // Kubernetes' part of it wants a network of its own; `ctr` does without.
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
            file("root"),
            file("state"),
            file("socket.ttrpc"),
        );
        fs::write(file("config.toml"), config)?;
        let mut command = Command::new(program.path());
        command.arg("--config").arg(file("config.toml"));
        let client = Tool::find("ctr")?
            .with("CONTAINERD_ADDRESS", &socket)
            // Copies instead of mounts: works on every file system.
            .with("CONTAINERD_SNAPSHOTTER", "native");
        let daemon =
            Daemon::start("containerd", command, &file("log"), &client, &["version"]).await?;
        Ok(Self { daemon, client, folder })
    }

    /// Says that an image name's first part stands for these `host:port`, tried in this order, and for the
    /// last of them when pushing. The file is what `docs/src/clients.md` shows.
    pub fn name_hosts(
        &self,
        name: &str,
        authority: &Authority,
        registries: &[String],
    ) -> Result<()> {
        let folder = self.hosts_folder().join(name);
        let ca = folder.join("ca.crt");
        authority.install(&ca)?;
        let server = registries.last().map(String::as_str).unwrap_or_default();
        let mut text = format!("server = \"https://{server}\"\nca = {ca:?}\n");
        for registry in registries {
            text.push_str(&format!(
                "\n[host.\"https://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
                 ca = {ca:?}\n"
            ));
        }
        Ok(fs::write(folder.join("hosts.toml"), text)?)
    }

    /// What `--hosts-dir` takes.
    pub fn hosts_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("certs.d")
    }

    /// Bytes of content that it is fetching or has fetched.
    pub fn content_bytes(&self) -> u64 {
        bytes_below(&self.folder.path().join("root/io.containerd.content.v1.content"))
    }

    /// `ctr` for this daemon.
    pub fn client(&self) -> Tool {
        self.client.clone()
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.daemon.stop().await
    }
}

/// Files that vanish while they are looked for count as nothing.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
