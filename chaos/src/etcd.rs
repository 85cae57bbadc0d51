//! Three members of Debian's etcd on loopback, to compare with.

use std::{
    cell::Cell,
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
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
    api: Api,
    ports: PortBlock,
    scratch: Scratch,
    killed: Option<usize>,
}

/// What its clients need to know of it.
#[derive(Clone, Debug)]
struct Api {
    http: reqwest::Client,
    first_port: u16,
}

impl Etcd {
    /// Starts it and waits until a write succeeds.
    pub(crate) async fn start() -> Result<Self> {
        let http = reqwest::Client::builder().timeout(ATTEMPT_PATIENCE).build()?;
        let members = (0..MEMBERS).map(|_| None).collect();
        let ports = PortBlock::reserve()?;
        let api = Api { http, first_port: ports.first() };
        let mut etcd = Self { members, api, ports, scratch: Scratch::new()?, killed: None };
        for index in 0..MEMBERS {
            etcd.start_member(index)?;
        }
        wait_until("etcd takes writes", DEADLINE, || etcd.api.put(0)).await?;
        Ok(etcd)
    }

    fn start_member(&mut self, index: usize) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.path().join(format!("etcd-{index}.log")))?;
        let mut command = Command::new(Tool::find("setpriv")?.path());
        command.args(["--pdeathsig", "KILL"]).arg(Tool::find("etcd")?.path());
        command.args(self.arguments(index));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start etcd")?;
        if let Some(member) = self.members.get_mut(index) {
            *member = Some(child);
        }
        Ok(())
    }

    /// What a member is started with.
    pub(crate) fn arguments(&self, index: usize) -> Vec<String> {
        let (name, client, peer) =
            (format!("etcd-{index}"), self.api.url(index), self.peer_url(index));
        let folder = self.scratch.path().join(&name).display().to_string();
        let all: Vec<String> =
            (0..MEMBERS).map(|member| format!("etcd-{member}={}", self.peer_url(member))).collect();
        [
            ("--name", name),
            ("--data-dir", folder),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", all.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// `host:port` where a member's clients go.
    pub(crate) fn address(&self, index: usize) -> String {
        self.api.address(index)
    }

    /// The processes of its members.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().flatten().map(Child::id).collect()
    }

    fn peer_url(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", usize::from(self.ports.first()) + 2 * index + 1)
    }

    /// Several clients write, through all members.
    pub(crate) async fn write_for_a_while(&self) -> Result<usize> {
        let done = Done::default();
        let writers = writers(&done, WRITES, async |_, number| self.api.put_any(number).await);
        tokio::time::timeout(DEADLINE, writers).await.context("etcd takes too few writes")?;
        Ok(done.iter().map(Cell::get).sum())
    }

    /// Which member leads.
    pub(crate) async fn leader(&self) -> Result<usize> {
        for index in 0..MEMBERS {
            let status = self.api.call(index, "maintenance/status", &json!({})).await?;
            if status.get("leader") == status.pointer("/header/member_id") {
                return Ok(index);
            }
        }
        bail!("no member says that it leads")
    }

    /// The same, as soon as one does.
    pub(crate) async fn settled_leader(&self) -> Result<usize> {
        wait_until("etcd has a leader", DEADLINE, || self.leader()).await
    }

    /// Kills the leader; how long until one of the others takes a write.
    pub(crate) async fn fail_over(&mut self) -> Result<Duration> {
        let survivors = self.kill_leader().await?;
        let api = &self.api;
        first_success(survivors.len(), async |number| match survivors.get(number) {
            Some(index) => api.put(*index).await.is_ok(),
            None => false,
        })
        .await
    }

    /// The same while clients write, through all members, before the kill and until the end.
    pub(crate) async fn fail_over_under_writes(&mut self) -> Result<Duration> {
        let api = self.api.clone();
        under_writes(async |_, number| api.put_any(number).await, self.fail_over()).await
    }

    /// `kill -9` of the leader. Returns the other members.
    pub(crate) async fn kill_leader(&mut self) -> Result<Vec<usize>> {
        let leader = self.settled_leader().await?;
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
            wait_until("a member takes writes again", DEADLINE, || self.api.put(index)).await?;
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

impl Api {
    fn address(&self, index: usize) -> String {
        format!("127.0.0.1:{}", usize::from(self.first_port) + 2 * index)
    }

    fn url(&self, index: usize) -> String {
        format!("http://{}", self.address(index))
    }

    /// One write through a member.
    async fn put(&self, index: usize) -> Result<()> {
        // "key" and three times as much as a value, in base64.
        let body = json!({ "key": "a2V5", "value": "dmFsdWV2YWx1ZXZhbHVl" });
        self.call(index, "kv/put", &body).await?;
        Ok(())
    }

    /// The same through the member whose turn it is with this write.
    async fn put_any(&self, number: usize) -> bool {
        self.put(number % MEMBERS).await.is_ok()
    }

    async fn call(&self, index: usize, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/v3/{path}", self.url(index));
        let answer = self.http.post(&url).json(body).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }
}

/// How many writes of each writer were acknowledged.
type Done = [Cell<usize>; WRITERS];

/// Does something while clients write: it begins when each of them has `WRITES` acknowledged writes, and they go on
/// until it ends. `write` makes the write of this number of this writer, and says whether it was acknowledged. If it
/// was not, the writer goes on with its next one.
pub(crate) async fn under_writes<T>(
    write: impl AsyncFn(usize, usize) -> bool,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let done = Done::default();
    let enough = async {
        while done.iter().any(|done| done.get() < WRITES) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let work = async {
        let enough = tokio::time::timeout(DEADLINE, enough).await;
        enough.context("too few writes are acknowledged")?;
        work.await
    };
    tokio::select! {
        result = work => result,
        () = writers(&done, usize::MAX, &write) => bail!("the writers have ended"),
    }
}

/// Clients that write one after the other, each until so many of its writes were acknowledged.
async fn writers(done: &Done, most: usize, write: impl AsyncFn(usize, usize) -> bool) {
    let write = &write;
    join_all(done.iter().enumerate().map(|(writer, done)| async move {
        let mut number = writer;
        while done.get() < most {
            number += 1;
            if write(writer, number).await {
                done.set(done.get() + 1);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }))
    .await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn clients_write_before_the_work_and_until_its_end_whatever_becomes_of_their_writes() {
        let (tried, failing) = (Cell::new(0), Cell::new(false));
        let write = async |_, _| {
            tried.set(tried.get() + 1);
            !failing.get()
        };
        let work = async {
            let before = tried.get();
            failing.set(true);
            tokio::time::sleep(10 * PAUSE).await;
            Ok((before, tried.get()))
        };
        let (before, after) = under_writes(write, work).await.unwrap();
        assert!(before >= WRITERS * WRITES, "{before}");
        assert!(after > before, "{before} {after}");
    }

    #[tokio::test]
    async fn a_real_etcd_takes_writes_again_after_the_death_of_its_leader() {
        let mut etcd = Etcd::start().await.unwrap();
        let dead = etcd.settled_leader().await.unwrap();
        let took = etcd.fail_over_under_writes().await.unwrap();
        assert!(took < DEADLINE && etcd.killed == Some(dead), "{took:?} {:?}", etcd.killed);
        etcd.restart().await.unwrap();
        assert_ne!(etcd.settled_leader().await.unwrap(), dead);
        etcd.stop().unwrap();
    }

    #[tokio::test]
    async fn writers_end_when_enough_was_acknowledged() {
        let done = Done::default();
        writers(&done, 2, async |_, number| number % 2 == 0).await;
        assert!(done.iter().all(|done| done.get() == 2), "{done:?}");
    }
}
