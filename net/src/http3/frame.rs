//! HTTP/3 frames on one stream (RFC 9114, 7): cut as they come, in whatever pieces; and the numbers
//! that the standard gives to frames, streams, settings and errors.
//!
//! Always
//! - At most a frame's head is kept, 16 bytes: payloads are handed on where they lie.

use crate::fields::Fields;

/// Frames, section 7.2.
pub(super) mod kind {
    pub(in crate::http3) const DATA: u64 = 0x00;
    pub(in crate::http3) const HEADERS: u64 = 0x01;
    pub(in crate::http3) const CANCEL_PUSH: u64 = 0x03;
    pub(in crate::http3) const SETTINGS: u64 = 0x04;
    pub(in crate::http3) const PUSH_PROMISE: u64 = 0x05;
    pub(in crate::http3) const GOAWAY: u64 = 0x07;
    pub(in crate::http3) const MAX_PUSH_ID: u64 = 0x0d;

    /// Section 11.2.1: HTTP/2 has such frames, and HTTP/3 must not.
    pub(in crate::http3) fn is_of_http2(kind: u64) -> bool {
        matches!(kind, 0x02 | 0x06 | 0x08 | 0x09)
    }
}

/// Streams of one direction, section 6.2, and RFC 9204, 4.2.
pub(super) mod stream_kind {
    pub(in crate::http3) const CONTROL: u64 = 0x00;
    pub(in crate::http3) const PUSH: u64 = 0x01;
    pub(in crate::http3) const QPACK_ENCODER: u64 = 0x02;
    pub(in crate::http3) const QPACK_DECODER: u64 = 0x03;
}

/// Section 7.2.4.1, and RFC 9204, 5.
mod setting {
    pub(super) const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
    pub(super) const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
    pub(super) const QPACK_BLOCKED_STREAMS: u64 = 0x07;

    /// Section 11.2.2: HTTP/2 has such settings, and HTTP/3 must not.
    pub(super) fn is_of_http2(id: u64) -> bool {
        matches!(id, 0x00 | 0x02..=0x05)
    }
}

/// Why a stream or a connection ends: section 8.1, and RFC 9204, 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u64);

impl Code {
    pub const NO_ERROR: Code = Code(0x100);
    pub const GENERAL_PROTOCOL_ERROR: Code = Code(0x101);
    pub const STREAM_CREATION_ERROR: Code = Code(0x103);
    pub const CLOSED_CRITICAL_STREAM: Code = Code(0x104);
    pub const FRAME_UNEXPECTED: Code = Code(0x105);
    pub const FRAME_ERROR: Code = Code(0x106);
    pub const EXCESSIVE_LOAD: Code = Code(0x107);
    pub const ID_ERROR: Code = Code(0x108);
    pub const SETTINGS_ERROR: Code = Code(0x109);
    pub const MISSING_SETTINGS: Code = Code(0x10a);
    pub const REQUEST_REJECTED: Code = Code(0x10b);
    pub const REQUEST_CANCELLED: Code = Code(0x10c);
    pub const REQUEST_INCOMPLETE: Code = Code(0x10d);
    pub const MESSAGE_ERROR: Code = Code(0x10e);
    pub const QPACK_DECOMPRESSION_FAILED: Code = Code(0x200);
    pub const QPACK_ENCODER_STREAM_ERROR: Code = Code(0x201);
    pub const QPACK_DECODER_STREAM_ERROR: Code = Code(0x202);
}

/// Two numbers of eight bytes.
const HEAD_BYTES_MAX: usize = 16;

/// Cuts one stream into frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cutter {
    partial: [u8; HEAD_BYTES_MAX],
    partial_bytes: u8,
    /// What is left of the open frame's payload.
    left: Option<u64>,
}

/// What is cut off the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A frame begins. Its payload follows, even if it is empty.
    Begin {
        kind: u64,
        length: u64,
    },
    Payload {
        bytes: &'a [u8],
        ends: bool,
    },
}

impl Cutter {
    /// The next piece, and `input` without it; `None`: more has to come.
    pub(super) fn cut<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let Some(left) = self.left else {
            let (kind, length) = self.cut_head(input)?;
            self.left = Some(length);
            return Some(Piece::Begin { kind, length });
        };
        if left > 0 && input.is_empty() {
            return None;
        }
        let (bytes, behind) = input.split_at(input.len().min(usize::try_from(left).ok()?));
        *input = behind;
        let left = left - bytes.len() as u64;
        self.left = (left > 0).then_some(left);
        Some(Piece::Payload { bytes, ends: left == 0 })
    }

    /// Takes so many bytes of the open frame's payload, if it goes on behind them.
    pub(super) fn pass(&mut self, bytes: usize) -> bool {
        match &mut self.left {
            Some(left) if *left > bytes as u64 => {
                *left -= bytes as u64;
                true
            }
            _ => false,
        }
    }

    /// Whether a frame has begun and is not at its end.
    pub(super) fn is_inside(&self) -> bool {
        self.left.is_some() || self.partial_bytes > 0
    }

    fn cut_head(&mut self, input: &mut &[u8]) -> Option<(u64, u64)> {
        if self.partial_bytes == 0
            && let Some(head) = read_head(input)
        {
            return Some(head);
        }
        while let Some((byte, behind)) = input.split_first() {
            *input = behind;
            self.partial[usize::from(self.partial_bytes)] = *byte;
            self.partial_bytes += 1;
            let mut partial = &self.partial[..usize::from(self.partial_bytes)];
            if let Some(head) = read_head(&mut partial) {
                self.partial_bytes = 0;
                return Some(head);
            }
        }
        None
    }
}

fn read_head(input: &mut &[u8]) -> Option<(u64, u64)> {
    let mut rest = *input;
    let head = (number(&mut rest)?, number(&mut rest)?);
    *input = rest;
    Some(head)
}

/// A number of 62 bits off the front of some bytes (RFC 9000, 16).
pub(super) fn number(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let (bytes, behind) = input.split_at_checked(1 << (first >> 6))?;
    *input = behind;
    let beginning = u64::from(first & 0x3f);
    Some(bytes[1..].iter().fold(beginning, |value, byte| value << 8 | u64::from(*byte)))
}

/// Appends a number, as short as it goes.
pub(super) fn put_number(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => {
            out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes());
        }
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends a HEADERS frame.
pub(super) fn put_headers(out: &mut Vec<u8>, status: Option<http::StatusCode>, fields: &Fields) {
    // The length is written when it is known, in two bytes, which are room for any that we send.
    const LENGTH_BYTES: usize = 2;
    put_number(out, kind::HEADERS);
    let start = out.len() + LENGTH_BYTES;
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    super::qpack::put_section(out, status, fields);
    let length = out.len() - start;
    if length < 0x4000 {
        out[start - LENGTH_BYTES..start].copy_from_slice(&(length as u16 | 0x4000).to_be_bytes());
        return;
    }
    let section = out.split_off(start);
    out.truncate(start - LENGTH_BYTES);
    put_number(out, length as u64);
    out.extend_from_slice(&section);
}

/// What our control stream begins with: its kind, and our settings.
pub(super) fn put_greeting(out: &mut Vec<u8>, section_bytes_max: usize) {
    put_number(out, stream_kind::CONTROL);
    let mut settings = Vec::with_capacity(16);
    for (id, value) in [
        (setting::QPACK_MAX_TABLE_CAPACITY, 0),
        (setting::MAX_FIELD_SECTION_SIZE, section_bytes_max as u64),
        (setting::QPACK_BLOCKED_STREAMS, 0),
    ] {
        put_number(&mut settings, id);
        put_number(&mut settings, value);
    }
    put_number(out, kind::SETTINGS);
    put_number(out, settings.len() as u64);
    out.extend_from_slice(&settings);
}

pub(super) fn put_goaway(out: &mut Vec<u8>, stream: u64) {
    let mut payload = Vec::with_capacity(8);
    put_number(&mut payload, stream);
    put_number(out, kind::GOAWAY);
    put_number(out, payload.len() as u64);
    out.extend_from_slice(&payload);
}

/// What is wrong with the peer's settings: with which code its connection ends, and why.
pub(super) fn check_settings(payload: &[u8]) -> Result<(), (Code, &'static str)> {
    let mut rest = payload;
    let mut seen = [u64::MAX; 16];
    let mut count = 0;
    while !rest.is_empty() {
        let (Some(id), Some(_)) = (number(&mut rest), number(&mut rest)) else {
            return Err((Code::FRAME_ERROR, "a setting is cut off"));
        };
        if setting::is_of_http2(id) {
            return Err((Code::SETTINGS_ERROR, "a setting of HTTP/2"));
        }
        if seen[..count].contains(&id) {
            return Err((Code::SETTINGS_ERROR, "a setting twice"));
        }
        if let Some(place) = seen.get_mut(count) {
            *place = id;
            count += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_was_written_and_never_from_a_part_of_it() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, (1 << 62) - 1] {
            let mut out = Vec::new();
            put_number(&mut out, value);
            for cut in 0..out.len() {
                assert_eq!(number(&mut &out[..cut]), None, "{value} cut to {cut}");
            }
            let mut rest = &out[..];
            assert_eq!((number(&mut rest), rest.len()), (Some(value), 0));
        }
        // RFC 9000, A.1: a number may be longer than it needs to be.
        assert_eq!(number(&mut &[0x40, 0x25][..]), Some(37));
    }

    #[test]
    fn frames_are_the_same_however_their_bytes_are_cut() {
        let mut stream = Vec::new();
        for (kind, payload) in [(1, &b"abc"[..]), (0, b""), (0x4021, b"xyz"), (0, &[7; 200])] {
            put_number(&mut stream, kind);
            put_number(&mut stream, payload.len() as u64);
            stream.extend_from_slice(payload);
        }
        let read = |size: usize| {
            let mut cutter = Cutter::default();
            let mut frames: Vec<(u64, Vec<u8>, bool)> = Vec::new();
            for chunk in stream.chunks(size) {
                let mut rest = chunk;
                while let Some(piece) = cutter.cut(&mut rest) {
                    match (piece, frames.last_mut()) {
                        (Piece::Begin { kind, .. }, _) => frames.push((kind, Vec::new(), false)),
                        (Piece::Payload { bytes, ends }, Some(frame)) => {
                            frame.1.extend_from_slice(bytes);
                            frame.2 = ends;
                        }
                        (Piece::Payload { .. }, None) => panic!("a payload without its frame"),
                    }
                }
                assert!(rest.is_empty());
            }
            assert!(!cutter.is_inside());
            frames
        };
        let whole = read(stream.len());
        assert_eq!(whole.len(), 4);
        assert!(whole.iter().all(|(.., ended)| *ended));
        for size in 1..stream.len() {
            assert_eq!(read(size), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn settings_are_held_to_the_standard() {
        let check = |payload: &[u8]| check_settings(payload).map_err(|(code, _)| code);
        assert_eq!(check(b""), Ok(()));
        assert_eq!(check(&[0x01, 0x40, 0x64, 0x06, 0x10, 0x21, 0x05]), Ok(()));
        assert_eq!(check(&[0x06]), Err(Code::FRAME_ERROR));
        assert_eq!(check(&[0x06, 0x40]), Err(Code::FRAME_ERROR));
        assert_eq!(check(&[0x06, 1, 0x06, 1]), Err(Code::SETTINGS_ERROR));
        for of_http2 in [0, 2, 3, 4, 5] {
            assert_eq!(check(&[of_http2, 0]), Err(Code::SETTINGS_ERROR), "{of_http2}");
        }
    }
}
