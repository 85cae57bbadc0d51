//! `tercet-chaos load` against a server whose every answer is known, and against real replicas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Cluster, ClusterOptions, Figures, Listener, LoadReport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
};

/// What the server says to the request of a number; the first is that of the preparation.
type Script = fn(u64) -> Step;

enum Step {
    Answer(&'static [u8]),
    /// The same, but not at once.
    AnswerAfter(Duration, &'static [u8]),
    /// These bytes, and then the end of the connection.
    Cut(&'static [u8]),
}

const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
    4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// A server that follows a script. It ends with the test.
struct Server {
    url: String,
    seen: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(script: Script) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, script, Arc::clone(&count)));
            }
        });
        Ok(Self { url, seen, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, script: Script, seen: Arc<AtomicU64>) -> Option<()> {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            (socket.read_buf(&mut request).await.ok()? > 0).then_some(())?;
        }
        request.clear();
        let answer = match script(seen.fetch_add(1, Ordering::SeqCst)) {
            Step::Answer(answer) => answer,
            Step::AnswerAfter(time, answer) => {
                tokio::time::sleep(time).await;
                answer
            }
            Step::Cut(answer) => {
                socket.write_all(answer).await.ok()?;
                return None;
            }
        };
        socket.write_all(answer).await.ok()?;
    }
}

/// Calls the program. Returns its exit code, and its report if it has written one.
async fn load(arguments: &[&[&str]]) -> Result<(i32, Option<LoadReport>)> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("load.json");
    let output = Command::new(env!("CARGO_BIN_EXE_tercet-chaos"))
        .arg("load")
        .args(arguments.concat())
        .arg("--json")
        .arg(&json)
        .output()
        .await
        .context("start tercet-chaos")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().context("it ends by itself")?;
    let report = match std::fs::read_to_string(&json) {
        Ok(text) => Some(serde_json::from_str(&text)?),
        Err(_) => None,
    };
    Ok((code, report))
}

/// The figures of the only target.
fn only(report: Option<LoadReport>) -> Result<Figures> {
    let mut report = report.context("it has written no report")?;
    ensure!(report.targets.len() == 1, "{} targets", report.targets.len());
    Ok(report.targets.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_and_every_byte_is_counted() -> Result<()> {
    for script in [(|_| Step::Answer(SIZED)) as Script, |_| Step::Answer(CHUNKED)] {
        let server = Server::start(script).await?;
        let target = format!("known={}", server.url);
        let bounds = ["--path", "/any", "--requests", "200", "--warm-up", "0", "--threads", "1"];
        let (code, report) =
            load(&[&["pull", "--target", &target, "--clients", "3"], &bounds]).await?;
        let figures = only(report)?;
        ensure!(code == 0 && figures.target == "known", "{code}: {figures:?}");
        ensure!(figures.operations == 200 && figures.errors.is_empty(), "{figures:?}");
        ensure!(figures.bytes_received == 2_000 && figures.connections == 3, "{figures:?}");
        ensure!(figures.latency.count == 200 && figures.kinds["pull"].operations == 200);
        ensure!(figures.operations_per_second > 0.0 && figures.latency.max_us > 0, "{figures:?}");
        // And one of the preparation.
        ensure!(server.seen.load(Ordering::SeqCst) == 201);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_measured_in_turn() -> Result<()> {
    let one = Server::start(|_| Step::Answer(SIZED)).await?;
    let two = Server::start(|_| Step::Answer(CHUNKED)).await?;
    let three = Server::start(|_| Step::Answer(SIZED)).await?;
    let targets = format!("one={},rest={}+{}", one.url, two.url, three.url);
    let bounds = ["--requests", "10", "--warm-up", "0", "--clients", "2", "--rounds", "3"];
    let call = ["pull", "--target", &targets, "--path", "/any", "--threads", "1"];
    let (code, report) = load(&[&call, &bounds]).await?;
    let report = report.context("it has written no report")?;
    ensure!(code == 0);
    let rounds: Vec<(usize, &str)> =
        report.rounds.iter().map(|round| (round.round, round.figures.target.as_str())).collect();
    let wanted: [(usize, &str); 6] =
        [(1, "one"), (1, "rest"), (2, "rest"), (2, "one"), (3, "one"), (3, "rest")];
    ensure!(rounds == wanted, "{rounds:?}");
    ensure!(report.targets.iter().all(|figures| figures.operations == 30), "{report:?}");
    // Clients spread over the servers of a target.
    let seen = [&two, &three].map(|server| server.seen.load(Ordering::SeqCst));
    ensure!(seen.iter().all(|seen| *seen > 1) && seen.iter().sum::<u64>() == 32, "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_kind_and_leave_no_figure() -> Result<()> {
    let server = Server::start(|number| match number {
        0 => Step::Answer(SIZED),
        number if number.is_multiple_of(2) => Step::Answer(REFUSED),
        _ => Step::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012"),
    })
    .await?;
    let bounds = ["--path", "/any", "--requests", "20", "--warm-up", "0", "--clients", "1"];
    let (code, report) = load(&[&["pull", "--target", &server.url], &bounds]).await?;
    let figures = only(report)?;
    ensure!(code == 2, "{code}");
    ensure!(figures.errors["status 503"] == 10 && figures.errors["closed"] == 10, "{figures:?}");
    ensure!(figures.operations == 20 && figures.latency.count == 0, "{figures:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_than_that_which_is_known_is_a_violation() -> Result<()> {
    let server = Server::start(|number| match number {
        0 => Step::Answer(SIZED),
        _ => Step::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012345678"),
    })
    .await?;
    let bounds = ["--path", "/any", "--requests", "5", "--warm-up", "0"];
    let (code, report) = load(&[&["pull", "--target", &server.url], &bounds]).await?;
    ensure!(code == 1 && only(report)?.errors["wrong length"] == 5, "{code}");
    Ok(())
}

/// A server that stands still for a while: only one request notices, but many more would have been sent meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_counts_what_a_standstill_has_kept_waiting() -> Result<()> {
    let server = Server::start(|number| match number {
        10 => Step::AnswerAfter(Duration::from_millis(600), SIZED),
        _ => Step::Answer(SIZED),
    })
    .await?;
    let pace = ["--rate", "100", "--seconds", "2", "--clients", "1", "--warm-up", "0"];
    let call = ["pull", "--target", &server.url, "--path", "/any"];
    let (code, report) = load(&[&call, &pace]).await?;
    let figures = only(report)?;
    ensure!(code == 0 && figures.operations == 200 && figures.unsent == 0, "{figures:?}");
    // 60 of 200 were due meanwhile, and have waited for up to 600 ms.
    ensure!(figures.latency.p90_us > 300_000, "{figures:?}");
    ensure!(figures.service.p90_us < 300_000 && figures.service.max_us > 590_000, "{figures:?}");
    Ok(())
}

/// A server that never catches up: what was not even sent is not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_counts_what_was_never_sent() -> Result<()> {
    let server = Server::start(|number| match number {
        0 => Step::Answer(SIZED),
        _ => Step::AnswerAfter(Duration::from_millis(100), SIZED),
    })
    .await?;
    let pace = ["--rate", "100", "--seconds", "1", "--clients", "1", "--warm-up", "0"];
    let call = ["pull", "--target", &server.url, "--path", "/any"];
    let (code, report) = load(&[&call, &pace]).await?;
    let figures = only(report)?;
    ensure!(code == 0 && figures.operations + figures.unsent == 100, "{figures:?}");
    ensure!(figures.unsent >= 80 && figures.latency.count == 100, "{figures:?}");
    ensure!(figures.operations_per_second <= 10.0, "{figures:?}");
    Ok(())
}

#[tokio::test]
async fn wrong_use_is_refused_before_anything_is_sent() -> Result<()> {
    let target = "http://127.0.0.1:9";
    for wrong in [
        &["dance", "--target", target][..],
        &["pull"],
        &["pull", "--target", "127.0.0.1:9"],
        &["pull", "--target", target, "--rate", "0"],
        &["pull", "--target", target, "--layers", "soon"],
        &["pull", "--target", target, "--layers", "1"],
        &["pull", "--target", target, "--path", "/a", "--verify"],
        &["manifest", "--target", target, "--path", "/a"],
        &["storm", "--target", target, "--rate", "5"],
        &["pull", "--target", target, "--existing", "untagged"],
        &["pull", "--target", "https://127.0.0.1:9"],
        &["pull", "--target", target, "--pid", "other=1"],
        &[],
    ] {
        let (code, report) = load(&[wrong]).await?;
        ensure!(code == 64 && report.is_none(), "{code}: {wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_not_there_is_no_figure_of_zero() -> Result<()> {
    let (code, report) =
        load(&[&["pull", "--target", "http://127.0.0.1:9", "--path", "/a"]]).await?;
    ensure!(code == 70 && report.is_none(), "{code}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workload_runs_against_a_replica() -> Result<()> {
    let cluster = Cluster::start_with(ClusterOptions::default().replicas(1)).await?;
    let url = cluster.registry_url(0);
    let pid = cluster.replica(0).pid().context("it runs")?;
    let (target, pids) = (format!("one={url}"), format!("one={pid}"));
    let common = ["--target", &target, "--pid", &pids, "--layers", "100K,5M", "--warm-up", "0"];
    let run = async |workload: &str, more: &[&str]| {
        let clients = if workload == "storm" { "10" } else { "4" };
        let (code, report) = load(&[&[workload, "--clients", clients], &common, more]).await?;
        let figures = only(report)?;
        ensure!(code == 0 && figures.errors.is_empty(), "{workload}: {code}: {figures:?}");
        ensure!(figures.server_cpu_seconds.is_some(), "{workload}: {figures:?}");
        anyhow::Ok(figures)
    };

    let pulled = run("pull", &["--requests", "20", "--verify"]).await?;
    let image = 100 * 1_024 + 5 * 1_024 * 1_024;
    ensure!(pulled.operations == 20 && pulled.bytes_received == 10 * image, "{pulled:?}");

    let manifests = run("manifest", &["--requests", "500", "--verify"]).await?;
    ensure!(manifests.operations == 500 && manifests.connections <= 4, "{manifests:?}");

    let whole = run("push", &["--requests", "6"]).await?;
    ensure!(whole.operations == 6 && whole.bytes_sent == 3 * image, "{whole:?}");
    let chunked = run("push", &["--requests", "6", "--chunk", "1M"]).await?;
    ensure!(chunked.bytes_sent == 3 * image, "{chunked:?}");
    let images = run("push", &["--requests", "3", "--images"]).await?;
    ensure!(images.operations == 3 && images.bytes_sent > 3 * image, "{images:?}");

    run("tags", &["--requests", "20"]).await?;
    run("tags", &["--requests", "20", "--tags", "5"]).await?;
    let repository = "tercet-chaos/load";
    let tags = cluster.client(0)?.tags(repository).await?;
    // That of each image that was pulled or pushed, and those that were set. Each call has a seed of its own.
    let moved = tags.iter().filter(|tag| tag.starts_with("moved-")).count();
    ensure!(moved == 5 && tags.len() >= 20 + 5 + 3, "{tags:?}");

    let mixed = run("mixed", &["--requests", "200", "--mix", "pull=1,manifest=2,push=1,tags=1"]);
    let mixed = mixed.await?;
    ensure!(mixed.kinds.len() == 4 && mixed.operations == 200, "{mixed:?}");
    ensure!(mixed.kinds.values().all(|kind| kind.operations > 0), "{mixed:?}");

    let storm = run("storm", &["--requests", "2", "--verify"]).await?;
    ensure!(storm.operations == 20 && storm.storms.len() == 2, "{storm:?}");
    ensure!(storm.bytes_received > 20 * image, "{storm:?}");
    ensure!(storm.storms.iter().all(|storm| storm.slowest_to_median >= 1.0), "{storm:?}");

    // An image that is there already, at a rate.
    let seed = tags.iter().find(|tag| tag.starts_with("seed-")).context("an image")?;
    let existing = format!("{repository}:{seed}");
    let call = ["manifest", "--target", &target, "--existing", &existing, "--rate", "50"];
    let (code, report) = load(&[&call, &["--seconds", "1"]]).await?;
    ensure!(code == 0 && only(report)?.operations == 50, "{code}");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_measured_over_tls() -> Result<()> {
    let options = ClusterOptions::default().replicas(1).tls(Listener::Registry);
    let cluster = Cluster::start_with(options).await?;
    let url = cluster.registry_url(0);
    ensure!(url.starts_with("https://"), "{url}");
    let ca = cluster.authority()?.certificate_text();
    let target = ["--target", &url, "--ca", &ca];
    let bounds = ["--layers", "3M", "--requests", "20", "--warm-up", "0"];
    for more in [&["pull", "--verify"][..], &["push"], &["push", "--chunk", "1M"]] {
        let (code, report) = load(&[more, &target, &bounds]).await?;
        let figures = only(report)?;
        ensure!(code == 0 && figures.operations == 20, "{more:?}: {code}: {figures:?}");
        ensure!(figures.bytes_received + figures.bytes_sent >= 60 << 20, "{figures:?}");
    }
    cluster.shut_down().await
}
