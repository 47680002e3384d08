//! HPACK read, beside the examples of its standard and beside what no encoder should write.

use super::*;

type Read = Vec<(String, String)>;

fn text(field: &Field) -> (String, String) {
    let name = match &field.name {
        Name::Method => ":method".to_owned(),
        Name::Scheme => ":scheme".to_owned(),
        Name::Authority => ":authority".to_owned(),
        Name::Path => ":path".to_owned(),
        Name::Status => ":status".to_owned(),
        Name::Header(name) => name.to_string(),
        Name::None(_) => "?".to_owned(),
    };
    let value = match &field.value {
        field::Value::Method(method) => method.to_string(),
        field::Value::Path(path) => path.to_string(),
        field::Value::Status(status) => status.as_str().to_owned(),
        // As the scheme's, it is nobody's business here.
        field::Value::Text(_) if field.name == Name::Authority => "-".to_owned(),
        field::Value::Text(value) | field::Value::Length(_, value) => {
            value.to_str().unwrap().to_owned()
        }
        field::Value::Unread => "-".to_owned(),
        field::Value::Bad(_) => "!".to_owned(),
    };
    (name, value)
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Read, HpackError> {
    let mut fields = Vec::new();
    decoder.decode(block, &mut |_| true, |field, _| fields.push(text(field)))?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// RFC 7541, C.3 and C.4: three requests on one connection, plain and in Huffman's code.
#[test]
fn the_requests_of_the_standard_are_read_and_leave_its_tables() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let pseudo = |scheme: &str, path: &str| {
        [(":method", "GET"), (":scheme", scheme), (":path", path), (":authority", "-")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    // The scheme's value is nobody's business here.
    let mut expected = [pseudo("-", "/"), pseudo("-", "/"), pseudo("-", "/index.html")];
    expected[1].push(("cache-control".to_owned(), "no-cache".to_owned()));
    expected[2].push(("custom-key".to_owned(), "custom-value".to_owned()));
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        let sizes = blocks.iter().zip(&expected).map(|(block, expected)| {
            assert_eq!(read(&mut decoder, &bytes(block)).as_ref(), Ok(expected));
            decoder.table_bytes
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [57, 110, 164]);
    }
}

#[test]
fn the_table_keeps_what_fits_and_forgets_the_oldest() {
    let mut decoder = Decoder::new();
    read(&mut decoder, &bytes("3f45")).unwrap();
    assert_eq!(decoder.table_bytes_max, 100);
    for (name, kept) in [("a", 1), ("b", 2), ("c", 2)] {
        let block = [b"\x40\x01", name.as_bytes(), b"\x0812345678"].concat();
        read(&mut decoder, &block).unwrap();
        assert_eq!(decoder.table.len(), kept);
    }
    let value = || "12345678".to_owned();
    assert_eq!(
        read(&mut decoder, b"\xbe\xbf"),
        Ok(vec![("c".to_owned(), value()), ("b".to_owned(), value())])
    );
    // An entry that is larger than the table empties it, and is read all the same.
    let long = [&b"\x40\x01d\x46"[..], &[b'x'; 70]].concat();
    assert_eq!(read(&mut decoder, &long).unwrap().len(), 1);
    assert_eq!((decoder.table.len(), decoder.table_bytes), (0, 0));
}

#[test]
fn a_block_that_breaks_the_rules_is_an_error() {
    let bad: [&[u8]; 12] = [
        b"\x80",
        b"\xbe",
        b"\xff\x80\x80\x80\x80\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x40\x01",
        b"\x40\x05abc",
        b"\x00\x01a\x81\x1e",
        b"\x82\x20",
        b"\x3f\xe2\x1f",
        b"\x7f",
        b"\x40",
        b"\x0f\x7f\x00",
    ];
    for block in bad {
        assert!(read(&mut Decoder::new(), block).is_err(), "{block:x?}");
    }
    assert!(read(&mut Decoder::new(), b"\x3f\xe1\x1f\x20\x82").is_ok(), "two resizes in front");
}

#[test]
fn a_field_that_makes_its_request_malformed_says_so_wherever_it_comes_from() {
    let bad: [&[u8]; 11] = [
        b"\x40\x01A\x01b",
        b"\x40\x01\"\x01b",
        b"\x40\x00\x01b",
        b"\x40\x0aconnection\x01b",
        b"\x40\x02te\x04gzip",
        b"\x40\x07:status\x03200",
        b"\x40\x09:protocol\x01x",
        b"\x44\x00",
        b"\x44\x01a",
        b"\x5c\x02+1",
        b"\x40\x01a\x02\x0d\x0a",
    ];
    for block in bad {
        let mut decoder = Decoder::new();
        assert_eq!(read(&mut decoder, block).unwrap()[0].1, "!", "{block:x?}");
        assert_eq!(read(&mut decoder, b"\xbe").unwrap()[0].1, "!", "{block:x?}, by its index");
    }
}

#[test]
fn a_path_outside_the_table_is_read_right_when_it_repeats_and_when_it_changes() {
    let mut decoder = Decoder::new();
    for path in ["/a", "/a", "/ab", "/a", "/", "/a"] {
        let length = path.len() as u8;
        let block = [&[0x82, 0x04, length], path.as_bytes(), &[0x86]].concat();
        let expected = [(":method", "GET"), (":path", path), (":scheme", "-")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read(&mut decoder, &block), Ok(expected.to_vec()));
    }
}
