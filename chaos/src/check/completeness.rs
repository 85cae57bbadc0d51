//! I4: a manifest that can be seen has all its blobs.
//!
//! At the end every tag of every repository in the ledger is read through every replica, whoever has set it and
//! whether or not that was acknowledged, and everything that its manifest names is pulled there.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use serde_json::Value;

use super::{
    convergence::VIEWS_DEADLINE,
    durability::{Sure, surely},
};
use crate::{
    client::{Answer, RegistryClient},
    wait::wait_until,
    workload::{Invariant, Kept, Ledger},
};

const AT_ONCE: usize = 4;
/// Indexes name manifests, which may be indexes. Deeper than any workload goes.
const DEPTH_MAX: usize = 4;
const PAGE: usize = 1_000;

impl Ledger {
    /// A manifest was refused for want of a blob that was acknowledged before, and that nothing may collect yet.
    pub(crate) fn refused_with_blobs(&self, name: &str) {
        let what = format!("{name} was refused: its acknowledged blobs are unknown");
        self.violated(Invariant::I4, what);
    }
}

/// Pulls everything that can be seen, through every replica. What [`super::check_kept`] pulls is not pulled twice.
/// Returns how many pulls that were.
///
/// # Errors
/// If a replica does not list its tags.
pub(crate) async fn check_completeness(
    ledger: &Ledger,
    clients: &[RegistryClient],
) -> Result<usize> {
    let kept = ledger.kept().into_iter().filter(|kept| !kept.manifest);
    let known: BTreeSet<(String, String)> =
        kept.map(|kept| (kept.repository, kept.digest)).collect();
    let all = clients.iter().enumerate();
    let pulls = all.map(|(index, client)| through_one(ledger, index, client, &known));
    let pulls: usize = try_join_all(pulls).await?.into_iter().sum();
    // Of nothing at all nothing is shown.
    if pulls > 0 {
        ledger.checked(Invariant::I4);
    }
    Ok(pulls)
}

async fn through_one(
    ledger: &Ledger,
    index: usize,
    client: &RegistryClient,
    known: &BTreeSet<(String, String)>,
) -> Result<usize> {
    let mut manifests: BTreeSet<(String, String)> = BTreeSet::new();
    for repository in ledger.repositories() {
        let tags = tags(ledger, client, &repository).await?;
        manifests.extend(tags.into_iter().map(|tag| (repository.clone(), tag)));
    }
    let mut pulls = 0;
    let mut blobs = BTreeSet::new();
    for _ in 0..DEPTH_MAX {
        pulls += manifests.len();
        let named: Vec<Named> = stream::iter(&manifests)
            .map(|(repository, reference)| named(ledger, index, client, repository, reference))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        manifests.clear();
        for named in named {
            blobs.extend(named.blobs);
            manifests.extend(named.manifests);
        }
    }
    let rest: Vec<&(String, String)> = blobs.difference(known).collect();
    pulls += rest.len();
    stream::iter(rest)
        .map(|(repository, digest)| blob(ledger, index, client, repository, digest))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
    Ok(pulls)
}

/// All tags of a repository; of one that is not there, none.
async fn tags(ledger: &Ledger, client: &RegistryClient, repository: &str) -> Result<Vec<String>> {
    let mut tags: Vec<String> = Vec::new();
    loop {
        let last = tags.last().map_or_else(String::new, |last| format!("&last={last}"));
        let path = format!("/v2/{repository}/tags/list?n={PAGE}{last}");
        let answer = wait_until("a replica lists its tags", VIEWS_DEADLINE, || {
            page_of(ledger, client, &path)
        })
        .await?;
        if answer.status == 404 {
            return Ok(tags);
        }
        let json = answer.json()?;
        let page = json.pointer("/tags").and_then(Value::as_array).cloned().unwrap_or_default();
        tags.extend(page.iter().filter_map(Value::as_str).map(str::to_owned));
        if page.len() < PAGE {
            return Ok(tags);
        }
    }
}

/// What a replica knows for sure: one that has just been healed may say "not now", or that it may know no better.
async fn page_of(ledger: &Ledger, client: &RegistryClient, path: &str) -> Result<Answer> {
    let answer = ledger.judge_ask(client.get(path).await);
    let answer = answer.with_context(|| format!("{path} was not answered"))?;
    ensure!(matches!(answer.status, 200 | 404), "{}", answer.describe());
    ensure!(!answer.is_stale(), "it answers stale: {}", answer.describe());
    Ok(answer)
}

/// What a manifest names, with the repository that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    manifests: Vec<(String, String)>,
    blobs: Vec<(String, String)>,
}

async fn named(
    ledger: &Ledger,
    index: usize,
    client: &RegistryClient,
    repository: &str,
    reference: &str,
) -> Result<Named> {
    let asked = reference.contains(':').then_some(reference);
    let read = async || ledger.judge_read(client.get_manifest(repository, reference).await, asked);
    match surely(read).await {
        Sure::Found(answer) => {
            let manifest = answer.json().context("a manifest is JSON")?;
            Ok(names(repository, &manifest))
        }
        Sure::Absent => {
            let what = format!("replica {index} shows {repository}@{reference} and has it not");
            ledger.violated(Invariant::I4, what);
            Ok(Named::default())
        }
        Sure::Wrong => Ok(Named::default()),
        Sure::Never(why) => {
            let what = format!("replica {index} does not give {repository}@{reference}: {why}");
            ledger.violated(Invariant::I4, what);
            Ok(Named::default())
        }
    }
}

fn names(repository: &str, manifest: &Value) -> Named {
    let digest = |descriptor: &Value| {
        let digest = descriptor.get("digest")?.as_str()?;
        Some((repository.to_owned(), digest.to_owned()))
    };
    let list = |name: &str| {
        let list = manifest.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(digest).collect::<Vec<_>>()
    };
    let mut blobs = list("layers");
    blobs.extend(manifest.get("config").and_then(digest));
    Named { manifests: list("manifests"), blobs }
}

async fn blob(
    ledger: &Ledger,
    index: usize,
    client: &RegistryClient,
    repository: &str,
    digest: &str,
) {
    let kept = Kept {
        repository: repository.to_owned(),
        reference: digest.to_owned(),
        digest: digest.to_owned(),
        manifest: false,
    };
    let why = match surely(async || ledger.read(client, &kept).await).await {
        // Wrong bytes are in the ledger already.
        Sure::Found(_) | Sure::Wrong => return,
        Sure::Absent => "it is not there".to_owned(),
        Sure::Never(why) => why,
    };
    let what = format!(
        "replica {index} shows a manifest in {repository} and does not give its {digest}: {why}"
    );
    ledger.violated(Invariant::I4, what);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_manifest_names_is_known() {
        let of = |digest: &str| ("a".to_owned(), digest.to_owned());
        let image =
            json!({"config": {"digest": "c"}, "layers": [{"digest": "l"}, {"digest": "m"}]});
        let found = names("a", &image);
        assert_eq!(found.blobs, [of("l"), of("m"), of("c")]);
        assert!(found.manifests.is_empty());
        let index = json!({"manifests": [{"digest": "i"}]});
        assert_eq!(names("a", &index).manifests, [of("i")]);
        assert_eq!(names("a", &json!({})), Named::default());
    }
}
