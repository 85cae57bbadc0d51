//! Faults that come together: which ones, of whom, for how long, is drawn from the seed.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    partition::Side,
    proxy::{Damage, Weather},
};

/// What may happen to a cluster on hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nemesis {
    /// `kill -9` of one.
    Kill(usize),
    /// `kill -9` of all at once.
    KillAll,
    /// SIGTERM, and a start as soon as it has ended.
    Restart(usize),
    /// SIGSTOP, later SIGCONT.
    Pause(usize),
    /// All links of one to other replicas.
    CutOff(usize),
    /// One side of one.
    OneWay(usize, Side),
    /// Two of them do not reach each other.
    Bridge(usize, usize),
    /// The links of one come and go.
    Flap(usize),
    /// A percentage of what replicas send to one.
    Loss(usize, u8),
    /// Clients do not reach one.
    ShutOut(usize),
    /// The links of one are bad in this way.
    BadLinks(usize, Weather),
    /// The wall clock of one is off by so many seconds.
    Clock(usize, i64),
    /// So many reads of content fail on the disk of one.
    BadReads(usize, u64),
    /// The disk of one has no space for content.
    FullDisk(usize),
    /// One may have little memory and few open files.
    Limits(usize),
    /// One is removed from the members, and one with its name and an empty disk joins in its place.
    Replace(usize),
    /// Leadership is handed to one.
    HandOver(usize),
}

/// Kinds, by their words in reports.
pub(crate) const KINDS: [&str; 17] = [
    "kill -9",
    "kill -9 of all",
    "restart",
    "SIGSTOP",
    "cut off",
    "one-way cut",
    "bridge",
    "flapping links",
    "packet loss",
    "clients shut out",
    "bad links",
    "clock jump",
    "EIO on reads",
    "no space for content",
    "little memory and few files",
    "member replaced",
    "leadership handed over",
];

/// Reads of a disk that fail are so many at most: more than one pull of an image, fewer than all that a disk holds.
const BAD_READS_MAX: u64 = 40;

impl Nemesis {
    /// Draws one for a cluster of so many replicas.
    pub(crate) fn draw(replicas: usize, random: &mut StdRng) -> Result<Self> {
        let victim = random.random_range(0..replicas);
        Ok(match random.random_range(0..KINDS.len() + 1) {
            0 => Self::Kill(victim),
            1 => Self::KillAll,
            2 => Self::Restart(victim),
            3 => Self::Pause(victim),
            4 => Self::CutOff(victim),
            5 => {
                let side = if random.random_bool(0.5) { Side::Outbound } else { Side::Inbound };
                Self::OneWay(victim, side)
            }
            6 => Self::Bridge(victim, (victim + random.random_range(1..replicas)) % replicas),
            7 => Self::Flap(victim),
            8 => Self::Loss(victim, random.random_range(5..=50)),
            9 => Self::ShutOut(victim),
            10 => Self::Clock(victim, *[-600, 600].choose(random).context("two values")?),
            11 => Self::BadReads(victim, random.random_range(1..=BAD_READS_MAX)),
            12 => Self::FullDisk(victim),
            13 => Self::Limits(victim),
            14 => Self::Replace(victim),
            15 => Self::HandOver(victim),
            // The kinds of bad links are many.
            _ => Self::BadLinks(victim, bad_weather(random)),
        })
    }

    /// Its word in reports.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill -9",
            Self::KillAll => "kill -9 of all",
            Self::Restart(_) => "restart",
            Self::Pause(_) => "SIGSTOP",
            Self::CutOff(_) => "cut off",
            Self::OneWay(..) => "one-way cut",
            Self::Bridge(..) => "bridge",
            Self::Flap(_) => "flapping links",
            Self::Loss(..) => "packet loss",
            Self::ShutOut(_) => "clients shut out",
            Self::BadLinks(..) => "bad links",
            Self::Clock(..) => "clock jump",
            Self::BadReads(..) => "EIO on reads",
            Self::FullDisk(_) => "no space for content",
            Self::Limits(_) => "little memory and few files",
            Self::Replace(_) => "member replaced",
            Self::HandOver(_) => "leadership handed over",
        }
    }

    /// The details, for a report.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::KillAll => "everybody".to_owned(),
            Self::OneWay(victim, side) => format!("replica {victim}, {}", side.word()),
            Self::Bridge(one, other) => format!("replicas {one} and {other}"),
            Self::Loss(victim, percent) => format!("replica {victim}, {percent} %"),
            Self::BadLinks(victim, weather) => format!("replica {victim}, {}", weather.words()),
            Self::Clock(victim, seconds) => format!("replica {victim}, {seconds:+} s"),
            Self::BadReads(victim, reads) => format!("replica {victim}, {reads} of them at most"),
            Self::HandOver(victim) => format!("to replica {victim}"),
            Self::Kill(victim)
            | Self::Restart(victim)
            | Self::Pause(victim)
            | Self::CutOff(victim)
            | Self::Flap(victim)
            | Self::ShutOut(victim)
            | Self::FullDisk(victim)
            | Self::Limits(victim)
            | Self::Replace(victim) => format!("replica {victim}"),
        }
    }

    /// Whether it is about a process: no two of those at once, each wants to find it as it left it.
    pub(crate) fn is_of_a_process(&self) -> bool {
        matches!(
            self,
            Self::Kill(_)
                | Self::KillAll
                | Self::Restart(_)
                | Self::Pause(_)
                | Self::Limits(_)
                | Self::Replace(_)
        )
    }

    /// Whether it works by the packet filter, whose rules one of them alone can have.
    pub(crate) fn is_of_the_filter(&self) -> bool {
        matches!(self, Self::CutOff(_) | Self::OneWay(..) | Self::Bridge(..) | Self::Flap(_))
    }

    /// Whose disk is at fault: the faults of a disk end together, so it has one of them alone.
    fn disk(&self) -> Option<usize> {
        match self {
            Self::BadReads(victim, _) | Self::FullDisk(victim) => Some(*victim),
            _ => None,
        }
    }

    /// Who is started while others may go on: not on a disk at fault, since such a start may be refused.
    fn starts(&self) -> Option<usize> {
        match self {
            Self::Restart(victim) | Self::Limits(victim) => Some(*victim),
            _ => None,
        }
    }

    /// Whether copies of blobs may be gone afterwards: one that cannot be read is taken out of use, and a disk that is wiped
    /// has none. Before it every other replica must hold what it should, and there is one of these at a time.
    pub(crate) fn takes_copies(&self) -> bool {
        matches!(self, Self::BadReads(..) | Self::Replace(_))
    }

    /// Whether the two cannot go on at the same time.
    fn collides(&self, other: &Self) -> bool {
        let meet = |disk: Option<usize>, starts: Option<usize>| disk.is_some() && disk == starts;
        self.kind() == other.kind()
            || (self.is_of_a_process() && other.is_of_a_process())
            || (self.is_of_the_filter() && other.is_of_the_filter())
            || (self.takes_copies() && other.takes_copies())
            || (self.disk().is_some() && other.disk().is_some())
            || meet(self.disk(), other.starts())
            || meet(other.disk(), self.starts())
    }

    /// Who cannot be counted on meanwhile, of so many.
    pub(crate) fn hurts(&self, replicas: usize) -> BTreeSet<usize> {
        match self {
            Self::KillAll => (0..replicas).collect(),
            // Whichever of the two leads, the other one is left out; and the leader may have to change.
            Self::Bridge(one, other) => BTreeSet::from([*one, *other]),
            // Whoever leads then, a majority has elected it.
            Self::Clock(..) | Self::HandOver(_) => BTreeSet::new(),
            Self::Kill(victim)
            | Self::Restart(victim)
            | Self::Pause(victim)
            | Self::CutOff(victim)
            | Self::OneWay(victim, _)
            | Self::Flap(victim)
            | Self::Loss(victim, _)
            | Self::ShutOut(victim)
            | Self::BadLinks(victim, _)
            | Self::BadReads(victim, _)
            | Self::FullDisk(victim)
            | Self::Limits(victim)
            | Self::Replace(victim) => BTreeSet::from([*victim]),
        }
    }
}

/// Some that can go on at the same time: one to three.
pub(crate) fn draw_together(replicas: usize, random: &mut StdRng) -> Result<Vec<Nemesis>> {
    let count = random.random_range(1..=3);
    let mut together: Vec<Nemesis> = Vec::new();
    while together.len() < count {
        let next = Nemesis::draw(replicas, random)?;
        if !together.iter().any(|other| other.collides(&next)) {
            together.push(next);
        }
    }
    Ok(together)
}

fn bad_weather(random: &mut StdRng) -> Weather {
    match random.random_range(0..5) {
        0 => {
            let delay = Duration::from_millis(random.random_range(20..300));
            Weather::late(delay, delay / 2)
        }
        1 => Weather::narrow(random.random_range(50_000..500_000)),
        2 => Weather::resetting(random.random_range(1_000..200_000)),
        // Within TLS: every damaged byte costs the connection.
        3 if random.random_bool(0.5) => {
            let start = random.random_range(1_000..50_000);
            Weather::corrupting(Damage::Window(start..start + 3))
        }
        3 => Weather::corrupting(Damage::EveryByte(random.random_range(2_000..100_000))),
        _ => Weather::black_hole(),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_draws_the_same_again_and_in_the_end_everything() {
        let mut seen = BTreeSet::new();
        for seed in 0..400 {
            let one = draw_together(3, &mut StdRng::seed_from_u64(seed)).unwrap();
            let again = draw_together(3, &mut StdRng::seed_from_u64(seed)).unwrap();
            assert_eq!(one, again);
            assert!((1..=3).contains(&one.len()));
            assert!(one.iter().filter(|nemesis| nemesis.is_of_a_process()).count() <= 1);
            assert!(one.iter().filter(|nemesis| nemesis.takes_copies()).count() <= 1);
            seen.extend(one.iter().map(Nemesis::kind));
        }
        assert_eq!(seen, BTreeSet::from(KINDS));
    }

    #[test]
    fn no_disk_is_at_fault_under_a_start_and_no_two_are_at_once() {
        assert!(Nemesis::FullDisk(1).collides(&Nemesis::Restart(1)));
        assert!(Nemesis::Limits(1).collides(&Nemesis::BadReads(1, 3)));
        assert!(!Nemesis::FullDisk(1).collides(&Nemesis::Restart(2)));
        assert!(Nemesis::FullDisk(1).collides(&Nemesis::BadReads(2, 3)));
        assert!(Nemesis::Replace(1).collides(&Nemesis::BadReads(2, 3)));
        assert!(!Nemesis::Replace(1).collides(&Nemesis::FullDisk(2)));
        assert!(!Nemesis::HandOver(0).collides(&Nemesis::KillAll));
    }
}
