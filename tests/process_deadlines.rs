//! The accept loop against clients that misbehave, over real sockets with short deadlines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::stream;
use tercet::ops::Metrics;
use tercet::server::{Server, ServerLimits, ServerParts};
use tercet::worker::Workers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Far beyond any deadline here: what takes longer hangs.
const HANG: Duration = Duration::from_secs(20);

fn limits() -> ServerLimits {
    ServerLimits {
        listener: "test",
        connections_max: 8,
        header_timeout: Duration::from_millis(400),
        first_byte_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(400),
        body_rate_min_bytes: 100,
        body_rate_window: Duration::from_millis(400),
        write_stall: Duration::from_millis(400),
        drain: Duration::from_secs(5),
    }
}

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    server: Server,
}

impl Running {
    async fn start(limits: ServerLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let parts = ServerParts {
            listener,
            router: routes(),
            tls: None,
            limits,
            metrics: Arc::clone(&metrics),
        };
        Self { address, metrics, server: Server::start(&Workers::new(), parts) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn cut(&self, reason: &str) -> u64 {
        self.metrics.connections_cut.with_label_values(&["test", reason]).get()
    }
}

fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                "done"
            }),
        )
        .route(
            "/endless",
            get(|| async {
                let chunks =
                    stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 65_536])));
                Body::from_stream(chunks)
            }),
        )
        .route(
            "/read",
            post(|body: Body| async move {
                match axum::body::to_bytes(body, usize::MAX).await {
                    Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
                    Err(error) => (StatusCode::REQUEST_TIMEOUT, format!("{error:?}")),
                }
            }),
        )
}

/// Everything up to the end of the connection.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut bytes)).await.expect("it hangs");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let running = Running::start(limits()).await;
    let began = Instant::now();
    assert_eq!(read_all(&mut running.connect().await).await, "");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(running.cut("first_byte"), 1);
}

#[tokio::test]
async fn a_header_that_drips_is_cut() {
    let running = Running::start(limits()).await;
    let (mut read, mut write) = running.connect().await.into_split();
    let drip = async move {
        for byte in b"GET / HTTP/1.1\r\nHost: ".iter().chain(std::iter::repeat(&b'x')) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut bytes = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = read.read_to_end(&mut bytes) => {}
        () = tokio::time::sleep(HANG) => panic!("slow loris holds its connection"),
    }
    assert_eq!(running.cut("header"), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let running = Running::start(limits()).await;
    let mut stream = running.connect().await;
    // The handler takes longer than every deadline of the connection.
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn a_body_that_trickles_fails_and_one_that_flows_does_not() {
    let running = Running::start(limits()).await;
    let mut slow = running.connect().await;
    slow.write_all(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        .await
        .unwrap();
    let answer = read_all(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("BodyTooSlow"), "{answer}");

    let mut fast = running.connect().await;
    fast.write_all(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fast.write_all(&[b'x'; 100]).await.unwrap();
    }
    let answer = read_all(&mut fast).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("1000"), "{answer}");
}

#[tokio::test]
async fn a_puller_that_never_reads_is_cut() {
    let running = Running::start(limits()).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let wait = async {
        while running.cut("write_stall") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.expect("it is never cut");
}

#[tokio::test]
async fn a_slow_reader_that_goes_on_is_not_cut() {
    let running = Running::start(limits()).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 1024 * 1024];
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.read_exact(&mut buffer).await.unwrap();
    }
    assert_eq!(running.cut("write_stall"), 0);
}

#[tokio::test]
async fn connections_beyond_the_cap_are_refused_at_once() {
    let running = Running::start(ServerLimits {
        connections_max: 2,
        first_byte_timeout: HANG,
        idle_timeout: HANG,
        ..limits()
    })
    .await;
    let (mut one, mut two) = (running.connect().await, running.connect().await);
    for stream in [&mut one, &mut two] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
    }
    let answer = read_all(&mut running.connect().await).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After"), "{answer}");
    drop(one);
    let freed = async {
        loop {
            let mut stream = running.connect().await;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            if read_all(&mut stream).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, freed).await.expect("the place is never free again");
}

#[tokio::test]
async fn a_drain_lets_requests_in_flight_end() {
    let running = Running::start(limits()).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let address = running.address;
    let (drained, answer) = tokio::join!(running.server.drain(), read_all(&mut stream));
    assert!(answer.ends_with("done"), "{answer}");
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert!(TcpStream::connect(address).await.is_err(), "a drained listener accepts");
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let short = ServerLimits { drain: Duration::from_millis(200), write_stall: HANG, ..limits() };
    let running = Running::start(short).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 1024]).await.unwrap();
    let drained = tokio::time::timeout(HANG, running.server.drain()).await.expect("it hangs");
    assert_eq!(drained.cut, 1);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let running = Running::start(limits()).await;
    for path in ["/", "/nothing"] {
        let mut stream = running.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await;
    }
    let requests = &running.metrics.http_requests;
    assert_eq!(requests.with_label_values(&["test", "ops", "GET", "2xx"]).get(), 1);
    assert_eq!(requests.with_label_values(&["test", "other", "GET", "4xx"]).get(), 1);
}
