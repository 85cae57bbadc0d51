//! A replica on a simulated machine: bootstrap, the group, and answers to the others and to clients.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tercet_raft::{
    BootstrapOptions, Command, Condition, Consensus, FEATURE_LEVEL, Freshness, Hello, Identity,
    InitialMember, MemberKind, Outcome, ProposeError, RaftTiming, ReplicaNode, RpcError,
    StartOptions, Transport, bootstrap,
};
use tercet_storage::{
    Algorithm, Clock, Digest, Headroom, HeadroomOptions, ManifestReference, ManifestSummary,
    ReferenceKind, RepositoryName, Space, Tag,
};
use tokio::sync::{mpsc, watch};

use crate::disk::BlobDisk;
use crate::log::SimulatedLog;
use crate::mutation::Mutation;
use crate::net::{Answer, Ask, DATAGRAM_BYTES_MAX, Net, address};
use crate::op::{Op, Told};
use crate::world::World;
use crate::{push, repair};

/// Committed blobs that wait for repair; few, so that they overflow now and then.
const COMMITTED_MAX: usize = 4;
const VOLUME_BYTES: u64 = 1 << 40;

/// A running replica.
pub(crate) struct Node {
    pub(crate) world: World,
    pub(crate) own: usize,
    pub(crate) net: Arc<Net>,
    pub(crate) clock: Arc<dyn Clock>,
    blobs: Arc<Mutex<BlobDisk>>,
    name: String,
    identity: Mutex<Option<Identity>>,
    consensus: OnceLock<Consensus>,
}

/// How fast things are noticed: about three times as fast as by default.
pub(crate) fn timing() -> RaftTiming {
    RaftTiming {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(600),
        write_deadline: Duration::from_millis(2000),
        read_deadline: Duration::from_millis(500),
        entries_per_snapshot: 24,
        entries_kept: 6,
    }
}

/// Runs the replica of a machine until the machine dies.
pub(crate) async fn run(world: World, own: usize) -> turmoil::Result {
    let (name, port, data, log, blobs, names) = {
        let mut inner = world.lock();
        let names: Vec<String> = inner.machines.iter().map(|each| each.name.clone()).collect();
        let machine = inner.machines.get_mut(own).ok_or("no such machine")?;
        // A new port at each start: messages to the process before do not reach this one.
        machine.last_port += 1;
        let port = machine.last_port;
        let (data, log) = (machine.data.clone(), Arc::clone(&machine.log));
        (machine.name.clone(), port, data, log, Arc::clone(&machine.blobs), names)
    };
    std::fs::create_dir_all(data.root())?;
    let net = Arc::new(Net::bind(world.clone(), name.clone(), port).await?);
    if let Some(machine) = world.lock().machines.get_mut(own) {
        (machine.port, machine.process) = (Some(port), Arc::downgrade(&net));
    }
    let clock = world.clock(own);
    let node = Arc::new(Node {
        world: world.clone(),
        own,
        net: Arc::clone(&net),
        clock: Arc::clone(&clock),
        blobs,
        name: name.clone(),
        identity: Mutex::new(Identity::load(&data)?),
        consensus: OnceLock::new(),
    });
    tokio::spawn(serve(Arc::clone(&node)));
    let initial_members: Vec<InitialMember> = names
        .iter()
        .map(|name| InitialMember { name: name.clone(), address: address(name) })
        .collect();
    let transport: Arc<dyn Transport> = net;
    let (progress, _) = watch::channel(String::new());
    let (_, invited) = watch::channel(None);
    let mut identity = bootstrap(BootstrapOptions {
        data: &data,
        own_name: &name,
        kind: MemberKind::Voter,
        initial_members: &initial_members,
        transport: &transport,
        clock: &clock,
        progress: &progress,
        invited: &invited,
    })
    .await?;
    if world.mutation() == Some(Mutation::ReuseNodeId)
        && let Some(first) = world.lock().machines.get(own).and_then(|machine| machine.first_id)
    {
        identity.node_id = first;
        identity.store(&data)?;
    }
    world.note(|| format!("{name} is {}", identity.node_id));
    {
        let mut inner = world.lock();
        let disk = inner.machines.get_mut(own).map(|machine| {
            machine.first_id.get_or_insert(identity.node_id);
            machine.disks
        });
        let reused = inner.seen.id_of_disk(identity.node_id, own, disk.unwrap_or_default());
        drop(inner);
        if let Some(reused) = reused {
            world.violation(reused);
        }
    }
    *node.identity() = Some(identity.clone());
    let (committed_blobs, committed) = mpsc::channel(COMMITTED_MAX);
    let probe = |_: &std::path::Path| {
        let (total, available) = (VOLUME_BYTES, VOLUME_BYTES);
        Ok(Space { total, available, inodes_total: 0, inodes_available: 0 })
    };
    let options = StartOptions {
        headroom: Headroom::open_with(&data, HeadroomOptions::default(), Arc::new(probe))?,
        node: ReplicaNode {
            name: name.clone(),
            address: address(&name),
            kind: MemberKind::Voter,
            zone: None,
        },
        data,
        identity,
        initial_members,
        timing: timing(),
        transport,
        clock,
        feature_level: FEATURE_LEVEL,
        committed_blobs,
    };
    let log = SimulatedLog::open(&world, own, log);
    let consensus = tercet_raft::simulation::start(options, log).await?;
    let _ = node.consensus.set(consensus.clone());
    if let Some(machine) = world.lock().machines.get_mut(own) {
        machine.consensus = Some(consensus.clone());
    }
    tokio::spawn(repair::fetch(Arc::clone(&node), committed));
    tokio::spawn(repair::unlink(Arc::clone(&node)));
    tokio::spawn(push::collect(Arc::clone(&node)));
    let why = consensus.failed().await;
    world.violation(format!("the group of {name} has stopped: {why}"));
    Ok(())
}

async fn serve(node: Arc<Node>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match node.net.receive(&mut buffer).await {
            Ok((from, number, ask)) => {
                tokio::spawn(answer(Arc::clone(&node), from, number, ask));
            }
            Err(error) => node.world.violation(format!("{} cannot read: {error}", node.name)),
        }
    }
}

async fn answer(node: Arc<Node>, from: SocketAddr, number: u64, ask: Ask) {
    let answer = match ask {
        Ask::Hello => Answer::Hello(node.hello()),
        Ask::Rpc { target, path, body } => match (node.meant(target), path.parse()) {
            (Ok(consensus), Ok(rpc)) => {
                body_or_refusal(consensus.handle_rpc(rpc, Bytes::from(body)).await)
            }
            (Err(refused), _) => refused,
            (_, Err(why)) => Answer::Refused(400, why),
        },
        Ask::Snapshot { target, body } => match node.meant(target) {
            Ok(consensus) => {
                let body = futures_util::stream::iter([Ok(Bytes::from(body))]).boxed();
                body_or_refusal(consensus.handle_snapshot(body).await)
            }
            Err(refused) => refused,
        },
        Ask::PutBlob { digest } => {
            node.publish(&digest).await;
            Answer::Yes
        }
        Ask::HasBlob { digest } => {
            if node.blobs().has(&digest) {
                Answer::Yes
            } else {
                Answer::No
            }
        }
        Ask::Client(op) => Answer::Told(match node.consensus.get() {
            Some(consensus) => serve_client(&node, consensus, op).await,
            None => Told::NotDone("starting".to_owned()),
        }),
    };
    node.net.answer(from, number, answer);
}

fn body_or_refusal(answer: Result<Bytes, RpcError>) -> Answer {
    match answer {
        Ok(body) => Answer::Body(body.to_vec()),
        Err(RpcError::NoSpace(why)) => Answer::Refused(507, why),
        Err(error) => Answer::Refused(503, error.to_string()),
    }
}

impl Node {
    pub(crate) fn blobs(&self) -> MutexGuard<'_, BlobDisk> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consensus(&self) -> Option<&Consensus> {
        self.consensus.get()
    }

    /// Writes a blob, syncs it, and makes one that is here already as young as a new one.
    pub(crate) async fn publish(&self, digest: &Digest) {
        self.blobs().write(digest, crate::world::now());
        if !self.blobs().has(digest) {
            tokio::time::sleep(self.world.sync_time(self.own)).await;
            self.blobs().sync(digest);
        }
    }

    fn identity(&self) -> MutexGuard<'_, Option<Identity>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self) -> Hello {
        let identity = self.identity().clone();
        Hello {
            name: self.name.clone(),
            cluster_id: identity.as_ref().map(|identity| identity.cluster_id.clone()),
            node_id: identity.map(|identity| identity.node_id),
            feature_level: FEATURE_LEVEL,
        }
    }

    /// As the peer listener: a message for another id is refused.
    fn meant(&self, target: u64) -> Result<&Consensus, Answer> {
        match self.consensus.get() {
            Some(consensus) if consensus.identity().node_id == target => Ok(consensus),
            Some(_) => Err(Answer::Refused(421, "not me".to_owned())),
            None => Err(Answer::Refused(503, "starting".to_owned())),
        }
    }
}

async fn serve_client(node: &Node, consensus: &Consensus, op: Op) -> Told {
    let Some(tags) = tags() else { return Told::NotDone("no repository".to_owned()) };
    match op {
        Op::Read { tag } => {
            if node.world.mutation() != Some(Mutation::SkipReadBarrier)
                && consensus.read_barrier().await == Freshness::Stale
            {
                return Told::Stale;
            }
            let Some(tag) = tag_of(tag) else { return Told::Stale };
            let read = consensus.read(|meta| meta.tag(&tags, &tag));
            match read {
                Ok(Ok(record)) => {
                    Told::Value(record.and_then(|record| node.world.value_of(&record.digest)))
                }
                other => Told::Unknown(format!("{other:?}")),
            }
        }
        Op::Put { tag, value } => put(node, consensus, tag, value, Condition::None).await,
        Op::PutIfMatch { tag, value, expected } => {
            let expected = manifest_digest(expected);
            put(node, consensus, tag, value, Condition::IfMatch(expected)).await
        }
        Op::PutIfAbsent { tag, value } => {
            put(node, consensus, tag, value, Condition::IfNoneMatchAny).await
        }
        Op::Delete { tag } => match tag_of(tag) {
            Some(tag) => {
                propose(node, consensus, Command::DeleteTag { repository: tags, tag }).await
            }
            None => Told::NotDone("no tag".to_owned()),
        },
        Op::PushBlob { content } => push::push(node, consensus, content).await,
        Op::PushImage { content, value } => {
            let (digest, size) = content_of(content);
            let references = vec![ManifestReference { digest, size, kind: ReferenceKind::Blob }];
            match images() {
                Some(repository) => {
                    let command =
                        manifest(repository, value, references, Vec::new(), Condition::None);
                    if node.world.mutation() == Some(Mutation::AckBeforeCommit) {
                        let consensus = consensus.clone();
                        tokio::spawn(async move { consensus.propose(command).await });
                        return Told::Done;
                    }
                    propose(node, consensus, command).await
                }
                None => Told::NotDone("no repository".to_owned()),
            }
        }
        Op::DeleteImage { value, .. } => match images() {
            Some(repository) => {
                let digest = manifest_digest(value);
                propose(node, consensus, Command::DeleteManifest { repository, digest }).await
            }
            None => Told::NotDone("no repository".to_owned()),
        },
    }
}

async fn put(
    node: &Node,
    consensus: &Consensus,
    tag: u8,
    value: u64,
    condition: Condition,
) -> Told {
    let (Some(repository), Some(tag)) = (tags(), tag_of(tag)) else {
        return Told::NotDone("no tag".to_owned());
    };
    let command = manifest(repository, value, Vec::new(), vec![tag], condition);
    propose(node, consensus, command).await
}

/// As the registry does: the barrier for writers, then the group's decision.
pub(crate) async fn propose(node: &Node, consensus: &Consensus, command: Command) -> Told {
    if let Err(error) = consensus.write_barrier().await {
        return told_error(error);
    }
    match consensus.propose(command).await {
        Ok(Outcome::Done) => Told::Done,
        Ok(Outcome::NotFound | Outcome::RepositoryUnknown) => Told::Absent,
        Ok(Outcome::ConditionFailed { current }) => {
            Told::Failed(current.and_then(|digest| node.world.value_of(&digest)))
        }
        // Refused by the group: nothing was changed.
        Ok(other) => Told::NotDone(other.to_string()),
        Err(error) => told_error(error),
    }
}

fn told_error(error: ProposeError) -> Told {
    match error {
        ProposeError::Unknown(why) | ProposeError::NoSpace(why) => Told::Unknown(why),
        error => Told::NotDone(error.to_string()),
    }
}

pub(crate) fn tags() -> Option<RepositoryName> {
    "simulation/tags".parse().ok()
}

pub(crate) fn images() -> Option<RepositoryName> {
    "simulation/images".parse().ok()
}

fn tag_of(tag: u8) -> Option<Tag> {
    format!("t{tag}").parse().ok()
}

/// A blob: its digest and its size.
pub(crate) fn content_of(content: u8) -> (Digest, u64) {
    let bytes = format!("content {content}");
    (Digest::of(Algorithm::Sha256, bytes.as_bytes()), bytes.len() as u64)
}

fn manifest_bytes(value: u64) -> Vec<u8> {
    format!("{{\"value\":{value}}}").into_bytes()
}

pub(crate) fn manifest_digest(value: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &manifest_bytes(value))
}

fn manifest(
    repository: RepositoryName,
    value: u64,
    references: Vec<ManifestReference>,
    tags: Vec<Tag>,
    condition: Condition,
) -> Command {
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    Command::PutManifest {
        repository,
        digest: manifest_digest(value),
        media_type: media_type.clone(),
        bytes: manifest_bytes(value),
        summary: ManifestSummary {
            media_type,
            references,
            subject: None,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
        },
        tags,
        condition,
    }
}
