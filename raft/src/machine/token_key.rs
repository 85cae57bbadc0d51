//! The keys that sign and verify tokens.

use tercet_storage::{Meta, MetaBatch, Secret, StorageError, TokenKey, TokenKeysRecord};

use crate::outcome::Outcome;

/// Most keys kept; with more, the oldest goes although a token may still need it.
const KEYS_MAX: usize = 8;
/// The longest id of a key, in bytes.
const KEY_ID_BYTES_MAX: usize = 64;

pub(super) fn rotate(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    expected: Option<String>,
    key_id: String,
    secret: Secret,
    keep_ms: u64,
) -> Result<Outcome, StorageError> {
    if key_id.is_empty() || key_id.len() > KEY_ID_BYTES_MAX {
        let found = key_id.len();
        return Ok(Outcome::Refused(format!(
            "a token key's id has 1 to {KEY_ID_BYTES_MAX} bytes, not {found}"
        )));
    }
    let mut keys = Meta(&*batch).token_keys()?;
    if let Some(known) = keys.iter().find(|key| key.id == key_id) {
        // The same command once more.
        if known.secret == secret {
            return Ok(Outcome::Done);
        }
        return Ok(Outcome::Refused(format!("the token key {key_id:?} exists already")));
    }
    if keys.last().map(|key| &key.id) != expected.as_ref() {
        return Ok(Outcome::ConditionFailed { current: None });
    }
    keys.push(TokenKey { id: key_id, secret, created_ms: at_ms });
    forget_outlived(&mut keys, at_ms, keep_ms);
    batch.put_token_keys(&TokenKeysRecord { keys })?;
    Ok(Outcome::Done)
}

/// Removes each key that has had a successor for longer than `keep_ms`, and what is before it: the
/// leaders' clocks may differ, the order of the list does not.
fn forget_outlived(keys: &mut Vec<TokenKey>, at_ms: u64, keep_ms: u64) {
    let mut successors = keys.iter().skip(1);
    let outlived = successors.rposition(|next| at_ms.saturating_sub(next.created_ms) > keep_ms);
    let by_age = outlived.map_or(0, |last| last + 1);
    let by_number = keys.len().saturating_sub(KEYS_MAX);
    keys.drain(..by_age.max(by_number));
}

#[cfg(test)]
#[path = "token_key_tests.rs"]
mod tests;
