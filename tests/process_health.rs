//! The ops listener of a replica that is starting, and of one replica that is its own cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes.
const HANG: Duration = Duration::from_secs(60);

struct Replica {
    child: Child,
    ops: String,
    registry: String,
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replica {
    fn start(dir: &Path, members: &[&str]) -> Self {
        let [registry, peer, ops] = free_addresses();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TERCET_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--exit-with-parent", "--name", "tercet-0", "--data-dir"]);
        command.arg(dir).args(["--listen", &registry, "--peer-listen", &peer]);
        command.args(["--ops-listen", &ops]);
        if !members.is_empty() {
            command.args(["--member", &format!("tercet-0=http://{peer}")]);
        }
        for member in members {
            command.args(["--member", member]);
        }
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        Self { child, ops, registry }
    }

    async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < HANG, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Three ports that were free a moment ago.
fn free_addresses() -> [String; 3] {
    let sockets: [_; 3] =
        std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().to_string())
}

async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((code, body))
}

async fn wait_for(address: &str, path: &str, code: u16) -> String {
    let began = Instant::now();
    loop {
        let answer = get(address, path).await;
        if let Some((seen, body)) = &answer
            && *seen == code
        {
            return body.clone();
        }
        assert!(began.elapsed() < HANG, "{path} never answers {code}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_replica_that_waits_for_others_lives_says_why_and_refuses_clients() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody answers at port 1.
    let mut replica = Replica::start(dir.path(), &["tercet-1=http://127.0.0.1:1"]);
    assert_eq!(wait_for(&replica.ops, "/livez", 200).await, "alive\n");
    let began = Instant::now();
    loop {
        let reason = wait_for(&replica.ops, "/readyz", 503).await;
        if reason.contains("tercet-1") {
            break;
        }
        assert!(began.elapsed() < HANG, "{reason}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for(&replica.ops, "/status", 503).await;
    let refusal = wait_for(&replica.registry, "/v2/", 503).await;
    assert!(refusal.contains("UNAVAILABLE"), "{refusal}");
    assert!(wait_for(&replica.ops, "/metrics", 200).await.contains("tercet_build_info"));
    drop(replica.child.stdin.take());
    assert!(replica.ended().await.success());
}

#[tokio::test]
async fn one_replica_becomes_ready_and_drains_when_its_parent_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::start(dir.path(), &[]);
    wait_for(&replica.ops, "/readyz", 200).await;
    let began = Instant::now();
    // It writes a key and its feature level when it has begun to lead.
    let status = loop {
        let status = wait_for(&replica.ops, "/status", 200).await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        if status["members"][0]["lag"] == 0 {
            break status;
        }
        assert!(began.elapsed() < HANG, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status["leader"], "tercet-0", "{status}");
    assert_eq!(status["members"][0]["reachable"], true, "{status}");
    let page = wait_for(&replica.ops, "/", 200).await;
    assert!(page.contains("<td>tercet-0</td>"), "{page}");
    let metrics = wait_for(&replica.ops, "/metrics", 200).await;
    assert!(metrics.contains("tercet_raft_is_leader 1"), "{metrics}");
    wait_for(&replica.registry, "/v2/", 200).await;
    drop(replica.child.stdin.take());
    assert!(replica.ended().await.success());
}

#[tokio::test]
async fn sigterm_drains_and_a_second_process_on_the_same_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::start(dir.path(), &[]);
    wait_for(&replica.ops, "/readyz", 200).await;
    let mut second = Replica::start(dir.path(), &[]);
    assert_eq!(second.ended().await.code(), Some(69));
    let pid = rustix::process::Pid::from_child(&replica.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(replica.ended().await.success());
}
