//! Row 43: strangers at the port where only replicas talk.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt as _;
use reqwest::{Certificate, Client, Identity};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    binary::Binary,
    content::random_bytes,
    options::ClusterOptions,
    tls::Authority,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "strange-peers",
    rows: &[43],
    hypothesis: "at the peer listener a stranger gets no answer and costs nothing, and a member gets no further with \
                 nonsense than to be told so",
    fault: "each replica is a host of its own; connections to their peer listeners without a certificate, with one of \
            another authority, with garbage, with frames that announce 4 GiB, and with nothing at all",
    given: "three replicas that talk TLS to each other; images are pushed and pulled, and tags move",
    abort: "a stranger gets an answer, or a replica's memory grows with what a frame announces",
    recovery: "nothing to recover from: leader and term stay what they were, and the connections are cut within 30 s",
    rollback: "stop the strangers",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I7, Invariant::I9],
    fires: &["no certificate", "another authority", "garbage", "4 GiB announced"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

const DEADLINE: Duration = Duration::from_secs(10);
/// Until a replica cuts a connection that says nothing sensible.
const CUT_DEADLINE: Duration = Duration::from_secs(40);
/// What no replica may have resident, in bytes.
const RESIDENT_MAX: u64 = 256 << 20;
/// A frame as the page on the storage format writes it, whose payload is announced as 4 GiB.
const HUGE_FRAME: &[u8] = b"TCT1\x01\xc9\x00\x01\xff\xff\xff\xff";

async fn body(run: &mut Run) -> Result<()> {
    run.bounds.memory_max = RESIDENT_MAX;
    // What strangers do not say in this time they need not say any more.
    let options = ClusterOptions::default().setting("limits", "header_timeout_ms", "3000").setting(
        "limits",
        "first_byte_timeout_ms",
        "3000",
    );
    run.start(options).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 8 << 20))).await?;
    let own = run.cluster()?.authority()?.clone();
    let folder = run.cluster()?.folder().join("strangers");
    let other = Authority::new(&Binary::locate()?, &folder, std::net::Ipv4Addr::LOCALHOST.into());
    let forged = other.issue("tercet-0").await?.identity()?;
    let member = own.issue("a-member").await?.identity()?;
    for _ in 0..run.of(2, 20) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        let peer = run.cluster()?.replica(victim).peer.clone();
        let leader = run.leader().await?;
        let term = run.status(leader).await?.term;

        refused(&client(&own.certificate_path(), None)?, &peer).await?;
        run.faults.injected("no certificate", &format!("at replica {victim}"));
        refused(&client(&own.certificate_path(), Some(forged.clone()))?, &peer).await?;
        run.faults.injected("another authority", &format!("at replica {victim}"));

        let count = run.of(40, 200);
        let garbage =
            run.faults.begin("garbage", &format!("{count} connections, replica {victim}"));
        let mut sockets = Vec::new();
        for number in 0..count {
            let seed = run.random.random();
            sockets.push(garbage_from(&peer, number, seed).await?);
        }
        nonsense_of_a_member(&client(&own.certificate_path(), Some(member.clone()))?, &peer)
            .await?;
        run.faults.injected("4 GiB announced", &format!("to replica {victim}, by a member"));
        run.work().await?;
        for mut socket in sockets {
            let cut =
                async { while socket.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {} };
            let in_time = tokio::time::timeout(CUT_DEADLINE, cut).await;
            in_time.with_context(|| {
                format!("replica {victim} keeps a stranger for {CUT_DEADLINE:?}")
            })?;
        }
        run.faults.end(garbage);

        let now = run.leader().await?;
        let after = run.status(now).await?.term;
        run.faults.note(&format!("term {term} before, {after} after"));
        // A busy machine may hold an election of its own; strangers call for none.
        ensure!(after <= term + 1, "the term went from {term} to {after}");
    }
    run.healed();
    run.cluster()?.wait_ready(HEAL_DEADLINE).await
}

fn client(authority: &std::path::Path, identity: Option<Identity>) -> Result<Client> {
    let mut builder = Client::builder()
        .tls_certs_only([Certificate::from_pem(&fs::read(authority)?)?])
        .http1_only()
        .pool_max_idle_per_host(0)
        .no_proxy()
        .timeout(DEADLINE);
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    Ok(builder.build()?)
}

/// A stranger gets no answer to anything.
async fn refused(stranger: &Client, peer: &str) -> Result<()> {
    for path in ["/peer/hello", "/peer/status", "/raft/vote", "/forward/v2/_catalog"] {
        if let Ok(answer) = stranger.get(format!("{peer}{path}")).send().await {
            bail!("{path} of {peer} was answered with {}", answer.status());
        }
    }
    Ok(())
}

/// A connection that begins like nothing in particular.
async fn garbage_from(peer: &str, number: u32, seed: u64) -> Result<TcpStream> {
    let address: SocketAddr = peer.trim_start_matches("https://").parse()?;
    let connect = tokio::time::timeout(DEADLINE, TcpStream::connect(address));
    let mut socket = connect.await.with_context(|| format!("{peer} takes no connection"))??;
    let garbage = random_bytes(seed, 4_096);
    let first: &[u8] = match number % 4 {
        0 => &garbage,
        // The head of a TLS record, and of a frame, of a length that never comes.
        1 => b"\x16\x03\x01\xff\xff\x01\x00\xff\xff\xff",
        2 => HUGE_FRAME,
        _ => b"",
    };
    // It may be cut already.
    let _ = socket.write_all(first).await;
    Ok(socket)
}

/// Who has a right certificate is told what is wrong with what he says.
async fn nonsense_of_a_member(member: &Client, peer: &str) -> Result<()> {
    let hello: Value = member.get(format!("{peer}/peer/hello")).send().await?.json().await?;
    let cluster = hello.get("cluster_id").and_then(Value::as_str).context("no cluster id")?;
    let node = hello.get("node_id").and_then(Value::as_u64).context("no node id")?;
    for (path, body) in [
        ("/raft/append", HUGE_FRAME.to_vec()),
        ("/raft/vote", HUGE_FRAME.to_vec()),
        ("/raft/propose", random_bytes(node, 10_000)),
        // The length of a snapshot's head.
        ("/raft/snapshot", vec![0xff; 4]),
    ] {
        let request = member
            .post(format!("{peer}{path}"))
            .header("tercet-cluster-id", cluster)
            .header("tercet-target-node", node);
        let status = request.body(body).send().await?.status();
        ensure!(status == 400, "{path} of nonsense was answered with {status}");
    }
    Ok(())
}
