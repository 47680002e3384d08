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
use crate::schema::{Message, Shape, Step, Stride, Tally};

/// What stands at an offset of a message.
pub(super) enum Plain {
    /// A valid field that ends at `end` and holds so many items.
    Over { end: usize, items: u64 },
    /// A message whose content nobody has looked at.
    Message { number: usize, inner: &'static Message, value: Range<usize> },
    /// Not for here.
    No,
}

/// What the walk knows of the encoder, and how much more it will bet on it.
pub(super) struct Bets {
    is_descending: bool,
    /// Bytes that may still be looked at in vain. Each message that turns out to have no shape is
    /// looked at again, and so are those inside it: without an end to this, a request could be made
    /// to cost many times its length.
    spare_bytes: usize,
}

/// In lengths of the request.
const SPARE_RATIO: usize = 4;

impl Bets {
    pub(super) fn on(request_bytes: usize) -> Self {
        Self { is_descending: false, spare_bytes: request_bytes.saturating_mul(SPARE_RATIO) }
    }

    /// How many items are in a message, if it has its shape.
    #[inline]
    fn items_of(&mut self, shape: Shape, bytes: &[u8]) -> Option<u64> {
        if shape == Shape::Other || self.spare_bytes < bytes.len() {
            return None;
        }
        let items = match self.is_descending {
            true => shapes::items_of::<true>(shape, bytes),
            false => shapes::items_of::<false>(shape, bytes),
        };
        if items.is_some() { items } else { self.other_order(shape, bytes) }
    }

    /// The order that this message has is likely to be that of the next.
    #[cold]
    fn other_order(&mut self, shape: Shape, bytes: &[u8]) -> Option<u64> {
        self.spare_bytes = self.spare_bytes.saturating_sub(2 * bytes.len());
        let items = match self.is_descending {
            true => shapes::items_of::<false>(shape, bytes),
            false => shapes::items_of::<true>(shape, bytes),
        };
        self.is_descending ^= items.is_some();
        items
    }
}

/// Looks at the field at `at`, which lies inside `bytes`.
#[inline]
pub(super) fn field(message: &'static Message, bytes: &[u8], at: usize, bets: &mut Bets) -> Plain {
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
        Stride::Message(inner) => return self::message(number, inner, bytes, value, bets),
        _ => true,
    };
    if is_plain { over(value.end) } else { Plain::No }
}

fn over(end: usize) -> Plain {
    Plain::Over { end, items: 0 }
}

#[inline]
fn message(
    number: usize,
    inner: &'static Message,
    bytes: &[u8],
    value: Range<usize>,
    bets: &mut Bets,
) -> Plain {
    match bets.items_of(inner.shape, &bytes[value.clone()]) {
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
