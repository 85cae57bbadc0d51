#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tercet_storage::{BlobLinkRecord, ManifestReference, ManifestSummary, ReferenceKind};

use super::super::bench::{Bench, digest};
use super::*;
use crate::command::{AbsentReferences, Command, Condition};

const GRACE: u64 = 100;

fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// A bench on which everything may be proposed.
fn bench() -> Bench {
    let bench = Bench::new();
    let level = Command::SetFeatureLevel { level: 2, version: "0.2.0".to_owned() };
    bench.apply_at(0, level);
    bench
}

fn commit(name: &str, content: &str) -> Command {
    Command::BlobCommitted { digest: digest(content), size: 1, repository: repository(name) }
}

fn mount(name: &str, content: &str, from: &str) -> Command {
    Command::LinkBlob {
        repository: repository(name),
        digest: digest(content),
        from: repository(from),
    }
}

fn push(name: &str, manifest: &str, layers: &[&str], absent: AbsentReferences) -> Command {
    let references = layers
        .iter()
        .map(|layer| ManifestReference {
            digest: digest(layer),
            size: 1,
            kind: ReferenceKind::Blob,
        })
        .collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    Command::PushManifest {
        repository: repository(name),
        digest: digest(manifest),
        media_type: media_type.clone(),
        bytes: manifest.as_bytes().to_vec(),
        summary: ManifestSummary {
            media_type,
            references,
            subject: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        },
        tags: Vec::new(),
        condition: Condition::None,
        absent,
    }
}

fn image(name: &str, manifest: &str, layers: &[&str]) -> Command {
    push(name, manifest, layers, AbsentReferences::Refused)
}

fn delete(name: &str, manifest: &str) -> Command {
    Command::DeleteManifest { repository: repository(name), digest: digest(manifest) }
}

fn collect_of(contents: &[&str]) -> Command {
    let digests = contents.iter().map(|content| digest(content)).collect();
    Command::CollectBlobs { digests, grace_ms: GRACE }
}

fn renew_of(contents: &[&str]) -> Command {
    Command::RenewBlobs { digests: contents.iter().map(|content| digest(content)).collect() }
}

fn hold_of(holder: &str, until_ms: u64) -> Command {
    Command::HoldCollection { holder: holder.to_owned(), until_ms }
}

fn forget(names: &[&str]) -> Command {
    let repositories = names.iter().map(|name| repository(name)).collect();
    Command::ForgetRepositories { repositories, grace_ms: GRACE }
}

fn collected(contents: &[&str]) -> Outcome {
    Outcome::Collected(contents.iter().map(|content| digest(content)).collect())
}

fn knows(bench: &Bench, content: &str) -> bool {
    bench.meta().blob(&digest(content)).unwrap().is_some()
}

fn sees(bench: &Bench, name: &str, content: &str) -> bool {
    bench.meta().blob_link(&repository(name), &digest(content)).unwrap().is_some()
}

#[test]
fn a_blob_without_references_goes_after_its_grace_with_all_its_links() {
    let bench = bench();
    bench.apply_at(10, commit("a", "x"));
    bench.apply_at(10, mount("b", "x", "a"));
    bench.apply_at(10, commit("a", "y"));
    bench.apply_at(10, image("a", "image", &["y"]));
    assert_eq!(bench.apply_at(109, collect_of(&["x", "y"])), collected(&[]));
    assert_eq!(bench.apply_at(110, collect_of(&["x", "y", "unknown", "x"])), collected(&["x"]));
    assert!(!knows(&bench, "x") && !sees(&bench, "a", "x") && !sees(&bench, "b", "x"));
    assert!(bench.meta().blob_repositories(&digest("x"), 9).unwrap().is_empty());
    assert!(knows(&bench, "y") && sees(&bench, "a", "y"));
    // The same entry once more, as after a restart, changes nothing.
    let before = bench.everything();
    assert_eq!(bench.apply_at(111, collect_of(&["x", "y"])), collected(&[]));
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_blob_named_by_any_repository_stays_whatever_its_stamp_says() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    bench.apply_at(1, mount("b", "x", "a"));
    bench.apply_at(2, image("a", "image", &["x"]));
    bench.apply_at(3, image("b", "image", &["x"]));
    bench.apply_at(4, delete("a", "image"));
    assert_eq!(bench.apply_at(u64::MAX, collect_of(&["x"])), collected(&[]));
    bench.apply_at(500, delete("b", "image"));
    assert_eq!(bench.apply_at(599, collect_of(&["x"])), collected(&[]), "grace from the last one");
    assert_eq!(bench.apply_at(600, collect_of(&["x"])), collected(&["x"]));
}

#[test]
fn a_push_between_proposal_and_apply_keeps_its_blob() {
    // Row 33: in the order in which the log has them, either the manifest or the collection wins.
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    assert_eq!(bench.apply_at(200, image("a", "image", &["x"])), Outcome::Done);
    assert_eq!(bench.apply_at(200, collect_of(&["x"])), collected(&[]));

    let bench = self::bench();
    bench.apply_at(1, commit("a", "x"));
    assert_eq!(bench.apply_at(200, collect_of(&["x"])), collected(&["x"]));
    assert_eq!(
        bench.apply_at(200, image("a", "image", &["x"])),
        Outcome::MissingReferences(vec![digest("x")])
    );
    // Pushed again, it is a new record with a new grace.
    bench.apply_at(250, commit("a", "x"));
    let record = bench.meta().blob(&digest("x")).unwrap().unwrap();
    assert_eq!((record.committed_ms, record.unreferenced_since_ms), (250, Some(250)));
    assert_eq!(bench.apply_at(349, collect_of(&["x"])), collected(&[]));
    assert_eq!(bench.apply_at(349, image("a", "image", &["x"])), Outcome::Done);
}

#[test]
fn mounts_and_renewals_begin_the_grace_anew_and_find_nothing_after_it() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    assert_eq!(bench.apply_at(90, mount("b", "x", "a")), Outcome::Done);
    assert_eq!(bench.apply_at(150, collect_of(&["x"])), collected(&[]));
    assert_eq!(bench.apply_at(180, renew_of(&["x"])), Outcome::Done);
    assert_eq!(bench.apply_at(279, collect_of(&["x"])), collected(&[]));
    assert_eq!(bench.apply_at(280, collect_of(&["x"])), collected(&["x"]));
    assert_eq!(bench.apply_at(281, renew_of(&["x"])), Outcome::NotFound);
    assert_eq!(bench.apply_at(281, mount("c", "x", "a")), Outcome::NotFound);
    assert!(!knows(&bench, "x"), "a renewal makes no record");
}

#[test]
fn renewing_writes_nothing_for_what_is_referenced() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    bench.apply_at(1, commit("a", "y"));
    bench.apply_at(2, image("a", "image", &["x"]));
    let before = bench.everything();
    assert_eq!(bench.apply_at(50, renew_of(&["x"])), Outcome::Done);
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.apply_at(50, renew_of(&["y", "gone"])), Outcome::NotFound);
    let since = bench.meta().blob(&digest("y")).unwrap().unwrap().unreferenced_since_ms;
    assert_eq!(since, Some(50), "what is there is renewed although something is not");
}

#[test]
fn a_manifest_that_awaits_a_blob_counts_again_when_it_comes_back() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    bench.apply_at(1, commit("b", "here"));
    let absent = AbsentReferences::Allowed(vec![digest("x")]);
    // b awaits x, which only a has.
    assert_eq!(bench.apply_at(2, push("b", "sparse", &["here", "x"], absent)), Outcome::Done);
    assert_eq!(bench.apply_at(200, collect_of(&["x", "here"])), collected(&["x"]));
    let awaited = bench.meta().awaited_blob(&repository("b"), &digest("x")).unwrap().unwrap();
    assert_eq!(awaited.references, 1);
    bench.apply_at(300, commit("b", "x"));
    assert_eq!(bench.meta().blob(&digest("x")).unwrap().unwrap().references, 1);
    assert_eq!(bench.apply_at(900, collect_of(&["x"])), collected(&[]));
    bench.apply_at(901, delete("b", "sparse"));
    assert_eq!(bench.apply_at(1001, collect_of(&["x", "here"])), collected(&["x", "here"]));
}

#[test]
fn nothing_is_collected_while_somebody_holds() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    assert_eq!(bench.apply_at(200, hold_of("backup", 1_000)), Outcome::Done);
    assert_eq!(bench.apply_at(300, collect_of(&["x"])), collected(&[]));
    assert_eq!(bench.apply_at(300, hold_of("other", 400)), Outcome::Done);
    assert_eq!(bench.apply_at(300, hold_of("backup", 0)), Outcome::Done);
    assert_eq!(bench.apply_at(399, collect_of(&["x"])), collected(&[]));
    assert_eq!(bench.apply_at(400, collect_of(&["x"])), collected(&["x"]), "a hold ends by itself");
}

#[test]
fn a_hold_is_bounded_in_time_name_and_number() {
    let bench = bench();
    bench.apply_at(5, hold_of("a", u64::MAX));
    let holds = bench.meta().collection_holds().unwrap();
    assert_eq!(
        holds,
        [CollectionHold { holder: "a".to_owned(), until_ms: 5 + COLLECTION_HOLD_MAX_MS }]
    );
    assert!(matches!(bench.apply_at(5, hold_of("", 9)), Outcome::Refused(_)));
    assert!(matches!(bench.apply_at(5, hold_of(&"n".repeat(200), 9)), Outcome::Refused(_)));
    for n in 1..HOLDS_MAX {
        assert_eq!(bench.apply_at(5, hold_of(&format!("h{n}"), 100)), Outcome::Done);
    }
    assert!(matches!(bench.apply_at(5, hold_of("one more", 100)), Outcome::Refused(_)));
    // Those that have ended make room.
    assert_eq!(bench.apply_at(100, hold_of("one more", 200)), Outcome::Done);
}

#[test]
fn a_hold_from_a_wrong_clock_does_not_last_for_ever() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    let year = 365 * 24 * COLLECTION_HOLD_MAX_MS;
    bench.apply_at(year, hold_of("backup", year + 1000));
    assert_eq!(bench.apply_at(1_000, collect_of(&["x"])), collected(&["x"]));
}

#[test]
fn counts_that_disagree_keep_the_blob() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    bench.put_link(&repository("a"), &digest("x"), &BlobLinkRecord { linked_ms: 1, references: 1 });
    assert_eq!(bench.apply_at(900, collect_of(&["x"])), collected(&[]));
    assert!(knows(&bench, "x") && sees(&bench, "a", "x"));
}

#[test]
fn links_beyond_the_budget_are_left_to_the_next_command() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    for n in 0..5 {
        bench.apply_at(1, mount(&format!("r{n}"), "x", "a"));
    }
    bench.write(|batch| {
        let mut budget = 4;
        let links = unlink_everywhere(batch, &digest("x"), &mut budget).unwrap();
        assert!(matches!(links, Links::Left));
        assert_eq!(budget, 0);
    });
    assert_eq!(bench.meta().blob_repositories(&digest("x"), 9).unwrap().len(), 2);
    assert_eq!(bench.apply_at(900, collect_of(&["x"])), collected(&["x"]));
}

#[test]
fn a_repository_with_nothing_left_is_forgotten_after_the_grace() {
    let bench = bench();
    let exists = |name: &str| bench.meta().repository(&repository(name)).unwrap().is_some();
    bench.apply_at(1, commit("a", "base"));
    bench.apply_at(1, image("a", "image", &["base"]));
    bench.apply_at(1, mount("b", "base", "a"));
    bench.apply_at(1, image("b", "image", &["base"]));
    bench.apply_at(300, forget(&["a", "b", "nothing"]));
    assert!(exists("a") && exists("b"), "both have a manifest");
    bench.apply_at(300, delete("b", "image"));
    bench.apply_at(399, forget(&["a", "b"]));
    assert!(exists("b"), "somebody may still push into it again");
    // As a HEAD of the blob in b does.
    bench.apply_at(399, mount("b", "base", "b"));
    bench.apply_at(400, forget(&["b"]));
    assert!(exists("b") && sees(&bench, "b", "base"));
    bench.apply_at(499, forget(&["a", "b"]));
    assert!(!exists("b") && !sees(&bench, "b", "base"));
    assert!(exists("a") && sees(&bench, "a", "base") && knows(&bench, "base"));
    assert_eq!(bench.meta().blob_repositories(&digest("base"), 9).unwrap(), [repository("a")]);
}

#[test]
fn no_repository_is_forgotten_while_somebody_holds() {
    let bench = bench();
    bench.apply_at(1, commit("a", "x"));
    bench.apply_at(200, hold_of("backup", 1_000));
    bench.apply_at(900, forget(&["a"]));
    assert!(bench.meta().repository(&repository("a")).unwrap().is_some());
}

#[test]
fn level_1_writes_what_it_always_wrote() {
    let bench = Bench::new();
    bench.apply_at(1, commit("a", "x"));
    bench.apply_at(50, commit("a", "x"));
    let link = bench.meta().blob_link(&repository("a"), &digest("x")).unwrap().unwrap();
    assert_eq!(link.linked_ms, 1);
}

/// What the commands are meant to do, in the simplest words.
#[derive(Default)]
struct Model {
    /// Blob -> since when nothing names it.
    blobs: BTreeMap<usize, Option<u64>>,
    links: BTreeSet<(usize, usize)>,
    /// (repository, manifest) -> its layers.
    images: BTreeMap<(usize, usize), BTreeSet<usize>>,
    held_until: u64,
}

impl Model {
    fn is_named(&self, blob: usize) -> bool {
        self.images.iter().any(|((repository, _), layers)| {
            layers.contains(&blob) && self.links.contains(&(*repository, blob))
        })
    }

    fn arrive(&mut self, now: u64, repository: usize, blob: usize) {
        self.links.insert((repository, blob));
        let since = if self.is_named(blob) { None } else { Some(now) };
        self.blobs.insert(blob, since);
    }

    fn settle(&mut self, now: u64) {
        let named: Vec<_> = self.blobs.keys().map(|blob| (*blob, self.is_named(*blob))).collect();
        for (blob, named) in named {
            let since = self.blobs.get_mut(&blob).unwrap();
            match (named, *since) {
                (true, _) => *since = None,
                (false, None) => *since = Some(now),
                (false, Some(_)) => {}
            }
        }
    }

    fn collect(&mut self, now: u64, candidates: &[usize]) -> Vec<usize> {
        if now < self.held_until {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for blob in candidates {
            let since = self.blobs.get(blob).copied().flatten();
            if since.is_some_and(|since| since + GRACE <= now) && !self.is_named(*blob) {
                self.blobs.remove(blob);
                self.links.retain(|(_, linked)| linked != blob);
                gone.push(*blob);
            }
        }
        gone
    }
}

/// Random sequences against the model: the same blobs go at the same steps, no blob that an image names
/// ever does, the counts and both indexes agree at every step, and in the end all that is dead is gone.
#[test]
fn random_sequences_keep_what_is_reachable_and_nothing_else() {
    let seed = std::env::var("TERCET_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = seed.unwrap_or(1);
    let rounds = if seed.is_some() { 1 } else { 24 };
    for seed in first..first + rounds {
        one_sequence(seed);
    }
}

fn one_sequence(seed: u64) {
    const REPOSITORIES: usize = 3;
    const BLOBS: usize = 6;
    const IMAGES: usize = 4;
    let mut random = StdRng::seed_from_u64(seed);
    let (bench, mut model, mut now) = (bench(), Model::default(), 1_u64);
    let (name, blob) = (|n: usize| format!("r{n}"), |n: usize| format!("blob{n}"));
    // An image names the same layers whenever it is pushed: its digest says so.
    let layers_of = |image: usize| BTreeSet::from([image, (image * 2 + 1) % BLOBS, 5]);
    for step in 0..300 {
        now += random.random_range(0..GRACE / 4);
        let (repository, at) =
            (random.random_range(0..REPOSITORIES), random.random_range(0..BLOBS));
        let manifest = random.random_range(0..IMAGES);
        let image_name = format!("image{manifest}");
        match random.random_range(0..10) {
            0 | 1 => {
                bench.apply_at(now, commit(&name(repository), &blob(at)));
                model.arrive(now, repository, at);
            }
            2 => {
                let from = random.random_range(0..REPOSITORIES);
                let outcome = bench.apply_at(now, mount(&name(repository), &blob(at), &name(from)));
                let linked = model.links.contains(&(from, at));
                assert_eq!(outcome == Outcome::Done, linked, "seed {seed} step {step}: mount");
                if linked {
                    model.arrive(now, repository, at);
                }
            }
            3 | 4 => {
                let layers = layers_of(manifest);
                let names: Vec<String> = layers.iter().map(|layer| blob(*layer)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let sparse = random.random_range(0..4) == 0;
                let absent = match sparse {
                    true => AbsentReferences::Allowed(names.iter().map(|n| digest(n)).collect()),
                    false => AbsentReferences::Refused,
                };
                let command = push(&name(repository), &image_name, &names, absent);
                let there = layers.iter().all(|layer| model.links.contains(&(repository, *layer)));
                let outcome = bench.apply_at(now, command);
                assert_eq!(outcome == Outcome::Done, sparse || there, "seed {seed} step {step}");
                if outcome == Outcome::Done {
                    model.images.insert((repository, manifest), layers);
                }
            }
            5 => {
                bench.apply_at(now, delete(&name(repository), &image_name));
                model.images.remove(&(repository, manifest));
            }
            6 => {
                let command = Command::UnlinkBlob {
                    repository: self::repository(&name(repository)),
                    digest: digest(&blob(at)),
                };
                let outcome = bench.apply_at(now, command);
                let named_here = model
                    .images
                    .iter()
                    .any(|((r, _), layers)| *r == repository && layers.contains(&at));
                let linked = model.links.contains(&(repository, at));
                assert_eq!(outcome == Outcome::Done, linked && !named_here, "seed {seed} {step}");
                if outcome == Outcome::Done {
                    model.links.remove(&(repository, at));
                }
            }
            7 => {
                let outcome = bench.apply_at(now, renew_of(&[&blob(at)]));
                assert_eq!(outcome == Outcome::Done, model.blobs.contains_key(&at));
                if let Some(since @ Some(_)) = model.blobs.get_mut(&at) {
                    *since = Some(now);
                }
            }
            8 if random.random_range(0..6) == 0 => {
                model.held_until = now + GRACE;
                bench.apply_at(now, hold_of("backup", now + GRACE));
            }
            _ => {
                let all: Vec<usize> = (0..BLOBS).collect();
                let contents: Vec<String> = all.iter().map(|n| blob(*n)).collect();
                let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
                let outcome = bench.apply_at(now, collect_of(&contents));
                let gone: Vec<String> = model.collect(now, &all).into_iter().map(blob).collect();
                let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
                assert_eq!(outcome, collected(&gone), "seed {seed} step {step} at {now}");
            }
        }
        model.settle(now);
        check(&bench, &model, seed, step);
    }
    // Everything is let go of: nothing may stay.
    for (repository, manifest) in model.images.keys() {
        bench.apply_at(now, delete(&name(*repository), &format!("image{manifest}")));
    }
    now = now.max(model.held_until) + GRACE;
    let all: Vec<String> = (0..BLOBS).map(blob).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    bench.apply_at(now, collect_of(&all));
    bench.apply_at(now, forget(&["r0", "r1", "r2"]));
    assert!(bench.meta().blobs(None, 9).unwrap().is_empty(), "seed {seed}: a dead blob stays");
    assert!(bench.meta().repositories(None, 9).unwrap().is_empty(), "seed {seed}: a repository");
    for n in 0..REPOSITORIES {
        assert!(bench.meta().blob_links(&repository(&name(n)), None, 9).unwrap().is_empty());
    }
}

fn check(bench: &Bench, model: &Model, seed: u64, step: usize) {
    let meta = bench.meta();
    let context = format!("seed {seed} step {step}");
    for at in 0..6 {
        let digest = digest(&format!("blob{at}"));
        let record = meta.blob(&digest).unwrap();
        let since = record.as_ref().map(|record| record.unreferenced_since_ms);
        assert_eq!(since, model.blobs.get(&at).copied(), "{context}: blob {at}");
        if let Some(record) = record {
            assert_eq!(record.references > 0, model.is_named(at), "{context}: blob {at}");
        } else {
            assert!(!model.is_named(at), "{context}: reachable blob {at} is gone");
        }
        let seen: BTreeSet<usize> =
            model.links.iter().filter(|(_, blob)| *blob == at).map(|(r, _)| *r).collect();
        let indexed = meta.blob_repositories(&digest, 9).unwrap();
        let linked: Vec<usize> = (0..3)
            .filter(|n| meta.blob_link(&repository(&format!("r{n}")), &digest).unwrap().is_some())
            .collect();
        assert_eq!(linked, seen.iter().copied().collect::<Vec<_>>(), "{context}: links of {at}");
        let names: Vec<RepositoryName> =
            seen.iter().map(|n| repository(&format!("r{n}"))).collect();
        assert_eq!(indexed, names, "{context}: index of blob {at}");
    }
}
