//! A row of the benchmarks.

use anyhow::Result;

use super::{Bench, outcome::Outcome, target::Target};

/// One comparison that can be made by itself.
#[derive(Debug)]
pub(super) struct Row {
    /// Its number, by which it can be chosen.
    pub(super) number: u8,
    /// The same in a word.
    pub(super) name: &'static str,
    /// Its heading.
    pub(super) title: &'static str,
    /// What is measured, and how, for the page.
    pub(super) words: &'static str,
    pub(super) targets: &'static [Target],
    /// What measures it.
    pub(super) body: fn(&Bench, &mut Outcome) -> Result<()>,
}
