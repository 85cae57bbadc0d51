//! Three members of Debian's etcd on loopback, to compare with.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    ports::PortBlock,
    scratch::Scratch,
    tools::Tool,
    wait::wait_until,
    workload::{ATTEMPT_PATIENCE, first_success},
};

pub(crate) const MEMBERS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);
/// As between two writes of one client of the registry.
const PAUSE: Duration = Duration::from_millis(10);
const WRITERS: usize = 3;
/// Of each writer, before a kill.
const WRITES: usize = 30;

/// A cluster with default timing: a heartbeat every 100 ms, an election after 1 s.
#[derive(Debug)]
pub(crate) struct Etcd {
    members: Vec<Option<Child>>,
    http: reqwest::Client,
    ports: PortBlock,
    scratch: Scratch,
    killed: Option<usize>,
}

impl Etcd {
    /// Starts it and waits until a write succeeds.
    pub(crate) async fn start() -> Result<Self> {
        let http = reqwest::Client::builder().timeout(ATTEMPT_PATIENCE).build()?;
        let members = (0..MEMBERS).map(|_| None).collect();
        let mut etcd = Self {
            members,
            http,
            ports: PortBlock::reserve()?,
            scratch: Scratch::new()?,
            killed: None,
        };
        for index in 0..MEMBERS {
            etcd.start_member(index)?;
        }
        wait_until("etcd takes writes", DEADLINE, || etcd.put(0)).await?;
        Ok(etcd)
    }

    fn start_member(&mut self, index: usize) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.path().join(format!("etcd-{index}.log")))?;
        let client = self.client_url(index);
        let peer = self.peer_url(index);
        let all: Vec<String> =
            (0..MEMBERS).map(|member| format!("etcd-{member}={}", self.peer_url(member))).collect();
        let mut command = Command::new(Tool::find("setpriv")?.path());
        command.args(["--pdeathsig", "KILL"]).arg(Tool::find("etcd")?.path());
        command.args(["--name", &format!("etcd-{index}"), "--data-dir"]);
        command.arg(self.scratch.path().join(format!("etcd-{index}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start etcd")?;
        if let Some(member) = self.members.get_mut(index) {
            *member = Some(child);
        }
        Ok(())
    }

    fn client_url(&self, index: usize) -> String {
        format!("http://{}", self.address(index))
    }

    /// `host:port` where a member's clients go.
    pub(crate) fn address(&self, index: usize) -> String {
        format!("127.0.0.1:{}", usize::from(self.ports.first()) + 2 * index)
    }

    /// The processes of its members.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().flatten().map(Child::id).collect()
    }

    fn peer_url(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", usize::from(self.ports.first()) + 2 * index + 1)
    }

    /// One write through a member.
    async fn put(&self, index: usize) -> Result<()> {
        // "key" and three times as much as a value, in base64.
        let body = json!({ "key": "a2V5", "value": "dmFsdWV2YWx1ZXZhbHVl" });
        self.call(index, "kv/put", &body).await?;
        Ok(())
    }

    async fn call(&self, index: usize, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/v3/{path}", self.client_url(index));
        let answer = self.http.post(&url).json(body).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Several clients write, through all members.
    pub(crate) async fn write_for_a_while(&self) -> Result<usize> {
        let writers = (0..WRITERS).map(|writer| async move {
            let mut done = 0;
            let mut number = writer;
            while done < WRITES {
                number += 1;
                if self.put(number % MEMBERS).await.is_ok() {
                    done += 1;
                }
                tokio::time::sleep(PAUSE).await;
            }
            done
        });
        let all = tokio::time::timeout(DEADLINE, join_all(writers)).await;
        Ok(all.context("etcd takes too few writes")?.into_iter().sum())
    }

    /// Which member leads.
    pub(crate) async fn leader(&self) -> Result<usize> {
        for index in 0..MEMBERS {
            let status = self.call(index, "maintenance/status", &json!({})).await?;
            if status.get("leader") == status.pointer("/header/member_id") {
                return Ok(index);
            }
        }
        anyhow::bail!("no member says that it leads")
    }

    /// Kills the leader while clients write; how long until one of the others takes a write.
    pub(crate) async fn fail_over(&mut self) -> Result<Duration> {
        let survivors = self.kill_leader().await?;
        let this = &*self;
        first_success(survivors.len(), async |number| match survivors.get(number) {
            Some(index) => this.put(*index).await.is_ok(),
            None => false,
        })
        .await
    }

    /// `kill -9` of the leader. Returns the other members.
    pub(crate) async fn kill_leader(&mut self) -> Result<Vec<usize>> {
        let leader = wait_until("etcd has a leader", DEADLINE, || self.leader()).await?;
        let child = self.members.get_mut(leader).and_then(Option::take);
        let mut child = child.context("the leader has no process")?;
        child.kill()?;
        child.wait()?;
        self.killed = Some(leader);
        Ok((0..MEMBERS).filter(|index| *index != leader).collect())
    }

    /// Starts the killed member again, and waits until every member takes writes.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        if let Some(index) = self.killed.take() {
            self.start_member(index)?;
        }
        for index in 0..MEMBERS {
            wait_until("a member takes writes again", DEADLINE, || self.put(index)).await?;
        }
        Ok(())
    }

    /// Ends all members.
    pub(crate) fn stop(mut self) -> Result<()> {
        ensure!(self.members.iter().all(Option::is_some), "a member does not run");
        self.kill();
        Ok(())
    }

    fn kill(&mut self) {
        for child in self.members.iter_mut().filter_map(Option::as_mut) {
            // One that ended already is what we want.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
