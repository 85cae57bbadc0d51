//! Connections that do nothing, or next to nothing: cut by a deadline, while good clients are served.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, ClusterOptions, Image, LargeBlob, Listener, wait_until, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    costs::{Costs, metric, one_replica},
    leftovers::REPOSITORY,
};

/// Every deadline of the replicas here is some seconds; far beyond any of them.
const CUT_WITHIN: Duration = Duration::from_secs(30);
const PUSHED_WITHIN: Duration = Duration::from_secs(20);
const DRIP: Duration = Duration::from_millis(100);
/// Attackers of each kind.
const MANY: usize = 100;
/// Pullers that do not read: each has as much on its way as the sockets take.
const PULLERS: usize = 20;
/// More than the sockets of both sides take.
const LARGE_BYTES: u64 = 48 * 1024 * 1024;

fn options() -> ClusterOptions {
    one_replica()
        .setting("limits", "first_byte_timeout_ms", "1500")
        .setting("limits", "header_timeout_ms", "1500")
        .setting("limits", "idle_timeout_ms", "3000")
        .setting("limits", "write_stall_ms", "3000")
}

/// Sends `first`, then drips while the other side takes it.
async fn drip(mut socket: TcpStream, first: Arc<str>) -> Result<()> {
    socket.write_all(first.as_bytes()).await?;
    while socket.write_all(b"x").await.is_ok() {
        tokio::time::sleep(DRIP).await;
    }
    Ok(())
}

/// Sends `first`, then nothing, and reads until the other side closes.
async fn fall_silent(mut socket: TcpStream, first: Arc<str>) -> Result<()> {
    socket.write_all(first.as_bytes()).await?;
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = socket.read_to_end(&mut bytes).await;
    Ok(())
}

type Attackers = JoinSet<Result<()>>;

/// Starts so many attackers, each on a connection of its own. They connect one by one: were they more at once
/// than the kernel queues, it would be the kernel that they wait for.
async fn attack<F, Fut>(
    attackers: &mut Attackers,
    address: SocketAddr,
    count: usize,
    one: F,
) -> Result<()>
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    for _ in 0..count {
        attackers.spawn(one(TcpStream::connect(address).await?));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_slow_connections_are_cut_and_good_clients_served() -> Result<()> {
    let cluster = Cluster::start_with(options()).await?;
    let client = cluster.client(0)?;
    let large = LargeBlob::new(1, LARGE_BYTES);
    client.push_large(REPOSITORY, &large).await?;
    let costs = Costs::before(&cluster).await?;
    let address: SocketAddr = cluster.registry_host(0).parse()?;

    let mut attackers = Attackers::new();
    let text = |text: &str| -> Arc<str> { Arc::from(text) };
    let (nothing, header) = (text(""), text("GET /v2/ HTTP/1.1\r\nHost: registry\r\nX-Slow: "));
    let idle = text("GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n");
    attack(&mut attackers, address, MANY, |socket| fall_silent(socket, Arc::clone(&nothing)))
        .await?;
    attack(&mut attackers, address, MANY, |socket| fall_silent(socket, Arc::clone(&idle))).await?;
    attack(&mut attackers, address, MANY, |socket| drip(socket, Arc::clone(&header))).await?;
    // HTTP/2: a preface and no more; half a frame.
    let preface = text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    attack(&mut attackers, address, MANY, |socket| fall_silent(socket, Arc::clone(&preface)))
        .await?;
    // Bodies are judged over half a minute: they are still there when the good clients come.
    let upload = client.open_upload(REPOSITORY).await?;
    let body = text(&format!(
        "PATCH {} HTTP/1.1\r\nHost: registry\r\nContent-Length: 1000000\r\n\r\n",
        upload.location
    ));
    let mut bodies = Attackers::new();
    attack(&mut bodies, address, 1, |socket| drip(socket, Arc::clone(&body))).await?;
    let manifest = text(&format!(
        "PUT /v2/{REPOSITORY}/manifests/slow HTTP/1.1\r\nHost: registry\r\nContent-Length: 1000000\r\n\r\n"
    ));
    attack(&mut bodies, address, MANY, |socket| drip(socket, Arc::clone(&manifest))).await?;
    // Pulls that nobody reads.
    let mut pullers = Vec::new();
    for _ in 0..PULLERS {
        let mut socket = TcpStream::connect(address).await?;
        let path = format!("/v2/{REPOSITORY}/blobs/{}", large.digest());
        let request = format!("GET {path} HTTP/1.1\r\nHost: registry\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        pullers.push(socket);
    }

    for seed in 0..5 {
        let image = Image::random(seed, &[100_000]);
        let push = client.push_image(REPOSITORY, "good", &image);
        within("a good push between slow connections", PUSHED_WITHIN, push).await?;
        costs.good_client(&cluster).await?;
    }
    within("the slow ones are cut", CUT_WITHIN, async {
        while let Some(ended) = attackers.join_next().await {
            ended??;
        }
        Ok(())
    })
    .await?;
    let cut = |reason: &str| {
        format!("tercet_connections_cut_total{{listener=\"registry\",reason=\"{reason}\"}}")
    };
    for (reason, wanted) in [("first_byte", MANY), ("header", MANY), ("write_stall", PULLERS)] {
        wait_until(&format!("{wanted} are cut for {reason}"), CUT_WITHIN, || async {
            let found = metric(&cluster, &cut(reason)).await?;
            ensure!(found >= wanted as u64, "{found} so far");
            Ok(())
        })
        .await?;
    }
    bodies.shutdown().await;
    drop(pullers);
    costs.check(&cluster, "slow connections").await?;
    cluster.shut_down().await
}

/// A handshake that stops half-way holds a connection no longer than a header that does.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stall_are_cut() -> Result<()> {
    let cluster = Cluster::start_with(options().tls(Listener::Registry)).await?;
    let costs = Costs::before(&cluster).await?;
    let address: SocketAddr = cluster.registry_host(0).parse()?;
    let mut attackers = Attackers::new();
    // The head of a record that announces a ClientHello of 512 bytes; and plain HTTP.
    for first in
        ["", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        attack(&mut attackers, address, MANY, |socket| fall_silent(socket, Arc::from(first)))
            .await?;
    }
    costs.good_client(&cluster).await?;
    within("handshakes that stall are cut", CUT_WITHIN, async {
        while let Some(ended) = attackers.join_next().await {
            ended??;
        }
        Ok(())
    })
    .await?;
    costs.check(&cluster, "stalled handshakes").await?;
    cluster.shut_down().await
}
