//! HPACK, the reading side, beside the decoder of another project, block by block: the same fields,
//! of the same length in the table, and what is wrong with a field is what RFC 9113 says.
//!
//! The decoder is no part of what the crate shows, so its file is compiled in here.

use loona_hpack::decoder::DecoderError;

/// An input is blocks, each behind a byte that says how long it is.
///
/// # Panics
/// If the two differ.
pub fn check(input: &[u8]) {
    let mut ours = http2::Ours::new();
    let mut theirs = loona_hpack::Decoder::new();
    theirs.set_max_allowed_table_size(http2::TABLE_BYTES);
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        let (mine, other) = (ours.read(block), theirs.decode(block));
        match (mine, other) {
            (Ok(mine), Ok(other)) => agree(&mine, &other),
            (Err(_), Err(_)) => return,
            // A block may be nothing but resizes: RFC 7541, 4.2, forbids them behind a field only.
            (Ok(_), Err(DecoderError::SizeUpdateAtEnd)) => return,
            // It lets them stand there.
            (Err("the table is resized after a field"), Ok(_)) => return,
            (mine, other) => panic!("{mine:?}, but {other:?} in {}", block.escape_ascii()),
        }
    }
}

/// A field as our decoder gave it: its name if it is one, its value unless that says nothing to
/// anybody, and how much it counts.
#[derive(Debug)]
struct Read {
    name: Option<String>,
    value: Value,
    bytes: usize,
}

#[derive(Debug, PartialEq)]
enum Value {
    Text(Vec<u8>),
    Unread,
    Bad,
}

fn agree(ours: &[Read], theirs: &[(Vec<u8>, Vec<u8>)]) {
    assert_eq!(ours.len(), theirs.len(), "{ours:?}, but {theirs:?}");
    for (ours, (name, value)) in ours.iter().zip(theirs) {
        assert_eq!(ours.bytes, name.len() + value.len() + 32, "{ours:?}");
        let expected = meaning(name, value);
        assert_eq!(ours.value, expected, "{} {}", name.escape_ascii(), value.escape_ascii());
        if let Some(ours) = &ours.name {
            assert_eq!(ours.as_bytes(), name);
        } else {
            assert_eq!(expected, Value::Bad, "{} is a name", name.escape_ascii());
        }
    }
}

/// What RFC 9113, 8.2 and 8.3, makes of a request's field.
fn meaning(name: &[u8], value: &[u8]) -> Value {
    let is_text = |value: &[u8]| value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 128..));
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let when = |is_right: bool, value: &[u8]| match is_right {
        true => Value::Text(value.to_vec()),
        false => Value::Bad,
    };
    match name {
        b":method" => when(!value.is_empty() && value.iter().all(is_token), value),
        b":path" => {
            let is_path = value.first() == Some(&b'/') || value == b"*";
            let end = value.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(value.len());
            when(is_path && value.iter().all(u8::is_ascii_graphic), &value[..end])
        }
        b":scheme" if is_text(value) => Value::Unread,
        b":authority" => when(is_text(value), value),
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Value::Bad
        }
        b"te" => when(value.eq_ignore_ascii_case(b"trailers"), value),
        b"content-length" => {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            when(number.is_some() && value[0] != b'+', value)
        }
        _ => {
            let is_name = |byte: &u8| is_token(byte) && !byte.is_ascii_uppercase();
            let has_name = !name.is_empty() && name.iter().all(is_name);
            let has_blanks = is_blank(value.first()) || is_blank(value.last());
            when(has_name && is_text(value) && !has_blanks, value)
        }
    }
}

/// RFC 9110, 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[path = "../../net/src/http2"]
mod http2 {
    #[allow(dead_code, reason = "the crate uses all of it")]
    mod hpack;

    use self::hpack::Decoder;
    use self::hpack::field::{Field, Name, Value};
    use super::{Read, Value as Seen};

    pub(super) const TABLE_BYTES: usize = hpack::TABLE_BYTES_MAX;

    pub(super) struct Ours(Decoder);

    impl Ours {
        pub(super) fn new() -> Ours {
            Ours(Decoder::new())
        }

        pub(super) fn read(&mut self, block: &[u8]) -> Result<Vec<Read>, &'static str> {
            let mut fields = Vec::new();
            let take = |field: &Field, bytes| fields.push(seen(field, bytes));
            self.0.decode(block, &mut |_| true, take).map_err(|error| error.0)?;
            Ok(fields)
        }
    }

    fn seen(field: &Field, bytes: usize) -> Read {
        let name = match &field.name {
            Name::Method => Some(":method".to_owned()),
            Name::Scheme => Some(":scheme".to_owned()),
            Name::Authority => Some(":authority".to_owned()),
            Name::Path => Some(":path".to_owned()),
            Name::Status => Some(":status".to_owned()),
            Name::Header(name) => Some(name.to_string()),
            Name::None(_) => None,
        };
        let value = match &field.value {
            Value::Method(method) => Seen::Text(method.as_str().into()),
            Value::Path(path) => Seen::Text(path.as_bytes().into()),
            Value::Status(status) => Seen::Text(status.as_str().into()),
            Value::Text(text) | Value::Length(_, text) => Seen::Text(text.as_bytes().into()),
            Value::Unread => Seen::Unread,
            Value::Bad(_) => Seen::Bad,
        };
        Read { name, value, bytes }
    }
}

/// Blocks to begin with.
pub fn seeds() -> [(&'static str, &'static [u8]); 6] {
    [
        // A table for two, and two that fill it to the last byte.
        ("full", b"\x0c\x3f\x25\x40\x01a\x01b\x40\x01c\x01d\x02\xbe\xbf"),
        ("indices", b"\x05\x83\x86\x04\x01/\x02\x82\x84"),
        ("table", b"\x12\x40\x01a\x01b\x44\x02/a\x41\x01h\x5c\x015\xc0\x04\xbe\xbf\xc0\xc1"),
        (
            "huffman",
            b"\x11\x82\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff\xbe\x01\xbe",
        ),
        ("sizes", b"\x07\x3f\x45\x40\x01a\x01b\x02\x20\x82\x06\x20\x3f\xe1\x1f\x82\xbe"),
        ("wrong", b"\x05\x40\x01A\x01b\x01\xbe\x07\x00\x02te\x01x\x87\x05\x10\x01c\x01\0"),
    ]
}
