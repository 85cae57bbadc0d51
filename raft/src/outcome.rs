//! What applying a command answered.

use std::fmt;

use serde::{Deserialize, Serialize};
use tercet_storage::{Digest, Tag};

use crate::type_config::NodeId;

/// The answer of the state machine, the same on every replica. A refusal is an answer, not an error:
/// it was decided by the group and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied (or already so: commands are idempotent).
    Done,
    /// The thing named does not exist in that repository.
    NotFound,
    /// The repository does not exist.
    RepositoryUnknown,
    /// The manifest names blobs or manifests that the repository does not have.
    MissingReferences(Vec<Digest>),
    /// A manifest of the repository still names the blob.
    InUse,
    /// A [`Condition`](crate::Condition) did not hold, or the newest token key is not the expected one.
    ConditionFailed {
        /// What the tag points at now; `None` for a token key.
        current: Option<Digest>,
    },
    /// Refused for a reason that an operator has to read.
    Refused(String),
    /// A rule says that the tag stays where it points.
    TagImmutable {
        /// The tag.
        tag: Tag,
        /// Name of the first rule that covers it.
        rule: String,
        /// What it points at.
        current: Digest,
    },
    /// The blobs that were forgotten.
    Collected(Vec<Digest>),
    /// What the rules removed.
    Retired {
        /// The tags.
        tags: Vec<Tag>,
        /// The manifests.
        manifests: Vec<Digest>,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why a retired id is refused, in the words that its replica's operator reads.
pub(crate) fn retired_reason(node_id: NodeId) -> String {
    format!(
        "TERCET-M01: node id {node_id} was retired when another disk took over its name. A disk that was replaced must never vote again: wipe this replica's data directory, it then rejoins as a new member"
    )
}

/// Why the id of a member that an operator has removed is refused.
pub(crate) fn removed_reason(node_id: NodeId) -> String {
    format!(
        "TERCET-M04: node id {node_id} was retired when an operator removed this replica from the cluster. It holds nothing that the cluster needs; to have it back, wipe its data directory and start it again: it then joins as a new member"
    )
}
