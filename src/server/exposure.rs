//! Where the registry may listen, given who may do what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Config;

/// Where the registry listens, and what the operator has to be told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The address to bind.
    pub listen: SocketAddr,
    /// Why it is not the address that was configured; for the log and `/readyz`.
    pub held_back: Option<String>,
    /// What is risky about it; for the log.
    pub warning: Option<String>,
}

impl Exposure {
    /// Without any rule everybody may do everything, so only this machine may ask.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let listen = config.registry.listen;
        let open = Self { listen, held_back: None, warning: None };
        if listen.ip().to_canonical().is_loopback() {
            return open;
        }
        if config.access.rules.is_empty() {
            let loopback = SocketAddr::new(loopback_like(listen.ip()), listen.port());
            let held_back = format!(
                "the registry listens on {loopback} instead of registry.listen = {listen}, because \
                 there is no [[access.rules]] and everybody on the network could push and delete; \
                 write rules, or for a registry that is open to all: [[access.rules]] subject = \
                 \"anonymous\", repositories = [\"**\"], actions = [\"*\"]"
            );
            return Self { listen: loopback, held_back: Some(held_back), warning: None };
        }
        if config.registry.tls.is_none() {
            let warning = format!(
                "the registry on {listen} speaks plain HTTP: passwords, tokens and images cross the \
                 network in clear unless a proxy in front terminates TLS; set registry.tls"
            );
            return Self { warning: Some(warning), ..open };
        }
        open
    }
}

fn loopback_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::config::ListenerTls;

    fn exposure(listen: &str, change: impl FnOnce(&mut Config)) -> Exposure {
        let mut config = Config::default();
        config.registry.listen = listen.parse().unwrap();
        change(&mut config);
        Exposure::of(&config)
    }

    fn with_rule(config: &mut Config) {
        let text = "[[access.rules]]\nsubject = \"authenticated\"\nrepositories = [\"**\"]\n\
                    actions = [\"*\"]";
        config.access = toml::from_str::<Config>(text).unwrap().access;
    }

    #[test]
    fn without_rules_only_this_machine_is_served_and_told_why() {
        for (configured, bound) in [
            ("0.0.0.0:5000", "127.0.0.1:5000"),
            ("10.1.2.3:443", "127.0.0.1:443"),
            ("[::]:5000", "[::1]:5000"),
            ("[2001:db8::1]:5000", "[::1]:5000"),
        ] {
            let exposure = exposure(configured, |config| {
                config.registry.tls = Some(ListenerTls::default());
            });
            assert_eq!(exposure.listen, bound.parse().unwrap());
            let why = exposure.held_back.unwrap();
            assert!(why.contains(configured) && why.contains("[[access.rules]]"), "{why}");
        }
    }

    #[test]
    fn loopback_stays_as_it_is() {
        for address in ["127.0.0.1:0", "127.7.7.7:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
            let exposure = exposure(address, |_| {});
            assert_eq!(exposure.listen, address.parse().unwrap());
            assert_eq!((exposure.held_back, exposure.warning), (None, None));
        }
    }

    #[test]
    fn rules_open_it_and_plain_http_is_warned_of() {
        let plain = exposure("0.0.0.0:5000", with_rule);
        assert_eq!(plain.listen, "0.0.0.0:5000".parse().unwrap());
        assert!(plain.warning.unwrap().contains("registry.tls"));
        let encrypted = exposure("0.0.0.0:5000", |config| {
            with_rule(config);
            config.registry.tls = Some(ListenerTls::default());
        });
        assert_eq!((encrypted.held_back, encrypted.warning), (None, None));
    }
}
