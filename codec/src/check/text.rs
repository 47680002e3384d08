//! Whether text is UTF-8, for texts as short as telemetry's: some ten to sixty bytes, mostly ASCII.

/// The same verdict as `std::str::from_utf8`.
#[inline]
pub(super) fn is_text(bytes: &[u8]) -> bool {
    is_ascii(bytes) || simdutf8::basic::from_utf8(bytes).is_ok()
}

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

#[inline]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    // The last eight bytes in one look, those that were seen before once more.
    if let (Some(last), false) = (bytes.last_chunk::<8>(), rest.is_empty()) {
        let all = words
            .iter()
            .fold(u64::from_le_bytes(*last), |all, word| all | u64::from_le_bytes(*word));
        return all & HIGH_BITS == 0;
    }
    let all = words.iter().fold(0, |all, word| all | u64::from_le_bytes(*word));
    let rest = rest.iter().fold(0, |all, byte| all | byte);
    all & HIGH_BITS == 0 && rest < 0x80
}
