//! Heads of requests, and their header blocks: a destination's heads are always the same few, so
//! their fields go into the peer's table once, and each later head is a few indices.
//!
//! Never evicts: what does not fit into the table is sent as it is, each time; so an entry, once
//! made, stays. Sensitive values enter no table. A peer that makes its table smaller than it is
//! without settings gets no indices from then on.

use std::rc::Rc;

use http::{HeaderMap, Uri};

use crate::http2::hpack::field::{STATIC_ENTRIES, static_index};
use crate::http2::hpack::write::{put_integer, put_text};
use crate::http2::hpack::{ENTRY_BYTES, TABLE_BYTES_MAX};

/// So many heads are remembered as the indices that they are.
const HEADS_MAX: usize = 8;
/// The table is of size 0 from here on.
const TABLE_SIZE_0: u8 = 0x20;

/// A POST's head: made once, sent as often as one likes.
pub struct RequestHead {
    fields: Vec<Field>,
}

#[derive(Clone, PartialEq, Eq)]
struct Field {
    name: Box<[u8]>,
    value: Box<[u8]>,
    is_sensitive: bool,
}

impl RequestHead {
    /// `uri` says the scheme, the authority and the path.
    pub fn post(uri: &Uri, headers: &HeaderMap) -> RequestHead {
        let field = |name: &str, value: &[u8], is_sensitive| Field {
            name: name.as_bytes().into(),
            value: value.into(),
            is_sensitive,
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let pseudo = [
            field(":method", b"POST", false),
            field(":scheme", uri.scheme_str().unwrap_or("http").as_bytes(), false),
            field(":path", path.as_bytes(), false),
            field(":authority", authority.as_bytes(), false),
        ];
        let headers = headers
            .iter()
            .map(|(name, value)| field(name.as_str(), value.as_bytes(), value.is_sensitive()));
        RequestHead { fields: pseudo.into_iter().chain(headers).collect() }
    }
}

/// One connection's encoder.
pub(super) struct Encoder {
    /// What is in the peer's table, the oldest entry first.
    table: Vec<Field>,
    table_bytes: usize,
    table_bytes_max: usize,
    /// The next block must say that the table is not used any more.
    is_cut: bool,
    /// Blocks of which every part that can be an index is one, while the table is `table_entries`
    /// long.
    known: Vec<(Rc<RequestHead>, Vec<u8>)>,
    table_entries: usize,
}

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder {
            table: Vec::new(),
            table_bytes: 0,
            table_bytes_max: TABLE_BYTES_MAX,
            is_cut: false,
            known: Vec::new(),
            table_entries: 0,
        }
    }

    /// The peer's setting.
    pub(super) fn set_table_bytes(&mut self, bytes: u32) {
        if (bytes as usize) < self.table_bytes_max {
            (self.table, self.known) = (Vec::new(), Vec::new());
            (self.table_bytes, self.table_bytes_max) = (0, 0);
            self.is_cut = true;
        }
    }

    /// Appends `head`'s block.
    pub(super) fn encode(&mut self, head: &Rc<RequestHead>, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_cut) {
            out.push(TABLE_SIZE_0);
        }
        if self.table_entries != self.table.len() {
            // With each new entry the indices of the others change.
            self.table_entries = self.table.len();
            self.known.clear();
        }
        if let Some((_, block)) = self.known.iter().find(|(known, _)| Rc::ptr_eq(known, head)) {
            return out.extend_from_slice(block);
        }
        let begin = out.len();
        for field in &head.fields {
            self.put(field, out);
        }
        if self.table_entries == self.table.len() && self.known.len() < HEADS_MAX {
            self.known.push((Rc::clone(head), out[begin..].to_vec()));
        }
    }

    fn put(&mut self, field: &Field, out: &mut Vec<u8>) {
        let (whole, named) = static_index(&field.name, &field.value);
        if let Some(index) = whole.or_else(|| self.index(field)) {
            return put_integer(out, 0x80, 7, index);
        }
        let bytes = field.name.len() + field.value.len() + ENTRY_BYTES;
        let fits = self.table_bytes + bytes <= self.table_bytes_max;
        let (pattern, prefix) = match (field.is_sensitive, fits) {
            (true, _) => (0x10, 4),
            (false, false) => (0x00, 4),
            (false, true) => {
                self.table_bytes += bytes;
                self.table.push(field.clone());
                (0x40, 6)
            }
        };
        put_integer(out, pattern, prefix, named.unwrap_or(0));
        if named.is_none() {
            put_text(out, &field.name);
        }
        put_text(out, &field.value);
    }

    fn index(&self, field: &Field) -> Option<usize> {
        let at = self.table.iter().position(|entry| entry == field)?;
        Some(STATIC_ENTRIES + self.table.len() - at)
    }
}
