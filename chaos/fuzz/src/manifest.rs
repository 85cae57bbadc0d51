//! Manifests that a client pushes.

use std::collections::HashSet;

use tercet_storage::{
    Digest, ManifestError, ManifestLimits, ManifestRecord, ManifestSummary, codec, media_type,
    parse_manifest, schemas,
};

use crate::{Verdict, check_error};

/// Input: the manifest; or a first line `type: <Content-Type>`, and then the manifest.
pub fn manifest(data: &[u8]) -> Verdict {
    let (declared, bytes) = split(data);
    let limits = ManifestLimits::default();
    let parse = |declared| parse_manifest(bytes, declared, &limits);
    let parsed = parse(declared);
    match &parsed {
        Ok(summary) => accepted(bytes, declared, summary),
        Err(error) => check_error(error),
    }
    // Two readers of one digest see one thing (CVE-2021-41190).
    let image = parse(Some(media_type::OCI_MANIFEST)).is_ok();
    let index = parse(Some(media_type::OCI_INDEX)).is_ok();
    assert!(!(image && index), "an image and an index at once");
    Verdict::any([parsed.is_ok()])
}

fn split(data: &[u8]) -> (Option<&str>, &[u8]) {
    let line =
        data.iter().position(|byte| *byte == b'\n').and_then(|end| data.split_at_checked(end));
    let declared = line.and_then(|(line, rest)| {
        let text = std::str::from_utf8(line).ok()?.strip_prefix("type: ")?;
        Some((text, rest.get(1..)?))
    });
    match declared {
        Some((text, rest)) => (Some(text), rest),
        None => (None, data),
    }
}

fn accepted(bytes: &[u8], declared: Option<&str>, summary: &ManifestSummary) {
    assert!(media_type::is_manifest_type(&summary.media_type), "{}", summary.media_type);
    if let Some(declared) = declared.map(media_type::essence).filter(|text| !text.is_empty()) {
        assert_eq!(declared, summary.media_type, "stored under another type than was declared");
    }
    // Nothing is made up: all of it was in the bytes.
    let limits = ManifestLimits::default();
    assert!(bytes.len() <= limits.max_bytes && summary.references.len() <= limits.max_descriptors);
    let annotations: usize =
        summary.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(annotations <= bytes.len(), "annotations of {annotations} bytes");
    let mut seen = HashSet::new();
    for reference in &summary.references {
        assert!(i64::try_from(reference.size).is_ok(), "a size of {}", reference.size);
        assert!(seen.insert((reference.digest.clone(), reference.kind)), "listed twice");
        check_digest(&reference.digest);
    }
    summary.subject.iter().for_each(check_digest);
    assert_ne!(summary.artifact_type.as_deref(), Some(""));

    let again = parse_manifest(bytes, Some(&summary.media_type), &limits);
    assert_eq!(again.as_ref(), Ok(summary), "read differently under its own type");
    let tight = ManifestLimits { max_bytes: bytes.len().saturating_sub(1), ..limits };
    let refused = parse_manifest(bytes, declared, &tight);
    assert!(matches!(refused, Err(ManifestError::TooLarge { .. })), "a byte too many is accepted");

    let record = ManifestRecord { bytes: bytes.to_vec(), summary: summary.clone(), links: 1 };
    let written =
        codec::encode(schemas::MANIFEST, &record).expect("an accepted manifest fits a record");
    assert_eq!(codec::decode::<ManifestRecord>(schemas::MANIFEST, &written), Ok(record));
}

fn check_digest(digest: &Digest) {
    assert_eq!(digest.to_string().parse().as_ref(), Ok(digest));
}
