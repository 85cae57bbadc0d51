//! Puts the sources together: defaults, file, environment, flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::ConfigError;
use super::member::MemberEntry;
use super::{Config, LogFormat, check, environment, file};

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file, if there is one.
    pub file: Option<PathBuf>,
    /// The variables of the process.
    pub environment: Vec<(String, String)>,
    /// What was said on the command line.
    pub overrides: Overrides,
}

impl Sources {
    /// A file and flags together with this process's variables.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, overrides: Overrides) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        Self { file, environment, overrides }
    }
}

/// The keys that have a flag.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[allow(missing_docs, reason = "the comments are the help texts of the flags, in clap's style")]
pub struct Overrides {
    /// Name of this replica, unique in its cluster [node.name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory that holds everything this replica stores [node.data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A first member as name=url; once for each, same order on every replica [cluster.members]
    #[arg(long = "member", value_name = "NAME=URL")]
    pub members: Vec<MemberEntry>,
    /// Address of the registry API [registry.listen]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address that other replicas talk to [peer.listen]
    #[arg(long, value_name = "IP:PORT")]
    pub peer_listen: Option<SocketAddr>,
    /// Address of health, metrics and status [ops.listen]
    #[arg(long, value_name = "IP:PORT")]
    pub ops_listen: Option<SocketAddr>,
    /// How a log line looks [log.format]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines there are: a level or a list of filters [log.level]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Reads, merges and checks a configuration.
///
/// # Errors
/// [`ConfigError`], which names the place and says what to do.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut table = match &sources.file {
        Some(path) => file::read(path)?,
        None => toml::Table::new(),
    };
    for (key, variable, value) in environment::read(&sources.environment)? {
        let mut alone = toml::Table::new();
        put(&mut alone, key.path, value.clone());
        alone.try_into::<Config>().map_err(|error: toml::de::Error| ConfigError::Value {
            origin: variable,
            message: error.message().to_owned(),
        })?;
        put(&mut table, key.path, value);
    }
    let mut config = table.try_into::<Config>().map_err(|error| ConfigError::Value {
        origin: "configuration".to_owned(),
        message: error.message().to_owned(),
    })?;
    apply(&sources.overrides, &mut config);
    check(&config)?;
    Ok(config)
}

fn put(table: &mut toml::Table, path: &str, value: toml::Value) {
    let Some((section, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let inner = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}

fn apply(overrides: &Overrides, config: &mut Config) {
    fn set<T: Clone>(value: &Option<T>, key: &mut T) {
        if let Some(value) = value {
            *key = value.clone();
        }
    }
    set(&overrides.name, &mut config.node.name);
    set(&overrides.data_dir, &mut config.node.data_dir);
    set(&overrides.listen, &mut config.registry.listen);
    set(&overrides.peer_listen, &mut config.peer.listen);
    set(&overrides.ops_listen, &mut config.ops.listen);
    set(&overrides.log_format, &mut config.log.format);
    set(&overrides.log_level, &mut config.log.level);
    if !overrides.members.is_empty() {
        config.cluster.members.clone_from(&overrides.members);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn sources(text: &str) -> (tempfile::NamedTempFile, Sources) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        (file, sources)
    }

    #[test]
    fn later_sources_win() {
        let (_file, mut sources) =
            sources("[node]\nname = \"from-file\"\n[limits]\nuploads_max = 1\npage_size_max = 5\n");
        sources.environment = vec![
            ("TERCET_NODE_NAME".into(), "from-environment".into()),
            ("TERCET_LIMITS_UPLOADS_MAX".into(), "2".into()),
        ];
        sources.overrides.name = Some("from-flag".into());
        let config = load(&sources).unwrap();
        assert_eq!(config.node.name, "from-flag");
        assert_eq!(config.limits.uploads_max, 2);
        assert_eq!(config.limits.page_size_max, 5);
        assert_eq!(config.limits.repair_parallel, 2);
    }

    #[test]
    fn a_wrong_value_in_a_variable_names_the_variable() {
        let sources = Sources {
            environment: vec![("TERCET_REGISTRY_LISTEN".into(), "here".into())],
            ..Sources::default()
        };
        let text = load(&sources).unwrap_err().to_string();
        assert!(text.starts_with("TERCET_REGISTRY_LISTEN: "), "{text}");
    }

    #[test]
    fn what_is_printed_can_be_loaded() {
        let mut config = Config::default();
        config.cluster.members = vec!["a=http://127.0.0.1:5001".parse().unwrap()];
        let (_file, sources) = sources(&toml::to_string(&config).unwrap());
        assert_eq!(load(&sources).unwrap(), config);
    }
}
