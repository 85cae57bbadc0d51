//! Lists: tags, referrers.

use tercet_storage::{Descriptor, Digest, RepositoryName};

use super::error::RegistryError;
use super::read::{Current, find, read};
use crate::core::Core;

/// A page of a list and whether there is more behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListPage<T> {
    /// In lexical order.
    pub(crate) entries: Vec<T>,
    /// The entry after which the next page begins; `None` at the end.
    pub(crate) next_after: Option<T>,
}

impl<T: Clone> ListPage<T> {
    /// Out of up to `size + 1` entries: the one too many only tells that there is more.
    pub(super) fn cut(mut entries: Vec<T>, size: usize) -> Self {
        let more = entries.len() > size;
        entries.truncate(size);
        let next_after = if more { entries.last().cloned() } else { None };
        Self { entries, next_after }
    }
}

/// Tags of a repository.
pub(crate) async fn list_tags(
    core: &Core,
    repository: &RepositoryName,
    after: Option<&str>,
    size: usize,
) -> Result<Current<ListPage<String>>, RegistryError> {
    let found = find(core, |meta| {
        if meta.repository(repository)?.is_none() {
            return Ok(None);
        }
        Ok(Some(meta.tags(repository, after, size.saturating_add(1))?))
    })
    .await?
    .ok_or_else(|| RegistryError::RepositoryUnknown(repository.clone()))?;
    Ok(found.map(|tags| ListPage::cut(tags.iter().map(ToString::to_string).collect(), size)))
}

/// Records that one request for referrers looks at; what is behind them is the next page's.
const REFERRERS_SCANNED_MAX: usize = 4_096;
/// Records that are read at a time.
const REFERRERS_BATCH: usize = 64;

/// Which referrers are asked for.
#[derive(Debug)]
pub(crate) struct ReferrerQuery<'a> {
    /// The repository.
    pub(crate) repository: &'a RepositoryName,
    /// The manifest that they refer to.
    pub(crate) subject: &'a Digest,
    /// Only those of this type.
    pub(crate) artifact_type: Option<&'a str>,
    /// Only those behind this one.
    pub(crate) after: Option<Digest>,
    /// Most bytes that the descriptors of a page may have as JSON.
    pub(crate) bytes_max: usize,
}

/// Descriptors of the manifests whose `subject` is the one asked for. A repository or a subject that
/// does not exist has none (spec: never `404`).
pub(crate) async fn list_referrers(
    core: &Core,
    query: &ReferrerQuery<'_>,
) -> Result<Current<ListPage<Descriptor>>, RegistryError> {
    read(core, |meta| {
        let mut page = ReferrerPage { kept: Vec::new(), bytes_left: query.bytes_max };
        let mut after = query.after.clone();
        let mut last_seen: Option<Descriptor> = None;
        let mut scanned = 0;
        loop {
            let batch =
                meta.referrers(query.repository, query.subject, after.as_ref(), REFERRERS_BATCH)?;
            let batch_is_last = batch.len() < REFERRERS_BATCH;
            for record in batch {
                let descriptor = record.descriptor;
                let wanted = query
                    .artifact_type
                    .is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted));
                if scanned == REFERRERS_SCANNED_MAX || (wanted && !page.has_room_for(&descriptor)) {
                    return Ok(ListPage { entries: page.kept, next_after: last_seen });
                }
                scanned += 1;
                after = Some(descriptor.digest.clone());
                last_seen = Some(descriptor.clone());
                if wanted {
                    page.kept.push(descriptor);
                }
            }
            if batch_is_last {
                return Ok(ListPage { entries: page.kept, next_after: None });
            }
        }
    })
    .await
}

struct ReferrerPage {
    kept: Vec<Descriptor>,
    bytes_left: usize,
}

impl ReferrerPage {
    /// The first always has room: a page without entries would lead nowhere.
    fn has_room_for(&mut self, descriptor: &Descriptor) -> bool {
        let bytes = serde_json::to_vec(descriptor).map_or(usize::MAX, |json| json.len() + 1);
        if bytes > self.bytes_left && !self.kept.is_empty() {
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_page_knows_whether_there_is_more() {
        let page = ListPage::cut(vec!["a", "b", "c"], 2);
        assert_eq!(page, ListPage { entries: vec!["a", "b"], next_after: Some("b") });
        let page = ListPage::cut(vec!["a", "b"], 2);
        assert_eq!(page, ListPage { entries: vec!["a", "b"], next_after: None });
        // `n=0` is an empty page without a link (spec, "Listing Tags").
        assert_eq!(ListPage::cut(vec!["a"], 0), ListPage { entries: vec![], next_after: None });
    }
}
