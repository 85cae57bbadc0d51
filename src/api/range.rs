//! `Range` of a download (RFC 9110 section 14) and `Content-Range` of an upload's chunk
//! (distribution spec, "Pushing a blob in chunks").

use std::ops::Range;

/// What a `Range` header asks of a blob of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: no header, another unit, several ranges or a malformed one. RFC 9110 lets a server
    /// ignore those, and one answer is bounded work whatever the client wrote.
    Full,
    /// These bytes; never empty.
    Part(Range<u64>),
    /// `416`.
    Unsatisfiable,
}

/// Reads a `Range` header.
pub(crate) fn parse_range(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|header| strip_unit(header.trim())) else {
        return Wanted::Full;
    };
    if spec.contains(',') {
        return Wanted::Full;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Full };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => match decimal(suffix) {
            Some(length) => size.saturating_sub(length)..size,
            None => return Wanted::Full,
        },
        (first, "") => match decimal(first) {
            Some(first) => first..size,
            None => return Wanted::Full,
        },
        (first, last) => match (decimal(first), decimal(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
            _ => return Wanted::Full,
        },
    };
    if range.start >= range.end { Wanted::Unsatisfiable } else { Wanted::Part(range) }
}

fn strip_unit(header: &str) -> Option<&str> {
    let (unit, spec) = header.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(spec)
}

/// Reads a `Content-Range` of an upload: `start-end`, inclusive, as the spec has it. `bytes start-end/*`
/// is what RFC 9110 would write, and some clients do. `None` when it is neither.
pub(crate) fn parse_content_range(header: &str) -> Option<Range<u64>> {
    let header = header.trim();
    let spec = match header.split_once(' ') {
        Some((unit, spec)) if unit.eq_ignore_ascii_case("bytes") => spec.split('/').next()?,
        Some(_) => return None,
        None => header,
    };
    let (start, end) = spec.split_once('-')?;
    let (start, end) = (exact(start)?, exact(end)?);
    (start <= end).then_some(start..end.checked_add(1)?)
}

/// Digits, of which too many are a very large number.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn exact(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn single_ranges() {
        assert_eq!(parse_range(None, 10), Wanted::Full);
        assert_eq!(parse_range(Some("bytes=0-0"), 10), Wanted::Part(0..1));
        assert_eq!(parse_range(Some("bytes=2-5"), 10), Wanted::Part(2..6));
        assert_eq!(parse_range(Some("bytes=2-500"), 10), Wanted::Part(2..10));
        assert_eq!(parse_range(Some("bytes=9-"), 10), Wanted::Part(9..10));
        assert_eq!(parse_range(Some("bytes=-3"), 10), Wanted::Part(7..10));
        assert_eq!(parse_range(Some("bytes=-300"), 10), Wanted::Part(0..10));
        assert_eq!(parse_range(Some("bytes=0-99999999999999999999999"), 10), Wanted::Part(0..10));
    }

    #[test]
    fn unsatisfiable_ranges() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(parse_range(Some(header), 10), Wanted::Unsatisfiable, "{header}");
        }
        assert_eq!(parse_range(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
        assert_eq!(parse_range(Some("bytes=-1"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn junk_and_many_ranges_are_ignored() {
        let bomb = format!("bytes={}", "0-0,".repeat(10_000));
        for header in
            ["bytes=5-2", "lines=1-2", "bytes", "bytes=a-b", "bytes=--1", "", bomb.as_str()]
        {
            assert_eq!(
                parse_range(Some(header), 10),
                Wanted::Full,
                "{}",
                &header[..header.len().min(20)]
            );
        }
    }

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("0-9"), Some(0..10));
        assert_eq!(parse_content_range("bytes 5-5/*"), Some(5..6));
        assert_eq!(parse_content_range("bytes 5-5/10"), Some(5..6));
        for junk in ["", "-", "5", "9-0", "a-b", "0-18446744073709551615", "+1-2", "lines 1-2"] {
            assert_eq!(parse_content_range(junk), None, "{junk}");
        }
    }
}
