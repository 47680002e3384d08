//! Reading single values out of checked messages: an attribute by its key, a field, a trace id.
//!
//! All of it follows protobuf where an encoder did something unusual: the last of several copies
//! of a field counts, a message in several parts is one message, of a `oneof` the last member
//! counts. Of several attributes with one key the first counts, as in the Collector's pdata.

use std::ops::Range;

use crate::schema::LEN;
use crate::wire::{self, Fields};

/// The fields of `KeyValue`.
pub(super) const KEY: u32 = 1;
pub(super) const VALUE: u32 = 2;

/// The members of `AnyValue`'s `oneof`.
pub(super) const TEXT: u32 = 1;
pub(super) const BOOL: u32 = 2;
pub(super) const INT: u32 = 3;
pub(super) const FLOAT: u32 = 4;
const ARRAY: u32 = 5;
const MAP: u32 = 6;
const BYTES: u32 = 7;
const STRINDEX: u32 = 8;

/// A value as conditions, samplers and hashes see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    /// Absent, or an `AnyValue` without a value.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// UTF-8, as `check` has seen to it.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// An array or a map.
    Composite,
}

/// The value of the first attribute with this key. `parts`: the ranges of the one message that
/// has the attributes, `number`: their field in it.
pub(super) fn attribute<'a>(
    bytes: &'a [u8],
    parts: &[Range<usize>],
    number: u32,
    key: &[u8],
) -> Option<Scalar<'a>> {
    let fields = parts.iter().flat_map(|part| Fields::new(bytes, part.clone()));
    let mut entries = fields.filter(|field| field.number == number).map(|field| field.value);
    let entry = entries.find(|entry| key_of(bytes, entry.clone()) == key)?;
    let mut value = Scalar::Nil;
    for field in Fields::new(bytes, entry).filter(|field| field.number == VALUE) {
        merge_any(bytes, field.value, &mut value);
    }
    Some(value)
}

fn key_of(bytes: &[u8], entry: Range<usize>) -> &[u8] {
    if let Some(key) = plain_key(bytes, entry.clone()) {
        return key;
    }
    let keys = Fields::new(bytes, entry).filter(|field| field.number == KEY);
    keys.last().map_or(&[], |key| &bytes[key.value])
}

/// The key of a `KeyValue` that lies as all encoders write it: key, then value, both short, and
/// nothing else.
#[inline]
pub(super) fn plain_key(bytes: &[u8], entry: Range<usize>) -> Option<&[u8]> {
    const SHORT: usize = 0x80;
    let entry = &bytes[entry];
    let (&[KEY_TAG, length], rest) = entry.split_first_chunk()? else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(length))?;
    let (&[VALUE_TAG, value_length], value) = rest.split_first_chunk()? else {
        return None;
    };
    let is_plain = key.len() < SHORT && value.len() < SHORT;
    (is_plain && value.len() == usize::from(value_length)).then_some(key)
}

const KEY_TAG: u8 = (KEY << 3) as u8 | LEN;
const VALUE_TAG: u8 = (VALUE << 3) as u8 | LEN;

/// An `AnyValue` that lies in one piece.
pub(super) fn any(bytes: &[u8], message: Range<usize>) -> Scalar<'_> {
    let mut value = Scalar::Nil;
    merge_any(bytes, message, &mut value);
    value
}

/// Reads one part of an `AnyValue` over what earlier parts have said.
pub(super) fn merge_any<'a>(bytes: &'a [u8], part: Range<usize>, into: &mut Scalar<'a>) {
    for field in Fields::new(bytes, part) {
        let value = &bytes[field.value];
        *into = match field.number {
            TEXT => Scalar::Text(value),
            BOOL => Scalar::Bool(wire::varint_of(value) != 0),
            INT => Scalar::Int(wire::varint_of(value) as i64),
            FLOAT => Scalar::Float(f64::from_bits(fixed64(value))),
            ARRAY | MAP => Scalar::Composite,
            BYTES => Scalar::Bytes(value),
            // There is no string table outside profiles.
            STRINDEX => Scalar::Nil,
            _ => continue,
        };
    }
}

fn fixed64(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

/// The bytes of a singular string, bytes or id field; empty if it is absent.
pub(super) fn bytes_of(
    bytes: &[u8],
    parts: impl Iterator<Item = Range<usize>>,
    number: u32,
) -> &[u8] {
    let fields = parts.flat_map(|part| Fields::new(bytes, part));
    fields.filter(|field| field.number == number).last().map_or(&[], |field| &bytes[field.value])
}

/// The number of a singular enum field; 0 if it is absent.
pub(super) fn enum_of(bytes: &[u8], parts: impl Iterator<Item = Range<usize>>, number: u32) -> i64 {
    let fields = parts.flat_map(|part| Fields::new(bytes, part));
    let last = fields.filter(|field| field.number == number).last();
    // An enum is 32 bits wide, whatever the varint holds.
    last.map_or(0, |field| i64::from(wire::varint_of(&bytes[field.value]) as i32))
}

/// The parts of a singular message field of `message`.
pub(super) fn parts_of(
    bytes: &[u8],
    message: Range<usize>,
    number: u32,
) -> impl Iterator<Item = Range<usize>> {
    let wanted = move |field: &wire::RawField| field.number == number && field.wire_type == LEN;
    Fields::new(bytes, message).filter(wanted).map(|field| field.value)
}
