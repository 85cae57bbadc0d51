//! I6: collection never removes a blob that something refers to, and removes what nothing refers to.
//!
//! The storm of W4 tells what it meets as it goes; at its end the disks are compared with what is needed.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    cluster::Cluster,
    wait::wait_until,
    workload::{Invariant, Ledger},
};

/// A push whose blobs were gone when its manifest came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// They had no reference for longer than their grace.
    TooSlow,
    /// They went before that; the ledger has it.
    Collected,
}

impl Ledger {
    /// A manifest was refused since its blobs are gone; the first of them came so long ago.
    pub(crate) fn judge_late(
        &self,
        took: Duration,
        grace: Duration,
        tag: &str,
        said: &str,
    ) -> Late {
        if took >= grace {
            return Late::TooSlow;
        }
        let what = format!("blobs of {tag} went within their grace: {said}");
        self.violated(Invariant::I6, what);
        Late::Collected
    }

    /// Part of an image that is alive is not there.
    pub(crate) fn collected_alive(&self, digest: &str, image: &str) {
        self.count(|counts| counts.lost += 1);
        let what = format!("{digest} of {image}, which is alive, is gone");
        self.violated(Invariant::I6, what);
    }
}

/// Waits until every replica has the blobs that are needed, and no others.
///
/// # Errors
/// If that does not come: something is left, or is lost.
pub(crate) async fn check_collection(
    ledger: &Ledger,
    cluster: &Cluster,
    needed: &BTreeSet<String>,
    deadline: Duration,
) -> Result<()> {
    let same =
        wait_until("every replica has what is needed and nothing else", deadline, || async {
            (0..cluster.len()).try_for_each(|index| same_files(cluster, index, needed))
        });
    if let Err(error) = same.await {
        ledger.violated(Invariant::I6, format!("{error:#}"));
        return Err(error);
    }
    ledger.checked(Invariant::I6);
    Ok(())
}

fn same_files(cluster: &Cluster, index: usize, needed: &BTreeSet<String>) -> Result<()> {
    let replica = cluster.replica(index);
    let blobs = replica.data_dir.join("blobs");
    let mut wanted = BTreeSet::new();
    for digest in needed {
        let path: PathBuf = replica.blob_path(digest)?.strip_prefix(&blobs)?.to_path_buf();
        wanted.insert(path);
    }
    let found = cluster.files(index, "blobs")?.paths;
    compare(&replica.name, &wanted, &found)
}

fn compare(name: &str, wanted: &BTreeSet<PathBuf>, found: &BTreeSet<PathBuf>) -> Result<()> {
    let dead: Vec<_> = found.difference(wanted).take(3).collect();
    ensure!(dead.is_empty(), "{name} still has {} files, such as {dead:?}", found.len());
    let lost: Vec<_> = wanted.difference(found).take(3).collect();
    ensure!(lost.is_empty(), "{name} lacks {lost:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neither_too_much_nor_too_little_is_left() {
        let set = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        compare("a", &set(&["x", "y"]), &set(&["x", "y"])).unwrap();
        assert!(compare("a", &set(&["x"]), &set(&["x", "y"])).is_err());
        assert!(compare("a", &set(&["x", "y"]), &set(&["x"])).is_err());
    }

    #[test]
    fn only_a_push_that_was_in_time_has_a_right_to_its_blobs() {
        let ledger = Ledger::default();
        let grace = Duration::from_secs(4);
        assert_eq!(ledger.judge_late(Duration::from_secs(5), grace, "v1", "404"), Late::TooSlow);
        assert!(ledger.violations().is_empty());
        assert_eq!(ledger.judge_late(Duration::from_secs(3), grace, "v1", "404"), Late::Collected);
        assert_eq!(ledger.violations().len(), 1);
    }
}
