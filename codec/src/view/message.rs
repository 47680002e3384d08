//! One message as protobuf means it, even when it came in several parts.
//!
//! A singular message may be given more than once; its fields are then those of all parts, in
//! order. Where that happens (no encoder does it), a [`Message`] is a path to the parts instead of
//! the one range, and every walk goes through all of them.

use crate::rope::{self, Field, Rope};
use crate::schema::LEN;
use crate::wire;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    root: Rope<'a>,
    /// Field numbers from `root` down to the parts; 0: no further. Two steps are all that OTLP
    /// needs: below a repeated field, a root begins anew.
    path: [u32; 2],
    /// How many of the parts do not count: a later member of the `oneof` replaced them.
    skip: u32,
}

/// The highest field number of a `oneof` member that is looked for.
const MEMBER_MAX: usize = 15;

impl<'a> Message<'a> {
    pub(crate) const EMPTY: Message<'static> = Message::new(Rope::EMPTY);

    pub(crate) const fn new(root: Rope<'a>) -> Self {
        Self { root, path: [0; 2], skip: 0 }
    }

    #[inline]
    pub(crate) fn fields(self) -> Fields<'a> {
        match self.path {
            [0, _] => Fields::One(self.root),
            [number, 0] => Fields::Parts(Parts {
                inner: Rope::EMPTY,
                middle: self.root,
                outer: Rope::EMPTY,
                numbers: [0, number],
                skip: self.skip,
            }),
            numbers => Fields::Parts(Parts {
                inner: Rope::EMPTY,
                middle: Rope::EMPTY,
                outer: self.root,
                numbers,
                skip: self.skip,
            }),
        }
    }

    /// The messages of a repeated field.
    pub(crate) fn all(self, number: u32) -> impl Iterator<Item = Rope<'a>> + Clone {
        self.fields().filter(move |field| field.number == number).map(|field| field.value)
    }

    /// A singular message; empty if it is not there.
    pub(crate) fn inner(self, number: u32) -> Message<'a> {
        let mut parts = self.all(number);
        let Some(first) = parts.next() else { return Message::EMPTY };
        match parts.next() {
            None => Message::new(first),
            Some(_) => self.parts(number, 0),
        }
    }

    fn parts(self, number: u32, skip: u32) -> Message<'a> {
        let path = match self.path {
            [0, _] => [number, 0],
            [first, _] => [first, number],
        };
        Message { root: self.root, path, skip }
    }

    /// The member of a `oneof` that counts, with its last value and, as a message, all its parts.
    pub(crate) fn chosen(
        self,
        is_member: impl Fn(u32) -> bool,
    ) -> Option<(u32, Rope<'a>, Message<'a>)> {
        let mut fields = self.fields();
        if let Some(only) = fields.next()
            && is_member(only.number)
            && fields.next().is_none()
        {
            return Some((only.number, only.value, Message::new(only.value)));
        }
        let mut seen = [0; MEMBER_MAX + 1];
        let mut chosen: Option<(Field<'a>, u32)> = None;
        for field in self.fields().filter(|field| is_member(field.number)) {
            let count = seen.get_mut(field.number as usize)?;
            let before = match chosen {
                Some((last, before)) if last.number == field.number => before,
                _ => *count,
            };
            *count += 1;
            chosen = Some((field, before));
        }
        let (last, skip) = chosen?;
        let message = match seen[last.number as usize] - skip {
            1 => Message::new(last.value),
            _ => self.parts(last.number, skip),
        };
        Some((last.number, last.value, message))
    }

    /// The value of a scalar field: the last one on the wire.
    pub(crate) fn last(self, number: u32) -> Option<&'a [u8]> {
        if let Some(message) = self.slice() {
            return rope::values(message, number).last();
        }
        let mut last = None;
        for field in self.fields().filter(|field| field.number == number) {
            last = field.value.slice();
        }
        last
    }

    /// The bytes, if it lies in one part and was given once.
    pub(super) fn slice(self) -> Option<&'a [u8]> {
        match self.path {
            [0, _] => self.root.slice(),
            _ => None,
        }
    }

    pub(crate) fn bytes(self, number: u32) -> &'a [u8] {
        self.last(number).unwrap_or_default()
    }

    pub(crate) fn text(self, number: u32) -> &'a str {
        text(self.bytes(number))
    }

    pub(crate) fn varint(self, number: u32) -> u64 {
        self.last(number).map_or(0, wire::varint_of)
    }

    pub(crate) fn fixed64(self, number: u32) -> u64 {
        self.last(number).map_or(0, fixed64)
    }
}

/// Empty if it is no UTF-8, which checked bytes always are.
pub(super) fn text(bytes: &[u8]) -> &str {
    simdutf8::basic::from_utf8(bytes).unwrap_or_default()
}

pub(super) fn fixed64(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// The fields of all parts, in wire order.
#[derive(Clone, Debug)]
pub(crate) enum Fields<'a> {
    One(Rope<'a>),
    Parts(Parts<'a>),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        match self {
            Fields::One(message) => message.next_field(),
            Fields::Parts(parts) => parts.next_field(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Parts<'a> {
    /// The part that is being read.
    inner: Rope<'a>,
    /// What holds the parts.
    middle: Rope<'a>,
    /// What holds those in turn, if `numbers` has two steps.
    outer: Rope<'a>,
    numbers: [u32; 2],
    skip: u32,
}

impl<'a> Parts<'a> {
    #[cold]
    fn next_field(&mut self) -> Option<Field<'a>> {
        loop {
            if let Some(field) = self.inner.next_field() {
                return Some(field);
            }
            self.inner = self.next_part()?;
        }
    }

    fn next_part(&mut self) -> Option<Rope<'a>> {
        loop {
            if let Some(part) = part(&mut self.middle, self.numbers[1]) {
                if self.skip == 0 {
                    return Some(part);
                }
                self.skip -= 1;
            } else if self.numbers[0] == 0 {
                return None;
            } else {
                self.middle = part(&mut self.outer, self.numbers[0])?;
            }
        }
    }
}

fn part<'a>(message: &mut Rope<'a>, number: u32) -> Option<Rope<'a>> {
    let is_part = |field: &rope::Field<'_>| field.number == number && field.wire_type == LEN;
    std::iter::from_fn(|| message.next_field()).find(is_part).map(|field| field.value)
}
