//! A TCP proxy that stands on a link and makes it a bad one, while it runs and in each direction by itself.
//!
//! It knows nothing of what it carries, so that it can stand between replicas and before them, and needs no
//! right but that of a listener on loopback. What a real bad link does to TCP it does to the bytes: what a router
//! would drop is held until the link is better, what a broken device would damage is damaged behind TCP's own
//! checksum.

mod flow;
#[cfg(test)]
mod tests;
mod weather;

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub(crate) use weather::{Damage, Weather};

use flow::{Broken, Flow};

/// A target that does not answer is like a port that nobody listens on.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Before the next look for connections, when none could be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One way along a link, as seen from who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From who connects to the target: requests.
    There,
    /// From the target to who connected: answers.
    Back,
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Connections that were taken.
    pub(crate) connections: u64,
    /// Bytes given on, both ways.
    pub(crate) bytes: u64,
    /// Bytes that were damaged on their way.
    pub(crate) corrupted: u64,
    /// Connections that were cut with a reset.
    pub(crate) resets: u64,
}

/// One listener that passes everything on to one target. All of it ends when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    /// Ends with the proxy, and every connection with it.
    _runner: JoinSet<()>,
}

/// What all connections of a proxy have in common.
#[derive(Debug)]
struct Link {
    target: SocketAddr,
    there: flow::Lane,
    back: flow::Lane,
    /// Counts calls of [`Proxy::reset`].
    resets_wanted: watch::Sender<u64>,
    connections: AtomicU64,
    resets: AtomicU64,
}

impl Proxy {
    /// Listens at `listen`, where port 0 means any, and stands before `target`. Everything random is drawn from `seed`.
    /// Must be called inside the runtime.
    pub(crate) fn start(listen: SocketAddr, target: SocketAddr, seed: u64) -> Result<Self> {
        let listener =
            StdListener::bind(listen).with_context(|| format!("listen at {listen} as a proxy"))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link {
            target,
            there: flow::Lane::new(seed),
            back: flow::Lane::new(seed ^ (1 << 63)),
            resets_wanted: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        });
        let mut runner = JoinSet::new();
        runner.spawn(accept(listener, Arc::clone(&link)));
        Ok(Self { address, link, _runner: runner })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather of one direction, also for the connections that there are.
    pub(crate) fn set(&self, direction: Direction, weather: Weather) {
        let lane = match direction {
            Direction::There => &self.link.there,
            Direction::Back => &self.link.back,
        };
        lane.weather.send_replace(weather);
    }

    /// The same weather in both directions.
    pub(crate) fn set_both(&self, weather: &Weather) {
        self.set(Direction::There, weather.clone());
        self.set(Direction::Back, weather.clone());
    }

    /// Fair weather. What was held passes now.
    pub(crate) fn clear(&self) {
        self.set_both(&Weather::default());
    }

    /// Cuts every connection that there is with a reset (RST), whatever is under way.
    pub(crate) fn reset(&self) {
        self.link.resets_wanted.send_modify(|count| *count += 1);
    }

    /// What has passed so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let Link { there, back, connections, resets, .. } = &*self.link;
        let both = |count: fn(&flow::Lane) -> &AtomicU64| {
            count(there).load(Ordering::Relaxed) + count(back).load(Ordering::Relaxed)
        };
        Traffic {
            connections: connections.load(Ordering::Relaxed),
            bytes: both(|lane| &lane.bytes),
            corrupted: both(|lane| &lane.corrupted),
            resets: resets.load(Ordering::Relaxed),
        }
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors or the like: who connected will try again.
                let Ok((client, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                link.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(client, Arc::clone(&link)));
            }
            // Only to let go of what has ended.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection from its beginning to its end.
async fn serve(mut client: TcpStream, link: Arc<Link>) {
    let mut resets = link.resets_wanted.subscribe();
    let connect = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(link.target));
    let Ok(Ok(mut target)) = connect.await else {
        // Nobody listens there: who connected hears the same.
        reset(&client);
        return;
    };
    // A chunk that waits for an acknowledgement would be a delay that nobody asked for.
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    let ended = {
        let (client_reads, client_writes) = client.split();
        let (target_reads, target_writes) = target.split();
        let there = Flow::new(&link.there).run(client_reads, target_writes);
        let back = Flow::new(&link.back).run(target_reads, client_writes);
        tokio::select! {
            ended = async { tokio::try_join!(there, back).map(|_| ()) } => ended,
            _ = resets.changed() => Err(Broken::Reset),
        }
    };
    if let Err(broken) = ended {
        if broken == Broken::Reset {
            link.resets.fetch_add(1, Ordering::Relaxed);
        }
        reset(&client);
        reset(&target);
    }
}

/// Dropping the socket sends RST from now on (SO_LINGER of zero).
fn reset(socket: &TcpStream) {
    // One that is gone already is what we want.
    let _ = socket.set_zero_linger();
}
