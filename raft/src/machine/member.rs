//! Which Raft id a replica's name stands for, and which ids are never to be seen again.

use tercet_storage::{MemberRecord, Meta, MetaBatch, StorageError};

use crate::outcome::{Outcome, retired_reason};
use crate::type_config::NodeId;

pub(super) fn admit(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    name: &str,
    node_id: NodeId,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).retired(node_id)? {
        return Ok(Outcome::Refused(retired_reason(node_id)));
    }
    match Meta(&*batch).member(name)? {
        Some(member) if member.node_id == node_id => return Ok(Outcome::Done),
        Some(predecessor) => batch.put_retired(predecessor.node_id),
        None => {}
    }
    batch.put_member(name, &MemberRecord { node_id, admitted_ms: at_ms })?;
    Ok(Outcome::Done)
}
