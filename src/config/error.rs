//! Why a configuration was refused, in sentences that say what to do.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read; typically a wrong path or missing permissions.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML, or a value in it has the wrong type.
    #[error("{origin}: {message}")]
    Value {
        /// File and line, variable, or flag.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// A key that does not exist; typically a misspelling.
    #[error("{origin}: unknown key `{key}`; did you mean `{nearest}`?")]
    UnknownKey {
        /// File and line, or `environment`.
        origin: String,
        /// The key as written.
        key: String,
        /// The known key that is most like it.
        nearest: String,
    },
    /// Values that are well formed and make no sense, all of them at once.
    #[error("the configuration is not usable:{}", bullets(problems))]
    Invalid {
        /// One sentence each.
        problems: Vec<String>,
    },
}

fn bullets(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  - " + problem)
}
