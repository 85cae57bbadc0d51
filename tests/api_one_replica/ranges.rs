//! Parts of a blob, and what a client has already (RFC 9110 sections 13 and 14).

use axum::body::Body;
use axum::http::StatusCode;
use tercet_storage::Digest;

use crate::support::{Answer, Replica, image, replica};

async fn with_blob(bytes: &[u8]) -> (Replica, Digest, String) {
    let replica = replica().await;
    let digest = replica.push_blob("a", bytes).await;
    let path = format!("/v2/a/blobs/{digest}");
    (replica, digest, path)
}

async fn get(replica: &Replica, path: &str, headers: &[(&str, &str)]) -> Answer {
    replica.send("GET", path, headers, Body::empty()).await
}

/// The parts of a `multipart/byteranges` body, each with its `Content-Range`.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let kind = answer.header("content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let text = text.strip_prefix(&format!("--{boundary}\r\n")).unwrap();
    let text = text.strip_suffix(&format!("\r\n--{boundary}--\r\n")).unwrap();
    text.split(&format!("\r\n--{boundary}\r\n"))
        .map(|part| {
            let (head, body) = part.split_once("\r\n\r\n").unwrap();
            let range = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Range: "));
            (range.unwrap().to_owned(), body.as_bytes().to_vec())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_and_suffix_ranges() {
    let content: Vec<u8> = (0..2048_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let (replica, _, path) = with_blob(&content).await;
    for (range, part, shown) in [
        ("bytes=500-1499", 500..1500, "bytes 500-1499/2048"),
        ("bytes=500-", 500..2048, "bytes 500-2047/2048"),
        ("bytes=-500", 1548..2048, "bytes 1548-2047/2048"),
        ("bytes=2000-5000", 2000..2048, "bytes 2000-2047/2048"),
        ("bytes=0-9,5-19", 0..20, "bytes 0-19/2048"),
        ("bytes=9000-,0-0", 0..1, "bytes 0-0/2048"),
    ] {
        let answer = get(&replica, &path, &[("range", range)]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.header("content-range"), shown);
        assert_eq!(answer.header("content-length"), part.len().to_string());
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(answer.body, &content[part]);
    }
    for range in ["bytes=5000-10000", "bytes=500-0", "bytes=-0", "bytes=2048-,9-1"] {
        let answer = get(&replica, &path, &[("range", range)]).await;
        assert_eq!(answer.refused(), (416, "RANGE_INVALID".to_owned()), "{range}");
        assert_eq!(answer.header("content-range"), "bytes */2048");
        let digest = answer.header("docker-content-digest");
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    }
    // A range is for GET only.
    let head = replica.send("HEAD", &path, &[("range", "bytes=0-0")], Body::empty()).await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "2048"));
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_ranges_are_one_multipart_answer() {
    let content: Vec<u8> = (0..1000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let (replica, _, path) = with_blob(&content).await;
    let answer = get(&replica, &path, &[("range", "bytes=900-999, 0-1, 500-509 ,-50")]).await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    assert!(!answer.headers.contains_key("content-range"));
    let expected = [
        ("bytes 900-999/1000".to_owned(), content[900..].to_vec()),
        ("bytes 0-1/1000".to_owned(), content[..2].to_vec()),
        ("bytes 500-509/1000".to_owned(), content[500..510].to_vec()),
    ];
    assert_eq!(parts(&answer), expected);
    // The same again, byte for byte.
    let again = get(&replica, &path, &[("range", "bytes=900-999, 0-1, 500-509 ,-50")]).await;
    assert_eq!(again.body, answer.body);
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_bombs_cost_one_plain_answer() {
    let content = vec![b'x'; 10_000];
    let (replica, _, path) = with_blob(&content).await;
    let apart: Vec<String> = (0..100).map(|n| format!("{0}-{0}", n * 2)).collect();
    let apart = format!("bytes={}", apart.join(","));
    let overlapping = format!("bytes={}", vec!["0-"; 10_000].join(","));
    let many = format!("bytes={}", vec!["0-0"; 10_000].join(","));
    for bomb in [&apart, &overlapping, &many] {
        let answer = get(&replica, &path, &[("range", bomb)]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 10_000));
    }
    let two = [("range", "bytes=0-0"), ("range", "bytes=5-5")];
    assert_eq!(get(&replica, &path, &two).await.status, StatusCode::OK);
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_another_version_is_everything() {
    let (replica, digest, path) = with_blob(b"0123456789").await;
    let (right, weak) = (format!("\"{digest}\""), format!("W/\"{digest}\""));
    for (condition, status) in [
        (right.as_str(), StatusCode::PARTIAL_CONTENT),
        (weak.as_str(), StatusCode::OK),
        ("\"other\"", StatusCode::OK),
        ("Wed, 21 Oct 2026 07:28:00 GMT", StatusCode::OK),
        ("\u{e9}", StatusCode::OK),
    ] {
        let headers = [("range", "bytes=0-1"), ("if-range", condition)];
        assert_eq!(get(&replica, &path, &headers).await.status, status, "{condition}");
    }
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_is_not_sent_again() {
    let (replica, blob, path) = with_blob(b"{}").await;
    let pushed = replica.push_manifest("a", "v1", &image(&blob, &blob, 2)).await;
    let manifest = pushed.header("docker-content-digest").to_owned();
    let cases = [
        (path, blob.to_string()),
        ("/v2/a/manifests/v1".to_owned(), manifest.clone()),
        (format!("/v2/a/manifests/{manifest}"), manifest),
    ];
    for (path, digest) in cases {
        for list in [
            format!("\"{digest}\""),
            format!("W/\"{digest}\""),
            format!("\"other\", W/\"more\" ,\"{digest}\""),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let headers = [("if-none-match", list.as_str()), ("range", "bytes=0-0")];
                let answer = replica.send(method, &path, &headers, Body::empty()).await;
                assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{method} {path} {list}");
                assert_eq!(answer.header("etag"), format!("\"{digest}\""));
                assert_eq!(answer.header("docker-content-digest"), digest);
                assert!(answer.body.is_empty());
            }
        }
        let two = [("if-none-match", "\"a\""), ("if-none-match", "\"b\"")];
        assert_eq!(get(&replica, &path, &two).await.status, StatusCode::OK);
    }
    replica.consensus.shutdown().await;
}
