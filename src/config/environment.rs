//! `TERCET_SECTION_KEY` variables.

use tercet_storage::planted;

use super::error::ConfigError;
use super::keys::{KEYS, Key, Kind, VARIABLE_PREFIX, nearest};

/// Variables with the prefix that are no configuration: the path of the file itself, and what the
/// tests and the chaos tools pass to themselves.
const RESERVED: &[&str] = &[
    "TERCET_CONFIG",
    "TERCET_TEST_",
    "TERCET_CHAOS_",
    "TERCET_BIN",
    "TERCET_CACHE",
    "TERCET_FAILPOINT",
    "TERCET_GOLDEN",
];

/// The values that the environment sets, in the order of the key list.
pub(super) fn read(
    variables: &[(String, String)],
) -> Result<Vec<(&'static Key, String, toml::Value)>, ConfigError> {
    for (name, _) in variables {
        refuse_unknown(name)?;
    }
    let mut values = Vec::new();
    for key in KEYS {
        let name = key.variable();
        let Some((_, text)) = variables.iter().find(|(variable, _)| *variable == name) else {
            continue;
        };
        let value = value(key, &name, text)?;
        values.push((key, name, value));
    }
    Ok(values)
}

fn value(key: &Key, name: &str, text: &str) -> Result<toml::Value, ConfigError> {
    match key.kind {
        Kind::Text => Ok(toml::Value::String(text.to_owned())),
        Kind::List => Ok(toml::Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| toml::Value::String(part.to_owned()))
                .collect(),
        )),
        Kind::Boolean => {
            text.trim().parse().map(toml::Value::Boolean).map_err(|_| ConfigError::Value {
                origin: name.to_owned(),
                message: format!("`{text}` is neither true nor false"),
            })
        }
        Kind::Tables => Err(ConfigError::Value {
            origin: name.to_owned(),
            message: format!("[[{}]] can only be written in the configuration file", key.path),
        }),
        Kind::Integer => {
            text.trim().parse().map(toml::Value::Integer).map_err(|_| ConfigError::Value {
                origin: name.to_owned(),
                message: format!("`{text}` is not a whole number"),
            })
        }
    }
}

fn refuse_unknown(name: &str) -> Result<(), ConfigError> {
    let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { return Ok(()) };
    let reserved = RESERVED.iter().any(|reserved| name.starts_with(reserved));
    let reserved = reserved || planted::is_variable(name);
    if reserved || is_service_link(rest) || KEYS.iter().any(|key| key.variable() == name) {
        return Ok(());
    }
    // Read as a path, so that the nearest key is searched as in a file.
    let as_path = rest.to_lowercase().replacen('_', ".", 1);
    let nearest = nearest(&as_path);
    let nearest = KEYS.iter().find(|key| key.path == nearest).map(Key::variable);
    Err(ConfigError::UnknownKey {
        origin: "environment".to_owned(),
        key: name.to_owned(),
        nearest: nearest.unwrap_or_default(),
    })
}

/// Kubernetes tells every pod about a service named `tercet-...` in variables that begin like ours.
fn is_service_link(rest: &str) -> bool {
    let rest = format!("_{rest}");
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.ends_with("_PORT")
        || rest.contains("_TCP")
        || rest.contains("_UDP")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn one(
        name: &str,
        value: &str,
    ) -> Result<Vec<(&'static Key, String, toml::Value)>, ConfigError> {
        read(&[(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_variable_sets_its_key() {
        let values = one("TERCET_LIMITS_UPLOADS_MAX", "7").unwrap();
        assert_eq!(values[0].0.path, "limits.uploads_max");
        assert_eq!(values[0].2, toml::Value::Integer(7));
    }

    #[test]
    fn members_are_split_at_commas() {
        let values = one("TERCET_CLUSTER_MEMBERS", "a=http://h:1, b=http://h:2").unwrap();
        assert_eq!(values[0].2.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_misspelled_variable_is_refused_with_the_nearest() {
        let text = one("TERCET_NODE_DATADIR", "/x").unwrap_err().to_string();
        assert!(text.contains("`TERCET_NODE_DATADIR`"), "{text}");
        assert!(text.contains("`TERCET_NODE_DATA_DIR`"), "{text}");
    }

    #[test]
    fn the_variables_of_a_kubernetes_service_are_no_configuration() {
        for name in [
            "TERCET_SERVICE_HOST",
            "TERCET_SERVICE_PORT_REGISTRY",
            "TERCET_PORT",
            "TERCET_PORT_5000_TCP_ADDR",
            "TERCET_PEERS_PORT_5001_TCP",
        ] {
            assert!(one(name, "x").unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_number_that_is_none_names_its_variable() {
        let text = one("TERCET_LIMITS_UPLOADS_MAX", "many").unwrap_err().to_string();
        assert_eq!(text, "TERCET_LIMITS_UPLOADS_MAX: `many` is not a whole number");
    }
}
