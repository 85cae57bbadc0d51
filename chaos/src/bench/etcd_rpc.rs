//! etcd's gRPC API, as far as a load needs it: one call, on a connection that is kept, one at a time.

use std::{
    future::poll_fn,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Method, Request, StatusCode, header};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};
use tokio::{net::TcpStream, time::Sleep};

use crate::load::{Failure, within};

/// A call that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(30);
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// What the prefix says of a message that is not compressed.
const PLAIN: u8 = 0;
/// What a member may send before it hears that it was read. With the default of 64 KiB it would wait for us.
const WINDOW_BYTES: u32 = 1 << 20;
const PUT: &str = "/etcdserverpb.KV/Put";

/// Sets a key. Not derived: the macro of `prost` would bring other features of the crates that RocksDB's bindings are
/// made with, and RocksDB would be compiled once more.
#[derive(Clone, Debug, Default, PartialEq)]
struct PutRequest {
    key: Bytes,
    value: Bytes,
}

impl PutRequest {
    const KEY: u32 = 1;
    const VALUE: u32 = 2;
}

impl Message for PutRequest {
    fn encode_raw(&self, out: &mut impl BufMut) {
        encoding::bytes::encode(Self::KEY, &self.key, out);
        encoding::bytes::encode(Self::VALUE, &self.value, out);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            Self::KEY => encoding::bytes::merge(wire, &mut self.key, from, context),
            Self::VALUE => encoding::bytes::merge(wire, &mut self.value, from, context),
            _ => encoding::skip_field(wire, tag, from, context),
        }
    }

    fn encoded_len(&self) -> usize {
        encoding::bytes::encoded_len(Self::KEY, &self.key)
            + encoding::bytes::encoded_len(Self::VALUE, &self.value)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Nothing of what it says is needed; it must be a message all the same.
type PutResponse = ();

/// A member, with the head of all requests that it will get.
#[derive(Clone, Debug)]
pub(super) struct Member {
    address: String,
    put: Request<()>,
}

impl Member {
    /// At `host:port`.
    pub(super) fn new(address: &str) -> Result<Self> {
        let put = head(address, PUT).with_context(|| format!("{address} is no address"))?;
        Ok(Self { address: address.to_owned(), put })
    }
}

fn head(address: &str, path: &str) -> http::Result<Request<()>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
}

/// A client's connection to a member. It is opened when it is needed, and again when it has failed.
pub(super) struct Channel {
    member: Member,
    sender: Option<SendRequest<Bytes>>,
    /// Fires at the deadline of some earlier call, or later. See [`within`].
    alarm: Pin<Box<Sleep>>,
}

impl Channel {
    /// Must be made inside a runtime.
    pub(super) fn new(member: Member) -> Self {
        Self { member, sender: None, alarm: Box::pin(tokio::time::sleep(DEADLINE)) }
    }

    /// Sets a key.
    pub(super) async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Failure> {
        let Self { member, sender, alarm } = self;
        let work = async {
            let question = framed(&PutRequest { key, value })?;
            if sender.is_none() {
                *sender = Some(connect(&member.address).await?);
            }
            let Some(sender) = sender.as_mut() else { return Err(Failure::Closed) };
            exchange(sender, member.put.clone(), question).await
        };
        let end = Instant::now() + DEADLINE;
        let answer = within(alarm, end, work).await.unwrap_or(Err(Failure::Timeout));
        // A member that says no is one that can be asked again.
        if !matches!(answer, Ok(_) | Err(Failure::Status(_))) {
            *sender = None;
        }
        PutResponse::decode(unframed(answer?)?).map_err(|_| Failure::Malformed)
    }
}

/// Opens a connection, which ends when nobody has its sender any more.
async fn connect(address: &str) -> Result<SendRequest<Bytes>, Failure> {
    let socket = TcpStream::connect(address).await.map_err(|_| Failure::Connect)?;
    socket.set_nodelay(true).map_err(|_| Failure::Connect)?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false);
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let (sender, connection) = builder.handshake(socket).await.map_err(|_| Failure::Connect)?;
    // Whoever has a request on it hears of its end.
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a message, and reads the whole answer.
async fn exchange(
    sender: &mut SendRequest<Bytes>,
    head: Request<()>,
    question: Bytes,
) -> Result<Bytes, Failure> {
    poll_fn(|context| sender.poll_ready(context)).await.map_err(|_| Failure::Closed)?;
    let (answer, mut body) = sender.send_request(head, false).map_err(|_| Failure::Closed)?;
    body.send_data(question, true).map_err(|_| Failure::Closed)?;
    let (head, mut body) = answer.await.map_err(|_| Failure::Closed)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Failure::Status(head.status.as_u16()));
    }
    let message = read(&mut body).await.map_err(|_| Failure::Closed)?;
    let trailers = body.trailers().await.map_err(|_| Failure::Closed)?;
    check_status(trailers.as_ref().unwrap_or(&head.headers))?;
    Ok(message)
}

async fn read(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}

/// Of the trailers; of the head where there is nothing else.
fn check_status(fields: &HeaderMap) -> Result<(), Failure> {
    let status = fields.get("grpc-status").and_then(|status| status.to_str().ok());
    match status.and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(status) => Err(Failure::Status(status)),
        None => Err(Failure::Malformed),
    }
}

/// A message as gRPC sends it.
fn framed(message: &impl Message) -> Result<Bytes, Failure> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(PLAIN);
    frame.put_u32(u32::try_from(length).map_err(|_| Failure::Length)?);
    message.encode(&mut frame).map_err(|_| Failure::Length)?;
    Ok(frame.freeze())
}

/// The only message of an answer.
fn unframed(mut frame: Bytes) -> Result<Bytes, Failure> {
    let is_plain = frame.try_get_u8() == Ok(PLAIN);
    let length = frame.try_get_u32().map_err(|_| Failure::Malformed)?;
    let is_whole = usize::try_from(length) == Ok(frame.len());
    (is_plain && is_whole).then_some(frame).ok_or(Failure::Malformed)
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tokio::net::TcpListener;

    use super::*;

    const FRAME: &[u8] = b"\0\0\0\0\x07\x0a\x01k\x12\x02vw";

    fn put_request() -> PutRequest {
        PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"vw") }
    }

    fn status(value: &'static str) -> HeaderMap {
        let value = header::HeaderValue::from_static(value);
        [(header::HeaderName::from_static("grpc-status"), value)].into_iter().collect()
    }

    #[test]
    fn messages_are_framed_as_grpc_has_them() {
        assert_eq!(framed(&put_request()).unwrap(), FRAME);
        let message = unframed(Bytes::from_static(FRAME)).unwrap();
        assert_eq!(PutRequest::decode(message), Ok(put_request()));
        // One without content is no answer of another length.
        assert_eq!(framed(&()).unwrap(), &b"\0\0\0\0\0"[..]);
        assert_eq!(unframed(Bytes::from_static(b"\0\0\0\0\0")), Ok(Bytes::new()));
    }

    #[test]
    fn what_is_cut_or_compressed_or_too_long_is_no_message() {
        let compressed = [b"\x01", &FRAME[1..]].concat();
        let longer = [FRAME, b"x"].concat();
        for frame in [&compressed, &longer, &FRAME[..11], &FRAME[..4], &[]] {
            let frame = Bytes::copy_from_slice(frame);
            assert_eq!(unframed(frame.clone()), Err(Failure::Malformed), "{frame:?}");
        }
    }

    #[test]
    fn only_a_status_of_zero_is_a_success() {
        assert_eq!(check_status(&status("0")), Ok(()));
        assert_eq!(check_status(&status("14")), Err(Failure::Status(14)));
        assert_eq!(check_status(&status("none")), Err(Failure::Malformed));
        assert_eq!(check_status(&HeaderMap::new()), Err(Failure::Malformed));
    }

    /// Says what the script says, call by call, each on whatever connection it comes, and then ends the connection.
    async fn serve(listener: TcpListener, script: &'static [Option<&'static str>]) -> usize {
        let (mut script, mut connections) = (script.iter(), 0);
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            connections += 1;
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(call) = connection.accept().await {
                let (_, mut respond) = call.unwrap();
                match script.next() {
                    // With the status in the only head that there is.
                    Some(Some(code)) => {
                        let mut answer = Response::new(());
                        *answer.headers_mut() = status(code);
                        respond.send_response(answer, true).unwrap();
                    }
                    Some(None) => break,
                    None => return connections,
                }
            }
        }
    }

    #[tokio::test]
    async fn a_channel_outlives_a_refusal_and_is_opened_again_after_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = Member::new(&listener.local_addr().unwrap().to_string()).unwrap();
        let server = tokio::spawn(serve(listener, &[Some("14"), None, Some("5"), Some("0")]));
        let mut channel = Channel::new(member.clone());
        let mut put = async || channel.put(Bytes::from_static(b"k"), Bytes::new()).await;
        assert_eq!(put().await, Err(Failure::Status(14)));
        assert_eq!(put().await, Err(Failure::Closed));
        assert_eq!(put().await, Err(Failure::Status(5)));
        assert_eq!(put().await, Err(Failure::Malformed), "a success without a message");
        assert_eq!(put().await, Err(Failure::Closed), "the script is over");
        assert_eq!(server.await.unwrap(), 2);
        assert_eq!(put().await, Err(Failure::Connect), "nobody is there");
    }

    #[test]
    fn an_address_is_one_that_fits_a_url() {
        assert!(Member::new("127.0.0.1:2379").is_ok());
        assert!(Member::new("not an address").is_err());
    }
}
