//! Patterns over repository names and tags: `*`, `**` and `?`.
//!
//! The state machine decides with them, so what a pattern matches may never change from one version to
//! the next: hence a matcher of our own, and this grammar for ever.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 512;

/// A pattern that a whole text must match: `*` is any run of characters without `/`, `**` any run of
/// characters, `?` one character other than `/`; a run may be empty. Every other character is itself.
///
/// So `team/*` is every repository directly below `team`, `team/**` all of them at any depth, and
/// neither is `team`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Run,
    /// `**`
    Anything,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong { found: text.len() });
        }
        let mut tokens = Vec::with_capacity(text.len());
        for found in text.chars() {
            let token = match (found, tokens.last()) {
                ('*', Some(Token::Anything)) => return Err(PatternError::Stars),
                ('*', Some(Token::Run)) => {
                    tokens.pop();
                    Token::Anything
                }
                ('*', _) => Token::Run,
                ('?', _) => Token::One,
                ('[' | ']' | '{' | '}' | '\\' | '!', _) => {
                    return Err(PatternError::Character { found });
                }
                _ if found.is_whitespace() || found.is_control() => {
                    return Err(PatternError::Character { found });
                }
                _ => Token::Literal(found),
            };
            tokens.push(token);
        }
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// Whether all of `text` matches. Takes time proportional to the length of the text times that of the
    /// pattern, whatever they hold.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // After each character, `reached` says which beginnings of the pattern match the text so far, by
        // their last token; `start` says it of the empty beginning.
        let mut start = true;
        let mut left = true;
        let mut reached: Vec<bool> = Vec::with_capacity(self.tokens.len());
        for token in &self.tokens {
            left = left && matches!(token, Token::Run | Token::Anything);
            reached.push(left);
        }
        for found in text.chars() {
            // Of the beginning that is one token shorter: before this character, and after it.
            let (mut before, mut after) = (start, false);
            let mut any = false;
            start = false;
            for (here, token) in reached.iter_mut().zip(&self.tokens) {
                after = match token {
                    Token::Literal(literal) => before && found == *literal,
                    Token::One => before && found != '/',
                    Token::Run => after || (*here && found != '/'),
                    Token::Anything => after || *here,
                };
                before = std::mem::replace(here, after);
                any |= after;
            }
            if !any {
                return false;
            }
        }
        reached.last().copied().unwrap_or(start)
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing at all.
    #[error("pattern is empty; `**` matches everything")]
    Empty,
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("pattern has {found} bytes, at most {PATTERN_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Three stars or more in a row.
    #[error("pattern has more than two stars in a row; `**` matches anything already")]
    Stars,
    /// A character that no name holds and that means something in other pattern languages: a rule with
    /// it would silently match nothing.
    #[error("pattern has the character {found:?}; only `*`, `**` and `?` have a meaning")]
    Character {
        /// The character.
        found: char,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text) in [
            ("app", "app"),
            ("*", "app"),
            ("*", ""),
            ("**", "team/a/b"),
            ("**", ""),
            ("team/*", "team/app"),
            ("team/**", "team/app"),
            ("team/**", "team/a/b/c"),
            ("**/app", "team/x/app"),
            ("team/**/app", "team/x/y/app"),
            ("v*.*", "v1.22"),
            ("v?.?", "v1.2"),
            ("*-release", "1.0-rc-release"),
            ("team*/app", "team-one/app"),
            ("a**b", "a/x/b"),
            ("**a*", "b/a/aa"),
        ] {
            assert!(matches(pattern, text), "{pattern} should match {text}");
        }
        for (pattern, text) in [
            ("app", "apps"),
            ("app", "app/"),
            ("app", ""),
            ("*", "team/app"),
            ("team/*", "team"),
            ("team/**", "team"),
            ("team/*", "team/a/b"),
            ("team/**", "teams/a"),
            ("**/app", "app"),
            ("v?.?", "v1.22"),
            ("a?b", "a/b"),
            ("a?b", "ab"),
            ("App", "app"),
            ("a.c", "abc"),
        ] {
            assert!(!matches(pattern, text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_a_reason() {
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
        assert_eq!(Pattern::parse("a***"), Err(PatternError::Stars));
        assert_eq!(Pattern::parse(&"a".repeat(513)), Err(PatternError::TooLong { found: 513 }));
        assert!(Pattern::parse(&"a".repeat(512)).is_ok());
        for text in ["[a-z]", "{a,b}", "a b", "a\\*", "!a", "a\0", "a\n"] {
            let refused = Pattern::parse(text).unwrap_err();
            assert!(matches!(refused, PatternError::Character { .. }), "{text:?}: {refused}");
        }
    }

    #[test]
    fn it_is_its_text_in_json() {
        let pattern = Pattern::parse("team/**").unwrap();
        assert_eq!(serde_json::to_string(&pattern).unwrap(), "\"team/**\"");
        assert_eq!(serde_json::from_str::<Pattern>("\"team/**\"").unwrap(), pattern);
        assert!(serde_json::from_str::<Pattern>("\"[a]\"").is_err());
    }

    /// A matcher that tried every split of the text at every star would never come back.
    #[test]
    fn a_pattern_made_to_explode_does_not() {
        for stars in ["*a", "**a", "?*a"] {
            let pattern = format!("{}b", stars.repeat(PATTERN_BYTES_MAX / stars.len() - 1));
            assert!(!matches(&pattern, &"a".repeat(4096)));
        }
    }

    /// What the words of the documentation say, tried in every way.
    fn brute_force(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] => (0..=text.len()).any(|n| brute_force(rest, &text[n..])),
            ['*', rest @ ..] => (0..=text.len())
                .take_while(|n| !text[..*n].contains(&'/'))
                .any(|n| brute_force(rest, &text[n..])),
            ['?', rest @ ..] => {
                text.first().is_some_and(|found| *found != '/') && brute_force(rest, &text[1..])
            }
            [literal, rest @ ..] => text.first() == Some(literal) && brute_force(rest, &text[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn it_matches_what_trying_everything_matches(pattern in "[ab/é*?]{1,9}", text in "[ab/é]{0,9}") {
            let Ok(parsed) = Pattern::parse(&pattern) else {
                prop_assert!(pattern.contains("***"));
                return Ok(());
            };
            let pattern: Vec<char> = pattern.chars().collect();
            let characters: Vec<char> = text.chars().collect();
            prop_assert_eq!(parsed.matches(&text), brute_force(&pattern, &characters));
            prop_assert_eq!(parsed.to_string().parse::<Pattern>().unwrap(), parsed);
        }

        #[test]
        fn a_text_without_wildcards_matches_itself_only(text in "[a-z0-9._/-]{1,40}", other in "[a-z0-9._/-]{1,40}") {
            let pattern = Pattern::parse(&text).unwrap();
            prop_assert!(pattern.matches(&text));
            prop_assert_eq!(pattern.matches(&other), text == other);
        }
    }
}
