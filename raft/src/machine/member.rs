//! Which Raft id a replica's name stands for, and which ids are never to be seen again.

use tercet_storage::{MemberRecord, Meta, MetaBatch, StorageError};

use crate::command::Leaving;
use crate::outcome::{Outcome, removed_reason, retired_reason};
use crate::type_config::NodeId;

pub(super) fn admit(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    name: &str,
    node_id: NodeId,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).removed(node_id)? {
        return Ok(Outcome::Refused(removed_reason(node_id)));
    }
    if Meta(&*batch).retired(node_id)? {
        return Ok(Outcome::Refused(retired_reason(node_id)));
    }
    match Meta(&*batch).member(name)? {
        Some(member) if member.node_id == node_id => return Ok(Outcome::Done),
        Some(predecessor) => {
            batch.put_retired(predecessor.node_id);
            batch.delete_leaving(name);
        }
        None => {}
    }
    batch.put_member(name, &MemberRecord { node_id, admitted_ms: at_ms })?;
    Ok(Outcome::Done)
}

/// Marks a member as about to go, or takes the mark off.
pub(super) fn set_leaving(
    batch: &mut MetaBatch<'_>,
    name: &str,
    node_id: NodeId,
    leaving: Leaving,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).member(name)?.is_none_or(|member| member.node_id != node_id) {
        return Ok(Outcome::NotFound);
    }
    match leaving {
        Leaving::Yes => batch.put_leaving(name),
        Leaving::No => batch.delete_leaving(name),
    }
    Ok(Outcome::Done)
}

/// Retires a member's id without a successor. An id that is not the name's stays as it is: the name may
/// have moved on to another disk, which is not meant, and whose predecessor is retired already.
pub(super) fn remove(
    batch: &mut MetaBatch<'_>,
    name: &str,
    node_id: NodeId,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).member(name)?.is_some_and(|member| member.node_id == node_id) {
        batch.delete_member(name);
        batch.delete_leaving(name);
        batch.put_removed(node_id);
        return Ok(Outcome::Done);
    }
    Ok(if Meta(&*batch).retired(node_id)? { Outcome::Done } else { Outcome::NotFound })
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
