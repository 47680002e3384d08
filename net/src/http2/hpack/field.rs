//! A header field and what it means for a request or for an answer: read once, used as often as
//! it is indexed.
//!
//! Knows which fields make a message malformed by themselves (RFC 9113, 8.2): names that are no
//! tokens or not in lower case, fields of a connection, values that are none. Which fields must or
//! must not come together is for whoever puts a head together.

use std::sync::{Arc, LazyLock};

use http::header::{CONTENT_LENGTH, HOST, TE};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::ENTRY_BYTES;

/// What a block is the head of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Answer,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: Name,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Header(HeaderName),
    /// No name of a field on this side: this many bytes of it.
    None(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Method(Method),
    /// Without its query.
    Path(Arc<str>),
    Status(StatusCode),
    Text(HeaderValue),
    Length(u64, HeaderValue),
    /// Well-formed, and nobody reads it.
    Unread,
    /// Makes its message malformed: why.
    Bad(&'static str),
}

impl Name {
    pub(crate) fn read(side: Side, text: &[u8]) -> Name {
        match (side, text) {
            (Side::Request, b":method") => Name::Method,
            (Side::Request, b":scheme") => Name::Scheme,
            (Side::Request, b":authority") => Name::Authority,
            (Side::Request, b":path") => Name::Path,
            (Side::Answer, b":status") => Name::Status,
            _ => match HeaderName::from_lowercase(text) {
                // The http crate takes a quote for a letter of a token; RFC 9110, 5.6.2, doesn't.
                Ok(name) if !text.contains(&b'"') => Name::Header(name),
                _ => Name::None(text.len()),
            },
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Name::Method | Name::Scheme | Name::Status => 7,
            Name::Authority => 10,
            Name::Path => 5,
            Name::Header(name) => name.as_str().len(),
            Name::None(bytes) => *bytes,
        }
    }
}

impl Field {
    pub(crate) fn read(
        side: Side,
        name: Name,
        value: &[u8],
        reads: &mut dyn FnMut(&HeaderName) -> bool,
    ) -> Field {
        let value = match &name {
            Name::Method => match Method::from_bytes(value) {
                Ok(method) => Value::Method(method),
                Err(_) => Value::Bad("the method is no token"),
            },
            Name::Scheme | Name::Authority => match (&name, HeaderValue::from_bytes(value)) {
                (Name::Authority, Ok(text)) => Value::Text(text),
                (_, Ok(_)) => Value::Unread,
                (_, Err(_)) => Value::Bad("a pseudo-header is no text"),
            },
            Name::Path => path(value),
            Name::Status => match StatusCode::from_bytes(value) {
                Ok(status) => Value::Status(status),
                Err(_) => Value::Bad("the status is no number of three digits"),
            },
            Name::Header(name) => header(side, name, value, reads),
            Name::None(_) => Value::Bad("a header's name is not one, or not in lower case"),
        };
        Field { name, value }
    }
}

fn path(value: &[u8]) -> Value {
    let is_path = value.starts_with(b"/") || value == b"*";
    let is_visible = value.iter().all(|byte| matches!(byte, b'!'..=b'~'));
    match std::str::from_utf8(value) {
        Ok(text) if is_path && is_visible => {
            Value::Path(text.split(['?', '#']).next().unwrap_or(text).into())
        }
        _ => Value::Bad("the path is none"),
    }
}

fn header(
    side: Side,
    name: &HeaderName,
    value: &[u8],
    reads: &mut dyn FnMut(&HeaderName) -> bool,
) -> Value {
    const OF_A_CONNECTION: [&str; 5] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if OF_A_CONNECTION.contains(&name.as_str()) {
        return Value::Bad("a header of the connection");
    }
    // A `grpc-message` may well end with a blank, and what an answer says is passed on to nobody.
    let is_asked = side == Side::Request;
    let is_blank_at_end =
        || value.first().is_some_and(is_blank) || value.last().is_some_and(is_blank);
    if is_asked && is_blank_at_end() {
        return Value::Bad("a header's value begins or ends with a blank");
    }
    if is_asked && name == TE && !value.eq_ignore_ascii_case(b"trailers") {
        return Value::Bad("te is not trailers");
    }
    let Ok(text) = HeaderValue::from_bytes(value) else {
        return Value::Bad("a header's value has control characters");
    };
    if name == CONTENT_LENGTH {
        return match length(value) {
            Some(length) => Value::Length(length, text),
            None => Value::Bad("the content-length is no number"),
        };
    }
    // Whoever reads it or not: it is held against the authority.
    match name == HOST || reads(name) {
        true => Value::Text(text),
        false => Value::Unread,
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Digits and nothing else.
fn length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

pub(crate) const STATIC_ENTRIES: usize = 61;

/// RFC 7541, appendix A.
static STATIC: [(&str, &str); STATIC_ENTRIES] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

static OF_REQUESTS: LazyLock<Vec<(Field, usize)>> = LazyLock::new(|| static_fields(Side::Request));
static OF_ANSWERS: LazyLock<Vec<(Field, usize)>> = LazyLock::new(|| static_fields(Side::Answer));

fn static_fields(side: Side) -> Vec<(Field, usize)> {
    let field = |(name, value): &(&str, &str)| {
        let read = Name::read(side, name.as_bytes());
        let field = Field::read(side, read, value.as_bytes(), &mut |_| true);
        (field, name.len() + value.len() + ENTRY_BYTES)
    };
    STATIC.iter().map(field).collect()
}

/// The entry that has this index in every connection's table; indices begin at 1.
pub(super) fn static_entry(side: Side, index: usize) -> Option<(&'static Field, usize)> {
    let fields = match side {
        Side::Request => &OF_REQUESTS,
        Side::Answer => &OF_ANSWERS,
    };
    let (field, bytes) = fields.get(index.checked_sub(1)?)?;
    Some((field, *bytes))
}

/// The index of this very field, and the first index of its name, in every connection's table.
pub(crate) fn static_index(name: &[u8], value: &[u8]) -> (Option<usize>, Option<usize>) {
    let has_name = |(known, _): &(&str, &str)| known.as_bytes() == name;
    let whole = STATIC.iter().position(|entry| has_name(entry) && entry.1.as_bytes() == value);
    let named = STATIC.iter().position(has_name);
    (whole.map(|at| at + 1), named.map(|at| at + 1))
}
