//! The TOML file: read with the line of everything that is wrong in it.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::{Config, keys};

/// Reads a file into a table that holds known keys of the right type only.
pub(super) fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<toml::Table, ConfigError> {
    let wrong = |error: toml::de::Error| ConfigError::Value {
        origin: at(path, text, error.span()),
        message: error.message().to_owned(),
    };
    let spanned = DeTable::parse(text).map_err(wrong)?;
    refuse_unknown(spanned.get_ref(), "", &|span| at(path, text, Some(span)))?;
    // For the types: errors that come from the text know their line, those of a table do not.
    toml::from_str::<Config>(text).map_err(|error| {
        let key = error.span().map(|span| key_at(spanned.get_ref(), &span)).unwrap_or_default();
        let separator = if key.is_empty() { "" } else { ": " };
        ConfigError::Value {
            origin: at(path, text, error.span()),
            message: format!("{key}{separator}{}", error.message()),
        }
    })?;
    toml::from_str(text).map_err(wrong)
}

fn refuse_unknown(
    table: &DeTable<'_>,
    prefix: &str,
    origin: &dyn Fn(Range<usize>) -> String,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let path = match prefix {
            "" => name.get_ref().to_string(),
            _ => format!("{prefix}.{}", name.get_ref()),
        };
        let known = keys::KEYS.iter().any(|key| key.path == path);
        match value.get_ref().as_table() {
            Some(inner) if !known && keys::is_section(&path) => {
                refuse_unknown(inner, &path, origin)?;
            }
            _ if known || keys::is_section(&path) => {}
            _ => {
                let nearest = keys::nearest(&path).to_owned();
                return Err(ConfigError::UnknownKey {
                    origin: origin(name.span()),
                    key: path,
                    nearest,
                });
            }
        }
    }
    Ok(())
}

/// The innermost key that `place` is at, or whose value reaches over it: `access.rules[2].subject`.
fn key_at(table: &DeTable<'_>, place: &Range<usize>) -> String {
    let covers = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
    let mut key = String::new();
    let mut table = Some(table);
    while let Some(here) = table.take() {
        let at = |name: &Spanned<_>, value| covers(name.span()) || encloses(value, &covers);
        let Some((name, value)) = here.iter().find(|(name, value)| at(name, value)) else {
            return key;
        };
        if !key.is_empty() {
            key.push('.');
        }
        key.push_str(name.get_ref());
        let mut value = value.get_ref();
        while let Some(entries) = value.as_array() {
            let Some(index) = entries.iter().position(|entry| encloses(entry, &covers)) else {
                return key;
            };
            key.push_str(&format!("[{index}]"));
            let Some(entry) = entries.get(index) else { return key };
            value = entry.get_ref();
        }
        table = value.as_table();
    }
    key
}

/// A table's own place is that of its header; what is in it is written below that.
fn encloses(value: &Spanned<DeValue<'_>>, covers: &dyn Fn(Range<usize>) -> bool) -> bool {
    let inside = match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().any(|(name, inner)| covers(name.span()) || encloses(inner, covers))
        }
        DeValue::Array(entries) => entries.iter().any(|inner| encloses(inner, covers)),
        _ => false,
    };
    inside || covers(value.span())
}

fn at(path: &Path, text: &str, span: Option<Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return path.display().to_string();
    };
    format!("{}:{}", path.display(), before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text, Path::new("tercet.toml")).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        assert_eq!(
            refusal("[node]\nname = \"a\"\n\n[limits]\nmanifest_byte = 1\n"),
            "tercet.toml:5: unknown key `limits.manifest_byte`; did you mean \
             `limits.manifest_bytes`?"
        );
    }

    #[test]
    fn an_unknown_section_is_named() {
        let text = refusal("[nodes]\nname = \"a\"\n");
        assert!(text.starts_with("tercet.toml:1: unknown key `nodes`"), "{text}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let text = refusal("[limits]\nuploads_max = \"many\"\n");
        assert!(
            text.starts_with("tercet.toml:2: limits.uploads_max: invalid type: string"),
            "{text}"
        );
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        let text = refusal("[node]\nname = \n");
        assert!(text.starts_with("tercet.toml:2: "), "{text}");
    }

    #[test]
    fn a_member_without_a_url_is_refused_with_an_example() {
        let text = refusal("[cluster]\nmembers = [\"tercet-0\"]\n");
        assert!(text.contains("tercet-0=http://127.0.0.1:5001"), "{text}");
    }
}
