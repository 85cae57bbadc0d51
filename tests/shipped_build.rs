//! What only tests may ask for is not in the program that is shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

/// Crash points, and bugs for the judge of `tercet-chaos`.
const TESTS_ONLY: &[&str] = &["failpoints", "planted-bugs"];

/// The features with which cargo builds a package, as `cargo tree` shows them.
fn features(package: &str, edges: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", package, "--edges", edges, "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_shipped_program_has_no_failpoints_and_no_planted_bugs() {
    let shipped = features("tercet", "normal,build,features");
    assert!(shipped.contains("tercet-storage feature"), "cargo tree shows no features:\n{shipped}");
    let tested = features("tercet-storage", "normal,dev,features");
    for feature in TESTS_ONLY {
        let line = format!("feature \"{feature}\"");
        // Of our own crates: a dependency may well have a feature of that name.
        let ours =
            |tree: &str| tree.lines().any(|has| has.starts_with("tercet") && has.contains(&line));
        assert!(
            ours(&tested),
            "the tests have no {feature} either: this test looks for the wrong thing"
        );
        assert!(!ours(&shipped), "`cargo build --bin tercet` has {feature}");
    }
}

/// The simulation compiles the same sources a second time, as packages of its own: its seams are in no registry, not
/// even in one that is built together with it.
#[test]
fn the_seams_of_the_simulation_are_in_no_registry() {
    let simulation = features("tercet-simulation", "normal,build,features");
    for package in ["tercet-raft", "tercet-storage"] {
        let seams = |package: &str| format!("{package} feature \"simulation\"");
        assert!(
            simulation.contains(&seams(&format!("{package}-simulated"))),
            "the simulation has no seams in {package}: this test looks for the wrong thing"
        );
        for registry in ["tercet", "tercet-chaos"] {
            let built = features(registry, "normal,build,dev,features");
            assert!(!built.contains(&seams(package)), "{registry} has the seams in {package}");
        }
        assert!(!simulation.contains(&seams(package)), "the simulation unites with {package}");
    }
}
