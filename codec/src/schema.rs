//! OTLP's messages as tables: field numbers, names and kinds, as of OTLP 1.11, nothing else.
//!
//! `check` and both directions of `json` are driven by these tables, so a field that OTLP adds is
//! one line here. Names are those of the published .proto files; JSON's lowerCamelCase name is
//! made from them at compile time. Nothing here reads or writes a byte.
//!
//! Always
//! - Field numbers of a message are ascending and at most [`NUMBER_MAX`].
//! - A message has at most one `oneof`; its members are those made with `either`.

use crate::signal::Signal;

mod names;
mod tables;

pub use names::Key;
use names::Names;

/// The highest field number in any table; everything above is an unknown field.
pub const NUMBER_MAX: usize = 16;

/// The message that an Export call of this signal carries.
pub fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &tables::EXPORT_TRACE_SERVICE_REQUEST,
        Signal::Metrics => &tables::EXPORT_METRICS_SERVICE_REQUEST,
        Signal::Logs => &tables::EXPORT_LOGS_SERVICE_REQUEST,
        Signal::Profiles => &tables::EXPORT_PROFILES_SERVICE_REQUEST,
    }
}

/// One message type.
#[derive(Debug)]
pub struct Message {
    /// As the .proto file writes it, nested messages with their parent: `Span.Event`.
    pub name: &'static str,
    pub fields: &'static [Field],
    pub tally: Tally,
    pub(crate) shape: Shape,
    /// Field number to index in `fields` plus one; 0 means unknown.
    slots: [u8; NUMBER_MAX + 1],
    steps: [Step; NUMBER_MAX + 1],
    names: Names,
    /// Below [`ROWS`], for what a reader wants to remember of each message. No other message of
    /// the same signal has it.
    pub row: u8,
}

impl Message {
    const fn new(name: &'static str, fields: &'static [Field]) -> Self {
        let mut slots = [0; NUMBER_MAX + 1];
        let mut steps = [Step::UNKNOWN; NUMBER_MAX + 1];
        let mut index = 0;
        while index < fields.len() {
            let number = fields[index].number as usize;
            slots[number] = index as u8 + 1;
            steps[number] = Step::over(&fields[index]);
            index += 1;
        }
        Self {
            name,
            fields,
            tally: Tally::Nothing,
            shape: Shape::Other,
            slots,
            steps,
            names: Names::new(fields),
            row: row(name),
        }
    }

    const fn counted(mut self, tally: Tally) -> Self {
        self.tally = tally;
        self
    }

    const fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// The index in `fields` of the field with this number.
    pub fn index_of(&self, number: u32) -> Option<usize> {
        let slot = *self.slots.get(number as usize)?;
        (slot as usize).checked_sub(1)
    }

    /// The field with this number.
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        self.index_of(number).map(|index| &self.fields[index])
    }

    /// What lies behind a tag of one byte, or of two bytes for the fields 16 to 31.
    #[inline]
    pub(crate) fn step(&self, number: usize) -> Step {
        *self.steps.get(number).unwrap_or(&Step::UNKNOWN)
    }

    /// The field that a JSON key names, as lowerCamelCase or as snake_case.
    pub fn field_named(&self, key: &[u8]) -> Option<&'static Field> {
        self.index_keyed(&Key::of(key)?).map(|index| &self.fields[index])
    }

    /// The index of the field that a key names, as [`Message::field_named`] takes it.
    #[inline]
    pub fn index_keyed(&self, key: &Key) -> Option<usize> {
        let index = self.names.candidate(key)?;
        let field = &self.fields[index];
        (field.json_key.is(key) || field.snake_key.is(key)).then_some(index)
    }
}

/// What one message of this type adds to the counts of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    Nothing,
    /// A span, data point, log record or profile sample.
    Item,
    Profile,
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    pub number: u32,
    /// As the .proto file writes it, snake_case.
    pub name: &'static str,
    pub kind: Kind,
    pub repeated: bool,
    /// A member of the message's `oneof`: of all members on the wire, the last one counts.
    pub either: bool,
    json_key: Key,
    snake_key: Key,
    /// `,"name":` and zeros behind it.
    json: [u8; LABEL_BYTES_MAX],
    /// 0xff for each byte of `"name":`, at the same places as in `json`.
    json_mask: [u8; LABEL_BYTES_MAX],
    json_bytes: u8,
}

impl Field {
    /// The lowerCamelCase name, as proto3's JSON mapping makes it.
    pub fn json_name(&self) -> &[u8] {
        &self.json[2..self.json_bytes as usize + 2]
    }

    /// What stands before a value of this field in JSON, behind another one: `,"name":`. The block
    /// goes on with zeros behind as many bytes.
    #[inline]
    pub fn json_label(&self) -> (&[u8; LABEL_BYTES_MAX], usize) {
        (&self.json, self.json_bytes as usize + 4)
    }

    /// Whether the block holds `"name":` from its second byte on.
    #[inline]
    pub fn is_labelled(&self, block: &[u8; LABEL_BYTES_MAX]) -> bool {
        let words = |bytes: &[u8; LABEL_BYTES_MAX], at: usize| {
            bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes)
        };
        let differing =
            |at| (words(block, at) ^ words(&self.json, at)) & words(&self.json_mask, at);
        differing(0) | differing(8) | differing(16) | differing(24) == 0
    }
}

/// Messages that requests are mostly made of, for which `check` knows how encoders lay them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Other,
    KeyValue,
    Resource,
    Scope,
    Span,
    Event,
    Link,
    Status,
    LogRecord,
    Metric,
    NumberDataPoint,
    HistogramDataPoint,
    ExponentialHistogramDataPoint,
    SummaryDataPoint,
    Exemplar,
}

/// How a walk gets over a field in one stride when it lies as encoders lay it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) wire_type: u8,
    pub(crate) stride: Stride,
}

/// What a stride has to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stride {
    /// Nothing is known: the general walk looks.
    Unknown,
    Varint,
    /// So many bytes, whatever they are.
    Fixed(u8),
    Text,
    Bytes,
    /// So many bytes behind their length, or none.
    Id(u8),
    Message(&'static Message),
}

impl Step {
    const UNKNOWN: Step = Step { wire_type: u8::MAX, stride: Stride::Unknown };

    const fn over(field: &Field) -> Step {
        let stride = match field.kind {
            Kind::String => Stride::Text,
            Kind::Bytes => Stride::Bytes,
            Kind::Id(bytes_count) => Stride::Id(bytes_count as u8),
            Kind::ProfileId => Stride::Id(PROFILE_ID_BYTES as u8),
            // Members of a `oneof` may replace one another, with all the items inside them.
            Kind::Message(_) if field.either => return Step::UNKNOWN,
            Kind::Message(inner) => Stride::Message(inner),
            // Each is a warning outside profiles.
            Kind::Strindex => return Step::UNKNOWN,
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Stride::Fixed(8),
            Kind::Fixed32 => Stride::Fixed(4),
            _ => Stride::Varint,
        };
        Step { wire_type: field.kind.wire_type(), stride }
    }
}

/// What a field holds. Scalars are named as in protobuf.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    String,
    Bytes,
    /// Bytes of this length or none; hex in JSON.
    Id(usize),
    /// 16 bytes or none; base64 in JSON.
    ProfileId,
    Bool,
    Int32,
    /// An `int32` index into the string table that only profiles have.
    Strindex,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// The names that the .proto file gives to its values.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Message),
}

impl Kind {
    /// The wire type of a single value; a packed run of numbers is [`LEN`].
    pub const fn wire_type(self) -> u8 {
        match self {
            Kind::Bool
            | Kind::Int32
            | Kind::Strindex
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64 => VARINT,
            Kind::Sint32 | Kind::Enum(_) => VARINT,
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => I64,
            Kind::Fixed32 => I32,
            Kind::String | Kind::Bytes | Kind::Id(_) | Kind::ProfileId | Kind::Message(_) => LEN,
        }
    }
}

/// Wire types, as the protobuf encoding numbers them. 3 and 4 are the groups that OTLP never used.
pub const VARINT: u8 = 0;
pub const I64: u8 = 1;
pub const LEN: u8 = 2;
pub const I32: u8 = 5;

pub const PROFILE_ID_BYTES: usize = 16;

/// Of a name with what stands around it.
pub const LABEL_BYTES_MAX: usize = 32;

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    let (json, json_mask, json_bytes) = label(name);
    let (_, json_name) = json.split_at(2);
    let json_key = Key::of_name(json_name.split_at(json_bytes as usize).0);
    let snake_key = Key::of_name(name.as_bytes());
    let (repeated, either) = (false, false);
    Field { number, name, kind, repeated, either, json_key, snake_key, json, json_mask, json_bytes }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    let mut field = one(number, name, kind);
    field.repeated = true;
    field
}

const fn either(number: u32, name: &'static str, kind: Kind) -> Field {
    let mut field = one(number, name, kind);
    field.either = true;
    field
}

/// `,"lowerCamelCase":`, the mask of it without the comma, and how many bytes the name alone takes.
const fn label(name: &str) -> ([u8; LABEL_BYTES_MAX], [u8; LABEL_BYTES_MAX], u8) {
    let name = name.as_bytes();
    let mut out = [0; LABEL_BYTES_MAX];
    (out[0], out[1]) = (b',', b'"');
    let (mut from, mut to) = (0, 2);
    while from < name.len() {
        if name[from] == b'_' {
            from += 1;
            out[to] = name[from].to_ascii_uppercase();
        } else {
            out[to] = name[from];
        }
        from += 1;
        to += 1;
    }
    (out[to], out[to + 1]) = (b'"', b':');
    let mut mask = [0; LABEL_BYTES_MAX];
    let mut at = 1;
    while at < to + 2 {
        mask[at] = 0xff;
        at += 1;
    }
    (out, mask, to as u8 - 2)
}

/// The name's hash: FNV-1a, folded, from a start that gives all messages of a signal other ones.
const fn row(name: &str) -> u8 {
    let name = name.as_bytes();
    let mut hash = ROW_HASH_START;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    ((hash >> 16 ^ hash) as usize % ROWS) as u8
}

pub const ROWS: usize = 64;
const ROW_HASH_START: u32 = 22_468;

#[cfg(test)]
mod tests;
