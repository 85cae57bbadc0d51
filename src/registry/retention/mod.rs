//! Retention: which tags and manifests a repository lets go of, by the rules that the group holds.
//!
//! Whoever leads judges now and then; the group decides. The same judgement without consequences is the
//! dry run.

mod enforce;
mod gather;
mod judge;
mod pulls;
mod worker;

use std::sync::Arc;

use tercet_raft::Consensus;
use tercet_storage::{ImmutableTagRule, RepositoryName, RetentionRule};

pub(crate) use judge::{Judgement, ManifestGoes, TagGoes};
pub use pulls::Pulls;
pub(crate) use pulls::start_pulls;
pub(crate) use worker::start_retention;

use super::error::RegistryError;
use super::now_ms;
use super::read::{look, read};
use crate::core::Core;
use gather::gather;
use judge::{Law, judge};

/// Repositories that are looked for at a time.
const REPOSITORIES_PAGE: usize = 256;
/// After so many tags and manifests the rest of the repositories is another page's.
const PAGE_ITEMS: usize = 5_000;
/// And after so many repositories.
const PAGE_REPOSITORIES: usize = 2_000;

/// What several repositories may let go of.
#[derive(Debug, Default)]
pub(crate) struct Judgements {
    /// Of those that let something go, by name.
    pub(crate) entries: Vec<Judgement>,
    /// The repository after which to go on; `None` at the end.
    pub(crate) next_after: Option<RepositoryName>,
}

/// The rules by which is judged.
#[derive(Debug, Clone)]
struct Rules {
    rules: Vec<RetentionRule>,
    immutable: Vec<ImmutableTagRule>,
    pulls_since_ms: u64,
}

impl Rules {
    /// Those that the group holds.
    fn of_group(consensus: &Consensus) -> Result<Self, RegistryError> {
        let (record, immutable) =
            look(consensus, |meta| Ok((meta.retention_record()?, meta.immutable_tags()?)))?;
        let (rules, pulls_since_ms) =
            record.map_or((Vec::new(), now_ms()), |record| (record.rules, record.pulls_since_ms));
        Ok(Self { rules, immutable, pulls_since_ms })
    }

    /// Others, as if they came into force now.
    fn instead(self, rules: Vec<RetentionRule>) -> Self {
        Self { rules, ..self }
    }

    /// The rule that decides about a repository.
    fn about(&self, repository: &RepositoryName) -> Option<&RetentionRule> {
        self.rules.iter().find(|rule| rule.means(repository))
    }

    fn law(&self, repository: &RepositoryName, now_ms: u64) -> Option<Law<'_>> {
        let immutable = self.immutable.iter().flat_map(|rule| rule.tags_in(repository)).collect();
        let pulls_since_ms = self.pulls_since_ms;
        Some(Law { rule: self.about(repository)?, immutable, pulls_since_ms, now_ms })
    }
}

/// What would go now, by the rules of the group or by others: the dry run. Repositories by name, after
/// `after`.
///
/// # Errors
/// When no majority answers.
pub(crate) async fn judge_page(
    core: &Arc<Core>,
    rules: Option<Vec<RetentionRule>>,
    after: Option<RepositoryName>,
) -> Result<Judgements, RegistryError> {
    // Only so that everything acknowledged is in it.
    read(core, |_| Ok(())).await?;
    let mut in_force = Rules::of_group(&core.consensus)?;
    if let Some(rules) = rules {
        in_force = in_force.instead(rules);
    }
    walk(core, in_force, after).await
}

/// Judges repositories until the page is full.
async fn walk(
    core: &Core,
    rules: Rules,
    after: Option<RepositoryName>,
) -> Result<Judgements, RegistryError> {
    if rules.rules.is_empty() {
        return Ok(Judgements::default());
    }
    let consensus = core.consensus.clone();
    // Much may be read and decoded.
    let walked = tokio::task::spawn_blocking(move || walk_blocking(&consensus, &rules, after));
    walked.await.map_err(|error| RegistryError::Unavailable(format!("retention: {error}")))?
}

fn walk_blocking(
    consensus: &Consensus,
    rules: &Rules,
    mut after: Option<RepositoryName>,
) -> Result<Judgements, RegistryError> {
    let mut found = Judgements::default();
    let (mut items, mut repositories) = (0, 0);
    loop {
        let from = after.as_ref().map(RepositoryName::as_str);
        let names = look(consensus, |meta| meta.repositories(from, REPOSITORIES_PAGE))?;
        if names.is_empty() {
            return Ok(found);
        }
        for repository in names {
            if let Some(law) = rules.law(&repository, now_ms()) {
                let contents = match gather(consensus, &repository) {
                    Ok(contents) => contents,
                    Err(RegistryError::Refused(why)) => {
                        tracing::error!(%repository, why, "retention leaves this repository alone");
                        repositories += 1;
                        after = Some(repository);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let judgement = judge(&law, &repository, &contents);
                items += judgement.tags.len() + judgement.manifests.len();
                if !judgement.tags.is_empty() || !judgement.manifests.is_empty() {
                    found.entries.push(judgement);
                }
            }
            repositories += 1;
            if items >= PAGE_ITEMS || repositories >= PAGE_REPOSITORIES {
                found.next_after = Some(repository);
                return Ok(found);
            }
            after = Some(repository);
        }
    }
}
