//! What `[access]` must obey beyond its form, in sentences that say what to do.

use axum::http::Uri;

use super::{Access, Config};
use crate::auth::{Robots, Rules, Subject};

/// A token cannot be taken back, only what its holder may do; so it does not live long.
const TOKEN_SECONDS_MAX: u64 = 24 * 3_600;
/// A year. A key that is never replaced is one that somebody has by then.
const ROTATION_HOURS_MAX: u64 = 366 * 24;
/// Keys that are kept beside the one that signs.
const TOKEN_KEYS_BEFORE: u64 = 7;
/// Clocks differ, and keys are made a little early or late.
const TOKEN_KEY_MARGIN_SECONDS: u64 = 600;
/// Bytes of the longest service name.
const SERVICE_BYTES_MAX: usize = 255;

/// Adds a sentence for every problem of `[access]`.
pub(super) fn check_access(config: &Config, problems: &mut Vec<String>) {
    let access = &config.access;
    if let Err(found) = Rules::compile(&access.rules) {
        problems.extend(found);
    }
    if let Err(found) = Robots::compile(&access.robots) {
        problems.extend(found);
    }
    check_subjects(config, problems);
    check_immutable_tags(access, problems);
    check_tokens(access, problems);
}

/// A rule for somebody who has no way to say who they are is a mistake that nobody would notice.
fn check_subjects(config: &Config, problems: &mut Vec<String>) {
    let access = &config.access;
    let certificates =
        config.registry.tls.as_ref().is_some_and(|registry| registry.client_ca.is_some());
    for (index, rule) in access.rules.iter().enumerate() {
        let mut problem = |what: String| {
            problems.push(format!("access.rules[{index}].subject is `{}`, {what}", rule.subject));
        };
        match &rule.subject {
            Subject::Anonymous => {}
            Subject::Authenticated => {
                let none = access.htpasswd.is_none()
                    && access.robots.is_empty()
                    && !access.kubernetes.enabled
                    && !certificates;
                if none {
                    problem(
                        "but nobody can log in; set access.htpasswd, or write [[access.robots]]"
                            .to_owned(),
                    );
                }
            }
            Subject::User(_) if access.htpasswd.is_none() => problem(
                "but there are no users; set access.htpasswd to a file that `htpasswd -B` writes"
                    .to_owned(),
            ),
            Subject::User(_) => {}
            Subject::Robot(pattern) => {
                if !access.robots.iter().any(|robot| pattern.matches(&robot.name)) {
                    problem(format!(
                        "but no entry of [[access.robots]] has a name like that{}",
                        nearest_robot(access, pattern.as_str())
                    ));
                }
            }
            Subject::ServiceAccount { .. } if !access.kubernetes.enabled => problem(
                "but service accounts are not asked about; set access.kubernetes.enabled = true"
                    .to_owned(),
            ),
            Subject::ServiceAccount { .. } => {}
            Subject::Certificate(_) if !certificates => problem(
                "but client certificates are not asked for; set registry.tls.client_ca".to_owned(),
            ),
            Subject::Certificate(_) => {}
        }
    }
}

fn nearest_robot(access: &Access, wrong: &str) -> String {
    let like = |name: &str| strsim::jaro_winkler(wrong, name);
    let names = access.robots.iter().map(|robot| robot.name.as_str());
    match names.max_by(|left, right| like(left).total_cmp(&like(right))) {
        Some(nearest) => format!("; did you mean `robot:{nearest}`?"),
        None => "; there is none at all".to_owned(),
    }
}

fn check_immutable_tags(access: &Access, problems: &mut Vec<String>) {
    // The group keeps them, and takes no more than this.
    if let Err(error) = tercet_storage::check_immutable_tags(&access.immutable_tag_rules()) {
        problems.push(format!("access.immutable_tags: {error}"));
    }
    for (index, rule) in access.immutable_tags.iter().enumerate() {
        let key = format!("access.immutable_tags[{index}]");
        if rule.name.trim().is_empty() {
            problems
                .push(format!("{key}.name is empty; a client whose push is refused is told it"));
        }
        let earlier = access.immutable_tags.iter().take(index);
        if earlier.clone().any(|other| other.name == rule.name) {
            problems.push(format!(
                "{key}.name is `{}`, like that of an earlier one; give each a name of its own",
                rule.name
            ));
        }
        for (list, empty, all) in [
            ("repositories", rule.repositories.is_empty(), "\"**\" for all"),
            ("tags", rule.tags.is_empty(), "\"*\" for all"),
        ] {
            if empty {
                problems.push(format!(
                    "{key}.{list} is empty, so the rule holds nothing; name some, or {all}"
                ));
            }
        }
    }
}

fn check_tokens(access: &Access, problems: &mut Vec<String>) {
    let service = &access.service;
    // It stands between quotes in a header, and in a query.
    let good = |byte: u8| byte.is_ascii_graphic() && !b"\"\\&=#%+".contains(&byte);
    if service.is_empty() || service.len() > SERVICE_BYTES_MAX || !service.bytes().all(good) {
        problems.push(format!(
            "access.service is {service:?}; use a name such as registry.example.org: up to \
             {SERVICE_BYTES_MAX} letters, digits and signs, without spaces, quotes, &, =, #, % and +"
        ));
    }
    if let Some(realm) = &access.token_realm
        && !is_realm(realm)
    {
        problems.push(format!(
            "access.token_realm is {realm:?}; write the whole URL of the token endpoint, for \
             example https://registry.example.org/token"
        ));
    }
    for (name, value, max) in [
        ("token_seconds", access.token_seconds, TOKEN_SECONDS_MAX),
        ("token_key_rotation_hours", access.token_key_rotation_hours, ROTATION_HOURS_MAX),
    ] {
        if value == 0 || value > max {
            problems.push(format!("access.{name} is {value}; use 1 to {max}"));
        }
    }
    // The oldest of the keys goes when there is one more, whatever tokens it has signed.
    let kept = access.token_key_rotation_hours.saturating_mul(TOKEN_KEYS_BEFORE * 3_600);
    let rotates = access.token_key_rotation_hours > 0;
    if rotates && access.token_seconds.saturating_add(TOKEN_KEY_MARGIN_SECONDS) > kept {
        problems.push(format!(
            "access.token_seconds is {}, longer than the key of a token is kept with \
             access.token_key_rotation_hours = {}; use {} seconds at most, or more hours",
            access.token_seconds,
            access.token_key_rotation_hours,
            kept - TOKEN_KEY_MARGIN_SECONDS
        ));
    }
}

/// A URL that can stand between quotes in a header, without query: clients add their own.
fn is_realm(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority =
        uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
    let clean = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\#".contains(&byte));
    scheme && authority && clean && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    /// What is wrong with a configuration whose `[access]` is `text`.
    fn problems(text: &str) -> Vec<String> {
        let mut config = Config { access: toml::from_str(text).unwrap(), ..Config::default() };
        config.node.name = "one".into();
        let mut problems = Vec::new();
        check_access(&config, &mut problems);
        problems
    }

    #[test]
    fn a_whole_policy_is_fine() {
        let text = r#"
            htpasswd = "/etc/tercet/htpasswd"
            token_realm = "https://registry.example.org:8443/token"
            service = "registry.example.org"
            rules = [
                { subject = "anonymous", repositories = ["library/**"], actions = ["pull"] },
                { subject = "authenticated", repositories = ["**"], actions = ["pull"] },
                { subject = "user:alice", repositories = ["**"], actions = ["*"] },
                { subject = "robot:ci-*", repositories = ["team/*"], actions = ["pull", "push"] },
            ]
            robots = [{ name = "ci-team", secret_bcrypt = "$2y$05$R2AwNNE8S6vYnpTWwWtuqe6p2Usk8DHLv8pEQtcplRxGamqUMNCjq" }]
            immutable_tags = [{ name = "releases", repositories = ["**"], tags = ["v*"] }]
        "#;
        assert_eq!(problems(text), [""; 0]);
    }

    #[test]
    fn a_rule_for_nobody_is_refused() {
        let text = r#"
            rules = [
                { subject = "user:bob", repositories = ["**"], actions = ["pull"] },
                { subject = "robot:ci", repositories = ["**"], actions = ["pull"] },
                { subject = "serviceaccount:ci/build", repositories = ["**"], actions = ["pull"] },
                { subject = "certificate:node", repositories = ["**"], actions = ["pull"] },
                { subject = "authenticated", repositories = ["**"], actions = ["pull"] },
            ]
        "#;
        assert_eq!(
            problems(text),
            [
                "access.rules[0].subject is `user:bob`, but there are no users; set \
                 access.htpasswd to a file that `htpasswd -B` writes",
                "access.rules[1].subject is `robot:ci`, but no entry of [[access.robots]] has a \
                 name like that; there is none at all",
                "access.rules[2].subject is `serviceaccount:ci/build`, but service accounts are \
                 not asked about; set access.kubernetes.enabled = true",
                "access.rules[3].subject is `certificate:node`, but client certificates are not \
                 asked for; set registry.tls.client_ca",
                "access.rules[4].subject is `authenticated`, but nobody can log in; set \
                 access.htpasswd, or write [[access.robots]]",
            ]
        );
    }

    #[test]
    fn a_misspelled_robot_is_recognised() {
        let text = r#"
            rules = [{ subject = "robot:cI", repositories = ["**"], actions = ["pull"] }]
            robots = [{ name = "ci", secret_bcrypt = "$2y$05$R2AwNNE8S6vYnpTWwWtuqe6p2Usk8DHLv8pEQtcplRxGamqUMNCjq" }]
        "#;
        let found = problems(text);
        assert!(found[0].ends_with("a name like that; did you mean `robot:ci`?"), "{found:?}");
    }

    #[test]
    fn immutable_tags_have_names_and_mean_something() {
        let text = r#"
            immutable_tags = [
                { name = "releases", repositories = ["**"], tags = ["v*"] },
                { name = "releases", repositories = [], tags = ["v*"] },
                { name = " ", repositories = ["a"], tags = [] },
            ]
        "#;
        assert_eq!(
            problems(text),
            [
                "access.immutable_tags[1].name is `releases`, like that of an earlier one; give \
                 each a name of its own",
                "access.immutable_tags[1].repositories is empty, so the rule holds nothing; name \
                 some, or \"**\" for all",
                "access.immutable_tags[2].name is empty; a client whose push is refused is told it",
                "access.immutable_tags[2].tags is empty, so the rule holds nothing; name some, or \
                 \"*\" for all",
            ]
        );
    }

    #[test]
    fn what_stands_in_the_challenge_cannot_break_out_of_it() {
        for realm in [
            "registry.example.org/token",
            "/token",
            "https://registry.example.org/to\\\"ken",
            "https://user@registry.example.org/token",
            "https://registry.example.org/token?x=1",
            "ftp://registry.example.org/token",
            "https://registry.example.org/to ken",
        ] {
            let found = problems(&format!("token_realm = \"{realm}\""));
            assert_eq!(found.len(), 1, "{realm}: {found:?}");
            assert!(found[0].starts_with("access.token_realm is "), "{found:?}");
        }
        for service in ["", "a b", "a\\\"b", "a&b", "a\\nb", "é"] {
            let found = problems(&format!("service = \"{service}\""));
            assert_eq!(found.len(), 1, "{service}: {found:?}");
            assert!(found[0].starts_with("access.service is "), "{found:?}");
        }
    }

    #[test]
    fn tokens_live_for_some_time_and_not_for_ever() {
        assert_eq!(
            problems("token_seconds = 0\ntoken_key_rotation_hours = 9000"),
            [
                "access.token_seconds is 0; use 1 to 86400",
                "access.token_key_rotation_hours is 9000; use 1 to 8784",
            ]
        );
        assert_eq!(problems("token_seconds = 24600\ntoken_key_rotation_hours = 1"), [""; 0]);
        assert_eq!(
            problems("token_seconds = 24601\ntoken_key_rotation_hours = 1"),
            ["access.token_seconds is 24601, longer than the key of a token is kept with \
              access.token_key_rotation_hours = 1; use 24600 seconds at most, or more hours"]
        );
    }
}
