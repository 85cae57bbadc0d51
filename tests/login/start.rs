//! What is wrong at the start is said with its place, before anything listens.

use crate::replica::{Folder, RULES, Setup, line};

fn refusal(change: impl FnOnce(&mut Setup)) -> String {
    let folder = Folder::new();
    let mut setup = Setup::default();
    change(&mut setup);
    folder.write(&setup);
    let output = folder.command().output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{error}");
    assert!(!folder.path("data").join("identity.json").exists());
    // Only the start knows whether Kubernetes can be asked.
    if !setup.access.contains("[access.kubernetes]") {
        let config = folder.path("tercet.toml");
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_tercet"));
        let checked = check.args(["config", "check", "--config"]).arg(config).output().unwrap();
        assert_eq!(checked.status.code(), Some(78), "{checked:?}");
    }
    error
}

#[test]
fn a_wrong_line_of_the_htpasswd_file_is_78_with_file_and_line() {
    let text = refusal(|setup| setup.htpasswd += "carol:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
    assert!(text.contains("htpasswd:3: user `carol`: the hash is SHA-1"), "{text}");
    assert!(text.contains("htpasswd -B"), "{text}");
    let text = refusal(|setup| setup.htpasswd += &line("alice", "again"));
    assert!(text.contains("htpasswd:3: the user `alice` is there twice"), "{text}");
}

#[test]
fn a_wrong_robot_is_78_with_its_place_and_without_its_secret() {
    let text = refusal(|setup| {
        setup.access =
            format!("{RULES}[[access.robots]]\nname = \"ci\"\nsecret_bcrypt = \"hunter2\"\n");
    });
    assert!(text.contains("access.robots[0] (`ci`): secret_bcrypt: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn kubernetes_outside_of_a_cluster_is_78_and_says_what_to_set() {
    let text = refusal(|setup| {
        setup.access = format!("{RULES}[access.kubernetes]\nenabled = true\n");
    });
    assert!(text.contains("set access.kubernetes.kubeconfig"), "{text}");
}
