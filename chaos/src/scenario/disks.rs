//! What the scenarios with failing disks have in common.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Run, run::HEAL_DEADLINE};
use crate::{
    disk::{Call, DataLoss, Lost, NameLoss, PowerLoss},
    options::ClusterOptions,
};

/// The exit code for a disk that failed.
pub(super) const EX_IOERR: i32 = 74;
/// Whatever makes a disk fuller.
pub(super) const GROWING: &[Call] = &[Call::Write, Call::Space, Call::Create];
/// Nothing that was not synced is left: what a registry that skips a sync does not survive.
pub(super) const FORGOTTEN: PowerLoss =
    PowerLoss { data: DataLoss::Forgotten, names: NameLoss::Forgotten };

/// Nothing that was written since the last sync of a file is there; of the names, anything may be.
pub(super) const FORGETFUL: [PowerLoss; 3] = [
    FORGOTTEN,
    PowerLoss { data: DataLoss::Forgotten, names: NameLoss::Kept },
    PowerLoss { data: DataLoss::Forgotten, names: NameLoss::Partly },
];

/// What a start after a fault came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Ready,
    /// It refused, and said why.
    Refused,
}

impl Run {
    /// Starts the cluster with a disk for each replica that can fail and lose its power.
    pub(super) async fn start_on_disks(&mut self, options: ClusterOptions) -> Result<()> {
        self.start_prepared(options, |cluster| {
            (0..cluster.len()).try_for_each(|index| cluster.give_disk(index))
        })
        .await
    }

    /// These replicas lose their power at the same instant, and find what `losses` leaves, one drawn for each.
    pub(super) fn lose_power(&mut self, victims: &[usize], losses: &[PowerLoss]) -> Result<Lost> {
        let mut drawn = StdRng::seed_from_u64(self.random.random());
        let mut random = StdRng::seed_from_u64(self.random.random());
        let mut chosen = Vec::new();
        let loss = || {
            let loss = losses.get(drawn.random_range(0..losses.len().max(1)));
            let loss = loss.copied().unwrap_or(FORGOTTEN);
            chosen.push(loss);
            loss
        };
        let lost = self.cluster()?.lose_power(victims, loss, &mut random)?;
        if victims.len() * 2 >= self.members.len() {
            self.majority_gone();
        }
        let how: Vec<String> =
            chosen.iter().map(|loss| format!("{:?}/{:?}", loss.data, loss.names)).collect();
        let what = format!(
            "replicas {victims:?} at once, {} (bytes/names): {} writes in {} files and {} names were not on disk",
            how.join(" "),
            lost.writes,
            lost.files,
            lost.names
        );
        if lost.writes + lost.names > 0 {
            self.faults.injected("power loss", &what);
        } else {
            // No more than a kill: that all was on the disk already shows nothing.
            self.faults.note(&what);
        }
        Ok(lost)
    }

    /// Waits until a replica that was started is ready, or has refused to start with a code that says so.
    pub(super) async fn started(&mut self, victim: usize) -> Result<Start> {
        let deadline = tokio::time::Instant::now() + HEAL_DEADLINE;
        loop {
            let cluster = self.cluster()?;
            let patience = std::time::Duration::from_millis(200);
            if let Ok(status) = cluster.wait_exit(victim, patience).await {
                let log = cluster.replica(victim).log_text();
                ensure!(!log.contains("panicked at"), "replica {victim} has panicked");
                ensure!(
                    matches!(status.code(), Some(65 | EX_IOERR)),
                    "replica {victim} ended with {status}, which says nothing"
                );
                let said = log.lines().last().unwrap_or_default().to_owned();
                self.faults.note(&format!("replica {victim} refused to start ({status}): {said}"));
                return Ok(Start::Refused);
            }
            if cluster.ops_status(victim, "/readyz").await.is_ok_and(|code| code == 200) {
                return Ok(Start::Ready);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("replica {victim} neither becomes ready nor ends");
            }
        }
    }

    /// Who a replica that does not run is, by its disk.
    pub(super) fn known_id(&mut self, index: usize) -> Result<u64> {
        let path = self.cluster()?.replica(index).data_dir.join("identity.json");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let id = json.get("node_id").and_then(serde_json::Value::as_u64);
        id.with_context(|| format!("no node_id in {text}"))
    }

    /// What has happened on the disks in sum, for the report.
    pub(super) fn figure_lost(&mut self, lost: Lost) {
        self.figure("writes_undone", lost.writes);
        self.figure("files_cut", lost.files);
        self.figure("names_undone", lost.names);
    }
}
