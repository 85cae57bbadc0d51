//! Every fault scenario in its short form, as a test of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Runs a scenario as a person would, since some of them need a network namespace, and a process to live in it.
async fn held(name: &str) -> Result<()> {
    let program = env!("CARGO_BIN_EXE_tercet-chaos");
    let mut command = Command::new("setpriv");
    // Also when this test is killed and cannot stop it.
    command
        .args(["--pdeathsig", "TERM", program, "run", name])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("start tercet-chaos")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name} ended with {}; its seed is above", output.status);
    Ok(())
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
        fn every_scenario_is_a_test() {
            let tested = [$($name),*];
            for scenario in tercet_chaos::scenarios() {
                assert!(tested.contains(&scenario.name), "{} is not tested", scenario.name);
            }
            assert_eq!(tested.len(), tercet_chaos::scenarios().len());
        }
    };
}

scenarios! {
    kill_minority = "kill-minority",
    kill_all = "kill-all",
    pause_leader = "pause-leader",
    partition_leader = "partition-leader",
    swizzle_clog = "swizzle-clog",
    failpoints = "failpoints",
    bit_rot = "bit-rot",
    rot_everywhere = "rot-everywhere",
    disk_errors = "disk-errors",
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
