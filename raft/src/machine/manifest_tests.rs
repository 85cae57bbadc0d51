#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::super::bench::{Bench, Push, digest, repository};
use super::*;
use crate::command::Command;

/// A push that names things, of which `absent` may be missing.
fn push(content: &'static str, names: &[(&str, ReferenceKind)], absent: &[&str]) -> Push {
    let mut push = Push::new(content, &["tag"]);
    push.references = names.iter().map(|(content, kind)| (digest(content), *kind)).collect();
    if !absent.is_empty() {
        let digests = absent.iter().map(|content| digest(content)).collect();
        push.absent = AbsentReferences::Allowed(digests);
    }
    push
}

/// An index of one image that nobody has pushed.
fn sparse_index() -> Push {
    push("index", &[("image", ReferenceKind::Manifest)], &["image"])
}

/// An image of two layers, of which `absent` may be missing.
fn image(content: &'static str, absent: &[&str]) -> Push {
    push(content, &[("here", ReferenceKind::Blob), ("late", ReferenceKind::Blob)], absent)
}

fn strict(mut push: Push) -> Push {
    push.absent = AbsentReferences::Refused;
    push
}

fn delete(content: &str) -> Command {
    Command::DeleteManifest { repository: repository(), digest: digest(content) }
}

fn commit_in(content: &str, repository: RepositoryName) -> Command {
    Command::BlobCommitted { digest: digest(content), size: 1, repository }
}

fn commit(content: &str) -> Command {
    commit_in(content, repository())
}

fn unlink(content: &str) -> Command {
    Command::UnlinkBlob { repository: repository(), digest: digest(content) }
}

/// Manifests that are counted for a blob: everywhere, in the repository, and awaiting it there.
fn counts(bench: &Bench, content: &str) -> (Option<u64>, Option<u32>, Option<u32>) {
    let (meta, digest) = (bench.meta(), digest(content));
    (
        meta.blob(&digest).unwrap().map(|blob| blob.references),
        meta.blob_link(&repository(), &digest).unwrap().map(|link| link.references),
        meta.awaited_blob(&repository(), &digest).unwrap().map(|awaited| awaited.references),
    )
}

fn unreferenced_since(bench: &Bench, content: &str) -> Option<u64> {
    bench.meta().blob(&digest(content)).unwrap().unwrap().unreferenced_since_ms
}

#[test]
fn a_sparse_index_is_taken_only_if_the_command_allows_it() {
    let bench = Bench::new();
    let missing = Outcome::MissingReferences(vec![digest("image")]);
    assert_eq!(bench.apply(strict(sparse_index()).command()), missing);
    assert_eq!(bench.apply(sparse_index().old_command()), missing);
    assert!(bench.everything().is_empty(), "a refusal changes nothing");
    assert_eq!(bench.apply(sparse_index().command()), Outcome::Done);
    assert_eq!(bench.tag("tag"), Some(digest("index")));
}

#[test]
fn what_the_proposer_did_not_judge_may_not_be_absent() {
    let bench = Bench::new();
    let names = [
        ("here", ReferenceKind::Blob),
        ("late", ReferenceKind::Blob),
        ("image", ReferenceKind::Manifest),
    ];
    let missing = |contents: &[&str]| {
        Outcome::MissingReferences(contents.iter().map(|content| digest(content)).collect())
    };
    // It saw `here` and allowed for the others; then `here` was deleted.
    let judged = push("x", &names, &["late", "image", "unrelated"]);
    assert_eq!(bench.apply(judged.command()), missing(&["here"]));
    assert_eq!(bench.apply(push("x", &names, &["image"]).command()), missing(&["here", "late"]));
    assert_eq!(bench.apply(strict(judged).command()), missing(&["here", "late", "image"]));
    assert!(bench.everything().is_empty());
    // What is allowed to be absent may be there.
    assert_eq!(bench.apply(commit("here")), Outcome::Done);
    let all = ["here", "late", "image"];
    assert_eq!(bench.apply(push("x", &names, &all).command()), Outcome::Done);
    assert_eq!(counts(&bench, "here"), (Some(1), Some(1), None));
    assert_eq!(counts(&bench, "late"), (None, None, Some(1)));
}

#[test]
fn an_absent_blob_is_counted_when_it_comes_and_then_stays() {
    let bench = Bench::new();
    bench.apply(commit("here"));
    for content in ["one", "two"] {
        assert_eq!(bench.apply(image(content, &["late"]).command()), Outcome::Done);
        // The same push once more counts nothing more.
        assert_eq!(bench.apply(image(content, &["late"]).command()), Outcome::Done);
    }
    assert_eq!(counts(&bench, "here"), (Some(2), Some(2), None));
    assert_eq!(counts(&bench, "late"), (None, None, Some(2)));
    assert_eq!(bench.apply(unlink("late")), Outcome::NotFound);
    // It is pushed to another repository first: that says nothing about this one.
    bench.apply_at(5, commit_in("late", "other".parse().unwrap()));
    assert_eq!(counts(&bench, "late"), (Some(0), None, Some(2)));
    assert_eq!(unreferenced_since(&bench, "late"), Some(5));
    let mount = Command::LinkBlob {
        repository: repository(),
        digest: digest("late"),
        from: "other".parse().unwrap(),
    };
    assert_eq!(bench.apply_at(6, mount), Outcome::Done);
    assert_eq!(counts(&bench, "late"), (Some(2), Some(2), None));
    assert_eq!(unreferenced_since(&bench, "late"), None, "it is reachable now");
    assert_eq!(bench.apply(unlink("late")), Outcome::InUse);
    assert_eq!(bench.apply(delete("one")), Outcome::Done);
    assert_eq!(bench.apply_at(9, delete("two")), Outcome::Done);
    assert_eq!(counts(&bench, "late"), (Some(0), Some(0), None));
    assert_eq!(unreferenced_since(&bench, "late"), Some(9));
    assert_eq!(bench.apply(unlink("late")), Outcome::Done);
}

#[test]
fn a_manifest_that_goes_before_its_blob_has_come_leaves_no_trace() {
    let bench = Bench::new();
    bench.apply(commit("here"));
    bench.apply(commit_in("late", "other".parse().unwrap()));
    let before = bench.everything();
    assert_eq!(bench.apply(image("one", &["late"]).command()), Outcome::Done);
    assert_eq!(bench.apply(delete("one")), Outcome::Done);
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.apply(commit("late")), Outcome::Done);
    assert_eq!(counts(&bench, "late"), (Some(0), Some(0), None));
}

#[test]
fn a_child_that_comes_later_and_goes_again_changes_no_count() {
    let bench = Bench::new();
    assert_eq!(bench.apply(sparse_index().command()), Outcome::Done);
    // The child names blobs, which are counted for the child and not for the index.
    bench.apply(commit("here"));
    bench.apply(commit("late"));
    assert_eq!(bench.apply(image("image", &[]).command()), Outcome::Done);
    assert_eq!(counts(&bench, "here"), (Some(1), Some(1), None));
    // Complete now, so the strict push finds everything; again counts nothing twice.
    assert_eq!(bench.apply(strict(sparse_index()).command()), Outcome::Done);
    assert_eq!(bench.meta().manifest(&digest("index")).unwrap().unwrap().links, 1);
    assert_eq!(bench.apply(delete("image")), Outcome::Done);
    assert_eq!(counts(&bench, "here"), (Some(0), Some(0), None));
    assert_eq!(bench.apply(delete("index")), Outcome::Done);
    assert_eq!(bench.apply(image("image", &[]).command()), Outcome::Done);
    assert_eq!(counts(&bench, "here"), (Some(1), Some(1), None));
}

#[test]
fn a_sparse_index_that_is_pushed_again_is_judged_again() {
    let bench = Bench::new();
    assert_eq!(bench.apply(sparse_index().command()), Outcome::Done);
    let before = bench.everything();
    assert_eq!(bench.apply(sparse_index().command()), Outcome::Done);
    assert_eq!(bench.everything(), before);
    // That the index is there already completes nothing.
    let missing = Outcome::MissingReferences(vec![digest("image")]);
    assert_eq!(bench.apply(strict(sparse_index()).command()), missing);
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.apply(delete("index")), Outcome::Done);
    assert_eq!(bench.meta().manifest(&digest("index")).unwrap(), None);
    assert_eq!(bench.tag("tag"), None);
}

#[test]
fn the_old_command_does_what_it_always_did() {
    let (old, new) = (Bench::new(), Bench::new());
    let push = Push::new("one", &["v1", "latest"]);
    assert_eq!(old.apply(push.old_command()), Outcome::Done);
    assert_eq!(new.apply(push.command()), Outcome::Done);
    assert_eq!(old.everything(), new.everything());
}
