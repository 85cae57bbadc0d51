//! Names, tags, digests and session ids: text that becomes part of a path or a key.

use std::fmt::Display;
use std::str::FromStr;

use tercet_storage::{
    Algorithm, Digest, NAME_BYTES_MAX, Reference, RepositoryName, TAG_BYTES_MAX, Tag, UploadId,
};

use crate::{Verdict, check_error};

/// Input: the text.
pub fn reference(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    let name = one_spelling::<RepositoryName>(text);
    if name {
        harmless(text, NAME_BYTES_MAX, b"._-/");
        assert!(text.split('/').all(|part| !part.starts_with('.') && !part.is_empty()), "{text}");
    }
    if one_spelling::<Tag>(text) {
        harmless(text, TAG_BYTES_MAX, b"._-");
        assert!(!text.starts_with('.'), "a tag that is a hidden file: {text}");
    }
    if one_spelling::<Digest>(text) {
        harmless(text, "sha512:".len() + Algorithm::Sha512.hex_len(), b":");
    }
    let session = one_spelling::<UploadId>(text);
    if session {
        harmless(text, 49, b"-");
    }
    let reference = one_spelling::<Reference>(text);
    let either = text.parse::<Tag>().is_ok() != text.parse::<Digest>().is_ok();
    assert_eq!(reference, either, "a reference is a tag or a digest: {text}");
    Verdict::any([name, session, reference])
}

/// Whether the text is one; then it is the only way to write it.
fn one_spelling<T>(text: &str) -> bool
where
    T: FromStr + Display,
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string(), text, "two spellings of one thing");
            true
        }
        Err(error) => {
            check_error(&error);
            false
        }
    }
}

/// Short, and of letters, digits and these; no part of it leaves a folder.
fn harmless(text: &str, bytes_max: usize, others: &[u8]) {
    assert!(!text.is_empty() && text.len() <= bytes_max, "{} bytes", text.len());
    let known = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    assert!(text.bytes().all(known), "{text}");
    assert!(text.split('/').all(|part| part != ".."), "{text}");
}
