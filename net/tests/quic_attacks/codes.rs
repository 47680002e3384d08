//! Who breaks the rules hears which one, by the code that the standards give it: those of QUIC
//! itself (RFC 9000, 20.1), of HTTP/3 (RFC 9114, 8.1) and of QPACK (RFC 9204, 6). It costs its own
//! connection and nobody else's.

use std::sync::Arc;

use forebay_net::request::Trouble;
use quinn_proto::{ConnectionError, Dir};

use crate::forge::{self, Forge, Space, crypto_frame, frame, parameters, put_parameter};
use crate::stage::Stage;
use crate::wire;

const FLOW_CONTROL_ERROR: u64 = 0x03;
const STREAM_LIMIT_ERROR: u64 = 0x04;
const STREAM_STATE_ERROR: u64 = 0x05;
const FINAL_SIZE_ERROR: u64 = 0x06;
const FRAME_ENCODING_ERROR: u64 = 0x07;
const TRANSPORT_PARAMETER_ERROR: u64 = 0x08;
const PROTOCOL_VIOLATION: u64 = 0x0a;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0x0d;
/// An alert of TLS (RFC 9001, 4.8).
const CRYPTO_ERROR: u64 = 0x100;

const BEYOND_STREAMS: u64 = (1 << 60) + 1;

#[test]
fn frames_that_must_not_come_end_their_connection_with_the_standards_code() {
    let id_frame = |numbers: &[u64], id_bytes: usize| {
        let id = vec![7; id_bytes + 16];
        [frame(&[0x18]), frame(numbers), vec![id_bytes as u8], id].concat()
    };
    let cases = [
        ("a frame of an unknown kind", vec![0x3f], FRAME_ENCODING_ERROR),
        ("HANDSHAKE_DONE from a client", vec![0x1e], PROTOCOL_VIOLATION),
        ("NEW_TOKEN from a client", frame(&[0x07, 1, 9]), PROTOCOL_VIOLATION),
        ("no frame at all", vec![], PROTOCOL_VIOLATION),
        ("DATAGRAM, which nobody allowed", frame(&[0x31, 1, 9]), PROTOCOL_VIOLATION),
        ("an acknowledgement of nothing", frame(&[0x02, 5_000, 0, 0, 0]), PROTOCOL_VIOLATION),
        ("an acknowledgement below 0", frame(&[0x02, 0, 0, 0, 5]), FRAME_ENCODING_ERROR),
        ("STREAM on ours, never opened", frame(&[0x0a, 1, 1, 9]), STREAM_STATE_ERROR),
        ("STREAM on one that we write", frame(&[0x0a, 3, 1, 9]), STREAM_STATE_ERROR),
        ("RESET_STREAM on one that we write", frame(&[0x04, 3, 0, 0]), STREAM_STATE_ERROR),
        ("STOP_SENDING on one that we read", frame(&[0x05, 2, 0]), STREAM_STATE_ERROR),
        ("STOP_SENDING on ours, never opened", frame(&[0x05, 1, 0]), STREAM_STATE_ERROR),
        ("MAX_STREAM_DATA on one that we read", frame(&[0x11, 2, 5]), STREAM_STATE_ERROR),
        ("MAX_STREAM_DATA on ours, never opened", frame(&[0x11, 1, 5]), STREAM_STATE_ERROR),
        ("STREAM_DATA_BLOCKED on one that we write", frame(&[0x15, 3, 5]), STREAM_STATE_ERROR),
        ("one request's stream too many", frame(&[0x0a, 4 * 16, 1, 9]), STREAM_LIMIT_ERROR),
        ("a stream of one direction too many", frame(&[0x0a, 34, 1, 9]), STREAM_LIMIT_ERROR),
        ("RESET_STREAM of one too many", frame(&[0x04, 4 * 16, 0, 0]), STREAM_LIMIT_ERROR),
        (
            "MAX_STREAMS beyond what ids can name",
            frame(&[0x12, BEYOND_STREAMS]),
            FRAME_ENCODING_ERROR,
        ),
        ("STREAMS_BLOCKED beyond it", frame(&[0x16, BEYOND_STREAMS]), FRAME_ENCODING_ERROR),
        ("an ID that retires later ones", id_frame(&[1, 2], 8), FRAME_ENCODING_ERROR),
        ("an ID of no byte", id_frame(&[1, 0], 0), FRAME_ENCODING_ERROR),
        ("an ID of 21 bytes", id_frame(&[1, 0], 21), FRAME_ENCODING_ERROR),
        ("an ID retired that was never given", frame(&[0x19, 1_000]), PROTOCOL_VIOLATION),
        ("more than a stream's window", frame(&[0x0e, 0, 25_000, 1, 9]), FLOW_CONTROL_ERROR),
        ("bytes behind the end", frame(&[0x0b, 0, 1, 9, 0x0e, 0, 5, 1, 9]), FINAL_SIZE_ERROR),
        ("an end before the bytes", frame(&[0x0a, 0, 2, 9, 9, 0x04, 0, 0, 1]), FINAL_SIZE_ERROR),
        ("TLS far ahead of itself", crypto_frame(100_000, b"?"), CRYPTO_BUFFER_EXCEEDED),
        ("TLS's own update of keys", crypto_frame(0, &[24, 0, 0, 1, 0]), CRYPTO_ERROR + 10),
    ];
    let mut stage = Stage::usual();
    let mut honest = stage.caller(1);
    for (number, (what, frames, code)) in cases.iter().enumerate() {
        let address = ([10, 0, 2, number as u8], 1024).into();
        let mut forge = Forge::established(&mut stage, address);
        forge.say(&mut stage, Space::Data, frames);
        assert_eq!(forge.closed, Some((*code, false)), "{what}");
    }
    let mut forge = Forge::established(&mut stage, ([10, 0, 3, 1], 1024).into());
    let packet = forge.packet(Space::Data, 0x18, &[0x01]);
    stage.deliver(forge.address, &packet);
    forge.hear(&mut stage);
    assert_eq!(forge.closed, Some((PROTOCOL_VIOLATION, false)), "bits that are reserved");
    stage.assert_serves(&mut honest);
    stage.assert_ends_empty();
}

#[test]
fn frames_that_must_wait_for_the_handshakes_end_fail_it() {
    let frames = [
        ("STREAM", frame(&[0x0a, 0, 1, 9])),
        ("RESET_STREAM", frame(&[0x04, 0, 0, 0])),
        ("MAX_DATA", frame(&[0x10, 9])),
        ("NEW_CONNECTION_ID", [frame(&[0x18, 1, 0, 8]), vec![7; 24]].concat()),
        ("PATH_CHALLENGE", vec![0x1a, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("NEW_TOKEN", frame(&[0x07, 1, 9])),
        ("HANDSHAKE_DONE", vec![0x1e]),
    ];
    let mut stage = Stage::usual();
    let mut times = 0;
    for space in [Space::Initial, Space::Handshake] {
        for (what, frames) in &frames {
            times += 1;
            let mut forge = Forge::new(([10, 0, 2, times], 1024).into());
            forge.begin(&mut stage);
            let mut frames = frames.clone();
            if space == Space::Initial {
                frames.resize(forge::INITIAL_FRAMES_BYTES, 0);
            }
            forge.say(&mut stage, space, &frames);
            assert_eq!(forge.closed, Some((PROTOCOL_VIOLATION, false)), "{what} in {space:?}");
        }
    }
    let stats = stage.cores[0].stats();
    assert_eq!((stats.handshaking, stats.handshakes), (0, 0), "{stats:?}");
    assert_eq!(stats.handshakes_failed, u64::from(times), "{stats:?}");
    stage.assert_ends_empty();
}

#[test]
fn transport_parameters_that_can_not_be_fail_the_handshake() {
    let with = |id: u64, value: &[u8]| {
        let mut out = parameters();
        put_parameter(&mut out, id, value);
        out
    };
    let number = |id: u64, value: u64| with(id, &forge::varint(value));
    let mut without_id = Vec::new();
    put_parameter(&mut without_id, 0x04, &forge::varint(1 << 20));
    let mut with_another_id = without_id.clone();
    put_parameter(&mut with_another_id, 0x0f, b"another!");
    let cases = [
        ("no ID of the client's", without_id),
        ("an ID that its packets do not have", with_another_id),
        ("an ID that only a server can tell", with(0x00, b"first id")),
        ("a token that only a server gives", with(0x02, &[7; 16])),
        ("an address that only a server prefers", with(0x0d, &[7; 41])),
        ("the ID of a Retry, from a client", with(0x10, b"retry id")),
        ("datagrams too short for QUIC", number(0x03, 1_199)),
        ("an exponent above 20", number(0x0a, 21)),
        ("a delay of 2^14 ms", number(0x0b, 1 << 14)),
        ("one active ID", number(0x0e, 1)),
        ("more streams than ids can name", number(0x08, BEYOND_STREAMS)),
        ("a parameter twice", number(0x04, 5)),
        ("a number that is cut off", with(0x01, &[0x80])),
    ];
    let mut stage = Stage::usual();
    for (number, (what, parameters)) in cases.into_iter().enumerate() {
        let config = Arc::new(forge::config(&[b"h3"]));
        let address = ([10, 0, 2, number as u8], 1024).into();
        let mut forge = Forge::with(address, config, parameters);
        forge.shake_hands(&mut stage);
        assert_eq!(forge.closed, Some((TRANSPORT_PARAMETER_ERROR, false)), "{what}");
    }
    for protocols in [&[][..], &[&b"h2"[..], b"hq-interop"]] {
        let config = Arc::new(forge::config(protocols));
        let mut forge = Forge::with(([10, 0, 3, 1], 1024).into(), config, parameters());
        forge.shake_hands(&mut stage);
        assert_eq!(forge.closed, Some((CRYPTO_ERROR + 120, false)), "{protocols:?}");
    }
    assert_eq!(stage.stats(|stats| stats.handshakes), 0);
    stage.assert_ends_empty();
}

#[test]
fn what_breaks_http3_or_qpack_ends_its_connection_with_the_standards_code_and_no_other() {
    use Dir::{Bi, Uni};
    // The stream's bytes, whether it ends there, and the code.
    let cases: [(Dir, &[u8], bool, u64); 27] = [
        (Bi, b"\0\x01a", false, 0x105),                           // DATA first
        (Bi, b"\x04\0", false, 0x105),                            // SETTINGS
        (Bi, b"\x03\x01\0", false, 0x105),                        // CANCEL_PUSH
        (Bi, b"\x07\x01\0", false, 0x105),                        // GOAWAY
        (Bi, b"\x0d\x01\0", false, 0x105),                        // MAX_PUSH_ID
        (Bi, b"\x05\x01\0", false, 0x105),                        // PUSH_PROMISE
        (Bi, b"\x02\0", false, 0x105),                            // HTTP/2's PRIORITY
        (Bi, b"\x08\0", false, 0x105),                            // HTTP/2's WINDOW_UPDATE
        (Bi, b"\x01\x05\0\0", true, 0x106),                       // cut off
        (Bi, b"\x01\x03\0\0\x80", false, 0x200),                  // a dynamic entry
        (Bi, b"\x01\x03\x02\0\xd4", false, 0x200),                // an insertion to wait for
        (Bi, b"\x01\x04\0\0\xff\x24", false, 0x200),              // beyond the static table
        (Uni, b"\0\0\0", false, 0x10a),                           // no settings first
        (Uni, b"\0\x07\x01\0", false, 0x10a),                     // GOAWAY before them
        (Uni, b"\0\x04\0\x04\0", false, 0x105),                   // settings twice
        (Uni, b"\0\x04\0\0\0", false, 0x105),                     // DATA
        (Uni, b"\0\x04\0\x01\0", false, 0x105),                   // HEADERS
        (Uni, b"\0\x04\x02\x02\0", false, 0x109),                 // a setting of HTTP/2
        (Uni, b"\0\x04\x04\x06\x01\x06\x01", false, 0x109),       // a setting twice
        (Uni, b"\0\x04\0", true, 0x104),                          // the control stream ends
        (Uni, b"\0\x04\0\x07\x01\x04\x07\x01\x08", false, 0x108), // a GOAWAY grows
        (Uni, b"\0\x04\0\x0d\x01\x04\x0d\x01\x03", false, 0x108), // MAX_PUSH_ID shrinks
        (Uni, b"\x01", false, 0x103),                             // a client's push
        (Uni, b"\x02\x3f\x10", false, 0x201),                     // a table with room
        (Uni, b"\x02\xc0\x01a", false, 0x201),                    // an entry
        (Uni, b"\x03\x01", false, 0x202),                         // counts what never came
        (Uni, b"\x03", true, 0x104),                              // the decoder's stream ends
    ];
    let mut stage = Stage::usual();
    let mut honest = stage.caller(1);
    for (number, (dir, bytes, ends, code)) in cases.into_iter().enumerate() {
        let mut caller = stage.caller(10 + number as u8);
        caller.open(dir, bytes, ends).expect("there is room");
        stage.exchange(&mut [&mut caller], 5);
        assert_eq!(caller.close_code(), Some(code), "{}: {:?}", bytes.escape_ascii(), caller.lost);
        let Some(ConnectionError::ApplicationClosed(close)) = &caller.lost else { unreachable!() };
        assert!(!close.reason.is_empty(), "it says what was wrong");
        assert_eq!(std::mem::take(&mut stage.porter.troubles), [Trouble::Protocol], "{code:#x}");
    }
    for kind in [0, 2, 3] {
        let mut caller = stage.caller(100 + kind);
        for _ in 0..2 {
            caller.open(Dir::Uni, &[kind], false).expect("there is room");
        }
        stage.exchange(&mut [&mut caller], 5);
        assert_eq!(caller.close_code(), Some(0x103), "a second stream of kind {kind}");
    }
    stage.assert_serves(&mut honest);
    stage.assert_ends_empty();
}

#[test]
fn what_breaks_one_request_ends_its_stream_and_the_others_go_on() {
    let head = |section: &[u8]| {
        let mut out = Vec::new();
        wire::put_frame(&mut out, 1, section);
        out
    };
    let cases = [
        ("no request at all", vec![], 0x10d),
        ("nothing but an unknown frame", b"\x21\x01?".to_vec(), 0x10d),
        ("a method alone", head(b"\0\0\xd4"), 0x10e),
        ("no authority", head(b"\0\0\xd4\xd7\x51\x02/a"), 0x10e),
        ("three bytes, of which none comes", head(b"\0\0\xd4\xd7\x50\x01a\xc1\x54\x013"), 0x10e),
    ];
    let mut stage = Stage::usual();
    let mut caller = stage.caller(1);
    for (what, bytes, code) in cases {
        let stream = caller.open(Dir::Bi, &bytes, true).expect("there is room");
        let other = caller.ask(b"meanwhile");
        stage.exchange(&mut [&mut caller], 5);
        assert_eq!(caller.reset_code(stream), Some(code), "{what}");
        assert_eq!(caller.answer(other), Some((200, b"meanwhile".to_vec())));
        assert_eq!(std::mem::take(&mut stage.porter.troubles), [Trouble::Malformed], "{what}");
    }
    stage.assert_serves(&mut caller);
    stage.assert_ends_empty();
}
