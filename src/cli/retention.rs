//! `tercet retention --dry-run`: which tags and manifests the rules let go of, and why.

use std::path::{Path, PathBuf};

use clap::Args;
use tercet_storage::{Clock, RetentionRule, SystemClock};

use super::admin::Question;
use super::print;
use crate::admin::retention::{DryRun, DryRunAsked};
use crate::config::{Overrides, RetentionMode, Sources};
use crate::exit::{Exit, Failure, OrExit};
use crate::registry::retention::{Judgement, ManifestGoes, TagGoes};
use crate::text::bytes;

/// Show what the retention rules let go of
#[derive(Debug, Args)]
pub(super) struct RetentionArgs {
    #[command(flatten)]
    question: Question,
    /// Remove nothing. It is the leader that does, with retention.mode = "enforce"
    #[arg(long, required = true)]
    dry_run: bool,
    /// Judge by the [[retention.rules]] of this configuration file, not by those of the cluster
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

pub(super) async fn run(args: RetentionArgs) -> Result<(), Failure> {
    let rules = args.rules.as_deref().map(rules_of).transpose()?;
    let client = args.question.connect().await?;
    let mut asked = DryRunAsked { rules, after: None };
    let mut all: Vec<Judgement> = Vec::new();
    let mode = loop {
        let page: DryRun = client.post_json("/admin/retention/dry-run", &asked).await?;
        all.extend(page.repositories);
        match page.next_after {
            Some(last) => asked.after = Some(last),
            None => break page.mode,
        }
    };
    let rules = if asked.rules.is_some() { Rules::OfFile } else { Rules::OfCluster };
    let all = DryRun { mode, repositories: all, next_after: None };
    args.question.print(&all, |DryRun { repositories, .. }| {
        let table = table(repositories, SystemClock.now_ms());
        format!("{table}\n{}", summary(repositories, mode, rules))
    })
}

/// The rules of a file, whatever the environment and the options say.
fn rules_of(file: &Path) -> Result<Vec<RetentionRule>, Failure> {
    let sources = Sources::of_process(Some(file.to_owned()), Overrides::default());
    Ok(crate::config::load(&sources).or_exit(Exit::Config)?.retention.rules())
}

/// Which rules were asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    OfCluster,
    OfFile,
}

fn table(all: &[Judgement], now_ms: u64) -> String {
    let head = ["REPOSITORY", "GOES", "AGE", "RULE", "WHY"];
    let mut rows = vec![head.map(ToOwned::to_owned)];
    for judgement in all {
        let mut row = |what: String, then_ms: u64, why: &str| {
            let (repository, rule) = (judgement.repository.to_string(), judgement.rule.clone());
            rows.push([repository, what, age(now_ms, then_ms), rule, why.to_owned()]);
        };
        for TagGoes { tag, updated_ms, why, .. } in &judgement.tags {
            row(tag.to_string(), *updated_ms, why);
        }
        for ManifestGoes { digest, pushed_ms, why, .. } in &judgement.manifests {
            row(digest.to_string(), *pushed_ms, why);
        }
    }
    print::columns(&rows)
}

fn summary(all: &[Judgement], mode: RetentionMode, rules: Rules) -> String {
    let sum = |count: fn(&Judgement) -> u64| all.iter().map(count).sum::<u64>();
    let tags = sum(|judgement| judgement.tags.len() as u64);
    let manifests = sum(|judgement| judgement.manifests.len() as u64);
    let size = sum(|judgement| judgement.manifests.iter().map(|gone| gone.bytes).sum());
    let left = sum(|judgement| judgement.left_untagged);
    let mut text = format!(
        "\n{tags} tags and {manifests} manifests ({}, without their blobs) in {} repositories would go",
        bytes(size),
        all.len()
    );
    if left > 0 {
        text.push_str(&format!(
            "\n{left} manifests would stay without a tag: their rules say untagged = \"keep\", so no space comes back"
        ));
    }
    text.push_str(match (rules, mode) {
        (Rules::OfFile, _) => {
            "\nby the rules of the file, which the cluster does not have to follow"
        }
        (Rules::OfCluster, RetentionMode::Report) => {
            "\nnothing goes: retention.mode is \"report\" on the leader"
        }
        (Rules::OfCluster, RetentionMode::Enforce) => {
            "\nit goes with the next round: retention.mode is \"enforce\" on the leader"
        }
    });
    text
}

/// In the largest unit of which there is one.
fn age(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        86_400.. => format!("{} d", seconds / 86_400),
        3_600.. => format!("{} h", seconds / 3_600),
        60.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::{Algorithm, Digest};

    use super::*;

    #[test]
    fn the_table_says_what_goes_and_why_and_the_summary_what_comes_of_it() {
        let digest = Digest::of(Algorithm::Sha256, b"m");
        let judgement = Judgement {
            repository: "team/app".parse().unwrap(),
            rule: "ci".to_owned(),
            tags: vec![TagGoes {
                tag: "v1".parse().unwrap(),
                digest: digest.clone(),
                updated_ms: 0,
                pulled_ms: None,
                why: "not among the last 5".to_owned(),
            }],
            manifests: Vec::new(),
            tags_kept: 5,
            manifests_kept: 6,
            left_untagged: 1,
        };
        let text = table(std::slice::from_ref(&judgement), 3 * 86_400_000);
        assert!(text.contains("team/app") && text.contains("3 d"), "{text}");
        assert!(text.contains("not among the last 5"), "{text}");
        let text = summary(&[judgement], RetentionMode::Report, Rules::OfCluster);
        assert!(text.contains("1 tags and 0 manifests"), "{text}");
        assert!(text.contains("1 manifests would stay"), "{text}");
        assert!(text.contains("\"report\""), "{text}");
    }

    #[test]
    fn ages_have_the_unit_that_fits() {
        let ages = [(59_000, "59 s"), (60_000, "1 min"), (7_200_000, "2 h"), (86_400_000, "1 d")];
        for (ms, shown) in ages {
            assert_eq!(age(ms, 0), shown);
        }
    }
}
