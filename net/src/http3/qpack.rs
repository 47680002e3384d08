//! QPACK (RFC 9204) without a dynamic table: we announce a capacity of 0 and no blocked streams, so
//! that a field section is read where it lies, needs no other stream and keeps no state.
//!
//! Always
//! - A reference to a dynamic entry can't be read ([`QpackError`]), and what a peer may still say
//!   on its encoder and decoder streams is next to nothing ([`Instructions`]).
//! - What is wrong with a field's meaning is for whoever puts a head together: a section is read
//!   to its end.

mod table;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::fields::Fields;
use crate::http2::hpack::field::{Field, Name, Side};
use crate::http2::hpack::write::{put_integer, put_text};
use crate::http2::hpack::{ENTRY_BYTES, HpackError, integer, string};

/// Why a field section or an instruction can't be read; the connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QpackError(pub(super) &'static str);

impl From<HpackError> for QpackError {
    fn from(error: HpackError) -> QpackError {
        QpackError(error.0)
    }
}

const DYNAMIC: QpackError = QpackError("a reference to the dynamic table, which has no room");

/// Reads a whole field section of a request. `take` gets each field and the bytes that it counts;
/// `reads` says whether anybody reads a header's value.
pub(super) fn decode(
    section: &[u8],
    reads: &mut dyn FnMut(&HeaderName) -> bool,
    mut take: impl FnMut(&Field, usize),
) -> Result<(), QpackError> {
    let mut rest = section;
    prefix(&mut rest)?;
    while let Some(&first) = rest.first() {
        if first & 0x80 != 0 {
            if first & 0x40 == 0 {
                return Err(DYNAMIC);
            }
            let (field, bytes) = entry(integer(&mut rest, 6)?)?;
            take(field, bytes);
            continue;
        }
        let (name, name_bytes) = if first & 0x40 != 0 {
            if first & 0x10 == 0 {
                return Err(DYNAMIC);
            }
            let (field, _) = entry(integer(&mut rest, 4)?)?;
            (field.name.clone(), field.name.bytes())
        } else if first & 0x20 != 0 {
            let text = string(&mut rest, 3)?;
            (Name::read(Side::Request, &text), text.len())
        } else {
            return Err(DYNAMIC);
        };
        let value = string(&mut rest, 7)?;
        let bytes = name_bytes + value.len() + ENTRY_BYTES;
        take(&Field::read(Side::Request, name, &value, reads), bytes);
    }
    Ok(())
}

/// Section 4.5.1: what a section needs of the dynamic table can only be nothing.
fn prefix(rest: &mut &[u8]) -> Result<(), QpackError> {
    if integer(rest, 8)? != 0 {
        return Err(QpackError("a section that waits for entries of the dynamic table"));
    }
    let is_negative = rest.first().is_some_and(|first| first & 0x80 != 0);
    integer(rest, 7)?;
    match is_negative {
        true => Err(QpackError("a section's base is below 0")),
        false => Ok(()),
    }
}

fn entry(index: usize) -> Result<(&'static Field, usize), QpackError> {
    table::entry(index).ok_or(QpackError("an index beyond the static table"))
}

/// Appends a field section: an answer's header, or its trailers without a status.
pub(super) fn put_section(out: &mut Vec<u8>, status: Option<StatusCode>, fields: &Fields) {
    out.extend_from_slice(&[0, 0]);
    if let Some(status) = status {
        put_status(out, status);
    }
    for (name, value) in fields {
        put_field(out, name, value);
    }
}

fn put_status(out: &mut Vec<u8>, status: StatusCode) {
    const STATUS_NAME: usize = 24;
    let index = match status.as_u16() {
        200 => 25,
        404 => 27,
        503 => 28,
        204 => 64,
        400 => 67,
        403 => 68,
        500 => 71,
        _ => {
            put_integer(out, 0x50, 4, STATUS_NAME);
            return put_text(out, status.as_str().as_bytes());
        }
    };
    put_integer(out, 0xc0, 6, index);
}

fn put_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    const NAMES: [(HeaderName, usize); 3] = [(CONTENT_TYPE, 44), (CONTENT_LENGTH, 4), (DATE, 6)];
    match NAMES.iter().find(|(known, _)| known == name) {
        Some((_, index)) => put_integer(out, 0x50, 4, *index),
        None => {
            put_integer(out, 0x20, 3, name.as_str().len());
            out.extend_from_slice(name.as_str().as_bytes());
        }
    }
    put_text(out, value.as_bytes());
}

/// Who wrote a stream of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Encoder,
    Decoder,
}

/// The peer's encoder or decoder stream, read byte by byte.
///
/// The encoder may set the capacity to 0 and nothing else (RFC 9204, 3.2.3 and 4.3). The decoder
/// may give up a stream (4.4.2); it has no entry to acknowledge or to count (4.4.1, 4.4.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Instructions {
    writer: Writer,
    /// An instruction goes on: so many bytes of it came behind the first.
    behind_first: Option<u8>,
}

impl Instructions {
    /// A number of 62 bits has no more bytes than this behind its first.
    const BYTES_BEHIND_MAX: u8 = 9;

    pub(super) fn new(writer: Writer) -> Instructions {
        Instructions { writer, behind_first: None }
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer
    }

    /// Takes more of the stream. Returns how many instructions began.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<u32, QpackError> {
        let mut begun = 0;
        for byte in bytes {
            self.behind_first = match self.behind_first {
                Some(Self::BYTES_BEHIND_MAX) => {
                    return Err(QpackError("an integer is too large"));
                }
                Some(count) if byte & 0x80 != 0 => Some(count + 1),
                Some(_) => None,
                None => {
                    begun += 1;
                    self.begin(*byte)?
                }
            };
        }
        Ok(begun)
    }

    fn begin(&self, first: u8) -> Result<Option<u8>, QpackError> {
        match (self.writer, first >> 5) {
            (Writer::Encoder, 0b001) if first & 0x1f == 0 => Ok(None),
            (Writer::Encoder, 0b001) => {
                Err(QpackError("the dynamic table is made larger than our settings allow"))
            }
            (Writer::Encoder, _) => Err(QpackError("an entry for a table that has no room")),
            (Writer::Decoder, 0b010 | 0b011) => Ok((first & 0x3f == 0x3f).then_some(0)),
            (Writer::Decoder, _) => Err(QpackError("an entry is acknowledged that never was")),
        }
    }
}

#[cfg(test)]
mod tests;
