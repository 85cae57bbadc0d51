//! What a well-formed configuration must also obey, in sentences that say what to do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::Uri;

use super::error::ConfigError;
use super::{Config, Limits};

/// Bytes of the longest replica name: that of a DNS label.
const NAME_MAX: usize = 63;
/// Longest time that a key may say.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Manifests are in the log and in memory; more than this belongs into blobs.
const MANIFEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Slower than this, a peer waits so long between two reads that it gives up.
const REPAIR_RATE_MIN: u64 = 64 * 1024;

/// Checks values against each other.
///
/// # Errors
/// [`ConfigError::Invalid`] with every problem there is, not only the first.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    check_node(config, &mut problems);
    check_members(config, &mut problems);
    check_timing(config, &mut problems);
    check_listeners(config, &mut problems);
    check_peer_security(config, &mut problems);
    check_limits(&config.limits, &mut problems);
    check_housekeeping(config, &mut problems);
    super::check_access::check_access(config, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { problems }) }
}

/// A name that is safe in paths, headers and logs.
pub(crate) fn replica_name(name: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= NAME_MAX && name.bytes().all(good) {
        return Ok(());
    }
    Err(format!(
        "`{name}` cannot name a replica; use up to {NAME_MAX} letters, digits, `-`, `_` and `.`, \
         and begin with a letter or digit"
    ))
}

/// A base URL: scheme, host and port, nothing else.
pub(super) fn peer_url(text: &str) -> Result<(), String> {
    let refused = || {
        format!(
            "`{text}` is not the URL of a peer listener; write scheme, host and port, for example \
             https://tercet-0.tercet-peers:5001"
        )
    };
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let authority = uri.authority().ok_or_else(refused)?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let only_base = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    if scheme && only_base && authority.port_u16().is_some() && !authority.host().is_empty() {
        Ok(())
    } else {
        Err(refused())
    }
}

fn check_node(config: &Config, problems: &mut Vec<String>) {
    if let Err(problem) = replica_name(&config.node.name) {
        problems.push(format!("node.name: {problem}"));
    }
    if config.node.data_dir.as_os_str().is_empty() {
        problems.push("node.data_dir is empty; name a directory on a disk that lasts".to_owned());
    }
    let filter = tracing_subscriber::EnvFilter::builder().parse(&config.log.level);
    if let Err(error) = filter {
        problems.push(format!(
            "log.level: {error}; use error, warn, info, debug or trace, or filters such as \
             info,tercet=debug"
        ));
    }
}

fn check_housekeeping(config: &Config, problems: &mut Vec<String>) {
    let (gc, retention, scrub) = (&config.gc, &config.retention, &config.scrub);
    let periods = [
        ("gc.interval_seconds", gc.interval_seconds),
        ("gc.orphan_grace_seconds", gc.orphan_grace_seconds),
        ("retention.interval_seconds", retention.interval_seconds),
        ("scrub.period_days", u64::from(scrub.period_days)),
        ("scrub.bytes_per_second", scrub.bytes_per_second),
    ];
    for (key, value) in periods {
        if value == 0 {
            problems.push(format!("{key} is 0; use at least 1"));
        }
    }
    let lengths = [
        ("gc.grace_seconds", gc.grace_seconds),
        ("gc.orphan_grace_seconds", gc.orphan_grace_seconds),
        ("gc.interval_seconds", gc.interval_seconds),
        ("retention.interval_seconds", retention.interval_seconds),
    ];
    for (key, value) in lengths {
        if Duration::from_secs(value) > DURATION_MAX {
            problems.push(format!("{key} is longer than a year; use less"));
        }
    }
    for (index, rule) in retention.rules.iter().enumerate() {
        if rule.name.is_empty() || retention.rules.iter().take(index).any(|r| r.name == rule.name) {
            problems.push(format!(
                "retention.rules[{index}].name `{}` is empty or taken; reports need a name for each rule",
                rule.name
            ));
        }
    }
}

fn check_members(config: &Config, problems: &mut Vec<String>) {
    let members = &config.cluster.members;
    for (index, member) in members.iter().enumerate() {
        let earlier = members.iter().take(index);
        for other in earlier {
            if other.name == member.name {
                problems.push(format!(
                    "cluster.members names `{}` twice; every replica needs a name of its own",
                    member.name
                ));
            }
            if other.address == member.address {
                problems.push(format!(
                    "cluster.members gives `{}` and `{}` the same address {}",
                    other.name, member.name, member.address
                ));
            }
        }
    }
    if config.cluster.replication_factor == 0 {
        problems.push(
            "cluster.replication_factor is 0; keep each blob on at least 1 replica, 3 to outlive \
             the loss of one"
                .to_owned(),
        );
    }
}

fn check_timing(config: &Config, problems: &mut Vec<String>) {
    let cluster = &config.cluster;
    if cluster.heartbeat_ms == 0 || cluster.heartbeat_ms * 2 > cluster.election_timeout_min_ms {
        problems.push(format!(
            "cluster.election_timeout_min_ms ({}) has to be at least twice cluster.heartbeat_ms \
             ({}), or a late heartbeat costs an election",
            cluster.election_timeout_min_ms, cluster.heartbeat_ms
        ));
    }
    if cluster.election_timeout_min_ms >= cluster.election_timeout_max_ms {
        problems.push(format!(
            "cluster.election_timeout_max_ms ({}) has to be greater than \
             cluster.election_timeout_min_ms ({}), or candidates stand at the same moment",
            cluster.election_timeout_max_ms, cluster.election_timeout_min_ms
        ));
    }
}

fn check_listeners(config: &Config, problems: &mut Vec<String>) {
    let mut listeners = vec![
        ("registry.listen", config.registry.listen),
        ("peer.listen", config.peer.listen),
        ("ops.listen", config.ops.listen),
    ];
    if config.webhook.tls.is_some() {
        listeners.push(("webhook.listen", config.webhook.listen));
    }
    for (index, (name, address)) in listeners.iter().enumerate() {
        for (other, taken) in listeners.iter().take(index) {
            if address.port() != 0 && collide(*address, *taken) {
                problems.push(format!(
                    "{name} and {other} are both on port {}; give each listener its own",
                    address.port()
                ));
            }
        }
    }
    if let Some(advertise) = &config.peer.advertise
        && let Err(problem) = peer_url(advertise)
    {
        problems.push(format!("peer.advertise: {problem}"));
    }
    let reachable = config.peer_address();
    if host_of(&reachable).is_some_and(|host| host == "0.0.0.0" || host == "::") {
        problems.push(format!(
            "other replicas cannot reach {reachable}; set peer.advertise, or add this replica's \
             name and URL to cluster.members"
        ));
    }
}

fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port()
        && (left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified())
}

fn check_peer_security(config: &Config, problems: &mut Vec<String>) {
    let addresses = config
        .cluster
        .members
        .iter()
        .map(|member| ("cluster.members", member.address.as_str()))
        .chain(config.peer.advertise.as_deref().map(|url| ("peer.advertise", url)));
    match &config.peer.tls {
        None => {
            if !config.peer.listen.ip().is_loopback() {
                problems.push(plain_refused(&format!("peer.listen is {}", config.peer.listen)));
            }
            for (key, address) in addresses {
                if address.starts_with("https:") {
                    problems.push(format!(
                        "{key} has {address}, but this replica has no [peer.tls]; {CERTIFICATES}"
                    ));
                } else if !is_loopback(address) {
                    problems.push(plain_refused(&format!("{key} has {address}")));
                }
            }
        }
        Some(tls) => {
            for (key, address) in addresses {
                if address.starts_with("http:") {
                    problems.push(format!(
                        "{key} has {address}, but [peer.tls] is set; write https:// for every \
                         replica"
                    ));
                }
            }
            for (key, path) in
                [("ca", &tls.ca), ("certificate", &tls.certificate), ("key", &tls.key)]
            {
                if path.as_os_str().is_empty() {
                    problems.push(format!("peer.tls.{key} is missing; {CERTIFICATES}"));
                } else if let Err(error) = std::fs::File::open(path) {
                    problems.push(format!(
                        "peer.tls.{key}: cannot read {}: {error}; {CERTIFICATES}",
                        path.display()
                    ));
                }
            }
        }
    }
}

const CERTIFICATES: &str = "make certificates with `tercet certs new --dir DIR --name NAME --host \
                            HOST` for every replica, and set peer.tls.ca, peer.tls.certificate \
                            and peer.tls.key";

fn plain_refused(what: &str) -> String {
    format!(
        "{what}, which is not loopback, and plain HTTP between replicas would let anybody on the \
         network write to the registry; {CERTIFICATES}, with https:// in cluster.members"
    )
}

fn is_loopback(url: &str) -> bool {
    host_of(url).is_some_and(|host| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(uri.host()?.trim_matches(['[', ']']).to_owned())
}

fn check_limits(limits: &Limits, problems: &mut Vec<String>) {
    let above_zero = [
        ("manifest_bytes", limits.manifest_bytes as u64),
        ("manifest_descriptors", limits.manifest_descriptors as u64),
        ("uploads_max", limits.uploads_max as u64),
        ("upload_idle_seconds", limits.upload_idle_seconds),
        ("connections_max", limits.connections_max as u64),
        ("header_timeout_ms", limits.header_timeout_ms),
        ("first_byte_timeout_ms", limits.first_byte_timeout_ms),
        ("idle_timeout_ms", limits.idle_timeout_ms),
        ("write_stall_ms", limits.write_stall_ms),
        ("page_size_max", limits.page_size_max as u64),
        ("peer_streams_max", limits.peer_streams_max as u64),
        ("repair_parallel", limits.repair_parallel as u64),
        ("holder_stall_ms", limits.holder_stall_ms),
    ];
    for (name, value) in above_zero {
        if value == 0 {
            problems.push(format!("limits.{name} is 0; use 1 or more"));
        }
    }
    if limits.manifest_bytes > MANIFEST_BYTES_MAX {
        problems.push(format!(
            "limits.manifest_bytes is {}; the most is {MANIFEST_BYTES_MAX}, because manifests are \
             kept in the Raft log",
            limits.manifest_bytes
        ));
    }
    let repair = limits.repair_bytes_per_second;
    if repair > 0 && repair < REPAIR_RATE_MIN {
        problems.push(format!(
            "limits.repair_bytes_per_second is {repair}; use {REPAIR_RATE_MIN} or more, so that a peer \
             that sends a blob does not take this replica for a dead one, or 0 for no bound"
        ));
    }
    let (warn, stop, refuse) =
        (limits.disk_warn_percent, limits.disk_repair_stop_percent, limits.disk_refuse_percent);
    if !(warn <= stop && stop <= refuse && refuse <= 100) {
        problems.push(format!(
            "limits.disk_warn_percent ({warn}), disk_repair_stop_percent ({stop}) and \
             disk_refuse_percent ({refuse}) have to rise in this order, up to 100"
        ));
    }
    // Far enough from overflow that a deadline can be added to any instant.
    for (name, value) in [
        ("upload_idle_seconds", limits.upload_idle()),
        ("surplus_after_seconds", limits.surplus_after()),
        ("header_timeout_ms", limits.header_timeout()),
        ("first_byte_timeout_ms", limits.first_byte_timeout()),
        ("idle_timeout_ms", limits.idle_timeout()),
        ("write_stall_ms", limits.write_stall()),
        ("holder_stall_ms", limits.holder_stall()),
        ("drain_seconds", limits.drain()),
    ] {
        if value > DURATION_MAX {
            problems.push(format!("limits.{name} is longer than a year; use less"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        config.node.name = "tercet-0".into();
        change(&mut config);
        check(&config).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn the_defaults_are_usable() {
        assert_eq!(problems(|_| {}), "");
    }

    #[test]
    fn plain_http_between_replicas_is_refused_off_loopback() {
        let text = problems(|config| config.peer.listen = "0.0.0.0:5001".parse().unwrap());
        assert!(text.contains("tercet certs new --dir DIR"), "{text}");
        let text = problems(|config| {
            config.cluster.members = vec!["tercet-0=http://10.0.0.1:5001".parse().unwrap()];
        });
        assert!(text.contains("not loopback"), "{text}");
        let text = problems(|config| {
            config.cluster.members = vec![
                "a=http://[::1]:5001".parse().unwrap(),
                "b=http://localhost:1".parse().unwrap(),
            ];
        });
        assert_eq!(text, "");
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = problems(|config| {
            config.node.name = "no/slash".into();
            config.ops.listen = config.registry.listen;
            config.limits.uploads_max = 0;
        });
        assert_eq!(text.matches("\n  - ").count(), 3, "{text}");
    }

    #[test]
    fn an_address_nobody_can_dial_is_refused() {
        let text = problems(|config| {
            config.peer.listen = "0.0.0.0:5001".parse().unwrap();
            config.peer.tls = Some(crate::config::PeerTls::default());
        });
        assert!(text.contains("set peer.advertise"), "{text}");
    }

    #[test]
    fn a_url_has_scheme_host_and_port_only() {
        for good in ["http://127.0.0.1:5001", "https://tercet-0.peers:5001", "http://[::1]:1"] {
            assert_eq!(peer_url(good), Ok(()), "{good}");
        }
        for bad in ["", "127.0.0.1:5001", "http://h", "ftp://h:1", "http://h:1/p", "http://u@h:1"] {
            assert!(peer_url(bad).is_err(), "{bad}");
        }
    }
}
