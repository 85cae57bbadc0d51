//! Messages between replicas and from clients, as datagrams of the simulated network: each may be lost, come late
//! or out of order. A replica that does not run refuses them, unless its machine is off.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tercet_raft::{Hello, Invitation, NodeId, RpcKind, Target, Transport, TransportError};
use tercet_storage::Digest;
use tercet_storage::codec::{Schema, decode, encode};
use tokio::sync::oneshot;
use turmoil::net::UdpSocket;

use crate::op::{Op, Told};
use crate::world::{World, fingerprint};

pub(crate) const PORT: u16 = 5001;
const PACKET: Schema = Schema { id: 900, version: 1, name: "simulated packet" };
/// The largest datagram: a snapshot.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Packet {
    Ask(u64, Ask),
    Answer(u64, Answer),
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    Hello,
    Rpc {
        target: NodeId,
        path: String,
        #[serde(with = "tercet_storage::codec::byte_field")]
        body: Vec<u8>,
    },
    Snapshot {
        target: NodeId,
        #[serde(with = "tercet_storage::codec::byte_field")]
        body: Vec<u8>,
    },
    /// Take this blob, and say so once it is durable.
    PutBlob {
        digest: Digest,
    },
    /// Is it there?
    HasBlob {
        digest: Digest,
    },
    Client(Op),
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Hello(Hello),
    Body(#[serde(with = "tercet_storage::codec::byte_field")] Vec<u8>),
    Refused(u16, String),
    Yes,
    No,
    Told(Told),
}

impl Ask {
    fn kind(&self) -> &str {
        match self {
            Self::Hello => "hello",
            Self::Rpc { path, .. } => path,
            Self::Snapshot { .. } => "snapshot",
            Self::PutBlob { .. } => "put-blob",
            Self::HasBlob { .. } => "has-blob",
            Self::Client(_) => "client",
        }
    }
}

/// One end of the network.
pub(crate) struct Net {
    name: String,
    socket: UdpSocket,
    world: World,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
}

impl Net {
    pub(crate) async fn bind(world: World, name: String, port: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind(("0.0.0.0", port)).await?;
        let (waiting, next) = (Mutex::default(), AtomicU64::new(1));
        Ok(Self { name, socket, world, waiting, next })
    }

    /// The next question of somebody; hands answers to those who wait for them.
    pub(crate) async fn receive(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<(std::net::SocketAddr, u64, Ask)> {
        loop {
            let (length, from) = self.socket.recv_from(buffer).await?;
            let packet: Packet = decode(PACKET, buffer.get(..length).unwrap_or_default())
                .map_err(io::Error::other)?;
            match packet {
                Packet::Ask(number, ask) => return Ok((from, number, ask)),
                Packet::Answer(number, answer) => {
                    let waiter = self.waiting().remove(&number);
                    // Who asked may have given up.
                    if let Some(waiter) = waiter {
                        let _ = waiter.send(answer);
                    }
                }
            }
        }
    }

    pub(crate) fn answer(&self, to: std::net::SocketAddr, number: u64, answer: Answer) {
        self.send(&to.ip().to_string(), to, "answer", &Packet::Answer(number, answer));
    }

    /// Asks the host of that name.
    pub(crate) async fn ask(
        &self,
        host: &str,
        ask: Ask,
        deadline: Duration,
    ) -> Result<Answer, TransportError> {
        let port = {
            let world = self.world.lock();
            let machine = world.machines.iter().find(|machine| machine.name == host);
            machine.and_then(|machine| machine.port)
        };
        let Some(port) = port else {
            return Err(TransportError::NotSent("connection refused".to_owned()));
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        self.waiting().insert(number, answered);
        let kind = ask.kind().to_owned();
        self.send(host, (host, port), &kind, &Packet::Ask(number, ask));
        let answer = tokio::time::timeout(deadline, answer).await;
        self.waiting().remove(&number);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(TransportError::Broken("the network is gone".to_owned())),
            Err(_) => Err(TransportError::TimedOut(deadline)),
        }
    }

    fn send(&self, to: &str, address: impl turmoil::ToSocketAddrs, kind: &str, packet: &Packet) {
        let Ok(bytes) = encode(PACKET, packet) else {
            self.world.violation(format!("a {kind} message cannot be written"));
            return;
        };
        let lost = {
            let mut world = self.world.lock();
            let loss = world.loss;
            world.counts.messages += 1;
            loss > 0.0 && rand::RngExt::random_bool(&mut world.dice, loss)
        };
        self.world.note(|| {
            let lost = if lost { " LOST" } else { "" };
            format!("{} -> {to} {kind} {:016x}{lost}", self.name, fingerprint(&bytes))
        });
        if !lost {
            // A network that takes no message loses it.
            let _ = self.socket.try_send_to(&bytes, address);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn body(
        &self,
        address: &str,
        ask: Ask,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        match self.ask(host(address), ask, deadline).await? {
            Answer::Body(body) => Ok(Bytes::from(body)),
            Answer::Refused(status, message) => Err(TransportError::Rejected { status, message }),
            other => {
                Err(TransportError::Broken(format!("an answer to another question: {other:?}")))
            }
        }
    }
}

pub(crate) fn address(name: &str) -> String {
    format!("sim://{name}")
}

pub(crate) fn host(address: &str) -> &str {
    address.trim_start_matches("sim://")
}

impl Transport for Net {
    fn call(
        &self,
        target: &Target,
        rpc: RpcKind,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let (address, path) = (target.address.clone(), rpc.path().to_owned());
        let ask = Ask::Rpc { target: target.node_id, path, body: body.to_vec() };
        Box::pin(async move { self.body(&address, ask, deadline).await })
    }

    fn send_snapshot(
        &self,
        target: &Target,
        mut body: BoxStream<'static, io::Result<Bytes>>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let (address, target) = (target.address.clone(), target.node_id);
        Box::pin(async move {
            let mut whole = Vec::new();
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| TransportError::Broken(error.to_string()))?;
                whole.extend_from_slice(&chunk);
            }
            self.world.lock().counts.snapshots += 1;
            let ask = Ask::Snapshot { target, body: whole };
            // A lost datagram is lost for good, and a real connection would not wait ten minutes either.
            self.body(&address, ask, deadline.min(Duration::from_secs(2))).await
        })
    }

    fn hello(
        &self,
        address: &str,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Hello, TransportError>> {
        let address = address.to_owned();
        Box::pin(async move {
            match self.ask(host(&address), Ask::Hello, deadline).await? {
                Answer::Hello(hello) => Ok(hello),
                other => Err(TransportError::Broken(format!("no hello: {other:?}"))),
            }
        })
    }

    fn invite(
        &self,
        _address: &str,
        _invitation: &Invitation,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<(), TransportError>> {
        // Nobody is invited: all replicas are initial members.
        Box::pin(async { Err(TransportError::NotSent("nobody is invited here".to_owned())) })
    }
}
