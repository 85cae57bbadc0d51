//! Port numbers that no other cluster and no outgoing connection takes.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result, bail};

/// Ports in one block: a `tercet dev` of three replicas spreads over 24.
const BLOCK_PORTS: u16 = 32;
/// Below 32768, where Linux takes the ports of outgoing connections from: a port of that range could
/// be gone by the time a killed replica wants it back, or a client could even connect to itself.
const FIRST: u16 = 18_000;
const BLOCKS: u16 = 400;
/// Some address that is not this machine's (RFC 5737: it belongs to nobody).
const ELSEWHERE: &str = "198.51.100.1:9";

/// A run of ports held for one cluster, across threads and processes, until dropped.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    /// The lock on this file is the reservation; the kernel drops it with the process.
    _lock: File,
}

impl PortBlock {
    /// Reserves a block of which every port of loopback can be bound right now.
    pub fn reserve() -> Result<Self> {
        Self::reserve_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// As [`Self::reserve`], of loopback and of one address more.
    pub(crate) fn reserve_on(address: IpAddr) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("tercet-chaos-ports");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let seed = u16::try_from(process::id() % u32::from(BLOCKS)).unwrap_or(0);
        for _ in 0..BLOCKS {
            let block = (seed + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS) % BLOCKS;
            let first = FIRST + block * BLOCK_PORTS;
            let path = folder.join(first.to_string());
            let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
            if file.try_lock().is_ok() && all_free(first, address) {
                return Ok(Self { first, _lock: file });
            }
        }
        bail!("no free block of {BLOCK_PORTS} ports from {FIRST} on")
    }

    /// The block's first port; the following `32 - 1` are reserved too.
    pub fn first(&self) -> u16 {
        self.first
    }
}

/// The address that this machine has on its network. No packet is sent: the kernel is asked for its route.
pub(crate) fn network_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let address = socket.connect(ELSEWHERE).and_then(|()| socket.local_addr());
    let address = address.context("this machine has no network address besides loopback")?;
    Ok(address.ip())
}

fn all_free(first: u16, address: IpAddr) -> bool {
    let is_free = |address: IpAddr, port| TcpListener::bind((address, port)).is_ok();
    // Some of a cluster's listeners are always on loopback.
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    (first..first + BLOCK_PORTS).all(|port| is_free(loopback, port) && is_free(address, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_taken_on_either_address_is_not_free() {
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let block = PortBlock::reserve_on(other).unwrap();
        for address in [other, IpAddr::V4(Ipv4Addr::LOCALHOST)] {
            let taken = TcpListener::bind((address, block.first() + 1)).unwrap();
            assert!(!all_free(block.first(), other), "{address}");
            drop(taken);
            assert!(all_free(block.first(), other), "{address}");
        }
    }

    #[test]
    fn two_reservations_never_overlap() {
        let one = PortBlock::reserve().unwrap();
        let two = PortBlock::reserve().unwrap();
        assert!(one.first().abs_diff(two.first()) >= BLOCK_PORTS);
    }
}
