//! Attribute values and attribute lookup.

use super::message::{Message, fixed64, text};
use crate::rope::{self, Rope};
use crate::schema::LEN;
use crate::wire;

/// An `AnyValue`.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// No value at all, or (outside profiles) an index into a string table that does not exist.
    Empty,
    String(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Array(Values<'a>),
    Map(Attributes<'a>),
}

impl<'a> Value<'a> {
    fn new(message: Message<'a>) -> Self {
        let Some((number, last, inner)) = message.chosen(|number| number <= 8) else {
            return Value::Empty;
        };
        let bytes = last.slice().unwrap_or_default();
        match number {
            1 => Value::String(text(bytes)),
            2 => Value::Bool(wire::varint_of(bytes) != 0),
            3 => Value::Int(wire::varint_of(bytes) as i64),
            4 => Value::Double(f64::from_bits(fixed64(bytes))),
            5 => Value::Array(Values(inner)),
            6 => Value::Map(Attributes::new(inner, 1)),
            7 => Value::Bytes(bytes),
            _ => Value::Empty,
        }
    }

    /// The bytes that stand for this value where items are told apart by it: of a string or bytes
    /// their own, of a bool `true` or `false`, of an integer its decimal digits, of a double its
    /// eight bytes. None for a value that is empty, a list or a map.
    pub fn key<'b>(&'b self, space: &'b mut KeySpace) -> Option<&'b [u8]> {
        match *self {
            Value::String(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) => Some(bytes),
            Value::Bool(true) => Some(b"true"),
            Value::Bool(false) => Some(b"false"),
            Value::Int(number) => Some(space.decimal(number)),
            Value::Double(number) => {
                space.0[..8].copy_from_slice(&number.to_bits().to_be_bytes());
                Some(&space.0[..8])
            }
            Value::Empty | Value::Array(_) | Value::Map(_) => None,
        }
    }
}

/// Room for the key of a number.
#[derive(Clone, Debug, Default)]
pub struct KeySpace([u8; 20]);

impl KeySpace {
    fn decimal(&mut self, number: i64) -> &[u8] {
        let mut left = number.unsigned_abs();
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            self.0[at] = b'-';
        }
        &self.0[at..]
    }
}

/// The values of an array.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a>(Message<'a>);

impl<'a> Values<'a> {
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        self.0.all(1).map(|value| Value::new(Message::new(value)))
    }
}

/// Keys and values, in wire order.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    message: Message<'a>,
    number: u32,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(message: Message<'a>, number: u32) -> Self {
        Self { message, number }
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.pairs().map(|pair| (pair.text(1), pair.value()))
    }

    /// The value of the first attribute with this key.
    pub fn value(self, key: &str) -> Option<Value<'a>> {
        let key = key.as_bytes();
        match self.message.slice() {
            Some(message) => {
                let mut pairs = rope::values(message, self.number);
                let pair = pairs.find(|pair| has_key(pair, key))?;
                Some(Message::new(Rope::of(pair)).value())
            }
            None => self.pairs().find(|pair| pair.bytes(1) == key).map(Message::value),
        }
    }

    fn pairs(self) -> impl Iterator<Item = Message<'a>> {
        self.message.all(self.number).map(Message::new)
    }
}

impl<'a> Message<'a> {
    /// Of a `KeyValue`.
    fn value(self) -> Value<'a> {
        Value::new(self.inner(2))
    }

    /// The `AnyValue` in this field.
    pub(super) fn any(self, number: u32) -> Value<'a> {
        Value::new(self.inner(number))
    }
}

/// Whether this is the key of a `KeyValue`.
#[inline]
fn has_key(pair: &[u8], key: &[u8]) -> bool {
    match plain_key(pair) {
        Some(own) => own == key,
        None => rope::values(pair, 1).last().unwrap_or_default() == key,
    }
}

/// The key of a `KeyValue` that consists of a key and a value, as encoders write it.
#[inline]
fn plain_key(pair: &[u8]) -> Option<&[u8]> {
    let (&[KEY_TAG, length], rest) = pair.split_first_chunk()? else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(length))?;
    let mut at = 0;
    if length >= 0x80 || wire::tag(rest, &mut at) != Ok((2, LEN)) {
        return None;
    }
    let value = wire::payload(rest, &mut at).ok()?;
    (value.end == rest.len()).then_some(key)
}

const KEY_TAG: u8 = 1 << 3 | LEN;

/// The first attribute with this key in an item that lies here.
pub(crate) fn attribute<'a>(item: Rope<'a>, number: u32, key: &str) -> Option<Value<'a>> {
    Attributes::new(Message::new(item), number).value(key)
}
