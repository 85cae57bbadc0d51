//! What the process says and how it ends when it is started wrongly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

fn tercet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TERCET_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    told(tercet(args).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn write(dir: &Path, text: &str) -> String {
    let path = dir.join("tercet.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_wrong_command_line_is_64() {
    let (code, _, error) = run(&["serve", "--no-such-flag"]);
    assert_eq!(code, Some(64), "{error}");
    assert_eq!(run(&["dev", "--replicas", "8"]).0, Some(64));
    assert_eq!(run(&["--help"]).0, Some(0));
    assert_eq!(run(&["--version"]).0, Some(0));
}

#[test]
fn an_unknown_key_is_78_and_names_file_line_and_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "[limits]\nuploads_mx = 3\n");
    for command in [&["config", "check"][..], &["serve"]] {
        let (code, _, error) = run(&[command, &["--config", &file]].concat());
        assert_eq!(code, Some(78), "{error}");
        assert!(error.contains(&format!("{file}:2: ")), "{error}");
        assert!(error.contains("`limits.uploads_max`"), "{error}");
    }
}

#[test]
fn an_unknown_variable_is_78_and_names_the_nearest() {
    let mut command = tercet(&["config", "check"]);
    let (code, _, error) = told(command.env("TERCET_PEER_LISTN", "127.0.0.1:1").output().unwrap());
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("TERCET_PEER_LISTEN"), "{error}");
}

#[test]
fn plain_http_between_machines_is_78_and_says_how_to_get_certificates() {
    let (code, _, error) = run(&["serve", "--name", "a", "--peer-listen", "0.0.0.0:5001"]);
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("tercet certs new"), "{error}");
}

#[test]
fn a_missing_file_is_78_and_named() {
    let (code, _, error) = run(&["config", "check", "--config", "/nonexistent/tercet.toml"]);
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("/nonexistent/tercet.toml"), "{error}");
}

#[test]
fn what_config_print_says_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (code, first, error) = run(&["config", "print", "--name", "tercet-7"]);
    assert_eq!(code, Some(0), "{error}");
    let file = write(dir.path(), &first);
    let (_, second, _) = run(&["config", "print", "--config", &file]);
    assert_eq!(first, second);
}

#[test]
fn a_taken_port_is_69_before_the_replica_takes_part_in_anything() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, error) =
        run(&["serve", "--name", "a", "--data-dir", data.to_str().unwrap(), "--listen", &address]);
    assert_eq!(code, Some(69), "{error}");
    assert!(error.contains(&address), "{error}");
    assert!(!data.join("identity.json").exists());
}

#[test]
fn dev_says_which_port_is_taken_and_which_dir_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    // A block of ports whose first is taken by us.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, _, error) = run(&[
        "dev",
        "--replicas",
        "1",
        "--dir",
        dir.path().to_str().unwrap(),
        "--port",
        &port.to_string(),
    ]);
    let too_high = port > u16::MAX - 3;
    assert_eq!(code, Some(if too_high { 64 } else { 69 }), "{error}");
    assert!(error.contains(&port.to_string()), "{error}");
    assert!(!dir.path().join("cluster.json").exists());
}

#[test]
fn status_of_nobody_is_69() {
    let (code, _, error) = run(&["status", "--ops", "http://127.0.0.1:1"]);
    assert_eq!(code, Some(69), "{error}");
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[test]
fn certificates_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let args =
        ["certs", "new", "--dir", certs.to_str().unwrap(), "--name", "a", "--host", "127.0.0.1"];
    let (code, _, error) = run(&args);
    assert_eq!(code, Some(0), "{error}");
    let key = std::fs::read(certs.join("a.key")).unwrap();
    let (code, _, error) = run(&args);
    assert_eq!(code, Some(74), "{error}");
    assert_eq!(std::fs::read(certs.join("a.key")).unwrap(), key);
}
