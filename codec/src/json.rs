//! OTLP/JSON, both ways, driven by the tables of `schema`.
//!
//! In: as lenient as the Collector, so that nobody's client breaks. Besides what the spec demands
//! (OTLP 1.11, "JSON Protobuf Encoding"; the proto3 JSON mapping) it takes snake_case names and the
//! names of enum values. Out: strictly what the spec says.
//!
//! | JSON in | what becomes of it |
//! | --- | --- |
//! | unknown key | skipped, whatever its value |
//! | `null` | unset; in an array of messages, an empty one |
//! | the same key again | as in protobuf: last scalar, merged messages, joined arrays |
//! | ids | hex in any case, of the right length or empty |
//! | integers | numbers or strings, `1.0` and `1e3` too, refused when out of range |
//! | doubles | numbers, numbers in strings, `NaN`, `Infinity`, `-Infinity` |
//! | bytes | base64, standard or URL alphabet, padded or not |
//! | a byte order mark | skipped |
//!
//! Always
//! - What [`json_to_proto`] makes passes `check`.
//! - It makes no more bytes than it may, however few bytes of JSON ask for more: a number of two
//!   characters can become eight bytes.
//! - Messages nest at most [`crate::check::DEPTH_MAX`] deep, values inside unknown keys 128.

use std::fmt;

use crate::check::{self, DEPTH_MAX, WireError};
use crate::schema;
use crate::signal::Signal;

mod base64;
mod number;
mod print;
mod read;
mod scan;
mod token;
mod write;

/// Turns one OTLP/JSON request into protobuf. `json` must be one object; an empty request is `{}`.
///
/// `bytes_max` bounds the protobuf: a request of just as many bytes passes, and one of more ends as
/// [`JsonReason::TooLarge`] where it gets too large, whatever stands behind that place. Until then
/// it takes memory of a few times `bytes_max` for the output, and for one value at a time (a string
/// with escapes, the digits of a number) that of a few times its text. The result may have spare
/// capacity.
pub fn json_to_proto(signal: Signal, json: &[u8], bytes_max: usize) -> Result<Vec<u8>, JsonError> {
    read::request(signal, json, bytes_max).map_err(|fault| JsonError::told(*fault, json))
}

/// Appends the request as one JSON object on one line, without a line feed. Keys have the order
/// that the fields have in the request.
///
/// Unknown fields have no JSON form and are left out; so are string table indices outside profiles
/// (OTLP 1.11: treated as absent). Fails, with `out` as it was, if the bytes do not pass `check`.
pub fn proto_to_json(
    checked_bytes: &[u8],
    signal: Signal,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    check::verdict(signal, checked_bytes)?;
    write::request(signal, checked_bytes, out);
    Ok(())
}

/// Why a text is not OTLP/JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// In bytes from the start of the text.
    pub offset: usize,
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
    /// The keys on the way in: `resourceSpans.scopeSpans.spans.traceId`. Empty at the top.
    pub path: String,
    pub reason: JsonReason,
}

impl JsonError {
    fn told(fault: Fault, json: &[u8]) -> Self {
        let before = &json[..fault.offset.min(json.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let names: Vec<_> = fault.fields.iter().rev().map(|field| field.json_name()).collect();
        Self {
            offset: fault.offset,
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            column: before.len() - line_start + 1,
            path: String::from_utf8_lossy(&names.join(&b'.')).into_owned(),
            reason: fault.reason,
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "the request" } else { &self.path };
        let Self { offset, line, column, reason, .. } = self;
        write!(f, "at byte {offset} (line {line}, column {column}), {place}: {reason}")
    }
}

impl std::error::Error for JsonError {}

/// What is wrong at the offset of a [`JsonError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonReason {
    /// No text at all.
    Empty,
    /// The text ends inside a value.
    Truncated,
    NotUtf8,
    /// Something else stands where this must stand.
    Expected(&'static str),
    /// A string holds a character below U+0020 that is not escaped.
    ControlCharacter,
    /// A backslash with something behind it that JSON does not know.
    UnknownEscape,
    /// Half of a surrogate pair: no character, so not UTF-8 either.
    LoneSurrogate,
    /// A number that its field cannot hold.
    OutOfRange {
        kind: &'static str,
    },
    /// A name that the field's enum does not have.
    UnknownEnumName,
    /// An id of another length than its own or 0, in bytes (two hex digits each).
    WrongIdLength {
        found_digits: usize,
        expected: usize,
    },
    NotHex,
    NotBase64,
    TooDeep,
    /// The request as protobuf takes more bytes than it may; the offset is where that showed.
    TooLarge {
        bytes_max: usize,
    },
    /// Something follows the request's closing brace.
    TrailingBytes,
}

impl fmt::Display for JsonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonReason::Empty => write!(f, "the body is empty; an empty request is {{}}"),
            JsonReason::Truncated => write!(f, "the text ends here, inside a value"),
            JsonReason::NotUtf8 => write!(f, "the text is not UTF-8"),
            JsonReason::Expected(what) => write!(f, "expected {what}"),
            JsonReason::ControlCharacter => write!(f, "control characters must be escaped"),
            JsonReason::UnknownEscape => write!(f, "JSON has no such escape"),
            JsonReason::LoneSurrogate => write!(f, "half of a surrogate pair is no character"),
            JsonReason::OutOfRange { kind } => write!(f, "the number does not fit {kind}"),
            JsonReason::UnknownEnumName => write!(f, "the enum has no value of this name"),
            JsonReason::WrongIdLength { found_digits, expected } => {
                write!(f, "id has {found_digits} hex digits, must have {} or none", expected * 2)
            }
            JsonReason::NotHex => write!(f, "id is not hex"),
            JsonReason::NotBase64 => write!(f, "not base64"),
            JsonReason::TooDeep => write!(
                f,
                "nested too deep; {DEPTH_MAX} messages inside one another are allowed, \
                 and 128 levels in an unknown key"
            ),
            JsonReason::TooLarge { bytes_max } => write!(
                f,
                "from here on the request takes more than the {bytes_max} bytes of protobuf that \
                 are allowed, and none of it was taken; send smaller batches or raise the limit"
            ),
            JsonReason::TrailingBytes => write!(f, "something follows the request"),
        }
    }
}

/// An error on its way out; each message that it leaves adds the field it came from.
struct Fault {
    offset: usize,
    reason: JsonReason,
    /// Innermost first.
    fields: Vec<&'static schema::Field>,
}

impl Fault {
    #[cold]
    fn new(offset: usize, reason: JsonReason) -> Box<Self> {
        Box::new(Self { offset, reason, fields: Vec::new() })
    }

    #[cold]
    fn inside(mut self: Box<Self>, field: &'static schema::Field) -> Box<Self> {
        self.fields.push(field);
        self
    }
}

#[cfg(test)]
mod tests;
