//! The envelope around every record at rest and every Raft message body.
//!
//! ```text
//! magic "TCT1" | format u8 | schema u16 | version u8 | length u32 | payload | crc32c u32
//! ```
//!
//! Integers are little-endian. The checksum covers everything before it, so one flipped bit anywhere is
//! noticed. The length makes trailing bytes noticeable, which bincode alone ignores. Format 1 is bincode's
//! "legacy" encoding: fixed-width little-endian integers, fields in declaration order. Adding, removing or
//! reordering a field therefore needs a new schema version (see `meta/records.rs` for how).

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Identifies a record type. `id` is never reused; 1 to 99 belong to this crate, 100 and up to those above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The record type.
    pub id: u16,
    /// The version written by this program.
    pub version: u8,
    /// For error messages and names of golden files.
    pub name: &'static str,
}

/// The largest payload, in bytes, in either direction.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes an envelope adds to its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

/// Puts `value` into an envelope of `schema`.
pub fn encode<T: Serialize + ?Sized>(schema: Schema, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(MAGIC);
    bytes.push(FORMAT_BINCODE_LEGACY);
    bytes.extend_from_slice(&schema.id.to_le_bytes());
    bytes.push(schema.version);
    bytes.extend_from_slice(&[0; 4]);
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode_config())
        .map_err(|error| CodecError::Encode { schema: schema.name, reason: error.to_string() })?;
    let length = bytes.len() - HEADER_BYTES;
    if length > PAYLOAD_BYTES_MAX {
        return Err(CodecError::TooLarge { schema: schema.name, length });
    }
    // Cannot fail: the maximum fits u32, and the header was written above.
    if let (Ok(length), Some(slot)) =
        (u32::try_from(length), bytes.get_mut(LENGTH_AT..HEADER_BYTES))
    {
        slot.copy_from_slice(&length.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// Takes the value out of an envelope, which must be of exactly `schema` and its version.
pub fn decode<T: DeserializeOwned>(schema: Schema, bytes: &[u8]) -> Result<T, CodecError> {
    let envelope = Envelope::open(schema, bytes)?;
    if envelope.version < schema.version {
        return Err(CodecError::OlderVersion {
            schema: schema.name,
            found: envelope.version,
            supported: schema.version,
        });
    }
    envelope.decode()
}

/// An envelope whose checksum, length and schema are right; for readers of several versions of a record.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The version that wrote it: at most the schema's own.
    pub version: u8,
    schema: &'static str,
    payload: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Checks everything around the payload of `bytes`.
    pub fn open(schema: Schema, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let name = schema.name;
        let found = bytes.len();
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .filter(|(_, rest)| rest.len() >= CHECKSUM_BYTES)
            .ok_or(CodecError::TooShort { schema: name, found })?;
        let [m0, m1, m2, m3, format, id0, id1, version, l0, l1, l2, l3] = *header;
        if [m0, m1, m2, m3] != *MAGIC {
            return Err(CodecError::Magic { schema: name });
        }
        let stated = u32::from_le_bytes([l0, l1, l2, l3]);
        let payload_len = found - OVERHEAD_BYTES;
        // Compared without adding to the stated length, which may be anything.
        if u64::from(stated) != payload_len as u64 {
            return Err(CodecError::Length { schema: name, stated, found: payload_len });
        }
        let (payload, checksum) = rest
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(CodecError::TooShort { schema: name, found })?;
        let computed = crc32c::crc32c_append(crc32c::crc32c(header), payload);
        if computed != u32::from_le_bytes(*checksum) {
            return Err(CodecError::Checksum { schema: name });
        }
        // From here on the bytes are what somebody wrote, so differences are versions and not damage.
        if format != FORMAT_BINCODE_LEGACY {
            return Err(CodecError::Format { schema: name, found: format });
        }
        let id = u16::from_le_bytes([id0, id1]);
        if id != schema.id {
            return Err(CodecError::WrongSchema { schema: name, expected: schema.id, found: id });
        }
        if version > schema.version {
            return Err(CodecError::NewerVersion {
                schema: name,
                found: version,
                supported: schema.version,
            });
        }
        Ok(Self { version, schema: name, payload })
    }

    /// Decodes the payload as `T`, which must use all of it.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, CodecError> {
        let (value, used) =
            bincode::serde::decode_from_slice(self.payload, bincode_config()).map_err(|error| {
                CodecError::Decode { schema: self.schema, reason: error.to_string() }
            })?;
        match self.payload.len() - used {
            0 => Ok(value),
            trailing => Err(CodecError::TrailingBytes { schema: self.schema, trailing }),
        }
    }
}

/// Why bytes are not a record, or a value cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Fewer bytes than an empty envelope has: typically a truncated file or message.
    #[error("{schema}: {found} bytes are too few for an envelope")]
    TooShort {
        /// The schema expected.
        schema: &'static str,
        /// Bytes found.
        found: usize,
    },
    /// It does not start with the magic bytes: damage, or not a record of this program.
    #[error("{schema}: not an envelope")]
    Magic {
        /// The schema expected.
        schema: &'static str,
    },
    /// The stated length is not the length found: truncation, trailing bytes or damage.
    #[error("{schema}: envelope states {stated} payload bytes, found {found}")]
    Length {
        /// The schema expected.
        schema: &'static str,
        /// Payload bytes stated.
        stated: u32,
        /// Payload bytes found.
        found: usize,
    },
    /// The checksum is wrong: damage on disk or in transit.
    #[error("{schema}: checksum is wrong, the bytes are damaged")]
    Checksum {
        /// The schema expected.
        schema: &'static str,
    },
    /// An encoding this program does not know, written by a newer one.
    #[error("{schema}: unknown envelope format {found}; written by a newer version?")]
    Format {
        /// The schema expected.
        schema: &'static str,
        /// The format found.
        found: u8,
    },
    /// A record of another type.
    #[error("{schema}: expected record type {expected}, found {found}")]
    WrongSchema {
        /// The schema expected.
        schema: &'static str,
        /// Its id.
        expected: u16,
        /// The id found.
        found: u16,
    },
    /// A record of a newer program. It is refused, never misread.
    #[error(
        "{schema}: version {found} is newer than {supported}, the newest this program reads; upgrade it"
    )]
    NewerVersion {
        /// The schema.
        schema: &'static str,
        /// The version found.
        found: u8,
        /// The newest version supported.
        supported: u8,
    },
    /// A record of an older program that this reader has no migration for.
    #[error("{schema}: version {found} is older than {supported} and no longer read")]
    OlderVersion {
        /// The schema.
        schema: &'static str,
        /// The version found.
        found: u8,
        /// The version supported.
        supported: u8,
    },
    /// The payload is longer than the value in it.
    #[error("{schema}: {trailing} bytes after the value")]
    TrailingBytes {
        /// The schema.
        schema: &'static str,
        /// How many.
        trailing: usize,
    },
    /// The payload is no value of the type.
    #[error("{schema}: {reason}")]
    Decode {
        /// The schema.
        schema: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The value cannot be written.
    #[error("{schema}: cannot encode: {reason}")]
    Encode {
        /// The schema.
        schema: &'static str,
        /// What the encoder said.
        reason: String,
    },
    /// The value is larger than [`PAYLOAD_BYTES_MAX`].
    #[error("{schema}: payload of {length} bytes is larger than {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// The schema.
        schema: &'static str,
        /// Its length in bytes.
        length: usize,
    },
}

/// Serde for a `Vec<u8>` field as one run of bytes: `#[serde(with = "tercet_storage::codec::byte_field")]`. The
/// bytes written are those of a plain `Vec<u8>`, but megabytes are copied at once and not one by one.
pub mod byte_field {
    use serde::de::{Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::Serializer;

    use super::fmt;

    /// Writes `bytes` as one run.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads one run of bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        // Formats without a byte type, such as JSON.
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

const MAGIC: &[u8; 4] = b"TCT1";
const FORMAT_BINCODE_LEGACY: u8 = 1;
const LENGTH_AT: usize = 8;
const HEADER_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

type BincodeConfig = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<PAYLOAD_BYTES_MAX>,
>;

/// The limit also bounds what a stated length can make the decoder allocate.
const fn bincode_config() -> BincodeConfig {
    bincode::config::legacy().with_limit::<PAYLOAD_BYTES_MAX>()
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
