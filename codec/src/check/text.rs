//! Whether text is UTF-8, for texts as short as telemetry's: some ten to sixty bytes, mostly ASCII.

/// The same verdict as `std::str::from_utf8`.
#[inline]
pub(super) fn is_text(bytes: &[u8]) -> bool {
    is_ascii(bytes) || simdutf8::basic::from_utf8(bytes).is_ok()
}

/// `[u8]::is_ascii` for what attributes are made of: in steps of sixteen bytes, the last of which
/// may see some a second time, instead of a loop over the rest.
#[inline]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<16>() {
        let (chunks, _) = bytes.as_chunks::<16>();
        let all = chunks
            .iter()
            .fold(u128::from_le_bytes(*last), |all, chunk| all | u128::from_le_bytes(*chunk));
        return all & u128::from_le_bytes([0x80; 16]) == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let all = u64::from_le_bytes(*first) | u64::from_le_bytes(*last);
        return all & u64::from_le_bytes([0x80; 8]) == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let all = u32::from_le_bytes(*first) | u32::from_le_bytes(*last);
        return all & u32::from_le_bytes([0x80; 4]) == 0;
    }
    bytes.iter().fold(0, |all, byte| all | byte) < 0x80
}
