//! Small changes to an input, the same in every run.

/// Numbers that parsers trip over, as they stand in text.
const WORDS: [&str; 16] = [
    "..",
    "%2e",
    "%00",
    "\0",
    "//",
    "\r\n",
    "-1",
    "1e400",
    "18446744073709551616",
    "9223372036854775807",
    "\u{feff}",
    "\"",
    "{",
    "[[[[[[[[",
    "sha256:",
    "\u{202e}",
];
/// The same in bytes.
const NUMBERS: [u64; 8] =
    [0, 1, 0x7f, 0xff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, 0x0400_0001];
/// No mutation makes an input longer than this.
const BYTES_MAX: usize = 64 * 1024;

/// Mutates inputs; one seed, one sequence.
#[derive(Debug, Clone)]
pub struct Mutator(u64);

impl Mutator {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // xorshift never leaves zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One to three changes to `input`, with pieces of `other`.
    #[must_use]
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(3) {
            self.change(&mut bytes, other);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let until = at + self.below(bytes.len() - at + 1);
        match self.below(9) {
            0 | 1 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            2 => {
                let value = self.below(256);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(value).unwrap_or(u8::MAX);
                }
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..until)),
            5 => {
                let piece: Vec<u8> = bytes.drain(at..until.min(at + 256)).collect();
                let times = self.below(20);
                drop(bytes.splice(at..at, piece.repeat(times)));
            }
            6 => {
                let from = self.below(other.len() + 1);
                let length = self.below(64);
                let piece = other.iter().skip(from).take(length).copied().collect::<Vec<u8>>();
                drop(bytes.splice(at..until.min(at + length), piece));
            }
            7 => {
                let word = self.below(WORDS.len());
                let word = WORDS.get(word).copied().unwrap_or_default();
                drop(bytes.splice(at..at, word.bytes()));
            }
            _ => {
                let number = self.below(NUMBERS.len());
                let number = NUMBERS.get(number).copied().unwrap_or_default().to_le_bytes();
                let end = bytes.len().min(at + number.len());
                drop(bytes.splice(at..end, number));
            }
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % bound.max(1)
    }
}
