//! Descriptors, and what a registry needs to remember of a manifest (OCI image spec, "Content Descriptors").

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::Digest;

/// A descriptor as listed by the referrers API.
///
/// In JSON it is an OCI content descriptor (absent members are left out). In binary records every field
/// is written, in the order declared: a skipped field would make the record undecodable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Type of the artifact when the content is a manifest.
    pub artifact_type: Option<String>,
    /// Annotations, copied from the manifest in a referrers listing.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorJson {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct DescriptorRecord {
    media_type: String,
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { media_type, digest, size, artifact_type, annotations } = self.clone();
        if serializer.is_human_readable() {
            DescriptorJson { media_type, digest, size, artifact_type, annotations }
                .serialize(serializer)
        } else {
            DescriptorRecord { media_type, digest, size, artifact_type, annotations }
                .serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(if deserializer.is_human_readable() {
            let DescriptorJson { media_type, digest, size, artifact_type, annotations } =
                Deserialize::deserialize(deserializer)?;
            Self { media_type, digest, size, artifact_type, annotations }
        } else {
            let DescriptorRecord { media_type, digest, size, artifact_type, annotations } =
                Deserialize::deserialize(deserializer)?;
            Self { media_type, digest, size, artifact_type, annotations }
        })
    }
}

/// Something a manifest needs to be complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestReference {
    /// Digest of the referenced content.
    pub digest: Digest,
    /// Its size in bytes, as the manifest states it.
    pub size: u64,
    /// Where the content is kept.
    pub kind: ReferenceKind,
}

/// Which store holds a referenced content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReferenceKind {
    /// A configuration or a layer.
    Blob,
    /// A child manifest of an index.
    Manifest,
}

/// What the registry remembers of a manifest beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSummary {
    /// The manifest's own media type.
    pub media_type: String,
    /// What must exist before the manifest may, each digest once per kind, in manifest order.
    pub references: Vec<ManifestReference>,
    /// The manifest this one refers to. It may be absent from the registry.
    pub subject: Option<Digest>,
    /// `artifactType`, or the configuration's media type (distribution spec, "Listing Referrers").
    pub artifact_type: Option<String>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn json_leaves_absent_members_out() {
        let mut descriptor = Descriptor {
            media_type: "a/b".into(),
            digest: Digest::of(Algorithm::Sha256, b""),
            size: 3,
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        let json = serde_json::to_value(&descriptor).unwrap();
        assert_eq!(json["mediaType"], "a/b");
        assert_eq!(json.as_object().unwrap().len(), 3);
        descriptor.artifact_type = Some("x/y".into());
        descriptor.annotations.insert("k".into(), "v".into());
        let json = serde_json::to_string(&descriptor).unwrap();
        assert!(json.contains("\"artifactType\":\"x/y\""));
        assert_eq!(serde_json::from_str::<Descriptor>(&json).unwrap(), descriptor);
    }
}
