//! HTTP/3 as the load speaks it: a request is one piece of bytes, an answer another; no streams
//! and no dynamic table are here, and so no state.
//!
//! Never answers what a peer may ask of an encoder: we give its table no room, so it has to write
//! every field by itself or by a number that everybody knows.
//!
//! Source: RFC 9114, RFC 9204, RFC 9000 section 16.

use forebay_codec::compress::Encoding;

use crate::client::{Heading, path};
use crate::hpack::{integer, string};

const DATA: u64 = 0;
const HEADERS: u64 = 1;
const GOAWAY: u64 = 7;
const CONTROL_STREAM: u64 = 0;
const SETTINGS: u64 = 4;

/// Places in the static table of QPACK.
const AUTHORITY: u8 = 0;
const PATH: u8 = 1;
const CONTENT_LENGTH: u8 = 4;
const METHOD_POST: u8 = 20;
const SCHEME_HTTPS: u8 = 23;
const CONTENT_ENCODING: u8 = 42;
const CONTENT_ENCODING_GZIP: u8 = 43;
const CONTENT_TYPE: u8 = 44;
const USER_AGENT: u8 = 95;
/// Places of `:status`, and what stands there.
const STATUSES: [(usize, u16); 14] = [
    (24, 103),
    (25, 200),
    (26, 304),
    (27, 404),
    (28, 503),
    (63, 100),
    (64, 204),
    (65, 206),
    (66, 302),
    (67, 400),
    (68, 403),
    (69, 421),
    (70, 425),
    (71, 500),
];

/// What a client's control stream begins with, and all that is ever on it: no setting differs from
/// its default.
pub fn control_stream() -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, CONTROL_STREAM);
    put_varint(&mut out, SETTINGS);
    put_varint(&mut out, 0);
    out
}

/// The head that all requests of a load share.
pub struct Head {
    /// The field section, up to the value of `content-length`.
    fields: Vec<u8>,
}

impl Head {
    pub fn new(heading: &Heading) -> Head {
        // No dynamic table: required insert count and base are 0.
        let mut fields = vec![0, 0];
        put_indexed(&mut fields, METHOD_POST);
        put_indexed(&mut fields, SCHEME_HTTPS);
        put_named(&mut fields, AUTHORITY, &heading.authority);
        put_named(&mut fields, PATH, path(heading.transport, heading.signal));
        put_named(&mut fields, CONTENT_TYPE, "application/x-protobuf");
        put_named(&mut fields, USER_AGENT, "forebay-bench");
        match heading.encoding {
            Encoding::Identity => {}
            Encoding::Gzip => put_indexed(&mut fields, CONTENT_ENCODING_GZIP),
            other => put_named(&mut fields, CONTENT_ENCODING, other.http_name()),
        }
        Head { fields }
    }

    /// A whole request with this body: all that goes on its stream.
    pub fn request(&self, body: &[u8]) -> Vec<u8> {
        let length = body.len().to_string();
        let mut out = Vec::with_capacity(self.fields.len() + length.len() + body.len() + 24);
        put_varint(&mut out, HEADERS);
        put_varint(&mut out, (self.fields.len() + 2 + length.len()) as u64);
        out.extend_from_slice(&self.fields);
        put_named(&mut out, CONTENT_LENGTH, &length);
        put_varint(&mut out, DATA);
        put_varint(&mut out, body.len() as u64);
        out.extend_from_slice(body);
        out
    }
}

/// Status and message of a whole answer: all that came on its stream.
pub fn answer(stream: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let mut at = 0;
    let mut status = None;
    let mut message = Vec::new();
    while at < stream.len() {
        let cut = || "an HTTP/3 answer that ends inside a frame".to_owned();
        let kind = varint(stream, &mut at).ok_or_else(cut)?;
        let length = varint(stream, &mut at).ok_or_else(cut)? as usize;
        let payload = stream.get(at..).and_then(|rest| rest.get(..length)).ok_or_else(cut)?;
        at += length;
        match kind {
            // Trailers come after the message, and interim answers before the real one.
            HEADERS if status.is_none_or(|status| status < 200) => {
                status = Some(status_of(payload)?);
            }
            DATA => message.extend_from_slice(payload),
            _ => {}
        }
    }
    let status = status.ok_or("an HTTP/3 answer without a head")?;
    Ok((status, message))
}

/// Whether bytes of a stream that the peer opened say that it takes no more requests. `None`: they
/// say nothing of the kind, and more of them might.
pub fn says_goaway(stream: &[u8]) -> Option<bool> {
    let mut at = 0;
    if varint(stream, &mut at)? != CONTROL_STREAM {
        return Some(false);
    }
    loop {
        let kind = varint(stream, &mut at)?;
        let length = varint(stream, &mut at)? as usize;
        stream.get(at..)?.get(..length)?;
        at += length;
        if kind == GOAWAY {
            return Some(true);
        }
    }
}

/// `:status` of a field section.
fn status_of(section: &[u8]) -> Result<u16, String> {
    let mut at = 0;
    let dynamic = || "an HTTP/3 answer that needs a table we gave no room".to_owned();
    if integer(section, &mut at, 8)? != 0 {
        return Err(dynamic());
    }
    integer(section, &mut at, 7)?;
    let mut status = None;
    while at < section.len() {
        match section[at] {
            0xc0.. => {
                let place = integer(section, &mut at, 6)?;
                let known = STATUSES.iter().find(|(known, _)| *known == place);
                status = known.map(|(_, status)| *status).or(status);
            }
            0x50..0x60 | 0x70..0x80 => {
                let place = integer(section, &mut at, 4)?;
                let value = string(section, &mut at)?;
                if STATUSES.iter().any(|(known, _)| *known == place) {
                    status = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                }
            }
            0x20..0x40 => {
                let name_bytes = integer(section, &mut at, 3)?;
                at += name_bytes;
                string(section, &mut at)?;
            }
            _ => return Err(dynamic()),
        }
    }
    status.ok_or_else(|| "an HTTP/3 answer without a status".to_owned())
}

/// A field that is in the static table as a whole; below 63.
fn put_indexed(section: &mut Vec<u8>, place: u8) {
    section.push(0xc0 | place);
}

/// A field whose name is in the static table, with a value of less than 127 bytes, spelled out.
fn put_named(section: &mut Vec<u8>, place: u8, value: &str) {
    const FULL: u8 = 15;
    if place < FULL {
        section.push(0x50 | place);
    } else {
        section.extend([0x50 | FULL, place - FULL]);
    }
    section.push(value.len() as u8);
    section.extend_from_slice(value.as_bytes());
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    let length = 1 << (first >> 6);
    let raw = bytes.get(*at..)?.get(..length)?;
    *at += length;
    Some(raw[1..].iter().fold(u64::from(first & 0x3f), |all, byte| all << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, kind);
        put_varint(&mut out, payload.len() as u64);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn a_number_of_any_length_is_read_as_it_was_written() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            for cut in 0..bytes.len() {
                assert_eq!(varint(&bytes[..cut], &mut 0), None);
            }
            assert_eq!(varint(&bytes, &mut 0), Some(value));
        }
    }

    #[test]
    fn an_answer_is_its_final_head_and_all_its_data_whatever_stands_between() {
        // 103, then 200 with `content-type` by a name of its own, then greasing, data, trailers.
        let mut section = vec![0, 0, 0xc0 | 25];
        section.extend(b"\x23x-a\x02hi");
        let parts = [
            frame(HEADERS, &[0, 0, 0xc0 | 24]),
            frame(HEADERS, &section),
            frame(0x21, b"grease"),
            frame(DATA, b"ab"),
            frame(DATA, b"c"),
            frame(HEADERS, b"\0\0\x23x-b\x00"),
        ];
        assert_eq!(answer(&parts.concat()), Ok((200, b"abc".to_vec())));
        // 429 stands in no table: spelled out after the name of another status.
        let spelled = frame(HEADERS, b"\0\0\x5f\x09\x03429");
        assert_eq!(answer(&spelled), Ok((429, Vec::new())));
        assert!(answer(&parts.concat()[..6]).is_err(), "cut inside a frame");
        assert!(answer(&frame(HEADERS, b"\x02\0\x80")).is_err(), "a dynamic table");
        assert!(answer(b"").is_err());
    }

    #[test]
    fn goaway_is_seen_behind_settings_and_nothing_else_is_taken_for_it() {
        let control = [control_stream(), frame(GOAWAY, &[0])].concat();
        for cut in 0..control.len() {
            assert_eq!(says_goaway(&control[..cut]), None);
        }
        assert_eq!(says_goaway(&control), Some(true));
        assert_eq!(says_goaway(&[2, 7, 1, 0]), Some(false), "an encoder's stream");
    }
}
