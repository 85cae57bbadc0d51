//! Paths and queries of requests, as they came.

use tercet::api::fuzzing::{self, Refused};

use crate::Verdict;

/// Larger than any error of the API that a path or a query alone brings about.
const BODY_BYTES_MAX: u64 = 4 * 1024;
const PAGE_MAX: usize = 1_000;
const LAST_BYTES_MAX: usize = 255;

/// Input: a request's path, and its query behind the first `?`.
pub fn path(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let route = fuzzing::path(path);
    match &route {
        Ok(spelling) => {
            assert_eq!(fuzzing::path(spelling).as_ref(), Ok(spelling), "{path}");
            assert!(spelling.starts_with("/v2/") && spelling.len() <= path.len() + 1, "{path}");
            assert!(!spelling.contains(['%', '\\', '\0']), "{spelling}");
            assert!(spelling.split('/').all(|part| part != "." && part != ".."), "{spelling}");
        }
        Err(refused) => check(refused, &[400, 404]),
    }
    match fuzzing::page(query, PAGE_MAX) {
        Ok((size, after, link)) => {
            assert!(size <= PAGE_MAX, "a page of {size}");
            assert!(after.is_none_or(|after| after.len() <= LAST_BYTES_MAX));
            assert!(link.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{link}");
        }
        Err(refused) => check(&refused, &[400, 414]),
    }
    assert_eq!(fuzzing::unescape(&fuzzing::escape(text)).as_deref(), Some(text));
    if let Some(plain) = fuzzing::unescape(text) {
        assert!(plain.len() <= text.len());
    }
    Verdict::any([route.is_ok()])
}

fn check(refused: &Refused, statuses: &[u16]) {
    assert!(statuses.contains(&refused.status), "{refused:?}");
    assert!(refused.body_bytes <= BODY_BYTES_MAX, "{refused:?}");
}
