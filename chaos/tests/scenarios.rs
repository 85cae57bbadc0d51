//! The fault scenarios of the smoke lane in their short form, each as a test of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Lane, fixed_seed};
use tokio::process::Command;

/// Another seed than the fixed one of each scenario, for all of them.
const SEED: &str = "TERCET_CHAOS_SEED";

/// No short form takes so long, in seconds: one that hangs is told to end, and its output still shown.
const RUN_MAX: &str = "1200";
/// And so long after that it is killed.
const CLEAN_UP_MAX: &str = "90";

/// Runs a scenario as a person would, since some of them need namespaces, and a process to live in them.
async fn held(name: &str) -> Result<()> {
    let program = env!("CARGO_BIN_EXE_tercet-chaos");
    let seed = std::env::var(SEED).unwrap_or_else(|_| fixed_seed(name).to_string());
    let mut command = Command::new("setpriv");
    // Also when this test is killed and cannot stop it.
    command
        .args(["--pdeathsig", "TERM", "timeout", "--foreground", "--kill-after", CLEAN_UP_MAX])
        .args([RUN_MAX, program, "run", name, "--seed", &seed])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("start tercet-chaos")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name} ended with {}; its seed is {seed}", output.status);
    Ok(())
}

#[test]
fn the_page_of_every_scenario_is_up_to_date() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src");
    let summary = std::fs::read_to_string(source.join("SUMMARY.md")).unwrap();
    let again = "run `tercet-chaos book docs/src/scenarios` at the root of the tree, and commit what it writes";
    for (name, wanted) in tercet_chaos::scenario_pages() {
        let path = source.join("scenarios").join(&name);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "{} is out of date: {again}", path.display());
        let line = format!("(scenarios/{name})");
        assert!(summary.contains(&line), "docs/src/SUMMARY.md has no line for {line}");
    }
    let pages = std::fs::read_dir(source.join("scenarios")).unwrap().count();
    assert_eq!(pages, tercet_chaos::scenario_pages().len(), "a page too many: {again}");
}

macro_rules! scenarios {
    ($($test:ident = $name:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() -> Result<()> {
                held($name).await
            }
        )*

        #[test]
        fn every_scenario_is_in_the_book() {
            let page = include_str!("../../docs/src/chaos.md");
            for scenario in tercet_chaos::scenarios() {
                let name = format!("| `{}` |", scenario.name);
                assert!(page.contains(&name), "docs/src/chaos.md does not have {name}");
            }
        }

        #[test]
        fn the_smoke_lane_and_this_list_agree() {
            let tested = [$($name),*];
            let all = tercet_chaos::scenarios();
            let smoke = all.iter().filter(|scenario| scenario.lane == Lane::Smoke);
            let wanted: std::collections::BTreeSet<&str> = smoke.map(|scenario| scenario.name).collect();
            assert_eq!(std::collections::BTreeSet::from(tested), wanted);
            assert_eq!(tested.len(), wanted.len(), "one is here twice");
        }
    };
}

scenarios! {
    kill_minority = "kill-minority",
    kill_all = "kill-all",
    pause_leader = "pause-leader",
    partition_leader = "partition-leader",
    swizzle_clog = "swizzle-clog",
    one_way_cut = "one-way-cut",
    bridge = "bridge",
    flapping_link = "flapping-link",
    slow_link = "slow-link",
    corrupt_peers = "corrupt-peers",
    upload_crowd = "upload-crowd",
    lying_clients = "lying-clients",
    strange_peers = "strange-peers",
    storm = "storm",
    failpoints = "failpoints",
    bit_rot = "bit-rot",
    rot_everywhere = "rot-everywhere",
    disk_errors = "disk-errors",
    power_loss = "power-loss",
    power_loss_one = "power-loss-one",
    torn_write = "torn-write",
    log_disk_full = "log-disk-full",
    one_copy = "one-copy",
    stale_disk = "stale-disk",
    rolling_upgrade = "rolling-upgrade",
    slow_disk = "slow-disk",
    lost_disk = "lost-disk",
    old_identity = "old-identity",
    lost_half = "lost-half",
    member_churn = "member-churn",
    clock_jump = "clock-jump",
    snapshot_install = "snapshot-install",
    drain = "drain",
    data_lock = "data-lock",
    upload_moves = "upload-moves",
    gc_storm = "gc-storm",
    full_disk = "full-disk",
    little_memory = "little-memory",
    few_files = "few-files",
    scale = "scale",
    failover = "failover",
}
