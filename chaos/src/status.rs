//! The answer of `GET /status`, read only as far as it is documented.

use serde::Deserialize;

/// What a replica says about the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Equal on every replica of one cluster.
    pub cluster_id: String,
    /// The answering replica.
    pub name: String,
    /// Its Raft id; a new one after a lost disk.
    pub node_id: u64,
    /// The program's version.
    pub version: String,
    /// Name of the leader it follows, if any.
    pub leader: Option<String>,
    /// The Raft term.
    pub term: u64,
    /// Last applied log index.
    pub applied: u64,
    /// What the cluster may write.
    #[serde(default)]
    pub feature_level: u32,
    /// Why the cluster refuses the answering replica.
    #[serde(default)]
    pub refused: Option<String>,
    /// One per member of the cluster.
    pub members: Vec<Member>,
}

/// One member, as another (or it) sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its configured name.
    pub name: String,
    /// Its Raft id.
    pub node_id: u64,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// `voter` or `edge`.
    #[serde(default)]
    pub kind: String,
    /// Whether it answered just now.
    pub reachable: bool,
    /// Its last applied index, as far as known.
    pub applied: Option<u64>,
    /// Entries behind.
    pub lag: Option<u64>,
    /// Blobs it should hold and does not yet.
    pub missing_blobs: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
    /// How full the disk is, in a word.
    pub disk_level: Option<String>,
}

impl Status {
    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}
