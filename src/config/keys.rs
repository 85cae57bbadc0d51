//! The list of keys. Unknown-key hints, environment variables and the documentation's table all
//! come from here or are tested against it.

/// How the text of an environment variable becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Taken as it is.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Texts with commas between them.
    List,
    /// An array of tables, which only the file can hold.
    Tables,
}

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Where it is in the file, with dots: `limits.manifest_bytes`.
    pub path: &'static str,
    /// How its variable is read.
    pub kind: Kind,
}

impl Key {
    /// The environment variable that sets it: `TERCET_LIMITS_MANIFEST_BYTES`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }
}

/// How every variable begins.
pub const VARIABLE_PREFIX: &str = "TERCET_";

const fn text(path: &'static str) -> Key {
    Key { path, kind: Kind::Text }
}

const fn list(path: &'static str) -> Key {
    Key { path, kind: Kind::List }
}

const fn tables(path: &'static str) -> Key {
    Key { path, kind: Kind::Tables }
}

const fn integer(path: &'static str) -> Key {
    Key { path, kind: Kind::Integer }
}

/// Every key there is.
pub const KEYS: &[Key] = &[
    text("node.name"),
    text("node.data_dir"),
    text("node.role"),
    text("node.zone"),
    list("cluster.members"),
    integer("cluster.replication_factor"),
    text("cluster.consistency"),
    integer("cluster.heartbeat_ms"),
    integer("cluster.election_timeout_min_ms"),
    integer("cluster.election_timeout_max_ms"),
    text("registry.listen"),
    text("registry.sparse_manifests"),
    text("registry.tls.certificate"),
    text("registry.tls.key"),
    text("registry.tls.client_ca"),
    text("registry.tls.client_auth"),
    text("peer.listen"),
    text("peer.advertise"),
    text("peer.tls.ca"),
    text("peer.tls.certificate"),
    text("peer.tls.key"),
    text("ops.listen"),
    text("ops.tls.certificate"),
    text("ops.tls.key"),
    text("ops.tls.client_ca"),
    text("ops.tls.client_auth"),
    text("webhook.listen"),
    text("webhook.tls.certificate"),
    text("webhook.tls.key"),
    text("webhook.tls.client_ca"),
    text("webhook.tls.client_auth"),
    text("access.htpasswd"),
    text("access.token_realm"),
    text("access.service"),
    integer("access.token_seconds"),
    integer("access.token_key_rotation_hours"),
    tables("access.rules"),
    tables("access.robots"),
    tables("access.immutable_tags"),
    Key { path: "access.kubernetes.enabled", kind: Kind::Boolean },
    list("access.kubernetes.audiences"),
    text("access.kubernetes.kubeconfig"),
    Key { path: "gc.enabled", kind: Kind::Boolean },
    integer("gc.grace_seconds"),
    integer("gc.interval_seconds"),
    integer("gc.orphan_grace_seconds"),
    text("retention.mode"),
    integer("retention.interval_seconds"),
    tables("retention.rules"),
    Key { path: "scrub.enabled", kind: Kind::Boolean },
    integer("scrub.period_days"),
    integer("scrub.bytes_per_second"),
    text("log.format"),
    text("log.level"),
    integer("limits.manifest_bytes"),
    integer("limits.manifest_descriptors"),
    integer("limits.uploads_max"),
    integer("limits.upload_idle_seconds"),
    integer("limits.connections_max"),
    integer("limits.header_timeout_ms"),
    integer("limits.first_byte_timeout_ms"),
    integer("limits.idle_timeout_ms"),
    integer("limits.body_rate_min_bytes"),
    integer("limits.write_stall_ms"),
    integer("limits.page_size_max"),
    integer("limits.peer_streams_max"),
    integer("limits.repair_parallel"),
    integer("limits.repair_bytes_per_second"),
    integer("limits.surplus_after_seconds"),
    integer("limits.edge_cache_bytes"),
    integer("limits.holder_stall_ms"),
    integer("limits.disk_refuse_percent"),
    integer("limits.disk_repair_stop_percent"),
    integer("limits.disk_warn_percent"),
    integer("limits.disk_headroom_bytes"),
    integer("limits.raft_reserve_bytes"),
    integer("limits.drain_seconds"),
];

/// Whether a table of that path exists.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that is most like a misspelled one. The last part weighs most: somebody who put a
/// right key into the wrong section wants to hear the section.
pub(super) fn nearest(wrong: &str) -> &'static str {
    let likeness = |known: &str| {
        let whole = strsim::jaro_winkler(wrong, known);
        let last = strsim::jaro_winkler(last_part(wrong), last_part(known));
        whole + last
    };
    KEYS.iter()
        .map(|key| key.path)
        .max_by(|left, right| likeness(left).total_cmp(&likeness(right)))
        .unwrap_or_default()
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::collections::BTreeSet;

    use super::super::{Config, ListenerTls, PeerTls};
    use super::*;

    fn paths_of(table: &toml::Table, prefix: &str, into: &mut BTreeSet<String>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) => paths_of(inner, &path, into),
                _ => drop(into.insert(path)),
            }
        }
    }

    #[test]
    fn the_list_and_the_structs_agree() {
        let mut config = Config::default();
        config.peer.advertise = Some("http://127.0.0.1:5001".into());
        config.peer.tls = Some(PeerTls::default());
        let tls = ListenerTls { client_ca: Some("ca.pem".into()), ..ListenerTls::default() };
        config.registry.tls = Some(tls.clone());
        config.ops.tls = Some(tls.clone());
        config.webhook.tls = Some(tls);
        config.access.htpasswd = Some("htpasswd".into());
        config.access.token_realm = Some("https://registry.example/token".into());
        config.access.kubernetes.kubeconfig = Some("kubeconfig".into());
        let mut paths = BTreeSet::new();
        paths_of(&toml::Table::try_from(&config).unwrap(), "", &mut paths);
        assert_eq!(paths, KEYS.iter().map(|key| key.path.to_owned()).collect());
    }

    #[test]
    fn the_documentation_names_every_key_and_no_other() {
        let page = include_str!("../../docs/src/configuration.md");
        let documented: BTreeSet<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|cell| cell.contains('.'))
            .collect();
        assert_eq!(documented, KEYS.iter().map(|key| key.path).collect());
    }

    #[test]
    fn the_documentation_states_the_defaults() {
        let page = include_str!("../../docs/src/configuration.md");
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for key in KEYS {
            let (section, name) = key.path.split_once('.').unwrap();
            let Some(default) = defaults[section].get(name) else { continue };
            if key.path == "node.name" {
                continue;
            }
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}`", key.path)));
            let cell = row.unwrap().split('|').nth(2).unwrap().trim();
            assert_eq!(cell, format!("`{default}`"), "{}", key.path);
        }
    }

    #[test]
    fn a_misspelled_key_is_recognised() {
        assert_eq!(nearest("limits.manifest_byte"), "limits.manifest_bytes");
        assert_eq!(nearest("registry.listn"), "registry.listen");
        assert_eq!(nearest("node.datadir"), "node.data_dir");
        assert_eq!(nearest("cluster.manifest_bytes"), "limits.manifest_bytes");
    }
}
