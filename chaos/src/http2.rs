//! HTTP/2 frame by frame (RFC 9113), over plain TCP with prior knowledge: what no client library would send.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::timeout,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A peer that takes no byte for this long has stopped reading.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
const HEADER_BYTES: usize = 9;

/// The frame types of RFC 9113, section 6, that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Part of a body.
    Data = 0,
    /// The header of a request.
    Headers = 1,
    /// The end of a stream, with a code.
    Reset = 3,
    /// Settings of the sender.
    Settings = 4,
    /// A ping.
    Ping = 6,
    /// The end of the connection, with a code.
    GoAway = 7,
    /// Room for more.
    WindowUpdate = 8,
    /// More of a header.
    Continuation = 9,
}

/// Flag of DATA and HEADERS: nothing follows on this stream.
pub const END_STREAM: u8 = 0x1;
/// Flag of HEADERS and CONTINUATION: the header is complete.
pub const END_HEADERS: u8 = 0x4;

/// Code of RST_STREAM: not looked at.
const REFUSED_STREAM: u32 = 0x7;

/// One frame as bytes.
pub fn frame(kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(length.get(1..).unwrap_or_default());
    bytes.extend_from_slice(&[kind as u8, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's header block: every field as a literal that no table remembers (RFC 7541, section 6.2.2).
pub fn request_block(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "registry")];
    let mut block = Vec::new();
    for (name, value) in pseudo.iter().chain(fields) {
        block.push(0);
        push_text(&mut block, name);
        push_text(&mut block, value);
    }
    block
}

/// A field that the receiver's table shall remember (RFC 7541, section 6.2.1).
pub fn remembered_field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x40];
    push_text(&mut block, name);
    push_text(&mut block, value);
    block
}

/// A length of seven bits, or of more, and the text as it is.
fn push_text(block: &mut Vec<u8>, text: &str) {
    const PREFIX_MAX: usize = 127;
    if text.len() < PREFIX_MAX {
        block.push(u8::try_from(text.len()).unwrap_or(0));
    } else {
        block.push(0x7f);
        let mut rest = text.len() - PREFIX_MAX;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap_or(0) | 0x80);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap_or(0));
    }
    block.extend_from_slice(text.as_bytes());
}

/// What has come back so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Headers of answers.
    pub answers: u64,
    /// Streams that the other side ended.
    pub resets: u64,
    /// Those of them that it did not look at.
    pub refused: u64,
    /// Pings that it answered.
    pub pongs: u64,
    /// The code with which it said good-bye.
    pub goaway: Option<u32>,
    /// The connection has ended.
    pub closed: bool,
}

/// Whether bytes could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The connection took them.
    Taken,
    /// The other side has ended the connection, or takes nothing more.
    Cut,
}

/// One connection. What comes back is read all the time, and counted.
#[derive(Debug)]
pub struct Http2 {
    write: OwnedWriteHalf,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

impl Http2 {
    /// Connects to `http://host:port` and sends the preface with empty settings.
    pub async fn connect(base: &str) -> Result<Self> {
        let host = base.trim_start_matches("http://");
        let socket =
            TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        let (read, mut write) = socket.into_split();
        write.write_all(PREFACE).await?;
        write.write_all(&frame(FrameKind::Settings, 0, 0, &[])).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = tokio::spawn(read_all(read, Arc::clone(&seen)));
        Ok(Self { write, seen, reader })
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Sent {
        match timeout(WRITE_DEADLINE, self.write.write_all(bytes)).await {
            Ok(Ok(())) if !self.seen().closed => Sent::Taken,
            _ => Sent::Cut,
        }
    }

    /// What has come back so far.
    pub fn seen(&self) -> Seen {
        *lock(&self.seen)
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_all(mut read: OwnedReadHalf, seen: Arc<Mutex<Seen>>) {
    // Ends with the connection; which way does not matter.
    while let Ok(()) = read_frame(&mut read, &seen).await {}
    lock(&seen).closed = true;
}

async fn read_frame(read: &mut OwnedReadHalf, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    read.read_exact(&mut header).await?;
    let [l0, l1, l2, kind, ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
    read.read_exact(&mut payload).await?;
    let code = |at: usize| {
        let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes)
    };
    let mut seen = lock(seen);
    if kind == FrameKind::Headers as u8 {
        seen.answers += 1;
    } else if kind == FrameKind::Reset as u8 {
        seen.resets += 1;
        seen.refused += u64::from(code(0) == Some(REFUSED_STREAM));
    } else if kind == FrameKind::Ping as u8 {
        seen.pongs += 1;
    } else if kind == FrameKind::GoAway as u8 {
        seen.goaway = code(4);
    }
    Ok(())
}

/// A few assignments; they stay whole when a holder panics.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_texts_have_their_lengths() {
        let bytes = frame(FrameKind::Reset, 0, 5, &[0, 0, 0, 8]);
        assert_eq!(bytes, [0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8]);
        // The example of RFC 7541, C.1.2, with a prefix of seven bits: 1337 - 127 = 1210.
        let mut block = Vec::new();
        push_text(&mut block, &"x".repeat(1337));
        assert_eq!(block.get(..3), Some(&[0x7f, 0xba, 0x09][..]));
    }
}
