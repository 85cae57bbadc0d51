//! What a hostile client may cost a replica: some memory, some descriptors, and no good client.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Blob, Cluster, ClusterOptions, wait_until, within};

use crate::leftovers::REPOSITORY;

/// The most that a replica may ever have resident, in bytes.
pub(crate) const RESIDENT_MAX: u64 = 150 * 1024 * 1024;
/// A good client waits no longer for one answer while others attack. Generous: it says "served", not "fast".
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// Connections of attackers and what hangs on them are gone by then.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Files that RocksDB or a good client's connection may have opened meanwhile.
const DESCRIPTORS_MORE_MAX: usize = 16;

/// One replica is enough for what ends before the others hear of it.
pub(crate) fn one_replica() -> ClusterOptions {
    let mut options = ClusterOptions::default();
    options.replicas = 1;
    options
}

/// A replica as it was before somebody attacked it, and a good client's blob on it.
pub(crate) struct Costs {
    descriptors: usize,
    blob: Blob,
}

impl Costs {
    /// Looks at replica 0, and pushes a blob there.
    pub(crate) async fn before(cluster: &Cluster) -> Result<Self> {
        let blob = Blob::random(4_711, 50_000);
        cluster.client(0)?.push_blob(REPOSITORY, &blob).await?;
        Ok(Self { descriptors: descriptors(cluster)?, blob })
    }

    /// A good client that comes now is served.
    pub(crate) async fn good_client(&self, cluster: &Cluster) -> Result<()> {
        let client = cluster.client(0)?;
        let pull = client.pull_blob(REPOSITORY, &self.blob.digest);
        within("a good client is served meanwhile", SERVED_WITHIN, pull).await?;
        Ok(())
    }

    /// The attack is over: the memory was bounded all the time, and the descriptors are free again.
    pub(crate) async fn check(&self, cluster: &Cluster, what: &str) -> Result<()> {
        self.good_client(cluster).await?;
        let peak = cluster.memory(0)?.peak;
        ensure!(peak < RESIDENT_MAX, "{what}: up to {} MiB were resident", peak >> 20);
        wait_until(&format!("{what}: descriptors are free again"), GONE_WITHIN, || async {
            let (now, before) = (descriptors(cluster)?, self.descriptors);
            ensure!(now <= before + DESCRIPTORS_MORE_MAX, "{now} are open, before {before}");
            Ok(())
        })
        .await
    }
}

/// Open files and sockets of replica 0.
fn descriptors(cluster: &Cluster) -> Result<usize> {
    let pid = cluster.replica(0).pid().context("replica 0 does not run")?;
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The value of a counter on replica 0's `/metrics`, by its name with labels.
pub(crate) async fn metric(cluster: &Cluster, name: &str) -> Result<u64> {
    let url = format!("{}/metrics", cluster.ops_url(0));
    let http = reqwest::Client::builder().no_proxy().timeout(SERVED_WITHIN).build()?;
    let text = http.get(&url).send().await?.error_for_status()?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map(str::trim).map(str::parse).transpose()?.unwrap_or(0))
}
