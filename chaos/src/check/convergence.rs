//! Whether all replicas have become one again (I5).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use crate::{client::RegistryClient, cluster::Cluster, wait::wait_until};

/// Waits until all replicas run, follow one leader, have applied the same, and hold each of `blobs` on their own
/// disks if `copies` is all of them. Returns how long that took.
pub(crate) async fn wait_converged(
    cluster: &Cluster,
    members: &[usize],
    blobs: &BTreeSet<String>,
    deadline: Duration,
) -> Result<Duration> {
    let start = Instant::now();
    wait_until("all replicas are one again", deadline, || async {
        let statuses = try_join_all(members.iter().map(|index| cluster.status(*index))).await?;
        let first = statuses.first().context("a cluster has replicas")?;
        for status in &statuses {
            let name = &status.name;
            ensure!(status.leader.is_some(), "{name} follows no leader");
            ensure!(status.cluster_id == first.cluster_id, "{name} is of another cluster");
            ensure!(
                status.applied == first.applied,
                "{name} has applied {}, {} has applied {}",
                status.applied,
                first.name,
                first.applied
            );
            for member in &status.members {
                ensure!(member.reachable, "{name} does not reach {}", member.name);
                ensure!(
                    member.missing_blobs == Some(0),
                    "{} misses blobs, says {name}: {member:?}",
                    member.name
                );
            }
        }
        for index in members {
            let replica = cluster.replica(*index);
            for digest in blobs {
                let path = replica.blob_path(digest)?;
                ensure!(path.is_file(), "{} has no file of {digest}", replica.name);
            }
        }
        Ok(())
    })
    .await?;
    Ok(start.elapsed())
}

/// All replicas answer the same about the tags of these repositories.
pub(crate) async fn same_views(
    clients: &[RegistryClient],
    repositories: &BTreeSet<String>,
) -> Result<()> {
    for repository in repositories {
        let mut views = Vec::new();
        for client in clients {
            let path = format!("/v2/{repository}/tags/list?n=1000");
            let answer = client.get(&path).await?;
            ensure!(matches!(answer.status, 200 | 404), "{}", answer.describe());
            ensure!(!answer.is_stale(), "a healed replica answers stale: {}", answer.describe());
            views.push((answer.status, answer.body));
        }
        let first = views.first().context("a cluster has replicas")?;
        for (index, view) in views.iter().enumerate() {
            ensure!(view == first, "replica {index} lists other tags of {repository}");
        }
    }
    Ok(())
}
