//! The catalogue: the repositories that somebody may see.
//!
//! It is read in the order of names, page by page, and what may not be seen is left out on the way.

use tercet_storage::{Meta, RepositoryName, StateDb, StorageError};

use super::error::RegistryError;
use super::list::ListPage;
use super::read::{Current, read};
use crate::auth::{Pullable, Rights};
use crate::core::Core;

/// Names that one request looks at, those that are left out of the answer included.
const SCANNED_MAX: usize = 20_000;
/// Names that are read at a time: a page of them, within bounds.
const BATCH_MIN: usize = 100;
const BATCH_MAX: usize = 1_000;

/// Repositories of the registry that may be seen.
pub(crate) async fn list_repositories(
    core: &Core,
    rights: &Rights,
    after: Option<&str>,
    size: usize,
) -> Result<Current<ListPage<String>>, RegistryError> {
    let prefixes = match rights.visible() {
        Pullable::Everything => vec![String::new()],
        Pullable::Below(prefixes) => prefixes,
        Pullable::Nothing => Vec::new(),
    };
    let scan = Scan { prefixes, after, size };
    let found = read(core, |meta| scan.run(meta, |name| rights.may_see(name))).await?;
    match found.value {
        Some(page) => Ok(Current { value: page, freshness: found.freshness }),
        // The only way on would be to name a repository that must not be named.
        None => Err(RegistryError::Unavailable(format!(
            "more than {SCANNED_MAX} repositories stand before the next one that may \
             be listed; rules whose patterns begin with a fixed part make this list short"
        ))),
    }
}

/// One walk over the list of repositories.
struct Scan<'a> {
    /// Ascending; only names that begin with one of them are looked at.
    prefixes: Vec<String>,
    after: Option<&'a str>,
    size: usize,
}

impl Scan<'_> {
    /// The next page; `None` if the bound was reached before anything was found.
    fn run(
        &self,
        meta: &Meta<'_, StateDb>,
        visible: impl Fn(&RepositoryName) -> bool,
    ) -> Result<Option<ListPage<String>>, StorageError> {
        let batch_max = self.size.saturating_add(1).clamp(BATCH_MIN, BATCH_MAX);
        let mut names: Vec<String> = Vec::new();
        let mut scanned = 0;
        for prefix in &self.prefixes {
            let before = before(prefix);
            let mut after = self.after.max(before.as_deref()).map(ToOwned::to_owned);
            'range: loop {
                let batch = meta.repositories(after.as_deref(), batch_max)?;
                let batch_is_last = batch.len() < batch_max;
                for name in batch {
                    if !name.as_str().starts_with(prefix) {
                        break 'range;
                    }
                    if visible(&name) {
                        names.push(name.to_string());
                    }
                    if names.len() > self.size {
                        return Ok(Some(ListPage::cut(names, self.size)));
                    }
                    scanned += 1;
                    if scanned == SCANNED_MAX {
                        let last = names.last().cloned();
                        return Ok(
                            last.map(|last| ListPage { entries: names, next_after: Some(last) })
                        );
                    }
                    after = Some(name.to_string());
                }
                if batch_is_last {
                    break;
                }
            }
        }
        Ok(Some(ListPage::cut(names, self.size)))
    }
}

/// A text that stands before every name that begins with `prefix` and after every other name before those.
/// Names are printable ASCII, so `0x7f` behind the next smaller character comes after all of its kind.
fn before(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    let last = text.pop()?;
    let smaller = u8::try_from(last).ok()?.checked_sub(1)?;
    text.push(char::from(smaller));
    text.push('\u{7f}');
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_walk_begins_right_before_its_prefix() {
        assert_eq!(before(""), None);
        for (prefix, inside, outside) in [
            ("team/", "team/a", "team.x"),
            ("team/", "team/0", "team-zzz/zzz"),
            ("b", "b", "az_z.z/z"),
            ("b", "b0", "a"),
            ("0", "0", "."),
        ] {
            let before = before(prefix).unwrap();
            assert!(before.as_str() < prefix && before.as_str() < inside, "{prefix} {inside}");
            assert!(outside < before.as_str(), "{prefix} {outside}");
        }
    }
}
