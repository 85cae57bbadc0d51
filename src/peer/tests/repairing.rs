//! Missing blobs come by themselves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::peer::{Catalogue, Repair, RepairParts};

#[derive(Default)]
struct Listed {
    blobs: Mutex<Vec<(Digest, u64)>>,
    rescan: AtomicBool,
}

impl Catalogue for Listed {
    fn page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, String> {
        let mut blobs = self.blobs.lock().unwrap().clone();
        blobs.sort();
        blobs.retain(|(digest, _)| after.is_none_or(|after| digest > after));
        blobs.truncate(limit);
        Ok(blobs)
    }

    fn knows(&self, digest: &Digest) -> Result<bool, String> {
        Ok(self.blobs.lock().unwrap().iter().any(|(known, _)| known == digest))
    }

    fn take_rescan(&self) -> bool {
        self.rescan.swap(false, Ordering::AcqRel)
    }
}

struct Repairing {
    catalogue: Arc<Listed>,
    commits: mpsc::Sender<(Digest, u64)>,
    metrics: Arc<Metrics>,
    blobs: BlobStore,
    workers: Workers,
    _dir: TempDir,
}

/// A replica named `own` with nothing on its disk, and repair at work.
fn repairing(catalogue: Listed, others: Vec<Peer>, replication_factor: usize) -> Repairing {
    let (dir, blobs) = store();
    let own = Peer { name: "own".to_owned(), node_id: 1, address: "http://127.0.0.1:1".to_owned() };
    let members: Vec<Peer> = others.into_iter().chain([own]).collect();
    let (commits, committed) = mpsc::channel(4);
    let metrics = Arc::new(Metrics::new().unwrap());
    let (catalogue, workers) = (Arc::new(catalogue), Workers::new());
    let repair = Repair::new(RepairParts {
        blobs: blobs.clone(),
        fetcher: fetcher(blobs.clone(), members.clone()),
        directory: Directory::new(1, move || members.clone()),
        catalogue: Arc::clone(&catalogue) as Arc<dyn Catalogue>,
        committed,
        metrics: Arc::clone(&metrics),
        replication_factor,
        parallel: 2,
    });
    workers.spawn("repair", |token| repair.run(token));
    Repairing { catalogue, commits, metrics, blobs, workers, _dir: dir }
}

#[tokio::test]
async fn what_the_catalogue_lists_and_what_is_committed_later_comes_here() {
    let source = Replica::start("source", 2).await;
    let mut listed = Vec::new();
    for i in 0..20 {
        let content = content(10_000 + i);
        listed.push((put(&source.blobs, &content).await, content.len() as u64));
    }
    let catalogue = Listed { blobs: Mutex::new(listed.clone()), rescan: AtomicBool::new(false) };
    let here = repairing(catalogue, vec![source.peer.clone()], 3);
    for (digest, size) in &listed {
        until_held(&here.blobs, digest, *size as usize).await;
    }
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
async fn what_nobody_has_is_counted_until_it_comes_or_is_deleted() {
    let source = Replica::start("source", 2).await;
    let (wanted, deleted) = (content(10_000), content(20_000));
    let blobs = vec![(digest(&wanted), 10_000), (digest(&deleted), 20_000)];
    let catalogue = Listed { blobs: Mutex::new(blobs), rescan: AtomicBool::new(false) };
    let here = repairing(catalogue, vec![source.peer.clone()], 3);
    until("both missing", async || here.metrics.missing_blobs.get() == 2).await;
    here.catalogue.blobs.lock().unwrap().pop();
    put(&source.blobs, &wanted).await;
    until_held(&here.blobs, &digest(&wanted), 10_000).await;
    until("nothing missing", async || here.metrics.missing_blobs.get() == 0).await;
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
    let catalogue = Listed { blobs: Mutex::new(listed.clone()), rescan: AtomicBool::new(false) };
    let here = repairing(catalogue, peers, 1);
    until("a first blob and nothing missing", async || {
        let held = here.blobs.list(None, 100).await.unwrap().len();
        held > 0 && here.metrics.missing_blobs.get() == 0
    })
    .await;
    let held = here.blobs.list(None, 100).await.unwrap().len();
    assert!((1..30).contains(&held), "{held} of 30 with one copy on three replicas");
}
