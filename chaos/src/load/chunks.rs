//! The chunked transfer coding (RFC 9112, section 7.1), undone as the bytes come.

use super::head::Malformed;

/// More hexadecimal digits than a size of 64 bits has.
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in a chunked body the bytes so far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the size of a chunk: its value and digits so far.
    Size { size: u64, digits: u8 },
    /// Between the digits of a size and the end of its line.
    Extension { size: u64 },
    /// In the data of a chunk, of which so many bytes are missing.
    Data { left: u64 },
    /// Between the data of a chunk and the next size.
    DataEnd,
    /// After the last chunk, so many bytes into a line.
    Trailer { length: u64 },
    /// Behind the end.
    Done,
}

impl Chunks {
    /// Before the first chunk.
    pub(super) const START: Self = Self::Size { size: 0, digits: 0 };

    /// Takes the next bytes, hands the data among them to `data`, and returns what follows the end of the body.
    ///
    /// # Errors
    /// If these are no chunks.
    pub(super) fn take<'a>(
        &mut self,
        mut bytes: &'a [u8],
        mut data: impl FnMut(&'a [u8]),
    ) -> Result<&'a [u8], Malformed> {
        while *self != Self::Done {
            if let Self::Data { left } = *self {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (now, later) = bytes.split_at(length);
                data(now);
                bytes = later;
                let left = left - length as u64;
                *self = if left == 0 { Self::DataEnd } else { Self::Data { left } };
                if left > 0 {
                    break;
                }
            }
            let Some((byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            *self = self.step(*byte)?;
        }
        Ok(bytes)
    }

    /// After one more byte that is no data.
    fn step(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size { size, digits: 1.. }, b'\n') => Self::behind_size(size),
            (Self::Size { size, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => {
                Self::Extension { size }
            }
            (Self::Size { size, digits }, _) => Self::Size {
                size: (size << 4) | u64::from(hexadecimal(byte).ok_or(Malformed::Chunk)?),
                digits: Some(digits + 1)
                    .filter(|digits| *digits <= SIZE_DIGITS_MAX)
                    .ok_or(Malformed::Chunk)?,
            },
            (Self::Extension { size }, b'\n') => Self::behind_size(size),
            (Self::DataEnd, b'\n') => Self::START,
            (Self::Trailer { length: 0 }, b'\n') => Self::Done,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { length: 0 },
            (Self::Trailer { length }, b'\r') => Self::Trailer { length },
            (Self::Trailer { length }, _) => Self::Trailer { length: length.saturating_add(1) },
            (same @ Self::Extension { .. }, _) | (same @ Self::DataEnd, b'\r') => same,
            (Self::DataEnd | Self::Data { .. } | Self::Done, _) => return Err(Malformed::Chunk),
        })
    }

    fn behind_size(size: u64) -> Self {
        if size == 0 { Self::Trailer { length: 0 } } else { Self::Data { left: size } }
    }
}

fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BODY: &[u8] = b"5\r\nhello\r\nA;name=value\r\n, dear you\r\n0\r\nTrailer: x\r\n\r\n";

    #[test]
    fn the_data_is_the_same_however_the_bytes_are_cut() {
        for size in 1..=BODY.len() {
            let (mut chunks, mut data) = (Chunks::START, Vec::new());
            for part in BODY.chunks(size) {
                let rest = chunks.take(part, |bytes| data.extend_from_slice(bytes)).unwrap();
                assert!(rest.is_empty());
            }
            assert_eq!(
                (chunks, data.as_slice()),
                (Chunks::Done, &b"hello, dear you"[..]),
                "{size}"
            );
        }
    }

    #[test]
    fn what_follows_the_end_is_given_back() {
        let mut chunks = Chunks::START;
        assert_eq!(chunks.take(b"0\r\n\r\nHTTP/1.1", |_| ()).unwrap(), b"HTTP/1.1");
        assert_eq!(chunks, Chunks::Done);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["\r\n", "x\r\n", "2\r\nabc\r\n", "11111111111111111\r\n", "-1\r\n"] {
            let mut chunks = Chunks::START;
            assert_eq!(chunks.take(wrong.as_bytes(), |_| ()), Err(Malformed::Chunk), "{wrong:?}");
        }
    }
}
