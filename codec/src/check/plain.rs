//! Fields that lie as encoders lay them: over each in one stride, without a look at its parts.
//!
//! Nothing is decided here against a request. What is not plain (an unknown field, a padded
//! length, bytes that end too early, anything wrong) is left to the general walk of `check`, at the
//! same offset, which finds the fault or that there is none.
//!
//! Always: a field that is strided over is valid, and the general walk would have come to the same
//! end with the same counts.

use std::ops::Range;

use super::shapes;
use super::text::is_text;
use crate::schema::{Message, Step, Stride, Tally};

/// What stands at an offset of a message.
pub(super) enum Plain {
    /// A valid field that ends at `end` and holds so many items.
    Over { end: usize, items: u64 },
    /// A message whose content nobody has looked at.
    Message { number: usize, inner: &'static Message, value: Range<usize> },
    /// Not for here.
    No,
}

/// Looks at the field at `at`, which lies inside `bytes`.
#[inline]
pub(super) fn field(message: &'static Message, bytes: &[u8], at: usize) -> Plain {
    let tag = bytes[at];
    let (number, at) = match tag {
        0..0x80 => (usize::from(tag >> 3), at + 1),
        // Two bytes, of which the second is 1: fields 16 to 31.
        _ if bytes.get(at + 1) == Some(&1) => (usize::from(tag >> 3), at + 2),
        _ => return Plain::No,
    };
    let Step { wire_type, stride } = message.step(number);
    if wire_type != tag & 7 {
        return Plain::No;
    }
    let value = match stride {
        Stride::Unknown => return Plain::No,
        Stride::Varint => return varint(bytes, at).map_or(Plain::No, over),
        Stride::Fixed(bytes_count) => {
            let end = at + usize::from(bytes_count);
            return if end <= bytes.len() { over(end) } else { Plain::No };
        }
        Stride::Text | Stride::Bytes | Stride::Id(_) | Stride::Message(_) => payload(bytes, at),
    };
    let Some(value) = value else { return Plain::No };
    let is_plain = match stride {
        Stride::Text => is_text(&bytes[value.clone()]),
        Stride::Id(bytes_count) => value.len() == usize::from(bytes_count),
        Stride::Message(inner) => return self::message(number, inner, bytes, value),
        _ => true,
    };
    if is_plain { over(value.end) } else { Plain::No }
}

fn over(end: usize) -> Plain {
    Plain::Over { end, items: 0 }
}

#[inline]
fn message(number: usize, inner: &'static Message, bytes: &[u8], value: Range<usize>) -> Plain {
    match shapes::items_of(inner.shape, &bytes[value.clone()]) {
        Some(inside) => {
            let itself = u64::from(inner.tally == Tally::Item);
            Plain::Over { end: value.end, items: inside + itself }
        }
        None => Plain::Message { number, inner, value },
    }
}

/// Where the varint at `at` ends, if it has at most three bytes.
#[inline]
fn varint(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at..)? {
        [0..0x80, ..] => Some(at + 1),
        [_, 0..0x80, ..] => Some(at + 2),
        [_, _, 0..0x80, ..] => Some(at + 3),
        _ => None,
    }
}

/// The range behind a length of at most four bytes.
#[inline]
fn payload(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let (length, rest) = shapes::length(bytes.get(at..)?)?;
    let start = bytes.len() - rest.len();
    let end = start + length;
    (length <= rest.len()).then_some(start..end)
}
