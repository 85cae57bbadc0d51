//! A load balancer of others in front of a cluster.

use std::{fmt::Write as _, fs, process::Command, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{cluster::Cluster, daemon::Daemon, ports::PortBlock, tools::Tool, wait::wait_until};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// How the balancer tells requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// It passes connections on. Every request comes on a connection of its own, since otherwise a client
    /// that keeps its connection would see one replica only.
    Tcp,
    /// It reads HTTP and passes requests on.
    Http,
}

/// `haproxy` that gives each replica of a cluster every third request.
#[derive(Debug)]
pub struct Haproxy {
    daemon: Daemon,
    host: String,
    _folder: TempDir,
    _ports: PortBlock,
}

impl Haproxy {
    /// Starts it in front of all replicas, and waits until it listens.
    pub async fn start(cluster: &Cluster, balance: Balance) -> Result<Self> {
        let haproxy = Tool::find("haproxy")?;
        let folder = tempfile::Builder::new().prefix("tercet-haproxy-").tempdir()?;
        let ports = PortBlock::reserve()?;
        let host = format!("127.0.0.1:{}", ports.first());
        let config = folder.path().join("haproxy.cfg");
        let behind = format!("127.0.0.1:{}", ports.first() + 1);
        fs::write(&config, configuration(cluster, balance, &host, &behind))?;
        let config = config.to_str().context("a folder's name is text")?;
        let mut command = Command::new(haproxy.path());
        command.args(["-db", "-f", config]);
        let log = folder.path().join("log");
        let is_right = ["-c", "-f", config];
        let daemon = Daemon::start("haproxy", command, &log, &haproxy, &is_right).await?;
        wait_until("haproxy listens", START_DEADLINE, || async {
            TcpStream::connect(&host).await?;
            Ok(())
        })
        .await?;
        Ok(Self { daemon, host, _folder: folder, _ports: ports })
    }

    /// `host:port` for clients.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.daemon.stop().await
    }
}

/// One thread, so that the turns are strict: threads would count their own.
fn configuration(cluster: &Cluster, balance: Balance, host: &str, behind: &str) -> String {
    let mut text = String::from(
        "global\n  nbthread 1\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n",
    );
    let listener = match balance {
        Balance::Http => format!(
            "listen replicas\n  bind {host}\n  option http-server-close\n  http-reuse never\n"
        ),
        // The first hop cuts a client's connection into requests; the second is the one that is tried.
        Balance::Tcp => format!(
            "listen requests\n  bind {host}\n  option httpclose\n  http-reuse never\n  server tcp {behind}\n\
             listen replicas\n  mode tcp\n  bind {behind}\n"
        ),
    };
    text.push_str(&listener);
    text.push_str("  balance roundrobin\n");
    for index in 0..cluster.len() {
        let address = cluster.registry_host(index);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  server replica-{index} {address}");
    }
    text
}
