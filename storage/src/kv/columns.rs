//! The column families of the log database. Those of the state database are [`crate::Table`].

/// A column family of the log database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogColumn {
    /// Raft log entries by index.
    Entries,
    /// The vote and the positions committed and purged.
    Meta,
}

impl LogColumn {
    /// Every column family of the log database.
    pub const ALL: [Self; 2] = [Self::Entries, Self::Meta];

    /// The column family's name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Meta => "meta",
        }
    }
}
