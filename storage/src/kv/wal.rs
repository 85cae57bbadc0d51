//! Looks for damage in RocksDB write-ahead logs before RocksDB reads them.
//!
//! RocksDB's recovery modes cannot be told what a consensus log needs: a torn end is normal after a power
//! failure, while damage with intact records behind it means that acknowledged writes are gone. The file
//! format is RocksDB's "Write Ahead Log File Format": blocks of 32 KiB; in them records of
//! `checksum u32 | length u16 | type u8 | payload`, the checksum a masked CRC32C of type and payload. A write batch
//! is the payload of one record, or of several in a row; it begins with `sequence u64 | count u32`, and the next batch
//! begins at `sequence + count`, in the next log too.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::durable::sync_file;
use crate::error::StorageError;

/// The first record of a log that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Its offset in the file.
    pub(super) at: u64,
    /// The offset of a whole record after it, if there is one: then this is not a torn end.
    pub(super) intact_after: Option<u64>,
}

/// What [`scan`] found in a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) damage: Option<Damage>,
    /// The sequence numbers of its whole batches before the damage: from the first one's to the one after the last.
    pub(super) batches: Option<Range<u64>>,
}

/// The write-ahead logs of the database in `directory`, oldest first.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let path = entry.map_err(StorageError::io("list", directory))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (Some(number), Some("log")) =
            (number, path.extension().and_then(|text| text.to_str()))
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Reads a log to its end or to its first damage. A log is smaller than a few memtables, so it fits memory.
pub(super) fn scan(path: &Path) -> Result<Scan, StorageError> {
    let bytes = fs::read(path).map_err(StorageError::io("read", path))?;
    Ok(scan_bytes(&bytes))
}

/// Cuts a log to its first `length` bytes, durably.
pub(super) fn cut(path: &Path, length: u64) -> Result<(), StorageError> {
    let file = File::options().write(true).open(path).map_err(StorageError::io("open", path))?;
    file.set_len(length).map_err(StorageError::io("truncate", path))?;
    sync_file(&file, path);
    Ok(())
}

fn scan_bytes(bytes: &[u8]) -> Scan {
    let mut batches = Batches::default();
    for (block, start) in bytes.chunks(BLOCK_BYTES).zip((0_usize..).step_by(BLOCK_BYTES)) {
        let mut at = 0;
        // Fewer bytes than a header at the end of a block are filling.
        while block.len() - at >= HEADER_BYTES || (at < block.len() && block.len() < BLOCK_BYTES) {
            let rest = block.get(at..).unwrap_or_default();
            let Some(length) = record_len(rest) else {
                let damaged = start + at;
                let damage = Damage {
                    at: damaged as u64,
                    intact_after: intact_record(bytes, damaged + 1).map(|at| at as u64),
                };
                return Scan { damage: Some(damage), batches: batches.seen };
            };
            batches.take(rest.get(..length).unwrap_or_default());
            at += length;
        }
    }
    Scan { damage: None, batches: batches.seen }
}

/// Follows the sequence numbers through the records of one log.
#[derive(Default)]
struct Batches {
    seen: Option<Range<u64>>,
    /// What is known so far of the header of the batch that is being put together.
    header: Vec<u8>,
}

impl Batches {
    /// Takes the next whole record. Those that are about the log itself are passed over.
    fn take(&mut self, record: &[u8]) {
        let Some((&[.., kind], payload)) = record.split_first_chunk::<HEADER_BYTES>() else {
            return;
        };
        let (first, last) = match kind {
            FULL => (true, true),
            FIRST => (true, false),
            MIDDLE => (false, false),
            LAST => (false, true),
            _ => return,
        };
        if first {
            self.header.clear();
        }
        let missing = BATCH_HEADER_BYTES - self.header.len();
        self.header.extend(payload.iter().take(missing));
        if last {
            self.whole();
        }
    }

    fn whole(&mut self) {
        let Some((sequence, count)) = self.header.split_first_chunk::<8>() else { return };
        let Some(count) = count.first_chunk::<4>() else { return };
        let sequence = u64::from_le_bytes(*sequence);
        let next = sequence.saturating_add(u32::from_le_bytes(*count).into());
        self.seen = Some(self.seen.take().map_or(sequence, |seen| seen.start)..next);
    }
}

/// The first whole record at or after `from`. Lengths before it may be damaged, so every offset is tried.
fn intact_record(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|&at| {
        let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
        let rest = bytes.get(at..block_end.min(bytes.len())).unwrap_or_default();
        record_len(rest).is_some()
    })
}

/// The length, header included, of the whole record that `rest` of a block starts with.
fn record_len(rest: &[u8]) -> Option<usize> {
    let (header, _) = rest.split_first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    // Type 0 fills space that was allocated and never written. Other unknown types are damage; trying their
    // checksums at every offset would take too long.
    if !matches!(kind, 1..=11 | 130 | 131) {
        return None;
    }
    // Records of recycled logs carry a log number too; it counts as payload for the checksum.
    let log_number = if is_recyclable(kind) { LOG_NUMBER_BYTES } else { 0 };
    let length = HEADER_BYTES + log_number + usize::from(u16::from_le_bytes([l0, l1]));
    let covered = rest.get(HEADER_BYTES - 1..length)?;
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    (crc32c::crc32c(covered) == unmask(stored)).then_some(length)
}

fn is_recyclable(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// RocksDB stores checksums masked, so that a checksum of bytes that hold checksums is not weak.
fn unmask(stored: u32) -> u32 {
    stored.wrapping_sub(0xa282_ead8).rotate_right(17)
}

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
const LOG_NUMBER_BYTES: usize = 4;
const BATCH_HEADER_BYTES: usize = 12;
/// Types of records: a whole batch, or the pieces of one that does not fit its block. Those of recycled logs have
/// other numbers; recycling is off.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn find_damage(bytes: &[u8]) -> Option<Damage> {
        scan_bytes(bytes).damage
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        piece(FULL, payload)
    }

    fn piece(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut covered = vec![kind];
        covered.extend_from_slice(payload);
        let masked = crc32c::crc32c(&covered).rotate_right(15).wrapping_add(0xa282_ead8);
        let mut bytes = masked.to_le_bytes().to_vec();
        bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&covered);
        bytes
    }

    fn log(records: usize) -> Vec<u8> {
        (0..records).flat_map(|n| record(format!("record number {n}").as_bytes())).collect()
    }

    #[test]
    fn whole_log_has_no_damage() {
        assert_eq!(find_damage(&[]), None);
        assert_eq!(find_damage(&log(100)), None);
    }

    #[test]
    fn every_cut_is_a_torn_end() {
        let bytes = log(20);
        let second = record(b"record number 0").len();
        for cut in 1..bytes.len() {
            let damage = find_damage(&bytes[..cut]);
            assert!(damage.is_none_or(|damage| damage.intact_after.is_none()), "cut at {cut}");
        }
        assert_eq!(find_damage(&bytes[..second + 3]).unwrap().at, second as u64);
    }

    #[test]
    fn every_flipped_bit_before_the_last_record_is_damage_in_the_middle() {
        let bytes = log(6);
        let last = bytes.len() - record(b"record number 5").len();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damage = find_damage(&flipped).expect("a flipped bit went unnoticed");
            assert_eq!(damage.intact_after.is_some(), bit / 8 < last, "bit {bit}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_end_and_in_the_middle_are_not() {
        let mut bytes = log(10);
        let whole = bytes.len();
        bytes.extend_from_slice(&[0; 500]);
        assert_eq!(find_damage(&bytes), Some(Damage { at: whole as u64, intact_after: None }));
        let mut padded = bytes.clone();
        padded.extend_from_slice(&record(b"later"));
        assert!(find_damage(&padded).unwrap().intact_after.is_some());
    }

    #[test]
    fn batches_are_numbered_whether_whole_or_in_pieces() {
        let batch = |sequence: u64, count: u32| {
            let mut bytes = sequence.to_le_bytes().to_vec();
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&[5; 30]);
            bytes
        };
        assert_eq!(scan_bytes(&[]).batches, None);
        let mut bytes = record(&batch(7, 3));
        assert_eq!(scan_bytes(&bytes).batches, Some(7..10));
        // Not a batch: the compression that is used from here on.
        bytes.extend(piece(9, &[1, 0, 0, 0]));
        let pieces = batch(10, 5);
        bytes.extend(piece(FIRST, &pieces[..4]));
        bytes.extend(piece(MIDDLE, &pieces[4..20]));
        assert_eq!(scan_bytes(&bytes).batches, Some(7..10), "a batch that is not whole");
        bytes.extend(piece(LAST, &pieces[20..]));
        assert_eq!(scan_bytes(&bytes), Scan { damage: None, batches: Some(7..15) });
        bytes.extend_from_slice(&record(&batch(15, 0))[..9]);
        assert_eq!(scan_bytes(&bytes).batches, Some(7..15), "a batch behind the damage");
        assert!(scan_bytes(&bytes).damage.is_some());
    }

    #[test]
    fn zeroed_block_is_damage_in_the_middle() {
        let payload = vec![7_u8; BLOCK_BYTES - HEADER_BYTES];
        let mut bytes: Vec<u8> = (0..3).flat_map(|_| record(&payload)).collect();
        assert_eq!(bytes.len(), 3 * BLOCK_BYTES);
        assert_eq!(find_damage(&bytes), None);
        bytes[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
        let expected =
            Damage { at: BLOCK_BYTES as u64, intact_after: Some(2 * BLOCK_BYTES as u64) };
        assert_eq!(find_damage(&bytes), Some(expected));
    }
}
