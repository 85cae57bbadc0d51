//! A cluster of real processes on this machine.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rustix::process::Signal;

use crate::{
    binary::Binary,
    client::{RegistryClient, Target},
    disk::{FaultyDisk, Lost, PowerLoss, SmallVolume, VolumeSpec},
    files::{FileCount, count_files},
    launch::Launch,
    memory_group::MemoryGroup,
    options::{ClusterOptions, Listener, Place, Way},
    ports::{PortBlock, network_address},
    replica::{Memory, Replica},
    say::warn,
    scratch::Scratch,
    status::Status,
    tls::Authority,
    tools::{Tool, ToolOutput},
    turn::Turn,
    users::User,
    wait::wait_until,
};

/// Generous: a cold two-core machine may be compiling beside us.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The configured grace period is 25 s.
const STOP_DEADLINE: Duration = Duration::from_secs(35);
const OPS_DEADLINE: Duration = Duration::from_secs(3);
/// Until every thread of a process that was told to stop has heard of it.
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// Of a replica's four ports: where a proxy stands before its peer listener.
const PROXY_PORT: u16 = 3;

/// Replicas `0..n`, each a `tercet serve` with its own folder. End a test with [`Cluster::shut_down`]: a
/// cluster that is dropped without it belongs to a failed test, and prints the ends of its logs.
#[derive(Debug)]
pub struct Cluster {
    binary: Binary,
    replicas: Vec<Replica>,
    /// Replica -> its disk. After the processes and before the folder they are in, when all is dropped.
    volumes: BTreeMap<usize, SmallVolume>,
    /// The same of disks that fail.
    disks: BTreeMap<usize, FaultyDisk>,
    /// The same of bounds on its memory: only a group without processes can be removed.
    memory_groups: BTreeMap<usize, MemoryGroup>,
    scratch: Scratch,
    http: reqwest::Client,
    /// Whose certificates the replicas have, where a listener speaks HTTPS.
    authority: Option<Authority>,
    /// Who the driver's own clients log in as.
    user: Option<User>,
    passed: bool,
    options: ClusterOptions,
    ports: PortBlock,
    _turn: Turn,
}

impl Cluster {
    /// Three replicas with default settings, ready for work.
    pub async fn start() -> Result<Self> {
        Self::start_with(ClusterOptions::default()).await
    }

    /// Three replicas with HTTPS, users and rules: [`ClusterOptions::secured`].
    pub async fn secured() -> Result<Self> {
        Self::start_with(ClusterOptions::secured()).await
    }

    /// A cluster as wanted, ready for work.
    pub async fn start_with(options: ClusterOptions) -> Result<Self> {
        let mut cluster = Self::prepare(options).await?;
        for index in 0..cluster.replicas.len() {
            cluster.restart(index)?;
        }
        cluster.wait_ready(START_DEADLINE).await?;
        Ok(cluster)
    }

    /// A cluster with everything on disk, and no process running yet.
    pub async fn prepare(options: ClusterOptions) -> Result<Self> {
        let turn = Turn::take(options.share).await?;
        let binary = Binary::locate()?;
        let address = match options.place {
            Place::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Place::Network => network_address()?,
        };
        let ports = PortBlock::reserve_on(address)?;
        let scratch = Scratch::new()?;
        let mut replicas = Vec::new();
        for number in 0..options.replicas {
            replicas.push(make_replica(&scratch, &ports, number, address, &options)?);
        }
        for (name, content) in &options.files {
            fs::write(scratch.path().join(name), content)?;
        }
        for replica in &replicas {
            fs::write(&replica.config, options.config_text(replica, &replicas)?)?;
        }
        let authority = if options.tls.is_empty() && options.hosts.is_empty() {
            None
        } else {
            let mut authority = Authority::new(&binary, &scratch.path().join("tls"), address);
            for host in &options.hosts {
                authority = authority.also_for(host.address);
            }
            for number in 0..options.replicas.max(options.hosts.len()) {
                authority.issue(&name_of(number)).await?;
            }
            Some(authority)
        };
        let mut http = reqwest::Client::builder()
            .timeout(OPS_DEADLINE)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(authority) = &authority {
            http = authority.trusted_by(http)?;
        }
        Ok(Self {
            binary,
            replicas,
            volumes: BTreeMap::new(),
            disks: BTreeMap::new(),
            memory_groups: BTreeMap::new(),
            scratch,
            http: http.build()?,
            authority,
            user: options.user,
            passed: false,
            options,
            ports,
            _turn: turn,
        })
    }

    /// One more replica, which knows those that the cluster began with and joins them. It is started.
    pub fn grow(&mut self) -> Result<usize> {
        self.grow_with(|options| options)
    }

    /// One more replica with settings of its own, such as another role.
    pub fn grow_with(
        &mut self,
        change: impl FnOnce(ClusterOptions) -> ClusterOptions,
    ) -> Result<usize> {
        let options = change(self.options.clone());
        let index = self.add_stopped(&options)?;
        self.restart(index)?;
        Ok(index)
    }

    /// One more replica that is not started yet, so that [`Self::set_launch`] counts for its first start.
    pub fn grow_stopped(&mut self) -> Result<usize> {
        let options = self.options.clone();
        self.add_stopped(&options)
    }

    fn add_stopped(&mut self, options: &ClusterOptions) -> Result<usize> {
        let (index, hosts) = (self.replicas.len(), self.options.hosts.len());
        ensure!(hosts == 0 || index < hosts, "no host is left for replica {index}");
        ensure!(self.options.tls.is_empty(), "a cluster with HTTPS cannot grow");
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let new = make_replica(&self.scratch, &self.ports, index, address, options)?;
        let founders = self.replicas.get(..self.options.replicas).unwrap_or(&self.replicas);
        fs::write(&new.config, options.config_text(&new, founders)?)?;
        self.replicas.push(new);
        Ok(index)
    }

    /// Gives a replica that has not been started yet a small disk of its own. Needs root.
    pub fn give_volume(&mut self, index: usize, spec: VolumeSpec) -> Result<()> {
        let volume = SmallVolume::mount(&self.replica(index).data_dir, spec)?;
        self.volumes.insert(index, volume);
        Ok(())
    }

    /// A replica's small disk.
    pub fn volume(&self, index: usize) -> Result<&SmallVolume> {
        self.volumes.get(&index).with_context(|| format!("replica {index} has no disk of its own"))
    }

    /// Gives a replica that has not been started yet a disk that can fail and lose its power. Needs root and
    /// `/dev/fuse`.
    pub(crate) fn give_disk(&mut self, index: usize) -> Result<()> {
        let disk = FaultyDisk::mount(&self.replica(index).data_dir)?;
        self.disks.insert(index, disk);
        Ok(())
    }

    /// A replica's disk that can fail.
    pub(crate) fn disk(&self, index: usize) -> Result<&FaultyDisk> {
        self.disks.get(&index).with_context(|| format!("replica {index} has no disk that can fail"))
    }

    /// These replicas lose their power at the same instant: what is durable then is what they come back to. They
    /// do not run afterwards.
    pub(crate) fn lose_power(
        &mut self,
        indices: &[usize],
        mut loss: impl FnMut() -> PowerLoss,
        random: &mut StdRng,
    ) -> Result<Lost> {
        // Stopped first: a process that lives on without its disk would answer, and one without power does not.
        for index in indices {
            if self.is_running(*index) {
                self.pause(*index)?;
            }
        }
        // Nothing else of this program is to happen in between.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(STOP_PAUSE);
        for index in indices {
            self.disk(*index)?.cut();
        }
        for index in indices {
            // One that has noticed its disk by itself has ended; both are the end.
            if self.is_running(*index) {
                self.kill9(*index)?;
            }
        }
        let mut all = Lost::default();
        for index in indices {
            let disk = self.disks.get_mut(index).context("a disk that was cut")?;
            let lost = disk.lose_power(loss(), random)?;
            all.files += lost.files;
            all.writes += lost.writes;
            all.names += lost.names;
        }
        Ok(all)
    }

    /// How a replica is started from now on.
    pub fn set_launch(&mut self, index: usize, launch: Launch) {
        self.replica_mut(index).launch = launch;
    }

    /// Bounds the memory of a replica's processes from its next start on, page cache included, however else it is
    /// started. Needs root.
    pub fn bound_memory(&mut self, index: usize, bytes: u64) -> Result<()> {
        let group = MemoryGroup::new(bytes)?;
        let launch = group.launch().around(&self.replica(index).launch);
        self.set_launch(index, launch);
        self.memory_groups.insert(index, group);
        Ok(())
    }

    /// What [`Self::bound_memory`] has made.
    pub fn memory_group(&self, index: usize) -> Result<&MemoryGroup> {
        let group = self.memory_groups.get(&index);
        group.with_context(|| format!("the memory of replica {index} has no bound"))
    }

    /// Whether a replica has a process, as far as the driver knows.
    pub fn is_running(&self, index: usize) -> bool {
        self.replica(index).pid().is_some()
    }

    /// The program under test.
    pub fn binary(&self) -> &Path {
        self.binary.path()
    }

    /// How many replicas it has.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// A cluster has replicas.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// One replica.
    ///
    /// # Panics
    /// If there is no such replica: the test is wrong.
    #[allow(clippy::indexing_slicing)] // A wrong number is a mistake in the test, and must be loud.
    pub fn replica(&self, index: usize) -> &Replica {
        &self.replicas[index]
    }

    #[allow(clippy::indexing_slicing)] // As above.
    fn replica_mut(&mut self, index: usize) -> &mut Replica {
        &mut self.replicas[index]
    }

    /// Base URL of a replica's registry listener.
    pub fn registry_url(&self, index: usize) -> String {
        self.replica(index).registry.clone()
    }

    /// `host:port` of a replica's registry listener, as image names carry it.
    pub fn registry_host(&self, index: usize) -> String {
        let url = &self.replica(index).registry;
        url.split_once("://").map_or(url.as_str(), |(_, host)| host).to_owned()
    }

    /// Base URL of a replica's ops listener.
    pub fn ops_url(&self, index: usize) -> String {
        self.replica(index).ops.clone()
    }

    /// A client whose requests all go to one replica.
    pub fn client(&self, index: usize) -> Result<RegistryClient> {
        let replica = self.replica(index);
        let base = replica.front.as_ref().unwrap_or(&replica.registry).clone();
        self.client_of(vec![base], Target::One)
    }

    /// From now on new clients of a replica go to this base URL, such as that of a proxy.
    pub(crate) fn set_front(&mut self, index: usize, url: String) {
        self.replica_mut(index).front = Some(url);
    }

    /// A client that sends every single request to the next replica in turn.
    pub fn rotating_client(&self) -> Result<RegistryClient> {
        let all = self.replicas.iter().map(|replica| replica.registry.clone()).collect();
        self.client_of(all, Target::NextEachTime)
    }

    /// A client of one replica that logs in as somebody, or as nobody.
    pub fn client_as(&self, index: usize, user: Option<User>) -> Result<RegistryClient> {
        let bases = vec![self.registry_url(index)];
        RegistryClient::with(bases, Target::One, self.authority.as_ref(), user)
    }

    fn client_of(&self, bases: Vec<String>, target: Target) -> Result<RegistryClient> {
        RegistryClient::with(bases, target, self.authority.as_ref(), self.user)
    }

    /// Whose certificates the replicas have.
    pub fn authority(&self) -> Result<&Authority> {
        self.authority.as_ref().context("this cluster speaks plain HTTP")
    }

    /// The cluster's own folder: `{folder}` of its options.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// `kill -9`.
    pub fn kill9(&mut self, index: usize) -> Result<()> {
        self.replica_mut(index).kill9()
    }

    /// SIGTERM: the replica drains.
    pub fn term(&self, index: usize) -> Result<()> {
        self.replica(index).signal(Signal::TERM)
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.replica(index).signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self, index: usize) -> Result<()> {
        self.replica(index).signal(Signal::CONT)
    }

    /// The program under test as an operator's command, where no replica's settings count. Most commands
    /// need `--config` with [`Replica::config`].
    pub fn command(&self) -> Tool {
        Tool::at(self.binary.path())
    }

    /// The same on a replica's host, for a second process in its place.
    pub(crate) fn command_beside(&self, index: usize) -> Tool {
        self.replica(index).host.tool(self.binary.path())
    }

    /// Runs such a command (`["scrub", "--now"]`) with the configuration of one replica.
    pub async fn operate(&self, index: usize, arguments: &[&str]) -> Result<ToolOutput> {
        let config = self.replica(index).config.display().to_string();
        let arguments = [arguments, &["--config", &config]].concat();
        self.command().run(&arguments).await
    }

    /// Starts a replica that does not run, on the disk it left.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let binary = self.binary.clone();
        self.replica_mut(index).start(&binary)
    }

    /// Throws away the data folder of a replica that does not run.
    pub fn wipe(&mut self, index: usize) -> Result<()> {
        match self.disks.get_mut(&index) {
            Some(disk) => disk.replace(),
            None => self.replica(index).wipe(),
        }
    }

    /// Waits until a replica's process has ended by itself.
    pub async fn wait_exit(
        &mut self,
        index: usize,
        deadline: Duration,
    ) -> Result<std::process::ExitStatus> {
        self.replica_mut(index).wait_exit(deadline).await
    }

    /// A replica's memory.
    pub fn memory(&self, index: usize) -> Result<Memory> {
        self.replica(index).memory()
    }

    /// Bytes resident now.
    pub fn rss_bytes(&self, index: usize) -> Result<u64> {
        Ok(self.memory(index)?.resident)
    }

    /// The files below a folder of a replica's data, such as `blobs` or `uploads`.
    pub fn files(&self, index: usize, folder: &str) -> Result<FileCount> {
        count_files(&self.replica(index).data_dir.join(folder))
    }

    /// What reaches the ops listeners.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// What a replica says about the cluster.
    pub async fn status(&self, index: usize) -> Result<Status> {
        let url = format!("{}/status", self.ops_url(index));
        let answer = self.http.get(&url).send().await?.error_for_status()?;
        let text = answer.text().await?;
        serde_json::from_str(&text).with_context(|| format!("{url} answered {text}"))
    }

    /// The HTTP status of an ops page, such as `/readyz`.
    pub async fn ops_status(&self, index: usize, path: &str) -> Result<u16> {
        let url = format!("{}{path}", self.ops_url(index));
        Ok(self.http.get(&url).send().await?.status().as_u16())
    }

    /// The text of an ops page, such as `/metrics`.
    pub async fn ops_text(&self, index: usize, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.ops_url(index));
        Ok(self.http.get(&url).send().await?.error_for_status()?.text().await?)
    }

    /// Which replica leads, as all running ones agree.
    pub async fn leader(&self) -> Result<usize> {
        let running = self.running();
        let answers = try_join_all(running.iter().map(|index| self.status(*index))).await?;
        let mut names = answers.iter().map(|status| status.leader.clone());
        let first = names.next().context("no replica runs")?.context("no leader is known")?;
        ensure!(
            names.all(|name| name.as_ref() == Some(&first)),
            "the replicas name several leaders"
        );
        let index = self.replicas.iter().position(|replica| replica.name == first);
        let index = index.with_context(|| format!("{first} is no replica of this cluster"))?;
        ensure!(running.contains(&index), "the leader {first} does not run");
        Ok(index)
    }

    /// Waits until every running replica is ready, and, if all run, all are voters of one cluster.
    pub async fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        for replica in &mut self.replicas {
            if replica.pid().is_some() {
                replica.check_alive()?;
            }
        }
        let cluster = &*self;
        wait_until("all running replicas are ready", deadline, || cluster.check_ready()).await
    }

    /// Waits until a running replica is a voter, has applied all that the leader has, and misses no blob. With each
    /// blob less that it misses the deadline begins anew: how long the copying of a whole disk takes is the
    /// machine's affair, and that it goes on is the replica's.
    pub async fn wait_caught_up(&self, index: usize, deadline: Duration) -> Result<()> {
        let name = self.replica(index).name.clone();
        let what = format!("{name} has caught up");
        let mut fewest = u64::MAX;
        while fewest > 0 {
            fewest = wait_until(&what, deadline, || async {
                let leader = self.leader().await?;
                let status = self.status(leader).await?;
                let member =
                    status.member(&name).with_context(|| format!("{name} is no member"))?;
                ensure!(member.role != "learner", "{name} is still a learner");
                ensure!(member.reachable, "{name} is not reachable");
                ensure!(member.applied >= Some(status.applied), "{name} lags: {member:?}");
                let missing = member.missing_blobs.context("nobody knows what it misses")?;
                ensure!(missing < fewest, "{name} misses blobs, and not fewer: {member:?}");
                Ok(missing)
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until a replica holds a blob on its own disk.
    pub async fn wait_held(&self, index: usize, digest: &str, deadline: Duration) -> Result<()> {
        let path = self.replica(index).blob_path(digest)?;
        let what = format!("{} holds {digest}", self.replica(index).name);
        wait_until(&what, deadline, || async {
            ensure!(path.is_file(), "no file {}", path.display());
            Ok(())
        })
        .await
    }

    /// Keeps the cluster's folder when the cluster has gone, and says where it is.
    pub(crate) fn keep_folder(&mut self) {
        self.scratch.keep();
    }

    /// The end of a good test: every running replica is alive, stops on SIGTERM with code 0, and none has
    /// panicked.
    pub async fn shut_down(mut self) -> Result<()> {
        for replica in &mut self.replicas {
            if replica.pid().is_some() {
                replica.check_alive()?;
                replica.signal(Signal::TERM)?;
            }
        }
        for replica in &mut self.replicas {
            if replica.pid().is_some() {
                let status = replica.wait_exit(STOP_DEADLINE).await?;
                ensure!(status.success(), "{} stopped with {status}", replica.name);
            }
            let log = replica.log_text();
            ensure!(!log.contains("panicked at"), "{} has panicked", replica.name);
        }
        self.passed = true;
        Ok(())
    }

    fn running(&self) -> Vec<usize> {
        let with_process = |(index, replica): (usize, &Replica)| replica.pid().map(|_| index);
        self.replicas.iter().enumerate().filter_map(with_process).collect()
    }

    async fn check_ready(&self) -> Result<()> {
        let running = self.running();
        for index in &running {
            let code = self.ops_status(*index, "/readyz").await?;
            ensure!(code == 200, "{} answers {code} on /readyz", self.replica(*index).name);
        }
        if running.len() < self.replicas.len() {
            return Ok(());
        }
        let leader = self.leader().await?;
        let status = self.status(leader).await?;
        for replica in &self.replicas {
            let member = status
                .member(&replica.name)
                .ok_or_else(|| anyhow!("{} is no member yet", replica.name))?;
            let learns = member.role == "learner" && member.kind != "edge";
            if learns || !member.reachable {
                bail!("not a voter yet: {member:?}");
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.passed {
            return;
        }
        for replica in &self.replicas {
            let end = replica.log_tail();
            warn(&format!("---- the end of {}'s log\n{end}", replica.name));
        }
        self.scratch.failed();
    }
}

fn name_of(number: usize) -> String {
    format!("tercet-{number}")
}

fn make_replica(
    scratch: &Scratch,
    ports: &PortBlock,
    number: usize,
    address: IpAddr,
    options: &ClusterOptions,
) -> Result<Replica> {
    let name = name_of(number);
    let port = ports.first() + u16::try_from(number * 4)?;
    let host = options.hosts.get(number);
    let inner = host.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |host| host.address);
    let url = |scheme: &str, offset: u16| format!("{scheme}://{inner}:{}", port + offset);
    let registry = SocketAddr::new(host.map_or(address, |host| host.address), port);
    let scheme = |listener| if options.tls.contains(&listener) { "https" } else { "http" };
    let peer = options
        .peers
        .get(number)
        .cloned()
        .unwrap_or_else(|| url(if host.is_some() { "https" } else { "http" }, 1));
    let file = |ending: &str| scratch.path().join(format!("{name}.{ending}"));
    Ok(Replica {
        registry: format!("{}://{registry}", scheme(Listener::Registry)),
        advertised: match options.way {
            Way::Straight => peer.clone(),
            Way::Proxied => url("http", PROXY_PORT),
        },
        peer,
        front: None,
        ops: url(scheme(Listener::Ops), 2),
        data_dir: scratch.path().join(&name),
        config: file("toml"),
        log: file("log"),
        child: None,
        host: host.map(|host| host.launch.clone()).unwrap_or_default(),
        launch: Launch::default(),
        name,
    })
}
