//! Hosts of their own for replicas: network namespaces on a bridge, and a packet filter in each.
//!
//! All of it lies inside a namespace that the running program has for itself (`tercet-chaos` starts itself again
//! with `unshare --net`), so nothing of the machine is touched, and everything is gone with the process.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    launch::Launch,
    not_shown::OrNotShown as _,
    tools::{Tool, require_root},
    wait::wait_until,
};

/// The bridge's own address: where clients are.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const FIRST_HOST: u8 = 10;
const BRIDGE: &str = "chaos0";
/// Name of each host's link at the bridge, before its number.
const LINK: &str = "host";
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Each host filters what it sends and what it takes: by the other side's address, by its own port, and by chance.
/// What is sent is filtered before a detour changes where it goes. What was dropped is counted.
pub(crate) const FILTER: &str = "table inet chaos {
    counter lost { }
    set take { type ipv4_addr; }
    set send { type ipv4_addr; }
    set shut { type inet_service; }
    chain loss { }
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr @take counter name lost drop
        tcp dport @shut counter name lost drop
        jump loss
    }
    chain output {
        type filter hook output priority -300; policy accept;
        ip daddr @send counter name lost drop
        tcp sport @shut counter name lost drop
    }
    chain detour { type nat hook output priority -100; policy accept; }
}
";

/// Where one replica lives.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its address on the bridge.
    pub address: IpAddr,
    /// Enters its namespace.
    pub(crate) launch: Launch,
}

/// A bridge with hosts, whose links can be cut one by one and in one direction.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    /// Hold the namespaces open; killed when dropped.
    holders: Vec<Child>,
    /// Whether packets ever were to be dropped.
    hurt: AtomicBool,
}

impl Network {
    /// A network of this many hosts.
    ///
    /// # Errors
    /// Without root, `ip`, `nft`, `nsenter` or `unshare`, or outside a namespace made for it.
    pub async fn start(count: u8) -> Result<Self> {
        require_root("a network of namespaces")?;
        // Only what `unshare --net` gave us may be rewired: it has no route to anywhere.
        let routes = fs::read_to_string("/proc/net/route")?.lines().count();
        ensure!(routes <= 1, "this namespace has routes: it is not one made for a scenario");
        let ip = Tool::find("ip")?;
        ip.run(&["link", "set", "lo", "up"]).await?;
        ip.run(&["link", "add", BRIDGE, "type", "bridge"]).await?;
        ip.run(&["address", "add", &format!("{HUB}/24"), "dev", BRIDGE]).await?;
        ip.run(&["link", "set", BRIDGE, "up"]).await?;
        let mut network =
            Self { hosts: Vec::new(), holders: Vec::new(), hurt: AtomicBool::new(false) };
        for number in 0..count {
            network.add(&ip, number).await?;
        }
        Ok(network)
    }

    async fn add(&mut self, ip: &Tool, number: u8) -> Result<()> {
        let mut command = Command::new(Tool::find("setpriv")?.path());
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]);
        let holder = command.stdin(Stdio::null()).spawn().context("make a namespace")?;
        let pid = holder.id();
        self.holders.push(holder);
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let ours = fs::read_link("/proc/self/ns/net")?;
        wait_until("a namespace is made", START_DEADLINE, || async {
            ensure!(fs::read_link(&namespace)? != ours, "it is still ours");
            Ok(())
        })
        .await?;
        let (link, pid) = (format!("{LINK}{number}"), pid.to_string());
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", pid.as_str()];
        ip.run(&[["link", "add", &link].as_slice(), pair.as_slice()].concat()).await?;
        ip.run(&["link", "set", &link, "master", BRIDGE, "up"]).await?;
        let address = Ipv4Addr::new(10, 99, 0, FIRST_HOST + number);
        let enter = format!("--net={}", namespace.display());
        let nsenter = Tool::find("nsenter")?;
        let inside = nsenter.clone().first(&[&enter, "ip"]);
        inside.run(&["link", "set", "lo", "up"]).await?;
        inside.run(&["address", "add", &format!("{address}/24"), "dev", "eth0"]).await?;
        inside.run(&["link", "set", "eth0", "up"]).await?;
        let path = nsenter.path().display().to_string();
        let host = Host {
            address: IpAddr::V4(address),
            launch: Launch::default().through(&[&path, &enter]),
        };
        filter(&host, FILTER)?;
        self.hosts.push(host);
        Ok(())
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// No packet of `from` reaches `to` any more. Connections are not reset: packets just vanish.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        self.hurts();
        let (from, to) = (self.host(from)?, self.host(to)?);
        filter(from, &format!("add element inet chaos send {{ {} }}\n", to.address))?;
        filter(to, &format!("add element inet chaos take {{ {} }}\n", from.address))
    }

    /// No packet passes between the two, in neither direction.
    pub fn cut(&self, one: usize, other: usize) -> Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// No packet passes between these hosts and all others; clients still reach every host.
    pub fn split(&self, group: &[usize]) -> Result<()> {
        for one in group {
            for other in (0..self.hosts.len()).filter(|other| !group.contains(other)) {
                self.cut(*one, other)?;
            }
        }
        Ok(())
    }

    /// Every packet of every host but the client's passes nothing: the host is clogged.
    pub fn clog(&self, host: usize) -> Result<()> {
        self.split(&[host])
    }

    /// The host talks to everybody again who is not clogged himself.
    pub fn unclog(&self, host: usize, still_clogged: &[usize]) -> Result<()> {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            if still_clogged.contains(&other) {
                continue;
            }
            self.join_one_way(host, other)?;
            self.join_one_way(other, host)?;
        }
        Ok(())
    }

    /// Undoes [`Self::cut_one_way`]; of a link that is not cut it changes nothing.
    pub(crate) fn join_one_way(&self, from: usize, to: usize) -> Result<()> {
        let (from, to) = (self.host(from)?, self.host(to)?);
        // To delete what is not there would be an error.
        let gone = |set: &str, address: IpAddr| {
            let element = format!("element inet chaos {set} {{ {address} }}\n");
            format!("add {element}delete {element}")
        };
        filter(from, &gone("send", to.address))?;
        filter(to, &gone("take", from.address))
    }

    /// Packets that all hosts have sent and got so far.
    pub(crate) fn packets(&self) -> Result<u64> {
        let text = fs::read_to_string("/proc/net/dev").context("read /proc/net/dev")?;
        let mut sum = 0;
        for line in text.lines() {
            let Some((name, counts)) = line.split_once(':') else { continue };
            if !name.trim().starts_with(LINK) {
                continue;
            }
            let counts: Vec<u64> =
                counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
            // Bytes and packets that came in, six more, bytes and packets that went out.
            sum += counts.get(1).zip(counts.get(9)).map_or(0, |(taken, sent)| taken + sent);
        }
        Ok(sum)
    }

    /// From now on packets are to be dropped.
    pub(crate) fn hurts(&self) {
        self.hurt.store(true, Ordering::Relaxed);
    }

    /// Whether packets ever were to be dropped.
    pub(crate) fn was_hurt(&self) -> bool {
        self.hurt.load(Ordering::Relaxed)
    }

    /// Packets that the filters of all hosts have dropped so far.
    pub(crate) fn lost(&self) -> Result<u64> {
        let nft = Tool::find("nft")?;
        let mut sum = 0;
        for host in &self.hosts {
            let mut command = host.launch.command(nft.path());
            let output = command.args(["list", "counters", "table", "inet", "chaos"]).output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            sum +=
                counted(&said).with_context(|| format!("nft on {} said {said}", host.address))?;
        }
        Ok(sum)
    }

    /// Every packet passes. Detours stay: they are where links run, not what is wrong with them.
    pub fn heal(&self) -> Result<()> {
        for host in &self.hosts {
            filter(
                host,
                "flush set inet chaos send\nflush set inet chaos take\nflush set inet chaos shut\n\
                 flush chain inet chaos loss\n",
            )?;
        }
        Ok(())
    }

    pub(crate) fn host(&self, index: usize) -> Result<&Host> {
        self.hosts.get(index).with_context(|| format!("there is no host {index}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // One that ended already is what we want.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// The packets of the one counter that nft lists.
fn counted(listed: &str) -> Option<u64> {
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1)?.parse().ok()
}

/// Gives rules to a host's packet filter.
pub(crate) fn filter(host: &Host, rules: &str) -> Result<()> {
    give(host, rules).or_not_shown()
}

fn give(host: &Host, rules: &str) -> Result<()> {
    let nft = Tool::find("nft")?;
    let mut command = host.launch.command(nft.path());
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start nft")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "nft on {} refused {rules}: {said}", host.address);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read() {
        let listed = "table inet chaos {\n\tcounter lost {\n\t\tpackets 17 bytes 2040\n\t}\n}\n";
        assert_eq!(counted(listed), Some(17));
        assert_eq!(counted("table inet chaos { }"), None);
    }
}
