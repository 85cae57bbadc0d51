#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;
use crate::oci::Algorithm;

fn digest(n: u8) -> Digest {
    Digest::of(Algorithm::Sha256, &[n])
}

fn descriptor(media_type: &str, n: u8) -> Value {
    json!({"mediaType": media_type, "digest": digest(n).to_string(), "size": n})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": types::OCI_MANIFEST,
        "config": descriptor(types::OCI_CONFIG, 1),
        "layers": [descriptor(types::OCI_LAYER_GZIP, 2), descriptor(types::OCI_LAYER_GZIP, 3)],
    })
}

fn parse(value: &Value, content_type: Option<&str>) -> Result<ManifestSummary, ManifestError> {
    parse_manifest(value.to_string().as_bytes(), content_type, &ManifestLimits::default())
}

fn with(mut value: Value, member: &str, content: Value) -> Value {
    value[member] = content;
    value
}

#[test]
fn image_manifest_needs_its_configuration_and_layers() {
    let summary = parse(&image(), Some(types::OCI_MANIFEST)).unwrap();
    let digests: Vec<_> = summary.references.iter().map(|r| (r.digest.clone(), r.kind)).collect();
    let expected: Vec<_> = (1..=3).map(|n| (digest(n), ReferenceKind::Blob)).collect();
    assert_eq!(digests, expected);
    assert_eq!(summary.artifact_type.as_deref(), Some(types::OCI_CONFIG));
    assert_eq!(summary.media_type, types::OCI_MANIFEST);
}

#[test]
fn artifact_type_subject_and_annotations_are_kept() {
    let value = with(image(), "artifactType", json!("a/b"));
    let value = with(value, "subject", descriptor(types::OCI_MANIFEST, 9));
    let value = with(value, "annotations", json!({"k": "v"}));
    let summary = parse(&value, None).unwrap();
    assert_eq!(summary.artifact_type.as_deref(), Some("a/b"));
    assert_eq!(summary.subject, Some(digest(9)));
    assert_eq!(summary.annotations["k"], "v");
    assert_eq!(summary.references.len(), 3);
}

#[test]
fn index_needs_its_manifests_and_cached_layers() {
    let value = json!({"schemaVersion": 2, "manifests": [
        descriptor(types::OCI_MANIFEST, 1), descriptor(types::OCI_LAYER_GZIP, 2)]});
    let summary =
        parse(&value, Some("application/vnd.oci.image.index.v1+json; charset=utf-8")).unwrap();
    let kinds: Vec<_> = summary.references.iter().map(|r| r.kind).collect();
    assert_eq!(kinds, [ReferenceKind::Manifest, ReferenceKind::Blob]);
    assert_eq!(summary.artifact_type, None);
    assert_eq!(parse(&value, None).unwrap().media_type, types::OCI_INDEX);
    assert!(parse(&json!({"schemaVersion": 2, "manifests": null}), Some(types::OCI_INDEX)).is_ok());
}

#[test]
fn layers_from_elsewhere_are_not_needed() {
    let mut foreign = descriptor(types::OCI_LAYER_GZIP, 4);
    foreign["urls"] = json!(["https://example.invalid/layer"]);
    let layers = json!([descriptor(types::DOCKER_LAYER_FOREIGN, 2), foreign]);
    let summary = parse(&with(image(), "layers", layers), None).unwrap();
    assert_eq!(summary.references.len(), 1);
}

#[test]
fn same_content_twice_is_one_reference() {
    let layers = json!([descriptor(types::OCI_EMPTY, 1), descriptor(types::OCI_LAYER, 1)]);
    assert_eq!(parse(&with(image(), "layers", layers), None).unwrap().references.len(), 1);
    let mut other_size = descriptor(types::OCI_LAYER, 1);
    other_size["size"] = json!(77);
    let error = parse(&with(image(), "layers", json!([other_size])), None).unwrap_err();
    assert!(matches!(error, ManifestError::SizeConflict { first: 1, second: 77, .. }));
}

#[test]
fn cve_2021_41190_one_document_has_one_meaning() {
    let both = with(image(), "manifests", json!([]));
    assert!(matches!(
        parse(&both, None),
        Err(ManifestError::Ambiguous { member: "manifests", .. })
    ));
    let index =
        json!({"schemaVersion": 2, "mediaType": types::OCI_INDEX, "manifests": [], "layers": []});
    assert!(matches!(parse(&index, None), Err(ManifestError::Ambiguous { member: "layers", .. })));
    assert!(matches!(
        parse(&image(), Some(types::DOCKER_MANIFEST)),
        Err(ManifestError::MediaTypeMismatch { .. })
    ));
    let mut no_type = image();
    no_type.as_object_mut().unwrap().remove("mediaType");
    assert!(matches!(
        parse(&no_type, Some(types::OCI_INDEX)),
        Err(ManifestError::Ambiguous { member: "layers", .. })
    ));
}

#[test]
fn refused_documents() {
    let text = |value: Value| value.to_string().into_bytes();
    let negative = json!({"digest": digest(1).to_string(), "size": -1});
    let huge = json!({"digest": digest(1).to_string(), "size": 1_u64 << 63});
    let short = json!({"digest": "sha256:00", "size": 1});
    let table: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe".to_vec(),
        text(image())[1..].to_vec(),
        [text(image()), b"{}".to_vec()].concat(),
        text(with(image(), "schemaVersion", json!(1))),
        text(with(image(), "schemaVersion", json!(3))),
        text(with(image(), "mediaType", json!("text/plain"))),
        text(with(image(), "config", json!(null))),
        text(with(image(), "config", negative)),
        text(with(image(), "config", huge)),
        text(with(image(), "config", short)),
        text(with(image(), "layers", json!({}))),
        text(with(image(), "layers", json!([{"digest": digest(1).to_string()}]))),
        text(with(image(), "annotations", json!({"a": 1}))),
        br#"{"schemaVersion":2,"schemaVersion":2}"#.to_vec(),
        br#"{"schemaVersion":2,"config":{"size":1e400}}"#.to_vec(),
        br#"{"schemaVersion":2.0}"#.to_vec(),
    ];
    for bytes in table {
        let parsed = parse_manifest(&bytes, None, &ManifestLimits::default());
        assert!(parsed.is_err(), "{} was accepted", String::from_utf8_lossy(&bytes));
    }
    let schema1 = parse(&image(), Some(types::DOCKER_SCHEMA1_SIGNED));
    assert_eq!(schema1, Err(ManifestError::Schema1));
}

#[test]
fn sizes_and_counts_are_bounded() {
    let limits = ManifestLimits { max_bytes: 4096, max_descriptors: 3 };
    let bytes = image().to_string().into_bytes();
    assert!(parse_manifest(&bytes, None, &limits).is_ok());
    let fewer = ManifestLimits { max_descriptors: 2, ..limits.clone() };
    assert_eq!(
        parse_manifest(&bytes, None, &fewer),
        Err(ManifestError::TooManyDescriptors { max: 2 })
    );
    let big = vec![b' '; 4097];
    assert!(matches!(parse_manifest(&big, None, &limits), Err(ManifestError::TooLarge { .. })));
}

#[test]
fn deep_nesting_is_bounded() {
    let deep = "[".repeat(1_000_000);
    for text in [format!("{{\"x\":{deep}"), format!("{{\"layers\":{deep}"), deep.clone()] {
        assert!(parse_manifest(text.as_bytes(), None, &ManifestLimits::default()).is_err());
    }
}

/// Found by the fuzz target: a type of three megabytes came back whole in the answer and in the log.
#[test]
fn errors_repeat_only_a_little_of_the_manifest() {
    let huge = "x".repeat(3 << 20);
    for bad in [
        with(image(), "mediaType", json!(huge)),
        with(image(), "schemaVersion", json!(huge)),
        with(image(), "layers", json!(huge)),
    ] {
        for declared in [None, Some(types::OCI_MANIFEST)] {
            let error = parse(&bad, declared).unwrap_err().to_string();
            assert!(error.len() < 1_000, "{} bytes", error.len());
        }
    }
}
