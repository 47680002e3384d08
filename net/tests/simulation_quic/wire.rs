//! The least of HTTP/3 and QPACK that a client needs: it writes literals and static entries, and
//! reads those that answers are made of.

use crate::talk::{Got, Made};

/// A control stream: its kind, empty settings, and a frame and settings that nobody knows.
pub(crate) fn control() -> Vec<u8> {
    let mut out = vec![0x00];
    put_frame(&mut out, 0x04, &[0x21, 0x07, 0x06, 0x60, 0x00]);
    put_frame(&mut out, 0x21, b"grease");
    out
}

/// A request: `pieces` says how long its DATA frames are, the last as long as it takes.
pub(crate) fn request(made: &Made, has_length: bool, pieces: &[usize]) -> Vec<u8> {
    // :method POST, :scheme https, :authority and :path by their names.
    let mut section = vec![0, 0, 0xc0 | 20, 0xc0 | 23, 0x50];
    put_text(&mut section, b"collector.example");
    section.push(0x51);
    put_text(&mut section, made.path.as_bytes());
    if has_length {
        section.push(0x54);
        put_text(&mut section, made.body.len().to_string().as_bytes());
    }
    let mut out = Vec::new();
    put_frame(&mut out, 0x01, &section);
    let mut rest = &made.body[..];
    for piece in pieces {
        let (body, behind) = rest.split_at((*piece).min(rest.len()));
        rest = behind;
        put_frame(&mut out, 0x00, body);
        put_frame(&mut out, 0x40, b"?");
    }
    if !rest.is_empty() {
        put_frame(&mut out, 0x00, rest);
    }
    out
}

/// A whole answer, as its stream carried it.
pub(crate) fn answer(stream: &[u8]) -> Got {
    let mut got = Got::default();
    let mut rest = stream;
    while !rest.is_empty() {
        let kind = number(&mut rest);
        let length = number(&mut rest) as usize;
        let (payload, behind) = rest.split_at(length);
        rest = behind;
        match kind {
            0x00 => got.body.extend_from_slice(payload),
            0x01 => take_section(payload, &mut got),
            _ => panic!("a frame of kind {kind} in an answer"),
        }
    }
    got
}

fn take_section(section: &[u8], got: &mut Got) {
    let mut rest = section.strip_prefix(&[0, 0]).expect("no dynamic table is used");
    while let Some(first) = rest.first().copied() {
        let name = match first {
            0xc0.. => {
                let index = prefixed(&mut rest, 6);
                got.status = match index {
                    25 => 200,
                    27 => 404,
                    28 => 503,
                    67 => 400,
                    71 => 500,
                    _ => panic!("static entry {index} in an answer"),
                };
                continue;
            }
            0x50..0x60 => match prefixed(&mut rest, 4) {
                4 => "content-length".to_owned(),
                24 => ":status".to_owned(),
                44 => "content-type".to_owned(),
                index => panic!("the name of static entry {index} in an answer"),
            },
            0x20..0x28 => text(&mut rest, 3),
            _ => panic!("a field line that begins with {first:#x}"),
        };
        let value = text(&mut rest, 7);
        match &*name {
            ":status" => got.status = value.parse().expect("a number"),
            _ => got.fields.push((name, value)),
        }
    }
}

fn text(rest: &mut &[u8], prefix: u32) -> String {
    let length = prefixed(rest, prefix);
    let (text, behind) = rest.split_at(length);
    *rest = behind;
    String::from_utf8(text.to_vec()).expect("ASCII")
}

fn prefixed(rest: &mut &[u8], prefix: u32) -> usize {
    let full = (1 << prefix) - 1;
    let mut value = usize::from(rest[0]) & full;
    *rest = &rest[1..];
    let mut shift = 0;
    while value >= full {
        let byte = rest[0];
        *rest = &rest[1..];
        value += usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    assert!(text.len() < 127, "short texts have short lengths");
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u64, payload: &[u8]) {
    put_number(out, kind);
    put_number(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

fn put_number(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        _ => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
    }
}

pub(crate) fn number(rest: &mut &[u8]) -> u64 {
    let length = 1 << (rest[0] >> 6);
    let (bytes, behind) = rest.split_at(length);
    *rest = behind;
    bytes[1..].iter().fold(u64::from(bytes[0] & 0x3f), |value, byte| value << 8 | u64::from(*byte))
}
