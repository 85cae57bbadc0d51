//! For the tests of this module: a state database, and commands applied to it one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use tempfile::TempDir;
use tercet_storage::{
    Algorithm, BlobLinkRecord, Digest, KvRead, ManifestReference, ManifestSummary, Meta, MetaBatch,
    ReferenceKind, RepositoryName, StateDb, Table, Tag,
};

use super::apply;
use crate::command::{AbsentReferences, Command, Condition, Proposal};
use crate::outcome::Outcome;

pub(super) struct Bench {
    db: StateDb,
    _dir: TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { db: StateDb::open(dir.path()).unwrap(), _dir: dir }
    }

    pub(super) fn apply(&self, command: Command) -> Outcome {
        self.apply_at(1, command)
    }

    pub(super) fn apply_at(&self, at_ms: u64, command: Command) -> Outcome {
        self.apply_all(vec![Proposal { at_ms, command }]).remove(0)
    }

    /// In one batch, as entries that arrive together.
    pub(super) fn apply_all(&self, proposals: Vec<Proposal>) -> Vec<Outcome> {
        let mut batch = MetaBatch::new(&self.db);
        let outcomes = proposals
            .into_iter()
            .map(|proposal| apply::apply(&mut batch, proposal, &mut Vec::new()).unwrap())
            .collect();
        batch.commit().unwrap();
        outcomes
    }

    /// Writes past the commands, as damage would.
    pub(super) fn write(&self, write: impl FnOnce(&mut MetaBatch<'_>)) {
        let mut batch = MetaBatch::new(&self.db);
        write(&mut batch);
        batch.commit().unwrap();
    }

    pub(super) fn put_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link: &BlobLinkRecord,
    ) {
        self.write(|batch| batch.put_blob_link(repository, digest, link).unwrap());
    }

    pub(super) fn meta(&self) -> Meta<'_, StateDb> {
        Meta(&self.db)
    }

    pub(super) fn tag(&self, tag: &str) -> Option<Digest> {
        let record = self.meta().tag(&repository(), &tag.parse().unwrap()).unwrap();
        record.map(|record| record.digest)
    }

    /// Every pair of every table that commands write to.
    pub(super) fn everything(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let pairs = |table| self.db.scan(table, b"", None, usize::MAX).unwrap().into_iter();
        Table::ALL
            .into_iter()
            .filter(|table| *table != Table::System)
            .flat_map(|table| pairs(table).map(move |(key, value)| (table, key, value)))
            .collect()
    }
}

pub(super) fn repository() -> RepositoryName {
    "prod/app".parse().unwrap()
}

pub(super) fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

pub(super) fn tags(texts: &[&str]) -> Vec<Tag> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A push of a manifest whose bytes are `content`.
pub(super) struct Push {
    pub(super) content: &'static str,
    pub(super) tags: &'static [&'static str],
    pub(super) references: Vec<(Digest, ReferenceKind)>,
    pub(super) condition: Condition,
    pub(super) absent: AbsentReferences,
}

impl Push {
    pub(super) fn new(content: &'static str, tags: &'static [&'static str]) -> Self {
        Self {
            content,
            tags,
            references: Vec::new(),
            condition: Condition::None,
            absent: AbsentReferences::Refused,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        digest(self.content)
    }

    pub(super) fn command(&self) -> Command {
        let Parts { repository, digest, media_type, bytes, summary, tags, condition } =
            self.parts();
        let absent = self.absent.clone();
        Command::PushManifest {
            repository,
            digest,
            media_type,
            bytes,
            summary,
            tags,
            condition,
            absent,
        }
    }

    /// As an older replica proposes it.
    pub(super) fn old_command(&self) -> Command {
        let Parts { repository, digest, media_type, bytes, summary, tags, condition } =
            self.parts();
        Command::PutManifest { repository, digest, media_type, bytes, summary, tags, condition }
    }

    fn parts(&self) -> Parts {
        let media_type = "application/vnd.oci.image.index.v1+json".to_owned();
        let references = self.references.iter();
        let summary = ManifestSummary {
            media_type: media_type.clone(),
            references: references
                .map(|(digest, kind)| ManifestReference {
                    digest: digest.clone(),
                    size: 1,
                    kind: *kind,
                })
                .collect(),
            subject: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        Parts {
            repository: repository(),
            digest: self.digest(),
            media_type,
            bytes: self.content.as_bytes().to_vec(),
            summary,
            tags: tags(self.tags),
            condition: self.condition.clone(),
        }
    }
}

struct Parts {
    repository: RepositoryName,
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
    summary: ManifestSummary,
    tags: Vec<Tag>,
    condition: Condition,
}
