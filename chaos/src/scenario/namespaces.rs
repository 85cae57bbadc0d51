//! Namespaces of its own for the process of a scenario: what is changed in them is gone with it.

use std::{
    fmt::{self, Display, Formatter},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
};

use anyhow::{Context, Error, Result, bail};

use super::Needs;
use crate::{
    network::FILTER,
    tools::{Tool, is_root},
};

/// One of everything that hosts are made of, in a namespace that ends with it.
const NETWORK_TRIAL: &str = "PATH=$PATH:/usr/sbin:/sbin && ip link add chaos0 type bridge && \
                             ip link add chaos1 type veth peer name chaos2 && \
                             nsenter --net=/proc/self/ns/net nft -f -";
const FUSE_DEVICE: &str = "/dev/fuse";
/// What a run says that cannot be one.
const NO_ROOT: &str = "this scenario wants root, and this program does not run as root";
const NO_HOSTS: &str = "this scenario wants a network namespace for each replica, and there can be none here: that takes \
                        root, `ip`, `nft`, `nsenter`, `unshare`, and a kernel that lets them";
const NO_MOUNTS: &str = "this scenario wants a mount namespace for the disks of its replicas, and there can be none here: \
                         that takes root, `unshare`, and a kernel that lets it";
const NO_FUSE: &str =
    "this scenario mounts file systems of its own, and there is no /dev/fuse here";

/// Which namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Of the network: each replica gets a host with an address of its own.
    pub network: bool,
    /// Of mounts: replicas can have disks of their own.
    pub mounts: bool,
}

impl Namespaces {
    /// Those that this program can have on this machine, found out by making some.
    pub fn at_hand() -> Self {
        if !is_root() {
            return Self::default();
        }
        Self {
            network: succeeds(&["--net", "sh", "-c", NETWORK_TRIAL], FILTER),
            mounts: succeeds(&["--mount", "true"], ""),
        }
    }

    /// Those of these that the process of a scenario gets.
    #[must_use]
    pub fn of(self, needs: Needs) -> Self {
        let network = !matches!(needs, Needs::Loopback(_));
        let mounts = matches!(needs, Needs::Mounts | Needs::Fuse | Needs::NetworkAndFuse);
        Self { network: self.network && network, mounts: self.mounts && mounts }
    }

    /// The arguments of `unshare` that make them; none if there are none.
    pub fn arguments(self) -> Vec<&'static str> {
        let both = [(self.network, "--net"), (self.mounts, "--mount")];
        both.into_iter().filter_map(|(wanted, argument)| wanted.then_some(argument)).collect()
    }

    /// Where replicas live then, for a report.
    pub fn homes(self) -> &'static str {
        if self.network {
            "each in a network namespace with an address of its own"
        } else {
            "plain processes on loopback"
        }
    }
}

impl Needs {
    /// Why a scenario cannot be run with these namespaces.
    pub(crate) fn missing(self, has: Namespaces) -> Option<&'static str> {
        let network = (!has.network).then_some(NO_HOSTS);
        let mounts = (!has.mounts).then_some(NO_MOUNTS);
        let fuse = (!Path::new(FUSE_DEVICE).exists()).then_some(NO_FUSE);
        match self {
            Self::Nothing | Self::Loopback(_) => None,
            Self::Root => (!is_root()).then_some(NO_ROOT),
            Self::Network => network,
            Self::Mounts => mounts,
            Self::Fuse => mounts.or(fuse),
            Self::NetworkAndFuse => network.or(mounts).or(fuse),
        }
    }
}

/// As the process of a scenario is told of them: `network,mounts`, or `none`.
impl Display for Namespaces {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match (self.network, self.mounts) {
            (true, true) => "network,mounts",
            (true, false) => "network",
            (false, true) => "mounts",
            (false, false) => "none",
        })
    }
}

impl FromStr for Namespaces {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut namespaces = Self::default();
        for word in text.split(',') {
            match word {
                "network" => namespaces.network = true,
                "mounts" => namespaces.mounts = true,
                "none" => {}
                other => bail!("{other} is no kind of namespace"),
            }
        }
        Ok(namespaces)
    }
}

/// Whether `unshare` with these arguments ends well.
fn succeeds(arguments: &[&str], input: &str) -> bool {
    attempt(arguments, input).unwrap_or(false)
}

fn attempt(arguments: &[&str], input: &str) -> Result<bool> {
    let mut command = Command::new(Tool::find("unshare")?.path());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("start unshare")?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already reads nothing.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child.wait().context("wait for unshare")?.success())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: Namespaces = Namespaces { network: true, mounts: true };
    const NONE: Namespaces = Namespaces { network: false, mounts: false };

    #[test]
    fn what_is_said_is_read_again() {
        for (network, mounts) in [(true, true), (true, false), (false, true), (false, false)] {
            let namespaces = Namespaces { network, mounts };
            assert_eq!(namespaces.to_string().parse::<Namespaces>().unwrap(), namespaces);
        }
        assert!("user".parse::<Namespaces>().is_err());
    }

    #[test]
    fn hosts_are_for_all_who_do_not_want_loopback_and_only_who_needs_them_misses_them() {
        assert_eq!(ALL.of(Needs::Nothing).arguments(), ["--net"]);
        assert_eq!(ALL.of(Needs::Fuse).arguments(), ["--net", "--mount"]);
        assert!(ALL.of(Needs::Loopback("reason")).arguments().is_empty());
        assert!(NONE.of(Needs::NetworkAndFuse).arguments().is_empty());
        assert_eq!(Needs::Nothing.missing(NONE), None);
        assert_eq!(Needs::Loopback("reason").missing(NONE), None);
        assert_eq!(Needs::Network.missing(ALL), None);
        assert_eq!(Needs::Network.missing(NONE), Some(NO_HOSTS));
        assert_eq!(Needs::Mounts.missing(NONE), Some(NO_MOUNTS));
        assert_eq!(Needs::NetworkAndFuse.missing(NONE), Some(NO_HOSTS));
    }
}
