//! The directory of a cluster that `tercet dev` runs.
//!
//! ```text
//! DIR/dev.lock                 held while a `tercet dev` runs on DIR
//! DIR/dev.json                 number of replicas and first port
//! DIR/cluster.json             who runs and where, while all run
//! DIR/<name>/tercet.toml       a replica's configuration, written at every start
//! DIR/<name>/tercet.log        its log
//! DIR/<name>/data/             its data directory
//! ```

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;

use super::settings::loopback;
use crate::config::{Cluster, Config, MemberEntry, Node, Ops, Peer, Registry};
use crate::exit::{Exit, Failure, OrExit};

/// One replica: its name, its addresses and its place on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaPlan {
    pub(super) name: String,
    pub(super) registry: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) ops: SocketAddr,
    /// Reserved; nothing listens there yet.
    pub(super) webhook: SocketAddr,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) data_dir: PathBuf,
}

/// One entry of `cluster.json`.
#[derive(Debug, Serialize)]
struct RunningEntry<'a> {
    name: &'a str,
    pid: u32,
    registry: SocketAddr,
    peer: SocketAddr,
    ops: SocketAddr,
    webhook: SocketAddr,
    data_dir: &'a Path,
}

/// A cluster's directory, held by this process alone.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    /// Holds the lock until it is dropped, also by a crash.
    _lock: File,
}

impl Layout {
    /// Creates the directory if need be, and takes it.
    pub(super) fn prepare(dir: &Path) -> Result<Self, Failure> {
        let made = std::fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
        let dir = made.map_err(|error| {
            let message = format!("cannot use --dir {}: {error}", dir.display());
            Failure::new(Exit::Io, message)
        })?;
        let lock = take_lock(&dir)?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.dir.join("dev.json")
    }

    fn running(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    pub(super) fn plan(&self, index: u16, port: u16) -> ReplicaPlan {
        let name = format!("tercet-{index}");
        let home = self.dir.join(&name);
        ReplicaPlan {
            registry: loopback(port),
            peer: loopback(port + 1),
            ops: loopback(port + 2),
            webhook: loopback(port + 3),
            config: home.join("tercet.toml"),
            log: home.join("tercet.log"),
            data_dir: home.join("data"),
            name,
        }
    }

    /// Writes a replica's configuration file.
    pub(super) fn write_config(
        &self,
        plan: &ReplicaPlan,
        all: &[ReplicaPlan],
    ) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct File {
            node: Node,
            cluster: Members,
            registry: Registry,
            peer: Peer,
            ops: Ops,
        }
        // Only what differs from the defaults, so that a person sees what matters.
        #[derive(Serialize)]
        struct Members {
            members: Vec<MemberEntry>,
        }
        let config = Config {
            node: Node {
                name: plan.name.clone(),
                data_dir: plan.data_dir.clone(),
                ..Node::default()
            },
            cluster: Cluster { members: members(all), ..Cluster::default() },
            registry: Registry { listen: plan.registry, ..Registry::default() },
            peer: Peer { listen: plan.peer, ..Peer::default() },
            ops: Ops { listen: plan.ops, ..Ops::default() },
            ..Config::default()
        };
        crate::config::check(&config).or_exit(Exit::Software)?;
        let file = File {
            node: config.node,
            cluster: Members { members: config.cluster.members },
            registry: config.registry,
            peer: config.peer,
            ops: config.ops,
        };
        let body = toml::to_string(&file).or_exit(Exit::Software)?;
        let text = format!("# Written by `tercet dev` at every start.\n\n{body}");
        let home = self.dir.join(&plan.name);
        std::fs::create_dir_all(home).and_then(|()| std::fs::write(&plan.config, text)).map_err(
            |error| {
                let message = format!("cannot write {}: {error}", plan.config.display());
                Failure::new(Exit::Io, message)
            },
        )
    }

    /// Removes the `cluster.json` of an earlier run, so that nobody takes it for this one's.
    pub(super) fn forget_running(&self) -> Result<(), Failure> {
        match std::fs::remove_file(self.running()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).or_exit(Exit::Io),
            _ => Ok(()),
        }
    }

    /// Writes `cluster.json`, whole or not at all.
    pub(super) fn write_running(&self, plans: &[ReplicaPlan], pids: &[u32]) -> Result<(), Failure> {
        let entries: Vec<_> = plans
            .iter()
            .zip(pids)
            .map(|(plan, pid)| RunningEntry {
                name: &plan.name,
                pid: *pid,
                registry: plan.registry,
                peer: plan.peer,
                ops: plan.ops,
                webhook: plan.webhook,
                data_dir: &plan.data_dir,
            })
            .collect();
        let mut text = serde_json::to_vec_pretty(&entries).or_exit(Exit::Software)?;
        text.push(b'\n');
        tercet_storage::atomic_write(&self.running(), &text).or_exit(Exit::Io)
    }
}

fn members(plans: &[ReplicaPlan]) -> Vec<MemberEntry> {
    plans
        .iter()
        .map(|plan| MemberEntry {
            name: plan.name.clone(),
            address: format!("http://{}", plan.peer),
        })
        .collect()
}

fn take_lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("dev.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| {
            Failure::new(Exit::Io, format!("cannot open {}: {error}", path.display()))
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // The number is only for the sentence that the next one gets.
            let pid = std::process::id().to_string();
            let _ = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes()));
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let message = format!(
                "{} is in use by another `tercet dev` (process {}); stop that one, or choose \
                 another --dir",
                dir.display(),
                pid.trim()
            );
            Err(Failure::new(Exit::Unavailable, message))
        }
        Err(error) => Err(error).or_exit(Exit::Io),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn a_directory_has_one_dev_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = Layout::prepare(dir.path()).unwrap();
        let refusal = Layout::prepare(dir.path()).unwrap_err();
        assert_eq!(refusal.exit, Exit::Unavailable);
        assert!(refusal.to_string().contains(&std::process::id().to_string()), "{refusal}");
        drop(held);
        Layout::prepare(dir.path()).unwrap();
    }

    #[test]
    fn the_configuration_it_writes_is_one_that_serve_takes() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let plans = [layout.plan(0, 5000), layout.plan(1, 5010)];
        layout.write_config(&plans[1], &plans).unwrap();
        let sources = Sources { file: Some(plans[1].config.clone()), ..Sources::default() };
        let config = load(&sources).unwrap();
        assert_eq!(config.node.name, "tercet-1");
        assert_eq!(config.cluster.members.len(), 2);
        assert_eq!(config.peer_address(), "http://127.0.0.1:5011");
        assert_eq!(config.node.data_dir, plans[1].data_dir);
    }

    #[test]
    fn cluster_json_has_the_promised_shape() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let plans = [layout.plan(0, 5000)];
        layout.write_running(&plans, &[42]).unwrap();
        let text = std::fs::read(layout.running()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!([{
                "name": "tercet-0", "pid": 42, "registry": "127.0.0.1:5000",
                "peer": "127.0.0.1:5001", "ops": "127.0.0.1:5002", "webhook": "127.0.0.1:5003",
                "data_dir": plans[0].data_dir,
            }])
        );
        layout.forget_running().unwrap();
        layout.forget_running().unwrap();
    }
}
