//! What a server must not do to the client core: each rule broken once, with the code that the
//! standard gives it; and floods, which end a connection before they cost much.

use forebay_net::http2::client::{Client, Code, End, Event, Failure, Why};

use crate::caller::{answered, drain, events, head, open, settings};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, PADDED, PING,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, goaway_code, reset_code,
};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A client with the streams 1 and 3 under way, all of them sent.
fn calling() -> Client {
    let mut client = open();
    client.open(&head(0), Vec::new());
    client.open(&head(0), Vec::new());
    drain(&mut client);
    client
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

#[test]
fn what_breaks_a_rule_of_the_connection_ends_it_with_the_standards_code() {
    let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let begun = || headers(0, 1, b"\x88");
    let cases: [(&str, u32, Vec<u8>); 34] = [
        ("a frame too long", FRAME_SIZE_ERROR, vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1]),
        ("DATA for no stream", PROTOCOL_ERROR, frame(DATA, 0, 0, b"a")),
        ("DATA for a stream to come", PROTOCOL_ERROR, frame(DATA, 0, 5, b"a")),
        ("DATA for a server's stream", PROTOCOL_ERROR, frame(DATA, 0, 2, b"a")),
        ("DATA all padding and more", PROTOCOL_ERROR, frame(DATA, PADDED, 1, b"\x05aaaa")),
        ("DATA padded with nothing", PROTOCOL_ERROR, frame(DATA, PADDED, 1, b"")),
        ("HEADERS for no stream", PROTOCOL_ERROR, headers(END_HEADERS, 0, b"\x88")),
        ("HEADERS for a stream to come", PROTOCOL_ERROR, headers(END_HEADERS, 5, b"\x88")),
        ("HEADERS for a server's stream", PROTOCOL_ERROR, headers(END_HEADERS, 2, b"\x88")),
        ("HEADERS padded too much", PROTOCOL_ERROR, headers(END_HEADERS | PADDED, 1, b"\x02\x88")),
        (
            "HEADERS without their priority",
            FRAME_SIZE_ERROR,
            headers(END_HEADERS | HAS_PRIORITY, 1, b"\x88"),
        ),
        ("an index beyond the table", COMPRESSION_ERROR, headers(END_HEADERS, 1, b"\xbe")),
        ("a string cut off", COMPRESSION_ERROR, headers(END_HEADERS, 1, b"\x00\x05a")),
        ("a table too large", COMPRESSION_ERROR, headers(END_HEADERS, 1, b"\x3f\xe2\x1f\x88")),
        ("a block interrupted", PROTOCOL_ERROR, two(begun(), frame(PING, 0, 0, &[0; 8]))),
        (
            "a block continued elsewhere",
            PROTOCOL_ERROR,
            two(begun(), frame(CONTINUATION, END_HEADERS, 3, b"")),
        ),
        ("a block continued only", PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1, b"")),
        ("RST_STREAM too short", FRAME_SIZE_ERROR, frame(RST_STREAM, 0, 1, b"aaa")),
        ("RST_STREAM for no stream", PROTOCOL_ERROR, frame(RST_STREAM, 0, 0, &[0; 4])),
        ("RST_STREAM for a stream to come", PROTOCOL_ERROR, frame(RST_STREAM, 0, 5, &[0; 4])),
        ("SETTINGS for a stream", PROTOCOL_ERROR, frame(SETTINGS, 0, 1, b"")),
        ("SETTINGS cut off", FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, b"aaaaa")),
        ("SETTINGS acknowledged at length", FRAME_SIZE_ERROR, frame(SETTINGS, ACK, 0, &[0; 6])),
        ("a server that asks for pushes", PROTOCOL_ERROR, settings(&[(2, 1)])),
        ("a window too large from the start", FLOW_CONTROL_ERROR, settings(&[(4, 1 << 31)])),
        ("frames too small", PROTOCOL_ERROR, settings(&[(5, 16_383)])),
        ("frames too large", PROTOCOL_ERROR, settings(&[(5, 1 << 24)])),
        ("a push", PROTOCOL_ERROR, frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x88")),
        ("PING for a stream", PROTOCOL_ERROR, frame(PING, 0, 1, &[0; 8])),
        ("PING too short", FRAME_SIZE_ERROR, frame(PING, 0, 0, &[0; 7])),
        ("GOAWAY for a stream", PROTOCOL_ERROR, frame(GOAWAY, 0, 1, &[0; 8])),
        ("GOAWAY too short", FRAME_SIZE_ERROR, frame(GOAWAY, 0, 0, &[0; 7])),
        ("a window update of nothing", PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "a window too large",
            FLOW_CONTROL_ERROR,
            frame(WINDOW_UPDATE, 0, 0, &number(0x7fff_ffff)),
        ),
    ];
    for (what, code, input) in cases {
        for step in [1, input.len()] {
            let mut client = calling();
            for piece in input.chunks(step) {
                client.handle_input(piece, 0);
            }
            assert_eq!(goaway_code(&drain(&mut client)), Some(code), "{what}");
            assert!(matches!(client.end(), Some(End::Broken(..))), "{what}");
            let ended = events(&mut client);
            let is_lost =
                |event: &Event| matches!(event.outcome, Err(Failure { why: Why::Ended, .. }));
            assert!(ended.len() == 2 && ended.iter().all(is_lost), "{what}: {ended:?}");
            client.handle_input(&answered(1), 0);
            assert!(events(&mut client).is_empty() && drain(&mut client).is_empty(), "{what}");
        }
    }
}

#[test]
fn what_is_no_http2_is_known_by_its_first_bytes() {
    let first: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        &frame(PING, 0, 0, &[0; 8]),
        &frame(SETTINGS, ACK, 0, b""),
    ];
    for first in first {
        let mut client = Client::new(crate::caller::SETTINGS, 0);
        client.open(&head(0), Vec::new());
        client.handle_input(first, 0);
        assert!(matches!(client.end(), Some(End::Broken(..))), "{first:x?}");
    }
    // Too little to be anything.
    let mut client = Client::new(crate::caller::SETTINGS, 0);
    client.handle_input(b"oh no", 0);
    assert_eq!(client.end(), None);
    client.handle_eof();
    assert!(matches!(client.end(), Some(End::Broken(..))));
}

#[test]
fn what_breaks_a_rule_of_a_stream_ends_that_stream_and_no_other() {
    let begun = || headers(END_HEADERS, 1, b"\x88");
    let literal = |name: &str, value: &str| {
        let mut field = vec![0, name.len() as u8];
        field.extend_from_slice(name.as_bytes());
        field.push(value.len() as u8);
        field.extend_from_slice(value.as_bytes());
        field
    };
    let head_of = |fields: &[u8]| headers(END_HEADERS, 1, &[b"\x88", fields].concat());
    let long = vec![b'l'; 16_000];
    let cases: [(&str, u32, Vec<u8>); 17] = [
        ("a body before its head", PROTOCOL_ERROR, frame(DATA, 0, 1, b"a")),
        ("no status", PROTOCOL_ERROR, headers(END_HEADERS, 1, &literal("a", "b"))),
        ("a status that is none", PROTOCOL_ERROR, headers(END_HEADERS, 1, b"\x08\x02ab")),
        ("two statuses", PROTOCOL_ERROR, headers(END_HEADERS, 1, b"\x88\x88")),
        ("a status behind a header", PROTOCOL_ERROR, {
            headers(END_HEADERS, 1, &[&literal("a", "b")[..], b"\x88"].concat())
        }),
        ("a request's pseudo-header", PROTOCOL_ERROR, head_of(b"\x83")),
        ("a name in upper case", PROTOCOL_ERROR, head_of(&literal("Grpc-Status", "0"))),
        ("a header of the connection", PROTOCOL_ERROR, head_of(&literal("connection", "close"))),
        ("a value with a line's end", PROTOCOL_ERROR, head_of(&literal("grpc-message", "a\nb"))),
        ("two lengths", PROTOCOL_ERROR, head_of(b"\x0f\x0d\x011\x0f\x0d\x011")),
        ("a length that is none", PROTOCOL_ERROR, head_of(b"\x0f\x0d\x02-1")),
        ("another length than it says", PROTOCOL_ERROR, {
            [head_of(b"\x0f\x0d\x015"), frame(DATA, END_STREAM, 1, b"four")].concat()
        }),
        (
            "trailers before the end",
            PROTOCOL_ERROR,
            [begun(), headers(END_HEADERS, 1, b"")].concat(),
        ),
        ("a status in the trailers", PROTOCOL_ERROR, [begun(), begun()].concat()),
        ("a head that announces and ends", PROTOCOL_ERROR, {
            headers(END_HEADERS | END_STREAM, 1, b"\x08\x03103")
        }),
        ("a window too large", FLOW_CONTROL_ERROR, {
            frame(WINDOW_UPDATE, 0, 1, &number(0x7fff_ffff))
        }),
        ("a window update of nothing", PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
    ];
    for (what, code, input) in cases {
        let mut client = calling();
        client.handle_input(&input, 0);
        assert_eq!(reset_code(&drain(&mut client), 1), Some(code), "{what}");
        let ended = events(&mut client);
        let is_malformed =
            |event: &Event| matches!(event.outcome, Err(Failure { why: Why::Malformed(_), .. }));
        assert!(ended.len() == 1 && is_malformed(&ended[0]), "{what}: {ended:?}");
        // What the server says of it from now on changes nothing for others.
        client.handle_input(&[answered(1), answered(3)].concat(), 0);
        let ended = events(&mut client);
        assert!(matches!(&ended[..], [Event { stream: 3, outcome: Ok(_) }]), "{what}: {ended:?}");
    }
    let mut client = calling();
    client.handle_input(&begun(), 0);
    for _ in 0..7 {
        client.handle_input(&frame(DATA, 0, 1, &long), 0);
    }
    assert_eq!(reset_code(&drain(&mut client), 1), Some(8), "CANCEL, over 100,000 bytes");
    let ended = events(&mut client);
    let expected = Failure { why: Why::TooLarge, began: true };
    assert_eq!(ended[0].outcome.as_ref().unwrap_err(), &expected);
}

#[test]
fn what_a_server_may_do_is_borne() {
    let mut client = calling();
    let padded = frame(DATA, PADDED, 1, b"\x03ok\0\0\0");
    let cut = [headers(0, 1, b""), frame(CONTINUATION, 0, 1, b"\x88"), {
        frame(CONTINUATION, END_HEADERS, 1, b"\x00\x0cgrpc-message\x02a ")
    }];
    let input = [
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(0xfe, 0xff, 9, b"nobody knows this"),
        headers(END_HEADERS, 1, b"\x08\x03103"),
        cut.concat(),
        frame(DATA, 0, 1, b""),
        padded,
        headers(END_HEADERS | END_STREAM | HAS_PRIORITY, 1, b"\0\0\0\0\0"),
        answered(3),
    ];
    for byte in input.concat() {
        client.handle_input(&[byte], 0);
    }
    let ended = events(&mut client);
    let [Event { stream: 1, outcome: Ok(first) }, Event { stream: 3, outcome: Ok(second) }] =
        &ended[..]
    else {
        panic!("{ended:?}")
    };
    // Blanks at its end belong to a message.
    assert_eq!(first.body, b"ok");
    assert_eq!(first.headers["grpc-message"], "a ");
    assert_eq!(second.trailers.as_ref().unwrap()["grpc-status"], "0");
    assert_eq!((client.end(), client.in_flight()), (None, 0));
}

#[test]
fn long_answers_get_new_room_and_no_more() {
    let mut client = calling();
    client.handle_input(&headers(END_HEADERS, 1, b"\x88"), 0);
    let mut granted = 0;
    for _ in 0..6 {
        client.handle_input(&frame(DATA, 0, 1, &[7; 16_000]), 0);
    }
    client.handle_input(&frame(DATA, END_STREAM, 1, b""), 0);
    // Late DATA for a stream that is gone takes of the connection's window and gives it back.
    for _ in 0..40 {
        client.handle_input(&frame(DATA, 0, 1, &[7; 16_000]), 0);
        for (kind, _, stream, payload) in crate::frames::frames(&drain(&mut client)) {
            assert_eq!((kind, stream), (WINDOW_UPDATE, 0));
            granted += u32::from_be_bytes(payload.try_into().unwrap());
        }
    }
    let came = 46 * 16_000;
    assert!(granted <= came && granted > came - (1 << 18), "{granted} of {came}");
    assert_eq!(client.end(), None);
}

#[test]
fn floods_end_a_connection_before_they_cost_much() {
    let longest = || vec![b'a'; 16_000];
    let many = [0, 1, 0, 0, 16, 0].repeat(2_000);
    type Flood = Box<dyn Fn(u32) -> Vec<u8>>;
    let floods: [(&str, Flood); 13] = [
        ("pings", Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        ("answers to no ping", Box::new(|_| frame(PING, ACK, 0, &[0; 8]))),
        ("settings", Box::new(|_| settings(&[(4, 100)]))),
        ("many settings", Box::new(move |_| frame(SETTINGS, 0, 0, &many))),
        ("priorities", Box::new(|_| frame(PRIORITY, 0, 1, &[0; 5]))),
        ("unknown frames", Box::new(|_| frame(0xee, 0, 0, b""))),
        ("small windows", Box::new(|_| frame(WINDOW_UPDATE, 0, 1, &number(1)))),
        ("goaways", Box::new(|_| frame(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0]))),
        ("empty DATA", Box::new(|_| frame(DATA, 0, 3, b""))),
        ("ends of what has ended", Box::new(|_| frame(DATA, END_STREAM, 1, b""))),
        ("heads of what has ended", Box::new(|_| headers(END_HEADERS, 1, b"\x88"))),
        ("resets of what has ended", Box::new(|_| frame(RST_STREAM, 0, 1, &[0; 4]))),
        ("windows of what has ended", Box::new(|_| frame(WINDOW_UPDATE, 0, 1, &number(1 << 20)))),
    ];
    for (what, flood) in floods {
        let mut client = calling();
        client.handle_input(&[answered(1), headers(END_HEADERS, 3, b"\x88")].concat(), 0);
        let mut sent_bytes = 0;
        let took = (0..10_000).find(|nth| {
            client.handle_input(&flood(*nth), 0);
            sent_bytes += drain(&mut client).len();
            client.end().is_some()
        });
        assert!(took.is_some_and(|took| took <= 1_100), "{what}: {took:?}");
        assert!(sent_bytes < 64 << 10, "{what}: {sent_bytes} bytes in return");
        let end = client.end();
        assert!(matches!(end, Some(End::Broken(Code::ENHANCE_YOUR_CALM, _))), "{what}: {end:?}");
    }
    // A header block without an end, in small pieces and in large ones.
    for piece in [Vec::new(), longest()] {
        let mut client = calling();
        client.handle_input(&headers(0, 1, b"\x88"), 0);
        let took = (0..100).find(|_| {
            client.handle_input(&frame(CONTINUATION, 0, 1, &piece), 0);
            client.end().is_some()
        });
        assert!(took.is_some(), "{} bytes each", piece.len());
        assert_eq!(goaway_code(&drain(&mut client)), Some(ENHANCE_YOUR_CALM));
    }
    // Heads that announce others, and a list that expands.
    let mut client = calling();
    (0..9).for_each(|_| client.handle_input(&headers(END_HEADERS, 1, b"\x08\x03103"), 0));
    assert_eq!(reset_code(&drain(&mut client), 1), Some(PROTOCOL_ERROR));
    let mut bomb = b"\x88\x40\x01a".to_vec();
    bomb.extend(b"\x7f\x81\x1e");
    bomb.extend([b'b'; 3_968]);
    bomb.extend([0xbe; 12_000]);
    client.handle_input(&headers(END_HEADERS, 3, &bomb), 0);
    assert_eq!(reset_code(&drain(&mut client), 3), Some(PROTOCOL_ERROR));
    assert_eq!(client.end(), None);
}

#[test]
fn a_peer_that_reads_nothing_is_read_from_no_more() {
    let mut client = calling();
    let mut now = 0;
    while client.wants_input() {
        client.handle_input(&frame(PING, 0, 0, &[0; 8]), now);
        assert_eq!(client.end(), None);
        now += 20_000_000;
        assert!(now < 100_000_000_000, "it is read from for ever");
    }
    assert!(drain(&mut client).len() < 70 << 10);
    assert!(client.wants_input());
}
