//! The links of a cluster, each with a proxy on it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result};

use super::{
    partition::port_of,
    proxy::{Proxy, Traffic, Weather},
};
use crate::{
    cluster::Cluster,
    network::{HUB, Network},
};

/// Who is at the near end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Near {
    /// Clients.
    Clients,
    /// All other replicas: on one host they cannot be told apart.
    Peers,
    /// One replica, on a host of its own.
    Replica(usize),
}

/// The proxies of a cluster, by who connects and to which replica.
#[derive(Debug, Default)]
pub(crate) struct Links {
    proxies: BTreeMap<(Near, usize), Proxy>,
}

impl Links {
    /// Stands between all replicas of a cluster that was made with
    /// [`ClusterOptions::through_proxies`](crate::ClusterOptions). No replica may run yet: there must be somebody where
    /// they look for each other.
    pub(crate) fn stand_between_peers(&mut self, cluster: &Cluster, seed: u64) -> Result<()> {
        for index in 0..cluster.len() {
            let replica = cluster.replica(index);
            let listen = address_of(&replica.advertised)?;
            let proxy = Proxy::start(listen, address_of(&replica.peer)?, seed ^ index as u64)?;
            self.proxies.insert((Near::Peers, index), proxy);
        }
        Ok(())
    }

    /// Stands between each two replicas that have hosts of their own, which do not notice: TLS goes through from end
    /// to end. No replica may run yet.
    pub(crate) fn stand_between_hosts(
        &mut self,
        cluster: &Cluster,
        network: &Network,
        seed: u64,
    ) -> Result<()> {
        for to in 0..cluster.len() {
            let target = address_of(&cluster.replica(to).peer)?;
            for from in (0..cluster.len()).filter(|from| *from != to) {
                let seed = seed ^ (from * cluster.len() + to) as u64;
                let proxy = Proxy::start(SocketAddr::new(IpAddr::V4(HUB), 0), target, seed)?;
                network.detour(from, to, target.port(), proxy.address().port())?;
                self.proxies.insert((Near::Replica(from), to), proxy);
            }
        }
        Ok(())
    }

    /// Stands between clients and every replica. Clients that are made from now on go through.
    pub(crate) fn stand_before_clients(&mut self, cluster: &mut Cluster, seed: u64) -> Result<()> {
        for index in 0..cluster.len() {
            let target = address_of(&cluster.replica(index).registry)?;
            let listen = if target.ip().is_loopback() { target.ip() } else { IpAddr::V4(HUB) };
            let proxy = Proxy::start(SocketAddr::new(listen, 0), target, !seed ^ index as u64)?;
            cluster.set_front(index, format!("http://{}", proxy.address()));
            self.proxies.insert((Near::Clients, index), proxy);
        }
        Ok(())
    }

    /// The proxies of the links between replicas that end at this one.
    pub(crate) fn to_replica(&self, index: usize) -> impl Iterator<Item = &Proxy> {
        let wanted =
            move |(near, to): &(Near, usize)| *to == index && !matches!(near, Near::Clients);
        self.proxies.iter().filter(move |(ends, _)| wanted(ends)).map(|(_, proxy)| proxy)
    }

    /// The proxies of all links between replicas.
    pub(crate) fn between_replicas(&self) -> impl Iterator<Item = &Proxy> {
        let wanted = |(near, _): &(Near, usize)| !matches!(near, Near::Clients);
        self.proxies.iter().filter(move |(ends, _)| wanted(ends)).map(|(_, proxy)| proxy)
    }

    /// The proxies on all links of a replica with other replicas, whoever connects. Where replicas cannot be told
    /// apart, those that end there.
    pub(crate) fn of_replica(&self, index: usize) -> impl Iterator<Item = &Proxy> {
        let wanted = move |(near, to): &(Near, usize)| match near {
            Near::Clients => false,
            Near::Peers => *to == index,
            Near::Replica(from) => *to == index || *from == index,
        };
        self.proxies.iter().filter(move |(ends, _)| wanted(ends)).map(|(_, proxy)| proxy)
    }

    /// The proxy between clients and a replica.
    pub(crate) fn before_clients(&self, index: usize) -> Result<&Proxy> {
        let found = self.proxies.get(&(Near::Clients, index));
        found.with_context(|| format!("no proxy stands between clients and replica {index}"))
    }

    /// The same weather on some links, both ways.
    pub(crate) fn set<'a>(proxies: impl Iterator<Item = &'a Proxy>, weather: &Weather) {
        proxies.for_each(|proxy| proxy.set_both(weather));
    }

    /// Fair weather everywhere.
    pub(crate) fn clear(&self) {
        self.proxies.values().for_each(Proxy::clear);
    }

    /// What has passed all links between replicas.
    pub(crate) fn peer_traffic(&self) -> Traffic {
        self.between_replicas().map(Proxy::traffic).fold(Traffic::default(), |sum, one| Traffic {
            connections: sum.connections + one.connections,
            bytes: sum.bytes + one.bytes,
            corrupted: sum.corrupted + one.corrupted,
            resets: sum.resets + one.resets,
        })
    }
}

/// Where a base URL with an address and a port points.
fn address_of(url: &str) -> Result<SocketAddr> {
    let host = url.split_once("://").map_or(url, |(_, host)| host).trim_end_matches('/');
    let port = port_of(url)?;
    let address = host.rsplit_once(':').map_or(host, |(address, _)| address);
    let address: IpAddr = address.parse().with_context(|| format!("{url} names no address"))?;
    Ok(SocketAddr::new(address, port))
}
