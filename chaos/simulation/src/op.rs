//! What clients ask for, what they were told, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a client asks a replica for. A value is a number that becomes the bytes of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Where does the tag point?
    Read { tag: u8 },
    /// Point the tag at this value.
    Put { tag: u8, value: u64 },
    /// If it points at `expected` now.
    PutIfMatch { tag: u8, value: u64, expected: u64 },
    /// If there is no such tag.
    PutIfAbsent { tag: u8, value: u64 },
    /// Remove the tag.
    Delete { tag: u8 },
    /// Store this content.
    PushBlob { content: u8 },
    /// Store a manifest that names this content.
    PushImage { content: u8, value: u64 },
    /// Remove the manifest that [`Self::PushImage`] made.
    DeleteImage { content: u8, value: u64 },
}

impl Op {
    /// The tag it is about, if it is about one.
    pub(crate) fn tag(&self) -> Option<u8> {
        match self {
            Self::Read { tag }
            | Self::Put { tag, .. }
            | Self::PutIfMatch { tag, .. }
            | Self::PutIfAbsent { tag, .. }
            | Self::Delete { tag } => Some(*tag),
            Self::PushBlob { .. } | Self::PushImage { .. } | Self::DeleteImage { .. } => None,
        }
    }
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    /// It points there, or nowhere.
    Value(Option<u64>),
    /// Done.
    Done,
    /// The condition did not hold: this is where it points.
    Failed(Option<u64>),
    /// There was nothing to remove.
    Absent,
    /// From local state, marked as stale.
    Stale,
    /// Surely not done.
    NotDone(String),
    /// It may have been done.
    Unknown(String),
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) op: Op,
    pub(crate) began: Duration,
    /// `None`, or unknown: it may have happened at any time since, or never.
    pub(crate) ended: Option<(Duration, Told)>,
}

/// All operations in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
}

impl History {
    pub(crate) fn begin(&mut self, op: Op, began: Duration) -> usize {
        self.events.push(Event { op, began, ended: None });
        self.events.len() - 1
    }

    pub(crate) fn end(&mut self, number: usize, ended: Duration, told: Told) {
        if let Some(event) = self.events.get_mut(number) {
            event.ended = Some((ended, told));
        }
    }

    /// The operations on each tag.
    pub(crate) fn by_tag(&self) -> BTreeMap<u8, Vec<Event>> {
        let mut tags: BTreeMap<u8, Vec<Event>> = BTreeMap::new();
        for event in &self.events {
            if let Some(tag) = event.op.tag() {
                tags.entry(tag).or_default().push(event.clone());
            }
        }
        tags
    }
}
