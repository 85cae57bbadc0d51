//! The peer port, with mutual TLS as in production: strangers get nowhere, members get no further than they may.

use std::{fs, path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Identity, RequestBuilder};
use serde_json::Value;
use tercet_chaos::{Binary, Cluster, ClusterOptions, Image, random_bytes, wait_until, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Mutex,
};

use crate::{costs::Costs, leftovers::REPOSITORY};

const DEADLINE: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(60);
/// Garbage connections; more than the listener has places for one member.
const MANY: usize = 200;

/// Makes `NAME.pem` and `NAME.key` for a host, and the folder's authority if there is none.
async fn certificate(folder: &Path, name: &str, host: &str) -> Result<()> {
    let status = Command::new(Binary::locate()?.path())
        .args(["certs", "new", "--name", name, "--host", host, "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "tercet certs new for {name}: {status}");
    Ok(())
}

/// A cluster with a certificate for each replica.
async fn start() -> Result<Cluster> {
    let options = ClusterOptions::default().setting("limits", "header_timeout_ms", "3000");
    let mut cluster = Cluster::prepare(options).await?;
    let folder = cluster.folder().join("own");
    for index in 0..cluster.len() {
        let replica = cluster.replica(index);
        certificate(&folder, &replica.name, "127.0.0.1").await?;
        let mut text = fs::read_to_string(&replica.config)?;
        for other in 0..cluster.len() {
            let plain = &cluster.replica(other).peer;
            text = text.replace(plain.as_str(), &plain.replace("http://", "https://"));
        }
        let file = |name: &str| folder.join(name).display().to_string();
        text.push_str(&format!(
            "[peer.tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            file("ca.pem"),
            file(&format!("{}.pem", replica.name)),
            file(&format!("{}.key", replica.name)),
        ));
        fs::write(&replica.config, text)?;
    }
    for index in 0..cluster.len() {
        cluster.restart(index)?;
    }
    cluster.wait_ready(START).await?;
    Ok(cluster)
}

/// Who a client shows itself as.
enum As<'a> {
    Nobody,
    /// A certificate of a folder's authority.
    Holder {
        folder: &'a str,
        name: &'a str,
    },
}

/// A client that believes the cluster's own authority.
fn client(cluster: &Cluster, who: &As<'_>) -> Result<Client> {
    let folder = cluster.folder();
    let authority = Certificate::from_pem(&fs::read(folder.join("own/ca.pem"))?)?;
    let mut builder = Client::builder()
        .tls_certs_only([authority])
        .http1_only()
        .pool_max_idle_per_host(0)
        .no_proxy()
        .timeout(DEADLINE);
    if let As::Holder { folder: whose, name } = who {
        let file = |ending: &str| fs::read(folder.join(whose).join(format!("{name}.{ending}")));
        builder = builder.identity(Identity::from_pem(&[file("pem")?, file("key")?].concat())?);
    }
    Ok(builder.build()?)
}

fn peer_host(cluster: &Cluster, index: usize) -> String {
    cluster.replica(index).peer.trim_start_matches("http://").to_owned()
}

/// What every message between members carries.
struct Addressed {
    base: String,
    cluster_id: String,
    node_id: u64,
}

impl Addressed {
    async fn of(cluster: &Cluster, member: &Client, index: usize) -> Result<Self> {
        let base = format!("https://{}", peer_host(cluster, index));
        let hello: Value = member.get(format!("{base}/peer/hello")).send().await?.json().await?;
        let cluster_id = hello["cluster_id"].as_str().context("no cluster id")?.to_owned();
        let node_id = hello["node_id"].as_u64().context("no node id")?;
        Ok(Self { base, cluster_id, node_id })
    }

    fn post(&self, member: &Client, base: &str, path: &str) -> RequestBuilder {
        member
            .post(format!("{base}{path}"))
            .header("tercet-cluster-id", &self.cluster_id)
            .header("tercet-target-node", self.node_id)
    }

    async fn status(&self, member: &Client, path: &str, body: Vec<u8>) -> Result<u16> {
        let request = self.post(member, &self.base, path).body(body);
        Ok(request.send().await.with_context(|| path.to_owned())?.status().as_u16())
    }
}

/// The record envelope, after the page on the storage format.
fn sealed(schema: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let head: [&[u8]; 5] = [b"TCT1", &[1], &schema.to_le_bytes(), &[1], &length.to_le_bytes()];
    let mut bytes = [&head.concat(), payload].concat();
    // CRC-32C, bit by bit.
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    });
    bytes.extend(crc.to_le_bytes());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The message "propose that this tag be deleted", as a follower sends it to the leader.
fn delete_tag(repository: &str, tag: &str) -> Vec<u8> {
    sealed(206, &[&5_u32.to_le_bytes()[..], &text(repository), &text(tag)].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_answer() -> Result<()> {
    let cluster = start().await?;
    let costs = Costs::before(&cluster).await?;
    let base = format!("https://{}", peer_host(&cluster, 0));
    let other = cluster.folder().join("other");
    certificate(&other, "tercet-0", "127.0.0.1").await?;

    let member = client(&cluster, &As::Holder { folder: "own", name: "tercet-1" })?;
    ensure!(member.get(format!("{base}/peer/hello")).send().await?.status() == 200, "no hello");
    for (what, who) in [
        ("no certificate", As::Nobody),
        ("another authority", As::Holder { folder: "other", name: "tercet-0" }),
    ] {
        let stranger = client(&cluster, &who)?;
        for path in ["/peer/hello", "/peer/status", "/raft/vote", "/forward/v2/_catalog"] {
            let answer = stranger.get(format!("{base}{path}")).send().await;
            ensure!(answer.is_err(), "{what}: {path} got {answer:?}");
        }
    }
    // In plain, no more than a word that this is not the way.
    let plain = Client::builder().no_proxy().timeout(DEADLINE).build()?;
    let hello = format!("{}/peer/hello", base.replace("https://", "http://"));
    if let Ok(answer) = plain.get(hello).send().await {
        ensure!(answer.status() == 400, "plain HTTP got {answer:?}");
        let text = answer.text().await?;
        ensure!(!text.contains("cluster_id"), "plain HTTP got {text}");
    }

    // Bytes that are no handshake, the head of a record that never comes, and nothing at all.
    let garbage = random_bytes(1, 4_096);
    let mut sockets = Vec::new();
    for number in 0..MANY {
        let mut socket = TcpStream::connect(peer_host(&cluster, 0)).await?;
        let first: &[u8] = match number % 4 {
            0 => &garbage,
            1 => b"\x16\x03\x01\xff\xff\x01\x00\xff\xff\xff",
            2 => b"\xff\xff\xff\xff\xff\xff\xff\xff",
            _ => b"",
        };
        let _ = socket.write_all(first).await;
        sockets.push(socket);
    }
    costs.good_client(&cluster).await?;
    within("they are all cut", DEADLINE, async {
        for socket in &mut sockets {
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
        Ok(())
    })
    .await?;
    costs.check(&cluster, "strangers at the peer port").await?;
    cluster.wait_caught_up(1, DEADLINE).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_talk_nonsense_are_refused() -> Result<()> {
    let cluster = start().await?;
    let costs = Costs::before(&cluster).await?;
    let member = client(&cluster, &As::Holder { folder: "own", name: "tercet-1" })?;
    let to = Addressed::of(&cluster, &member, 0).await?;
    let before = cluster.status(0).await?;

    // Meant for another cluster, for another node, for nobody.
    let ask = |cluster_id: Option<&str>, node_id: u64| {
        let mut request = member.get(format!("{}/peer/status", to.base));
        if let Some(id) = cluster_id {
            request = request.header("tercet-cluster-id", id);
        }
        request.header("tercet-target-node", node_id).send()
    };
    ensure!(ask(Some(&to.cluster_id), to.node_id).await?.status() == 200);
    ensure!(ask(Some(&"f".repeat(32)), to.node_id).await?.status() == 409, "another cluster");
    ensure!(ask(Some(""), to.node_id).await?.status() == 409, "an empty cluster id");
    ensure!(ask(None, to.node_id).await?.status() == 409, "no cluster");
    ensure!(ask(Some(&to.cluster_id), to.node_id ^ 1).await?.status() == 421, "another node");

    let kinds = ["append", "vote", "pre-vote", "transfer-leader", "propose", "join"];
    let mut frames = vec![Vec::new(), b"TCT1".to_vec(), random_bytes(2, 100_000).to_vec()];
    // A length of 4 GiB, and a right envelope around rubbish and around a list of 4 G entries.
    frames.push(b"TCT1\x01\xc9\x00\x01\xff\xff\xff\xff".to_vec());
    for id in 201..=207 {
        frames.push(sealed(id, &[0xff; 64]));
        frames.push(sealed(id, &[&[0; 17][..], &u32::MAX.to_le_bytes(), &[0; 4]].concat()));
    }
    for kind in kinds {
        for frame in &frames {
            let status = to.status(&member, &format!("/raft/{kind}"), frame.clone()).await?;
            ensure!(status == 400, "{kind} with {frame:x?}: {status}");
        }
    }
    ensure!(to.status(&member, "/raft/nonsense", Vec::new()).await? == 404);
    // Larger than any message: refused by its announcement, and without one by its size.
    let huge = vec![0; (64 << 20) + 1];
    let request = to.post(&member, &to.base, "/raft/append").body(huge);
    match request.send().await {
        Ok(answer) => ensure!(answer.status() == 413, "64 MiB and a byte: {}", answer.status()),
        // Refused and closed while it was still being sent.
        Err(error) => ensure!(error.is_request() || error.is_body(), "{error:?}"),
    }
    // Snapshots: no head, a head of 4 GiB, of 4 MiB that does not come, rubbish.
    for stream in [
        Vec::new(),
        vec![0xff; 4],
        vec![0, 0x40, 0, 0, b'T'],
        [&100_u32.to_be_bytes()[..], &[7; 100]].concat(),
    ] {
        let status = to.status(&member, "/raft/snapshot", stream.clone()).await?;
        ensure!(status == 400, "a snapshot of {stream:x?}: {status}");
    }
    for path in [
        "/peer/blobs/sha256:..?size=1",
        "/peer/blobs/..%2f..%2fidentity.json?size=1",
        "/peer/sessions/..%2f..?repository=a&algorithm=sha256&offset=0",
        "/peer/sessions/0000000000000001-00000000000000000000000000000000?repository=..&algorithm=sha256&offset=0",
        "/peer/sessions/0000000000000001-00000000000000000000000000000000?repository=a&algorithm=md5&offset=0",
        "/peer/sessions/0000000000000001-00000000000000000000000000000000/finish?digest=sha256:&size=1",
    ] {
        ensure!(to.status(&member, path, b"x".to_vec()).await? == 400, "{path}");
    }
    // A blob that is not what its name says.
    let digest = tercet_chaos::sha256(b"right");
    let status =
        to.status(&member, &format!("/peer/blobs/{digest}?size=5"), b"wrong".to_vec()).await?;
    ensure!(status == 422, "a wrong blob: {status}");
    ensure!(!cluster.replica(0).blob_path(&digest)?.exists(), "a wrong blob is on disk");

    let after = cluster.status(0).await?;
    ensure!(after.term == before.term && after.leader == before.leader, "{before:?} {after:?}");
    costs.check(&cluster, "nonsense at the peer port").await?;
    let image = Image::random(1, &[1_000]);
    cluster.client(2)?.push_image(REPOSITORY, "after", &image).await?;
    cluster.shut_down().await
}

/// A message of another term, or recorded on the wire, decides nothing.
#[tokio::test(flavor = "multi_thread")]
async fn replayed_messages_change_nothing() -> Result<()> {
    let cluster = start().await?;
    let leader = cluster.leader().await?;
    let member = client(&cluster, &As::Holder { folder: "own", name: "tercet-1" })?;
    let to = Addressed::of(&cluster, &member, leader).await?;
    let registry = cluster.client(leader)?;
    let image = Image::random(1, &[1_000]);
    registry.push_image(REPOSITORY, "replayed", &image).await?;

    // A vote and a leader's heartbeat of term 0: answered with the present term, and forgotten.
    let before = cluster.status(leader).await?;
    let old =
        |committed: u8| [&0_u64.to_le_bytes()[..], &7_u64.to_le_bytes(), &[committed]].concat();
    let vote = sealed(202, &[&old(0)[..], &[0], &[0]].concat());
    let pre_vote = sealed(203, &[&old(0)[..], &[0], &[0]].concat());
    let heartbeat = sealed(201, &[&old(1)[..], &[0], &[0; 8], &[0]].concat());
    for _ in 0..10 {
        for (kind, message) in [("vote", &vote), ("pre-vote", &pre_vote), ("append", &heartbeat)] {
            let status = to.status(&member, &format!("/raft/{kind}"), message.clone()).await?;
            ensure!(status == 200, "an old {kind}: {status}");
        }
    }
    let after = cluster.status(leader).await?;
    ensure!(after.term == before.term && after.leader == before.leader, "{before:?} {after:?}");

    // A real message, through somebody who writes it down.
    let (proxy, recorded) = recorder(peer_host(&cluster, leader)).await?;
    let delete = delete_tag(REPOSITORY, "replayed");
    let answer = to.post(&member, &proxy, "/raft/propose").body(delete).send().await?;
    ensure!(answer.status() == 200, "the real message: {answer:?}");
    let gone = registry.get_manifest(REPOSITORY, "replayed").await?;
    gone.expect_error(404, "MANIFEST_UNKNOWN")?;
    registry.push_image(REPOSITORY, "replayed", &image).await?;
    let recorded = recorded.lock().await.clone();
    ensure!(recorded.len() > 500, "only {} bytes were recorded", recorded.len());
    for _ in 0..3 {
        let mut socket = TcpStream::connect(peer_host(&cluster, leader)).await?;
        let _ = socket.write_all(&recorded).await;
        within("the replay is cut", DEADLINE, async {
            let _ = socket.read_to_end(&mut Vec::new()).await;
            Ok(())
        })
        .await?;
    }
    registry.get_manifest(REPOSITORY, "replayed").await?.expect(200)?;
    cluster.shut_down().await
}

/// Passes one connection on to `target`, and writes down what the client sends. Answers its base URL.
async fn recorder(target: String) -> Result<(String, Arc<Mutex<Vec<u8>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("https://{}", listener.local_addr()?);
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&recorded);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(&target).await?.into_split();
        let back =
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            written.lock().await.extend_from_slice(&buffer[..read]);
            to_server.write_all(&buffer[..read]).await?;
        }
        drop(to_server);
        back.await?.map_err(anyhow::Error::from)
    });
    Ok((base, recorded))
}

/// The right authority, but the certificate is for another host: nobody talks to such a replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_certificate_for_another_host_is_not_reached() -> Result<()> {
    let mut cluster = start().await?;
    cluster.kill9(2)?;
    let own = cluster.folder().join("own");
    for ending in ["pem", "key"] {
        fs::remove_file(own.join(format!("tercet-2.{ending}")))?;
    }
    certificate(&own, "tercet-2", "192.0.2.7").await?;
    let logged = cluster.replica(0).log_text().len() + cluster.replica(1).log_text().len();
    cluster.restart(2)?;
    wait_until("it says hello", START, || async {
        cluster.status(2).await?;
        Ok(())
    })
    .await?;
    // The others lead and write, and what they write does not get there.
    let image = Image::random(1, &[1_000]);
    let others = cluster.client(0)?;
    let push = others.push_image(REPOSITORY, "without-it", &image);
    within("a push without it", DEADLINE, push).await?;
    let leader = wait_until("a leader among the others", DEADLINE, || async {
        let status = cluster.status(0).await?;
        ensure!(status.leader.is_some_and(|name| name != "tercet-2"), "no leader yet");
        cluster.status(0).await
    })
    .await?;
    let member = leader.member("tercet-2").context("tercet-2 is no member")?;
    ensure!(!member.reachable, "{member:?}");
    let behind = cluster.status(2).await?;
    ensure!(behind.applied < leader.applied, "it has followed: {behind:?} {leader:?}");
    // Anybody who wonders why finds the reason in a log.
    wait_until("a log names the certificate", DEADLINE, || async {
        let text = cluster.replica(0).log_text() + &cluster.replica(1).log_text();
        let new = text.len() > logged && text.contains("certificate");
        ensure!(new, "no word of a certificate: {text}");
        Ok(())
    })
    .await?;
    cluster.kill9(2)?;
    cluster.shut_down().await
}
