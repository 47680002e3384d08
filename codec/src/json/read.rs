//! JSON to protobuf in one pass: each value is written as soon as it is read.
//!
//! A message's length stands before its content and is known after it, so one byte is kept free for
//! it and the content moves when that is too little: each byte at most once per level.
//!
//! Always: what is written never shrinks, so the first byte past the bound settles that the whole
//! is too large. Each write looks, long values before they are copied; a tag may stand past it.

use std::borrow::Cow;

use super::token::Tokens;
use super::{Fault, JsonReason, base64, number, print, scan};
use crate::check::DEPTH_MAX;
use crate::schema::{self, Field, Key, Kind, LEN, Message, NUMBER_MAX, ROWS};
use crate::signal::Signal;
use crate::wire;

pub(super) fn request(
    signal: Signal,
    json: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, Box<Fault>> {
    simdutf8::compat::from_utf8(json)
        .map_err(|error| Fault::new(error.valid_up_to(), JsonReason::NotUtf8))?;
    let start = if json.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut reader = Reader {
        tokens: Tokens::new(json, start),
        out: Vec::new(),
        bytes_max,
        followers: [[0; NUMBER_MAX + 1]; ROWS],
    };
    if reader.tokens.peek().is_none() {
        return Err(Fault::new(json.len(), JsonReason::Empty));
    }
    reader.out.reserve(bytes_max.min(json.len() / 2));
    reader.message(schema::request(signal), 0)?;
    match reader.tokens.peek() {
        None => Ok(reader.out),
        Some(_) => Err(Fault::new(reader.tokens.offset(), JsonReason::TrailingBytes)),
    }
}

struct Reader<'a> {
    tokens: Tokens<'a>,
    out: Vec<u8>,
    bytes_max: usize,
    /// For each message, the index of the field whose key came last time behind each of its fields,
    /// and before all of them: what wrote this object in that order most likely does so again.
    followers: [[u8; NUMBER_MAX + 1]; ROWS],
}

impl<'a> Reader<'a> {
    fn message(&mut self, message: &'static Message, depth: usize) -> Result<(), Box<Fault>> {
        self.tokens.expect(b'{', "an object")?;
        if self.tokens.take(b'}') {
            return Ok(());
        }
        let mut from = 0;
        loop {
            match self.key(message, from)? {
                None => self.tokens.skip()?,
                Some(index) => {
                    from = index + 1;
                    let field = &message.fields[index];
                    if !self.tokens.take_literal(b"null") {
                        self.field(field, depth).map_err(|fault| fault.inside(field))?;
                    }
                }
            }
            if !self.tokens.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads a key and its colon. Returns the index of the field that it names.
    #[inline]
    fn key(&mut self, message: &'static Message, from: usize) -> Result<Option<usize>, Box<Fault>> {
        let follower = &mut self.followers[usize::from(message.row)][from];
        let guess = usize::from(*follower);
        if message.fields.get(guess).is_some_and(|field| self.tokens.take_key(field)) {
            return Ok(Some(guess));
        }
        if let Some(index) = self.tokens.plain_key(message) {
            *follower = index as u8;
            return Ok(Some(index));
        }
        let key = self.tokens.key()?;
        Ok(Key::of(&key).and_then(|key| message.index_keyed(&key)))
    }

    fn field(&mut self, field: &'static Field, depth: usize) -> Result<(), Box<Fault>> {
        if !field.repeated {
            return self.single(field, depth);
        }
        self.tokens.expect(b'[', "an array")?;
        if self.tokens.take(b']') {
            return Ok(());
        }
        if field.kind.wire_type() != LEN {
            return self.nested(field.number, |reader| reader.packed(field.kind));
        }
        loop {
            let is_message = matches!(field.kind, Kind::Message(_));
            if is_message && self.tokens.take_literal(b"null") {
                wire::put_bytes(&mut self.out, field.number, &[]);
                self.room_for(0)?;
            } else {
                self.single(field, depth)?;
            }
            if !self.tokens.more(b']')? {
                return Ok(());
            }
        }
    }

    fn packed(&mut self, kind: Kind) -> Result<(), Box<Fault>> {
        loop {
            self.number(kind)?;
            if !self.tokens.more(b']')? {
                return Ok(());
            }
        }
    }

    fn single(&mut self, field: &'static Field, depth: usize) -> Result<(), Box<Fault>> {
        match field.kind {
            Kind::Message(inner) if depth < DEPTH_MAX => {
                self.nested(field.number, |reader| reader.message(inner, depth + 1))
            }
            Kind::Message(_) => Err(Fault::new(self.tokens.offset(), JsonReason::TooDeep)),
            Kind::String => self.string(field.number),
            Kind::Bytes => self.bytes(field.number, None),
            Kind::ProfileId => self.bytes(field.number, Some(schema::PROFILE_ID_BYTES)),
            Kind::Id(bytes_count) => self.id(field.number, bytes_count),
            kind => {
                wire::put_tag(&mut self.out, field.number, kind.wire_type());
                self.number(kind)
            }
        }
    }

    /// Writes what `content` writes as the value of a field of wire type `LEN`.
    fn nested(
        &mut self,
        number: u32,
        content: impl FnOnce(&mut Self) -> Result<(), Box<Fault>>,
    ) -> Result<(), Box<Fault>> {
        wire::put_tag(&mut self.out, number, LEN);
        let length_at = self.out.len();
        self.out.push(0);
        self.room_for(0)?;
        content(self)?;
        let content_bytes = self.out.len() - length_at - 1;
        if content_bytes < 0x80 {
            self.out[length_at] = content_bytes as u8;
            return Ok(());
        }
        self.widen_length(length_at, content_bytes);
        self.room_for(0)
    }

    /// Writes a length of more than one byte where one byte is kept free for it.
    fn widen_length(&mut self, length_at: usize, content_bytes: usize) {
        let end = self.out.len();
        // Also makes room at the end for what moves there.
        wire::put_varint(&mut self.out, content_bytes as u64);
        let mut length = [0; wire::VARINT_BYTES_MAX];
        let length = &mut length[..self.out.len() - end];
        length.copy_from_slice(&self.out[end..]);
        self.out.truncate(end + length.len() - 1);
        self.out.copy_within(length_at + 1..end, length_at + length.len());
        self.out[length_at..length_at + length.len()].copy_from_slice(length);
    }

    fn string(&mut self, number: u32) -> Result<(), Box<Fault>> {
        let Some((rest, bytes)) = self.tokens.plain_string() else {
            let text = self.tokens.string()?;
            self.begin_bytes(number, text.len())?;
            self.out.extend_from_slice(&text);
            return Ok(());
        };
        self.begin_bytes(number, bytes)?;
        print::plain(rest, bytes, &mut self.out);
        Ok(())
    }

    /// Writes what stands before a value of wire type `LEN` and of this many bytes, which then fit.
    fn begin_bytes(&mut self, number: u32, bytes_count: usize) -> Result<(), Box<Fault>> {
        wire::put_tag(&mut self.out, number, LEN);
        wire::put_varint(&mut self.out, bytes_count as u64);
        self.room_for(bytes_count)
    }

    /// Fails if what is written and this many bytes more are past the bound.
    fn room_for(&mut self, more_bytes: usize) -> Result<(), Box<Fault>> {
        if self.out.len().saturating_add(more_bytes) <= self.bytes_max {
            return Ok(());
        }
        let reason = JsonReason::TooLarge { bytes_max: self.bytes_max };
        Err(Fault::new(self.tokens.offset(), reason))
    }

    fn id(&mut self, number: u32, expected: usize) -> Result<(), Box<Fault>> {
        let offset = self.tokens.offset();
        let text = match self.tokens.plain_string() {
            Some((rest, bytes)) => Cow::Borrowed(&rest[..bytes]),
            None => self.tokens.string()?,
        };
        if !text.is_empty() && text.len() != expected * 2 {
            let reason = JsonReason::WrongIdLength { found_digits: text.len(), expected };
            return Err(Fault::new(offset, reason));
        }
        self.begin_bytes(number, text.len() / 2)?;
        // The tables have ids of 8 and 16 bytes, so the digits are whole words.
        for digits in text.as_chunks().0 {
            let bytes =
                scan::hex_word(*digits).ok_or_else(|| Fault::new(offset, JsonReason::NotHex))?;
            self.out.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// `expected`: the length in bytes that it must have if it is not empty.
    fn bytes(&mut self, number: u32, expected: Option<usize>) -> Result<(), Box<Fault>> {
        let offset = self.tokens.offset();
        let text = self.tokens.string()?;
        let bytes_count = base64::decoded_bytes(&text);
        self.begin_bytes(number, bytes_count)?;
        base64::decode(&text, &mut self.out)
            .ok_or_else(|| Fault::new(offset, JsonReason::NotBase64))?;
        match expected {
            Some(expected) if bytes_count != 0 && bytes_count != expected => {
                Err(Fault::new(offset, JsonReason::Expected("base64 of 16 bytes or none")))
            }
            _ => Ok(()),
        }
    }

    /// Writes a number, boolean or enum without its tag.
    fn number(&mut self, kind: Kind) -> Result<(), Box<Fault>> {
        match kind {
            Kind::Bool => self.boolean(),
            Kind::Double => self.double(),
            Kind::Enum(names) => self.enumeration(names),
            Kind::Uint64 => {
                let value = self.integer::<u64>("an unsigned 64-bit integer")?;
                self.varint(value)
            }
            Kind::Int64 => {
                let value = self.integer::<i64>("a 64-bit integer")?;
                self.varint(value as u64)
            }
            Kind::Uint32 => {
                let value = self.integer::<u32>("an unsigned 32-bit integer")?;
                self.varint(value.into())
            }
            Kind::Int32 | Kind::Strindex => {
                let value = self.integer::<i32>("a 32-bit integer")?;
                self.varint(i64::from(value) as u64)
            }
            Kind::Sint32 => {
                let value = self.integer::<i32>("a 32-bit integer")?;
                let zigzag = (value << 1) ^ (value >> 31);
                self.varint((zigzag as u32).into())
            }
            Kind::Fixed32 => {
                let value = self.integer::<u32>("an unsigned 32-bit integer")?;
                self.fixed(&value.to_le_bytes())
            }
            Kind::Fixed64 => {
                let value = self.integer::<u64>("an unsigned 64-bit integer")?;
                self.fixed(&value.to_le_bytes())
            }
            Kind::Sfixed64 => {
                let value = self.integer::<i64>("a 64-bit integer")?;
                self.fixed(&value.to_le_bytes())
            }
            Kind::String | Kind::Bytes | Kind::Id(_) | Kind::ProfileId | Kind::Message(_) => {
                unreachable!("the callers send these elsewhere, and no input changes that")
            }
        }
    }

    fn varint(&mut self, value: u64) -> Result<(), Box<Fault>> {
        wire::put_varint(&mut self.out, value);
        self.room_for(0)
    }

    fn fixed(&mut self, value: &[u8]) -> Result<(), Box<Fault>> {
        self.out.extend_from_slice(value);
        self.room_for(0)
    }

    fn boolean(&mut self) -> Result<(), Box<Fault>> {
        if self.tokens.take_literal(b"true") {
            return self.varint(1);
        }
        if self.tokens.take_literal(b"false") {
            return self.varint(0);
        }
        Err(self.tokens.expected("true or false"))
    }

    fn double(&mut self) -> Result<(), Box<Fault>> {
        if let Some(value) = self.tokens.plain_double() {
            return self.fixed(&value.to_le_bytes());
        }
        let offset = self.tokens.offset();
        let text = self.number_text()?;
        let value = match &*text {
            b"NaN" => f64::NAN,
            b"Infinity" => f64::INFINITY,
            b"-Infinity" => f64::NEG_INFINITY,
            text if number::is_number(text) => number::double(text).ok_or_else(|| {
                Fault::new(offset, JsonReason::OutOfRange { kind: "a 64-bit float" })
            })?,
            _ => return Err(Fault::new(offset, JsonReason::Expected("a number"))),
        };
        self.fixed(&value.to_le_bytes())
    }

    fn enumeration(&mut self, names: &[(&str, i32)]) -> Result<(), Box<Fault>> {
        let offset = self.tokens.offset();
        if self.tokens.peek() == Some(b'"') {
            let name = self.tokens.string()?;
            let named = names.iter().find(|(known, _)| known.as_bytes() == &*name);
            let (_, value) =
                named.ok_or_else(|| Fault::new(offset, JsonReason::UnknownEnumName))?;
            return self.varint(*value as u64);
        }
        let value = self.integer::<i32>("an enum")?;
        self.varint(i64::from(value) as u64)
    }

    #[inline]
    fn integer<T: TryFrom<i128>>(&mut self, kind: &'static str) -> Result<T, Box<Fault>> {
        let offset = self.tokens.offset();
        if let Some((is_negative, digits)) = self.tokens.plain_integer() {
            let value = if is_negative { -i128::from(digits) } else { digits.into() };
            let out_of_range = |_| Fault::new(offset, JsonReason::OutOfRange { kind });
            return T::try_from(value).map_err(out_of_range);
        }
        self.odd_integer(kind)
    }

    /// An integer in any of the forms that JSON has for it, or none at all.
    #[cold]
    fn odd_integer<T: TryFrom<i128>>(&mut self, kind: &'static str) -> Result<T, Box<Fault>> {
        let offset = self.tokens.offset();
        let text = self.number_text()?;
        if !number::is_number(&text) {
            return Err(Fault::new(offset, JsonReason::Expected("an integer")));
        }
        let value = number::integer(&text).and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| Fault::new(offset, JsonReason::OutOfRange { kind }))
    }

    /// A number, or a string that should hold one.
    fn number_text(&mut self) -> Result<Cow<'a, [u8]>, Box<Fault>> {
        match self.tokens.peek() {
            Some(b'"') => self.tokens.string(),
            _ => self.tokens.number().map(Cow::Borrowed),
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
