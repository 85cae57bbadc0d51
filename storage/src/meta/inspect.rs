//! Looks at every record of a state database: does it decode, and do the tables agree with each other?
//!
//! Reads only. What it finds it says in words, because nothing but a person can do something about it: the
//! state is the same on every replica, so one that is damaged is thrown away and copied again.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::keys;
use super::read::Meta;
use super::records::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, CollectionHoldsRecord, FeatureLevelRecord,
    ImmutableTagsRecord, ManifestLinkRecord, ManifestRecord, MemberRecord, PullRecord,
    ReferrerRecord, RepositoryRecord, RetentionRecord, TagRecord, TokenKeysRecord, schemas,
};
use super::state_db::StateDb;
use super::table::{KvRead, Table};
use crate::codec::{self, Schema};
use crate::error::StorageError;
use crate::{Digest, ReferenceKind, RepositoryName, Tag};

/// Records read at once.
const PAGE: usize = 256;
/// Problems that are kept in words; the rest is counted.
const PROBLEMS_MAX: usize = 1_000;

/// What a look at all tables has found.
#[derive(Clone, Debug, Default)]
pub struct StateInspection {
    /// Records, by table.
    pub records: BTreeMap<&'static str, u64>,
    /// The first thousand things that are wrong.
    pub problems: Vec<TableProblem>,
    /// How many there are.
    pub problem_count: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableProblem {
    /// The table's name.
    pub table: &'static str,
    /// The key, lossily as text.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// It is in a table that is made from others.
    pub derived: bool,
}

impl StateDb {
    /// Looks at all tables.
    ///
    /// # Errors
    /// When the database cannot be read; what it holds is told in the answer.
    pub fn inspect(&self) -> Result<StateInspection, StorageError> {
        let mut inspector = Inspector { db: self, found: StateInspection::default() };
        for table in Table::ALL {
            if self.has_table(table) {
                inspector.table(table)?;
            }
        }
        inspector.counts()?;
        Ok(inspector.found)
    }
}

struct Inspector<'a> {
    db: &'a StateDb,
    found: StateInspection,
}

impl Inspector<'_> {
    fn meta(&self) -> Meta<'_, StateDb> {
        Meta(self.db)
    }

    fn problem(&mut self, table: Table, key: &[u8], problem: impl Into<String>) {
        self.found.problem_count += 1;
        if self.found.problems.len() < PROBLEMS_MAX {
            let derived = matches!(table, Table::BlobRepositories | Table::ManifestParents);
            self.found.problems.push(TableProblem {
                table: table.name(),
                key: String::from_utf8_lossy(key).replace('\0', " "),
                problem: problem.into(),
                derived,
            });
        }
    }

    /// Each record of a table by itself, and what it points at.
    fn table(&mut self, table: Table) -> Result<(), StorageError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.db.scan(table, b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            *self.found.records.entry(table.name()).or_default() += page.len() as u64;
            for (key, value) in &page {
                match self.record(table, key, value) {
                    Ok(None) => {}
                    Ok(Some(problem)) => self.problem(table, key, problem),
                    // A record that this one points at does not decode: told there.
                    Err(StorageError::Record { .. } | StorageError::Key { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn record(
        &self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<String>, StorageError> {
        let Some(parts) = keys::parts(key) else {
            return Ok(Some("the key is no text".to_owned()));
        };
        match table {
            Table::Repositories => Ok(first([
                name(&parts, 0).err(),
                decoded::<RepositoryRecord>(schemas::REPOSITORY, value).err(),
            ])),
            Table::Tags => self.tag(&parts, value),
            Table::TagTargets => self.tag_target(&parts),
            Table::Manifests => Ok(manifest(&parts, value)),
            Table::ManifestLinks => self.manifest_link(&parts, value),
            Table::Blobs => Ok(blob(&parts, value)),
            Table::BlobLinks => self.blob_link(&parts, value),
            Table::AwaitedBlobs => self.in_repository(
                &parts,
                decoded::<AwaitedBlobRecord>(schemas::AWAITED_BLOB, value).err(),
            ),
            Table::Pulls => {
                self.in_repository(&parts, decoded::<PullRecord>(schemas::PULL, value).err())
            }
            Table::Referrers => self.referrer(&parts, value),
            Table::Members => Ok(member(&parts, value)),
            Table::Settings => Ok(setting(key, value)),
            Table::BlobRepositories => self.blob_repository(&parts),
            Table::ManifestParents => self.manifest_parent(&parts),
            // The Raft layer's: it looks itself.
            Table::System => Ok(None),
        }
    }

    fn in_repository(
        &self,
        parts: &[&str],
        undecodable: Option<String>,
    ) -> Result<Option<String>, StorageError> {
        let (repository, digest) = match (name(parts, 0), digest(parts, 1)) {
            (Ok(repository), Ok(digest)) => (repository, digest),
            (repository, digest) => return Ok(first([repository.err(), digest.err()])),
        };
        let _ = digest;
        if undecodable.is_some() {
            return Ok(undecodable);
        }
        Ok(self
            .meta()
            .repository(&repository)?
            .is_none()
            .then(|| "its repository is not known".to_owned()))
    }

    fn tag(&self, parts: &[&str], value: &[u8]) -> Result<Option<String>, StorageError> {
        let (repository, tag) = match (name(parts, 0), parsed::<Tag>(parts, 1)) {
            (Ok(repository), Ok(tag)) => (repository, tag),
            (repository, tag) => return Ok(first([repository.err(), tag.err()])),
        };
        let record: TagRecord = match decoded(schemas::TAG, value) {
            Ok(record) => record,
            Err(problem) => return Ok(Some(problem)),
        };
        if self.meta().manifest_link(&repository, &record.digest)?.is_none() {
            return Ok(Some(format!(
                "points at {}, which the repository does not have",
                record.digest
            )));
        }
        let mirrored =
            self.db.get(Table::TagTargets, &keys::tag_target(&repository, &record.digest, &tag))?;
        Ok(mirrored.is_none().then(|| "the index of tags by manifest lacks it".to_owned()))
    }

    fn tag_target(&self, parts: &[&str]) -> Result<Option<String>, StorageError> {
        let (Ok(repository), Ok(digest), Ok(tag)) =
            (name(parts, 0), digest(parts, 1), parsed::<Tag>(parts, 2))
        else {
            return Ok(Some("the key is malformed".to_owned()));
        };
        let record = self.meta().tag(&repository, &tag)?;
        let agrees = record.is_some_and(|record| record.digest == digest);
        Ok((!agrees).then(|| "the tag does not point there".to_owned()))
    }

    fn manifest_link(&self, parts: &[&str], value: &[u8]) -> Result<Option<String>, StorageError> {
        let undecodable = decoded::<ManifestLinkRecord>(schemas::MANIFEST_LINK, value).err();
        if let Some(problem) = self.in_repository(parts, undecodable)? {
            return Ok(Some(problem));
        }
        let (Ok(repository), Ok(digest)) = (name(parts, 0), digest(parts, 1)) else {
            return Ok(None);
        };
        let Some(record) = self.meta().manifest(&digest)? else {
            return Ok(Some("its manifest is not there".to_owned()));
        };
        let Some(subject) = &record.summary.subject else { return Ok(None) };
        let listed =
            self.db.get(Table::Referrers, &keys::referrer(&repository, subject, &digest))?;
        Ok(listed.is_none().then(|| format!("is not listed as a referrer of {subject}")))
    }

    fn blob_link(&self, parts: &[&str], value: &[u8]) -> Result<Option<String>, StorageError> {
        let undecodable = decoded::<BlobLinkRecord>(schemas::BLOB_LINK, value).err();
        if let Some(problem) = self.in_repository(parts, undecodable)? {
            return Ok(Some(problem));
        }
        let (Ok(repository), Ok(digest)) = (name(parts, 0), digest(parts, 1)) else {
            return Ok(None);
        };
        if self.meta().blob(&digest)?.is_none() {
            return Ok(Some("its blob is not in the catalogue".to_owned()));
        }
        if !self.db.has_table(Table::BlobRepositories) {
            return Ok(None);
        }
        let mirrored =
            self.db.get(Table::BlobRepositories, &keys::blob_repository(&digest, &repository))?;
        Ok(mirrored.is_none().then(|| "the index of repositories by blob lacks it".to_owned()))
    }

    fn referrer(&self, parts: &[&str], value: &[u8]) -> Result<Option<String>, StorageError> {
        let (Ok(repository), Ok(subject), Ok(digest)) =
            (name(parts, 0), digest(parts, 1), digest(parts, 2))
        else {
            return Ok(Some("the key is malformed".to_owned()));
        };
        let record: ReferrerRecord = match decoded(schemas::REFERRER, value) {
            Ok(record) => record,
            Err(problem) => return Ok(Some(problem)),
        };
        if record.descriptor.digest != digest {
            return Ok(Some(format!("describes {}", record.descriptor.digest)));
        }
        if self.meta().manifest_link(&repository, &digest)?.is_none() {
            return Ok(Some("its manifest is not in the repository".to_owned()));
        }
        let of = self.meta().manifest(&digest)?.and_then(|record| record.summary.subject);
        Ok((of.as_ref() != Some(&subject)).then(|| "its manifest has another subject".to_owned()))
    }

    fn blob_repository(&self, parts: &[&str]) -> Result<Option<String>, StorageError> {
        let (Ok(digest), Ok(repository)) = (digest(parts, 0), name(parts, 1)) else {
            return Ok(Some("the key is malformed".to_owned()));
        };
        let linked = self.meta().blob_link(&repository, &digest)?.is_some();
        Ok((!linked).then(|| "the repository does not see the blob".to_owned()))
    }

    fn manifest_parent(&self, parts: &[&str]) -> Result<Option<String>, StorageError> {
        let (Ok(repository), Ok(child), Ok(parent)) =
            (name(parts, 0), digest(parts, 1), digest(parts, 2))
        else {
            return Ok(Some("the key is malformed".to_owned()));
        };
        if self.meta().manifest_link(&repository, &parent)?.is_none() {
            return Ok(Some("the manifest that names it is not in the repository".to_owned()));
        }
        let names = self.meta().manifest(&parent)?.is_some_and(|record| {
            record.summary.references.iter().any(|reference| {
                reference.kind == ReferenceKind::Manifest && reference.digest == child
            })
        });
        Ok((!names).then(|| "the manifest does not name it".to_owned()))
    }

    /// Counts again what the records count: one repository at a time.
    fn counts(&mut self) -> Result<(), StorageError> {
        let mut links: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut references: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.db.scan(Table::Repositories, b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, _) in &page {
                if let Some(repository) = keys::parts(key).and_then(|parts| name(&parts, 0).ok()) {
                    self.repository_counts(&repository, &mut links, &mut references)?;
                }
            }
        }
        self.compare(Table::Manifests, &links, |value| {
            decoded::<ManifestRecord>(schemas::MANIFEST, value).ok().map(|record| record.links)
        })?;
        self.compare(Table::Blobs, &references, |value| {
            decoded::<BlobRecord>(schemas::BLOB, value).ok().map(|record| record.references)
        })
    }

    fn repository_counts(
        &mut self,
        repository: &RepositoryName,
        links: &mut BTreeMap<Digest, u64>,
        references: &mut BTreeMap<Digest, u64>,
    ) -> Result<(), StorageError> {
        let mut named: BTreeMap<Digest, u32> = BTreeMap::new();
        let prefix = keys::in_repository(repository);
        self.each(Table::ManifestLinks, &prefix, |inspector, key, _| {
            let Some(manifest) = keys::parts(key).and_then(|parts| digest(&parts, 1).ok()) else {
                return Ok(());
            };
            *links.entry(manifest.clone()).or_default() += 1;
            let record = match inspector.meta().manifest(&manifest) {
                Ok(Some(record)) => record,
                Ok(None) | Err(StorageError::Record { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            for reference in &record.summary.references {
                if reference.kind == ReferenceKind::Blob {
                    *named.entry(reference.digest.clone()).or_default() += 1;
                }
            }
            Ok(())
        })?;
        self.each(Table::BlobLinks, &prefix, |inspector, key, value| {
            let blob = keys::parts(key).and_then(|parts| digest(&parts, 1).ok());
            let record = decoded::<BlobLinkRecord>(schemas::BLOB_LINK, value);
            let (Some(blob), Ok(record)) = (blob, record) else { return Ok(()) };
            let counted = named.remove(&blob).unwrap_or(0);
            *references.entry(blob).or_default() += u64::from(counted);
            if counted != record.references {
                let problem = format!("counts {} manifests, {counted} name it", record.references);
                inspector.problem(Table::BlobLinks, key, problem);
            }
            Ok(())
        })?;
        self.each(Table::AwaitedBlobs, &prefix, |inspector, key, value| {
            let blob = keys::parts(key).and_then(|parts| digest(&parts, 1).ok());
            let record = decoded::<AwaitedBlobRecord>(schemas::AWAITED_BLOB, value);
            let (Some(blob), Ok(record)) = (blob, record) else { return Ok(()) };
            let counted = named.remove(&blob).unwrap_or(0);
            if counted != record.references {
                let problem = format!("counts {} manifests, {counted} name it", record.references);
                inspector.problem(Table::AwaitedBlobs, key, problem);
            }
            Ok(())
        })?;
        for (blob, count) in named {
            let key = keys::link(repository, &blob);
            let problem = format!("{count} manifests name it, and nothing counts them");
            self.problem(Table::BlobLinks, &key, problem);
        }
        Ok(())
    }

    /// The counts of a table whose keys are digests, against those that were counted.
    fn compare(
        &mut self,
        table: Table,
        counted: &BTreeMap<Digest, u64>,
        count: impl Fn(&[u8]) -> Option<u64>,
    ) -> Result<(), StorageError> {
        self.each(table, b"", |inspector, key, value| {
            let found = keys::parts(key).and_then(|parts| digest(&parts, 0).ok());
            let (Some(digest), Some(stated)) = (found, count(value)) else { return Ok(()) };
            let actual = counted.get(&digest).copied().unwrap_or(0);
            if actual != stated {
                inspector.problem(table, key, format!("counts {stated}, there are {actual}"));
            }
            Ok(())
        })
    }

    fn each(
        &mut self,
        table: Table,
        prefix: &[u8],
        mut visit: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.db.scan(table, prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in &page {
                visit(self, key, value)?;
            }
        }
    }
}

fn manifest(parts: &[&str], value: &[u8]) -> Option<String> {
    let digest = match digest(parts, 0) {
        Ok(digest) => digest,
        Err(problem) => return Some(problem),
    };
    let record: ManifestRecord = match decoded(schemas::MANIFEST, value) {
        Ok(record) => record,
        Err(problem) => return Some(problem),
    };
    let actual = Digest::of(digest.algorithm(), &record.bytes);
    (actual != digest).then(|| format!("its bytes hash to {actual}"))
}

fn blob(parts: &[&str], value: &[u8]) -> Option<String> {
    if let Err(problem) = digest(parts, 0) {
        return Some(problem);
    }
    let record: BlobRecord = match decoded(schemas::BLOB, value) {
        Ok(record) => record,
        Err(problem) => return Some(problem),
    };
    let agrees = (record.references == 0) == record.unreferenced_since_ms.is_some();
    (!agrees).then(|| {
        format!(
            "has {} references and says it is unreferenced since {:?}",
            record.references, record.unreferenced_since_ms
        )
    })
}

fn member(parts: &[&str], value: &[u8]) -> Option<String> {
    match parts {
        ["name", _] => decoded::<MemberRecord>(schemas::MEMBER, value).err(),
        ["leaving", _] => None,
        ["retired" | "removed", id] => {
            u64::from_str_radix(id, 16).err().map(|_| "the id is no number".to_owned())
        }
        _ => Some("the key is malformed".to_owned()),
    }
}

fn setting(key: &[u8], value: &[u8]) -> Option<String> {
    match key {
        keys::TOKEN_KEYS => decoded::<TokenKeysRecord>(schemas::TOKEN_KEYS, value).err(),
        keys::IMMUTABLE_TAGS => {
            decoded::<ImmutableTagsRecord>(schemas::IMMUTABLE_TAGS, value).err()
        }
        keys::RETENTION => decoded::<RetentionRecord>(schemas::RETENTION, value).err(),
        keys::FEATURE_LEVEL => decoded::<FeatureLevelRecord>(schemas::FEATURE_LEVEL, value).err(),
        keys::COLLECTION_HOLDS => {
            decoded::<CollectionHoldsRecord>(schemas::COLLECTION_HOLDS, value).err()
        }
        _ => Some("a setting that this version does not know".to_owned()),
    }
}

fn decoded<T: DeserializeOwned>(schema: Schema, value: &[u8]) -> Result<T, String> {
    codec::decode(schema, value).map_err(|error| error.to_string())
}

fn parsed<T: std::str::FromStr>(parts: &[&str], at: usize) -> Result<T, String> {
    let part = parts.get(at).ok_or_else(|| "the key is too short".to_owned())?;
    part.parse().map_err(|_| format!("`{part}` in the key is not what belongs there"))
}

fn name(parts: &[&str], at: usize) -> Result<RepositoryName, String> {
    parsed(parts, at)
}

fn digest(parts: &[&str], at: usize) -> Result<Digest, String> {
    parsed(parts, at)
}

fn first<const N: usize>(problems: [Option<String>; N]) -> Option<String> {
    problems.into_iter().flatten().next()
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
