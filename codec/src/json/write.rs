//! Protobuf to JSON, straight from the wire: nothing is decoded into objects first.
//!
//! JSON wants all values of a field in one place, protobuf allows them anywhere. What real encoders
//! write has them in one place too, and is written as it comes, in the order of the wire. Where a
//! field comes back after another one, all is written again: each message is looked over once to
//! see where its fields begin and end, and then once more per field, from its first byte to its
//! last. So no request costs more than the two ways together.
//!
//! Runs on checked bytes; recursion is bounded by the check's `DEPTH_MAX`.

use std::ops::Range;
use std::slice;

use super::{base64, print};
use crate::schema::{self, Field, Kind, LEN, Message};
use crate::signal::Signal;
use crate::wire::{self, Fields, RawField};

pub(super) fn request(signal: Signal, bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    // Names and quotes make about this much of what SDKs send.
    out.reserve(bytes.len() * 5 / 2);
    if request_in_wire_order(signal, bytes, out).is_none() {
        out.truncate(start);
        request_by_field(signal, bytes, out);
    }
}

/// `None`, with anything written: some field does not have all its values in one place.
pub(super) fn request_in_wire_order(signal: Signal, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    Writer::new(signal, bytes, out).in_wire_order(schema::request(signal), 0..bytes.len())
}

pub(super) fn request_by_field(signal: Signal, bytes: &[u8], out: &mut Vec<u8>) {
    let whole = 0..bytes.len();
    Writer::new(signal, bytes, out).by_field(schema::request(signal), slice::from_ref(&whole));
}

struct Writer<'a> {
    bytes: &'a [u8],
    out: &'a mut Vec<u8>,
    has_string_table: bool,
}

impl<'a> Writer<'a> {
    fn new(signal: Signal, bytes: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        Self { bytes, out, has_string_table: signal == Signal::Profiles }
    }

    /// `None`, with anything written: a field has values in two places, or a `oneof` two members.
    fn in_wire_order(&mut self, message: &'static Message, range: Range<usize>) -> Option<()> {
        self.out.push(b'{');
        let body = self.out.len();
        // One bit for each field that had its place; the members of the `oneof` share one.
        let mut seen = 0u32;
        let mut array: Option<(usize, usize)> = None;
        let bytes = self.bytes;
        let mut at = range.start;
        while at < range.end {
            let (number, wire_type) = wire::tag(bytes, &mut at).ok()?;
            let value = wire::value(bytes, &mut at, wire_type).ok()?;
            let Some(index) = message.index_of(number) else {
                continue;
            };
            let field = &message.fields[index];
            if matches!(field.kind, Kind::Strindex) && !self.has_string_table {
                continue;
            }
            if let Some((open, start)) = array {
                if open == index {
                    self.elements_in_wire_order(field.kind, wire_type, value, start)?;
                    continue;
                }
                self.out.push(b']');
                array = None;
            }
            let bit = if field.either { 1 << EITHER } else { 1 << index };
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
            self.label(field, body);
            if field.repeated {
                self.out.push(b'[');
                array = Some((index, self.out.len()));
                self.elements_in_wire_order(field.kind, wire_type, value, self.out.len())?;
            } else {
                self.value_in_wire_order(field.kind, value)?;
            }
        }
        if array.is_some() {
            self.out.push(b']');
        }
        self.out.push(b'}');
        Some(())
    }

    #[inline]
    fn elements_in_wire_order(
        &mut self,
        kind: Kind,
        wire_type: u8,
        value: Range<usize>,
        start: usize,
    ) -> Option<()> {
        if !matches!(kind, Kind::Message(_)) {
            self.elements(kind, wire_type, value, start);
            return Some(());
        }
        if self.out.len() > start {
            self.out.push(b',');
        }
        self.value_in_wire_order(kind, value)
    }

    #[inline]
    fn value_in_wire_order(&mut self, kind: Kind, value: Range<usize>) -> Option<()> {
        match kind {
            Kind::Message(inner) => self.in_wire_order(inner, value),
            kind => {
                self.value(kind, value);
                Some(())
            }
        }
    }

    /// The key of a field and what stands around it. `body`: where its object begins.
    #[inline]
    fn label(&mut self, field: &Field, body: usize) {
        let (label, bytes) = field.json_label();
        let comma = usize::from(self.out.len() > body);
        let end = self.out.len() + bytes - 1 + comma;
        match comma {
            0 => self.out.extend_from_slice(&label[1..]),
            _ => self.out.extend_from_slice(label),
        }
        self.out.truncate(end);
    }

    /// `parts`: a singular message that occurs several times on the wire is their concatenation.
    fn by_field(&mut self, message: &'static Message, parts: &[Range<usize>]) {
        let extents = self.look_over(message, parts);
        self.out.push(b'{');
        let body = self.out.len();
        for (field, extent) in message.fields.iter().zip(&extents) {
            if extent.is_empty() {
                continue;
            }
            self.label(field, body);
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
            values.for_each(|raw| self.elements(field.kind, raw.wire_type, raw.value, start));
            self.out.push(b']');
            return;
        }
        let Some(first) = values.next() else { return };
        let Kind::Message(inner) = field.kind else {
            let last = values.last().unwrap_or(first);
            return self.value(field.kind, last.value);
        };
        match values.next() {
            None => self.by_field(inner, slice::from_ref(&first.value)),
            Some(second) => {
                let rest = values.map(|raw| raw.value).filter(|part| !part.is_empty());
                let parts: Vec<_> = [first.value, second.value].into_iter().chain(rest).collect();
                self.by_field(inner, &parts);
            }
        }
    }

    /// One element of a repeated field, or a packed run of them. `start`: where the array begins.
    fn elements(&mut self, kind: Kind, wire_type: u8, value: Range<usize>, start: usize) {
        if wire_type != LEN || kind.wire_type() == LEN {
            return self.element(kind, value, start);
        }
        let run = &self.bytes[..value.end];
        let mut at = value.start;
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
            Kind::Message(inner) => self.by_field(inner, slice::from_ref(&value)),
            Kind::String => self.string(value),
            Kind::Id(_) => self.quoted(|out| print::hex(bytes, out)),
            Kind::Bytes | Kind::ProfileId => self.quoted(|out| base64::encode(bytes, out)),
            Kind::Bool => self.text(if wire::varint_of(bytes) == 0 { "false" } else { "true" }),
            Kind::Int32 | Kind::Strindex | Kind::Enum(_) => {
                self.signed(wire::varint_of(bytes) as i32);
            }
            Kind::Uint32 => self.unsigned(wire::varint_of(bytes) as u32),
            Kind::Sint32 => {
                let zigzag = wire::varint_of(bytes) as u32;
                self.signed((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32));
            }
            Kind::Fixed32 => self.unsigned(u32::from_le_bytes(fixed(bytes))),
            Kind::Int64 => self.quoted(|out| print::signed(wire::varint_of(bytes) as i64, out)),
            Kind::Uint64 => self.quoted(|out| print::unsigned(wire::varint_of(bytes), out)),
            Kind::Fixed64 => {
                self.quoted(|out| print::unsigned(u64::from_le_bytes(fixed(bytes)), out));
            }
            Kind::Sfixed64 => {
                self.quoted(|out| print::signed(i64::from_le_bytes(fixed(bytes)), out));
            }
            Kind::Double => self.double(f64::from_le_bytes(fixed(bytes))),
        }
    }

    #[inline]
    fn string(&mut self, value: Range<usize>) {
        let rest = &self.bytes[value.start..];
        self.quoted(|out| print::string(rest, value.len(), out));
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

    fn signed(&mut self, number: i32) {
        print::signed(number.into(), self.out);
    }

    fn unsigned(&mut self, number: u32) {
        print::unsigned(number.into(), self.out);
    }

    #[inline]
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

/// The bytes of a fixed-width number; checked bytes have the right count.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// No message has more fields.
const FIELDS: usize = schema::NUMBER_MAX;
/// The bit of the `oneof` among those of the fields.
const EITHER: usize = FIELDS;
