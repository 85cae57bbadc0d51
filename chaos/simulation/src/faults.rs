//! What goes wrong, drawn from the seed.

use std::time::Duration;

use tercet_raft::Identity;

use crate::mutation::Mutation;
use crate::world::World;

/// The faults of one simulation, done between its steps.
pub(crate) struct Faults {
    world: World,
    next: Duration,
    /// What is to be undone, and when.
    open: Vec<(Duration, Undo)>,
    replaced: bool,
}

enum Undo {
    Start(usize),
    Repair(usize, usize),
    Speed(usize),
}

impl Faults {
    pub(crate) fn new(world: World, first: Duration) -> Self {
        Self { world, next: first, open: Vec::new(), replaced: false }
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, sim: &mut turmoil::Sim<'_>) {
        let at = sim.elapsed();
        let (due, open) =
            std::mem::take(&mut self.open).into_iter().partition(|(when, _)| *when <= at);
        self.open = open;
        let due: Vec<(Duration, Undo)> = due;
        for (_, undo) in due {
            self.undo(sim, undo);
        }
        if at >= self.next {
            self.next = at + Duration::from_millis(self.world.below(1_500) as u64 + 200);
            self.inject(sim);
        }
    }

    /// Undoes everything.
    pub(crate) fn heal(&mut self, sim: &mut turmoil::Sim<'_>) {
        for (_, undo) in std::mem::take(&mut self.open) {
            self.undo(sim, undo);
        }
        let mut inner = self.world.lock();
        inner.loss = 0.0;
        inner.healing = true;
        inner.note_at(sim.elapsed(), "FAULTS ARE OVER");
    }

    fn inject(&mut self, sim: &mut turmoil::Sim<'_>) {
        let at = sim.elapsed();
        let count = self.world.lock().machines.len();
        let one = self.world.below(count);
        let other = (one + 1 + self.world.below(count - 1)) % count;
        let for_ms =
            |world: &World, most: usize| at + Duration::from_millis(world.below(most) as u64 + 100);
        match self.world.below(14) {
            0..3 => {
                let until = for_ms(&self.world, 2_000);
                self.kill(sim, one, until, 0.7);
            }
            3 | 4 => {
                self.note(sim, "power fails everywhere".to_owned());
                for machine in 0..count {
                    let until = for_ms(&self.world, 600);
                    self.kill(sim, machine, until, 1.0);
                }
            }
            5 | 6 => {
                // Each with everybody else.
                let until = for_ms(&self.world, 3_000);
                for far in (0..count).filter(|far| *far != one) {
                    self.cut(sim, one, far, until);
                }
            }
            7 => {
                let until = for_ms(&self.world, 3_000);
                self.cut(sim, one, other, until);
            }
            8 => {
                let (from, to) = (self.name(one), self.name(other));
                self.note(sim, format!("{from} cannot reach {to}"));
                sim.partition_oneway(from.as_str(), to.as_str());
                let until = for_ms(&self.world, 3_000);
                self.open.push((until, Undo::Repair(one, other)));
            }
            9 => {
                let skew = self.world.below(10_000) as i64 - 5_000;
                self.note(sim, format!("the clock of {} is wrong by {skew} ms", self.name(one)));
                if let Some(machine) = self.world.lock().machines.get_mut(one) {
                    machine.skew_ms = skew;
                }
            }
            10 => {
                let until = for_ms(&self.world, 2_000);
                self.slow(sim, one, until);
            }
            11 => {
                let until = for_ms(&self.world, 2_000);
                (0..count).for_each(|machine| self.slow(sim, machine, until));
            }
            _ => self.replace(sim, one),
        }
    }

    fn slow(&mut self, sim: &turmoil::Sim<'_>, number: usize, until: Duration) {
        self.note(sim, format!("the disk of {} is slow", self.name(number)));
        if let Some(machine) = self.world.lock().machines.get_mut(number) {
            machine.sync_ms = 300;
        }
        self.open.push((until, Undo::Speed(number)));
    }

    /// `power` says how likely it is the machine and not only the process that dies.
    fn kill(&mut self, sim: &mut turmoil::Sim<'_>, number: usize, until: Duration, power: f64) {
        let name = self.name(number);
        {
            let mut inner = self.world.lock();
            let Some(machine) = inner.machines.get_mut(number) else { return };
            if !std::mem::replace(&mut machine.up, false) {
                return;
            }
        }
        // A process that is killed loses nothing that it has written; a machine does.
        let power = self.world.chance(power);
        let how = if power { "loses power" } else { "is killed" };
        self.note(sim, format!("{name} {how}"));
        let (consensus, process) = {
            let mut inner = self.world.lock();
            let Some(machine) = inner.machines.get_mut(number) else { return };
            machine.port = None;
            (machine.consensus.take(), std::mem::take(&mut machine.process))
        };
        // Before the crash: the last handle on a simulated socket must go with its host.
        drop(consensus);
        sim.crash(name.as_str());
        if process.strong_count() > 0 {
            self.world.violation(format!("{} parts of {name} outlive it", process.strong_count()));
        }
        if power {
            self.lose_power(number);
        } else {
            self.pretend_votes_are_gone(number);
        }
        self.open.push((until, Undo::Start(number)));
    }

    fn lose_power(&self, number: usize) {
        let mut inner = self.world.lock();
        let inner = &mut *inner;
        let Some(machine) = inner.machines.get_mut(number) else { return };
        let dice = &mut inner.dice;
        // Often nothing but what was synced is left.
        let mut kept = |unsynced: usize| {
            let none = rand::RngExt::random_bool(dice, 0.5);
            if none { 0 } else { rand::RngExt::random_range(dice, 0..=unsynced) }
        };
        machine.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).lose_power(&mut kept);
        machine.blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).lose_power();
        tercet_storage::simulation::lose_power(&machine.data.state(), &mut kept);
    }

    /// Under [`Mutation::VoteNotPersisted`] a vote is nowhere but in memory.
    fn pretend_votes_are_gone(&self, number: usize) {
        if self.world.mutation() == Some(Mutation::VoteNotPersisted) {
            let inner = self.world.lock();
            if let Some(machine) = inner.machines.get(number) {
                let mut log = machine.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                log.lose_power(|unsynced| unsynced);
            }
        }
    }

    /// Another disk in the place of one, once in a simulation, and only while all vote and no other fault goes on: one
    /// lost disk at a time is what a cluster of three survives.
    fn replace(&mut self, sim: &mut turmoil::Sim<'_>, number: usize) {
        let all_up = self.world.lock().machines.iter().all(|machine| machine.up);
        if self.replaced
            || !all_up
            || !self.open.is_empty()
            || crate::check::not_complete(&self.world).is_some()
        {
            return;
        }
        self.replaced = true;
        let until = sim.elapsed() + Duration::from_millis(self.world.below(1_500) as u64 + 200);
        self.kill(sim, number, until, 1.0);
        self.note(sim, format!("{} gets an empty disk", self.name(number)));
        let mut inner = self.world.lock();
        inner.counts.replaced += 1;
        let Some(machine) = inner.machines.get_mut(number) else { return };
        machine.disks += 1;
        machine.log = std::sync::Arc::default();
        machine.blobs = std::sync::Arc::default();
        debug_assert!(Identity::load(&machine.data).is_ok());
        let _ = std::fs::remove_dir_all(machine.data.root());
    }

    fn cut(&mut self, sim: &mut turmoil::Sim<'_>, one: usize, other: usize, until: Duration) {
        let (a, b) = (self.name(one), self.name(other));
        self.note(sim, format!("{a} and {b} are cut off from each other"));
        sim.partition(a.as_str(), b.as_str());
        self.open.push((until, Undo::Repair(one, other)));
    }

    fn undo(&mut self, sim: &mut turmoil::Sim<'_>, undo: Undo) {
        let mut inner = self.world.lock();
        let at = sim.elapsed();
        match undo {
            Undo::Start(number) => {
                let Some(machine) = inner.machines.get_mut(number) else { return };
                machine.up = true;
                let name = machine.name.clone();
                inner.note_at(at, &format!("{name} starts"));
                drop(inner);
                sim.bounce(name.as_str());
            }
            Undo::Repair(one, other) => {
                drop(inner);
                let (a, b) = (self.name(one), self.name(other));
                self.world.lock().note_at(at, &format!("{a} and {b} are joined again"));
                sim.repair(a.as_str(), b.as_str());
            }
            Undo::Speed(number) => {
                if let Some(machine) = inner.machines.get_mut(number) {
                    machine.sync_ms = 5;
                }
            }
        }
    }

    fn note(&self, sim: &turmoil::Sim<'_>, what: String) {
        let mut inner = self.world.lock();
        inner.counts.faults += 1;
        inner.note_at(sim.elapsed(), &format!("FAULT {what}"));
    }

    fn name(&self, number: usize) -> String {
        self.world.lock().machines.get(number).map_or_else(String::new, |m| m.name.clone())
    }
}
