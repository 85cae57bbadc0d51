//! The bytes of every record of every version. A file here is never changed: a disk somewhere holds it.
//!
//! A new version needs a new sample; `TERCET_GOLDEN=write` writes the files that do not exist yet.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tercet_storage::{
    Algorithm, AwaitedBlobRecord, BlobLinkRecord, BlobRecord, CollectionHold,
    CollectionHoldsRecord, Descriptor, Digest, FeatureLevelRecord, ImmutableTagRule,
    ImmutableTagsRecord, ManifestLinkRecord, ManifestRecord, ManifestReference, ManifestSummary,
    MemberRecord, PullRecord, ReferenceKind, ReferrerRecord, RepositoryRecord, RetentionRecord,
    RetentionRule, Schema, Secret, TagRecord, TokenKey, TokenKeysRecord, Untagged, codec, schemas,
};

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(schema: Schema, sample: &T) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = directory.join(format!("{}.v{}.bin", schema.name, schema.version));
    let encoded = codec::encode(schema, sample).unwrap();
    if !path.exists() && std::env::var("TERCET_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &encoded).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(encoded, golden, "{} is no longer written as it was", schema.name);
    assert_eq!(&codec::decode::<T>(schema, &golden).unwrap(), sample);
}

#[test]
fn records_are_the_bytes_they_always_were() {
    let sha256 = Digest::of(Algorithm::Sha256, b"golden");
    let sha512 = Digest::of(Algorithm::Sha512, b"golden");
    let annotations = BTreeMap::from([("key".to_owned(), "välue".to_owned())]);
    check(schemas::REPOSITORY, &RepositoryRecord { created_ms: 1 });
    check(schemas::TAG, &TagRecord { digest: sha256.clone(), updated_ms: 2 });
    let summary = ManifestSummary {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        references: vec![
            ManifestReference { digest: sha256.clone(), size: 3, kind: ReferenceKind::Blob },
            ManifestReference { digest: sha512.clone(), size: 4, kind: ReferenceKind::Manifest },
        ],
        subject: Some(sha512.clone()),
        artifact_type: None,
        annotations: annotations.clone(),
    };
    check(schemas::MANIFEST, &ManifestRecord { bytes: b"{}".to_vec(), summary, links: 5 });
    check(schemas::MANIFEST_LINK, &ManifestLinkRecord { media_type: "a/b".into(), pushed_ms: 6 });
    let blob =
        BlobRecord { size: 7, committed_ms: 8, references: 9, unreferenced_since_ms: Some(10) };
    check(schemas::BLOB, &blob);
    check(schemas::BLOB_LINK, &BlobLinkRecord { linked_ms: 11, references: 12 });
    let descriptor = Descriptor {
        media_type: "a/b".into(),
        digest: sha512,
        size: 13,
        artifact_type: Some("c/d".into()),
        annotations,
    };
    check(schemas::REFERRER, &ReferrerRecord { descriptor });
    check(schemas::MEMBER, &MemberRecord { node_id: 14, admitted_ms: 15 });
    let key = |id: &str, created_ms: u64| TokenKey {
        id: id.into(),
        secret: Secret::new(std::array::from_fn(|n| u8::try_from(n).unwrap())),
        created_ms,
    };
    check(schemas::TOKEN_KEYS, &TokenKeysRecord { keys: vec![key("one", 16), key("two", 17)] });
    let rule = ImmutableTagRule {
        name: "releases".into(),
        repositories: vec!["prod/**".into(), "base/*".into()],
        tags: vec!["v?*".into()],
    };
    check(schemas::IMMUTABLE_TAGS, &ImmutableTagsRecord { rules: vec![rule] });
    check(schemas::AWAITED_BLOB, &AwaitedBlobRecord { references: 18 });
    check(schemas::PULL, &PullRecord { last_ms: 19 });
    let rule = RetentionRule {
        name: "r".into(),
        repositories: vec!["a/**".into()],
        keep_last: Some(20),
        keep_younger_days: None,
        keep_pulled_days: Some(21),
        keep_tags: vec!["v*".into()],
        untagged: Untagged::DeleteAfterDays(22),
    };
    check(schemas::RETENTION, &RetentionRecord { rules: vec![rule], pulls_since_ms: 24 });
    check(schemas::FEATURE_LEVEL, &FeatureLevelRecord { level: 2, version: "0.2.0".into() });
    let holds = vec![CollectionHold { holder: "h".into(), until_ms: 23 }];
    check(schemas::COLLECTION_HOLDS, &CollectionHoldsRecord { holds });
}
