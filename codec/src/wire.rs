//! The protobuf encoding: varints, tags and fields. No allocation when reading, no panic, ever.
//!
//! `check` reads bytes that nobody has looked at with [`varint`] and [`tag`]; everything behind a
//! check walks them with [`Fields`]. Writers are the `put_` functions.
//! Source: the protobuf encoding guide, <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

use crate::schema::{I32, I64, LEN, VARINT};

/// The longest varint: ten groups of seven bits, of which the last may only hold one bit.
pub const VARINT_BYTES_MAX: usize = 10;

/// What can be wrong with bytes before their meaning is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end inside a field.
    Truncated,
    /// A varint of more than ten bytes, or one that does not fit 64 bits.
    VarintTooLong,
    /// A length that reaches past the end of the message around it.
    LengthOverflow,
    /// Field number 0.
    FieldZero,
    /// A tag above 32 bits: its field number needs more than 29 bits.
    FieldNumberTooLarge,
    /// Wire type 3 or 4.
    GroupWireType,
    /// Wire type 6 or 7, which mean nothing.
    UnknownWireType(u8),
}

/// Reads a varint at `*at` and moves `*at` behind it.
#[inline]
pub fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    match bytes.get(*at) {
        Some(&byte) if byte < 0x80 => {
            *at += 1;
            Ok(u64::from(byte))
        }
        _ => long_varint(bytes, at),
    }
}

fn long_varint(bytes: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    let mut value = 0;
    let rest = bytes.get(*at..).unwrap_or_default();
    for (index, &byte) in rest.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            // The tenth group holds bit 63 alone; more would be lost silently.
            if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(Malformed::VarintTooLong);
            }
            *at += index + 1;
            return Ok(value);
        }
    }
    Err(match rest.len() < VARINT_BYTES_MAX {
        true => Malformed::Truncated,
        false => Malformed::VarintTooLong,
    })
}

/// Reads a tag at `*at`: field number (1 to 2^29 - 1) and wire type (0, 1, 2 or 5).
#[inline]
pub fn tag(bytes: &[u8], at: &mut usize) -> Result<(u32, u8), Malformed> {
    let key = varint(bytes, at)?;
    let key = u32::try_from(key).map_err(|_| Malformed::FieldNumberTooLarge)?;
    let (number, wire_type) = (key >> 3, (key & 7) as u8);
    match (number, wire_type) {
        (0, _) => Err(Malformed::FieldZero),
        (_, VARINT | I64 | LEN | I32) => Ok((number, wire_type)),
        (_, 3 | 4) => Err(Malformed::GroupWireType),
        (_, other) => Err(Malformed::UnknownWireType(other)),
    }
}

/// Reads what follows a tag and returns where the value's own bytes lie: for [`LEN`] without the
/// length, for the others the number itself.
#[inline]
pub fn value(bytes: &[u8], at: &mut usize, wire_type: u8) -> Result<Range<usize>, Malformed> {
    let start = *at;
    let bytes_count = match wire_type {
        VARINT => {
            varint(bytes, at)?;
            return Ok(start..*at);
        }
        I64 => 8,
        I32 => 4,
        _ => return payload(bytes, at),
    };
    if bytes.len() - start < bytes_count {
        return Err(Malformed::Truncated);
    }
    *at += bytes_count;
    Ok(start..*at)
}

/// Reads a length and the range that it spans.
#[inline]
pub fn payload(bytes: &[u8], at: &mut usize) -> Result<Range<usize>, Malformed> {
    let length = varint(bytes, at)?;
    let length = usize::try_from(length).map_err(|_| Malformed::LengthOverflow)?;
    if bytes.len() - *at < length {
        return Err(Malformed::LengthOverflow);
    }
    let start = *at;
    *at += length;
    Ok(start..*at)
}

/// One field as it lies in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawField {
    pub number: u32,
    pub wire_type: u8,
    /// Tag, length and value.
    pub whole: Range<usize>,
    /// The value alone.
    pub value: Range<usize>,
}

/// The fields of a message that lies at `at..end` of `bytes`, in wire order, unknown ones too.
/// Ends at the first malformed field; after a check there is none.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8], message: Range<usize>) -> Self {
        let bytes = bytes.get(..message.end).unwrap_or_default();
        Self { bytes, at: message.start }
    }
}

impl Iterator for Fields<'_> {
    type Item = RawField;

    #[inline]
    fn next(&mut self) -> Option<RawField> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let start = self.at;
        let (number, wire_type) = tag(self.bytes, &mut self.at).ok()?;
        let value = value(self.bytes, &mut self.at, wire_type).ok()?;
        Some(RawField { number, wire_type, whole: start..self.at, value })
    }
}

/// The unsigned number in a checked varint value.
pub fn varint_of(value: &[u8]) -> u64 {
    varint(value, &mut 0).unwrap_or_default()
}

/// How many bytes this number takes as a varint: 1 to 10.
pub fn varint_bytes(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes a number where there is room for exactly its [`varint_bytes`].
pub(crate) fn write_varint(room: &mut [u8], mut number: u64) {
    let last = room.len() - 1;
    for byte in &mut room[..last] {
        *byte = number as u8 | 0x80;
        number >>= 7;
    }
    room[last] = number as u8;
}

pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// A whole field of wire type [`LEN`].
pub fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_tag(out, number, LEN);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A whole varint field; zero is left out, as proto3 does.
pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(out, number, VARINT);
        put_varint(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_varint_length_reads_back_and_is_measured() {
        for bits in 0..=64 {
            let number = if bits == 64 { u64::MAX } else { (1u64 << bits) - 1 };
            for number in [number, number.saturating_add(1), number.saturating_sub(1)] {
                let mut out = Vec::new();
                put_varint(&mut out, number);
                let mut at = 0;
                assert_eq!(varint(&out, &mut at), Ok(number));
                assert_eq!((at, varint_bytes(number)), (out.len(), out.len()));
            }
        }
    }

    #[test]
    fn d1_a_varint_is_refused_when_cut_or_longer_than_64_bits() {
        for cut in 0..10 {
            assert_eq!(varint(&[0xff; 10][..cut], &mut 0), Err(Malformed::Truncated));
        }
        assert_eq!(varint(&[0x80; 11], &mut 0), Err(Malformed::VarintTooLong));
        let mut ten = [0xff; 10];
        ten[9] = 1;
        assert_eq!(varint(&ten, &mut 0), Ok(u64::MAX));
        ten[9] = 2;
        assert_eq!(varint(&ten, &mut 0), Err(Malformed::VarintTooLong));
    }

    #[test]
    fn a_padded_varint_is_legal_as_it_is_in_every_other_reader() {
        assert_eq!(varint(&[0x81, 0x80, 0x00], &mut 0), Ok(1));
    }

    #[test]
    fn d1_a_tag_names_what_is_wrong_with_it() {
        let refused = |key: u64| {
            let mut out = Vec::new();
            put_varint(&mut out, key);
            tag(&out, &mut 0)
        };
        assert_eq!(refused(2), Err(Malformed::FieldZero));
        assert_eq!(refused(1 << 3 | 3), Err(Malformed::GroupWireType));
        assert_eq!(refused(1 << 3 | 4), Err(Malformed::GroupWireType));
        assert_eq!(refused(1 << 3 | 6), Err(Malformed::UnknownWireType(6)));
        assert_eq!(refused(1 << 32), Err(Malformed::FieldNumberTooLarge));
        assert_eq!(refused(u64::from((u32::MAX - 7) | 2)), Ok(((1 << 29) - 1, LEN)));
    }

    #[test]
    fn d1_a_length_never_reaches_past_its_message() {
        let bytes = [5, 1, 2, 3, 4];
        assert_eq!(payload(&bytes, &mut 0), Err(Malformed::LengthOverflow));
        assert_eq!(payload(&bytes[..0], &mut 0), Err(Malformed::Truncated));
        assert_eq!(value(&bytes, &mut 0, I64), Err(Malformed::Truncated));
        assert_eq!(value(&bytes, &mut 1, I32), Ok(1..5));
    }
}
