//! Reads a manifest that a client pushed, without trusting a byte of it.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::descriptor::{ManifestReference, ManifestSummary, ReferenceKind};
use super::digest::{Digest, DigestError};
use super::media_type as types;

/// Bounds on what is accepted. Nesting depth is bounded by the JSON parser: typed members nest a fixed
/// number of levels and ignored ones are skipped without recursion.
#[derive(Clone, Debug)]
pub struct ManifestLimits {
    /// Largest manifest in bytes.
    pub max_bytes: usize,
    /// Most descriptors in one manifest, configuration and subject included.
    pub max_descriptors: usize,
}

impl Default for ManifestLimits {
    fn default() -> Self {
        Self { max_bytes: 4 * 1024 * 1024, max_descriptors: 10_000 }
    }
}

/// Parses `bytes` as a manifest of the type the client declared in `content_type`.
///
/// The declared type must equal the embedded `mediaType` when both are given, and content may not look
/// like an image manifest and an index at once: two readers of one digest must not be able to see two
/// different images (CVE-2021-41190).
pub fn parse_manifest(
    bytes: &[u8],
    content_type: Option<&str>,
    limits: &ManifestLimits,
) -> Result<ManifestSummary, ManifestError> {
    if bytes.len() > limits.max_bytes {
        return Err(ManifestError::TooLarge { found: bytes.len(), max: limits.max_bytes });
    }
    let declared = content_type.map(types::essence).filter(|essence| !essence.is_empty());
    if let Some(types::DOCKER_SCHEMA1 | types::DOCKER_SCHEMA1_SIGNED) = declared {
        return Err(ManifestError::Schema1);
    }
    let raw: RawManifest =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(reason(&error)))?;
    match raw.schema_version {
        Some(2) => {}
        Some(1) => return Err(ManifestError::Schema1),
        found => return Err(ManifestError::SchemaVersion { found }),
    }
    let media_type = raw.agreed_media_type(declared)?;
    let mut references = References::new(limits.max_descriptors);
    let artifact_type = if types::is_index(&media_type) {
        for child in raw.manifests.iter().flatten() {
            references.push(child, child.kind_in_index())?;
        }
        raw.artifact_type
    } else {
        let config = raw.config.as_ref().ok_or(ManifestError::MissingConfig)?;
        references.push(config, ReferenceKind::Blob)?;
        for layer in raw.layers.iter().flatten() {
            if layer.may_be_absent() {
                references.count_one()?;
            } else {
                references.push(layer, ReferenceKind::Blob)?;
            }
        }
        raw.artifact_type.or_else(|| config.media_type.clone())
    };
    let subject = match &raw.subject {
        Some(subject) => {
            references.count_one()?;
            Some(subject.parsed()?.0)
        }
        None => None,
    };
    Ok(ManifestSummary {
        media_type,
        references: references.list,
        subject,
        artifact_type: artifact_type.filter(|text| !text.is_empty()),
        annotations: raw.annotations.unwrap_or_default(),
    })
}

/// The parser's reason repeats the value that it did not expect, which may be megabytes long. What went
/// wrong is at the beginning, and the place at the end.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let short = clip(&text);
    if short.len() == text.len() {
        return text;
    }
    format!("{short}... at line {} column {}", error.line(), error.column())
}

/// Text out of a manifest goes into an error only up to this many characters.
const ECHO_CHARS_MAX: usize = 128;

fn clip(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).collect()
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Larger than the limit. HTTP 413.
    #[error("manifest has {found} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// More descriptors than the limit.
    #[error("manifest has more than {max} descriptors")]
    TooManyDescriptors {
        /// Descriptors allowed.
        max: usize,
    },
    /// Not JSON, a repeated member, or a member of the wrong type (a negative size, for example).
    #[error("manifest is not valid JSON of a manifest: {0}")]
    Json(String),
    /// Docker image manifest schema 1, withdrawn by its authors.
    #[error(
        "image manifest schema 1 is not supported: push the image again with a current client (schema 2 or OCI)"
    )]
    Schema1,
    /// `schemaVersion` is missing or unknown.
    #[error("manifest must have schemaVersion 2, found {found:?}")]
    SchemaVersion {
        /// The version found.
        found: Option<u64>,
    },
    /// A type this registry does not store as a manifest.
    #[error("manifest media type {0:?} is not supported")]
    UnsupportedMediaType(String),
    /// The request's `Content-Type` and the manifest's `mediaType` differ.
    #[error("Content-Type {declared:?} is not the manifest's mediaType {embedded:?}")]
    MediaTypeMismatch {
        /// From the request.
        declared: String,
        /// From the manifest.
        embedded: String,
    },
    /// Members of an image manifest and of an index in one document.
    #[error("manifest of type {media_type:?} must not have {member:?}")]
    Ambiguous {
        /// The agreed type.
        media_type: String,
        /// The member that belongs to the other kind.
        member: &'static str,
    },
    /// An image manifest without its configuration.
    #[error("image manifest has no config")]
    MissingConfig,
    /// A descriptor's digest is malformed.
    #[error("descriptor digest: {0}")]
    Digest(#[from] DigestError),
    /// A descriptor's size does not fit the signed 64 bits clients read it into.
    #[error("descriptor {digest} has size {size}, which is too large")]
    Size {
        /// The descriptor's digest.
        digest: Digest,
        /// The size stated.
        size: u64,
    },
    /// The same content is described with two sizes.
    #[error("descriptor {digest} appears with size {first} and size {second}")]
    SizeConflict {
        /// The descriptor's digest.
        digest: Digest,
        /// The first size.
        first: u64,
        /// The other size.
        second: u64,
    },
}

/// Members are optional here so that errors name what is missing. A member that appears twice is an
/// error of the derived parser.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl RawManifest {
    fn agreed_media_type(&self, declared: Option<&str>) -> Result<String, ManifestError> {
        let embedded = self.media_type.as_deref().filter(|text| !text.is_empty());
        let media_type = match (declared, embedded) {
            (Some(declared), Some(embedded)) if declared != embedded => {
                return Err(ManifestError::MediaTypeMismatch {
                    declared: clip(declared),
                    embedded: clip(embedded),
                });
            }
            (_, Some(either)) | (Some(either), None) => either,
            // OCI allows leaving it out of both; the members then tell.
            (None, None) if self.manifests.is_some() => types::OCI_INDEX,
            (None, None) => types::OCI_MANIFEST,
        };
        if !types::is_manifest_type(media_type) {
            return Err(ManifestError::UnsupportedMediaType(clip(media_type)));
        }
        let foreign_member = if types::is_index(media_type) {
            let config = self.config.as_ref().map(|_| "config");
            self.layers.as_ref().map(|_| "layers").or(config)
        } else {
            self.manifests.as_ref().map(|_| "manifests")
        };
        match foreign_member {
            Some(member) => {
                Err(ManifestError::Ambiguous { media_type: media_type.to_owned(), member })
            }
            None => Ok(media_type.to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    urls: Option<Vec<String>>,
}

impl RawDescriptor {
    fn parsed(&self) -> Result<(Digest, u64), ManifestError> {
        let digest: Digest = self.digest.parse()?;
        if i64::try_from(self.size).is_err() {
            return Err(ManifestError::Size { digest, size: self.size });
        }
        Ok((digest, self.size))
    }

    /// The content lives elsewhere by declaration. The URLs are never fetched.
    fn may_be_absent(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.as_deref().is_some_and(types::is_nondistributable)
    }

    /// Build tools store caches as an index whose entries are layers: those are blobs.
    fn kind_in_index(&self) -> ReferenceKind {
        match self.media_type.as_deref() {
            None | Some("") => ReferenceKind::Manifest,
            Some(media_type) if types::is_manifest_type(media_type) => ReferenceKind::Manifest,
            Some(_) => ReferenceKind::Blob,
        }
    }
}

struct References {
    list: Vec<ManifestReference>,
    seen: HashMap<(Digest, ReferenceKind), u64>,
    counted: usize,
    max: usize,
}

impl References {
    fn new(max: usize) -> Self {
        Self { list: Vec::new(), seen: HashMap::new(), counted: 0, max }
    }

    fn push(&mut self, raw: &RawDescriptor, kind: ReferenceKind) -> Result<(), ManifestError> {
        self.count_one()?;
        let (digest, size) = raw.parsed()?;
        match self.seen.insert((digest.clone(), kind), size) {
            None => self.list.push(ManifestReference { digest, size, kind }),
            Some(first) if first == size => {}
            Some(first) => return Err(ManifestError::SizeConflict { digest, first, second: size }),
        }
        Ok(())
    }

    fn count_one(&mut self) -> Result<(), ManifestError> {
        self.counted += 1;
        if self.counted > self.max {
            return Err(ManifestError::TooManyDescriptors { max: self.max });
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
