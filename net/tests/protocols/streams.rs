//! HTTP/3 without a transport: streams that are written down, and frames made and read by hand.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_net::http3::{Carrier, Code};
use forebay_net::request::Nanos;

pub(crate) const DATA: u64 = 0;
pub(crate) const HEADERS: u64 = 1;
pub(crate) const CANCEL_PUSH: u64 = 3;
pub(crate) const SETTINGS: u64 = 4;
pub(crate) const PUSH_PROMISE: u64 = 5;
pub(crate) const GOAWAY: u64 = 7;
pub(crate) const MAX_PUSH_ID: u64 = 0xd;

/// Streams that the client opens, in one direction.
pub(crate) const CONTROL: u64 = 2;
pub(crate) const ENCODER: u64 = 6;
pub(crate) const DECODER: u64 = 10;
pub(crate) const OTHER: u64 = 14;

/// `:method POST`, `:scheme https`, `:authority a`, `:path /a`.
pub(crate) const REQUEST: &[u8] = b"\0\0\xd4\xd7\x50\x01a\x51\x02/a";

/// What a connection said to its transport.
pub(crate) struct Lines {
    pub(crate) written: BTreeMap<u64, Vec<u8>>,
    pub(crate) finished: BTreeSet<u64>,
    pub(crate) resets: BTreeMap<u64, Code>,
    pub(crate) stops: BTreeMap<u64, Code>,
    pub(crate) closed: Option<Code>,
    /// How much a stream may still carry, all of them together.
    pub(crate) room: usize,
    /// All that was written has arrived.
    pub(crate) settled: bool,
    opened: u64,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            written: BTreeMap::new(),
            finished: BTreeSet::new(),
            resets: BTreeMap::new(),
            stops: BTreeMap::new(),
            closed: None,
            room: usize::MAX,
            settled: true,
            opened: 0,
        }
    }
}

impl Lines {
    /// The frames that a stream carried so far.
    pub(crate) fn frames(&self, stream: u64) -> Vec<(u64, Vec<u8>)> {
        let mut rest = self.written.get(&stream).map_or(&[][..], |bytes| bytes);
        if stream & 2 != 0 {
            number(&mut rest);
        }
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (kind, length) = (number(&mut rest), number(&mut rest) as usize);
            let (payload, behind) = rest.split_at(length);
            frames.push((kind, payload.to_vec()));
            rest = behind;
        }
        frames
    }

    /// The status of the answer on a stream.
    pub(crate) fn status(&self, stream: u64) -> Option<u16> {
        let (_, section) = self.frames(stream).into_iter().find(|(kind, _)| *kind == HEADERS)?;
        Some(match section[2..] {
            [0xd9, ..] => 200,
            [0xdb, ..] => 404,
            [0xdc, ..] => 503,
            [0xff, behind, ..] => [100, 204, 206, 302, 400, 403, 421, 425, 500][behind as usize],
            // The name by its index, and three digits.
            [0x5f, 9, 3, a, b, c, ..] => {
                [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
            }
            _ => panic!("no status: {}", section.escape_ascii()),
        })
    }

    /// The streams that our GOAWAYs named.
    pub(crate) fn goaways(&self) -> Vec<u64> {
        let frames = self.frames(3).into_iter().filter(|(kind, _)| *kind == GOAWAY);
        frames.map(|(_, payload)| number(&mut &payload[..])).collect()
    }
}

impl Carrier for Lines {
    fn open_uni(&mut self) -> Option<u64> {
        self.opened += 1;
        Some(self.opened * 4 - 1)
    }

    fn write(&mut self, stream: u64, bytes: &mut Bytes) {
        let taken = bytes.split_to(bytes.len().min(self.room));
        self.room -= taken.len();
        assert!(!self.finished.contains(&stream), "{stream} is finished");
        self.written.entry(stream).or_default().extend_from_slice(&taken);
    }

    fn finish(&mut self, stream: u64) {
        assert!(self.finished.insert(stream), "{stream} is finished twice");
    }

    fn reset(&mut self, stream: u64, code: Code) {
        self.resets.entry(stream).or_insert(code);
    }

    fn stop(&mut self, stream: u64, code: Code) {
        self.stops.entry(stream).or_insert(code);
    }

    fn close(&mut self, code: Code, _: &'static str) {
        assert!(self.closed.is_none(), "closed twice");
        self.closed = Some(code);
    }

    fn is_settled(&mut self) -> bool {
        self.settled
    }

    fn round_trip(&self) -> Nanos {
        100
    }
}

pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, kind);
    put_number(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

pub(crate) fn put_number(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

pub(crate) fn number(rest: &mut &[u8]) -> u64 {
    let (bytes, behind) = rest.split_at(1 << (rest[0] >> 6));
    *rest = behind;
    bytes[1..].iter().fold(u64::from(bytes[0] & 0x3f), |value, byte| value << 8 | u64::from(*byte))
}

/// A field section of literals, which may say anything.
pub(crate) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        put_length(&mut out, 0x20, 3, name.len());
        out.extend_from_slice(name.as_bytes());
        put_length(&mut out, 0, 7, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

fn put_length(out: &mut Vec<u8>, pattern: u8, prefix: u32, length: usize) {
    let full = (1 << prefix) - 1;
    if length < full {
        return out.push(pattern | length as u8);
    }
    out.push(pattern | full as u8);
    let mut rest = length - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
