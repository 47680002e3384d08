//! QPACK, the reading side, beside a plain reading of RFC 9204 that keeps to no table, with the
//! Huffman decoder of another project: what can't be read ends the connection, and what can is the
//! same request as the same fields are over HTTP/2.

use forebay_net::http2::Http2;
use forebay_net::http3::{Code, Http3};
use forebay_net::request::{Core, Standing};
use loona_hpack::huffman::HuffmanDecoder;

use crate::porch::{HEADER_BYTES_MAX, Porch, Told};
use crate::streams::{HEADERS, Lines, frame};

/// A block of HTTP/2 that needs no CONTINUATION.
const BLOCK_BYTES_MAX: usize = 16_000;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// An input is a field section.
///
/// # Panics
/// If it is misread.
pub fn check(input: &[u8]) {
    let section = &input[..input.len().min(HEADER_BYTES_MAX)];
    let fields = read(section);
    let (told, closed, was_reset) = over_http3(section);
    let Some(fields) = fields else {
        return assert_eq!(closed, Some(Code::QPACK_DECOMPRESSION_FAILED));
    };
    assert_eq!(closed, None, "{fields:?}");
    let block = hpack(&fields);
    // RFC 9114, 4.3.1, asks for a name of the server, and RFC 9113 does not.
    let is_name = |(name, _): &&(Vec<u8>, Vec<u8>)| *name == b":authority" || *name == b"host";
    let mut names = fields.iter().filter(is_name).map(|(_, value)| value);
    let is_named = names.clone().next().is_some() && !names.any(|name| name.is_empty());
    if block.len() > BLOCK_BYTES_MAX || !is_named {
        return;
    }
    let (expected, expects_reset) = over_http2(&block);
    assert_eq!(told, expected, "{fields:?}");
    assert_eq!(was_reset, expects_reset, "{fields:?}");
}

fn over_http3(section: &[u8]) -> (Vec<Told>, Option<Code>, bool) {
    let (mut porch, mut lines) = (Porch::open(), Lines::default());
    let mut http3 = Http3::new(&porch.limits, 0, &mut lines);
    http3.handle_opened(0, &mut porch.turn(), &mut lines);
    http3.handle_bytes(0, &frame(HEADERS, section), true, &mut porch.turn(), &mut lines);
    let told = porch.requests.drain(..).map(|request| Told { stream: 0, ..request.into() });
    (told.collect(), lines.closed, lines.resets.contains_key(&0))
}

fn over_http2(block: &[u8]) -> (Vec<Told>, bool) {
    let mut porch = Porch::open();
    let mut http2 = Http2::new(&porch.limits, 0);
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = &(payload.len() as u32).to_be_bytes()[1..];
        [length, &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat();
    http2.handle_input(&opening, &mut porch.turn());
    http2.take_output();
    http2.handle_input(&frame(1, 5, 1, block), &mut porch.turn());
    assert_eq!(http2.standing(), Standing::Open, "literals can be read");
    let output = http2.take_output();
    let told = porch.requests.drain(..).map(|request| Told { stream: 0, ..request.into() });
    (told.collect(), output.get(3) == Some(&3))
}

/// Literals that no table keeps.
fn hpack(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            match text.len() {
                0..0x7f => out.push(text.len() as u8),
                length => {
                    out.push(0x7f);
                    let mut rest = length - 0x7f;
                    while rest >= 0x80 {
                        out.push(rest as u8 | 0x80);
                        rest >>= 7;
                    }
                    out.push(rest as u8);
                }
            }
            out.extend_from_slice(text);
        }
    }
    out
}

/// A section, field by field, bit by bit; `None`: it can't be read.
fn read(section: &[u8]) -> Option<Fields> {
    let mut rest = section;
    let required = number(&mut rest, 8)?;
    let sign = *rest.first()? >> 7;
    number(&mut rest, 7)?;
    if required != 0 || sign != 0 {
        return None;
    }
    let mut fields = Fields::new();
    while let Some(first) = rest.first().copied() {
        let bits = format!("{first:08b}");
        let field = if bits.starts_with("11") {
            entry(number(&mut rest, 6)?)?
        } else if bits.starts_with("01") && bits.as_bytes()[3] == b'1' {
            let (name, _) = entry(number(&mut rest, 4)?)?;
            (name, text(&mut rest, 7)?)
        } else if bits.starts_with("001") {
            (text(&mut rest, 3)?, text(&mut rest, 7)?)
        } else {
            return None;
        };
        fields.push(field);
    }
    Some(fields)
}

fn text(rest: &mut &[u8], prefix: u32) -> Option<Vec<u8>> {
    let is_coded = rest.first()? >> prefix & 1 == 1;
    let length = number(rest, prefix)?;
    let (text, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = behind;
    match is_coded {
        true => HuffmanDecoder::new().decode(text).ok(),
        false => Some(text.to_vec()),
    }
}

/// As large as ours are: four bytes behind the first.
fn number(rest: &mut &[u8], prefix: u32) -> Option<u64> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    let full = (1 << prefix) - 1;
    let mut value = u64::from(*first) & full;
    if value < full {
        return Some(value);
    }
    for place in 0..4 {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value += u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The static table, out of the text of our own.
fn entry(index: u64) -> Option<(Vec<u8>, Vec<u8>)> {
    const TEXT: &str = include_str!("../../net/src/http3/qpack/table.rs");
    let mut entries = TEXT.lines().filter_map(|line| line.strip_prefix("    (\""));
    let entry = entries.nth(usize::try_from(index).ok()?)?;
    let (name, value) = entry.strip_suffix("\"),")?.split_once("\", \"")?;
    Some((name.into(), value.into()))
}

/// Sections to begin with.
pub fn seeds() -> [(&'static str, &'static [u8]); 6] {
    [
        ("usual", b"\0\0\xd4\xd7\x50\x01a\x51\x0a/v1/traces\x5f\x1d\x03a/b\x54\x015"),
        ("literals", b"\0\0\x27\0:method\x04POST\x27\0:scheme\x01h\x25:path\x01/\x24host\x01a"),
        ("huffman", b"\0\0\xd1\xd7\xc1\x50\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
        ("dynamic", b"\0\0\x80"),
        ("prefix", b"\x02\x80\xd1"),
        ("beyond", b"\0\0\xd1\xff\x24"),
    ]
}
