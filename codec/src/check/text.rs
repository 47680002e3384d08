//! Whether text is UTF-8, for texts as short as telemetry's: some ten to sixty bytes, mostly ASCII.

/// The same verdict as `std::str::from_utf8`.
#[inline(always)]
pub(super) fn is_text(bytes: &[u8]) -> bool {
    is_ascii(bytes) || is_utf8(bytes)
}

/// Out of the way of what is ASCII, which is nearly all, so that what calls is no more than a leaf.
#[cold]
#[inline(never)]
fn is_utf8(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// `[u8]::is_ascii` for what attributes are made of: in steps of 32 bytes, the last of which may
/// see some a second time, instead of a loop over the rest. Most need no more than two.
#[inline(always)]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<32>(), bytes.last_chunk::<32>()) {
        let (chunks, _) = bytes.as_chunks::<32>();
        let ends = marks(first) | marks(last);
        let all = chunks.iter().skip(1).fold(ends, |all, chunk| all | marks(chunk));
        return all & u128::from_le_bytes([0x80; 16]) == 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        let all = u128::from_le_bytes(*first) | u128::from_le_bytes(*last);
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

/// Both halves of a step of 32 bytes.
#[inline(always)]
fn marks(bytes: &[u8; 32]) -> u128 {
    let ([a, b], _) = bytes.as_chunks::<16>() else { return u128::MAX };
    u128::from_le_bytes(*a) | u128::from_le_bytes(*b)
}

#[cfg(test)]
mod tests;
