//! The rules: who may do what in which repository.

use tercet_storage::{Pattern, RepositoryName};

use super::action::{Action, Actions};
use super::principal::Principal;
use super::subject::Subject;
use crate::config::AccessRule;

/// Every rule of `[[access.rules]]`. Rules only allow; what several of them allow adds up, so their order
/// means nothing.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    subject: Subject,
    repositories: Vec<Pattern>,
    actions: Actions,
}

impl Rule {
    fn means(&self, repository: &RepositoryName) -> bool {
        self.repositories.iter().any(|pattern| pattern.matches(repository.as_str()))
    }
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// A sentence for each rule that allows nothing: whoever wrote it meant something.
    pub fn compile(rules: &[AccessRule]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if rule.repositories.is_empty() {
                problems.push(format!(
                    "access.rules[{index}].repositories is empty, so the rule allows nothing; \
                     name repositories, or \"**\" for all"
                ));
            }
            if rule.actions.is_empty() {
                problems.push(format!(
                    "access.rules[{index}].actions is empty, so the rule allows nothing; use pull, \
                     push, delete or *"
                ));
            }
            compiled.push(Rule {
                subject: rule.subject.clone(),
                repositories: rule.repositories.clone(),
                actions: rule
                    .actions
                    .iter()
                    .fold(Actions::NONE, |all, word| all.union(word.actions())),
            });
        }
        if problems.is_empty() { Ok(Self(compiled)) } else { Err(problems) }
    }

    /// Whether there is no rule at all. Then there is no access control, everybody may do everything,
    /// and the listener stays on loopback.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// What `principal` may do in `repository`.
    #[must_use]
    pub fn allowed(&self, principal: &Principal, repository: &RepositoryName) -> Actions {
        if self.is_open() {
            return Actions::ALL;
        }
        let mut allowed = Actions::NONE;
        for rule in &self.0 {
            // The cheap questions first: a rule that adds nothing needs no matching.
            if allowed.union(rule.actions) != allowed
                && rule.subject.matches(principal)
                && rule.means(repository)
            {
                allowed = allowed.union(rule.actions);
            }
        }
        allowed
    }

    /// Where in the list of repositories those can be that `principal` may pull.
    #[must_use]
    pub fn pullable(&self, principal: &Principal) -> Pullable {
        if self.is_open() {
            return Pullable::Everything;
        }
        let patterns = || {
            let rules = self.0.iter().filter(|rule| {
                rule.actions.contains(Action::Pull) && rule.subject.matches(principal)
            });
            rules.flat_map(|rule| &rule.repositories)
        };
        if patterns().any(|pattern| pattern.as_str() == "**") {
            return Pullable::Everything;
        }
        let mut prefixes: Vec<String> = patterns()
            .map(|pattern| pattern.as_str().chars().take_while(|c| !"*?".contains(*c)).collect())
            // No name holds anything else, and what is below relies on it.
            .filter(|prefix: &String| prefix.bytes().all(|byte| byte.is_ascii_graphic()))
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
        if prefixes.is_empty() { Pullable::Nothing } else { Pullable::Below(prefixes) }
    }
}

/// Which part of the list of repositories is worth looking at for one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pullable {
    /// All of it, and each entry may be pulled.
    Everything,
    /// Names that begin with one of these, in ascending order, none of which begins with another. Not
    /// each of those names may be pulled.
    Below(Vec<String>),
    /// None of it.
    Nothing,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn rule(subject: &str, repositories: &[&str], actions: &[&str]) -> AccessRule {
        AccessRule {
            subject: subject.parse().unwrap(),
            repositories: repositories.iter().map(|text| text.parse().unwrap()).collect(),
            actions: actions.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn rules(list: &[AccessRule]) -> Rules {
        Rules::compile(list).unwrap()
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.into())
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn without_rules_everybody_may_do_everything() {
        let rules = rules(&[]);
        assert!(rules.is_open());
        assert_eq!(rules.allowed(&Principal::Anonymous, &name("a")), Actions::ALL);
        assert_eq!(rules.pullable(&Principal::Anonymous), Pullable::Everything);
    }

    #[test]
    fn with_a_rule_what_none_allows_is_denied() {
        let rules = rules(&[rule("user:bob", &["team/**"], &["pull"])]);
        assert!(!rules.is_open());
        let pull = Actions::NONE.with(Action::Pull);
        assert_eq!(rules.allowed(&user("bob"), &name("team/app")), pull);
        assert_eq!(rules.allowed(&user("bob"), &name("team")), Actions::NONE);
        assert_eq!(rules.allowed(&user("eve"), &name("team/app")), Actions::NONE);
        assert_eq!(rules.allowed(&Principal::Anonymous, &name("team/app")), Actions::NONE);
    }

    #[test]
    fn rules_add_up_in_any_order() {
        let mut list = vec![
            rule("anonymous", &["**"], &["pull"]),
            rule("authenticated", &["sandbox/*"], &["push"]),
            rule("user:alice", &["sandbox/*", "team/**"], &["delete"]),
            rule("robot:ci", &["**"], &["*"]),
        ];
        for _ in 0..list.len() {
            list.rotate_left(1);
            let rules = rules(&list);
            let of = |principal: &Principal, repository: &str| {
                rules.allowed(principal, &name(repository)).to_string()
            };
            assert_eq!(of(&Principal::Anonymous, "sandbox/x"), "pull");
            assert_eq!(of(&user("bob"), "sandbox/x"), "pull,push");
            assert_eq!(of(&user("alice"), "sandbox/x"), "pull,push,delete");
            assert_eq!(of(&user("alice"), "team/a/b"), "pull,delete");
            assert_eq!(of(&Principal::Robot("ci".into()), "x"), "pull,push,delete");
            // A user that is called like a robot is not that robot.
            assert_eq!(of(&user("ci"), "x"), "pull");
        }
    }

    #[test]
    fn a_rule_that_allows_nothing_is_refused() {
        let list = [
            rule("user:a", &["a"], &["pull"]),
            rule("user:b", &[], &["pull"]),
            rule("user:c", &["c"], &[]),
        ];
        assert_eq!(
            Rules::compile(&list).unwrap_err(),
            [
                "access.rules[1].repositories is empty, so the rule allows nothing; name \
                 repositories, or \"**\" for all",
                "access.rules[2].actions is empty, so the rule allows nothing; use pull, push, \
                 delete or *",
            ]
        );
    }

    #[test]
    fn the_list_is_looked_at_only_where_something_can_be() {
        let rules = rules(&[
            rule("user:a", &["team/x/*", "team/**", "b?x", "lib"], &["pull"]),
            rule("user:a", &["zoo/*"], &["push"]),
            rule("user:b", &["**/public"], &["*"]),
            rule("user:c", &["x", "**"], &["pull"]),
            rule("user:d", &["é*"], &["pull"]),
        ]);
        let below =
            |prefixes: &[&str]| Pullable::Below(prefixes.iter().map(ToString::to_string).collect());
        assert_eq!(rules.pullable(&user("a")), below(&["b", "lib", "team/"]));
        assert_eq!(rules.pullable(&user("b")), below(&[""]));
        assert_eq!(rules.pullable(&user("c")), Pullable::Everything);
        assert_eq!(rules.pullable(&user("d")), Pullable::Nothing);
        assert_eq!(rules.pullable(&Principal::Anonymous), Pullable::Nothing);
    }
}
