//! HPACK (RFC 7541), the reading side: a header block in, fields whose meaning is known out.
//!
//! A field is taken apart once, when it comes as a literal; the dynamic table keeps what it means,
//! so that a request made of indices costs no text. Values that nobody reads are not kept at all.
//!
//! Always
//! - The table holds at most [`TABLE_BYTES_MAX`], as HPACK counts, and is empty until the peer
//!   fills it.
//! - A block is read to its end, whatever its fields mean, so that both sides' tables agree.

pub(crate) mod field;
mod huffman;
pub(crate) mod write;

use std::borrow::Cow;
use std::collections::VecDeque;

use http::HeaderName;

use self::field::{Field, Name, Side};

/// The dynamic table that either side may use: the size that holds without any setting.
pub(super) const TABLE_BYTES_MAX: usize = 4096;
/// A longer path is not remembered.
const LAST_PATH_BYTES_MAX: usize = 256;
/// What an entry counts beyond its text (RFC 7541, 4.1).
pub(crate) const ENTRY_BYTES: usize = 32;

/// Why a block can't be read; the connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HpackError(pub(crate) &'static str);

pub(super) struct Decoder {
    side: Side,
    /// The newest entry is the first.
    table: VecDeque<Entry>,
    table_bytes: usize,
    /// As the peer's encoder last said.
    table_bytes_max: usize,
    /// The last path that came outside the table, as it was written: some clients never index it,
    /// and always say the same.
    last_path: Option<Box<LastPath>>,
}

struct LastPath {
    written: Box<[u8]>,
    entry: Entry,
}

struct Entry {
    field: Field,
    bytes: usize,
}

impl Decoder {
    /// Reads what clients send.
    pub(super) fn new() -> Decoder {
        Decoder::of(Side::Request)
    }

    pub(super) fn of(side: Side) -> Decoder {
        Decoder {
            side,
            table: VecDeque::new(),
            table_bytes: 0,
            table_bytes_max: TABLE_BYTES_MAX,
            last_path: None,
        }
    }

    /// Reads a whole block. `take` gets each field and the bytes that it counts; `reads` says
    /// whether anybody reads a header's value.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        reads: &mut dyn FnMut(&HeaderName) -> bool,
        mut take: impl FnMut(&Field, usize),
    ) -> Result<(), HpackError> {
        let mut rest = block;
        let mut may_resize = true;
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                let (field, bytes) = self.entry(index)?;
                take(field, bytes);
            } else if first & 0x40 != 0 {
                let (field, bytes) = self.literal(&mut rest, 6, reads)?;
                take(&field, bytes);
                self.insert(field, bytes);
            } else if first & 0x20 != 0 {
                self.resize(integer(&mut rest, 5)?, may_resize)?;
                continue;
            } else if let Some(entry) = self.repeated_path(&mut rest) {
                take(&entry.field, entry.bytes);
            } else {
                let before = rest;
                let (field, bytes) = self.literal(&mut rest, 4, reads)?;
                take(&field, bytes);
                self.remember_path(&before[..before.len() - rest.len()], field, bytes);
            }
            may_resize = false;
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&Field, usize), HpackError> {
        if let Some(found) = field::static_entry(self.side, index) {
            return Ok(found);
        }
        let found = index.checked_sub(field::STATIC_ENTRIES + 1).and_then(|at| self.table.get(at));
        let entry = found.ok_or(HpackError("an index beyond the table"))?;
        Ok((&entry.field, entry.bytes))
    }

    fn literal(
        &self,
        rest: &mut &[u8],
        prefix: u32,
        reads: &mut dyn FnMut(&HeaderName) -> bool,
    ) -> Result<(Field, usize), HpackError> {
        let (name, name_bytes) = match integer(rest, prefix)? {
            0 => {
                let text = string(rest, 7)?;
                (Name::read(self.side, &text), text.len())
            }
            index => {
                let (field, _) = self.entry(index)?;
                (field.name.clone(), field.name.bytes())
            }
        };
        let value = string(rest, 7)?;
        let bytes = name_bytes + value.len() + ENTRY_BYTES;
        Ok((Field::read(self.side, name, &value, reads), bytes))
    }

    fn repeated_path(&self, rest: &mut &[u8]) -> Option<&Entry> {
        let last = self.last_path.as_deref()?;
        *rest = rest.strip_prefix(&*last.written)?;
        Some(&last.entry)
    }

    fn remember_path(&mut self, written: &[u8], field: Field, bytes: usize) {
        // By an index that `:path` has in every table.
        let is_path = matches!(written, [0x04 | 0x05 | 0x14 | 0x15, ..]);
        if is_path && written.len() <= LAST_PATH_BYTES_MAX {
            let entry = Entry { field, bytes };
            self.last_path = Some(Box::new(LastPath { written: written.into(), entry }));
        }
    }

    fn insert(&mut self, field: Field, bytes: usize) {
        self.evict(bytes);
        if bytes <= self.table_bytes_max {
            self.table_bytes += bytes;
            self.table.push_front(Entry { field, bytes });
        }
    }

    fn resize(&mut self, bytes_max: usize, may_resize: bool) -> Result<(), HpackError> {
        if !may_resize {
            return Err(HpackError("the table is resized after a field"));
        }
        if bytes_max > TABLE_BYTES_MAX {
            return Err(HpackError("the table is made larger than our settings allow"));
        }
        self.table_bytes_max = bytes_max;
        self.evict(0);
        Ok(())
    }

    /// Makes room for `bytes`, as far as there is any.
    fn evict(&mut self, bytes: usize) {
        while self.table_bytes + bytes > self.table_bytes_max
            && let Some(oldest) = self.table.pop_back()
        {
            self.table_bytes -= oldest.bytes;
        }
    }
}

/// An integer whose first byte has `prefix` bits of it (RFC 7541, 5.1).
pub(crate) fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    const CUT_OFF: HpackError = HpackError("an integer is cut off");
    let (first, mut tail) = rest.split_first().ok_or(CUT_OFF)?;
    let full = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & full;
    if value == full {
        let mut shift = 0;
        loop {
            let (byte, behind) = tail.split_first().ok_or(CUT_OFF)?;
            tail = behind;
            // Four more bytes say more than any length or index here can be.
            if shift > 21 {
                return Err(HpackError("an integer is too large"));
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = tail;
    Ok(value)
}

/// A text behind its length, of which the first byte has `prefix` bits, and above them one that
/// says whether it is Huffman-coded (RFC 7541, 5.2).
pub(crate) fn string<'a>(rest: &mut &'a [u8], prefix: u32) -> Result<Cow<'a, [u8]>, HpackError> {
    let is_coded = rest.first().is_some_and(|first| first & (1 << prefix) != 0);
    let length = integer(rest, prefix)?;
    let (text, behind) =
        rest.split_at_checked(length).ok_or(HpackError("a string is longer than its block"))?;
    *rest = behind;
    if !is_coded {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::new();
    huffman::decode(text, &mut decoded)?;
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests;
