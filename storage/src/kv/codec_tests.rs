#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const SCHEMA: Schema = Schema { id: 0x1234, version: 2, name: "sample" };

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    number: u64,
    text: Option<String>,
    #[serde(with = "byte_field")]
    bytes: Vec<u8>,
    list: Vec<(u8, i32)>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let list = proptest::collection::vec(any::<(u8, i32)>(), 0..8);
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    (any::<u64>(), any::<Option<String>>(), bytes, list)
        .prop_map(|(number, text, bytes, list)| Sample { number, text, bytes, list })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn value_roundtrips(value in sample()) {
        let bytes = encode(SCHEMA, &value).unwrap();
        prop_assert_eq!(decode::<Sample>(SCHEMA, &bytes).unwrap(), value);
    }

    #[test]
    fn any_flipped_bit_is_refused(value in sample(), at in any::<proptest::sample::Index>()) {
        let mut bytes = encode(SCHEMA, &value).unwrap();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode::<Sample>(SCHEMA, &bytes).is_err());
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode::<Sample>(SCHEMA, &bytes).is_err());
    }
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn unsealed(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = encode(SCHEMA, value).unwrap();
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    bytes
}

#[test]
fn layout_is_the_documented_one() {
    let bytes = encode(SCHEMA, &0x0102_u16).unwrap();
    assert_eq!(&bytes[..14], b"TCT1\x01\x34\x12\x02\x02\0\0\0\x02\x01");
    assert_eq!(bytes.len(), OVERHEAD_BYTES + 2);
}

#[test]
fn every_truncation_and_every_trailing_byte_is_refused() {
    let bytes = encode(SCHEMA, &7_u64).unwrap();
    for length in 0..bytes.len() {
        assert!(decode::<u64>(SCHEMA, &bytes[..length]).is_err(), "{length} bytes");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(decode::<u64>(SCHEMA, &longer), Err(CodecError::Length { .. })));
}

#[test]
fn trailing_bytes_inside_the_payload_are_refused() {
    let bytes = encode(SCHEMA, &(7_u64, 1_u8)).unwrap();
    let error = decode::<u64>(SCHEMA, &bytes).unwrap_err();
    assert_eq!(error, CodecError::TrailingBytes { schema: "sample", trailing: 1 });
}

#[test]
fn other_versions_schemas_and_formats_are_named() {
    let value = 7_u64;
    let newer = Schema { version: 3, ..SCHEMA };
    let bytes = encode(newer, &value).unwrap();
    assert!(matches!(
        decode::<u64>(SCHEMA, &bytes),
        Err(CodecError::NewerVersion { found: 3, supported: 2, .. })
    ));
    let older = Schema { version: 1, ..SCHEMA };
    let bytes = encode(older, &value).unwrap();
    assert!(matches!(decode::<u64>(SCHEMA, &bytes), Err(CodecError::OlderVersion { .. })));
    let envelope = Envelope::open(SCHEMA, &bytes).unwrap();
    assert_eq!((envelope.version, envelope.decode::<u64>().unwrap()), (1, 7));
    let other = Schema { id: 1, ..SCHEMA };
    let bytes = encode(other, &value).unwrap();
    assert!(matches!(decode::<u64>(SCHEMA, &bytes), Err(CodecError::WrongSchema { .. })));
    let mut format = unsealed(&value);
    format[4] = 2;
    assert!(matches!(
        decode::<u64>(SCHEMA, &seal(format)),
        Err(CodecError::Format { found: 2, .. })
    ));
}

#[test]
fn stated_length_is_never_allocated() {
    // A vector that claims 2^62 elements, correctly sealed.
    let bytes = encode(SCHEMA, &(1_u64 << 62)).unwrap();
    assert!(matches!(decode::<Vec<u64>>(SCHEMA, &bytes), Err(CodecError::Decode { .. })));
    assert!(matches!(decode::<String>(SCHEMA, &bytes), Err(CodecError::Decode { .. })));
}

#[test]
fn too_large_value_is_refused() {
    let value = vec![0_u8; PAYLOAD_BYTES_MAX];
    assert!(matches!(encode(SCHEMA, value.as_slice()), Err(CodecError::TooLarge { .. })));
}

#[test]
fn byte_field_writes_what_a_plain_vector_writes() {
    #[derive(Serialize)]
    struct Fast(#[serde(with = "byte_field")] Vec<u8>);
    let bytes = vec![1, 2, 3];
    assert_eq!(encode(SCHEMA, &Fast(bytes.clone())), encode(SCHEMA, &bytes));
}
