//! How many replicas and which ports: decided on the first start, kept for every later one.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};

use super::layout::{Layout, ReplicaPlan};
use crate::exit::{Exit, Failure, OrExit};

/// Ports between the first of one replica and the first of the next.
const PORT_STRIDE: u16 = 10;

/// What a cluster's directory was made with. The members know each other by these addresses, so
/// they cannot change under a cluster that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    replicas: u16,
    port: u16,
}

impl Settings {
    const DEFAULT: Self = Self { replicas: 3, port: 5000 };

    /// Joins what is asked for with what the directory was made with.
    pub(super) fn settle(
        layout: &Layout,
        replicas: Option<u16>,
        port: Option<u16>,
    ) -> Result<Self, Failure> {
        let path = layout.settings();
        let kept = match std::fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice::<Self>(&bytes).map_err(|error| {
                Failure::new(Exit::Data, format!("{} is damaged: {error}", path.display()))
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).or_exit(Exit::Io),
        };
        let base = kept.unwrap_or(Self::DEFAULT);
        let settings =
            Self { replicas: replicas.unwrap_or(base.replicas), port: port.unwrap_or(base.port) };
        if let Some(kept) = kept
            && kept != settings
        {
            let message = format!(
                "{} holds a cluster of {} from port {}; resume it with --replicas {} --port {}, \
                 or choose another --dir",
                layout.dir().display(),
                kept.replicas,
                kept.port,
                kept.replicas,
                kept.port
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(settings)
    }

    /// Keeps the settings, before the first replica can have learnt an address from them.
    pub(super) fn remember(&self, layout: &Layout) -> Result<(), Failure> {
        let text = serde_json::to_vec(self).or_exit(Exit::Software)?;
        tercet_storage::atomic_write(&layout.settings(), &text).or_exit(Exit::Io)
    }

    /// The replicas with their names and addresses.
    pub(super) fn plan(&self, layout: &Layout) -> Result<Vec<ReplicaPlan>, Failure> {
        let last = u32::from(self.port) + u32::from(PORT_STRIDE) * u32::from(self.replicas - 1) + 3;
        if last > u32::from(u16::MAX) {
            let message = format!(
                "--port {} is too high: {} replicas need ports up to {last}, and there are {}",
                self.port,
                self.replicas,
                u16::MAX
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok((0..self.replicas)
            .map(|index| layout.plan(index, self.port + PORT_STRIDE * index))
            .collect())
    }
}

/// Tells in one sentence which port is in the way, before any process is started.
pub(super) fn check_ports(plans: &[ReplicaPlan]) -> Result<(), Failure> {
    for plan in plans {
        for (listener, address) in
            [("registry", plan.registry), ("peer", plan.peer), ("ops", plan.ops)]
        {
            if let Err(error) = TcpListener::bind(address) {
                let message = format!(
                    "cannot use port {} for the {listener} listener of {}: {error}; stop what \
                     uses it, or choose another --port",
                    address.port(),
                    plan.name
                );
                return Err(Failure::new(Exit::Unavailable, message));
            }
        }
    }
    Ok(())
}

/// An address on this machine.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_cluster_is_resumed_as_it_was_made_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let made = Settings::settle(&layout, Some(5), Some(6000)).unwrap();
        made.remember(&layout).unwrap();
        assert_eq!(Settings::settle(&layout, None, None).unwrap(), made);
        let refusal = Settings::settle(&layout, Some(3), None).unwrap_err();
        assert_eq!(refusal.exit, Exit::Usage);
        assert!(refusal.to_string().contains("--replicas 5 --port 6000"), "{refusal}");
    }

    #[test]
    fn ports_follow_from_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let plans = Settings { replicas: 2, port: 6000 }.plan(&layout).unwrap();
        assert_eq!(plans[1].name, "tercet-1");
        let ports = [plans[1].registry, plans[1].peer, plans[1].ops, plans[1].webhook]
            .map(|address| address.port());
        assert_eq!(ports, [6010, 6011, 6012, 6013]);
        assert!(Settings { replicas: 7, port: 65_500 }.plan(&layout).is_err());
    }

    #[test]
    fn a_taken_port_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let taken = TcpListener::bind(loopback(0)).unwrap();
        let mut plan = layout.plan(0, 1);
        (plan.registry, plan.peer, plan.ops) =
            (loopback(0), taken.local_addr().unwrap(), loopback(0));
        let refusal = check_ports(&[plan]).unwrap_err();
        assert_eq!(refusal.exit, Exit::Unavailable);
        assert!(refusal.to_string().contains("for the peer listener of tercet-0"), "{refusal}");
    }
}
