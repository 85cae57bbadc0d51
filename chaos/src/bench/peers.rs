//! What is compared: registries and file servers, each with a folder and ports of its own.

use std::{
    fs, path::Path, process::Command, sync::Arc, thread::available_parallelism, time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use super::{Bench, outcome::Outcome};
use crate::{
    client::RegistryClient,
    cluster::Cluster,
    content::Image,
    daemon::Daemon,
    etcd::{Etcd, MEMBERS},
    load::LoadTarget,
    options::{ClusterOptions, Listener},
    ports::PortBlock,
    scratch::Scratch,
    tls::Certificate,
    tools::Tool,
    turn::Share,
    wait::wait_until,
};

/// Where the image of the pulls lies.
pub(super) const REPOSITORY: &str = "bench/image";
/// Its tag.
pub(super) const TAG: &str = "1.0";

/// The names in the figures. They stand in commands too: without spaces and commas.
pub(super) const TERCET: &str = "tercet";
pub(super) const TERCET_THREE: &str = "tercet-3";
pub(super) const NGINX: &str = "nginx";
pub(super) const DISTRIBUTION: &str = "distribution";
pub(super) const ETCD: &str = "etcd-3";

/// Of the image that is pulled afterwards.
const PUSH_DEADLINE: Duration = Duration::from_secs(300);

const LEADER_DEADLINE: Duration = Duration::from_secs(30);
/// Until nginx has started its workers.
const WORKERS_DEADLINE: Duration = Duration::from_secs(10);

/// What listeners speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Plain,
    Tls,
}

/// One target of one or several servers.
pub(super) fn target(name: &str, urls: Vec<String>, pids: Vec<u32>) -> LoadTarget {
    LoadTarget { name: name.to_owned(), urls, pids }
}

/// A cluster of this many replicas with default settings; the machine is the run's already.
pub(super) fn cluster_options(replicas: usize, speech: Speech) -> ClusterOptions {
    let mut options = ClusterOptions::default().replicas(replicas);
    options.share = Share::Held;
    match speech {
        Speech::Plain => options,
        // Over TLS nobody may do anything unless the rules say so.
        Speech::Tls => options.tls(Listener::Registry).rule("anonymous", "**", &["*"]),
    }
}

/// Starts Tercet, and shows how.
pub(super) fn tercet(
    bench: &Bench,
    outcome: &mut Outcome,
    name: &str,
    options: ClusterOptions,
) -> Result<Cluster> {
    let mut cluster = bench.wait(Cluster::start_with(options))?;
    if bench.options.keep {
        cluster.keep_folder();
    }
    let config = &cluster.replica(0).config;
    let file = config.file_name().context("a configuration has a file")?.display();
    let command = format!("tercet serve --config {file}");
    outcome.setup(name, command, super::shown(config)?.to_string());
    Ok(cluster)
}

/// The processes of a cluster.
pub(super) fn pids(cluster: &Cluster) -> Vec<u32> {
    (0..cluster.len()).filter_map(|index| cluster.replica(index).pid()).collect()
}

/// All replicas of a cluster as one target.
pub(super) fn whole(name: &str, cluster: &Cluster) -> LoadTarget {
    let urls = (0..cluster.len()).map(|index| cluster.registry_url(index)).collect();
    target(name, urls, pids(cluster))
}

/// The replica that leads.
pub(super) fn leader(bench: &Bench, cluster: &Cluster) -> Result<usize> {
    bench.wait(wait_until("the replicas agree on a leader", LEADER_DEADLINE, || cluster.leader()))
}

/// One replica of a cluster as a target.
pub(super) fn one(name: &str, cluster: &Cluster, index: usize) -> LoadTarget {
    let pid = cluster.replica(index).pid().into_iter().collect();
    target(name, vec![cluster.registry_url(index)], pid)
}

/// Pushes the image of the pulls to the first server of each of the named targets.
pub(super) fn push(
    bench: &Bench,
    targets: &[LoadTarget],
    names: &[&str],
    ca: Option<&[u8]>,
    image: &Image,
) -> Result<()> {
    for target in targets.iter().filter(|target| names.contains(&target.name.as_str())) {
        let url = target.urls.first().context("a target has a server")?;
        let client = RegistryClient::external(url, ca, None)?.patient_for(PUSH_DEADLINE);
        let pushed = bench.wait(client.push_image(REPOSITORY, TAG, image));
        pushed.with_context(|| format!("push the image to {}", target.name))?;
    }
    Ok(())
}

/// nginx, which serves an image as files where a registry has its manifest and blobs.
#[derive(Debug)]
pub(super) struct Nginx {
    _daemon: Daemon,
    /// Of the master, and of the workers, which do the work.
    pids: Vec<u32>,
    url: String,
    _ports: PortBlock,
    _scratch: Scratch,
}

impl Nginx {
    /// Starts it.
    ///
    /// # Errors
    /// If it is not on this machine, or does not start.
    pub(super) fn start(
        bench: &Bench,
        outcome: &mut Outcome,
        image: &Image,
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        let (mut scratch, ports) = (Scratch::new()?, PortBlock::reserve()?);
        if bench.options.keep {
            scratch.keep();
        }
        let folder = scratch.path().to_path_buf();
        write_image(&folder.join("www"), image)?;
        let address = format!("127.0.0.1:{}", ports.first());
        let config = folder.join("nginx.conf");
        let workers = available_parallelism().map_or(1, usize::from);
        fs::write(&config, nginx_config(&folder, &address, workers, certificate))?;
        let nginx = Tool::find("nginx")?;
        let mut command = Command::new(nginx.path());
        command.arg("-c").arg(&config).arg("-p").arg(&folder);
        command.args(["-e", "error.log"]);
        let daemon = bench.wait(listening("nginx", command, &folder.join("log"), &address))?;
        let master = daemon.pid();
        // It listens before it has all of them, and the processor time of the master alone would be nearly none.
        let started = wait_until("nginx has its workers", WORKERS_DEADLINE, || async {
            let children = children(master)?;
            ensure!(children.len() == workers, "{} of {workers} workers", children.len());
            Ok(children)
        });
        let mut pids = bench.wait(started)?;
        pids.push(master);
        outcome.setup(NGINX, "nginx -c nginx.conf".to_owned(), super::shown(&config)?.to_string());
        let scheme = if certificate.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        Ok(Self { _daemon: daemon, pids, url, _ports: ports, _scratch: scratch })
    }

    pub(super) fn target(&self) -> LoadTarget {
        target(NGINX, vec![self.url.clone()], self.pids.clone())
    }
}

/// The paths of the registry API, as files.
fn write_image(root: &Path, image: &Image) -> Result<()> {
    let (blobs, manifests) =
        (format!("v2/{REPOSITORY}/blobs"), format!("v2/{REPOSITORY}/manifests"));
    for (folder, name, bytes) in image
        .blobs
        .iter()
        .map(|blob| (&blobs, blob.digest.as_str(), &blob.bytes))
        .chain([(&manifests, TAG, &image.manifest.bytes)])
    {
        let folder = root.join(folder);
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The usual settings of a file server that is to be fast.
///
/// Each worker has a listening socket of its own. With one for all of them, the first one that wakes up would take nearly
/// all connections, and keep them.
fn nginx_config(
    folder: &Path,
    address: &str,
    workers: usize,
    certificate: Option<&Certificate>,
) -> String {
    let folder = folder.display();
    let (listen, tls) = match certificate {
        None => (address.to_owned(), String::new()),
        Some(certificate) => (
            format!("{address} ssl"),
            format!(
                "    ssl_protocols TLSv1.3;\n    ssl_certificate {};\n    ssl_certificate_key {};\n",
                certificate.certificate.display(),
                certificate.key.display()
            ),
        ),
    };
    // It makes these at its start, and those that it was built with may not be there.
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .collect();
    // As root its workers would be another user, who cannot read the folder.
    format!(
        "user root;\ndaemon off;\nworker_processes {workers};\nworker_rlimit_nofile 65536;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  \
         keepalive_requests 1000000000;\n{temporary}  server {{\n    listen {listen} reuseport backlog=4096;\n{tls}    \
         root {folder}/www;\n  }}\n}}\n"
    )
}

/// Distribution, with its data in a folder of its own.
#[derive(Debug)]
pub(super) struct Distribution {
    daemon: Daemon,
    url: String,
    _ports: PortBlock,
    _scratch: Scratch,
}

impl Distribution {
    /// Starts it.
    ///
    /// # Errors
    /// If it is not on this machine, or does not start.
    pub(super) fn start(
        bench: &Bench,
        outcome: &mut Outcome,
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        let (mut scratch, ports) = (Scratch::new()?, PortBlock::reserve()?);
        if bench.options.keep {
            scratch.keep();
        }
        let folder = scratch.path().to_path_buf();
        let address = format!("127.0.0.1:{}", ports.first());
        let tls = certificate.map_or_else(String::new, |certificate| {
            format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.certificate.display(),
                certificate.key.display()
            )
        });
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  cache:\n    \
             blobdescriptor: inmemory\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{tls}",
            folder.join("data").display()
        );
        let path = folder.join("config.yml");
        fs::write(&path, &config)?;
        let mut command = Command::new(Tool::find("docker-registry")?.path());
        command.arg("serve").arg(&path);
        let daemon =
            bench.wait(listening("docker-registry", command, &folder.join("log"), &address))?;
        outcome.setup(DISTRIBUTION, "docker-registry serve config.yml".to_owned(), config);
        let scheme = if certificate.is_some() { "https" } else { "http" };
        Ok(Self { daemon, url: format!("{scheme}://{address}"), _ports: ports, _scratch: scratch })
    }

    pub(super) fn target(&self) -> LoadTarget {
        target(DISTRIBUTION, vec![self.url.clone()], vec![self.daemon.pid()])
    }
}

/// Three members of etcd.
pub(super) fn etcd(bench: &Bench, outcome: &mut Outcome) -> Result<Etcd> {
    let etcd = bench.wait(Etcd::start())?;
    let lines: Vec<String> =
        (0..MEMBERS).map(|index| format!("etcd {}", etcd.arguments(index).join(" "))).collect();
    outcome.setup(ETCD, "etcd --name etcd-0 …".to_owned(), lines.join("\n"));
    Ok(etcd)
}

/// A daemon that takes connections.
async fn listening(
    name: &'static str,
    command: Command,
    log: &Path,
    address: &str,
) -> Result<Daemon> {
    let address: Arc<str> = address.into();
    Daemon::start_until(name, command, log, || {
        let address = Arc::clone(&address);
        async move {
            let connected = TcpStream::connect(&*address);
            tokio::time::timeout(Duration::from_secs(1), connected).await??;
            Ok(())
        }
    })
    .await
}

/// The processes that a process has started.
///
/// # Errors
/// If there are none.
fn children(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let children: Vec<u32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    ensure!(!children.is_empty(), "process {pid} has no children");
    Ok(children)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Stdio;

    use super::*;

    #[test]
    fn an_image_lies_as_files_where_a_registry_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::random(1, &[10]);
        write_image(folder.path(), &image).unwrap();
        let read = |path: String| fs::read(folder.path().join(path)).unwrap();
        assert_eq!(read(format!("v2/{REPOSITORY}/manifests/{TAG}")), image.manifest.bytes);
        for blob in &image.blobs {
            assert_eq!(read(format!("v2/{REPOSITORY}/blobs/{}", blob.digest)), blob.bytes);
        }
    }

    #[tokio::test]
    async fn a_process_knows_its_children() {
        // `cat` waits for its input: the shell has it as its child meanwhile.
        let mut command = Command::new("sh");
        command.args(["-c", "cat; true"]).stdin(Stdio::piped());
        let mut shell = command.stdout(Stdio::null()).spawn().unwrap();
        let pid = shell.id();
        let found =
            wait_until("it has a child", WORKERS_DEADLINE, || async { children(pid) }).await;
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(found.unwrap().len(), 1);
        assert!(children(shell.id()).is_err());
    }

    #[test]
    fn every_worker_of_nginx_listens_by_itself() {
        let folder = Path::new("/somewhere");
        let certificate = Certificate { certificate: "/c.pem".into(), key: "/k.pem".into() };
        let plain = nginx_config(folder, "127.0.0.1:1", 2, None);
        assert!(plain.contains("listen 127.0.0.1:1 reuseport backlog=4096;"), "{plain}");
        let tls = nginx_config(folder, "127.0.0.1:1", 2, Some(&certificate));
        assert!(tls.contains("listen 127.0.0.1:1 ssl reuseport backlog=4096;"), "{tls}");
    }
}
