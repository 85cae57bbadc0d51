//! What the replicas agree on besides content: made, renewed and brought in line by whoever leads.
//!
//! The group holds the keys that sign tokens, the rules about tags that do not move and those about what
//! may go. Their source is the leader: its generator, and its configuration file.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tercet_raft::{Command, Consensus, Outcome, Role};
use tercet_storage::{Secret, TokenKey, check_immutable_tags, check_retention};

use super::error::RegistryError;
use super::now_ms;
use super::read::{look, writable_and_current};
use crate::config::Access;
use crate::core::Core;

/// Between two looks, while nothing changes. A look is two reads of local metadata.
const PAUSE: Duration = Duration::from_secs(2);
/// A key outlives its last token by this much, for replicas that are behind and clocks that differ.
const KEY_LEEWAY: Duration = Duration::from_secs(10 * 60);

/// Starts the worker.
pub(crate) fn start_settings(core: &Arc<Core>) {
    let (weak, consensus) = (Arc::downgrade(core), core.consensus.clone());
    core.workers.spawn("settings", move |token| async move {
        token.run_until_cancelled(keep(weak, consensus)).await;
    });
}

async fn keep(core: Weak<Core>, consensus: Consensus) {
    let mut failing = false;
    loop {
        let role = consensus.status().role;
        if role == Role::Leader {
            let Some(core) = core.upgrade() else { return };
            match reconcile(&core).await {
                Ok(()) => failing = false,
                Err(error) if failing => tracing::debug!(%error, "settings are not replicated yet"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "cannot replicate token keys, immutable-tag rules or retention rules now; trying on");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = consensus.role_changed(role) => {}
        }
    }
}

async fn reconcile(core: &Core) -> Result<(), RegistryError> {
    // The file as it was last read: it is read again when it changes.
    let access = &core.access.authenticator.access();
    // The rules do not wait for a key that cannot be made, nor the other way round.
    let keys = reconcile_keys(core, access).await;
    let rules = reconcile_rules(core, access).await;
    let retention = reconcile_retention(core).await;
    keys.and(rules).and(retention)
}

async fn reconcile_keys(core: &Core, access: &Access) -> Result<(), RegistryError> {
    if look(&core.consensus, |meta| meta.token_keys())?
        .last()
        .is_none_or(|newest| is_due(newest, access))
    {
        rotate(core, access).await?;
    }
    Ok(())
}

async fn reconcile_rules(core: &Core, access: &Access) -> Result<(), RegistryError> {
    if look(&core.consensus, |meta| meta.immutable_tags())? != access.immutable_tag_rules() {
        set_rules(core, access).await?;
    }
    Ok(())
}

async fn reconcile_retention(core: &Core) -> Result<(), RegistryError> {
    let wanted = core.config.retention.rules();
    if look(&core.consensus, |meta| meta.retention())? == wanted {
        return Ok(());
    }
    let command = Command::SetRetention { rules: wanted.clone() };
    let level =
        look(&core.consensus, |meta| meta.feature_level())?.map_or(1, |record| record.level);
    if level < command.feature_level() {
        // A replica of the version before is still there.
        return Ok(());
    }
    writable_and_current(core).await?;
    if look(&core.consensus, |meta| meta.retention())? == wanted {
        return Ok(());
    }
    check_retention(&wanted)
        .map_err(|error| RegistryError::Refused(format!("retention.rules: {error}")))?;
    let names: Vec<String> = wanted.into_iter().map(|rule| rule.name).collect();
    match core.consensus.propose(command).await? {
        Outcome::Done => {
            tracing::info!(rules = ?names, "the retention rules are those of this replica's configuration now");
            Ok(())
        }
        other => Err(RegistryError::Refused(format!("retention.rules: {other}"))),
    }
}

/// Whether the newest key is old enough to get a successor. One from far in the future is too: the clock
/// that stamped it was wrong, and waiting for that day would mean never.
fn is_due(newest: &TokenKey, access: &Access) -> bool {
    let period_ms = access.token_key_rotation_hours.saturating_mul(60 * 60 * 1000);
    now_ms().abs_diff(newest.created_ms) >= period_ms
}

async fn rotate(core: &Core, access: &Access) -> Result<(), RegistryError> {
    writable_and_current(core).await?;
    let newest = look(&core.consensus, |meta| meta.token_keys())?.pop();
    if newest.as_ref().is_some_and(|newest| !is_due(newest, access)) {
        return Ok(());
    }
    let key_id = hex::encode(random::<8>()?);
    let keep_ms = access.token_seconds.saturating_mul(1000);
    let command = Command::RotateTokenKey {
        expected: newest.map(|newest| newest.id),
        key_id: key_id.clone(),
        secret: Secret::new(random()?),
        keep_ms: keep_ms.saturating_add(u64::try_from(KEY_LEEWAY.as_millis()).unwrap_or(u64::MAX)),
    };
    match core.consensus.propose(command).await? {
        Outcome::Done => tracing::info!(key = %key_id, "a new key signs tokens"),
        Outcome::ConditionFailed { .. } => {
            tracing::debug!("another leader made a token key at the same time");
        }
        other => return Err(RegistryError::Refused(format!("token key: {other}"))),
    }
    Ok(())
}

async fn set_rules(core: &Core, access: &Access) -> Result<(), RegistryError> {
    writable_and_current(core).await?;
    let wanted = access.immutable_tag_rules();
    if look(&core.consensus, |meta| meta.immutable_tags())? == wanted {
        return Ok(());
    }
    // The group would refuse them as well, at the price of an entry every time.
    check_immutable_tags(&wanted)
        .map_err(|error| RegistryError::Refused(format!("access.immutable_tags: {error}")))?;
    let names: Vec<String> = wanted.iter().map(|rule| rule.name.clone()).collect();
    match core.consensus.propose(Command::SetImmutableTags { rules: wanted }).await? {
        Outcome::Done => {
            tracing::info!(rules = ?names, "the rules about immutable tags are those of this replica's configuration now");
            Ok(())
        }
        other => Err(RegistryError::Refused(format!("access.immutable_tags: {other}"))),
    }
}

/// From the system's generator, directly: these bytes are worth nothing if anybody can guess them.
fn random<const N: usize>() -> Result<[u8; N], RegistryError> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
        RegistryError::Unavailable(format!("the system's random generator: {error}"))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn key(created_ms: u64) -> TokenKey {
        TokenKey { id: "k".to_owned(), secret: Secret::new([0; 32]), created_ms }
    }

    #[test]
    fn a_key_is_due_when_it_is_old_or_from_another_age() {
        let access = Access { token_key_rotation_hours: 2, ..Access::default() };
        let hour = 60 * 60 * 1000;
        let now = now_ms();
        assert!(!is_due(&key(now), &access));
        assert!(!is_due(&key(now - hour), &access));
        assert!(is_due(&key(now - 2 * hour), &access));
        assert!(!is_due(&key(now + hour), &access), "clocks may differ a little");
        assert!(is_due(&key(now + 1000 * hour), &access));
        assert!(is_due(&key(0), &access));
    }

    #[test]
    fn two_keys_are_never_the_same() {
        assert_ne!(random::<32>().unwrap(), random::<32>().unwrap());
    }
}
