//! Every string of every message is held to UTF-8, at each of its bytes, and the error says where.

use bytes::Bytes;
use forebay_codec::check::{Reason, WireError, check};
use forebay_codec::schema::{self, Kind, LEN, Message};
use forebay_codec::signal::Signal;
use forebay_codec::wire::{self, Fields};

use crate::canonical;

const LONGEST: usize = 80;

#[test]
fn d1_a_bad_byte_is_found_anywhere_in_any_string_field() {
    let mut fields = 0;
    for signal in Signal::ALL {
        for path in string_fields(schema::request(signal)) {
            fields += 1;
            for length in 1..=LONGEST {
                // One request for each length; the text is changed where it lies in it.
                let (mut bytes, start) = request_with(&path, &vec![b'a'; length]);
                assert!(check(signal, Bytes::copy_from_slice(&bytes)).is_ok(), "{path:?}");
                for at in start..start + length {
                    for bad in [0xff, 0x80, 0xc3] {
                        bytes[at] = bad;
                        let refused = check(signal, Bytes::copy_from_slice(&bytes));
                        assert_refused(refused.err(), at, &format!("{signal} {path:?} {length}"));
                    }
                    bytes[at] = b'a';
                }
            }
        }
    }
    assert!(fields > 50, "only {fields} string fields were found");
}

#[test]
fn d1_a_bad_byte_is_found_in_every_string_of_a_request_as_sdks_write_it() {
    let mut strings = 0;
    for signal in Signal::ALL {
        for request in canonical::requests(signal) {
            let mut places = Vec::new();
            strings_in(schema::request(signal), &request, 0, &mut places);
            strings += places.len();
            let mut bytes = request.clone();
            for at in places.into_iter().flatten() {
                bytes[at] = 0xff;
                let refused = check(signal, Bytes::copy_from_slice(&bytes));
                assert_refused(refused.err(), at, signal.name());
                bytes[at] = request[at];
            }
        }
    }
    assert!(strings > 100, "only {strings} strings were found");
}

#[test]
fn d1_characters_of_every_length_pass_at_every_place() {
    let path = [1, 2, 2, 5];
    for character in ["é", "€", "😀", "\u{7ff}", "\u{d7ff}", "\u{e000}", "\u{10ffff}"] {
        for before in 0..LONGEST {
            let text = format!("{}{character}", "a".repeat(before));
            let whole = request_with(&path, text.as_bytes());
            assert!(check(Signal::Traces, whole.0.into()).is_ok(), "{text}");
            // Without its last byte the character is none, and that is where it starts.
            let (bytes, start) = request_with(&path, &text.as_bytes()[..text.len() - 1]);
            let refused = check(Signal::Traces, bytes.into());
            assert_refused(refused.err(), start + before, &text);
        }
    }
}

#[track_caller]
fn assert_refused(error: Option<WireError>, offset: usize, note: &str) {
    let error = error.unwrap_or_else(|| panic!("{note}: passed with a bad byte at {offset}"));
    assert_eq!((error.reason, error.offset), (Reason::InvalidUtf8, offset), "{note}: {error}");
}

/// The numbers on the way to each string field, the shortest way to each message.
fn string_fields(request: &'static Message) -> Vec<Vec<u32>> {
    let mut found = Vec::new();
    let mut seen = vec![request.name];
    let mut next = vec![(request, Vec::new())];
    while let Some((message, path)) = next.pop() {
        for field in message.fields {
            let path = [&path[..], &[field.number]].concat();
            match field.kind {
                Kind::String => found.push(path),
                Kind::Message(inner) if !seen.contains(&inner.name) => {
                    seen.push(inner.name);
                    next.insert(0, (inner, path));
                }
                _ => {}
            }
        }
    }
    found
}

/// A request with nothing but this text, and where the text starts.
fn request_with(path: &[u32], text: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = text.to_vec();
    for &number in path.iter().rev() {
        let mut around = Vec::new();
        wire::put_bytes(&mut around, number, &bytes);
        bytes = around;
    }
    let start = bytes.len() - text.len();
    (bytes, start)
}

fn strings_in(
    message: &'static Message,
    bytes: &[u8],
    start: usize,
    found: &mut Vec<std::ops::Range<usize>>,
) {
    for raw in Fields::new(bytes, 0..bytes.len()).filter(|raw| raw.wire_type == LEN) {
        let at = start + raw.value.start;
        match message.field(raw.number).map(|field| field.kind) {
            Some(Kind::Message(inner)) => strings_in(inner, &bytes[raw.value], at, found),
            Some(Kind::String) => found.push(at..at + raw.value.len()),
            _ => {}
        }
    }
}
