//! The bytes of a connection, with or without TLS.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, BufReader, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// What is read at once. As much as fits a core's second cache with room to spare; more makes reading slower.
const READ_BYTES: usize = 256 * 1024;

thread_local! {
    /// One for all connections of a thread, so that it stays in the cache. What was read is looked at, and gone.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// An open connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Wire {
    /// Sends all of it.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes).await,
            Self::Tls(stream) => stream.write_all(bytes).await,
        }
    }

    /// After the last [`Self::send`] of a request.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    /// Waits for bytes, and shows them to `look`; none means that the other side has closed.
    pub(super) async fn read<T>(&mut self, mut look: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(self.poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(look(buffer.filled())))
            })
        })
        .await
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }
}
