//! One direction of one connection.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    time::Instant,
};

use super::weather::{Passage, Weather};

/// Bytes taken at once.
const CHUNK: usize = 16 * 1024;
/// Chunks under way: as much as a long link holds. Then the sender waits.
const CHUNKS_UNDER_WAY: usize = 64;

/// One direction of a link, over all its connections.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) weather: watch::Sender<Weather>,
    /// Bytes that could have been damaged since the start.
    exposed: AtomicU64,
    /// When the next byte may go if the link is narrow.
    free: Mutex<Option<Instant>>,
    random: Mutex<StdRng>,
    pub(super) bytes: AtomicU64,
    pub(super) corrupted: AtomicU64,
}

impl Lane {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            weather: watch::Sender::new(Weather::default()),
            exposed: AtomicU64::new(0),
            free: Mutex::new(None),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            bytes: AtomicU64::new(0),
            corrupted: AtomicU64::new(0),
        }
    }

    /// When a chunk that was sent now arrives.
    fn due(&self) -> Instant {
        let (delay, jitter) = {
            let weather = self.weather.borrow();
            (weather.delay, weather.jitter)
        };
        let jitter = if jitter.is_zero() {
            Duration::ZERO
        } else {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            random.random_range(Duration::ZERO..=2 * jitter)
        };
        let early = self.weather.borrow().jitter;
        Instant::now() + (delay + jitter).saturating_sub(early)
    }

    /// Takes the next turn on a narrow link: when a chunk of this length is through.
    fn turn(&self, length: usize) -> Option<Instant> {
        let rate = self.weather.borrow().bytes_per_second?.max(1);
        let takes = Duration::from_secs_f64(length as f64 / rate as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let through = free.map_or(now, |free| free.max(now)) + takes;
        *free = Some(through);
        Some(through)
    }
}

/// Why a flow ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The weather said so.
    Reset,
    /// One of the two sides did.
    Side,
}

/// The bytes of one connection on one lane.
pub(super) struct Flow<'a> {
    lane: &'a Lane,
    weather: watch::Receiver<Weather>,
    position: u64,
    /// Bytes under a weather that resets.
    under_reset: u64,
}

impl<'a> Flow<'a> {
    pub(super) fn new(lane: &'a Lane) -> Self {
        Self { lane, weather: lane.weather.subscribe(), position: 0, under_reset: 0 }
    }

    /// Passes everything on until the end of the stream, which is passed on too.
    pub(super) async fn run(
        mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), Broken> {
        let (sent, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
        let lane = self.lane;
        let take = async {
            let mut last = Instant::now();
            loop {
                let mut chunk = vec![0; CHUNK];
                let length = from.read(&mut chunk).await.map_err(|_| Broken::Side)?;
                chunk.truncate(length);
                // In order, whatever the jitter says.
                last = last.max(lane.due());
                if sent.send((last, chunk)).await.is_err() || length == 0 {
                    drop(sent);
                    return Ok(());
                }
            }
        };
        let give = async {
            while let Some((due, chunk)) = arriving.recv().await {
                tokio::time::sleep_until(due).await;
                if chunk.is_empty() {
                    self.held().await;
                    // The other side may be gone already, and then its own flow says so.
                    let _ = to.shutdown().await;
                    return Ok(());
                }
                self.give(chunk, &mut to).await?;
            }
            Ok(())
        };
        tokio::try_join!(take, give).map(|_| ())
    }

    /// Waits as long as nothing passes.
    async fn held(&mut self) {
        // The sender lives as long as the link that this borrows from.
        let _ = self.weather.wait_for(|weather| weather.passage == Passage::Open).await;
    }

    async fn give(&mut self, mut chunk: Vec<u8>, to: &mut WriteHalf<'_>) -> Result<(), Broken> {
        self.held().await;
        if let Some(through) = self.lane.turn(chunk.len()) {
            tokio::time::sleep_until(through).await;
            self.held().await;
        }
        let (corruption, reset_after) = {
            let weather = self.weather.borrow();
            (weather.corruption.clone(), weather.reset_after)
        };
        if let Some(corruption) = corruption {
            let passed = self.lane.exposed.load(Ordering::Relaxed);
            let (damaged, exposed) = corruption.apply(&mut chunk, self.position, passed);
            self.lane.exposed.fetch_add(exposed, Ordering::Relaxed);
            self.lane.corrupted.fetch_add(damaged, Ordering::Relaxed);
        }
        let mut ends = false;
        match reset_after {
            Some(after) => {
                let left = after.saturating_sub(self.under_reset);
                let length = usize::try_from(left).unwrap_or(usize::MAX);
                ends = length <= chunk.len();
                chunk.truncate(length);
                self.under_reset += chunk.len() as u64;
            }
            None => self.under_reset = 0,
        }
        to.write_all(&chunk).await.map_err(|_| Broken::Side)?;
        self.position += chunk.len() as u64;
        self.lane.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if ends { Err(Broken::Reset) } else { Ok(()) }
    }
}
