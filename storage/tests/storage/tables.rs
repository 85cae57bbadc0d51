use std::collections::BTreeMap;

use proptest::prelude::*;
use tercet_storage::{
    BlobRecord, Descriptor, KvRead, MemberRecord, Meta, MetaBatch, ReferrerRecord, RepositoryName,
    RepositoryRecord, StateDb, Table, Tag, TagRecord,
};

use crate::support::sha256;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Writes = Vec<(Vec<u8>, Option<u8>)>;

/// Short keys over few letters, so that prefixes, deletions and overwrites meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(255)], 0..4)
}

fn writes() -> impl Strategy<Value = Writes> {
    proptest::collection::vec((key(), any::<Option<u8>>()), 0..24)
}

fn model_scan(
    model: &Model,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = model.iter().filter(|(key, _)| {
        key.starts_with(prefix) && after.is_none_or(|after| key.as_slice() > after)
    });
    pairs.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn apply(batch: &mut MetaBatch<'_>, model: &mut Model, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => {
                batch.put(Table::Settings, key.clone(), [*value]);
                model.insert(key.clone(), vec![*value]);
            }
            None => {
                batch.delete(Table::Settings, key.clone());
                model.remove(key);
            }
        }
    }
}

fn compare(
    reader: &impl KvRead,
    model: &Model,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<(), TestCaseError> {
    let found = reader.scan(Table::Settings, prefix, after, limit).unwrap();
    prop_assert_eq!(found, model_scan(model, prefix, after, limit));
    let value = reader.get(Table::Settings, prefix).unwrap();
    prop_assert_eq!(value.as_ref(), model.get(prefix));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batch_reads_like_a_map_before_and_after_commit(
        stored in writes(),
        written in writes(),
        scans in proptest::collection::vec((key(), proptest::option::of(key()), 0_usize..12), 12),
    ) {
        let root = tempfile::tempdir().unwrap();
        let db = StateDb::open(root.path()).unwrap();
        let mut model = Model::new();
        let mut batch = MetaBatch::new(&db);
        // Neighbouring tables must not leak into scans.
        batch.put(Table::Members, b"a", b"other");
        batch.put(Table::System, b"a", b"other");
        apply(&mut batch, &mut model, &stored);
        batch.commit().unwrap();
        let before = model.clone();
        let mut batch = MetaBatch::new(&db);
        batch.put(Table::System, b"b", b"other");
        apply(&mut batch, &mut model, &written);
        for (prefix, after, limit) in &scans {
            compare(&batch, &model, prefix, after.as_deref(), *limit)?;
            compare(&db, &before, prefix, after.as_deref(), *limit)?;
        }
        batch.commit().unwrap();
        for (prefix, after, limit) in &scans {
            compare(&db, &model, prefix, after.as_deref(), *limit)?;
        }
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[test]
fn tags_and_their_index_move_together() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    let (repository, one, two) = (name("a"), sha256(b"1"), sha256(b"2"));
    let mut batch = MetaBatch::new(&db);
    let record =
        |digest: &tercet_storage::Digest| TagRecord { digest: digest.clone(), updated_ms: 1 };
    batch.put_tag(&repository, &tag("x"), &record(&one)).unwrap();
    batch.put_tag(&repository, &tag("y"), &record(&one)).unwrap();
    batch.put_tag(&name("a/b"), &tag("x"), &record(&one)).unwrap();
    assert_eq!(batch.meta().tags_of(&repository, &one).unwrap(), [tag("x"), tag("y")]);
    batch.put_tag(&repository, &tag("x"), &record(&two)).unwrap();
    batch.commit().unwrap();
    let meta = Meta(&db);
    assert_eq!(meta.tags_of(&repository, &one).unwrap(), [tag("y")]);
    assert_eq!(meta.tags_of(&repository, &two).unwrap(), [tag("x")]);
    assert_eq!(meta.tag(&repository, &tag("x")).unwrap(), Some(record(&two)));
    let mut batch = MetaBatch::new(&db);
    assert_eq!(batch.delete_tag(&repository, &tag("x")).unwrap(), Some(record(&two)));
    assert_eq!(batch.delete_tag(&repository, &tag("x")).unwrap(), None);
    batch.commit().unwrap();
    assert!(Meta(&db).tags_of(&repository, &two).unwrap().is_empty());
    assert_eq!(Meta(&db).tags(&repository, None, 10).unwrap(), [tag("y")]);
}

#[test]
fn listings_are_lexical_paged_and_of_one_repository() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    let mut batch = MetaBatch::new(&db);
    let record = TagRecord { digest: sha256(b""), updated_ms: 0 };
    for repository in ["a", "ab", "a/b", "a-b"] {
        batch.put_repository(&name(repository), &RepositoryRecord { created_ms: 0 }).unwrap();
        for text in ["b", "B", "a", "1.0", "_"] {
            batch.put_tag(&name(repository), &tag(text), &record).unwrap();
        }
    }
    batch.commit().unwrap();
    let meta = Meta(&db);
    let texts = |tags: Vec<Tag>| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(meta.tags(&name("a"), None, 100).unwrap()), ["1.0", "B", "_", "a", "b"]);
    assert_eq!(texts(meta.tags(&name("a"), Some("B"), 2).unwrap()), ["_", "a"]);
    assert_eq!(texts(meta.tags(&name("a"), Some("not a tag"), 9).unwrap()), Vec::<String>::new());
    assert_eq!(texts(meta.tags(&name("a"), Some("aa"), 9).unwrap()), ["b"]);
    assert!(meta.tags(&name("a"), None, 0).unwrap().is_empty());
    let all = meta.repositories(None, 100).unwrap();
    assert_eq!(all, [name("a"), name("a-b"), name("a/b"), name("ab")]);
    assert_eq!(meta.repositories(Some("a-b"), 1).unwrap(), [name("a/b")]);
}

#[test]
fn blobs_referrers_and_members_are_found() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    let mut batch = MetaBatch::new(&db);
    let mut digests: Vec<_> = (0..5_u8).map(|n| sha256(&[n])).collect();
    digests.sort();
    let blob =
        BlobRecord { size: 1, committed_ms: 2, references: 0, unreferenced_since_ms: Some(2) };
    let descriptor = |n: usize| Descriptor {
        media_type: "a/b".into(),
        digest: digests[n].clone(),
        size: 1,
        artifact_type: None,
        annotations: BTreeMap::new(),
    };
    for (n, digest) in digests.iter().enumerate() {
        batch.put_blob(digest, &blob).unwrap();
        let record = ReferrerRecord { descriptor: descriptor(n) };
        batch.put_referrer(&name("a"), &sha256(b"subject"), &record).unwrap();
    }
    let member = MemberRecord { node_id: 7, admitted_ms: 1 };
    batch.put_member("tercet-0", &member).unwrap();
    batch.put_retired(6);
    batch.commit().unwrap();
    let meta = Meta(&db);
    let page = meta.blobs(Some(&digests[1]), 2).unwrap();
    assert_eq!(page, [(digests[2].clone(), blob.clone()), (digests[3].clone(), blob)]);
    let found = meta.referrers(&name("a"), &sha256(b"subject"), Some(&digests[2]), 10).unwrap();
    let found: Vec<_> = found.into_iter().map(|record| record.descriptor).collect();
    assert_eq!(found, [descriptor(3), descriptor(4)]);
    assert!(meta.referrers(&name("a"), &sha256(b"other"), None, 10).unwrap().is_empty());
    assert_eq!(meta.members().unwrap(), [("tercet-0".to_owned(), member.clone())]);
    assert_eq!(meta.member("tercet-0").unwrap(), Some(member));
    assert!(meta.retired(6).unwrap() && !meta.retired(7).unwrap());
}

#[test]
fn damaged_record_is_an_error_that_names_its_table() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    let mut batch = MetaBatch::new(&db);
    batch.put(Table::Repositories, b"a", b"damaged");
    batch.commit().unwrap();
    let error = Meta(&db).repository(&name("a")).unwrap_err();
    assert!(error.to_string().contains("repositories"), "{error}");
}
