//! Missing blobs come by themselves, and copies too many go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tercet_raft::Leaving;
use tercet_storage::{DataDir, SystemClock};
use tokio::sync::mpsc;

use super::*;
use crate::loss::{Affected, Losses};
use crate::peer::placement::{is_placed_on, placement, placement_key};
use crate::peer::{Budget, Catalogue, PeerStatus, Repair, RepairParts};

#[derive(Default)]
struct Listed {
    blobs: Mutex<Vec<(Digest, u64)>>,
    rescan: AtomicBool,
    follows: AtomicBool,
}

impl Listed {
    fn of(blobs: Vec<(Digest, u64)>) -> Self {
        Self { blobs: Mutex::new(blobs), ..Self::default() }
    }
}

impl Catalogue for Listed {
    fn page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, String> {
        let mut blobs = self.blobs.lock().unwrap().clone();
        blobs.sort();
        blobs.retain(|(digest, _)| after.is_none_or(|after| digest > after));
        blobs.truncate(limit);
        Ok(blobs)
    }

    fn committed_ms(&self, digest: &Digest) -> Result<Option<u64>, String> {
        Ok(self.blobs.lock().unwrap().iter().any(|(known, _)| known == digest).then_some(0))
    }

    fn take_rescan(&self) -> bool {
        self.rescan.swap(false, Ordering::AcqRel)
    }

    fn applied(&self) -> u64 {
        7
    }

    fn leads(&self) -> bool {
        !self.follows.load(Ordering::Acquire)
    }
}

struct NoImages;

impl Affected for NoImages {
    fn by(&self, _digest: &Digest) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

type Members = Arc<Mutex<Vec<Peer>>>;

struct Repairing {
    catalogue: Arc<Listed>,
    commits: mpsc::Sender<(Digest, u64)>,
    metrics: Arc<Metrics>,
    losses: Losses,
    members: Members,
    budget: Budget,
    fetcher: Fetcher,
    blobs: BlobStore,
    workers: Workers,
    dir: TempDir,
}

fn own() -> Peer {
    Peer::at("own", 1, "http://127.0.0.1:1")
}

/// A replica named `own` with nothing on its disk, and repair at work.
fn repairing(catalogue: Listed, others: Vec<Peer>, replication_factor: usize) -> Repairing {
    let (dir, blobs) = store();
    repairing_on(dir, blobs, catalogue, others, replication_factor)
}

fn repairing_on(
    dir: TempDir,
    blobs: BlobStore,
    catalogue: Listed,
    others: Vec<Peer>,
    replication_factor: usize,
) -> Repairing {
    let members: Members = Arc::new(Mutex::new(others.into_iter().chain([own()]).collect()));
    let (commits, committed) = mpsc::channel(4);
    let metrics = Arc::new(Metrics::new().unwrap());
    let losses = Losses::new(Arc::new(NoImages), Arc::new(SystemClock), Arc::clone(&metrics));
    let (catalogue, workers) = (Arc::new(catalogue), Workers::new());
    let directory = {
        let members = Arc::clone(&members);
        Directory::new(1, move || members.lock().unwrap().clone())
    };
    let fetcher = Fetcher::new(FetcherParts {
        blobs: blobs.clone(),
        peers: client_counting(1, Arc::clone(&metrics)),
        directory: directory.clone(),
        workers: workers.clone(),
        metrics: Arc::clone(&metrics),
        disk_stop_percent: 101,
        edge_cache: None,
    });
    let budget = Budget::new(64 * 1024 * 1024);
    let repair = Repair::new(RepairParts {
        blobs: blobs.clone(),
        fetcher: fetcher.clone(),
        directory,
        catalogue: Arc::clone(&catalogue) as Arc<dyn Catalogue>,
        committed,
        metrics: Arc::clone(&metrics),
        losses: losses.clone(),
        clock: Arc::new(SystemClock),
        replication_factor,
        parallel: 2,
        budget: budget.clone(),
        surplus_after: Duration::ZERO,
    });
    workers.spawn("repair", |token| repair.run(token));
    Repairing { catalogue, commits, metrics, losses, members, budget, fetcher, blobs, workers, dir }
}

/// Has a peer answer all that repair asks, in a cluster of these members. Returns how often it was asked
/// how it is.
fn attach(replica: &Replica, members: Members, replication_factor: usize) -> Arc<AtomicUsize> {
    let node_id = replica.peer.node_id;
    replica.state.attach_placement(move |digest| {
        let key = placement_key(digest);
        is_placed_on(&members.lock().unwrap(), replication_factor, &key, node_id)
    });
    let status: PeerStatus = serde_json::from_value(serde_json::json!({
        "name": replica.peer.name, "node_id": node_id, "version": "0", "applied": 7,
        "missing_blobs": 0, "disk_used": 0, "disk_total": 0,
    }))
    .unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    replica.state.attach_status(move || {
        count.fetch_add(1, Ordering::AcqRel);
        status.clone()
    });
    asked
}

#[tokio::test]
async fn what_the_catalogue_lists_and_what_is_committed_later_comes_here() {
    let source = Replica::start("source", 2).await;
    let mut listed = Vec::new();
    for i in 0..20 {
        let content = content(10_000 + i);
        listed.push((put(&source.blobs, &content).await, content.len() as u64));
    }
    let here = repairing(Listed::of(listed.clone()), vec![source.peer.clone()], 3);
    for (digest, size) in &listed {
        until_held(&here.blobs, digest, *size as usize).await;
    }
    until("a whole comparison", async || here.metrics.repair_compared_applied.get() == 7).await;
    let later = content(30_000);
    let digest = put(&source.blobs, &later).await;
    here.catalogue.blobs.lock().unwrap().push((digest.clone(), 30_000));
    here.commits.send((digest.clone(), 30_000)).await.unwrap();
    until_held(&here.blobs, &digest, 30_000).await;
    until("nothing missing", async || here.metrics.missing_blobs.get() == 0).await;

    // One that the channel had no room for.
    let lost = content(40_000);
    let digest = put(&source.blobs, &lost).await;
    here.catalogue.blobs.lock().unwrap().push((digest.clone(), 40_000));
    here.catalogue.rescan.store(true, Ordering::Release);
    until_held(&here.blobs, &digest, 40_000).await;
    assert!(here.workers.shutdown(PATIENCE).await.is_empty());
}

#[tokio::test]
async fn the_budget_is_asked_for_every_byte_of_repair_and_for_none_of_a_client() {
    let source = Replica::start("source", 2).await;
    let mut listed = Vec::new();
    for i in 0..8 {
        let content = content(1_000_000 + i);
        listed.push((put(&source.blobs, &content).await, content.len() as u64));
    }
    let total: u64 = listed.iter().map(|(_, size)| size).sum();
    let here = repairing(Listed::of(listed.clone()), vec![source.peer.clone()], 3);
    for (digest, size) in &listed {
        until_held(&here.blobs, digest, *size as usize).await;
    }
    until("all counted", async || here.metrics.missing_blobs.get() == 0).await;
    assert_eq!((here.budget.taken(), here.metrics.repair_bytes.get()), (total, total));
    // One that a client asks for.
    let asked = content(2_000_000);
    let digest = put(&source.blobs, &asked).await;
    let stream = here.fetcher.open(&digest, 2_000_000, None).await.unwrap();
    assert!(collect(stream).await.unwrap() == asked);
    until_held(&here.blobs, &digest, 2_000_000).await;
    assert_eq!(here.budget.taken(), total);
}

#[tokio::test]
async fn what_nobody_has_is_counted_until_it_comes_or_is_deleted() {
    let source = Replica::start("source", 2).await;
    let (wanted, deleted) = (content(10_000), content(20_000));
    let blobs = vec![(digest(&wanted), 10_000), (digest(&deleted), 20_000)];
    let here = repairing(Listed::of(blobs), vec![source.peer.clone()], 3);
    until("both missing", async || here.metrics.missing_blobs.get() == 2).await;
    until("for a while", async || here.metrics.oldest_missing_seconds.get() > 0).await;
    // Every member was asked, and more than once.
    until("both lost", async || here.losses.total() == 2).await;
    here.catalogue.blobs.lock().unwrap().pop();
    put(&source.blobs, &wanted).await;
    until_held(&here.blobs, &digest(&wanted), 10_000).await;
    until("nothing missing", async || here.metrics.missing_blobs.get() == 0).await;
    until("nothing lost", async || here.losses.total() == 0).await;
    assert_eq!(here.metrics.oldest_missing_seconds.get(), 0);
}

#[tokio::test]
async fn what_a_silent_member_may_have_is_not_lost() {
    let lacking = Replica::start("lacking", 2).await;
    let silent = nobody("silent", 3).await;
    let blobs = vec![(digest(&content(10_000)), 10_000)];
    let here = repairing(Listed::of(blobs), vec![lacking.peer.clone(), silent], 3);
    until("three attempts", async || here.metrics.repair_failed.get() >= 3).await;
    assert_eq!((here.losses.total(), here.metrics.missing_blobs.get()), (0, 1));
    // Both that are placed there, as far as anybody can tell: this one, and the silent one.
    until("told", async || here.metrics.under_replicated.get() == 1).await;
    // It is given up for lost only when the silent one is no member any more.
    here.members.lock().unwrap().retain(|member| member.name != "silent");
    until("lost", async || here.losses.total() == 1).await;
}

#[tokio::test]
async fn only_what_is_placed_here_comes_here() {
    let others = [Replica::start("a", 2).await, Replica::start("b", 3).await];
    let peers: Vec<Peer> = others.iter().map(|other| other.peer.clone()).collect();
    let mut listed = Vec::new();
    for i in 0..30 {
        let content = content(1_000 + i);
        put(&others[0].blobs, &content).await;
        listed.push((put(&others[1].blobs, &content).await, content.len() as u64));
    }
    let here = repairing(Listed::of(listed.clone()), peers, 1);
    until("a first blob and nothing missing", async || {
        let held = here.blobs.list(None, 100).await.unwrap().len();
        held > 0 && here.metrics.missing_blobs.get() == 0
    })
    .await;
    let held = here.blobs.list(None, 100).await.unwrap().len();
    assert!((1..30).contains(&held), "{held} of 30 with one copy on three replicas");
    // One that goes leaves its share to the others, at once.
    here.members.lock().unwrap()[0].leaving = Leaving::Yes;
    until("more", async || here.blobs.list(None, 100).await.unwrap().len() > held).await;
    here.members.lock().unwrap()[1].leaving = Leaving::Yes;
    until("all", async || here.blobs.list(None, 100).await.unwrap().len() == 30).await;
}

#[tokio::test]
async fn a_file_of_the_wrong_size_is_replaced() {
    let source = Replica::start("source", 2).await;
    let content = content(10_000);
    let digest = put(&source.blobs, &content).await;
    let (dir, blobs) = store();
    put(&blobs, &content).await;
    let path = DataDir::new(dir.path()).blob(&digest);
    std::fs::File::options().write(true).open(path).unwrap().set_len(9_999).unwrap();
    let catalogue = Listed::of(vec![(digest.clone(), 10_000)]);
    let here = repairing_on(dir, blobs, catalogue, vec![source.peer.clone()], 3);
    until_held(&here.blobs, &digest, 10_000).await;
    let evidence = std::fs::read_dir(DataDir::new(here.dir.path()).quarantine()).unwrap().count();
    assert!(evidence > 0);
}

/// Blobs on all of three replicas with two copies of each; `own` has one copy too many of some.
struct Crowd {
    others: [Replica; 2],
    listed: Vec<(Digest, u64)>,
    blobs: BlobStore,
    dir: TempDir,
}

impl Crowd {
    async fn new() -> Self {
        let others = [Replica::start("a", 2).await, Replica::start("b", 3).await];
        let (dir, blobs) = store();
        let mut listed = Vec::new();
        for i in 0..30 {
            let content = content(1_000 + i);
            for store in [&others[0].blobs, &others[1].blobs, &blobs] {
                put(store, &content).await;
            }
            listed.push((digest(&content), content.len() as u64));
        }
        Self { others, listed, blobs, dir }
    }

    fn peers(&self) -> Vec<Peer> {
        self.others.iter().map(|other| other.peer.clone()).collect()
    }

    /// Those of which `own` has a copy too many.
    fn surplus(&self) -> Vec<Digest> {
        let members: Vec<Peer> = self.peers().into_iter().chain([own()]).collect();
        let elsewhere =
            |digest: &Digest| !placement(&members, 2, &placement_key(digest)).contains(&own());
        self.listed.iter().map(|(digest, _)| digest.clone()).filter(elsewhere).collect()
    }
}

#[tokio::test]
async fn copies_too_many_go_once_all_others_confirm_theirs() {
    let crowd = Crowd::new().await;
    let surplus = crowd.surplus();
    assert!(surplus.len() >= 3, "{} of 30", surplus.len());
    // One that another lacks, and one that is wrong there without anybody having noticed.
    let (lacking, rotten) = (surplus[0].clone(), surplus[1].clone());
    crowd.others[0].blobs.delete(&lacking).await.unwrap();
    let path = DataDir::new(crowd.others[1].dir.path()).blob(&rotten);
    let mut wrong = std::fs::read(&path).unwrap();
    wrong[7] ^= 1;
    std::fs::write(&path, wrong).unwrap();

    let peers = crowd.peers();
    let listed = Listed::of(crowd.listed.clone());
    let here = repairing_on(crowd.dir, crowd.blobs, listed, peers, 2);
    for other in &crowd.others {
        attach(other, Arc::clone(&here.members), 2);
    }
    let expected = crowd.listed.len() - (surplus.len() - 2);
    until("copies too many are gone", async || {
        here.blobs.list(None, 100).await.unwrap().len() == expected
    })
    .await;
    assert_eq!(here.metrics.surplus_removed.get(), surplus.len() as u64 - 2);
    for kept in [&lacking, &rotten] {
        assert!(here.blobs.size_of(kept).await.unwrap().is_some());
    }
    // Nothing that belongs here went.
    assert_eq!(here.metrics.missing_blobs.get(), 0);
}

#[tokio::test]
async fn nothing_goes_while_a_member_is_about_to_go_or_silent() {
    let crowd = Crowd::new().await;
    let (count, surplus) = (crowd.listed.len(), crowd.surplus());
    let listed = Listed::of(crowd.listed.clone());
    // Then only who looks for copies too many asks the others.
    listed.follows.store(true, Ordering::Release);
    let mut members = crowd.peers();
    members.push(nobody("silent", 4).await);
    let here = repairing_on(crowd.dir, crowd.blobs, listed, members, 2);
    let asked = attach(&crowd.others[0], Arc::clone(&here.members), 2);
    attach(&crowd.others[1], Arc::clone(&here.members), 2);
    // A second look comes only after the first has let nothing go.
    let looks = async |why: &str| {
        let goal = asked.load(Ordering::Acquire) + 2;
        until(why, async || {
            here.catalogue.rescan.store(true, Ordering::Release);
            asked.load(Ordering::Acquire) >= goal
        })
        .await;
        assert_eq!(here.blobs.list(None, 100).await.unwrap().len(), count, "{why}");
    };
    looks("one is silent").await;
    {
        let mut members = here.members.lock().unwrap();
        members.retain(|member| member.name != "silent");
        members
            .push(Peer { leaving: Leaving::Yes, ..Peer::at("leaving", 5, "http://127.0.0.1:1") });
    }
    looks("one is about to go").await;
    here.members.lock().unwrap().retain(|member| member.name != "leaving");
    until("copies too many are gone", async || {
        here.blobs.list(None, 100).await.unwrap().len() == count - surplus.len()
    })
    .await;
}
