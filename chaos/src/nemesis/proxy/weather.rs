//! What a direction of a link is like at the moment.

use std::{ops::Range, time::Duration};

/// All that can be wrong with one direction of a link. The default is a good one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Every byte arrives so much later.
    pub(crate) delay: Duration,
    /// The delay is up to so much more or less, drawn for each chunk. Bytes stay in order.
    pub(crate) jitter: Duration,
    /// The most bytes per second, over all connections together.
    pub(crate) bytes_per_second: Option<u64>,
    /// A connection is cut with a reset once it has carried so many bytes in this direction under this weather.
    pub(crate) reset_after: Option<u64>,
    /// Damage to the bytes.
    pub(crate) corruption: Option<Corruption>,
    /// Whether anything passes at all.
    pub(crate) passage: Passage,
}

/// Whether bytes pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passage {
    /// They do.
    #[default]
    Open,
    /// They are taken and held until the weather changes, as packets are that vanish and are sent again. Nobody is
    /// told, and new connections are taken too.
    BlackHole,
}

/// Which bytes get one of their bits flipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// Where.
    pub(crate) damage: Damage,
}

/// Where a stream is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Every so many-th byte of all that passes in this direction.
    EveryByte(u64),
    /// The same, but of the bodies of HTTP messages only. Without TLS nothing but TCP protects the head of a message, and
    /// no registry could tell one status from another there.
    EveryBodyByte(u64),
    /// Every byte between these positions of a connection.
    Window(Range<u64>),
}

impl Weather {
    /// Late by `delay`, more or less.
    pub(crate) fn late(delay: Duration, jitter: Duration) -> Self {
        Self { delay, jitter, ..Self::default() }
    }

    /// No faster than this.
    pub(crate) fn narrow(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: Some(bytes_per_second), ..Self::default() }
    }

    /// Damaging.
    pub(crate) fn corrupting(damage: Damage) -> Self {
        Self { corruption: Some(Corruption { damage }), ..Self::default() }
    }

    /// Cutting connections after so many bytes.
    pub(crate) fn resetting(after: u64) -> Self {
        Self { reset_after: Some(after), ..Self::default() }
    }

    /// What is wrong with it, for a report.
    pub(crate) fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.delay.is_zero() {
            words.push(format!("{:?} late, more or less {:?}", self.delay, self.jitter));
        }
        if let Some(rate) = self.bytes_per_second {
            words.push(format!("{rate} bytes a second"));
        }
        if let Some(after) = self.reset_after {
            words.push(format!("a reset after {after} bytes"));
        }
        if let Some(Corruption { damage }) = &self.corruption {
            words.push(format!("damage to {damage:?}"));
        }
        if self.passage == Passage::BlackHole {
            words.push("nothing passes".to_owned());
        }
        words.join(", ")
    }

    /// Letting nothing through.
    pub(crate) fn black_hole() -> Self {
        Self { passage: Passage::BlackHole, ..Self::default() }
    }
}

impl Corruption {
    /// Damages what is due of a chunk. `position` is where the chunk begins in its connection, `passed` counts the bytes of
    /// the whole direction up to it that could have been damaged. Returns how many bytes were damaged, and how many could
    /// have been.
    pub(super) fn apply(&self, chunk: &mut [u8], position: u64, passed: u64) -> (u64, u64) {
        match &self.damage {
            Damage::EveryByte(every) => every_byte(chunk, *every, passed),
            Damage::EveryBodyByte(every) => {
                let start = body_start(chunk);
                every_byte(chunk.get_mut(start..).unwrap_or_default(), *every, passed)
            }
            Damage::Window(window) => {
                let mut count = 0;
                for (byte, place) in chunk.iter_mut().zip(position..) {
                    if window.contains(&place) {
                        *byte ^= 1 << (place % 8);
                        count += 1;
                    }
                }
                (count, chunk.len() as u64)
            }
        }
    }
}

fn every_byte(chunk: &mut [u8], every: u64, passed: u64) -> (u64, u64) {
    let every = every.max(1);
    let mut count = 0;
    for (byte, number) in chunk.iter_mut().zip(passed + 1..) {
        if number % every == 0 {
            // Not always the same bit.
            *byte ^= 1 << ((number / every) % 8);
            count += 1;
        }
    }
    (count, chunk.len() as u64)
}

/// Where the body begins that a chunk of HTTP carries; at its end if it is all head. A chunk that does not look like a
/// head goes on with a body.
fn body_start(chunk: &[u8]) -> usize {
    const HEADS: [&[u8]; 7] =
        [b"HTTP/1.", b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE "];
    const END: &[u8] = b"\r\n\r\n";
    let end = chunk.windows(END.len()).rposition(|window| window == END);
    match end {
        Some(end) => end + END.len(),
        None if HEADS.iter().any(|head| chunk.starts_with(head)) => chunk.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_byte_is_damaged_across_chunks() {
        let corruption = Corruption { damage: Damage::EveryByte(10) };
        let mut damaged = Vec::new();
        let mut passed = 0;
        for length in [7_usize, 7, 16] {
            let mut chunk = vec![0_u8; length];
            let (_, could) = corruption.apply(&mut chunk, 0, passed);
            passed += could;
            damaged.extend(chunk);
        }
        let places: Vec<usize> = (0..30).filter(|place| damaged[*place] != 0).collect();
        assert_eq!(places, [9, 19, 29]);
        assert!(damaged.iter().all(|byte| byte.count_ones() <= 1), "one bit each");
    }

    #[test]
    fn a_window_is_of_one_connection() {
        let corruption = Corruption { damage: Damage::Window(5..8) };
        let mut chunk = [0_u8; 6];
        assert_eq!(corruption.apply(&mut chunk, 4, 0).0, 3);
        assert_eq!(chunk.map(|byte| byte != 0), [false, true, true, true, false, false]);
    }

    #[test]
    fn heads_are_left_alone_where_only_bodies_are_meant() {
        let corruption = Corruption { damage: Damage::EveryBodyByte(1) };
        let mut message = *b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let whole = message;
        assert_eq!(corruption.apply(&mut message, 0, 0), (3, 3));
        assert_eq!(message[..message.len() - 3], whole[..whole.len() - 3]);
        assert!(!message.ends_with(b"abc"));
        let mut head = *b"GET /peer/status HTTP/1.1\r\nhost:";
        assert_eq!(corruption.apply(&mut head, 0, 0), (0, 0));
        let mut body = *b"the middle of a layer";
        assert_eq!(corruption.apply(&mut body, 0, 0).0, body.len() as u64);
    }
}
