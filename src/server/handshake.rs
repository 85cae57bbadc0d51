//! The beginning of a connection that has to be TLS.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::Shared;
use super::tls::TlsSource;

/// Said to whoever speaks plain HTTP here. It fits any socket buffer, so writing never waits.
const SPEAKS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 50\r\n\r\n\
    this port speaks HTTPS; begin the URL with https:\n";
/// What is read of such a request, so that closing does not reset the answer away.
const REQUEST_BYTES: usize = 4 * 1024;

/// Shakes hands, within the time that a request header may take and until the listener drains.
pub(super) async fn shake_hands(
    stream: TcpStream,
    remote: SocketAddr,
    tls: &TlsSource,
    shared: &Shared,
) -> Option<TlsStream<TcpStream>> {
    let handshake = async {
        if speaks_http(&stream).await? {
            refuse_http(stream).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP"));
        }
        TlsAcceptor::from(tls.server_config()).accept(stream).await
    };
    let in_time = tokio::time::timeout(shared.limits.header_timeout, handshake);
    // Nothing has been asked yet, so a drain does not wait for it.
    match shared.shutdown.run_until_cancelled(in_time).await? {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            shared.observer.handshake_failed(remote, &error);
            None
        }
        Err(_) => {
            shared.observer.cut(remote, "handshake");
            None
        }
    }
}

/// A TLS record begins with a byte below 32, a request of HTTP with the letter of its method.
async fn speaks_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    Ok(read == 1 && first.iter().all(u8::is_ascii_alphabetic))
}

async fn refuse_http(mut stream: TcpStream) -> io::Result<()> {
    stream.try_read(&mut [0; REQUEST_BYTES])?;
    stream.try_write(SPEAKS_TLS)?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_answer_to_plain_http_has_the_length_it_says() {
        let text = std::str::from_utf8(SPEAKS_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
