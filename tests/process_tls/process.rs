//! One `tercet serve` with a configuration of its own.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Issued};
use crate::until;

/// A replica that is its own cluster. Everything it has is in one folder.
pub(crate) struct Replica {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) registry: String,
    pub(crate) ops: String,
    pub(crate) webhook: String,
    pub(crate) peer: String,
    child: Option<Child>,
}

impl Replica {
    /// Ports and a folder; nothing runs yet.
    pub(crate) fn new() -> Self {
        let sockets: [_; 4] =
            std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [registry, peer, ops, webhook] =
            sockets.map(|socket| socket.local_addr().unwrap().to_string());
        let dir = tempfile::tempdir().unwrap();
        Self { dir, registry, ops, webhook, peer, child: None }
    }

    /// A running one whose registry has a certificate of `authority`.
    pub(crate) async fn with_tls(authority: &Authority, rest: &str) -> Self {
        let mut replica = Self::new();
        authority.issue("registry").write(replica.dir.path());
        replica.start(&format!("{}{rest}", replica.tls_section("registry")));
        replica.ready().await;
        replica
    }

    /// `[registry.tls]` and the like, with the files that [`Issued::write`] writes.
    pub(crate) fn tls_section(&self, listener: &str) -> String {
        let (certificate, key) = (self.path("tls.crt"), self.path("tls.key"));
        format!("[{listener}.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, rest: &str) -> Command {
        let registry = if rest.contains("[registry]") {
            String::new()
        } else {
            format!("[registry]\nlisten = \"{}\"\n", self.registry)
        };
        let config = format!(
            "{registry}[node]\nname = \"tercet-0\"\ndata_dir = {:?}\n[peer]\nlisten = \"{}\"\n\
             [ops]\nlisten = \"{}\"\n[webhook]\nlisten = \"{}\"\n{rest}",
            self.path("data"),
            self.peer,
            self.ops,
            self.webhook
        );
        std::fs::write(self.path("tercet.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TERCET_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--exit-with-parent", "--config"]).arg(self.path("tercet.toml"));
        command
    }

    /// Starts the process with more configuration.
    pub(crate) fn start(&mut self, rest: &str) {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let mut command = self.command(rest);
        command.stdin(Stdio::piped()).stderr(log).stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    /// Runs a process that is expected to end by itself.
    pub(crate) fn fails(&self, rest: &str) -> (Option<i32>, String) {
        let output = self.command(rest).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits for `/readyz` on a plain ops listener.
    pub(crate) async fn ready(&mut self) -> String {
        let url = format!("http://{}/readyz", self.ops);
        until("a ready replica", async || {
            if let Some(ended) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("it ended with {ended}: {}", self.log());
            }
            let answer = plain().get(&url).send().await.ok()?;
            if answer.status() == 200 { answer.text().await.ok() } else { None }
        })
        .await
    }

    /// A metric of a plain ops listener.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let url = format!("http://{}/metrics", self.ops);
        let text = plain().get(&url).send().await.unwrap().text().await.unwrap();
        value_of(&text, name)
    }

    /// The certificate that a new connection to the registry is shown.
    pub(crate) async fn shown_to(&self, authority: &Authority) -> Option<Vec<u8>> {
        shown_at(&self.registry, authority).await
    }

    /// Closes its standard input and waits for the end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        drop(child.stdin.take());
        until("the end of the process", async || child.try_wait().unwrap()).await
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn plain() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

pub(crate) fn value_of(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A TLS connection to an address of this machine.
pub(crate) async fn connect(
    address: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The certificate that a new connection to an address of this machine is shown.
pub(crate) async fn shown_at(address: &str, authority: &Authority) -> Option<Vec<u8>> {
    let config = authority.client(&[&rustls::version::TLS13], None);
    let stream = connect(address, config).await.ok()?;
    let (_, session) = stream.get_ref();
    Some(session.peer_certificates()?.first()?.to_vec())
}

/// The first certificate of a chain, as a connection shows it.
pub(crate) fn first_of(issued: &Issued) -> Vec<u8> {
    issued.certificates()[0].to_vec()
}

/// Bytes of which no two pieces are alike.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
