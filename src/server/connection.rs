//! One connection: handshake, requests, and the watch that cuts it when it misses a deadline.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::activity::{Activity, Missed};
use super::body::{PacedBody, WatchedBody};
use super::client::{ClientCertificate, RemoteAddress, Scheme};
use super::handshake::shake_hands;
use super::limits::ServerLimits;
use super::observe::Observer;
use super::tls::TlsSource;

/// Bytes of the longest request header on HTTP/1. A `last=` with a long name fits many times.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Header fields of one request.
const HEADERS_MAX: usize = 100;
/// Requests at a time on one HTTP/2 connection; each may hold a piece of a blob in memory.
const HTTP2_STREAMS_MAX: u32 = 64;
/// Bytes that one HTTP/2 response may have waiting in the connection.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams that a client may open and reset before they were looked at. A good client resets few, and
/// late (CVE-2023-44487).
const HTTP2_RESETS_PENDING_MAX: usize = 20;
/// Streams of one connection that were reset here because of what the client did, such as opening too
/// many; with one more the connection ends (CVE-2025-8671).
const HTTP2_RESETS_OF_ERRORS_MAX: usize = 256;
/// HTTP/2 receive windows. A push gets one stream window per round trip at most: over 20 ms, 1 MiB
/// gave 35 MB/s and 4 MiB give 117. They are fixed, because windows that adapt begin so small that a
/// push within one data centre took twice as long. What a slow handler leaves unread waits in
/// memory; the window of the connection bounds that over all its streams.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The watch looks this many times within the shortest deadline, within bounds.
const LOOKS_PER_DEADLINE: u32 = 4;
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// What every connection of a listener shares.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) tls: Option<Arc<TlsSource>>,
    pub(super) limits: ServerLimits,
    pub(super) observer: Observer,
    pub(super) shutdown: CancellationToken,
}

/// Serves one connection until it ends, misses a deadline, or the listener drains.
pub(super) async fn serve(stream: TcpStream, remote: SocketAddr, shared: Arc<Shared>) {
    // Small responses must not wait for the acknowledgement of earlier ones.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%remote, %error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = &shared.tls else {
        let client = Client { remote, scheme: Scheme::Http, certificate: None };
        return serve_http(stream, client, &shared).await;
    };
    let Some(stream) = shake_hands(stream, remote, tls, &shared).await else { return };
    let certificate = tls.client_of(stream.get_ref().1);
    let client = Client { remote, scheme: Scheme::Https, certificate };
    serve_http(stream, client, &shared).await;
}

/// What is known about the other end before its first request.
#[derive(Clone)]
struct Client {
    remote: SocketAddr,
    scheme: Scheme,
    certificate: Option<ClientCertificate>,
}

async fn serve_http<S>(stream: S, client: Client, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let remote = client.remote;
    let activity = Activity::accepted(Instant::now());
    let io = TokioIo::new(WatchedIo { inner: stream, activity: activity.clone() });
    let service =
        service_fn(|request| answer(request, client.clone(), activity.clone(), Arc::clone(shared)));
    let builder = builder(&shared.limits);
    let connection = builder.serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%remote, %error, "connection ended early");
                }
                return;
            }
            missed = watch(&activity, &shared.limits) => {
                match missed {
                    Missed::Idle => tracing::trace!(%remote, "idle connection closed"),
                    missed => shared.observer.cut(remote, missed.as_str()),
                }
                return;
            }
            () = shared.shutdown.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(limits: &ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The watch does this, and tells an idle connection from a header that drips.
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_pending_accept_reset_streams(HTTP2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(HTTP2_RESETS_OF_ERRORS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES);
    builder
}

async fn answer(
    request: Request<Incoming>,
    client: Client,
    activity: Activity,
    shared: Arc<Shared>,
) -> Result<Response<WatchedBody>, Infallible> {
    let guard = activity.request_began(request.version() == Version::HTTP_2);
    let mut request = request.map(|body| Body::new(PacedBody::new(body, &shared.limits)));
    let extensions = request.extensions_mut();
    extensions.insert(RemoteAddress(client.remote));
    extensions.insert(client.scheme);
    if let Some(certificate) = client.certificate {
        extensions.insert(certificate);
    }
    let observed = shared.observer.request(&request, client.remote);
    let response = shared.router.clone().oneshot(request).await?;
    observed.answered(&response);
    Ok(response.map(|body| WatchedBody::new(body, guard)))
}

/// Returns when the connection has missed a deadline.
async fn watch(activity: &Activity, limits: &ServerLimits) -> Missed {
    let shortest = limits
        .first_byte_timeout
        .min(limits.header_timeout)
        .min(limits.idle_timeout)
        .min(limits.write_stall);
    let look = (shortest / LOOKS_PER_DEADLINE).clamp(LOOK_MIN, LOOK_MAX);
    loop {
        tokio::time::sleep(look).await;
        if let Some(missed) = activity.missed(Instant::now(), limits) {
            return missed;
        }
    }
}

/// Tells the watch when bytes move and when they do not.
struct WatchedIo<S> {
    inner: S,
    activity: Activity,
}

impl<S> WatchedIo<S> {
    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(_)) => self.activity.bytes_written(Instant::now()),
            Poll::Pending => self.activity.write_blocked(Instant::now()),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.activity.bytes_read(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
