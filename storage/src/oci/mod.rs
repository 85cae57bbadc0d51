//! The OCI vocabulary: values parsed once at the edge and trusted from there on.

mod descriptor;
mod digest;
mod glob;
mod manifest;
pub mod media_type;
mod name;
mod reference;

pub use descriptor::{Descriptor, ManifestReference, ManifestSummary, ReferenceKind};
pub use digest::{Algorithm, Digest, DigestError, DigestHasher};
pub use glob::{PATTERN_BYTES_MAX, Pattern, PatternError};
pub use manifest::{ManifestError, ManifestLimits, parse_manifest};
pub use name::{NAME_BYTES_MAX, NameError, RepositoryName};
pub use reference::{Reference, ReferenceError, TAG_BYTES_MAX, Tag};
