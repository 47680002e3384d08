//! What a peer must not send over HTTP/3, and the code that it gets for it (RFC 9114 and RFC 9204).

use forebay_net::http3::Code;
use forebay_net::request::Trouble;

use crate::call::Call;
use crate::streams::{
    CANCEL_PUSH, CONTROL, DATA, DECODER, ENCODER, GOAWAY, HEADERS, MAX_PUSH_ID, OTHER,
    PUSH_PROMISE, REQUEST, SETTINGS, frame, section,
};

const OF_HTTP2: [u64; 4] = [0x02, 0x06, 0x08, 0x09];

/// Feeds a stream of an open connection in pieces of every size, and holds how it ends.
fn closes(stream: u64, bytes: &[u8], ends: bool, code: Code) {
    for size in [1, 2, 3, 7, bytes.len().max(1)] {
        let mut call = Call::open();
        if stream == 0 {
            call.begin();
        }
        if stream == CONTROL {
            // It has begun already.
            call = Call::fresh();
        }
        feed(&mut call, stream, bytes, ends, size);
        assert_eq!(call.lines.closed, Some(code), "{} by {size}", bytes.escape_ascii());
        assert_eq!(*call.desk.troubles, [Trouble::Protocol]);
        assert!(call.core.is_over() && call.deadline().is_none());
        call.send(stream, b"more", false);
        call.lose();
    }
}

/// The same of one request, which is reset, and whose connection lives.
fn resets(bytes: &[u8], ends: bool, code: Code) {
    for size in [1, 2, 3, 7, bytes.len().max(1)] {
        let mut call = Call::open();
        let stream = call.begin();
        feed(&mut call, stream, bytes, ends, size);
        assert_eq!(call.lines.closed, None, "{}", bytes.escape_ascii());
        assert_eq!(call.lines.resets.get(&stream), Some(&code), "{}", bytes.escape_ascii());
        assert_eq!(*call.desk.troubles, [Trouble::Malformed]);
        assert!(call.desk.requests.is_empty() && call.desk.reserved == 0);
        let next = call.ask(&frame(HEADERS, REQUEST));
        call.answer_all();
        assert_eq!(call.lines.status(next), Some(200), "the next one is served");
        call.lose();
    }
}

fn feed(call: &mut Call, stream: u64, bytes: &[u8], ends: bool, size: usize) {
    let count = bytes.chunks(size).count();
    for (nth, piece) in bytes.chunks(size).enumerate() {
        call.send(stream, piece, ends && nth + 1 == count);
    }
    if bytes.is_empty() {
        call.send(stream, &[], ends);
    }
}

fn control(frames: &[Vec<u8>]) -> Vec<u8> {
    [&[0][..], &frames.concat()].concat()
}

fn request() -> Vec<u8> {
    frame(HEADERS, REQUEST)
}

#[test]
fn frames_of_a_request_come_in_their_order() {
    let unexpected = Code::FRAME_UNEXPECTED;
    closes(0, &frame(DATA, b"early"), false, unexpected);
    let trailed = [request(), frame(DATA, b"a"), frame(HEADERS, &section(&[("x-a", "b")]))];
    for late in [frame(DATA, b"late"), request()] {
        closes(0, &[trailed.concat(), late].concat(), false, unexpected);
    }
}

#[test]
fn frames_of_other_streams_do_not_belong_on_a_requests() {
    let others = [SETTINGS, GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, PUSH_PROMISE];
    for kind in others.into_iter().chain(OF_HTTP2) {
        closes(0, &frame(kind, &[0]), false, Code::FRAME_UNEXPECTED);
        closes(0, &[request(), frame(kind, &[])].concat(), true, Code::FRAME_UNEXPECTED);
    }
}

#[test]
fn the_control_stream_begins_with_the_settings_which_come_once() {
    let settings = frame(SETTINGS, &[]);
    for kind in [GOAWAY, MAX_PUSH_ID, DATA, HEADERS, 0x21] {
        closes(CONTROL, &control(&[frame(kind, &[0])]), false, Code::MISSING_SETTINGS);
    }
    closes(CONTROL, &control(&[settings.clone(), settings]), false, Code::FRAME_UNEXPECTED);
}

#[test]
fn frames_of_requests_do_not_belong_on_the_control_stream() {
    for kind in [DATA, HEADERS, PUSH_PROMISE].into_iter().chain(OF_HTTP2) {
        let frames = [frame(SETTINGS, &[]), frame(kind, b"x")];
        closes(CONTROL, &control(&frames), false, Code::FRAME_UNEXPECTED);
    }
}

#[test]
fn settings_of_http2_and_settings_twice_are_refused() {
    for id in [0, 2, 3, 4, 5] {
        closes(CONTROL, &control(&[frame(SETTINGS, &[id, 1])]), false, Code::SETTINGS_ERROR);
    }
    let twice = frame(SETTINGS, &[0x06, 1, 0x06, 1]);
    closes(CONTROL, &control(&[twice]), false, Code::SETTINGS_ERROR);
    closes(CONTROL, &control(&[frame(SETTINGS, &[6])]), false, Code::FRAME_ERROR);
}

#[test]
fn numbers_of_the_control_stream_are_whole_and_go_one_way() {
    let with = |frames: &[Vec<u8>]| control(&[&[frame(SETTINGS, &[])], frames].concat());
    for kind in [GOAWAY, MAX_PUSH_ID, CANCEL_PUSH] {
        for payload in [&[][..], &[0x40], &[1, 1], &[0; 9]] {
            closes(CONTROL, &with(&[frame(kind, payload)]), false, Code::FRAME_ERROR);
        }
    }
    let grows = with(&[frame(GOAWAY, &[4]), frame(GOAWAY, &[8])]);
    closes(CONTROL, &grows, false, Code::ID_ERROR);
    let shrinks = with(&[frame(MAX_PUSH_ID, &[4]), frame(MAX_PUSH_ID, &[3])]);
    closes(CONTROL, &shrinks, false, Code::ID_ERROR);
    closes(CONTROL, &with(&[frame(CANCEL_PUSH, &[0])]), false, Code::ID_ERROR);
}

#[test]
fn critical_streams_come_once_and_last() {
    let begun = control(&[frame(SETTINGS, &[])]);
    closes(CONTROL, &begun, true, Code::CLOSED_CRITICAL_STREAM);
    closes(ENCODER, &[2], true, Code::CLOSED_CRITICAL_STREAM);
    closes(DECODER, &[3], true, Code::CLOSED_CRITICAL_STREAM);
    closes(OTHER, &[0], false, Code::STREAM_CREATION_ERROR);
    for kind in [2, 3] {
        let mut call = Call::open();
        call.send(ENCODER, &[kind], false);
        call.send(DECODER, &[kind], false);
        assert_eq!(call.lines.closed, Some(Code::STREAM_CREATION_ERROR));
    }
    let mut call = Call::open();
    call.core.handle_reset(CONTROL, &mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.lines.closed, Some(Code::CLOSED_CRITICAL_STREAM));
    let mut call = Call::open();
    call.core.handle_stopped(3, &mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.lines.closed, Some(Code::CLOSED_CRITICAL_STREAM), "ours, too");
}

#[test]
fn a_client_cannot_push() {
    closes(OTHER, &[1], false, Code::STREAM_CREATION_ERROR);
}

#[test]
fn the_dynamic_table_has_no_room() {
    let failed = Code::QPACK_DECOMPRESSION_FAILED;
    let sections: [&[u8]; 9] = [
        b"\0\0\xff\x24",   // static entry 99
        b"\0\0\x80",       // dynamic entry 0
        b"\0\0\x10",       // behind the base
        b"\0\0\x40\x01a",  // a name of dynamic entry 0
        b"\0\0\x00\x01a",  // a name behind the base
        b"\x01\0\xd4",     // waits for an entry
        b"\0\x80\xd4",     // a base below 0
        b"\0",             // cut off
        b"\0\0\x51\x05/a", // longer than its section
    ];
    for section in sections {
        closes(0, &frame(HEADERS, section), false, failed);
        let trailers = [request(), frame(HEADERS, section)].concat();
        closes(0, &trailers, false, failed);
    }
    let encoder: [&[u8]; 4] = [b"\x02\x21", b"\x02\x3f\xe1\x1f", b"\x02\xc0\x01a", b"\x02\x01"];
    for instructions in encoder {
        closes(ENCODER, instructions, false, Code::QPACK_ENCODER_STREAM_ERROR);
    }
    let decoder: [&[u8]; 3] = [b"\x03\x00", b"\x03\x01", b"\x03\x80"];
    for instructions in decoder {
        closes(DECODER, instructions, false, Code::QPACK_DECODER_STREAM_ERROR);
    }
}

#[test]
fn what_qpack_allows_without_a_table_is_taken() {
    let mut call = Call::open();
    call.send(ENCODER, b"\x02\x20\x20", false);
    // Streams are given up, the last with a number of 62 bits.
    call.send(DECODER, b"\x03\x44\x7f\x80\x01\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x3f", false);
    // Its base says nothing, for nothing is referred to.
    call.ask(&frame(HEADERS, &[b"\0\x7f\x05", &REQUEST[2..]].concat()));
    assert_eq!((call.lines.closed, call.desk.requests.len()), (None, 1));
}

#[test]
fn a_frame_that_is_cut_off_ends_the_connection() {
    let whole = [request(), frame(DATA, b"body"), frame(0x21, b"grease")].concat();
    let mut ends = 0;
    for cut in 1..whole.len() {
        let mut call = Call::open();
        call.ask(&whole[..cut]);
        let is_between = [request().len(), request().len() + 6].contains(&cut);
        let expected = (!is_between).then_some(Code::FRAME_ERROR);
        assert_eq!(call.lines.closed, expected, "cut to {cut}");
        ends += usize::from(is_between);
        call.lose();
    }
    assert_eq!(ends, 2);
}

#[test]
fn a_malformed_request_is_reset_and_no_other() {
    const METHOD: (&str, &str) = (":method", "POST");
    const SCHEME: (&str, &str) = (":scheme", "https");
    const PATH: (&str, &str) = (":path", "/v1/traces");
    const AUTHORITY: (&str, &str) = (":authority", "a");
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    let with = |field: (&'static str, &'static str)| [&usual[..], &[field]].concat();
    let malformed = [
        with(METHOD),
        with(PATH),
        with(AUTHORITY),
        with((":status", "200")),
        with((":protocol", "websocket")),
        with((":unknown", "a")),
        vec![SCHEME, AUTHORITY, PATH],
        vec![METHOD, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY],
        vec![METHOD, SCHEME, PATH],
        vec![METHOD, SCHEME, (":authority", ""), PATH],
        vec![METHOD, SCHEME, PATH, ("host", "")],
        vec![METHOD, SCHEME, AUTHORITY, ("x-a", "b"), PATH],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "traces")],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "")],
        with(("host", "b")),
        with(("X-Upper", "a")),
        with(("x a", "b")),
        with(("connection", "close")),
        with(("keep-alive", "1")),
        with(("transfer-encoding", "chunked")),
        with(("upgrade", "h2c")),
        with(("te", "gzip")),
        with(("x-a", "a\r\nb: c")),
        with(("content-length", "x")),
        [with(("content-length", "1")), vec![("content-length", "1")]].concat(),
    ];
    for fields in malformed {
        resets(&frame(HEADERS, &section(&fields)), true, Code::MESSAGE_ERROR);
        resets(&frame(HEADERS, &section(&fields)), false, Code::MESSAGE_ERROR);
    }
    let mut call = Call::open();
    call.ask(&frame(HEADERS, &section(&[METHOD, SCHEME, PATH, ("host", "a")])));
    call.ask(&frame(HEADERS, &section(&with(("te", "trailers")))));
    assert_eq!(call.desk.requests.len(), 2, "these are well-formed");
}

#[test]
fn a_body_is_as_long_as_its_head_said() {
    let head = |length: &'static str| {
        let said = section(&[("content-length", length)]);
        frame(HEADERS, &[REQUEST, &said[2..]].concat())
    };
    let reset = |pieces: &[Vec<u8>]| resets(&pieces.concat(), true, Code::MESSAGE_ERROR);
    reset(&[head("3")]);
    reset(&[head("3"), frame(DATA, b"ab")]);
    reset(&[head("3"), frame(DATA, b"abcd")]);
    reset(&[head("3"), frame(DATA, b"ab"), frame(DATA, b"cd")]);
    reset(&[head("0"), frame(DATA, b"a")]);
    reset(&[head("3"), frame(DATA, b"ab"), frame(HEADERS, &section(&[("x-a", "b")]))]);
    let mut call = Call::open();
    call.ask(&[head("3"), frame(DATA, b"a"), frame(0x21, b"?"), frame(DATA, b"bc")].concat());
    assert_eq!(call.desk.requests[0].body, "abc");
}

#[test]
fn trailers_are_trailers() {
    let behind = |fields: &[(&str, &str)]| {
        [request(), frame(DATA, b"a"), frame(HEADERS, &section(fields))].concat()
    };
    for fields in [(":path", "/"), ("X", "y"), ("connection", "close")] {
        resets(&behind(&[fields]), true, Code::MESSAGE_ERROR);
    }
    let mut call = Call::open();
    call.ask(&behind(&[("x-checksum", "7")]));
    call.ask(&[behind(&[]), frame(0x21, b"")].concat());
    assert_eq!(call.desk.requests.len(), 2);
}

#[test]
fn a_stream_that_ends_without_a_request_is_reset() {
    resets(b"", true, Code::REQUEST_INCOMPLETE);
    resets(&frame(0x21, b"grease"), true, Code::REQUEST_INCOMPLETE);
}

#[test]
fn what_nobody_knows_is_passed_over() {
    let mut call = Call::fresh();
    let settings = frame(SETTINGS, &[0x21, 5, 0x33, 1, 0x40, 0x7f, 9]);
    call.send(CONTROL, &control(&[settings, frame(0x21, b"grease"), frame(0x2f, &[])]), false);
    call.send(OTHER, &[0x40, 0x21, 1, 2, 3], false);
    assert_eq!(call.lines.stops.get(&OTHER), Some(&Code::STREAM_CREATION_ERROR));
    // Not even a stream whose kind never comes is an error.
    call.send(OTHER + 4, &[0x40], true);
    call.send(OTHER + 8, &[], true);
    let unknown = frame(0x1f * 7 + 0x21, &[7; 500]);
    let pieces = [&unknown, &request(), &unknown, &frame(DATA, b"a"), &unknown, &unknown];
    call.ask(&pieces.map(|piece| &piece[..]).concat());
    assert_eq!(call.lines.closed, None);
    assert_eq!(call.desk.requests[0].body, "a");
}
