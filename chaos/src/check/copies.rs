//! I1, looked at where it is kept: acknowledged blobs lie whole on enough disks, whatever the replicas would answer.
//!
//! What is missing here is lost for certain and at once; whoever only asks a replica has to wait until it gives up the
//! search.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use anyhow::{Context, Result};

use super::durability::{Sure, surely};
use crate::{
    client::RegistryClient,
    cluster::Cluster,
    digest::Hasher,
    workload::{Invariant, Kept, Ledger},
};

const BUFFER: usize = 1 << 16;

/// Looks for good copies of these blobs on the disks of these replicas, of which `wanted` must each have some. Nobody may
/// be removing damaged copies meanwhile, or the replicas must not run.
///
/// # Errors
/// If a disk cannot be read.
pub(crate) fn check_copies(
    ledger: &Ledger,
    cluster: &Cluster,
    replicas: &[usize],
    blobs: &BTreeSet<String>,
    wanted: usize,
) -> Result<()> {
    for digest in blobs {
        let mut good = 0;
        for index in replicas {
            if is_good(&cluster.replica(*index).blob_path(digest)?, digest)? {
                good += 1;
            }
            if good == wanted {
                break;
            }
        }
        if good < wanted {
            ledger.lost(format!(
                "{digest} was acknowledged, and lies whole on {good} of the disks of replicas {replicas:?}, not on {wanted}"
            ));
        }
    }
    Ok(())
}

/// Reads the images that were acknowledged last, by their tags, through every replica. Theirs are the last records, which
/// are the first to be missing.
pub(crate) async fn check_newest(ledger: &Ledger, clients: &[RegistryClient], images: usize) {
    for back in 1..=images {
        let newest = ledger.image(|count| count.saturating_sub(back));
        let Some(image) = newest else { return };
        for (index, client) in clients.iter().enumerate() {
            let kept = Kept {
                repository: image.repository.clone(),
                reference: image.tag.clone(),
                digest: image.manifest.clone(),
                manifest: true,
            };
            let name = format!("{}:{}", image.repository, image.tag);
            match surely(async || ledger.read(client, &kept).await).await {
                Sure::Found(answer) => {
                    let found = crate::digest::sha256(&answer.body);
                    if found != kept.digest {
                        let what = format!("replica {index} gives {found} as {name}");
                        ledger.violated(Invariant::I3, what);
                    }
                }
                Sure::Absent => ledger.lost(format!("replica {index} has lost {name}")),
                // The ledger has it.
                Sure::Wrong => {}
                Sure::Never(why) => {
                    let what = format!("replica {index} does not give {name}: {why}");
                    ledger.violated(Invariant::I1, what);
                }
            }
        }
    }
}

fn is_good(path: &Path, digest: &str) -> Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut hasher = Hasher::like(digest);
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if count == 0 {
            return Ok(hasher.finish() == digest);
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{content::Blob, scratch::Scratch};

    #[test]
    fn only_a_whole_copy_is_a_good_one() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().join("blob");
        let blob = Blob::random(1, 3 * BUFFER + 1);
        assert!(!is_good(&path, &blob.digest).unwrap());
        std::fs::write(&path, &blob.bytes).unwrap();
        assert!(is_good(&path, &blob.digest).unwrap());
        std::fs::write(&path, blob.bytes.slice(..BUFFER)).unwrap();
        assert!(!is_good(&path, &blob.digest).unwrap());
    }
}
