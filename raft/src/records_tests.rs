//! Golden files: the bytes that past versions wrote must be read for ever.
//!
//! `TERCET_GOLDEN=write` writes the files that do not exist yet. An existing one is never
//! overwritten: a record that encodes differently needs a new schema version and a new file.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tercet_storage::codec::{decode, encode};
use tercet_storage::{
    Algorithm, Digest, ImmutableTagRule, ManifestReference, ManifestSummary, ReferenceKind,
    RepositoryName, Secret,
};

use super::*;
use crate::command::{AbsentReferences, Command, Condition};

#[test]
fn golden_positions() {
    check(LOG_ID, "", &LogIdRecord::from(&log_id()));
    let vote = Vote { leader_id: LeaderId { term: 7, node_id: 11 }, committed: true };
    check(VOTE, "", &VoteRecord::from(&vote));
    check(MEMBERSHIP, "", &StoredMembershipRecord::from(&stored_membership()));
    let meta = SnapshotMeta { last_log_id: Some(log_id()), last_membership: stored_membership() };
    check(SNAPSHOT_META, "", &SnapshotMetaRecord::from(&meta));
}

#[test]
fn golden_entries() {
    check(ENTRY, "blank", &entry(Payload::Blank));
    let membership = stored_membership().membership().clone();
    check(ENTRY, "membership", &entry(Payload::Membership(membership)));
    for command in commands() {
        let name = command.name();
        check(ENTRY, name, &entry(Payload::Normal(Proposal { at_ms: 1_790_000_000_000, command })));
    }
}

#[test]
fn openraft_types_survive_the_records() {
    let stored = stored_membership();
    let back: StoredMembership = StoredMembershipRecord::from(&stored).try_into().unwrap();
    assert_eq!(back, stored);
    let empty = StoredMembership::default();
    let back: StoredMembership = StoredMembershipRecord::from(&empty).try_into().unwrap();
    assert_eq!(back, empty);
    let original =
        Entry { log_id: log_id(), payload: Payload::Membership(stored.membership().clone()) };
    assert_eq!(EntryRecord::from(original.clone()).into_entry().unwrap(), original);
}

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    schema: Schema,
    variant: &str,
    value: &T,
) {
    let name = format!("{}-{variant}.v{}.bin", schema.name.replace(' ', "-"), schema.version)
        .replace("-.", ".");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let encoded = encode(schema, value).unwrap();
    if !path.exists() && std::env::var_os("TERCET_GOLDEN").is_some_and(|mode| mode == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &encoded).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("golden file {}: {error}; TERCET_GOLDEN=write makes it", path.display())
    });
    assert_eq!(encoded, golden, "{} is written differently now", path.display());
    assert_eq!(&decode::<T>(schema, &golden).unwrap(), value, "{}", path.display());
}

fn log_id() -> LogId {
    LogId::new(LeaderId { term: 7, node_id: 11 }, 42)
}

fn stored_membership() -> StoredMembership {
    let nodes = [11, 12, 13].map(|id| {
        let node =
            ReplicaNode { name: format!("tercet-{id}"), address: format!("https://r{id}:5001") };
        (id, node)
    });
    let voter_sets = vec![BTreeSet::from([11, 12]), BTreeSet::from([11, 13])];
    let membership = Membership::new(voter_sets, BTreeMap::from(nodes)).unwrap();
    StoredMembership::new(Some(log_id()), membership)
}

fn entry(payload: Payload) -> EntryRecord {
    Entry { log_id: log_id(), payload }.into()
}

/// One of every variant.
fn commands() -> Vec<Command> {
    let repository: RepositoryName = "team/app".parse().unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"golden");
    let other = Digest::of(Algorithm::Sha512, b"golden");
    vec![
        Command::BlobCommitted { digest: digest.clone(), size: 6, repository: repository.clone() },
        Command::LinkBlob {
            repository: repository.clone(),
            digest: other.clone(),
            from: "base/image".parse().unwrap(),
        },
        Command::UnlinkBlob { repository: repository.clone(), digest: digest.clone() },
        Command::PutManifest {
            repository: repository.clone(),
            digest: digest.clone(),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            bytes: b"{}".to_vec(),
            summary: ManifestSummary {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                references: vec![ManifestReference {
                    digest: other.clone(),
                    size: 6,
                    kind: ReferenceKind::Blob,
                }],
                subject: Some(other.clone()),
                artifact_type: Some("application/example".to_owned()),
                annotations: BTreeMap::from([("key".to_owned(), "value".to_owned())]),
            },
            tags: vec!["latest".parse().unwrap()],
            condition: Condition::IfMatch(other),
        },
        Command::DeleteManifest { repository: repository.clone(), digest: digest.clone() },
        Command::DeleteTag { repository: repository.clone(), tag: "latest".parse().unwrap() },
        Command::AdmitMember { name: "tercet-11".to_owned(), node_id: 11 },
        Command::PushManifest {
            repository,
            digest: digest.clone(),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            bytes: b"{}".to_vec(),
            summary: ManifestSummary {
                media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
                references: vec![ManifestReference {
                    digest: digest.clone(),
                    size: 6,
                    kind: ReferenceKind::Manifest,
                }],
                subject: None,
                artifact_type: None,
                annotations: BTreeMap::new(),
            },
            tags: vec!["v1".parse().unwrap(), "latest".parse().unwrap()],
            condition: Condition::IfNoneMatchAny,
            absent: AbsentReferences::Allowed(vec![digest]),
        },
        Command::SetImmutableTags {
            rules: vec![ImmutableTagRule {
                name: "releases".to_owned(),
                repositories: vec!["prod/**".to_owned()],
                tags: vec!["v*".to_owned(), "release-?".to_owned()],
            }],
        },
        Command::RotateTokenKey {
            expected: Some("old".to_owned()),
            key_id: "new".to_owned(),
            secret: Secret::new(std::array::from_fn(|n| n as u8)),
            keep_ms: 900_000,
        },
    ]
}
