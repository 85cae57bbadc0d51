//! Clients that do not get on: with their handshake, or with what they asked for.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::process::{Replica, connect, content};
use crate::reload::push;
use crate::{HANG, until};

/// Reads until the other side closes. A reset is an end too.
async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut bytes)).await.expect("it hangs");
    bytes
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut_and_counted() {
    let authority = Authority::new();
    let replica = Replica::with_tls(&authority, "[limits]\nheader_timeout_ms = 300\n").await;
    // Nothing at all; and the first bytes of a handshake that never goes on.
    for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(&replica.registry).await.unwrap();
        stream.write_all(said).await.unwrap();
        read_all(&mut stream).await;
    }
    let cut = "tercet_connections_cut_total{listener=\"registry\",reason=\"handshake\"}";
    until("both cuts", async || (replica.metric(cut).await == Some(2.0)).then_some(())).await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so_at_once() {
    let authority = Authority::new();
    // Longer than the test waits: what ends it is not the deadline.
    let limits = "[limits]\nheader_timeout_ms = 600000\nfirst_byte_timeout_ms = 600000\n";
    let replica = Replica::with_tls(&authority, limits).await;
    let mut stream = TcpStream::connect(&replica.registry).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(read_all(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https:"), "{answer}");
    // What is neither gets the alert of TLS and no more.
    let mut stream = TcpStream::connect(&replica.registry).await.unwrap();
    stream.write_all(&[0; 64]).await.unwrap();
    assert!(read_all(&mut stream).await.len() < 16);
}

#[tokio::test]
async fn handshakes_in_flight_count_as_connections() {
    let authority = Authority::new();
    let limits = "[limits]\nheader_timeout_ms = 600000\nconnections_max = 3\n";
    let replica = Replica::with_tls(&authority, limits).await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(TcpStream::connect(&replica.registry).await.unwrap());
    }
    let open = "tercet_connections_open{listener=\"registry\"}";
    until("three connections", async || (replica.metric(open).await == Some(3.0)).then_some(()))
        .await;
    let mut beyond = TcpStream::connect(&replica.registry).await.unwrap();
    assert!(read_all(&mut beyond).await.is_empty());
    drop(stalled);
    until("a free place", async || {
        let config = authority.client(&[&rustls::version::TLS13], None);
        connect(&replica.registry, config).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_handshake() {
    let authority = Authority::new();
    let limits = "[limits]\nheader_timeout_ms = 600000\ndrain_seconds = 600\n";
    let mut replica = Replica::with_tls(&authority, limits).await;
    let mut stalled = TcpStream::connect(&replica.registry).await.unwrap();
    stalled.write_all(b"\x16\x03\x01").await.unwrap();
    assert!(replica.stop().await.success());
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_cut_through_tls_too() {
    let authority = Authority::new();
    let replica = Replica::with_tls(&authority, "[limits]\nwrite_stall_ms = 500\n").await;
    let url = push(&authority.http(None), &replica.registry, &content(64 * 1024 * 1024)).await;
    for (cut, client) in [(1.0, authority.http1()), (2.0, authority.http(None))] {
        let mut answer = client.get(&url).send().await.unwrap();
        answer.chunk().await.unwrap();
        let count = "tercet_connections_cut_total{listener=\"registry\",reason=\"write_stall\"}";
        until("the cut", async || (replica.metric(count).await == Some(cut)).then_some(())).await;
    }
}
