//! Partitions of every shape. All of them are undone by [`Network::heal`], and by the end of the namespace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::network::{HUB, Network, filter};

/// Which of a host's packets vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// What it sends: it hears everybody, and nobody hears it.
    Outbound,
    /// What is sent to it: it talks into the void.
    Inbound,
}

impl Side {
    /// Its word in reports.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl Network {
    fn others(&self, host: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.hosts().len()).filter(move |other| *other != host)
    }

    /// One side of a host falls silent towards all other hosts. Clients still reach it.
    pub(crate) fn cut_side(&self, host: usize, side: Side) -> Result<()> {
        for other in self.others(host) {
            match side {
                Side::Outbound => self.cut_one_way(host, other)?,
                Side::Inbound => self.cut_one_way(other, host)?,
            }
        }
        Ok(())
    }

    /// Packets pass between the two again, in both directions.
    pub(crate) fn join(&self, one: usize, other: usize) -> Result<()> {
        self.join_one_way(one, other)?;
        self.join_one_way(other, one)
    }

    /// A host and all others reach each other again.
    pub(crate) fn join_all(&self, host: usize) -> Result<()> {
        self.others(host).try_for_each(|other| self.join(host, other))
    }

    /// The two do not reach each other, and all others reach both.
    pub(crate) fn bridge(&self, one: usize, other: usize) -> Result<()> {
        ensure!(self.hosts().len() > 2, "a bridge needs somebody in the middle");
        self.cut(one, other)
    }

    /// A link that comes and goes: `off`, then `on`, again and again for about `time`. Ends joined. Returns how often it
    /// was cut.
    pub(crate) async fn flap(
        &self,
        links: &[(usize, usize)],
        off: Duration,
        on: Duration,
        time: Duration,
    ) -> Result<u64> {
        let end = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < end {
            links.iter().try_for_each(|(one, other)| self.cut(*one, *other))?;
            sleep(off).await;
            links.iter().try_for_each(|(one, other)| self.join(*one, *other))?;
            sleep(on).await;
            count += 1;
        }
        Ok(count)
    }

    /// Clients do not reach a host's registry any more; other replicas do, and so does who looks at its health.
    pub(crate) fn shut_out_clients(&self, host: usize, registry: &str) -> Result<()> {
        self.hurts();
        let port = port_of(registry)?;
        filter(self.host(host)?, &format!("add element inet chaos shut {{ {port} }}\n"))
    }

    /// Undoes [`Self::shut_out_clients`].
    pub(crate) fn let_clients_in(&self, host: usize) -> Result<()> {
        filter(self.host(host)?, "flush set inet chaos shut\n")
    }

    /// Of the packets that other hosts send to this one, so many percent vanish, by chance.
    pub(crate) fn lose(&self, host: usize, percent: u8) -> Result<()> {
        ensure!(percent <= 100, "{percent} percent");
        self.hurts();
        let rule =
            format!("ip saddr != {HUB} numgen random mod 100 < {percent} counter name lost drop");
        filter(
            self.host(host)?,
            &format!("flush chain inet chaos loss\nadd rule inet chaos loss {rule}\n"),
        )
    }

    /// Undoes [`Self::lose`].
    pub(crate) fn lose_nothing(&self, host: usize) -> Result<()> {
        filter(self.host(host)?, "flush chain inet chaos loss\n")
    }

    /// New connections of `from` to a port of `to` go to this port where clients are: a proxy may stand there. Its
    /// own connection to `to` is no concern of the packet filters of either, so `from`'s end of it is what cuts hit.
    pub(crate) fn detour(&self, from: usize, to: usize, port: u16, through: u16) -> Result<()> {
        let address = self.host(to)?.address;
        let rule = format!("ip daddr {address} tcp dport {port} dnat ip to {HUB}:{through}");
        filter(self.host(from)?, &format!("add rule inet chaos detour {rule}\n"))
    }
}

/// The port of a URL that names it.
pub(crate) fn port_of(url: &str) -> Result<u16> {
    let port = url.trim_end_matches('/').rsplit_once(':').map(|(_, port)| port);
    port.and_then(|port| port.parse().ok()).with_context(|| format!("{url} names no port"))
}
