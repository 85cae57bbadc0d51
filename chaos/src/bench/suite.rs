//! Which benchmarks: beside others, or by size.

use super::{growth, row::Row, rows};

/// A set of rows, with a page of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Tercet beside its peers, against targets: `benchmarks.md`.
    Peers,
    /// What things cost as they get more: `growth-figures.md`.
    Growth,
}

impl Suite {
    /// In the order of the page.
    pub(super) fn rows(self) -> &'static [&'static Row] {
        match self {
            Self::Peers => &rows::ROWS,
            Self::Growth => &growth::ROWS,
        }
    }

    /// The folder of the files of a run, and the name of its page without the ending. A run of less than everything has others,
    /// and leaves those of the last whole run alone.
    pub(super) fn name(self, whole: bool) -> &'static str {
        match (self, whole) {
            (Self::Peers, true) => "benchmarks",
            (Self::Peers, false) => "benchmarks-part",
            (Self::Growth, true) => "growth-figures",
            (Self::Growth, false) => "growth-figures-part",
        }
    }

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Peers => "Benchmarks",
            Self::Growth => "Growth: the figures",
        }
    }

    /// What starts a whole run.
    pub(super) fn make(self) -> &'static str {
        match self {
            Self::Peers => "make bench",
            Self::Growth => "make growth",
        }
    }

    /// What the page is about.
    pub(super) fn introduction(self) -> &'static str {
        match self {
            Self::Peers => {
                "Tercet and its peers on one machine, in one run, in turn: in each round another one begins. `make bench` \
                 installs the peers, builds Tercet with optimisation, runs all of this again, and writes this page; \
                 `tercet-chaos bench --rows 1,storm` does a part of it. Machines differ, and so does the same machine an \
                 hour later: ratios of one run are worth more than any figure here. A ratio is taken in each round; what \
                 counts is the median, with the least and the most in brackets. Tercet runs with its defaults: durability, \
                 verification and linearizability are on in every figure."
            }
            Self::Growth => {
                "What things cost as they get more: tags, repositories, blobs, replicas, clients, edges. Each is made through \
                 the API of replicas with default settings, and the same is measured at each size. `make growth` builds Tercet \
                 with optimisation, runs all of this again, and writes this page; `tercet-chaos bench --growth --rows tags` \
                 does a part of it. All replicas and the load share one machine: look at how a line runs, and not at how high \
                 it is. What follows from it is in [How Tercet grows](growth.md)."
            }
        }
    }
}
