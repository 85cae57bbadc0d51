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
/// Bytes of records after which no further one is looked at: annotations may be megabytes.
const REFERRERS_SCANNED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Records that are read at a time. Each may be as large as a manifest.
const REFERRERS_BATCH: usize = 4;

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

/// A page of descriptors.
#[derive(Debug)]
pub(crate) struct ReferrerPage {
    /// By digest; none if the filter lets none of those through that were looked at.
    pub(crate) entries: Vec<Descriptor>,
    /// The referrer, listed or not, after which the next page begins; `None` at the end.
    pub(crate) next_after: Option<Digest>,
}

/// Descriptors of the manifests whose `subject` is the one asked for. A repository or a subject that
/// does not exist has none (spec: never `404`).
pub(crate) async fn list_referrers(
    core: &Core,
    query: &ReferrerQuery<'_>,
) -> Result<Current<ReferrerPage>, RegistryError> {
    read(core, |meta| {
        let mut page = Kept { entries: Vec::new(), bytes_left: query.bytes_max };
        let mut after = query.after.clone();
        let (mut scanned, mut scanned_bytes) = (0, 0);
        loop {
            let batch =
                meta.referrers(query.repository, query.subject, after.as_ref(), REFERRERS_BATCH)?;
            let batch_is_last = batch.len() < REFERRERS_BATCH;
            for record in batch {
                let descriptor = record.descriptor;
                let wanted = query
                    .artifact_type
                    .is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted));
                let scanned_enough = scanned == REFERRERS_SCANNED_MAX
                    || scanned_bytes >= REFERRERS_SCANNED_BYTES_MAX;
                if scanned_enough || (wanted && !page.has_room_for(&descriptor)) {
                    return Ok(ReferrerPage { entries: page.entries, next_after: after });
                }
                scanned += 1;
                scanned_bytes += text_bytes(&descriptor);
                after = Some(descriptor.digest.clone());
                if wanted {
                    page.entries.push(descriptor);
                }
            }
            if batch_is_last {
                return Ok(ReferrerPage { entries: page.entries, next_after: None });
            }
        }
    })
    .await
}

/// What of a descriptor can be long.
fn text_bytes(descriptor: &Descriptor) -> usize {
    let annotations = descriptor.annotations.iter().map(|(key, value)| key.len() + value.len());
    let artifact_type = descriptor.artifact_type.as_ref().map_or(0, String::len);
    descriptor.media_type.len() + artifact_type + annotations.sum::<usize>()
}

struct Kept {
    entries: Vec<Descriptor>,
    bytes_left: usize,
}

impl Kept {
    /// The first always has room: a page without entries would lead nowhere.
    fn has_room_for(&mut self, descriptor: &Descriptor) -> bool {
        let bytes = serde_json::to_vec(descriptor).map_or(usize::MAX, |json| json.len() + 1);
        if bytes > self.bytes_left && !self.entries.is_empty() {
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
