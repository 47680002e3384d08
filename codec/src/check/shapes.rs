//! The messages that requests are mostly made of, each as a straight line of code: its fields in
//! ascending order, as nearly all SDKs write them, and compiled a second time in descending order,
//! as Collectors do. No table, no jump that a processor could guess wrong.
//!
//! Always
//! - A shape says yes only to a valid message, and knows how many items are in it. To all else it
//!   says nothing; then the general walk of `check` looks.
//! - It looks at each byte a bounded number of times, whatever the message holds: all that is
//!   inside goes in the same order, and nothing is tried twice.

use super::text::{is_ascii, is_text};
use crate::schema::{I32, I64, LEN, Shape, VARINT};

/// How many items this message holds, itself not counted, if it has its shape with its fields in
/// this order.
#[inline]
pub(super) fn items_of<const DESCENDING: bool>(shape: Shape, bytes: &[u8]) -> Option<u64> {
    match shape {
        Shape::Other => None,
        Shape::KeyValue => attribute::<DESCENDING>(bytes),
        Shape::Resource => resource::<DESCENDING>(bytes),
        Shape::Scope => scope::<DESCENDING>(bytes),
        Shape::Span => span::<DESCENDING>(bytes),
        Shape::Event => event::<DESCENDING>(bytes),
        Shape::Link => link::<DESCENDING>(bytes),
        Shape::Status => status::<DESCENDING>(bytes),
        Shape::LogRecord => log_record::<DESCENDING>(bytes),
        Shape::Metric => metric::<DESCENDING>(bytes),
        Shape::NumberDataPoint => number_data_point::<DESCENDING>(bytes),
        Shape::HistogramDataPoint => histogram_data_point::<DESCENDING>(bytes),
        Shape::ExponentialHistogramDataPoint => {
            exponential_histogram_data_point::<DESCENDING>(bytes)
        }
        Shape::SummaryDataPoint => summary_data_point::<DESCENDING>(bytes),
        Shape::Exemplar => exemplar::<DESCENDING>(bytes),
    }
}

/// A function that says how many items a message of this shape holds. `D`: in descending order.
macro_rules! shape {
    ($name:ident: $($fields:tt)*) => {
        fn $name<const D: bool>(bytes: &[u8]) -> Option<u64> {
            let mut rest = Rest { bytes, items: 0 };
            if D {
                descending!(rest, $($fields)*);
            } else {
                ascending!(rest, $($fields)*);
            }
            rest.bytes.is_empty().then_some(rest.items)
        }
    };
}

macro_rules! ascending {
    ($rest:ident,) => {};
    ($rest:ident, $take:ident($($how:tt)*) $(, $($fields:tt)*)?) => {
        $rest.$take($($how)*);
        ascending!($rest, $($($fields)*)?);
    };
}

macro_rules! descending {
    ($rest:ident,) => {};
    ($rest:ident, $take:ident($($how:tt)*) $(, $($fields:tt)*)?) => {
        descending!($rest, $($($fields)*)?);
        $rest.$take($($how)*);
    };
}

shape!(long_attribute: text(1), each(2, any_value::<D>));
shape!(simple_values: each(1, simple_value));
shape!(resource: each(1, attribute::<D>), varint(2));
shape!(scope: text(1), text(2), each(3, attribute::<D>), varint(4));
shape!(span: id(1, 16), id(2, 8), text(3), id(4, 8), text(5), varint(6), fixed64(7), fixed64(8),
    each(9, attribute::<D>), varint(10), each(11, event::<D>), varint(12), each(13, link::<D>),
    varint(14), each(15, status::<D>), fixed32(16));
shape!(event: fixed64(1), text(2), each(3, attribute::<D>), varint(4));
shape!(link: id(1, 16), id(2, 8), text(3), each(4, attribute::<D>), varint(5), fixed32(6));
shape!(status: text(2), varint(3));
shape!(log_record: fixed64(1), varint(2), text(3), each(5, any_value::<D>),
    each(6, attribute::<D>), varint(7), fixed32(8), id(9, 16), id(10, 8), fixed64(11), text(12));
shape!(metric: text(1), text(2), text(3), only(5, numbers::<D>), only(7, numbers::<D>),
    only(9, histogram::<D>), only(10, exponential_histogram::<D>), only(11, summary::<D>),
    each(12, attribute::<D>));
// A gauge has no more than the first of these fields.
shape!(numbers: item(1, number_data_point::<D>), varint(2), varint(3));
shape!(histogram: item(1, histogram_data_point::<D>), varint(2));
shape!(exponential_histogram: item(1, exponential_histogram_data_point::<D>), varint(2));
shape!(summary: item(1, summary_data_point::<D>));
shape!(number_data_point: fixed64(2), fixed64(3), fixed64(4), each(5, exemplar::<D>), fixed64(6),
    each(7, attribute::<D>), varint(8));
shape!(histogram_data_point: fixed64(2), fixed64(3), fixed64(4), fixed64(5), packed64(6),
    packed64(7), each(8, exemplar::<D>), each(9, attribute::<D>), varint(10), fixed64(11),
    fixed64(12));
shape!(exponential_histogram_data_point: each(1, attribute::<D>), fixed64(2), fixed64(3),
    fixed64(4), fixed64(5), varint(6), fixed64(7), each(8, buckets::<D>), each(9, buckets::<D>),
    varint(10), each(11, exemplar::<D>), fixed64(12), fixed64(13), fixed64(14));
shape!(buckets: varint(1), packed_varints(2));
shape!(summary_data_point: fixed64(2), fixed64(3), fixed64(4), fixed64(5), each(6, quantile::<D>),
    each(7, attribute::<D>), varint(8));
shape!(quantile: fixed64(1), fixed64(2));
shape!(exemplar: fixed64(2), fixed64(3), id(4, 8), id(5, 16), fixed64(6),
    each(7, attribute::<D>));

/// What is left of a message, and the items in what is not. Each function takes a field from the
/// front if it is there and plain, and else leaves all as it is.
struct Rest<'a> {
    bytes: &'a [u8],
    items: u64,
}

impl<'a> Rest<'a> {
    #[inline(always)]
    fn behind_tag(&self, number: u8, wire_type: u8) -> Option<&'a [u8]> {
        match self.bytes {
            [tag, rest @ ..] if number < 16 && *tag == number << 3 | wire_type => Some(rest),
            [tag, 1, rest @ ..] if number >= 16 && *tag == number << 3 | wire_type => Some(rest),
            _ => None,
        }
    }

    /// The value of a field of wire type [`LEN`], and what is behind it.
    #[inline(always)]
    fn payload(&self, number: u8) -> Option<(&'a [u8], &'a [u8])> {
        let (length, rest) = length(self.behind_tag(number, LEN)?)?;
        rest.split_at_checked(length)
    }

    #[inline(always)]
    fn fixed(&mut self, number: u8, wire_type: u8, bytes_count: usize) {
        if let Some(rest) = self.behind_tag(number, wire_type)
            && let Some(rest) = rest.get(bytes_count..)
        {
            self.bytes = rest;
        }
    }

    #[inline(always)]
    fn fixed64(&mut self, number: u8) {
        self.fixed(number, I64, 8);
    }

    #[inline(always)]
    fn fixed32(&mut self, number: u8) {
        self.fixed(number, I32, 4);
    }

    #[inline(always)]
    fn varint(&mut self, number: u8) {
        let rest = self.behind_tag(number, VARINT);
        if let Some([0..0x80, rest @ ..] | [_, 0..0x80, rest @ ..] | [_, _, 0..0x80, rest @ ..]) =
            rest
        {
            self.bytes = rest;
        }
    }

    #[inline(always)]
    fn text(&mut self, number: u8) {
        if let Some((text, rest)) = self.payload(number)
            && is_text(text)
        {
            self.bytes = rest;
        }
    }

    #[inline(always)]
    fn id(&mut self, number: u8, bytes_count: u8) {
        match self.behind_tag(number, LEN) {
            Some([length, rest @ ..]) if *length == bytes_count => {
                self.bytes = rest.get(usize::from(bytes_count)..).unwrap_or(self.bytes);
            }
            // Collectors write empty ids, too.
            Some([0, rest @ ..]) => self.bytes = rest,
            _ => {}
        }
    }

    #[inline(always)]
    fn packed64(&mut self, number: u8) {
        if let Some((run, rest)) = self.payload(number)
            && run.len() % 8 == 0
        {
            self.bytes = rest;
        }
    }

    #[inline(always)]
    fn packed_varints(&mut self, number: u8) {
        if let Some((run, rest)) = self.payload(number)
            && are_varints(run)
        {
            self.bytes = rest;
        }
    }

    /// All messages of a field in a row.
    #[inline(always)]
    fn each(&mut self, number: u8, items_of: fn(&[u8]) -> Option<u64>) {
        while let Some((message, rest)) = self.payload(number)
            && let Some(items) = items_of(message)
        {
            self.items += items;
            self.bytes = rest;
        }
    }

    /// All messages of a field in a row, each of them an item.
    #[inline(always)]
    fn item(&mut self, number: u8, items_of: fn(&[u8]) -> Option<u64>) {
        while let Some((message, rest)) = self.payload(number)
            && items_of(message).is_some()
        {
            self.items += 1;
            self.bytes = rest;
        }
    }

    /// One message that no items came before: of a `oneof`, it would replace them.
    #[inline(always)]
    fn only(&mut self, number: u8, items_of: fn(&[u8]) -> Option<u64>) {
        if self.items == 0
            && let Some((message, rest)) = self.payload(number)
            && let Some(items) = items_of(message)
        {
            self.items += items;
            self.bytes = rest;
        }
    }
}

/// A length of at most four bytes, and what is behind it.
#[inline(always)]
pub(super) fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let low = |byte: u8| usize::from(byte & 0x7f);
    match bytes {
        [a @ 0..0x80, rest @ ..] => Some((low(*a), rest)),
        [a, b @ 0..0x80, rest @ ..] => Some((low(*a) | low(*b) << 7, rest)),
        [a, b, c @ 0..0x80, rest @ ..] => Some((low(*a) | low(*b) << 7 | low(*c) << 14, rest)),
        [a, b, c, d @ 0..0x80, rest @ ..] => {
            Some((low(*a) | low(*b) << 7 | low(*c) << 14 | low(*d) << 21, rest))
        }
        _ => None,
    }
}

/// A `KeyValue` of a key and a value that is no list of pairs.
#[inline]
fn attribute<const DESCENDING: bool>(bytes: &[u8]) -> Option<u64> {
    match short_attribute(bytes) {
        Some(true) => Some(0),
        _ => other_attribute::<DESCENDING>(bytes),
    }
}

/// In a place of its own, so that the usual ones are no more than a leaf.
#[cold]
#[inline(never)]
fn other_attribute<const DESCENDING: bool>(bytes: &[u8]) -> Option<u64> {
    long_attribute::<DESCENDING>(bytes)
}

/// One of less than 128 bytes, with a simple value.
#[inline(always)]
fn short_attribute(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [KEY, key_bytes @ 0..0x80, rest @ ..] => {
            let (key, rest) = rest.split_at_checked(usize::from(*key_bytes))?;
            let [VALUE, value_bytes @ 0..0x80, value @ ..] = rest else { return None };
            Some(usize::from(*value_bytes) == value.len() && pair(bytes, key, value))
        }
        [VALUE, value_bytes @ 0..0x80, rest @ ..] => {
            let (value, rest) = rest.split_at_checked(usize::from(*value_bytes))?;
            let [KEY, key_bytes @ 0..0x80, key @ ..] = rest else { return None };
            Some(usize::from(*key_bytes) == key.len() && pair(bytes, key, value))
        }
        _ => None,
    }
}

#[inline(always)]
fn pair(whole: &[u8], key: &[u8], value: &[u8]) -> bool {
    match value {
        // Tags and lengths are ASCII, too: one look at all of it is less than two at its parts.
        [TEXT, text_bytes, text @ ..] if usize::from(*text_bytes) == text.len() => {
            is_ascii(whole) || are_texts(key, text)
        }
        _ => is_scalar(value) && is_text(key),
    }
}

/// Out of the way of those that are ASCII, which are nearly all.
#[cold]
#[inline(never)]
fn are_texts(key: &[u8], text: &[u8]) -> bool {
    is_text(key) && is_text(text)
}

/// An `AnyValue` of a simple value, an array of such, or none.
fn any_value<const DESCENDING: bool>(bytes: &[u8]) -> Option<u64> {
    match bytes {
        [ARRAY, ..] => {
            let (array, rest) = Rest { bytes, items: 0 }.payload(5)?;
            if rest.is_empty() { simple_values::<DESCENDING>(array) } else { None }
        }
        _ => simple_value(bytes),
    }
}

fn simple_value(bytes: &[u8]) -> Option<u64> {
    let is_plain = match bytes {
        [] => true,
        [TEXT, ..] => {
            let (text, rest) = Rest { bytes, items: 0 }.payload(1)?;
            rest.is_empty() && is_text(text)
        }
        [BYTES, ..] => Rest { bytes, items: 0 }.payload(7)?.1.is_empty(),
        _ => is_scalar(bytes),
    };
    is_plain.then_some(0)
}

/// A boolean, an integer or a double.
#[inline(always)]
fn is_scalar(value: &[u8]) -> bool {
    match value {
        [INT, int @ ..] => is_varint(int),
        [DOUBLE, double @ ..] => double.len() == 8,
        [BOOL, bool @ ..] => matches!(bool, [0..0x80]),
        _ => false,
    }
}

const KEY: u8 = 1 << 3 | LEN;
const VALUE: u8 = 2 << 3 | LEN;
const TEXT: u8 = 1 << 3 | LEN;
const BOOL: u8 = 2 << 3 | VARINT;
const INT: u8 = 3 << 3 | VARINT;
const DOUBLE: u8 = 4 << 3 | I64;
const ARRAY: u8 = 5 << 3 | LEN;
const BYTES: u8 = 7 << 3 | LEN;

/// One varint, and nothing else. Of ten bytes, as negative numbers have, the last holds one bit.
#[inline(always)]
fn is_varint(bytes: &[u8]) -> bool {
    match bytes {
        [0..0x80] | [0x80..=0xff, 0..0x80] => true,
        [before @ .., last] if before.len() <= 9 => {
            let last_max = if before.len() == 9 { 1 } else { 0x7f };
            *last <= last_max && go_on(before)
        }
        _ => false,
    }
}

/// Whether all of two to nine bytes say that their varint goes on: in two looks that may overlap.
#[inline(always)]
fn go_on(bytes: &[u8]) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let all = u32::from_le_bytes(*first) & u32::from_le_bytes(*last);
        return all & MARKS == MARKS && bytes[bytes.len() / 2] >= 0x80;
    }
    bytes.iter().fold(0x80, |all, byte| all & byte) == 0x80
}

/// The bit of each byte that says that more follow.
const MARKS: u32 = u32::from_le_bytes([0x80; 4]);

/// Varints of at most nine bytes each, to the last byte.
fn are_varints(bytes: &[u8]) -> bool {
    let mut in_a_row = 0;
    let mut longest = 0;
    for byte in bytes {
        in_a_row = if *byte < 0x80 { 0 } else { in_a_row + 1 };
        longest = longest.max(in_a_row);
    }
    in_a_row == 0 && longest < 9
}

#[cfg(test)]
mod tests;
