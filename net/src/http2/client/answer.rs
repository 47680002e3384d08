//! An answer's head and trailers, put together from their fields (RFC 9113, 8.1 and 8.3.2).

use http::{HeaderMap, StatusCode};

use crate::http2::hpack::field::{Field, Name, Value};

/// A header block as it is read. What is wrong with it is said at its end: a block is read whole.
pub(super) struct Block {
    pub(super) status: Option<StatusCode>,
    pub(super) headers: HeaderMap,
    pub(super) content_length: Option<u64>,
    pub(super) malformed: Option<&'static str>,
    bytes_left: usize,
    /// A header came: no pseudo-header may follow.
    has_headers: bool,
}

impl Block {
    pub(super) fn new(bytes_max: usize) -> Block {
        Block {
            status: None,
            headers: HeaderMap::new(),
            content_length: None,
            malformed: None,
            bytes_left: bytes_max,
            has_headers: false,
        }
    }

    /// Takes the next field, which counts `bytes` of the list.
    pub(super) fn take(&mut self, field: &Field, bytes: usize) {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => self.bytes_left = left,
            None => self.malformed = Some("a header list longer than our settings allow"),
        }
        if self.malformed.is_some() {
            return;
        }
        self.has_headers |= matches!(field.name, Name::Header(_));
        self.malformed = match (&field.name, &field.value) {
            (_, Value::Bad(reason)) => Some(reason),
            (Name::Status, Value::Status(status)) => self.take_status(*status),
            (Name::Header(name), Value::Text(value)) => {
                let kept = self.headers.try_append(name, value.clone());
                kept.is_err().then_some("more headers than anybody can keep")
            }
            (_, Value::Length(length, _)) => {
                let is_second = self.content_length.replace(*length).is_some();
                is_second.then_some("a second content-length")
            }
            _ => None,
        };
    }

    fn take_status(&mut self, status: StatusCode) -> Option<&'static str> {
        match (self.status.replace(status), self.has_headers) {
            (Some(_), _) => Some("a second status"),
            (None, true) => Some("a status behind a header"),
            (None, false) => None,
        }
    }
}
