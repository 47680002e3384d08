//! Walking a request that lies in several parts, as the parts of a chain do.
//!
//! A [`Rope`] is a message that may begin in one part and end in a later one: the request itself, a
//! group, a scope group, a metric or its data. Everything inside those lies in one part. Reading
//! never copies and never allocates; what cannot be read ends the walk, it never panics.
//!
//! Always
//! - A field's value lies inside the message around it.
//! - With one part, a walk costs what [`wire::Fields`](crate::wire::Fields) costs.

use std::ops::Range;

use bytes::Bytes;

use crate::schema::LEN;
use crate::wire;

/// A message, or what is still unread of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rope<'a> {
    /// The first of `parts`, up to the end of the message.
    base: &'a [u8],
    at: usize,
    /// The part that it is in and those behind.
    parts: &'a [Bytes],
    /// How many bytes of it lie in later parts.
    beyond: usize,
}

/// One field of a rope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) wire_type: u8,
    /// Where its tag begins in the part that the value begins in.
    start: usize,
    pub(crate) value: Rope<'a>,
}

impl<'a> Rope<'a> {
    pub(crate) const EMPTY: Rope<'static> = Rope { base: &[], at: 0, parts: &[], beyond: 0 };

    /// The message that these parts are, one after another.
    pub(crate) fn new(parts: &'a [Bytes]) -> Self {
        let base = parts.first().map_or(&[][..], |part| part);
        let beyond = parts.iter().skip(1).map(Bytes::len).sum();
        Self { base, at: 0, parts, beyond }
    }

    /// The message that lies in this range of one part.
    pub(crate) fn within(part: &'a Bytes, range: Range<usize>) -> Self {
        let base = part.get(..range.end).unwrap_or_default();
        let at = range.start.min(base.len());
        Self { base, at, parts: std::slice::from_ref(part), beyond: 0 }
    }

    /// A message that lies in one piece, of which nothing will be shared.
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { base: message, at: 0, parts: &[], beyond: 0 }
    }

    /// How many bytes are unread. Not zero behind the last field: the rest cannot be read.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.base.len() - self.at + self.beyond
    }

    /// The bytes, if they lie in one part.
    #[inline]
    pub(crate) fn slice(&self) -> Option<&'a [u8]> {
        match self.beyond {
            0 => self.base.get(self.at..),
            _ => None,
        }
    }

    /// The fields in wire order, unknown ones too.
    #[inline]
    pub(crate) fn fields(self) -> Fields<'a> {
        Fields(self)
    }

    #[inline]
    pub(crate) fn next_field(&mut self) -> Option<Field<'a>> {
        if self.at >= self.base.len() && !self.next_part() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            *self = Rope { beyond: 1, ..Rope::EMPTY };
        }
        field
    }

    #[inline]
    fn field(&mut self) -> Option<Field<'a>> {
        let start = self.at;
        let (number, wire_type) = wire::tag(self.base, &mut self.at).ok()?;
        if wire_type != LEN {
            let value = wire::value(self.base, &mut self.at, wire_type).ok()?;
            let base = self.base.get(..value.end)?;
            let value = Rope { base, at: value.start, parts: self.parts, beyond: 0 };
            return Some(Field { number, wire_type, start, value });
        }
        let length = usize::try_from(wire::varint(self.base, &mut self.at).ok()?).ok()?;
        let here = self.base.len() - self.at;
        if length <= here {
            let value_at = self.at;
            self.at += length;
            let base = self.base.get(..self.at)?;
            let value = Rope { base, at: value_at, parts: self.parts, beyond: 0 };
            return Some(Field { number, wire_type, start, value });
        }
        let beyond = length - here;
        if beyond > self.beyond {
            return None;
        }
        let value = Rope { beyond, ..*self };
        self.skip(beyond);
        Some(Field { number, wire_type, start, value })
    }

    /// Goes on to the next part that is not empty. False: that was the last.
    #[cold]
    fn next_part(&mut self) -> bool {
        while self.at >= self.base.len() && self.beyond > 0 {
            let Some((_, rest)) = self.parts.split_first() else { return false };
            let Some(first) = rest.first() else { return false };
            let length = first.len().min(self.beyond);
            (self.base, self.at, self.parts) = (&first[..length], 0, rest);
            self.beyond -= length;
        }
        self.at < self.base.len()
    }

    /// Leaves this part, and `bytes` of what follows it.
    #[cold]
    fn skip(&mut self, mut bytes: usize) {
        self.at = self.base.len();
        while bytes > 0 && self.next_part() {
            let taken = bytes.min(self.base.len());
            self.at = taken;
            bytes -= taken;
        }
    }
}

/// The values of a field in a message that lies in one piece, in wire order.
#[inline]
pub(crate) fn values(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&key) = message.get(at) {
            // Most tags are one byte.
            let (own, wire_type) = match key {
                0x08..=0x7f => {
                    at += 1;
                    (u32::from(key >> 3), key & 7)
                }
                _ => wire::tag(message, &mut at).ok()?,
            };
            let value = wire::value(message, &mut at, wire_type).ok()?;
            if own == number {
                return message.get(value);
            }
        }
        None
    })
}

impl<'a> Field<'a> {
    /// The part that it begins in.
    #[inline]
    pub(crate) fn part(&self) -> &'a Bytes {
        static NOTHING: Bytes = Bytes::new();
        self.value.parts.first().unwrap_or(&NOTHING)
    }

    /// Which part that is: a number that falls from part to part.
    #[inline]
    pub(crate) fn parts_left(&self) -> usize {
        self.value.parts.len()
    }

    /// Tag, length and value, if all of it lies in one part.
    #[inline]
    pub(crate) fn whole(&self) -> Option<Range<usize>> {
        (self.value.beyond == 0).then_some(self.start..self.value.base.len())
    }

    /// Tag, length and value, as one piece for each part that it reaches into.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&'a Bytes, Range<usize>)> {
        let first = (self.part(), self.start..self.value.base.len());
        let mut left = self.value.beyond;
        let rest = self.value.parts.iter().skip(1).map_while(move |part| {
            let length = part.len().min(left);
            let is_part = left > 0;
            left -= length;
            is_part.then_some((part, 0..length))
        });
        std::iter::once(first).chain(rest)
    }
}

/// See [`Rope::fields`].
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(Rope<'a>);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        self.0.next_field()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in parts that end anywhere at all has the fields of the message in one, or fewer.
    #[test]
    fn parts_that_end_anywhere_never_panic_and_never_show_a_field_that_is_not_there() {
        let mut inner = Vec::new();
        wire::put_number(&mut inner, 3, 300);
        wire::put_bytes(&mut inner, 2, b"item");
        let mut message = Vec::new();
        wire::put_bytes(&mut message, 1, &inner);
        wire::put_bytes(&mut message, 9, b"behind");
        let all = walked(Rope::new(&[Bytes::from(message.clone())]));
        assert_eq!(all.len(), 4);
        for first in 0..=message.len() {
            for second in first..=message.len() {
                let parts = [&message[..first], &message[first..second], &message[second..]]
                    .map(Bytes::copy_from_slice);
                let walked = walked(Rope::new(&parts));
                assert!(walked.iter().all(|field| all.contains(field)), "{first}, {second}");
            }
        }
    }

    #[test]
    fn a_message_over_several_parts_shows_what_lies_behind_it() {
        let mut item = Vec::new();
        wire::put_bytes(&mut item, 2, b"item");
        let mut head = Vec::new();
        wire::put_tag(&mut head, 1, LEN);
        wire::put_varint(&mut head, 3 * item.len() as u64);
        let mut behind = item.clone();
        wire::put_number(&mut behind, 5, 7);
        let parts = [head, item.clone(), Vec::new(), item, behind].map(Bytes::from);
        let numbers: Vec<u32> =
            walked(Rope::new(&parts)).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2, 2, 2, 5]);
        let group = Rope::new(&parts).next_field().unwrap();
        let pieces: Vec<u8> =
            group.pieces().flat_map(|(part, range)| part.slice(range).to_vec()).collect();
        let whole = parts.concat();
        assert_eq!(pieces, &whole[..whole.len() - 2]);
        assert_eq!((group.whole(), group.value.slice(), group.value.len()), (None, None, 18));
    }

    /// Number and length of every field, those inside field 1 after it.
    fn walked(rope: Rope<'_>) -> Vec<(u32, usize)> {
        let mut all = Vec::new();
        for field in rope.fields() {
            all.push((field.number, field.value.len()));
            if field.number == 1 {
                all.extend(walked(field.value));
            }
        }
        all
    }
}
