//! The files behind `[registry.tls]`, `[ops.tls]` and `[webhook.tls]`.

use super::{Config, ConfigError};
use crate::server::{TlsSource, TlsSpec};

/// Loads the listeners' files as a start will, so that `config check` tells what it would say.
///
/// It is no part of [`super::check`]: a replica reads its configuration again while it runs, and a
/// certificate that has expired since must not keep a user from being locked out.
///
/// # Errors
/// [`ConfigError::Invalid`] with a problem for each listener that has one.
pub fn check_listener_files(config: &Config) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    for (listener, tls) in [
        ("registry", &config.registry.tls),
        ("ops", &config.ops.tls),
        ("webhook", &config.webhook.tls),
    ] {
        if let Some(tls) = tls
            && let Err(problem) = TlsSource::load(TlsSpec::listener(listener, tls))
        {
            problems.push(problem.to_string());
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { problems }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use rcgen::generate_simple_self_signed;

    use super::*;
    use crate::config::{ClientAuth, ListenerTls};

    fn problems_of(config: &Config) -> Vec<String> {
        match check_listener_files(config) {
            Err(ConfigError::Invalid { problems }) => problems,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_listener_is_checked_and_its_key_named() {
        let mut config = Config::default();
        config.registry.tls = Some(ListenerTls::default());
        config.ops.tls = Some(ListenerTls {
            certificate: "/nonexistent/ops.pem".into(),
            ..ListenerTls::default()
        });
        let problems = problems_of(&config);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("registry.tls.certificate: no file"), "{problems:?}");
        let missing = "ops.tls.certificate: /nonexistent/ops.pem: there is no such file";
        assert!(problems[1].starts_with(missing), "{problems:?}");
    }

    #[test]
    fn clients_cannot_be_required_to_have_certificates_of_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let own = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let tls = ListenerTls {
            certificate: dir.path().join("a.pem"),
            key: dir.path().join("a.key"),
            client_ca: None,
            client_auth: ClientAuth::Required,
        };
        std::fs::write(&tls.certificate, own.cert.pem()).unwrap();
        std::fs::write(&tls.key, own.signing_key.serialize_pem()).unwrap();
        let mut config = Config::default();
        config.webhook.tls = Some(tls);
        let problems = problems_of(&config);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("webhook.tls.client_ca: no file"), "{problems:?}");
    }
}
