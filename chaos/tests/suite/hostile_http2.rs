//! HTTP/2 floods: cut, or refused one by one, in bounded memory; good clients do not notice.

use std::time::Duration;

use anyhow::{Result, ensure};
use tercet_chaos::{
    Cluster, END_HEADERS, END_STREAM, FrameKind, Http2, Seen, Sent, frame, remembered_field,
    request_block, wait_until,
};

use crate::{
    costs::{Costs, one_replica},
    leftovers::REPOSITORY,
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes in one write.
const BURST_BYTES: usize = 64 * 1024;
/// RFC 9113, section 7: "the peer is exhibiting behavior that might be generating excessive load".
const ENHANCE_YOUR_CALM: u32 = 0xb;
/// What the server says in its settings, and no good client exceeds.
const STREAMS_MAX: u64 = 64;

async fn start() -> Result<(Cluster, Costs)> {
    let cluster = Cluster::start_with(one_replica()).await?;
    let costs = Costs::before(&cluster).await?;
    Ok((cluster, costs))
}

/// Client streams have odd numbers.
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

fn get(number: u32) -> Vec<u8> {
    let block = request_block("GET", "/v2/", &[]);
    frame(FrameKind::Headers, END_HEADERS | END_STREAM, stream(number), &block)
}

/// A push whose body does not come.
fn open_push(number: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let block = request_block("PUT", &format!("/v2/{REPOSITORY}/manifests/flood"), fields);
    frame(FrameKind::Headers, END_HEADERS, stream(number), &block)
}

/// Sends what `piece` makes of 0, 1, 2, … in bursts, until it is cut or `count` were sent. A good client comes
/// by in the middle.
async fn flood(
    cluster: &Cluster,
    costs: &Costs,
    count: u32,
    first: &[u8],
    piece: impl Fn(u32) -> Vec<u8>,
) -> Result<(Http2, Sent, u32)> {
    let mut connection = Http2::connect(&cluster.registry_url(0)).await?;
    let mut burst = first.to_vec();
    for number in 0..count {
        burst.extend_from_slice(&piece(number));
        if burst.len() >= BURST_BYTES || number + 1 == count {
            if connection.send(&burst).await == Sent::Cut {
                return Ok((connection, Sent::Cut, number));
            }
            burst.clear();
        }
        if number == count / 2 {
            costs.good_client(cluster).await?;
        }
    }
    Ok((connection, Sent::Taken, count))
}

async fn wait_seen(connection: &Http2, what: &str, enough: impl Fn(&Seen) -> bool) -> Result<Seen> {
    wait_until(what, DEADLINE, || async {
        let seen = connection.seen();
        ensure!(enough(&seen), "{seen:?}");
        Ok(seen)
    })
    .await
}

async fn expect_cut(connection: &Http2, sent: Sent, pieces: u32, what: &str) -> Result<Seen> {
    let seen = wait_seen(connection, what, |seen| seen.closed || seen.goaway.is_some()).await?;
    println!("{what}: {sent:?} after {pieces}, {seen:?}");
    Ok(seen)
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_at_once_cut_the_connection() -> Result<()> {
    let (cluster, costs) = start().await?;
    let cancel = 8_u32.to_be_bytes();
    let (connection, sent, pieces) = flood(&cluster, &costs, 100_000, &[], |number| {
        [get(number), frame(FrameKind::Reset, 0, stream(number), &cancel)].concat()
    })
    .await?;
    let seen = expect_cut(&connection, sent, pieces, "rapid reset").await?;
    ensure!(seen.goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{seen:?}");
    costs.check(&cluster, "rapid reset").await?;
    cluster.shut_down().await
}

/// The other way round (CVE-2025-8671): each stream makes the server reset it.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_make_the_server_reset_them_cut_the_connection() -> Result<()> {
    let (cluster, costs) = start().await?;
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let (connection, sent, pieces) = flood(&cluster, &costs, 100_000, &[], |number| {
        // A window larger than the largest is an error of the stream (RFC 9113, section 6.9.1).
        let window = frame(FrameKind::WindowUpdate, 0, stream(number), &most);
        [open_push(number, &[]), window].concat()
    })
    .await?;
    let seen = expect_cut(&connection, sent, pieces, "made you reset").await?;
    ensure!(seen.goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{seen:?}");
    costs.check(&cluster, "made you reset").await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_cut_the_connection() -> Result<()> {
    let (cluster, costs) = start().await?;
    let begin = frame(FrameKind::Headers, END_STREAM, 1, &request_block("GET", "/v2/", &[]));

    // Some with content, then empty ones (CVE-2024-27316 and its relatives).
    let field = [&[0][..], b"\x01x", &[0x7f, 0x80, 0x7f], &[b'v'; 16_255]].concat();
    for (what, payload) in [("CONTINUATION flood", field.as_slice()), ("empty CONTINUATION", &[])] {
        let (connection, sent, pieces) = flood(&cluster, &costs, 50_000, &begin, |_| {
            frame(FrameKind::Continuation, 0, 1, payload)
        })
        .await?;
        expect_cut(&connection, sent, pieces, what).await?;
    }
    costs.check(&cluster, "CONTINUATION flood").await?;

    // Few bytes that stand for many: 4 kB once, and then 16,000 times a byte that says "again".
    let mut block = request_block("GET", "/v2/", &[]);
    block.extend(remembered_field("x", &"v".repeat(4_000)));
    let again = vec![0xbe; 16_000 - block.len()];
    block.extend(again);
    let (connection, ..) = flood(&cluster, &costs, 200, &[], |number| {
        frame(FrameKind::Headers, END_HEADERS | END_STREAM, stream(number), &block)
    })
    .await?;
    let enough =
        |seen: &Seen| seen.closed || seen.goaway.is_some() || seen.answers + seen.resets >= 100;
    println!("HPACK bomb: {:?}", wait_seen(&connection, "an answer to it", enough).await?);
    costs.check(&cluster, "HPACK bomb").await?;
    cluster.shut_down().await
}

/// RUSTSEC-2026-0258: frames without a byte cost no window.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_empty_data_frames_stay_small() -> Result<()> {
    let (cluster, costs) = start().await?;
    let empty = frame(FrameKind::Data, 0, 1, &[]);
    let (connection, sent, pieces) =
        flood(&cluster, &costs, 1_000_000, &open_push(0, &[]), |_| empty.clone()).await?;
    println!("empty DATA: {sent:?} after {pieces}, {:?}", connection.seen());
    costs.check(&cluster, "empty DATA, connection open").await?;
    drop(connection);
    costs.check(&cluster, "empty DATA").await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_are_refused_but_for_a_few() -> Result<()> {
    let (cluster, costs) = start().await?;
    let (connection, sent, pieces) =
        flood(&cluster, &costs, 10_000, &[], |number| open_push(number, &[])).await?;
    let enough =
        |seen: &Seen| seen.closed || seen.goaway.is_some() || seen.refused >= 10_000 - STREAMS_MAX;
    let seen = wait_seen(&connection, "refused, or cut", enough).await?;
    println!("10000 streams: {sent:?} after {pieces}, {seen:?}");
    ensure!(seen.answers <= STREAMS_MAX, "{seen:?}");
    costs.good_client(&cluster).await?;
    drop(connection);
    costs.check(&cluster, "10000 streams").await?;
    cluster.shut_down().await
}

/// Frames that want an answer each: pings and settings.
#[tokio::test(flavor = "multi_thread")]
async fn pings_and_settings_without_end_stay_small() -> Result<()> {
    let (cluster, costs) = start().await?;
    for (what, kind, payload) in
        [("pings", FrameKind::Ping, &[7; 8][..]), ("settings", FrameKind::Settings, &[])]
    {
        let one = frame(kind, 0, 0, payload);
        let (connection, sent, pieces) =
            flood(&cluster, &costs, 300_000, &get(0), |_| one.clone()).await?;
        println!("{what}: {sent:?} after {pieces}, {:?}", connection.seen());
    }
    costs.check(&cluster, "pings and settings").await?;
    cluster.shut_down().await
}

/// HTTP/2 has no place for the ambiguities of HTTP/1, and nobody may bring them along.
#[tokio::test(flavor = "multi_thread")]
async fn lies_about_lengths_end_the_stream() -> Result<()> {
    let (cluster, costs) = start().await?;
    let end = |bytes: &[u8]| frame(FrameKind::Data, END_STREAM, 1, bytes);
    type Fields<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Fields<'_>, &[u8]); 5] = [
        ("more than announced", &[("content-length", "3")], b"abcdef"),
        ("less than announced", &[("content-length", "30")], b"abcdef"),
        ("two lengths", &[("content-length", "6"), ("content-length", "7")], b"abcdef"),
        ("chunks", &[("transfer-encoding", "chunked")], b"0\r\n\r\n"),
        ("a connection field", &[("connection", "keep-alive")], b"abcdef"),
    ];
    for (what, fields, body) in cases {
        let mut connection = Http2::connect(&cluster.registry_url(0)).await?;
        connection.send(&[open_push(0, fields), end(body)].concat()).await;
        let reset = |seen: &Seen| seen.closed || seen.goaway.is_some() || seen.resets > 0;
        let seen = wait_seen(&connection, what, reset).await?;
        println!("{what}: {seen:?}");
        ensure!(seen.resets == 1 && seen.answers == 0, "{what}: {seen:?}");
        let answer = cluster.client(0)?.get_manifest(REPOSITORY, "flood").await?;
        ensure!(answer.status == 404, "{what}: {}", answer.describe());
    }
    costs.check(&cluster, "lies").await?;
    cluster.shut_down().await
}
