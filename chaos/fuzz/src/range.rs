//! `Range`, `Content-Range` and lists of entity tags.

use tercet::api::fuzzing;
use tercet::peer::server::fuzzing as peer;

use crate::Verdict;

/// Where an input names no size.
const SIZE_BYTES: u64 = 10_000;
/// However many ranges a header lists, an answer has no more parts.
const PARTS_MAX: usize = 32;

/// Input: the header; or a first line with the content's size in bytes, and then the header.
pub fn range(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    let sized = text.split_once('\n').and_then(|(size, rest)| Some((size.parse().ok()?, rest)));
    let (size, header): (u64, &str) = sized.unwrap_or((SIZE_BYTES, text));

    let parts = fuzzing::range(header, size).unwrap_or_default();
    assert!(parts.len() <= PARTS_MAX, "{} parts", parts.len());
    for part in &parts {
        assert!(part.start < part.end && part.end <= size, "{part:?} of {size} bytes");
    }
    // Nor do any two parts share a byte.
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    assert!(sorted.is_sorted_by(|one, next| one.end < next.start), "{parts:?}");
    // No header makes an answer larger than the content, whichever parts it repeats.
    let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.end - part.start));
    assert!(bytes <= size, "{bytes} bytes out of {size}");
    for read in [fuzzing::content_range(header), peer::range(header)].into_iter().flatten() {
        assert!(read.start < read.end, "{read:?}");
    }
    if let Some(read) = fuzzing::content_range(header) {
        let plain = format!("{}-{}", read.start, read.end - 1);
        assert_eq!(fuzzing::content_range(&plain), Some(read.clone()));
        assert_eq!(fuzzing::content_range(&format!("bytes {plain}/*")), Some(read));
    }
    if let Some(read) = peer::range(header) {
        let plain = format!("bytes={}-{}", read.start, read.end - 1);
        assert_eq!(peer::range(&plain), Some(read));
    }
    assert!(!fuzzing::if_none_match(header, "\"sha256:absent\"") || header.contains(['*', 'a']));
    Verdict::any([!parts.is_empty(), fuzzing::content_range(header).is_some()])
}
