//! `Range` of a download (RFC 9110 section 14) and `Content-Range` of an upload's chunk
//! (distribution spec, "Pushing a blob in chunks").

use std::ops::Range;

/// Longest `Range` header that is looked at, in bytes; no honest list is longer.
const HEADER_BYTES_MAX: usize = 2 * 1024;
/// Most parts of one answer, after ranges that touch were joined.
const PARTS_MAX: usize = 32;

/// What a `Range` header asks of a blob of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: no header, another unit, a malformed one or more parts than are sent. RFC 9110 lets
    /// a server ignore those, and one answer is bounded work whatever the client wrote.
    Full,
    /// These bytes; never empty.
    Part(Range<u64>),
    /// Two parts or more in the order asked for. None is empty, no two touch, so together they are
    /// never more than the blob.
    Parts(Vec<Range<u64>>),
    /// `416`.
    Unsatisfiable,
}

/// Reads a `Range` header.
pub(crate) fn parse_range(header: Option<&str>, size: u64) -> Wanted {
    let header = header.filter(|header| header.len() <= HEADER_BYTES_MAX);
    let Some(set) = header.and_then(|header| strip_unit(header.trim())) else {
        return Wanted::Full;
    };
    let mut asked = Vec::new();
    // An empty element of a list says nothing (RFC 9110 section 5.6.1.2).
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        match parse_one(spec, size) {
            None => return Wanted::Full,
            Some(range) if range.is_empty() => asked.push(None),
            Some(range) => asked.push(Some(range)),
        }
    }
    if asked.is_empty() {
        return Wanted::Full;
    }
    let mut parts = joined(asked.into_iter().flatten().collect());
    match parts.len() {
        0 => Wanted::Unsatisfiable,
        1 => parts.pop().map_or(Wanted::Unsatisfiable, Wanted::Part),
        2..=PARTS_MAX => Wanted::Parts(parts),
        _ => Wanted::Full,
    }
}

/// One range, cut at the end of the blob; an empty one cannot be satisfied, `None` is none.
fn parse_one(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    Some(match (first.trim(), last.trim()) {
        ("", suffix) => size.saturating_sub(decimal(suffix)?)..size,
        (first, "") => decimal(first)?..size,
        // One that ends before it begins is well-formed and matches nothing.
        (first, last) => decimal(first)?..decimal(last)?.saturating_add(1).min(size),
    })
}

/// Joins ranges that overlap or touch; each stands where the first of its members was asked for
/// (RFC 9110 section 15.3.7.2).
fn joined(asked: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut by_start: Vec<(usize, Range<u64>)> = asked.into_iter().enumerate().collect();
    by_start.sort_by_key(|(_, range)| range.start);
    let mut parts: Vec<(usize, Range<u64>)> = Vec::with_capacity(by_start.len());
    for (place, range) in by_start {
        match parts.last_mut() {
            Some((first, part)) if range.start <= part.end => {
                part.end = part.end.max(range.end);
                *first = place.min(*first);
            }
            _ => parts.push((place, range)),
        }
    }
    parts.sort_by_key(|(place, _)| *place);
    parts.into_iter().map(|(_, part)| part).collect()
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
        assert_eq!(parse_range(Some("BYTES = 1-2, "), 10), Wanted::Part(1..3));
    }

    #[test]
    fn unsatisfiable_ranges() {
        for header in [
            "bytes=10-",
            "bytes=10-20",
            "bytes=-0",
            "bytes=99999999999999999999999-",
            "bytes=5-2",
            "bytes=10-20,-0,30-",
        ] {
            assert_eq!(parse_range(Some(header), 10), Wanted::Unsatisfiable, "{header}");
        }
        assert_eq!(parse_range(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
        assert_eq!(parse_range(Some("bytes=-1"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn several_ranges_keep_their_order_and_join_where_they_touch() {
        let parts = |header: &str| parse_range(Some(header), 100);
        assert_eq!(parts("bytes=0-1,10-11"), Wanted::Parts(vec![0..2, 10..12]));
        assert_eq!(parts("bytes=-1, 10-11 ,0-1"), Wanted::Parts(vec![99..100, 10..12, 0..2]));
        assert_eq!(parts("bytes=50-59,0-9,60-69,5-20"), Wanted::Parts(vec![50..70, 0..21]));
        // What is left of them may be one, or all but those that cannot be satisfied.
        assert_eq!(parts("bytes=0-4,5-9,2-3"), Wanted::Part(0..10));
        assert_eq!(parts("bytes=200-,3-4"), Wanted::Part(3..5));
        assert_eq!(parts("bytes=0-,0-,0-,0-"), Wanted::Part(0..100));
    }

    #[test]
    fn junk_and_bombs_are_ignored() {
        let bomb = format!("bytes={}", "0-0,".repeat(10_000));
        let apart = |count: u64| {
            let ranges: Vec<_> = (0..count).map(|n| format!("{0}-{0}", n * 2)).collect();
            format!("bytes={}", ranges.join(","))
        };
        for header in [
            "lines=1-2",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=a-b",
            "bytes=--1",
            "bytes=0-1,x",
            "bytes=0-1;2-3",
            "",
            bomb.as_str(),
            apart(33).as_str(),
        ] {
            let shown = &header[..header.len().min(20)];
            assert_eq!(parse_range(Some(header), 1000), Wanted::Full, "{shown}");
        }
        let Wanted::Parts(parts) = parse_range(Some(&apart(32)), 1000) else { panic!("no parts") };
        assert_eq!(parts.len(), 32);
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
