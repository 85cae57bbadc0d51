//! Fits the limits into the number of files that the system lets this process have open.
//!
//! Connections, uploads and blobs that are read are files, and so are the databases'. RocksDB that cannot
//! open a file takes no more writes, which would end the replica; so clients are refused long before.

use rustix::process::{Resource, getrlimit};

use crate::config::Limits;

/// For both databases, the listeners, the runtime and what peers are asked: measured at 60 under load, and
/// databases grow.
const KEPT_FOR_ITSELF: u64 = 96;
/// Connections of one listener get this part of the rest; there are three busy ones at most.
const CONNECTIONS_PART: u64 = 4;
/// Uploads here and as many that are held for others, each a file; the rest is for blobs that are read.
const UPLOADS_PART: u64 = 10;
const PEER_STREAMS_PART: u64 = 10;

/// Lowers the limits that the process could not keep, and says so.
#[must_use]
pub fn fit(limits: Limits) -> Limits {
    // `None` is no limit at all.
    let Some(files) = getrlimit(Resource::Nofile).current else { return limits };
    let fitted = fitted(&limits, files);
    if fitted != limits {
        tracing::warn!(
            open_files_max = files,
            connections_max = fitted.connections_max,
            uploads_max = fitted.uploads_max,
            peer_streams_max = fitted.peer_streams_max,
            "few files may be open (ulimit -n): the limits on connections and uploads are lowered to fit"
        );
    }
    fitted
}

fn fitted(limits: &Limits, files: u64) -> Limits {
    let rest = files.saturating_sub(KEPT_FOR_ITSELF);
    let part = |of: u64| usize::try_from(rest / of).unwrap_or(usize::MAX).max(1);
    let mut fitted = limits.clone();
    fitted.connections_max = limits.connections_max.min(part(CONNECTIONS_PART));
    fitted.uploads_max = limits.uploads_max.min(part(UPLOADS_PART));
    fitted.peer_streams_max = limits.peer_streams_max.min(part(PEER_STREAMS_PART));
    fitted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn many_files_change_nothing_and_few_leave_something_for_everybody() {
        let limits = Limits::default();
        assert_eq!(fitted(&limits, 1 << 20), limits);
        let few = fitted(&limits, 256);
        assert_eq!((few.connections_max, few.uploads_max, few.peer_streams_max), (40, 16, 16));
        let none = fitted(&limits, 10);
        assert_eq!((none.connections_max, none.uploads_max), (1, 1));
        assert_eq!(few.manifest_bytes, limits.manifest_bytes);
    }
}
