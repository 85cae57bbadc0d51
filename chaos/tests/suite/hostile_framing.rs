//! Request smuggling: where two readers could see two different requests, Tercet sees none.

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, RawAnswer, raw_exchange};
use tokio::net::TcpListener;

use crate::{costs::one_replica, leftovers::REPOSITORY};

/// Behind every request stands another: nobody may answer it.
const SMUGGLED: &str = "GET /v2/_catalog HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n";

async fn start() -> Result<Cluster> {
    Cluster::start_with(one_replica()).await
}

async fn send(cluster: &Cluster, request: &str) -> Result<RawAnswer> {
    raw_exchange(&cluster.registry_url(0), request.as_bytes()).await
}

fn push(headers: &str, body: &str) -> String {
    format!(
        "PUT /v2/{REPOSITORY}/manifests/smuggled HTTP/1.1\r\nHost: registry\r\n{headers}\r\n{body}"
    )
}

/// `400`, the connection closed, and nothing behind it looked at.
fn check_refused(what: &str, answer: &RawAnswer) -> Result<()> {
    ensure!(answer.status == Some(400), "{what:?}: got {answer:?}");
    ensure!(!answer.body.contains("HTTP/1.1 "), "{what:?}: two answers: {answer:?}");
    ensure!(!answer.body.contains("repositories"), "{what:?}: the second was read: {answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_two_readers_read_differently_are_refused() -> Result<()> {
    let cluster = start().await?;
    let chunked = "4\r\nabcd\r\n0\r\n\r\n";
    for headers in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: chu\r\n nked\r\n",
        "X-Folded: a\r\n Content-Length: 4\r\n",
        " Content-Length: 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length:\r\n",
        "X-Nul: a\0b\r\n",
        "X-Return: a\rb\r\n",
        "No-Colon\r\n",
        ": no name\r\n",
        "Host: another\r\n",
    ] {
        let answer = send(&cluster, &format!("{}{SMUGGLED}", push(headers, chunked))).await?;
        check_refused(headers, &answer)?;
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_whose_chunks_lie_are_refused() -> Result<()> {
    let cluster = start().await?;
    let chunked = "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n";
    let extension = format!("4;x={}\r\nabcd\r\n0\r\n\r\n", "y".repeat(100_000));
    for body in [
        "10000000000000000\r\nabcd\r\n0\r\n\r\n",
        "-4\r\nabcd\r\n0\r\n\r\n",
        "0x4\r\nabcd\r\n0\r\n\r\n",
        "4\r\nabcdef\r\n0\r\n\r\n",
        "\r\nabcd\r\n0\r\n\r\n",
        &extension,
    ] {
        let answer = send(&cluster, &format!("{}{SMUGGLED}", push(chunked, body))).await?;
        let what = &body[..body.len().min(20)];
        ensure!(!answer.body.contains("repositories"), "{what:?}: {answer:?}");
        ensure!(matches!(answer.status, None | Some(400)), "{what:?}: {answer:?}");
    }
    cluster.shut_down().await
}

/// A length beside chunks, on HTTP/1.0 or not: the connection ends behind the answer.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_behind_an_ambiguous_end_is_read() -> Result<()> {
    let cluster = start().await?;
    for (version, headers) in [
        ("1.1", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n"),
        ("1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    ] {
        let request =
            push(headers, "4\r\nabcd\r\n0\r\n\r\n").replace("HTTP/1.1", &format!("HTTP/{version}"));
        let answer = send(&cluster, &format!("{request}{SMUGGLED}")).await?;
        ensure!(answer.status.is_some_and(|status| status >= 400), "{headers:?}: {answer:?}");
        ensure!(!answer.body.contains("HTTP/1.1 "), "{headers:?}: two answers: {answer:?}");
        ensure!(!answer.body.contains("repositories"), "{headers:?}: {answer:?}");
    }
    cluster.shut_down().await
}

/// `Host` says nothing that Tercet acts on; what cannot be a host is refused all the same, since somebody in
/// front may act on it (RFC 9112, section 3.2).
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_none_are_refused() -> Result<()> {
    let cluster = start().await?;
    for host in ["a b", "a/b", "user@host", "a\\b", "a,b", "a:b:c", "[::1", "caf\u{e9}"] {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n{SMUGGLED}");
        check_refused(host, &send(&cluster, &request).await?)?;
    }
    let without = format!("GET /v2/ HTTP/1.1\r\nAccept: */*\r\n\r\n{SMUGGLED}");
    check_refused("no host", &send(&cluster, &without).await?)?;
    for host in ["registry", "registry:5000", "127.0.0.1:5000", "[::1]:5000", "[fe80::1]", ""] {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = send(&cluster, &request).await?;
        ensure!(answer.status == Some(200), "{host:?}: {answer:?}");
    }
    cluster.shut_down().await
}

/// Tercet is nobody's proxy: a whole URI names a path here, and a tunnel leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_makes_tercet_connect_anywhere() -> Result<()> {
    let cluster = start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let other = listener.local_addr()?;
    for (request, wanted) in [
        (format!("GET http://{other}/v2/ HTTP/1.1\r\nHost: {other}"), &[200][..]),
        (format!("GET http://{other}/v2/ HTTP/1.1\r\nHost: registry"), &[200, 400]),
        (format!("GET http://{other}/etc/passwd HTTP/1.1\r\nHost: registry"), &[400, 404]),
        (format!("GET //{other}/v2/ HTTP/1.1\r\nHost: registry"), &[400, 404]),
        (format!("CONNECT {other} HTTP/1.1\r\nHost: {other}"), &[400, 404, 405, 501]),
        ("OPTIONS * HTTP/1.1\r\nHost: registry".to_owned(), &[400, 404, 405]),
        ("TRACE /v2/ HTTP/1.1\r\nHost: registry".to_owned(), &[400, 405, 501]),
        (
            "GET /v2/ HTTP/1.1\r\nHost: registry\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
                .to_owned(),
            &[200],
        ),
        (
            format!(
                "GET /v2/ HTTP/1.1\r\nHost: registry\r\nX-Forwarded-Host: {other}\r\nForwarded: host={other}"
            ),
            &[200],
        ),
    ] {
        let answer = send(&cluster, &format!("{request}\r\nConnection: close\r\n\r\n")).await?;
        let status = answer.status.unwrap_or_default();
        ensure!(wanted.contains(&status), "{request:?}: wanted {wanted:?}, got {answer:?}");
    }
    let nobody = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
    ensure!(nobody.is_err(), "somebody connected: {nobody:?}");
    cluster.shut_down().await
}
