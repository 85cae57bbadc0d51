//! Every planted bug is found by the scenario that must find it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Another seed than the fixed one of each bug, for all of them.
const SEED: &str = "TERCET_CHAOS_SEED";

/// Plants a bug. That the scenario holds without it is what the tests of the scenarios show.
async fn caught(bug: &str) -> Result<()> {
    let program = env!("CARGO_BIN_EXE_tercet-chaos");
    let seed = std::env::var(SEED).unwrap_or_else(|_| tercet_chaos::fixed_seed(bug).to_string());
    let mut command = Command::new("setpriv");
    // Also when this test is killed and cannot stop it.
    command
        .args(["--pdeathsig", "TERM", program, "judge", bug, "--bugs-only", "--seed", &seed])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("start tercet-chaos")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{bug} was not found: {}; the seed is {seed}", output.status);
    Ok(())
}

macro_rules! mutations {
    ($($test:ident = $bug:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() -> Result<()> {
                caught($bug).await
            }
        )*

        #[test]
        fn every_mutation_is_a_test_and_in_the_book() {
            let tested = [$($bug),*];
            let page = include_str!("../../docs/src/judge.md");
            for mutation in tercet_chaos::mutations() {
                assert!(tested.contains(&mutation.bug), "{} is not tested", mutation.bug);
                let row = format!("| `{}` | `{}` |", mutation.bug, mutation.scenario);
                assert!(page.contains(&row), "docs/src/judge.md does not have {row}");
            }
            assert_eq!(tested.len(), tercet_chaos::mutations().len());
        }
    };
}

mutations! {
    skip_blob_fsync = "skip-blob-fsync",
    skip_log_fsync = "skip-log-fsync",
    ack_too_early = "ack-too-early",
    skip_digest_check = "skip-digest-check",
    stale_as_fresh = "stale-as-fresh",
    skip_read_barrier = "skip-read-barrier",
    skip_read_check = "skip-read-check",
    collect_without_recheck = "collect-without-recheck",
    reuse_node_id = "reuse-node-id",
}
