//! What `tercet config check` says about mistakes in `[access]`.

use crate::support::config_check;

/// Writes a configuration and returns what is said about it, with the file's path cut to its name.
fn said(access: &str) -> String {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("tercet.toml");
    std::fs::write(&file, format!("[node]\nname = \"one\"\n\n{access}")).unwrap();
    let (code, text) = config_check(&file);
    assert_eq!(code, Some(78), "{text}");
    text.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_mistake_in_a_rule_has_its_line_and_its_key() {
    let rule = |subject: &str, repository: &str, action: &str| {
        said(&format!(
            "[[access.rules]]\nsubject = \"anonymous\"\nrepositories = [\"**\"]\nactions = [\"pull\"]\n\n\
             [[access.rules]]\nsubject = {subject:?}\nrepositories = [\"a\", {repository:?}]\n\
             actions = [\"pull\", {action:?}]\n"
        ))
    };
    assert_eq!(
        rule("everybody", "b", "push"),
        "tercet: tercet.toml:10: access.rules[1].subject: `everybody` is no subject; use anonymous, \
         authenticated, user:NAME, robot:NAME, serviceaccount:NAMESPACE/NAME or \
         certificate:COMMON-NAME\n"
    );
    assert_eq!(
        rule("anonimous", "b", "push"),
        "tercet: tercet.toml:10: access.rules[1].subject: `anonimous` is no subject; did you mean \
         `anonymous`?\n"
    );
    assert_eq!(
        rule("anonymous", "team/[ab]", "push"),
        "tercet: tercet.toml:11: access.rules[1].repositories: `team/[ab]`: pattern has the character \
         '['; only `*`, `**` and `?` have a meaning\n"
    );
    assert_eq!(
        rule("anonymous", "b", "write"),
        "tercet: tercet.toml:12: access.rules[1].actions: `write` is no action; use pull, push, \
         delete or *\n"
    );
}

#[test]
fn a_wrong_key_of_a_rule_has_its_line() {
    let text = said("[[access.rules]]\nsubjekt = \"anonymous\"\nrepositories = [\"**\"]\n");
    assert!(
        text.starts_with("tercet: tercet.toml:5: access.rules[0].subjekt: unknown field"),
        "{text}"
    );
    let text = said("[[access.rules]]\nsubject = \"anonymous\"\nrepositories = [\"**\"]\n");
    assert!(
        text.starts_with("tercet: tercet.toml:4: access.rules[0]: missing field `actions`"),
        "{text}"
    );
}

#[test]
fn everything_else_is_said_at_once() {
    let text = said(
        "[access]\nservice = \"a b\"\ntoken_realm = \"registry.example/token\"\n\
         [[access.rules]]\nsubject = \"user:bob\"\nrepositories = []\nactions = [\"*\"]\n\
         [[access.robots]]\nname = \"ci\"\nsecret_bcrypt = \"secret\"\n\
         [[access.robots]]\nname = \"cd\"\n\
         secret_bcrypt = \"$2y$05$R2AwNNE8S6vYnpTWwWtuqe6p2Usk8DHLv8pEQtcplRxGamqUMNCjq\"\n\
         expires = \"next week\"\n",
    );
    for begins in [
        "access.rules[0].repositories is empty",
        "access.rules[0].subject is `user:bob`, but there are no users",
        "access.robots[0] (`ci`): ",
        "access.robots[1] (`cd`): ",
        "access.service is \"a b\"",
        "access.token_realm is \"registry.example/token\"",
    ] {
        assert!(text.contains(&format!("\n  - {begins}")), "{begins}\n{text}");
    }
    assert_eq!(text.matches("\n  - ").count(), 6, "{text}");
    assert!(!text.contains("secret\""), "a secret that is not hashed is not repeated: {text}");
}
