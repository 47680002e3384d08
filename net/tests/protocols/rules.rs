//! What a peer must not send, and the code that it gets for it (RFC 9113; h2spec asks the same of
//! the whole program).

use forebay_net::http2::Http2;
use forebay_net::request::{Core, Standing, Trouble};

use crate::desk::{self, Desk, LIMITS};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, PADDED, PING,
    PREFACE, PRIORITY, PUSH_PROMISE, REQUEST, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, frames,
    goaway_code, open, reset_code,
};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// Feeds `input` to an open connection in pieces, answers what comes, and returns all output.
fn converse(input: &[u8], piece_bytes: usize) -> (Vec<u8>, Standing) {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let mut output = Vec::new();
    for piece in input.chunks(piece_bytes) {
        core.handle_input(piece, &mut desk.turn());
        while let Some(request) = desk.requests.pop() {
            desk.reserved -= request.reserved;
            core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
        }
        output.extend_from_slice(&core.take_output());
    }
    let standing = core.standing();
    core.handle_lost(&mut desk.turn());
    assert_eq!(desk.reserved, 0);
    (output, standing)
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST)
}

/// A request whose body is to come.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, REQUEST)
}

fn with(fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[REQUEST, fields].concat())
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

#[test]
fn what_breaks_the_connection_is_told_with_its_code_however_it_is_cut() {
    let broken: Vec<(&str, u32, Vec<u8>)> = vec![
        ("DATA for no stream", PROTOCOL_ERROR, frame(DATA, 0, 0, b"a")),
        ("DATA before HEADERS", PROTOCOL_ERROR, frame(DATA, 0, 1, b"a")),
        ("DATA, all padding", PROTOCOL_ERROR, [begun(1), frame(DATA, PADDED, 1, &[1])].concat()),
        ("DATA, no pad length", PROTOCOL_ERROR, [begun(1), frame(DATA, PADDED, 1, &[])].concat()),
        ("HEADERS for no stream", PROTOCOL_ERROR, request(0)),
        ("HEADERS for an even stream", PROTOCOL_ERROR, request(2)),
        ("HEADERS for an earlier stream", PROTOCOL_ERROR, [request(5), request(3)].concat()),
        ("HEADERS, all padding", PROTOCOL_ERROR, frame(HEADERS, PADDED | END_HEADERS, 1, &[9])),
        ("HEADERS, cut priority", FRAME_SIZE_ERROR, frame(HEADERS, HAS_PRIORITY, 1, &[0; 4])),
        ("no such index", COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, b"\xff\x80\x01")),
        ("cut literal", COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, b"\x40\x05ab")),
        ("late table size", COMPRESSION_ERROR, with(b"\x20")),
        ("PRIORITY for no stream", PROTOCOL_ERROR, frame(PRIORITY, 0, 0, &[0; 5])),
        ("RST_STREAM for no stream", PROTOCOL_ERROR, frame(RST_STREAM, 0, 0, &number(8))),
        ("RST_STREAM, idle", PROTOCOL_ERROR, frame(RST_STREAM, 0, 1, &number(8))),
        ("RST_STREAM, short", FRAME_SIZE_ERROR, frame(RST_STREAM, 0, 1, &[0; 3])),
        ("SETTINGS for a stream", PROTOCOL_ERROR, frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS, cut", FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS, ack with more", FRAME_SIZE_ERROR, frame(SETTINGS, ACK, 0, &[0; 6])),
        ("push 2", PROTOCOL_ERROR, settings(2, 2)),
        ("window of 2^31", FLOW_CONTROL_ERROR, settings(4, 1 << 31)),
        ("frames of 16383", PROTOCOL_ERROR, settings(5, 16_383)),
        ("frames of 2^24", PROTOCOL_ERROR, settings(5, 1 << 24)),
        ("PUSH_PROMISE", PROTOCOL_ERROR, frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4])),
        ("PING for a stream", PROTOCOL_ERROR, frame(PING, 0, 1, &[0; 8])),
        ("PING, short", FRAME_SIZE_ERROR, frame(PING, 0, 0, &[0; 7])),
        ("GOAWAY for a stream", PROTOCOL_ERROR, frame(GOAWAY, 0, 1, &[0; 8])),
        ("GOAWAY, short", FRAME_SIZE_ERROR, frame(GOAWAY, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE of 0", PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 0, &number(0))),
        ("WINDOW_UPDATE, short", FRAME_SIZE_ERROR, frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("WINDOW_UPDATE, idle", PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 1, &number(1))),
        ("2^31", FLOW_CONTROL_ERROR, frame(WINDOW_UPDATE, 0, 0, &number((1 << 31) - 1))),
        ("stray CONTINUATION", PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1, REQUEST)),
        (
            "CONTINUATION of another",
            PROTOCOL_ERROR,
            [frame(HEADERS, 0, 1, REQUEST), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
        ),
        (
            "an interrupted block",
            PROTOCOL_ERROR,
            [frame(HEADERS, 0, 1, REQUEST), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("a frame too long", FRAME_SIZE_ERROR, frame(200, 0, 0, &[0; (16 << 10) + 1])),
    ];
    for (name, code, input) in broken {
        for piece_bytes in [1, 7, usize::MAX] {
            let (output, standing) = converse(&input, piece_bytes);
            assert_eq!(goaway_code(&output), Some(code), "{name}, in pieces of {piece_bytes}");
            assert_eq!(standing, Standing::FinishThenLinger, "{name}");
        }
    }
}

#[test]
fn what_breaks_a_stream_resets_it_and_leaves_the_connection_open() {
    let literal = |name: &str, value: &str| {
        let (name_bytes, value_bytes) = (name.len() as u8, value.len() as u8);
        let block = [&[0, name_bytes], name.as_bytes(), &[value_bytes], value.as_bytes()].concat();
        with(&block)
    };
    let headers = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let with_length = |length: &str, frames: &[Vec<u8>]| {
        let field = [&[0x0f, 0x0d, length.len() as u8], length.as_bytes()].concat();
        let head = frame(HEADERS, END_HEADERS, 1, &[REQUEST, &field].concat());
        [head, frames.concat()].concat()
    };
    let own_parent = [&number(1)[..], &[0]].concat();
    let broken: Vec<(&str, u32, Vec<u8>)> = vec![
        ("upper case", PROTOCOL_ERROR, literal("X-Tenant", "a")),
        ("no token", PROTOCOL_ERROR, literal("a b", "a")),
        ("no name", PROTOCOL_ERROR, literal("", "a")),
        ("line break", PROTOCOL_ERROR, literal("a", "b\r\nc: d")),
        ("a blank in front", PROTOCOL_ERROR, literal("a", " b")),
        ("a tab behind", PROTOCOL_ERROR, literal("a", "b\t")),
        ("two hosts", PROTOCOL_ERROR, with(b"\x01\x01a\x0f\x17\x01b")),
        ("connection", PROTOCOL_ERROR, literal("connection", "close")),
        ("transfer-encoding", PROTOCOL_ERROR, literal("transfer-encoding", "chunked")),
        ("te", PROTOCOL_ERROR, literal("te", "gzip")),
        ("late pseudo-header", PROTOCOL_ERROR, with(b"\x00\x01a\x01b\x82")),
        ("unknown pseudo-header", PROTOCOL_ERROR, literal(":a", "b")),
        ("a response's", PROTOCOL_ERROR, with(b"\x88")),
        ("two methods", PROTOCOL_ERROR, headers(b"\x83\x83\x86\x84")),
        ("two schemes", PROTOCOL_ERROR, headers(b"\x83\x86\x86\x84")),
        ("two paths", PROTOCOL_ERROR, headers(b"\x83\x86\x84\x84")),
        ("no method", PROTOCOL_ERROR, headers(b"\x86\x84")),
        ("no scheme", PROTOCOL_ERROR, headers(b"\x83\x84")),
        ("no path", PROTOCOL_ERROR, headers(b"\x83\x86")),
        ("an empty path", PROTOCOL_ERROR, headers(b"\x83\x86\x04\x00")),
        ("nothing", PROTOCOL_ERROR, headers(b"")),
        ("too short", PROTOCOL_ERROR, with_length("5", &[frame(DATA, END_STREAM, 1, b"abcd")])),
        ("too long", PROTOCOL_ERROR, with_length("5", &[frame(DATA, 0, 1, b"abcdef")])),
        ("length -1", PROTOCOL_ERROR, with_length("-1", &[])),
        ("length 1e1", PROTOCOL_ERROR, with_length("1e1", &[])),
        ("bodiless", PROTOCOL_ERROR, with(b"\x0f\x0d\x015")),
        ("two lengths", PROTOCOL_ERROR, with(b"\x0f\x0d\x010\x0f\x0d\x010")),
        ("open trailers", PROTOCOL_ERROR, [begun(1), frame(HEADERS, 4, 1, &[])].concat()),
        (
            "pseudo-headers in trailers",
            PROTOCOL_ERROR,
            [begun(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x83")].concat(),
        ),
        ("its own parent", PROTOCOL_ERROR, frame(PRIORITY, 0, 1, &own_parent)),
        (
            "its own parent from the start",
            PROTOCOL_ERROR,
            frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, &[&own_parent, REQUEST].concat()),
        ),
        ("PRIORITY, short", FRAME_SIZE_ERROR, frame(PRIORITY, 0, 1, &[0; 4])),
        (
            "an update of nothing",
            PROTOCOL_ERROR,
            [begun(1), frame(WINDOW_UPDATE, 0, 1, &number(0))].concat(),
        ),
        (
            "a window of 2^31",
            FLOW_CONTROL_ERROR,
            [begun(1), frame(WINDOW_UPDATE, 0, 1, &number((1 << 31) - 1))].concat(),
        ),
        (
            "DATA behind a reset",
            STREAM_CLOSED,
            [begun(1), frame(RST_STREAM, 0, 1, &number(8)), frame(DATA, 0, 1, b"a")].concat(),
        ),
    ];
    for (name, code, input) in broken {
        for piece_bytes in [1, 7, usize::MAX] {
            let input = [&input[..], &request(9)].concat();
            let (output, standing) = converse(&input, piece_bytes);
            assert_eq!(reset_code(&output, 1), Some(code), "{name}, in pieces of {piece_bytes}");
            assert_eq!(standing, Standing::Open, "{name}");
            let answered = frames(&output).iter().any(|f| f.0 == HEADERS && f.2 == 9);
            assert!(answered, "{name}: the next request is answered");
        }
    }
}

#[test]
fn a_request_whose_stream_has_frames_behind_its_end_is_reset_while_it_is_worked_on() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&request(1), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, b"a"), &mut desk.turn());
    assert_eq!(reset_code(&core.take_output(), 1), Some(STREAM_CLOSED));
    assert_eq!(core.in_flight(), 1, "the engine works on it all the same");
    core.handle_answer(1, desk::ok(), &mut desk.turn());
    assert!(core.take_output().is_empty(), "and its answer goes nowhere");
    assert_eq!(core.in_flight(), 0);
}

#[test]
fn whatever_is_not_http2_is_no_connection() {
    for input in [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n", b"\x16\x03\x01"]
    {
        let mut desk = Desk::new();
        let mut core = Http2::new(&LIMITS, 0);
        core.handle_input(input, &mut desk.turn());
        assert_eq!(goaway_code(&core.take_output()), Some(PROTOCOL_ERROR), "{input:?}");
        assert_eq!(core.standing(), Standing::FinishThenLinger);
    }
    for first in [frame(PING, 0, 0, &[0; 8]), request(1), frame(SETTINGS, ACK, 0, &[])] {
        let mut desk = Desk::new();
        let mut core = Http2::new(&LIMITS, 0);
        core.handle_input(&[PREFACE, &first].concat(), &mut desk.turn());
        assert_eq!(goaway_code(&core.take_output()), Some(PROTOCOL_ERROR), "{first:?}");
        assert_eq!(desk.troubles, [Trouble::Protocol]);
    }
}

#[test]
fn what_is_merely_odd_is_taken() {
    let own = |name: &str, frames: Vec<u8>| (name.to_owned(), frames);
    let odd = [
        own("an unknown frame", [frame(77, 0xff, 3, b"abc"), request(1)].concat()),
        own("an unknown setting", [settings(99, 7), request(1)].concat()),
        own("a priority", [frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 9]), request(1)].concat()),
        own("an unsolicited pong", [frame(PING, ACK, 0, &[1; 8]), request(1)].concat()),
        own("padded HEADERS", {
            let block = [&[3], REQUEST, &[0; 3]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &block)
        }),
        own("HEADERS with a priority", {
            let block = [&[0, 0, 0, 3, 200], REQUEST].concat();
            frame(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, 1, &block)
        }),
        own("padded DATA", {
            let data = [&[4], &b"body"[..], &[0; 4]].concat();
            [begun(1), frame(DATA, PADDED | END_STREAM, 1, &data)].concat()
        }),
        own("nothing but padding at the end", {
            [begun(1), frame(DATA, PADDED | END_STREAM, 1, &[2, 0, 0])].concat()
        }),
        own("empty DATA at the end", {
            [begun(1), frame(DATA, 0, 1, b"body"), frame(DATA, END_STREAM, 1, b"")].concat()
        }),
        own("trailers", {
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x01a\x01b");
            [begun(1), frame(DATA, 0, 1, b"body"), trailers].concat()
        }),
        own("a block in pieces", {
            let pieces = REQUEST.chunks(1).map(|piece| frame(CONTINUATION, 0, 1, piece));
            let pieces: Vec<u8> = pieces.flatten().collect();
            let end = frame(CONTINUATION, END_HEADERS, 1, &[]);
            [frame(HEADERS, END_STREAM, 1, &[]), pieces, end].concat()
        }),
        own("a host that is the authority", with(b"\x01\x01a\x0f\x17\x01A")),
        own("te: trailers", with(b"\x00\x02te\x08trailers")),
        own("a late window", [request(1), frame(WINDOW_UPDATE, 0, 1, &number(9))].concat()),
    ];
    for (name, input) in odd {
        for piece_bytes in [1, 7, usize::MAX] {
            let (output, standing) = converse(&input, piece_bytes);
            let answered = frames(&output).iter().any(|f| f.0 == HEADERS && f.2 == 1);
            assert!(answered, "{name}, in pieces of {piece_bytes}");
            assert_eq!((standing, goaway_code(&output)), (Standing::Open, None), "{name}");
            assert_eq!(reset_code(&output, 1), None, "{name}");
        }
    }
}

#[test]
fn what_comes_for_a_stream_that_has_ended_ends_the_connection() {
    for late in [frame(DATA, 0, 1, b"a"), request(1)] {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        core.handle_input(&request(1), &mut desk.turn());
        core.handle_answer(1, desk::ok(), &mut desk.turn());
        core.handle_input(&late, &mut desk.turn());
        assert_eq!(goaway_code(&core.take_output()), Some(STREAM_CLOSED));
    }
}

#[test]
fn a_reset_behind_an_answer_changes_nothing() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&request(1), &mut desk.turn());
    core.handle_answer(1, desk::ok(), &mut desk.turn());
    core.take_output();
    core.handle_input(&frame(RST_STREAM, 0, 1, &number(8)), &mut desk.turn());
    assert!(core.take_output().is_empty());
    assert_eq!((core.standing(), core.in_flight()), (Standing::Open, 0));
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_go_on() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let allowed = LIMITS.connection_requests_max as u32;
    for nth in 0..allowed + 2 {
        core.handle_input(&begun(2 * nth + 1), &mut desk.turn());
    }
    let output = core.take_output();
    let refused = frames(&output).into_iter().filter(|f| f.0 == RST_STREAM).map(|f| f.2);
    let expected = [2 * allowed + 1, 2 * allowed + 3];
    assert_eq!(refused.collect::<Vec<_>>(), expected);
    assert_eq!(reset_code(&output, expected[0]), Some(REFUSED_STREAM));
    assert_eq!(desk.troubles, [Trouble::Streams; 2]);
    // What was on its way to them is nobody's error.
    core.handle_input(&frame(DATA, END_STREAM, expected[0], b"late"), &mut desk.turn());
    core.handle_input(&frame(DATA, END_STREAM, 1, b"body"), &mut desk.turn());
    assert_eq!(desk.requests.len(), 1);
    assert_eq!(core.standing(), Standing::Open);
}
