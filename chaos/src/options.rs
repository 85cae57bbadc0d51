//! How a cluster is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::Result;

use crate::{network::Host, replica::Replica, turn::Share, users::User};

/// The name of the user file in a cluster's folder.
const HTPASSWD: &str = "htpasswd";

/// A listener that can speak HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    /// Where registry clients go.
    Registry,
    /// Health, metrics and status.
    Ops,
}

impl Listener {
    /// Its section of the configuration.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Ops => "ops",
        }
    }
}

/// What a cluster shall be like. In settings, further configuration and files, `{folder}` stands for the
/// cluster's own folder, where the files lie, and `{name}` for the replica's name.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many replicas.
    pub replicas: usize,
    /// How many more may come later: on hosts, these have to be there from the start, with their certificates.
    pub(crate) later: usize,
    /// How much of the machine.
    pub share: Share,
    /// Settings: section -> key -> value as TOML writes it.
    settings: BTreeMap<String, BTreeMap<String, String>>,
    /// TOML that is appended to every replica's configuration.
    extra: String,
    /// Name -> content.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) tls: BTreeSet<Listener>,
    /// Who the driver's own clients log in as.
    pub(crate) user: Option<User>,
    /// Where the registry listens.
    pub(crate) place: Place,
    /// Where replicas have hosts of their own: one for each.
    pub(crate) hosts: Vec<Host>,
    /// Base URLs of the peer listeners, where they are not the driver's to choose.
    pub(crate) peers: Vec<String>,
    pub(crate) way: Way,
}

/// How replicas reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each at its own peer listener.
    Straight,
    /// Through a proxy of the harness before each peer listener.
    Proxied,
}

/// Which of the machine's addresses the registry listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody else reaches it.
    Loopback,
    /// Several clients let a registry on loopback do what they refuse others: plain HTTP, unknown authorities.
    Network,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            replicas: 3,
            later: 0,
            share: Share::Some,
            settings: BTreeMap::new(),
            extra: String::new(),
            files: BTreeMap::new(),
            tls: BTreeSet::new(),
            user: None,
            place: Place::Loopback,
            hosts: Vec::new(),
            peers: Vec::new(),
            way: Way::Straight,
        }
    }
}

impl ClusterOptions {
    /// What a registry in use looks like: HTTPS with a certificate of an authority of its own; Alice may do
    /// everything, Bob may pull, nobody else has a name. The driver's clients are Alice.
    pub fn secured() -> Self {
        Self::default()
            .tls(Listener::Registry)
            .users(&[User::ALICE, User::BOB])
            .rule("user:alice", "**", &["*"])
            .rule("user:bob", "**", &["pull"])
            .client_user(User::ALICE)
    }

    /// With one more setting; `value` as TOML writes it.
    #[must_use]
    pub fn setting(mut self, section: &str, key: &str, value: &str) -> Self {
        let section = self.settings.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Scrub reads as fast as the disk: what a full form holds would take the usual pace many minutes.
    #[must_use]
    pub fn scrubs_at_once(self) -> Self {
        self.setting("scrub", "bytes_per_second", &(1_u64 << 32).to_string())
    }

    /// With TOML at the end of every replica's configuration, such as `[[access.robots]]` tables. A section
    /// that the driver writes itself (`[registry]`, `[ops]`, …) takes its keys through [`Self::setting`].
    #[must_use]
    pub fn extra_config(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    /// With one more of `[[access.rules]]`.
    #[must_use]
    pub fn rule(self, subject: &str, repositories: &str, actions: &[&str]) -> Self {
        self.extra_config(&format!(
            "[[access.rules]]\nsubject = {subject:?}\nrepositories = [{repositories:?}]\n\
             actions = {actions:?}"
        ))
    }

    /// With a file in the cluster's folder.
    #[must_use]
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.insert(name.to_owned(), content.to_owned());
        self
    }

    /// With HTTPS on a listener; [`crate::Cluster::authority`] has made the certificates.
    #[must_use]
    pub fn tls(mut self, listener: Listener) -> Self {
        let section = format!("{}.tls", listener.section());
        self.tls.insert(listener);
        self.setting(&section, "certificate", "\"{folder}/tls/{name}.pem\"").setting(
            &section,
            "key",
            "\"{folder}/tls/{name}.key\"",
        )
    }

    /// With these users in the htpasswd file `{folder}/htpasswd`.
    #[must_use]
    pub fn users(self, users: &[User]) -> Self {
        let lines: String = users.iter().map(User::htpasswd_line).collect();
        self.file(HTPASSWD, &lines).setting("access", "htpasswd", "\"{folder}/htpasswd\"")
    }

    /// With registries on this machine's network address, where clients are as strict as with any other.
    #[must_use]
    pub fn on_network(mut self) -> Self {
        self.place = Place::Network;
        self
    }

    /// With these base URLs of the peer listeners, as the data of an older cluster names them.
    #[must_use]
    pub fn peers_at(mut self, urls: &[&str]) -> Self {
        self.peers = urls.iter().map(|&url| url.to_owned()).collect();
        self
    }

    /// Replicas reach each other where a proxy of the harness has to stand: see [`crate::nemesis::Links`].
    #[must_use]
    pub(crate) fn through_proxies(mut self) -> Self {
        self.way = Way::Proxied;
        self
    }

    /// Each replica on a host of its own; hosts beyond those are for replicas that come later. They talk TLS to each other,
    /// and let everybody do everything, unless the clients have a name to log in with.
    #[must_use]
    pub fn on_hosts(mut self, hosts: &[Host]) -> Self {
        self.hosts = hosts.to_vec();
        let ruled = if self.user.is_none() { self.rule("anonymous", "**", &["*"]) } else { self };
        ruled
            .setting("peer.tls", "ca", "\"{folder}/tls/ca.pem\"")
            .setting("peer.tls", "certificate", "\"{folder}/tls/{name}.pem\"")
            .setting("peer.tls", "key", "\"{folder}/tls/{name}.key\"")
    }

    /// This many replicas.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// So many more replicas may come later ([`crate::Cluster::grow`]), also where each has a host of its own.
    #[must_use]
    pub(crate) fn with_room_for(mut self, later: usize) -> Self {
        self.later = later;
        self
    }

    /// The driver's clients log in as this user.
    #[must_use]
    pub fn client_user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// With the machine for itself.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.share = Share::All;
        self
    }

    /// A replica's configuration file.
    pub(crate) fn config_text(&self, replica: &Replica, all: &[Replica]) -> Result<String> {
        let members: Vec<String> =
            all.iter().map(|member| format!("\"{}={}\"", member.name, member.advertised)).collect();
        let address = |url: &str| {
            let host = url.split_once("://").map_or(url, |(_, host)| host);
            format!("\"{host}\"")
        };
        let mut sections = self.settings.clone();
        let mut set = |section: &str, key: &str, value: String| {
            sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value);
        };
        set("node", "name", format!("\"{}\"", replica.name));
        set("node", "data_dir", format!("{:?}", replica.data_dir));
        set("cluster", "members", format!("[{}]", members.join(", ")));
        set("registry", "listen", address(&replica.registry));
        set("peer", "listen", address(&replica.peer));
        set("peer", "advertise", format!("\"{}\"", replica.advertised));
        set("ops", "listen", address(&replica.ops));
        let mut text = String::new();
        for (section, keys) in &sections {
            writeln!(text, "[{section}]")?;
            for (key, value) in keys {
                writeln!(text, "{key} = {value}")?;
            }
        }
        text.push_str(&self.extra);
        let folder = replica.config.parent().unwrap_or(&replica.config).display().to_string();
        Ok(text.replace("{folder}", &folder).replace("{name}", &replica.name))
    }
}
