//! Who the replicas are at this moment.

use std::sync::Arc;

use tercet_raft::{Consensus, Leaving, Member, MemberKind, NodeId, Target};

/// One replica as others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Its configured name; survives the loss of its disk, so placement is decided by it.
    pub name: String,
    /// Its Raft id; a new one after the loss of its disk.
    pub node_id: NodeId,
    /// Base URL of its peer listener.
    pub address: String,
    /// What it is there for: blobs are not placed on an edge.
    pub kind: MemberKind,
    /// Where it stands, if it says so: copies go to different zones first.
    pub zone: Option<String>,
    /// Whether it is about to go: it still has blobs, and gets no more.
    pub leaving: Leaving,
}

impl From<&Member> for Peer {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            node_id: member.node_id,
            address: member.address.clone(),
            kind: member.kind,
            zone: member.zone.clone(),
            leaving: member.leaving,
        }
    }
}

impl Peer {
    /// Whom to call, and no more: nothing is placed by such a peer.
    #[must_use]
    pub fn at(name: impl Into<String>, node_id: NodeId, address: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            node_id,
            address: address.into(),
            kind: MemberKind::default(),
            zone: None,
            leaving: Leaving::default(),
        }
    }
}

impl From<&Target> for Peer {
    fn from(target: &Target) -> Self {
        Self::at(&target.name, target.node_id, &target.address)
    }
}

/// The current members, this replica included. Cheap to clone; asked again at each use, because
/// membership changes while the process runs.
#[derive(Clone)]
pub struct Directory {
    own: NodeId,
    members: Arc<dyn Fn() -> Vec<Peer> + Send + Sync>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Directory {
    /// The members as Raft knows them.
    #[must_use]
    pub fn of(consensus: &Consensus) -> Self {
        let own = consensus.identity().node_id;
        let consensus = consensus.clone();
        Self::new(own, move || consensus.members().iter().map(Peer::from).collect())
    }

    /// The members as `members` lists them.
    #[must_use]
    pub fn new(own: NodeId, members: impl Fn() -> Vec<Peer> + Send + Sync + 'static) -> Self {
        Self { own, members: Arc::new(members) }
    }

    /// This replica's own id.
    #[must_use]
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// Every member, this replica included.
    #[must_use]
    pub fn members(&self) -> Vec<Peer> {
        (self.members)()
    }

    /// Every member but this replica.
    #[must_use]
    pub fn others(&self) -> Vec<Peer> {
        let mut members = self.members();
        members.retain(|peer| peer.node_id != self.own);
        members
    }

    /// The member with this id, unless it is this replica.
    #[must_use]
    pub fn other(&self, node_id: NodeId) -> Option<Peer> {
        self.others().into_iter().find(|peer| peer.node_id == node_id)
    }
}
