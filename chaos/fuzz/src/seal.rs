//! An envelope built by hand, after the page on the storage format: half of a check is its independence,
//! and without a right checksum no fuzzer would come further than the checksum.

const MAGIC: &[u8] = b"TCT1";
const FORMAT: u8 = 1;
/// CRC-32C (Castagnoli), reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `payload` in an envelope of this schema.
pub(crate) fn seal(schema_id: u16, version: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("inputs are small");
    let mut bytes =
        [MAGIC, &[FORMAT], &schema_id.to_le_bytes(), &[version], &length.to_le_bytes(), payload]
            .concat();
    let checksum = crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (if crc & 1 == 1 { POLYNOMIAL } else { 0 })
        })
    })
}
