//! QPACK, both sides: what is written is read, by the standard's own example and by chance.

use http::{HeaderName, HeaderValue, StatusCode};

use super::table::STATIC;
use super::*;
use crate::http2::hpack::field::Value;

/// Fields as names and values; what is no field of a request says why.
fn read(section: &[u8]) -> Result<Vec<(String, String)>, QpackError> {
    let mut fields = Vec::new();
    decode(section, &mut |_| true, |field, bytes| {
        let name = match &field.name {
            Name::Method => ":method",
            Name::Scheme => ":scheme",
            Name::Authority => ":authority",
            Name::Path => ":path",
            Name::Status => ":status",
            Name::Header(name) => name.as_str(),
            Name::None(_) => "",
        };
        let value = match &field.value {
            Value::Method(method) => method.to_string(),
            Value::Path(path) => path.to_string(),
            Value::Text(text) | Value::Length(_, text) => {
                assert_eq!(bytes, name.len() + text.len() + ENTRY_BYTES);
                String::from_utf8_lossy(text.as_bytes()).into_owned()
            }
            Value::Status(status) => status.to_string(),
            Value::Unread => String::new(),
            Value::Bad(reason) => format!("bad: {reason}"),
        };
        fields.push((name.to_owned(), value));
    })?;
    Ok(fields)
}

#[test]
fn the_standards_example_is_read() {
    // RFC 9204, B.1: a path by the name of a static entry.
    let section = b"\0\0\x51\x0b/index.html";
    assert_eq!(read(section), Ok(vec![(":path".to_owned(), "/index.html".to_owned())]));
}

#[test]
fn every_static_entry_is_read_by_its_index_and_by_its_name() {
    for (index, (name, value)) in STATIC.iter().enumerate() {
        let mut whole = vec![0, 0];
        put_integer(&mut whole, 0xc0, 6, index);
        let fields = read(&whole).expect("a static entry");
        if *name == ":status" {
            assert_eq!(fields[0].0, "", "no field of a request");
            continue;
        }
        let expected = if *name == ":scheme" { "" } else { value };
        assert_eq!(fields, [((*name).to_owned(), expected.to_owned())], "{index}");
        let mut named = vec![0, 0];
        put_integer(&mut named, 0x50, 4, index);
        put_text(&mut named, b"/");
        assert_eq!(read(&named).expect("a name")[0].0, *name, "{index}");
    }
    assert!(read(b"\0\0\xff\x24").is_err(), "index 99");
}

#[test]
fn an_answers_section_says_what_the_answer_says() {
    let mut random = 7u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..2_000 {
        let status = StatusCode::from_u16(100 + draw(500) as u16).expect("a status");
        let names = ["content-type", "content-length", "date", "x-a", "retry-after", "x"];
        let fields: Fields = (0..draw(5))
            .map(|_| {
                let name = names[draw(6) as usize];
                let value = "1".repeat(1 + draw(300) as usize);
                let value = HeaderValue::from_str(&value).expect("digits");
                (HeaderName::from_static(name), value)
            })
            .collect();
        let mut section = Vec::new();
        put_section(&mut section, Some(status), &fields);
        let read = read(&section).expect("what was written");
        let written = fields.iter().map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let is_huge = |(name, value): &(String, String)| {
            name == "content-length" && value.parse::<u64>().is_err()
        };
        for (read, written) in read[1..].iter().zip(written) {
            assert!(*read == written || is_huge(&written), "seed 7, round {round}: {read:?}");
        }
        assert_eq!(read.len(), 1 + fields.len(), "seed 7, round {round}");
        // The request's side knows no status, but reads where it ends.
        assert_eq!(read[0].0, "", "seed 7, round {round}");
    }
}

#[test]
fn text_in_huffmans_code_is_read() {
    // RFC 7541, C.4.1: www.example.com.
    let value = b"\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let by_name = [b"\0\0\x50", &value[..]].concat();
    let expected = (":authority".to_owned(), "www.example.com".to_owned());
    assert_eq!(read(&by_name), Ok(vec![expected]));
    // The name is `a`, which is coded as `00011` and padded.
    let coded_name = b"\0\0\x29\x1f\x01b";
    assert_eq!(read(coded_name), Ok(vec![("a".to_owned(), "b".to_owned())]));
}

#[test]
fn a_section_that_is_cut_anywhere_is_read_as_far_as_whole_fields_or_not_at_all() {
    let section = b"\0\0\xd4\xd7\x50\x05a.bc\x64\x51\x04/abc\x23x-a\x01b\x5f\x1d\x03a/b";
    let whole = read(section).expect("whole").len();
    assert_eq!(whole, 6);
    let readable = (0..section.len()).filter(|cut| read(&section[..*cut]).is_ok()).count();
    assert_eq!(readable, whole, "behind the prefix and behind all fields but the last");
}

#[test]
fn instructions_are_the_same_however_they_are_cut() {
    let stream = b"\x40\x7f\xff\x01\x44\x7f\x80\x80\x00";
    let mut whole = Instructions::new(Writer::Decoder);
    assert_eq!(whole.take(stream), Ok(4));
    let mut pieces = Instructions::new(Writer::Decoder);
    let begun: u32 = stream.iter().map(|byte| pieces.take(&[*byte]).expect("allowed")).sum();
    assert_eq!(begun, 4);
    let endless = [&[0x7f][..], &[0x80; 12]].concat();
    assert!(Instructions::new(Writer::Decoder).take(&endless).is_err());
}
