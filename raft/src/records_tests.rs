//! Golden files: the bytes that past versions wrote must be read for ever.
//!
//! `TERCET_GOLDEN=write` writes the files that do not exist yet. An existing one is never
//! overwritten: a record that encodes differently needs a new schema version and a new file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tercet_storage::codec::{decode, encode};
use tercet_storage::{
    Algorithm, Digest, ImmutableTagRule, ManifestReference, ManifestSummary, ReferenceKind,
    RepositoryName, RetentionRule, Secret, Untagged,
};

use super::*;
use crate::command::{
    AbsentReferences, Command, Condition, ExpiredManifest, ExpiredTag, Leaving, PullSeen,
};

#[test]
fn golden_positions() {
    check(LOG_ID, "", &LogIdRecord::from(&log_id()));
    let vote = Vote { leader_id: LeaderId { term: 7, node_id: 11 }, committed: true };
    check(VOTE, "", &VoteRecord::from(&vote));
}

#[test]
fn golden_memberships() {
    for (version, stored) in [(1, stored_membership()), (2, stored_membership_of_kinds())] {
        let versioned = |schema| Schema { version, ..schema };
        let encoded = encode_membership(&stored).unwrap();
        let golden = golden(versioned(MEMBERSHIP), "", &encoded);
        assert_eq!(decode_membership(&golden).unwrap(), stored);
        let meta = SnapshotMeta { last_log_id: Some(log_id()), last_membership: stored.clone() };
        let encoded = encode_snapshot_meta(&meta).unwrap();
        let golden = self::golden(versioned(SNAPSHOT_META), "", &encoded);
        assert_eq!(decode_snapshot_meta(&golden).unwrap(), meta);
        let membership = stored.membership().clone();
        check_entry(version, "membership", &entry(Payload::Membership(membership)));
    }
}

#[test]
fn golden_entries() {
    check_entry(1, "blank", &entry(Payload::Blank));
    for command in commands() {
        let name = command.name();
        let proposal = Proposal { at_ms: 1_790_000_000_000, command };
        check_entry(1, name, &entry(Payload::Normal(proposal)));
    }
}

#[test]
fn openraft_types_survive_the_records() {
    for stored in [stored_membership(), stored_membership_of_kinds(), StoredMembership::default()] {
        let back = decode_membership(&encode_membership(&stored).unwrap()).unwrap();
        assert_eq!(back, stored);
        let original = entry(Payload::Membership(stored.membership().clone()));
        assert_eq!(decode_entry(&encode_entry(original.clone()).unwrap()).unwrap(), original);
    }
}

#[test]
fn a_record_of_a_newer_version_is_refused() {
    let newer = Schema { version: 3, ..ENTRY };
    let bytes = encode(newer, &EntryRecord::from(entry(Payload::Blank))).unwrap();
    let error = decode_entry(&bytes).unwrap_err().to_string();
    assert!(error.contains("newer"), "{error}");
}

fn check_entry(version: u8, variant: &str, entry: &Entry) {
    let encoded = encode_entry(entry.clone()).unwrap();
    let golden = golden(Schema { version, ..ENTRY }, variant, &encoded);
    assert_eq!(&decode_entry(&golden).unwrap(), entry, "{variant}");
}

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    schema: Schema,
    variant: &str,
    value: &T,
) {
    let golden = golden(schema, variant, &encode(schema, value).unwrap());
    assert_eq!(&decode::<T>(schema, &golden).unwrap(), value, "{}", schema.name);
}

/// The golden file, after a look at whether these bytes are still written so.
fn golden(schema: Schema, variant: &str, encoded: &[u8]) -> Vec<u8> {
    let name = format!("{}-{variant}.v{}.bin", schema.name.replace(' ', "-"), schema.version)
        .replace("-.", ".");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("TERCET_GOLDEN").is_some_and(|mode| mode == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, encoded).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("golden file {}: {error}; TERCET_GOLDEN=write makes it", path.display())
    });
    assert_eq!(encoded, golden, "{} is written differently now", path.display());
    golden
}

fn log_id() -> LogId {
    LogId::new(LeaderId { term: 7, node_id: 11 }, 42)
}

fn stored_membership() -> StoredMembership {
    let nodes = [11, 12, 13].map(|id| {
        let node = ReplicaNode {
            name: format!("tercet-{id}"),
            address: format!("https://r{id}:5001"),
            ..ReplicaNode::default()
        };
        (id, node)
    });
    let voter_sets = vec![BTreeSet::from([11, 12]), BTreeSet::from([11, 13])];
    let membership = Membership::new(voter_sets, BTreeMap::from(nodes)).unwrap();
    StoredMembership::new(Some(log_id()), membership)
}

/// As [`stored_membership`], with an edge, a zone, and both.
fn stored_membership_of_kinds() -> StoredMembership {
    let plain = stored_membership();
    let mut nodes: BTreeMap<NodeId, ReplicaNode> =
        plain.membership().nodes().map(|(id, node)| (*id, node.clone())).collect();
    let zone = Some("rack-1".to_owned());
    nodes.get_mut(&11).unwrap().zone = zone.clone();
    for (id, zone) in [(14, None), (15, zone)] {
        let node = ReplicaNode {
            name: format!("edge-{id}"),
            address: format!("https://e{id}:5001"),
            kind: MemberKind::Edge,
            zone,
        };
        nodes.insert(id, node);
    }
    let voter_sets = plain.membership().get_joint_config().clone();
    StoredMembership::new(Some(log_id()), Membership::new(voter_sets, nodes).unwrap())
}

fn entry(payload: Payload) -> Entry {
    Entry { log_id: log_id(), payload }
}

/// One of every variant.
fn commands() -> Vec<Command> {
    let repository: RepositoryName = "team/app".parse().unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"golden");
    let other = Digest::of(Algorithm::Sha512, b"golden");
    let digests = vec![digest.clone(), other.clone()];
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
        Command::CollectBlobs { digests: digests.clone(), grace_ms: 86_400_000 },
        Command::RenewBlobs { digests: digests.clone() },
        Command::HoldCollection { holder: "backup".to_owned(), until_ms: 1_790_000_060_000 },
        Command::SetRetention {
            rules: vec![RetentionRule {
                name: "previews".to_owned(),
                repositories: vec!["preview/**".to_owned()],
                keep_last: Some(10),
                keep_younger_days: Some(30),
                keep_pulled_days: None,
                keep_tags: vec!["v*".to_owned()],
                untagged: Untagged::DeleteAfterDays(7),
            }],
        },
        Command::ApplyRetention {
            repository: "preview/app".parse().unwrap(),
            tags: vec![ExpiredTag {
                tag: "pr-1".parse().unwrap(),
                digest: digests[0].clone(),
                updated_ms: 1_780_000_000_000,
            }],
            manifests: vec![ExpiredManifest {
                digest: digests[1].clone(),
                pushed_ms: 1_780_000_000_001,
            }],
        },
        Command::RecordPulls {
            pulls: vec![PullSeen {
                repository: "team/app".parse().unwrap(),
                digest: digests[0].clone(),
                at_ms: 1_790_000_000_001,
            }],
        },
        Command::SetFeatureLevel { level: 2, version: "0.1.0".to_owned() },
        Command::SetLeaving { name: "tercet-11".to_owned(), node_id: 11, leaving: Leaving::Yes },
        Command::RemoveMember { name: "tercet-11".to_owned(), node_id: 11 },
        Command::ForgetRepositories {
            repositories: vec!["team/app".parse().unwrap()],
            grace_ms: 86_400_000,
        },
    ]
}
