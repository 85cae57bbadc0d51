//! What a refused request leaves behind: nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, FileCount, Image, RegistryClient, wait_until};

pub(crate) const REPOSITORY: &str = "library/hostile";

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The files of all replicas, to compare before and after.
pub(crate) fn files(cluster: &Cluster) -> Result<Vec<FileCount>> {
    let folders = ["blobs", "uploads", "quarantine"];
    (0..cluster.len())
        .flat_map(|index| folders.map(|folder| cluster.files(index, folder)))
        .collect()
}

/// Waits until no replica has another file than before: holders clean up just after the owner answers.
pub(crate) async fn wait_nothing_left(
    cluster: &Cluster,
    before: &[FileCount],
    what: &str,
) -> Result<()> {
    wait_until(&format!("nothing is left of {what}"), DEADLINE, || async {
        let now = files(cluster)?;
        ensure!(now == before, "before {before:?}, now {now:?}");
        Ok(())
    })
    .await
}

/// A repository that exists, so that nothing is refused for want of one.
pub(crate) async fn start() -> Result<(Cluster, RegistryClient)> {
    let cluster = Cluster::start().await?;
    let client = cluster.client(0)?;
    let image = Image::random(99, &[1_000]);
    client.push_image(REPOSITORY, "good", &image).await?;
    for index in 0..cluster.len() {
        for blob in &image.blobs {
            cluster.wait_held(index, &blob.digest, DEADLINE).await?;
        }
    }
    // The holders' parts of the push go just after its answer: nothing may be compared with a moment before.
    wait_until("the push has left no session", DEADLINE, || async {
        for index in 0..cluster.len() {
            let open = cluster.files(index, "uploads")?;
            ensure!(open.paths.is_empty(), "replica {index} has {open:?}");
        }
        Ok(())
    })
    .await?;
    Ok((cluster, client))
}
