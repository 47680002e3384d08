//! Protobuf to JSON, straight from the wire: nothing is decoded into objects first.
//!
//! JSON wants all values of a field in one place, protobuf allows them anywhere. So a message is
//! looked over once to see which fields it has and where they begin and end, and then once more
//! per field, from its first byte to its last: in what real encoders write, each byte twice.
//!
//! Runs on checked bytes; recursion is bounded by the check's `DEPTH_MAX`.

use std::fmt::Display;
use std::io::Write;
use std::ops::Range;
use std::slice;

use super::base64;
use crate::schema::{self, Field, Kind, LEN, Message};
use crate::signal::Signal;
use crate::wire::{self, Fields, RawField};

pub(super) fn request(signal: Signal, bytes: &[u8], out: &mut Vec<u8>) {
    let mut writer = Writer { bytes, out, has_string_table: signal == Signal::Profiles };
    writer.message(schema::request(signal), slice::from_ref(&(0..bytes.len())));
}

struct Writer<'a> {
    bytes: &'a [u8],
    out: &'a mut Vec<u8>,
    has_string_table: bool,
}

impl Writer<'_> {
    /// `parts`: a singular message that occurs several times on the wire is their concatenation.
    fn message(&mut self, message: &'static Message, parts: &[Range<usize>]) {
        let extents = self.look_over(message, parts);
        self.out.push(b'{');
        let mut is_first = true;
        for (field, extent) in message.fields.iter().zip(&extents) {
            if extent.is_empty() {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(field.json_name());
            self.out.extend_from_slice(b"\":");
            self.field(field, parts, extent);
        }
        self.out.push(b'}');
    }

    /// From where to where each field of the message lies; empty for a field that it does not have.
    /// Of a `oneof`, only the member that came last is had, since it last replaced another.
    fn look_over(
        &self,
        message: &'static Message,
        parts: &[Range<usize>],
    ) -> [Range<usize>; FIELDS] {
        let mut extents = [const { 0..0 }; FIELDS];
        let mut chosen: Option<usize> = None;
        for raw in self.fields(parts) {
            let Some(index) = message.index_of(raw.number) else {
                continue;
            };
            let field = &message.fields[index];
            if matches!(field.kind, Kind::Strindex) && !self.has_string_table {
                continue;
            }
            if field.either
                && chosen != Some(index)
                && let Some(replaced) = chosen.replace(index)
            {
                extents[replaced] = 0..0;
            }
            let extent = &mut extents[index];
            *extent = match Range::is_empty(extent) {
                true => raw.whole,
                false => extent.start..raw.whole.end,
            };
        }
        extents
    }

    fn field(&mut self, field: &'static Field, parts: &[Range<usize>], extent: &Range<usize>) {
        let bytes = self.bytes;
        let mut values = parts
            .iter()
            .map(|part| part.start.max(extent.start)..part.end.min(extent.end))
            .filter(|part| !part.is_empty())
            .flat_map(|part| Fields::new(bytes, part))
            .filter(|raw| raw.number == field.number);
        if field.repeated {
            self.out.push(b'[');
            let start = self.out.len();
            values.for_each(|raw| self.elements(field.kind, raw, start));
            self.out.push(b']');
            return;
        }
        let Some(first) = values.next() else { return };
        let Kind::Message(inner) = field.kind else {
            let last = values.last().unwrap_or(first);
            return self.value(field.kind, last.value);
        };
        match values.next() {
            None => self.message(inner, slice::from_ref(&first.value)),
            Some(second) => {
                let rest = values.map(|raw| raw.value).filter(|part| !part.is_empty());
                let parts: Vec<_> = [first.value, second.value].into_iter().chain(rest).collect();
                self.message(inner, &parts);
            }
        }
    }

    /// One element of a repeated field, or a packed run of them. `start`: where the array begins.
    fn elements(&mut self, kind: Kind, raw: RawField, start: usize) {
        if raw.wire_type != LEN || kind.wire_type() == LEN {
            return self.element(kind, raw.value, start);
        }
        let run = &self.bytes[..raw.value.end];
        let mut at = raw.value.start;
        while at < run.len() {
            let Ok(value) = wire::value(run, &mut at, kind.wire_type()) else {
                return;
            };
            self.element(kind, value, start);
        }
    }

    fn element(&mut self, kind: Kind, value: Range<usize>, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
        self.value(kind, value);
    }

    fn value(&mut self, kind: Kind, value: Range<usize>) {
        let bytes = &self.bytes[value.clone()];
        match kind {
            Kind::Message(inner) => self.message(inner, slice::from_ref(&value)),
            Kind::String => self.string(bytes),
            Kind::Id(_) => self.quoted(|out| hex(bytes, out)),
            Kind::Bytes | Kind::ProfileId => self.quoted(|out| base64::encode(bytes, out)),
            Kind::Bool => self.text(if wire::varint_of(bytes) == 0 { "false" } else { "true" }),
            Kind::Int32 | Kind::Strindex | Kind::Enum(_) => {
                self.plain(wire::varint_of(bytes) as i32)
            }
            Kind::Uint32 => self.plain(wire::varint_of(bytes) as u32),
            Kind::Sint32 => {
                let zigzag = wire::varint_of(bytes) as u32;
                self.plain((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32));
            }
            Kind::Fixed32 => self.plain(u32::from_le_bytes(fixed(bytes))),
            Kind::Int64 => self.quoted_plain(wire::varint_of(bytes) as i64),
            Kind::Uint64 => self.quoted_plain(wire::varint_of(bytes)),
            Kind::Fixed64 => self.quoted_plain(u64::from_le_bytes(fixed(bytes))),
            Kind::Sfixed64 => self.quoted_plain(i64::from_le_bytes(fixed(bytes))),
            Kind::Double => self.double(f64::from_le_bytes(fixed(bytes))),
        }
    }

    fn string(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        serde_json::to_writer(&mut *self.out, &*text).expect("a Vec takes every write");
    }

    fn double(&mut self, value: f64) {
        if value.is_finite() {
            // The shortest text that reads back as the same double.
            let written = serde_json::to_writer(&mut *self.out, &value);
            return written.expect("a Vec takes every write");
        }
        self.text(match value {
            f64::INFINITY => "\"Infinity\"",
            f64::NEG_INFINITY => "\"-Infinity\"",
            _ => "\"NaN\"",
        });
    }

    fn plain(&mut self, number: impl Display) {
        write!(self.out, "{number}").expect("a Vec takes every write");
    }

    fn quoted_plain(&mut self, number: impl Display) {
        write!(self.out, "\"{number}\"").expect("a Vec takes every write");
    }

    fn quoted(&mut self, content: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(b'"');
        content(self.out);
        self.out.push(b'"');
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn fields(&self, parts: &[Range<usize>]) -> impl Iterator<Item = RawField> {
        parts.iter().flat_map(|part| Fields::new(self.bytes, part.clone()))
    }
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(HEX_DIGITS[usize::from(byte >> 4)]);
        out.push(HEX_DIGITS[usize::from(byte & 15)]);
    }
}

/// The bytes of a fixed-width number; checked bytes have the right count.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
/// No message has more fields.
const FIELDS: usize = schema::NUMBER_MAX;
