//! One command at a time, deterministically: no clock, no randomness, no iteration over hash maps.

use tercet_storage::{Digest, MetaBatch, StorageError};

use super::{blob, collect, feature, immutable, manifest, member, retention, token_key};
use crate::command::{AbsentReferences, Command, Proposal};
use crate::outcome::Outcome;

/// Applies one command to the batch. `blobs` collects the blobs it made visible.
pub(super) fn apply(
    batch: &mut MetaBatch<'_>,
    proposal: Proposal,
    blobs: &mut Vec<(Digest, u64)>,
) -> Result<Outcome, StorageError> {
    let at_ms = proposal.at_ms;
    match proposal.command {
        Command::BlobCommitted { digest, size, repository } => {
            let outcome = blob::committed(batch, at_ms, &digest, size, &repository)?;
            if outcome == Outcome::Done {
                blobs.push((digest, size));
            }
            Ok(outcome)
        }
        Command::LinkBlob { repository, digest, from } => {
            blob::link(batch, at_ms, &repository, &digest, &from)
        }
        Command::UnlinkBlob { repository, digest } => blob::unlink(batch, &repository, &digest),
        Command::PutManifest {
            repository,
            digest,
            media_type,
            bytes,
            summary,
            tags,
            condition,
        } => {
            let absent = AbsentReferences::Refused;
            let put = manifest::Put {
                repository,
                digest,
                media_type,
                bytes,
                summary,
                tags,
                condition,
                absent,
            };
            manifest::put(batch, at_ms, put)
        }
        Command::PushManifest {
            repository,
            digest,
            media_type,
            bytes,
            summary,
            tags,
            condition,
            absent,
        } => {
            let put = manifest::Put {
                repository,
                digest,
                media_type,
                bytes,
                summary,
                tags,
                condition,
                absent,
            };
            manifest::put(batch, at_ms, put)
        }
        Command::DeleteManifest { repository, digest } => {
            manifest::delete(batch, at_ms, &repository, &digest)
        }
        Command::DeleteTag { repository, tag } => manifest::delete_tag(batch, &repository, &tag),
        Command::AdmitMember { name, node_id } => member::admit(batch, at_ms, &name, node_id),
        Command::SetImmutableTags { rules } => immutable::set(batch, rules),
        Command::RotateTokenKey { expected, key_id, secret, keep_ms } => {
            token_key::rotate(batch, at_ms, expected, key_id, secret, keep_ms)
        }
        Command::CollectBlobs { digests, grace_ms } => {
            collect::collect(batch, at_ms, digests, grace_ms)
        }
        Command::RenewBlobs { digests } => collect::renew(batch, at_ms, &digests),
        Command::HoldCollection { holder, until_ms } => {
            collect::hold(batch, at_ms, holder, until_ms)
        }
        Command::SetRetention { rules } => retention::set(batch, at_ms, rules),
        Command::ApplyRetention { repository, tags, manifests } => {
            retention::apply(batch, at_ms, &repository, tags, manifests)
        }
        Command::RecordPulls { pulls } => retention::record_pulls(batch, at_ms, pulls),
        Command::SetFeatureLevel { level, version } => feature::set(batch, level, version),
        Command::SetLeaving { name, node_id, leaving } => {
            member::set_leaving(batch, &name, node_id, leaving)
        }
        Command::RemoveMember { name, node_id } => member::remove(batch, &name, node_id),
        Command::ForgetRepositories { repositories, grace_ms } => {
            collect::forget_repositories(batch, at_ms, &repositories, grace_ms)
        }
    }
}
