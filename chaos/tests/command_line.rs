//! What `tercet-chaos` says to scripts: exit codes, and the pages that it writes. No cluster is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

fn chaos(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tercet-chaos")).args(arguments).output().unwrap()
}

#[test]
fn wrong_use_is_told_apart_from_a_verdict() {
    for wrong in [
        &["run"][..],
        &["run", "no-such-scenario"],
        &["run", "--all", "kill-all"],
        &["run", "kill-all", "--minutes", "soon"],
        &["dance"],
        &[],
    ] {
        let output = chaos(wrong);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}: {said}");
        assert!(!said.is_empty(), "{wrong:?} is refused without a word");
    }
    assert_eq!(chaos(&["--help"]).status.code(), Some(0));
}

#[test]
fn the_list_has_every_scenario() {
    let output = chaos(&["list"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    for scenario in tercet_chaos::scenarios() {
        assert!(said.lines().any(|line| line.starts_with(scenario.name)), "{}", scenario.name);
    }
}

#[test]
fn a_run_without_time_shows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let output = chaos(&["run", "--all", "--minutes", "0", "--seed", "5", "--report", &place]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["run-5.json", "run-5.xml", "run-5.html"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn the_book_replaces_its_own_pages_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kept.txt"), "old").unwrap();
    std::fs::write(folder.path().join("foreign.md"), "# Mine").unwrap();
    let book = || chaos(&["book", &folder.path().display().to_string()]);
    let output = book();
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("foreign.md"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    let note = tercet_chaos::PAGE_NOTE;
    std::fs::write(folder.path().join("gone.md"), format!("{note}\n\n# gone")).unwrap();
    std::fs::remove_file(folder.path().join("foreign.md")).unwrap();
    let output = book();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path().join("gone.md").exists());
    assert!(folder.path().join("kept.txt").exists());
    for (name, text) in tercet_chaos::scenario_pages() {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), text);
    }
}
