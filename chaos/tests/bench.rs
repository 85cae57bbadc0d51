//! The benchmarks, as small as they can be: that they work, and write what they should. How fast anything is, is none of
//! their business.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, process::Command};

use serde_json::Value;

/// Each row by itself, so that a failure has a name.
const ROWS: [&str; 11] = [
    "pull",
    "pull-tls",
    "manifest",
    "push",
    "push-images",
    "tags",
    "memory",
    "scale",
    "storm",
    "failover",
    "start",
];

const GROWTH: [&str; 6] = ["tags", "repositories", "blobs", "replicas", "clients", "edges"];

fn bench(arguments: &[&str]) -> std::process::Output {
    let program = env!("CARGO_BIN_EXE_tercet-chaos");
    Command::new(program).arg("bench").args(arguments).output().expect("run tercet-chaos")
}

#[test]
fn a_quick_run_measures_every_row_and_judges_none() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let ended = bench(&["--quick", "--out", &out]);
    let said = String::from_utf8_lossy(&ended.stdout).into_owned()
        + &String::from_utf8_lossy(&ended.stderr);
    // Nothing was judged, so nothing is shown.
    assert_eq!(ended.status.code(), Some(2), "{said}");
    let page = fs::read_to_string(folder.path().join("benchmarks-part.md")).expect(&said);
    assert!(!page.contains("not measured"), "{page}\n{said}");
    for (name, number) in ROWS.iter().zip(1..) {
        let file = folder.path().join(format!("benchmarks-part/{number:02}-{name}.json"));
        let text = fs::read_to_string(file).unwrap_or_else(|_| panic!("{name}: {said}"));
        let row: Value = serde_json::from_str(&text).unwrap();
        assert!(row.get("failed").is_some_and(Value::is_null), "{name}: {text}");
        let targets = row.get("targets").and_then(Value::as_array).unwrap();
        let is_measured = |target: &Value| {
            target.get("measured").is_some_and(Value::is_number)
                && target.get("met").is_some_and(Value::is_null)
        };
        assert!(targets.iter().all(is_measured), "{name}: {text}");
    }
}

#[test]
fn a_quick_run_of_growth_has_a_figure_for_each_size() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let ended = bench(&["--growth", "--quick", "--out", &out]);
    let said = String::from_utf8_lossy(&ended.stdout).into_owned()
        + &String::from_utf8_lossy(&ended.stderr);
    // There is nothing to miss.
    assert_eq!(ended.status.code(), Some(0), "{said}");
    let files = folder.path().join("growth-figures-part");
    for (name, number) in GROWTH.iter().zip(1..) {
        let text = fs::read_to_string(files.join(format!("{number:02}-{name}.json"))).expect(&said);
        let row: Value = serde_json::from_str(&text).unwrap();
        assert!(row.get("failed").is_some_and(Value::is_null), "{name}: {text}");
        let samples = row.get("samples").and_then(Value::as_object).unwrap();
        let all = samples.values().map(|one| one.as_array().unwrap());
        // A figure that is not known is no number.
        let known = |one: &&Vec<Value>| one.len() == 2 && one.iter().all(Value::is_number);
        assert!(samples.len() > 2 && all.clone().filter(known).count() == samples.len(), "{text}");
    }
    let page = fs::read_to_string(folder.path().join("growth-figures-part.md")).unwrap();
    assert!(page.contains("(growth-figures-part/01-tags-p50.svg)"), "{page}");
    assert!(files.join("01-tags-p50.svg").is_file());
}

#[test]
fn a_row_that_does_not_exist_is_wrong_use() {
    let ended = bench(&["--rows", "99", "--out", "/nonexistent"]);
    assert_eq!(ended.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("1 (pull)"));
}
