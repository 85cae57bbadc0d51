//! Names, tags, digests and counts that no honest client sends.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tercet_chaos::{Blob, Cluster, raw_exchange};

use crate::{
    costs::RESIDENT_MAX,
    leftovers::{REPOSITORY, files, start, wait_nothing_left},
};

/// Sends the path exactly as it stands: a client library would tidy it up.
async fn raw(
    cluster: &Cluster,
    index: usize,
    method: &str,
    path: &str,
) -> Result<(u16, Option<String>)> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n");
    let answer = raw_exchange(&cluster.registry_url(index), head.as_bytes()).await?;
    let status = answer.status.with_context(|| format!("no answer to {method} {path}"))?;
    Ok((status, answer.error_code()))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_are_refused() -> Result<()> {
    let (cluster, _) = start().await?;
    let before = files(&cluster)?;
    let long = "a".repeat(256);
    let deep = "a/".repeat(200) + "a";
    let names = [
        "..",
        "../..",
        "a/../b",
        "%2e%2e",
        "%2e%2e%2f%2e%2e",
        "a%2fb",
        "a%00b",
        "a//b",
        "UPPER",
        "a_",
        "-a",
        "a..b",
        "a___b",
        ".",
        "a/.",
        "caf%C3%A9",
        "..%2f..%2fetc",
        // Encoded twice, and over-long forms of a dot and of a slash.
        "%252e%252e",
        "%25%32%65",
        "%c0%ae%c0%ae",
        "%c0%af",
        "%e0%80%ae%e0%80%ae",
        "%5c..%5c",
        "a%0d%0ab",
        "a%20b",
        "%zz",
        "%",
        // Wide dots, a letter that only looks like `a`, text that runs backwards; as they are, too.
        "%ef%bc%8e%ef%bc%8e",
        "%d0%b0lpine",
        "a%e2%80%aeb",
        "caf\u{e9}",
        "\u{ff0e}\u{ff0e}",
        "a\\b",
        "a;b",
        "a:b",
        "a@b",
        "a+b",
        "a.",
        ".a",
        "a._b",
        "a-/b",
        "~",
        &long,
        &deep,
    ];
    for name in names {
        for (method, rest) in [
            ("GET", "tags/list"),
            ("GET", "manifests/latest"),
            ("POST", "blobs/uploads/"),
            ("PUT", "manifests/latest"),
        ] {
            let path = format!("/v2/{name}/{rest}");
            let (status, code) = raw(&cluster, 0, method, &path).await?;
            ensure!(
                status == 400 && code.as_deref() == Some("NAME_INVALID"),
                "{method} {path}: wanted 400 NAME_INVALID, got {status} {code:?}"
            );
        }
    }
    // A NUL as such is no HTTP: the parser may refuse it without an OCI body.
    let (status, _) = raw(&cluster, 0, "GET", "/v2/a\0b/tags/list").await?;
    ensure!(status == 400, "a raw NUL got {status}");
    for tag in [
        "%2e%2e",
        "..",
        "-a",
        ".a",
        "a%00",
        "a%00b",
        &"t".repeat(129),
        "a%2fb",
        "@",
        "a:b",
        "a%252eb",
        "%c0%ae",
        "caf%c3%a9",
        "caf\u{e9}",
        "a%0ab",
        "a+b",
        "%",
    ] {
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        let (status, code) = raw(&cluster, 1, "GET", &path).await?;
        ensure!(
            matches!(status, 400 | 404) && code.is_some(),
            "{path}: wanted an OCI refusal, got {status} {code:?}"
        );
        let (status, code) = raw(&cluster, 1, "PUT", &path).await?;
        ensure!(status == 400 && code.is_some(), "PUT {path}: got {status} {code:?}");
    }
    wait_nothing_left(&cluster, &before, "bad names").await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_digests_are_refused() -> Result<()> {
    let (cluster, client) = start().await?;
    let before = files(&cluster)?;
    let hex = "0123456789abcdef".repeat(4);
    let digests = [
        format!("sha256:{}", &hex[..63]),
        format!("sha256:{hex}0"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}g", &hex[..63]),
        format!("sha512:{hex}"),
        format!("sha512:{}", &hex.repeat(2)[..127]),
        format!("sha512:{}0", hex.repeat(2)),
        format!("sha512:{}", hex.repeat(2).to_uppercase()),
        format!("sha512:{}/", &hex.repeat(2)[..127]),
        format!("sha384:{}", &hex.repeat(2)[..96]),
        format!("sha256+sha512:{hex}"),
        format!("sha256:{}", hex.repeat(200)),
        format!("sha256::{}", &hex[..63]),
        format!(":{hex}"),
        format!("sha256:0x{}", &hex[..62]),
        format!("sha256:%c0%ae{}", &hex[..62]),
        format!("sha256:{}%30", &hex[..61]),
        format!("sha256:\u{ff10}{}", &hex[..61]),
        format!("md5:{}", &hex[..32]),
        format!("SHA256:{hex}"),
        "sha256:".to_owned(),
        "sha256:..".to_owned(),
        "sha256:%2e%2e%2f%2e%2e%2fidentity.json".to_owned(),
        format!("sha256:%00{}", &hex[..62]),
        format!("sha256%3a{}", &hex[..63]),
    ];
    for digest in &digests {
        for method in ["GET", "HEAD", "DELETE"] {
            let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
            let (status, code) = raw(&cluster, 2, method, &path).await?;
            let named = method == "HEAD" || code.as_deref() == Some("DIGEST_INVALID");
            ensure!(status == 400 && named, "{method} {path}: got {status} {code:?}");
        }
        let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
        let (status, code) = raw(&cluster, 2, "GET", &path).await?;
        ensure!(status == 400, "GET {path}: got {status} {code:?}");
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        let (status, code) = raw(&cluster, 2, "POST", &path).await?;
        // A query that is no text at all is refused before anybody looks for a digest in it.
        let named = code.as_deref() == Some("DIGEST_INVALID") || digest.contains("%c0");
        ensure!(status == 400 && named, "POST {path}: got {status} {code:?}");
    }
    // A path out of the store, in the place of a digest.
    for path in [
        format!("/v2/{REPOSITORY}/blobs/sha256:../../../identity.json"),
        format!("/v2/{REPOSITORY}/blobs/../../../../identity.json"),
        format!("/v2/{REPOSITORY}/blobs/uploads/../../identity.json"),
        format!("/v2/{REPOSITORY}/blobs/uploads/%2e%2e%2fidentity.json"),
    ] {
        let (status, code) = raw(&cluster, 2, "GET", &path).await?;
        let refused = matches!(status, 400 | 404) && code.is_some();
        ensure!(refused, "GET {path}: got {status} {code:?}");
    }
    let upload = client.open_upload(REPOSITORY).await?;
    let answer = client.finish(&upload, "sha256:abc", Bytes::new()).await?;
    answer.expect_error(400, "DIGEST_INVALID")?;
    client.delete(&upload.location).await?;
    wait_nothing_left(&cluster, &before, "bad digests").await?;
    cluster.shut_down().await
}

/// Page sizes and ranges that want too much are clamped or refused, never allocated.
#[tokio::test(flavor = "multi_thread")]
async fn absurd_counts_and_ranges_are_bounded() -> Result<()> {
    let (cluster, client) = start().await?;
    for count in ["9223372036854775808", "18446744073709551616", "1000000000", "-1", "x", ""] {
        for path in [format!("/v2/{REPOSITORY}/tags/list"), "/v2/_catalog".to_owned()] {
            let answer = client.get(&format!("{path}?n={count}")).await?;
            ensure!(matches!(answer.status, 200 | 400), "n={count}: {}", answer.describe());
        }
    }
    let blob = Blob::random(11, 10_000);
    client.push_blob(REPOSITORY, &blob).await?;
    let size = blob.bytes.len();
    let far_apart: Vec<String> =
        (0..200).map(|at| format!("{}-{}", at * 40, at * 40 + 9)).collect();
    let ranges = [
        format!("bytes={}", vec!["0-0"; 10_000].join(",")),
        format!("bytes={}", vec!["0-"; 10_000].join(",")),
        format!("bytes={}", vec!["-5"; 10_000].join(",")),
        format!("bytes={}", vec!["0-0"; 1_000].join(",")),
        format!("bytes={}", far_apart.join(",")),
        format!("bytes={}", ",".repeat(10_000)),
        format!("bytes=0-{}", "9".repeat(10_000)),
        "bytes=9-1".to_owned(),
        "bytes=x".to_owned(),
        "lines=0-1".to_owned(),
        "bytes=0-18446744073709551616".to_owned(),
        "bytes=18446744073709551616-".to_owned(),
        "bytes=-18446744073709551616".to_owned(),
        "bytes=--1".to_owned(),
        "bytes".to_owned(),
    ];
    for range in &ranges {
        let shown = &range[..range.len().min(60)];
        let answer = client.get_range(REPOSITORY, &blob.digest, range).await?;
        ensure!(matches!(answer.status, 200 | 206 | 400 | 416), "{shown}: {}", answer.describe());
        ensure!(answer.status != 200 || answer.body == blob.bytes, "{shown}: wrong bytes");
        // However often a header asks for a byte, it comes once; beside the bytes come a few heads.
        ensure!(answer.body.len() <= size + 8 * 1024, "{shown}: {} bytes", answer.body.len());
        let part = answer.header("content-range").and_then(|text| text.strip_prefix("bytes "));
        if let Some((first, last)) = part.and_then(|part| part.split('/').next()?.split_once('-'))
            && answer.status == 206
        {
            // An end behind the last byte means the last byte (RFC 9110, 14.1.2), however far behind.
            let (first, last): (usize, usize) = (first.parse()?, last.parse()?);
            ensure!(answer.body == blob.bytes.slice(first..=last), "{shown}: wrong bytes");
        }
    }
    // `If-Range` that names something else, or nothing that it could name: the range does not count.
    let wrong = format!("\"sha256:{}\"", "0".repeat(64));
    let weak = format!("W/\"{}\"", blob.digest);
    let long = format!("\"{}\"", "x".repeat(30_000));
    for tag in [wrong.as_str(), &weak, &long, "*", "junk", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        let request = client
            .request(reqwest::Method::GET, &path)?
            .header("range", "bytes=0-9")
            .header("if-range", tag);
        let answer = client.send(request).await?.expect(200)?;
        ensure!(answer.body == blob.bytes, "If-Range {tag:.40}: not the whole blob");
    }
    for last in ["%00", "..%2f", "%ff", &"a".repeat(30_000), "%e2%80%ae", "~", "zzzz", "a%0d%0ab"] {
        for path in [format!("/v2/{REPOSITORY}/tags/list"), "/v2/_catalog".to_owned()] {
            let answer = client.get(&format!("{path}?n=1&last={last}")).await?;
            let status = answer.status;
            ensure!(matches!(status, 200 | 400 | 414), "last={last:.40}: {}", answer.describe());
            let link = answer.header("link").unwrap_or_default();
            ensure!(link.len() < 1_000, "last={last:.40}: a link of {} bytes", link.len());
        }
    }
    let many = "n=1&".repeat(10_000);
    let answer = client.get(&format!("/v2/_catalog?{many}")).await?;
    ensure!(matches!(answer.status, 400 | 414 | 431), "10000 parameters: {}", answer.describe());
    let peak = cluster.memory(0)?.peak;
    ensure!(peak < RESIDENT_MAX, "{} MiB were resident", peak >> 20);
    cluster.shut_down().await
}

/// Whoever stands in front may have decided by the other of the two.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_two_lengths_or_two_hosts_are_refused() -> Result<()> {
    let (cluster, _) = start().await?;
    let hosts = "Host: another\r\nContent-Length: 4\r\n";
    let lengths = "Content-Length: 4\r\nContent-Length: 5\r\n";
    for headers in [hosts, lengths] {
        let answer = raw_exchange(&cluster.registry_url(0), ambiguous(headers).as_bytes()).await?;
        ensure!(answer.status == Some(400), "{headers:?}: got {:?}", answer.status);
    }
    cluster.shut_down().await
}

/// What one reader takes for the rest of a body, another may take for the next request.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_behind_a_request_with_a_length_and_chunks() -> Result<()> {
    let (cluster, _) = start().await?;
    let length_first = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    let chunks_first = "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n";
    for headers in [length_first, chunks_first] {
        let smuggled = "GET /v2/_catalog HTTP/1.1\r\nHost: registry\r\n\r\n";
        let request = format!("{}{smuggled}", ambiguous(headers));
        let answer = raw_exchange(&cluster.registry_url(0), request.as_bytes()).await?;
        ensure!(answer.status.is_some(), "{headers:?}: no answer at all");
        ensure!(!answer.body.contains("HTTP/1.1"), "{headers:?}: two answers: {}", answer.body);
        ensure!(!answer.body.contains("repositories"), "{headers:?}: {}", answer.body);
    }
    cluster.shut_down().await
}

fn ambiguous(headers: &str) -> String {
    format!(
        "POST /v2/{REPOSITORY}/blobs/uploads/ HTTP/1.1\r\nHost: registry\r\n{headers}\r\n4\r\nabcd\r\n0\r\n\r\n"
    )
}
