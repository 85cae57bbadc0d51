//! The stream of a snapshot: a head that names files, and the files.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Verdict, check_error, seal::seal};

const HEAD_ID: u16 = 211;

/// Input: the stream; or, behind the byte 1, the length of a head's payload as two bytes (little
/// endian), the payload, and the files.
pub fn snapshot(data: &[u8]) -> Verdict {
    let mut taken = receive(data);
    if let Some((&[1, low, high], rest)) = data.split_first_chunk::<3>()
        && let Some((head, files)) =
            rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))
    {
        let head = seal(HEAD_ID, 1, head);
        let length = u32::try_from(head.len()).expect("inputs are small");
        taken |= receive(&[&length.to_be_bytes(), head.as_slice(), files].concat());
    }
    Verdict::any([taken])
}

/// Whether the stream is a snapshot.
fn receive(stream: &[u8]) -> bool {
    let mut taken = false;
    let scratch = Scratch::new();
    let folder = scratch.0.join("snapshots");
    fs::create_dir(&folder).expect("make the folder for snapshots");
    // A chunk may end anywhere.
    for chunk_bytes in [7, 64 * 1024] {
        match tercet_raft::fuzzing::snapshot(&folder, stream, chunk_bytes) {
            Ok(()) => taken = true,
            Err(error) => check_error(&error),
        }
        let left = fs::read_dir(&folder).expect("list the folder").count();
        assert_eq!(left, 0, "a snapshot that nobody keeps stays behind");
    }
    let beside = fs::read_dir(&scratch.0).expect("list the folder").count();
    assert_eq!(beside, 1, "a file outside the folder for snapshots");
    taken
}

/// A folder that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tercet-fuzz-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("make a folder for one input");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
