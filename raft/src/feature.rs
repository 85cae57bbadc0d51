//! What every member of the cluster understands.
//!
//! A binary has a feature level, and says it in its hello. The cluster has one too, in the replicated
//! state: commands and records above it are not written, so that every member can read all that is. The
//! leader raises it once every member has said a higher one. It never falls: a binary that is too old for
//! it refuses to start, and is refused when it joins.

use std::io;

use tercet_storage::{FeatureLevelRecord, StorageError};
use tokio::time::Instant;

use crate::command::Command;
use crate::consensus::Inner;
use crate::error::{ProposeError, RaftError};
use crate::forward::Attempt;
use crate::membership::HELLO_DEADLINE;
use crate::network::Hello;
use crate::type_config::{NodeId, ReplicaNode};

/// The feature level of this binary. 1 is everything before levels were counted.
pub const FEATURE_LEVEL: u32 = 2;

/// The level at which the membership knows kinds and zones.
pub(crate) const LEVEL_OF_KINDS: u32 = 2;

/// The level at which a leader says how far its own log is synced.
pub(crate) const LEVEL_OF_CONFIRMATIONS: u32 = 2;

/// The lowest version of Tercet that knows a feature level, for those that do not.
const VERSION_OF_LEVEL_2: &str = "0.2.0";

/// The environment variable with which a test makes this binary behave as an older one.
const TEST_VARIABLE: &str = "TERCET_TEST_FEATURE_LEVEL";

/// The level that this process takes part with: [`FEATURE_LEVEL`], unless a test lowers it.
#[must_use]
pub fn own_feature_level() -> u32 {
    std::env::var(TEST_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(FEATURE_LEVEL, |level: u32| level.clamp(1, FEATURE_LEVEL))
}

/// An error if a replica of level `own` must not go on with a state that says `record`.
pub(crate) fn check(own: u32, record: Option<&FeatureLevelRecord>) -> Result<(), RaftError> {
    match record {
        Some(record) if record.level > own => Err(RaftError::FeatureLevel {
            cluster: record.level,
            own,
            version: record.version.clone(),
        }),
        _ => Ok(()),
    }
}

/// As [`check`], for a command that is about to be applied: skipping it would let the state part from
/// everybody else's.
pub(crate) fn check_command(own: u32, command: &Command) -> io::Result<()> {
    let (needed, version) = match command {
        Command::SetFeatureLevel { level, version } => (*level, version.as_str()),
        command => (command.feature_level(), VERSION_OF_LEVEL_2),
    };
    if needed <= own {
        return Ok(());
    }
    let record = FeatureLevelRecord { level: needed, version: version.to_owned() };
    check(own, Some(&record)).map_err(io::Error::other)
}

impl Inner {
    /// The level of the cluster, as far as this replica has applied the log.
    pub(crate) fn cluster_level(&self) -> u32 {
        let record = self.state.read(|meta| meta.feature_level());
        record.ok().and_then(Result::ok).flatten().map_or(1, |record| record.level)
    }

    /// Refuses a command that not every member understands.
    pub(crate) fn gate(&self, command: &Command) -> Result<(), ProposeError> {
        let needed = command.feature_level();
        if needed <= 1 {
            return Ok(());
        }
        let current = self.cluster_level();
        if needed <= current {
            return Ok(());
        }
        Err(ProposeError::FeatureLevel { needed, current })
    }

    /// On the leader: raises the cluster's level once every member has said a higher one. A configured
    /// initial member that has not joined yet, and says a lower one, is waited for.
    pub(crate) async fn raise_level(&self) -> Result<(), String> {
        let current = self.cluster_level();
        if current >= self.feature_level {
            return Ok(());
        }
        let asked = self.nodes();
        let level = self.level_of_all(&asked).await?;
        if level <= current {
            return Err(format!("a member is at feature level {level}"));
        }
        let command = Command::SetFeatureLevel { level, version: VERSION_OF_LEVEL_2.to_owned() };
        if let Some(why) = self.still_forming(&command) {
            return Err(why);
        }
        // Nobody is let in between the question and the entry.
        let _changing = self.changing.lock().await;
        if self.nodes() != asked {
            return Err("the members have changed meanwhile".to_owned());
        }
        // Only here: another leader may have let in somebody whom this one has not asked.
        match self.propose_here(command, Instant::now() + self.timing.write_deadline).await {
            Attempt::Applied(_) => {
                tracing::info!(level, "every member understands a higher feature level: raised");
                Ok(())
            }
            Attempt::NotDone(why) | Attempt::Unknown(why) | Attempt::NoSpace(why) => Err(why),
        }
    }

    /// The lowest level that anybody has said; an error if a member says none.
    async fn level_of_all(&self, members: &[(NodeId, ReplicaNode)]) -> Result<u32, String> {
        let mut level = self.feature_level;
        for (node_id, node) in members {
            if *node_id == self.identity.node_id {
                continue;
            }
            let hello =
                self.transport.hello(&node.address, HELLO_DEADLINE).await.map_err(|error| {
                    format!("{} does not say its feature level: {error}", node.name)
                })?;
            if hello.node_id != Some(*node_id) {
                return Err(format!("another replica answers for {}", node.name));
            }
            level = level.min(hello.feature_level);
        }
        for hello in self.hellos_of_initial_members().await {
            level = level.min(hello.feature_level);
        }
        Ok(level)
    }

    async fn hellos_of_initial_members(&self) -> Vec<Hello> {
        let own = &self.node.name;
        let questions = self
            .initial_members
            .iter()
            .filter(|member| member.name != *own)
            .map(|member| self.transport.hello(&member.address, HELLO_DEADLINE));
        let answers = futures_util::future::join_all(questions).await;
        answers.into_iter().filter_map(Result::ok).collect()
    }
}

/// Reads the level out of a state that is not this replica's yet.
pub(crate) fn check_state<R: tercet_storage::KvRead>(
    own: u32,
    meta: tercet_storage::Meta<'_, R>,
) -> Result<(), RaftError> {
    let record: Result<_, StorageError> = meta.feature_level();
    check(own, record?.as_ref())
}
