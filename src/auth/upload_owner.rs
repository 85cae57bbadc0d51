//! Ids of upload sessions that only the one who opened the session can use.

use tercet_storage::{Algorithm, Digest, UploadId};

use super::principal::Principal;

/// Keeps the hash below apart from every other one.
const DOMAIN: &str = "tercet upload session";

/// The id of a new session: `<replica>-<salt><mark>`, 64 bits each. The mark is a hash over the salt and
/// the one who asks. Whoever learns the id cannot change it and still name the session, so any replica can
/// tell from the id alone that it is not theirs: nothing has to be stored, copied to the other holders or
/// asked for, and it still holds when another replica has adopted the session.
#[must_use]
pub fn upload_id(node_id: u64, opened_by: &Principal) -> UploadId {
    let salt: u64 = rand::random();
    let mark = mark(node_id, salt, opened_by);
    // The form that an id has; were it ever another one, the session would belong to nobody.
    format!("{node_id:016x}-{salt:016x}{mark}").parse().unwrap_or_else(|_| UploadId::new(node_id))
}

/// Whether `principal` opened the session.
#[must_use]
pub fn is_opened_by(id: &UploadId, principal: &Principal) -> bool {
    let text = id.to_string();
    let salt = text.get(17..33).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let Some((salt, found)) = salt.zip(text.get(33..)) else { return false };
    found == mark(id.owner(), salt, principal)
}

fn mark(node_id: u64, salt: u64, principal: &Principal) -> String {
    let text = format!("{DOMAIN}\n{node_id:016x}\n{salt:016x}\n{principal}");
    let mut hex = Digest::of(Algorithm::Sha256, text.as_bytes()).hex().to_owned();
    hex.truncate(16);
    hex
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn an_id_belongs_to_the_one_who_opened_the_session() {
        let alice = Principal::User("alice".into());
        let id = upload_id(0x1f_ffff_ffff_ffff, &alice);
        assert_eq!(id.owner(), 0x1f_ffff_ffff_ffff);
        assert!(is_opened_by(&id, &alice));
        for other in [
            Principal::Anonymous,
            Principal::User("bob".into()),
            Principal::Robot("alice".into()),
            Principal::Certificate("alice".into()),
        ] {
            assert!(!is_opened_by(&id, &other), "{other}");
        }
        assert_ne!(id, upload_id(id.owner(), &alice));
    }

    #[test]
    fn an_id_of_another_kind_belongs_to_nobody() {
        let id = UploadId::new(1);
        assert!(!is_opened_by(&id, &Principal::Anonymous));
    }
}
