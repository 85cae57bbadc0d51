//! What must hold, looked at while the simulation runs and at its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tercet_raft::simulation::{decode_entry, decode_log_id};
use tercet_raft::{Consensus, Role};
use tercet_storage::{Digest, KvRead as _, StorageError, Table};

use crate::disk::{BlobDisk, LogDisk};
use crate::linear::{Judged, judge};
use crate::node::{content_of, images, manifest_digest};
use crate::peer::{is_placed_on, placement_key};
use crate::push::{REPLICATION_FACTOR, members};
use crate::world::{World, fingerprint};

/// A term and who led in it. Of two leaders in one term the one with the greater id goes before the other, as a later
/// term would: openraft's order of votes.
type Leader = (u64, u64);

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    /// Images that were acknowledged, by the numbers of their manifests, with their content; not those that somebody
    /// has begun to delete.
    pub(crate) kept: BTreeMap<u64, u8>,
    /// Which number a manifest stands for.
    pub(crate) values: BTreeMap<Digest, u64>,
    /// The disk that an id belongs to.
    ids: BTreeMap<u64, (usize, u32)>,
    /// Entries that somebody has applied: who led when they were made, and what they say.
    committed: BTreeMap<u64, (Leader, u64)>,
    /// The state as of an index.
    states: BTreeMap<u64, u64>,
    /// The last index at which each replica's state was looked at.
    looked: BTreeMap<String, u64>,
}

impl Seen {
    /// Notes whose an id is; what is wrong, if another disk had it.
    pub(crate) fn id_of_disk(&mut self, id: u64, machine: usize, disk: u32) -> Option<String> {
        let owner = *self.ids.entry(id).or_insert((machine, disk));
        (owner != (machine, disk)).then(|| {
            format!(
                "id {id} of disk {} of replica {} is used by disk {disk} of replica {machine}",
                owner.1, owner.0
            )
        })
    }
}

impl World {
    pub(crate) fn value_of(&self, digest: &Digest) -> Option<u64> {
        self.lock().seen.values.get(digest).copied()
    }
}

struct Look {
    name: String,
    consensus: Option<Consensus>,
    log: Arc<Mutex<LogDisk>>,
    blobs: Arc<Mutex<BlobDisk>>,
}

fn look(world: &World) -> Vec<Look> {
    let inner = world.lock();
    let look = inner.machines.iter().map(|machine| Look {
        name: machine.name.clone(),
        consensus: machine.consensus.clone(),
        log: Arc::clone(&machine.log),
        blobs: Arc::clone(&machine.blobs),
    });
    look.collect()
}

/// Looks at everything that must hold at every moment.
pub(crate) fn at_every_moment(world: &World) {
    let machines = look(world);
    let mut furthest: Option<(u64, Consensus)> = None;
    for machine in &machines {
        let Some(consensus) = &machine.consensus else { continue };
        let Some(applied) = applied_by(consensus) else { continue };
        if world.lock().seen.looked.insert(machine.name.clone(), applied) != Some(applied)
            && let Some(state) = state_of(consensus)
        {
            same_state(world, &machine.name, applied, state);
        }
        committed_stays(world, machine, applied);
        if furthest.as_ref().is_none_or(|(most, _)| applied > *most) {
            furthest = Some((applied, consensus.clone()));
        }
    }
    for machine in &machines {
        leaders_have_all(world, machine);
    }
    // Whoever has applied less than another did before knows less of the blobs.
    let newest = world.lock().seen.committed.last_key_value().map_or(0, |(index, _)| *index);
    if let Some((applied, consensus)) = furthest
        && applied >= newest
    {
        a_holder_for_each(world, &machines, &consensus);
    }
}

/// A fingerprint of all of the state that the log decides.
fn state_of(consensus: &Consensus) -> Option<u64> {
    let read = consensus.read(|meta| {
        let mut all = Vec::new();
        for table in Table::ALL {
            if table == Table::System {
                all.extend(meta.0.get(table, b"membership").ok()?.unwrap_or_default());
                continue;
            }
            for (key, value) in meta.0.scan(table, b"", None, usize::MAX).ok()? {
                all.extend_from_slice(&(key.len() as u64).to_le_bytes());
                all.extend_from_slice(&key);
                all.extend_from_slice(&(value.len() as u64).to_le_bytes());
                all.extend_from_slice(&value);
            }
        }
        Some(fingerprint(&all))
    });
    read.ok()?
}

/// The index that the state stands for.
fn applied_by(consensus: &Consensus) -> Option<u64> {
    let read = consensus.read(|meta| {
        let applied = meta.0.get(Table::System, b"last_applied").ok()??;
        Some(decode_log_id(&applied).ok()?.index)
    });
    read.ok()?
}

fn same_state(world: &World, name: &str, applied: u64, state: u64) {
    let before = *world.lock().seen.states.entry(applied).or_insert(state);
    if before != state {
        world.violation(format!(
            "the state of {name} at index {applied} is {state:016x}, that of another replica was {before:016x}"
        ));
    }
}

/// What one replica has applied is what every other one has in its log there.
fn committed_stays(world: &World, machine: &Look, applied: u64) {
    let mut changed = Vec::new();
    {
        let log = machine.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = world.lock();
        for (index, bytes) in log.live.entries.range(..=applied) {
            let entry = fingerprint(bytes);
            let seen = inner.seen.committed.entry(*index);
            if seen.or_insert_with(|| (leader_of(bytes), entry)).1 != entry {
                changed.push(*index);
            }
        }
    }
    if let Some(index) = changed.first() {
        world.violation(format!(
            "entry {index} was committed, and {} has applied another",
            machine.name
        ));
    }
}

fn leader_of(entry: &[u8]) -> Leader {
    let leader = decode_entry(entry).map(|entry| entry.log_id.leader_id);
    leader.map_or((0, 0), |leader| (leader.term, leader.node_id))
}

/// Whoever leads later has what was committed earlier.
fn leaders_have_all(world: &World, machine: &Look) {
    let Some(consensus) = &machine.consensus else { return };
    let status = consensus.status();
    let newest = world.lock().seen.committed.last_key_value().map(|(index, (by, _))| (*index, *by));
    let Some((newest, by)) = newest.filter(|_| status.role == Role::Leader) else { return };
    let has = {
        let log = machine.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.live.entries.last_key_value().map_or(u64::MAX, |(last, _)| *last)
    };
    if (status.term, consensus.identity().node_id) >= by && has < newest {
        world.violation(format!(
            "{} leads in term {} with entries up to {has}, and {newest} was committed before",
            machine.name, status.term
        ));
    }
}

fn a_holder_for_each(world: &World, machines: &[Look], consensus: &Consensus) {
    let Ok(Ok(blobs)) = consensus.read(|meta| meta.blobs(None, usize::MAX)) else { return };
    for (digest, _) in blobs {
        if !machines.iter().any(|machine| holds(machine, &digest)) {
            world.violation(format!("no disk has {digest}, which was acknowledged"));
        }
    }
}

fn holds(machine: &Look, digest: &Digest) -> bool {
    machine.blobs.lock().unwrap_or_else(PoisonError::into_inner).has(digest)
}

/// Why not every replica votes and knows that all do; `None` once it does.
pub(crate) fn not_complete(world: &World) -> Option<String> {
    let machines = look(world);
    for machine in &machines {
        let Some(consensus) = &machine.consensus else {
            return Some(format!("{} does not run", machine.name));
        };
        let (status, members) = (consensus.status(), consensus.members());
        if status.changing_members
            || members.len() != machines.len()
            || members.iter().any(|member| member.role == Role::Learner)
        {
            return Some(format!("{} knows of a change of the members", machine.name));
        }
        if !status.is_member || status.role == Role::Learner {
            return Some(format!("{} does not vote", machine.name));
        }
    }
    None
}

/// Why the cluster is not whole again; `None` once it is.
pub(crate) fn not_whole(world: &World) -> Option<String> {
    if let Some(why) = not_complete(world) {
        return Some(why);
    }
    let machines = look(world);
    let newest = world.lock().seen.committed.last_key_value().map_or(0, |(index, _)| *index);
    let mut positions = Vec::new();
    for machine in &machines {
        let Some(consensus) = &machine.consensus else {
            return Some(format!("{} does not run", machine.name));
        };
        let status = consensus.status();
        let Some(applied) = applied_by(consensus) else {
            return Some(format!("{} has no state", machine.name));
        };
        if applied < newest {
            return Some(format!("{} has applied {applied} of {newest}", machine.name));
        }
        // After a loss of power what was committed may be in the logs only, until the next leader has committed again.
        if applied < status.last_log {
            return Some(format!(
                "{} has applied {applied} of its log of {}",
                machine.name, status.last_log
            ));
        }
        positions.push((applied, status.leader));
    }
    if positions.windows(2).any(|pair| pair.first() != pair.last()) {
        return Some(format!("they stand at {positions:?}"));
    }
    let consensus = machines.first()?.consensus.as_ref()?;
    let Ok(Ok(blobs)) = consensus.read(|meta| meta.blobs(None, usize::MAX)) else {
        return Some("the catalogue cannot be read".to_owned());
    };
    let peers = members(consensus);
    for (digest, _) in blobs {
        let key = placement_key(&digest);
        for machine in &machines {
            let Some(own) = machine.consensus.as_ref().map(|each| each.identity().node_id) else {
                continue;
            };
            if is_placed_on(&peers, REPLICATION_FACTOR, &key, own) && !holds(machine, &digest) {
                return Some(format!("{} lacks {digest}", machine.name));
            }
        }
    }
    None
}

/// Looks for every image that was acknowledged in the catalogue of every replica, once they are one again.
pub(crate) fn kept(world: &World) {
    let Some(repository) = images() else { return };
    let kept = world.lock().seen.kept.clone();
    for machine in look(world) {
        let Some(consensus) = &machine.consensus else { continue };
        for (value, content) in &kept {
            let (manifest, (blob, _)) = (manifest_digest(*value), content_of(*content));
            let found = consensus.read(|meta| {
                let record = meta.blob(&blob)?.is_some_and(|record| record.references > 0);
                let linked = meta.manifest_link(&repository, &manifest)?.is_some();
                Ok::<_, StorageError>(record && linked && meta.manifest(&manifest)?.is_some())
            });
            if !matches!(found, Ok(Ok(true))) {
                world.violation(format!(
                    "image {value} with content {content} was acknowledged, and {} does not know it",
                    machine.name
                ));
            }
        }
    }
    world.lock().counts.kept += kept.len() as u64;
}

/// Judges what the clients were told.
pub(crate) fn histories(world: &World) {
    let tags = world.lock().history.by_tag();
    for (tag, events) in tags {
        match judge(&events) {
            Judged::Linearizable => world.lock().counts.judged += events.len() as u64,
            Judged::Not => {
                world.violation(format!(
                    "the {} operations on tag t{tag} are not linearizable",
                    events.len()
                ));
            }
            Judged::TooMany => world.lock().counts.unjudged += 1,
        }
    }
}
