//! The verdict on a request: every byte of it is OTLP, down to the last nested one, or an error
//! says where it is not.
//!
//! `engine` calls [`check`] once per request, before anything is kept. Only what passed may share a
//! batch with other clients' requests: a strict backend refuses a whole batch for one bad byte.
//! Messages that lie as SDKs and Collectors lay them are passed in straight lines of code
//! (`shapes`, `plain`), some ten times faster than prost decodes them; all else goes through a
//! general walk driven by `schema`, field by field. Nothing is allocated but for an error.
//!
//! Always
//! - What passes, prost decodes, and the counts are those of the decoded message.
//! - Which way a byte is looked at changes no verdict and no count.
//! - Unknown fields pass when they are well-formed, and are left where they are.
//! - Stricter than protobuf on purpose: ids have 16 or 8 bytes or none (as the Collector's pdata),
//!   groups are refused even in unknown fields, messages nest at most [`DEPTH_MAX`] deep.
//!
//! Not here: limits on the size of a request (the receiver), meaning such as "a span has a name".

use std::fmt;

use bytes::Bytes;

use crate::schema::{self, Field, Kind, LEN, Message, Tally};
use crate::signal::{Counts, Signal};
use crate::wire::{self, Malformed};

use plain::{Bets, Plain};

mod plain;
mod shapes;
mod text;

/// How deep messages may nest below the request. Peers stop at 100 (prost, Java, C++), so what
/// passes here passes there.
pub const DEPTH_MAX: usize = 64;

/// Having one means: `bytes` is a valid request of `signal`, to the last nested byte.
#[derive(Clone, Debug)]
pub struct Checked {
    signal: Signal,
    bytes: Bytes,
    counts: Counts,
    warnings: Warnings,
}

impl Checked {
    /// What `edit` wrote: the ranges of a checked request around new ones that it made itself.
    /// That each is a valid request with these counts is held by a property test against `check`.
    pub(crate) fn rewritten(
        signal: Signal,
        bytes: Bytes,
        counts: Counts,
        warnings: Warnings,
    ) -> Self {
        Self { signal, bytes, counts, warnings }
    }

    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// The request exactly as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn warnings(&self) -> Warnings {
        self.warnings
    }
}

/// Things that are legal and still worth a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// `AnyValue.string_value_strindex` or `KeyValue.key_strindex` in a signal that has no string
    /// table (OTLP 1.11: not fatal, treated as absent).
    pub strindex_outside_profiles: bool,
}

/// Checks a whole request. Zero bytes are a valid, empty request.
pub fn check(signal: Signal, bytes: Bytes) -> Result<Checked, WireError> {
    check_or_return(signal, bytes).map_err(|(error, _)| error)
}

/// As [`check`], and whoever is refused gets the bytes back.
pub(crate) fn check_or_return(signal: Signal, bytes: Bytes) -> Result<Checked, (WireError, Bytes)> {
    match verdict(signal, &bytes) {
        Ok((counts, warnings)) => Ok(Checked { signal, bytes, counts, warnings }),
        Err(error) => Err((error, bytes)),
    }
}

/// The same verdict for bytes that nobody wants to keep.
pub(crate) fn verdict(signal: Signal, bytes: &[u8]) -> Result<(Counts, Warnings), WireError> {
    Walk::<true>::verdict(signal, bytes)
}

/// What a request holds if its texts may be any bytes; an error if it has another fault.
pub(crate) fn counts_but_for_utf8(signal: Signal, bytes: &[u8]) -> Result<Counts, WireError> {
    let mut walk = Walk::<true>::new(signal, bytes.len());
    walk.any_bytes_are_text = true;
    walk.request(signal, bytes).map(|()| walk.counts)
}

/// Why a request is not OTLP, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The first byte of the tag, length or value that is wrong.
    pub offset: usize,
    /// The field, from the request inwards: `resource_spans.scope_spans.spans.name`. Empty when
    /// the fault lies between the fields of the request itself.
    pub path: String,
    pub reason: Reason,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "the request" } else { &self.path };
        write!(f, "at byte {}, {}: {}", self.offset, place, self.reason)
    }
}

impl std::error::Error for WireError {}

/// What is wrong at the offset of a [`WireError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The bytes end inside a field.
    Truncated,
    /// A varint of more than ten bytes, or one that does not fit 64 bits.
    VarintTooLong,
    /// A length that reaches past the end of the message around it.
    LengthOverflow,
    /// A known field in another wire type than its own.
    WrongWireType { found: u8, expected: u8 },
    /// Wire type 3 or 4, which OTLP never used.
    GroupWireType,
    /// Wire type 6 or 7, which mean nothing.
    UnknownWireType { found: u8 },
    /// Field number 0.
    FieldZero,
    /// A field number above 29 bits.
    FieldNumberTooLarge,
    /// More than [`DEPTH_MAX`] messages inside one another.
    TooDeep,
    /// A string that is not UTF-8; the offset is that of its first bad byte.
    InvalidUtf8,
    /// A trace, span or profile id of another length than its own or 0.
    WrongIdLength { found: usize, expected: usize },
    /// A packed run of fixed-width numbers that does not end at the end of a number.
    WrongPackedLength { found: usize, width: usize },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Truncated => write!(f, "the bytes end inside this field"),
            Reason::VarintTooLong => write!(f, "a varint is longer than 64 bits"),
            Reason::LengthOverflow => {
                write!(f, "a length reaches past the end of the message around it")
            }
            Reason::WrongWireType { found, expected } => {
                write!(f, "wire type is {found}, this field has {expected}")
            }
            Reason::GroupWireType => write!(f, "groups (wire types 3 and 4) are not OTLP"),
            Reason::UnknownWireType { found } => write!(f, "wire type {found} does not exist"),
            Reason::FieldZero => write!(f, "field number is 0"),
            Reason::FieldNumberTooLarge => write!(f, "field number is above 29 bits"),
            Reason::TooDeep => write!(f, "messages nest deeper than {DEPTH_MAX} levels"),
            Reason::InvalidUtf8 => write!(f, "string is not UTF-8"),
            Reason::WrongIdLength { found, expected } => {
                write!(f, "id has {found} bytes, must have {expected} or none")
            }
            Reason::WrongPackedLength { found, width } => {
                write!(f, "packed numbers of {width} bytes take {found} bytes")
            }
        }
    }
}

impl From<Malformed> for Reason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Reason::Truncated,
            Malformed::VarintTooLong => Reason::VarintTooLong,
            Malformed::LengthOverflow => Reason::LengthOverflow,
            Malformed::FieldZero => Reason::FieldZero,
            Malformed::FieldNumberTooLarge => Reason::FieldNumberTooLarge,
            Malformed::GroupWireType => Reason::GroupWireType,
            Malformed::UnknownWireType(found) => Reason::UnknownWireType { found },
        }
    }
}

/// With `STRIDES` plain fields are strided over (`plain`, `shapes`); without, each is looked at by
/// the general rules alone. The verdict is the same, which a test holds it to.
struct Walk<const STRIDES: bool> {
    has_string_table: bool,
    any_bytes_are_text: bool,
    counts: Counts,
    warnings: Warnings,
    bets: Bets,
}

/// Below this a stride might reach deeper than messages may nest.
const STRIDE_DEPTH_MAX: usize = DEPTH_MAX - 8;

impl<const STRIDES: bool> Walk<STRIDES> {
    fn verdict(signal: Signal, bytes: &[u8]) -> Result<(Counts, Warnings), WireError> {
        let mut walk = Self::new(signal, bytes.len());
        walk.request(signal, bytes).map(|()| (walk.counts, walk.warnings))
    }

    fn new(signal: Signal, request_bytes: usize) -> Self {
        Self {
            has_string_table: signal == Signal::Profiles,
            any_bytes_are_text: false,
            counts: Counts::default(),
            warnings: Warnings::default(),
            bets: Bets::on(request_bytes),
        }
    }

    fn request(&mut self, signal: Signal, bytes: &[u8]) -> Result<(), WireError> {
        self.message(schema::request(signal), bytes, 0, 0).map_err(|fault| fault.told())
    }

    /// Walks the message that lies at `at..` of `bytes`; offsets stay those of the request because
    /// `bytes` always starts where the request does.
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        mut at: usize,
        depth: usize,
    ) -> Result<(), Box<Fault>> {
        match message.tally {
            Tally::Nothing => {}
            Tally::Item => self.counts.items += 1,
            Tally::Profile => self.counts.profiles += 1,
        }
        let mut chosen = Chosen { number: 0, items_before: 0 };
        while at < bytes.len() {
            let plain = match STRIDES && depth <= STRIDE_DEPTH_MAX {
                true => plain::field(message, bytes, at, &mut self.bets),
                false => Plain::No,
            };
            at = match plain {
                Plain::Over { end, items } => {
                    self.counts.items += items;
                    end
                }
                Plain::Message { number, inner, value } => {
                    self.message(inner, &bytes[..value.end], value.start, depth + 1)
                        .map_err(|fault| fault.inside_number(message, number))?;
                    value.end
                }
                Plain::No => self.general(message, &mut chosen, bytes, at, depth)?,
            };
        }
        Ok(())
    }

    /// One field of any kind, known or not, well-formed or not; returns where it ends.
    #[inline(never)]
    fn general(
        &mut self,
        message: &'static Message,
        chosen: &mut Chosen,
        bytes: &[u8],
        mut at: usize,
        depth: usize,
    ) -> Result<usize, Box<Fault>> {
        let start = at;
        let (number, wire_type) =
            wire::tag(bytes, &mut at).map_err(|why| Fault::new(start, why))?;
        let Some(field) = message.field(number) else {
            let start = at;
            wire::value(bytes, &mut at, wire_type).map_err(|why| Fault::new(start, why))?;
            return Ok(at);
        };
        if field.either {
            chosen.replace_with(number, &mut self.counts);
        }
        self.field(field, wire_type, bytes, &mut at, depth).map_err(|fault| fault.inside(field))?;
        Ok(at)
    }

    fn field(
        &mut self,
        field: &'static Field,
        wire_type: u8,
        bytes: &[u8],
        at: &mut usize,
        depth: usize,
    ) -> Result<(), Box<Fault>> {
        let start = *at;
        let expected = field.kind.wire_type();
        if wire_type != expected {
            if wire_type == LEN && field.repeated {
                return packed(expected, bytes, at);
            }
            return Err(Fault::new(start, Reason::WrongWireType { found: wire_type, expected }));
        }
        let value = wire::value(bytes, at, wire_type).map_err(|why| Fault::new(start, why))?;
        match field.kind {
            Kind::Message(inner) if depth < DEPTH_MAX => {
                self.message(inner, &bytes[..value.end], value.start, depth + 1)
            }
            Kind::Message(_) => Err(Fault::new(start, Reason::TooDeep)),
            Kind::String if self.any_bytes_are_text => Ok(()),
            Kind::String => utf8(value.start, &bytes[value]),
            Kind::Id(bytes_count) => id(bytes_count, value.start, value.len()),
            Kind::ProfileId => id(schema::PROFILE_ID_BYTES, value.start, value.len()),
            Kind::Strindex => {
                self.warnings.strindex_outside_profiles |= !self.has_string_table;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The member of a `oneof` that counts so far. A later, different member replaces it, and whatever
/// the earlier one held is no longer part of the message.
struct Chosen {
    number: u32,
    items_before: u64,
}

impl Chosen {
    fn replace_with(&mut self, number: u32, counts: &mut Counts) {
        if self.number == number {
            return;
        }
        if self.number != 0 {
            counts.items = self.items_before;
        }
        *self = Chosen { number, items_before: counts.items };
    }
}

fn packed(wire_type: u8, bytes: &[u8], at: &mut usize) -> Result<(), Box<Fault>> {
    let start = *at;
    let run = wire::payload(bytes, at).map_err(|why| Fault::new(start, why))?;
    let width = match wire_type {
        schema::I64 => 8,
        schema::I32 => 4,
        _ => return packed_varints(&bytes[..run.end], run.start),
    };
    if run.len() % width != 0 {
        let reason = Reason::WrongPackedLength { found: run.len(), width };
        return Err(Fault::new(start, reason));
    }
    Ok(())
}

fn packed_varints(bytes: &[u8], mut at: usize) -> Result<(), Box<Fault>> {
    while at < bytes.len() {
        let start = at;
        wire::varint(bytes, &mut at).map_err(|why| Fault::new(start, why))?;
    }
    Ok(())
}

fn utf8(start: usize, text: &[u8]) -> Result<(), Box<Fault>> {
    if simdutf8::basic::from_utf8(text).is_ok() {
        return Ok(());
    }
    let good = std::str::from_utf8(text).err().map_or(0, |error| error.valid_up_to());
    Err(Fault::new(start + good, Reason::InvalidUtf8))
}

fn id(expected: usize, start: usize, found: usize) -> Result<(), Box<Fault>> {
    if found == expected || found == 0 {
        return Ok(());
    }
    Err(Fault::new(start, Reason::WrongIdLength { found, expected }))
}

/// An error on its way out; each message that it leaves adds the field it came from.
struct Fault {
    offset: usize,
    reason: Reason,
    /// Innermost first.
    names: Vec<&'static str>,
}

impl Fault {
    #[cold]
    fn new(offset: usize, reason: impl Into<Reason>) -> Box<Self> {
        Box::new(Self { offset, reason: reason.into(), names: Vec::new() })
    }

    #[cold]
    fn inside(mut self: Box<Self>, field: &'static Field) -> Box<Self> {
        self.names.push(field.name);
        self
    }

    #[cold]
    fn inside_number(self: Box<Self>, message: &'static Message, number: usize) -> Box<Self> {
        match message.field(number as u32) {
            Some(field) => self.inside(field),
            None => self,
        }
    }

    fn told(mut self) -> WireError {
        self.names.reverse();
        WireError { offset: self.offset, path: self.names.join("."), reason: self.reason }
    }
}

#[cfg(test)]
mod tests;
