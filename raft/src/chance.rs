//! Random bits that are part of nothing secret: ids and names.

/// Random bits.
pub(crate) fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

/// Random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    #[cfg(feature = "simulation")]
    if let Some(bytes) = crate::simulation::dice() {
        return bytes;
    }
    let mut bytes = [0; N];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
}
