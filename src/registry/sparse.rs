//! Manifests of which the repository has a part only ("sparse" in the words of the conformance suite).

use std::collections::BTreeSet;

use tercet_storage::{Digest, ManifestReference, ManifestSummary, ReferenceKind, media_type};

use crate::config::SparseManifests;

/// Whether a push is taken although its repository lacks `missing` of what the manifest names.
///
/// Mirrors keep some platforms of an index, and tools that fetch layers lazily keep some of an image's.
/// What is no part of anything is a mistake under every setting: an index needs one of its manifests, an
/// image its configuration and one of its layers.
pub(super) fn accepts(
    setting: SparseManifests,
    summary: &ManifestSummary,
    missing: &[Digest],
) -> bool {
    let missing: BTreeSet<&Digest> = missing.iter().collect();
    let present = |reference: &ManifestReference| !missing.contains(&reference.digest);
    let lacks_blobs = summary
        .references
        .iter()
        .any(|reference| reference.kind == ReferenceKind::Blob && !present(reference));
    let mut named = summary.references.iter();
    if !media_type::is_index(&summary.media_type) && !named.next().is_some_and(present) {
        return false;
    }
    let in_part = named.any(present);
    match setting {
        SparseManifests::Never => false,
        SparseManifests::Indexes => in_part && !lacks_blobs,
        SparseManifests::Always => in_part,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use serde_json::{Value, json};
    use tercet_storage::{Algorithm, ManifestLimits, parse_manifest};

    fn digest(n: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[n])
    }

    fn summary(manifest: &Value) -> ManifestSummary {
        parse_manifest(manifest.to_string().as_bytes(), None, &ManifestLimits::default()).unwrap()
    }

    fn descriptors(numbers: &[u8]) -> Vec<Value> {
        let one = |n: &u8| json!({ "digest": digest(*n), "size": 1 });
        numbers.iter().map(one).collect()
    }

    fn missing(numbers: &[u8]) -> Vec<Digest> {
        numbers.iter().map(|n| digest(*n)).collect()
    }

    fn taken(setting: SparseManifests, summary: &ManifestSummary, numbers: &[u8]) -> bool {
        accepts(setting, summary, &missing(numbers))
    }

    #[test]
    fn an_image_needs_its_configuration_and_a_layer() {
        let image = |layers: &[u8]| {
            let config = &descriptors(&[0])[0];
            summary(&json!({ "schemaVersion": 2, "config": config, "layers": descriptors(layers) }))
        };
        let three = image(&[1, 2, 3]);
        let always = SparseManifests::Always;
        assert!(taken(always, &three, &[2]));
        assert!(taken(always, &three, &[1, 3]));
        assert!(!taken(always, &three, &[0]));
        assert!(!taken(always, &three, &[1, 2, 3]));
        assert!(!taken(always, &image(&[1]), &[1]));
        assert!(!taken(always, &image(&[]), &[0]));
        for setting in [SparseManifests::Never, SparseManifests::Indexes] {
            assert!(!taken(setting, &three, &[2]));
        }
    }

    #[test]
    fn an_index_needs_one_of_its_manifests() {
        let index = summary(&json!({ "schemaVersion": 2, "manifests": descriptors(&[1, 2, 3]) }));
        for (setting, expected) in [
            (SparseManifests::Never, false),
            (SparseManifests::Indexes, true),
            (SparseManifests::Always, true),
        ] {
            assert_eq!(taken(setting, &index, &[1, 2]), expected);
            assert!(!taken(setting, &index, &[1, 2, 3]));
        }
    }

    #[test]
    fn a_layer_in_an_index_is_needed_as_in_an_image() {
        let mut entries = descriptors(&[1, 2]);
        entries[1]["mediaType"] = json!(media_type::OCI_LAYER_GZIP);
        let cache = summary(&json!({ "schemaVersion": 2, "manifests": entries }));
        assert!(taken(SparseManifests::Indexes, &cache, &[1]));
        assert!(!taken(SparseManifests::Indexes, &cache, &[2]));
        assert!(taken(SparseManifests::Always, &cache, &[2]));
    }
}
