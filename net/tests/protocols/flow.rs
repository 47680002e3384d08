//! Answers under flow control, what waits for whom and for how long, and how a connection ends.

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::http2::Http2;
use forebay_net::request::{Answer, Core, Standing, Trouble};
use http::{HeaderName, HeaderValue};

use crate::desk::{self, Desk, LIMITS};
use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, REQUEST, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, frames, goaway_code, open, reset_code,
};

const SEED: u64 = 0x000f_1077;

fn number(value: usize) -> [u8; 4] {
    (value as u32).to_be_bytes()
}

fn with_body(bytes: usize) -> Answer {
    let trailer = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    Answer { body: Bytes::from(vec![7; bytes]), trailers: Fields::from([trailer]), ..desk::ok() }
}

fn initial_window(bytes: usize) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4], &number(bytes)[..]].concat())
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST)
}

/// One answer as its client sees it.
#[derive(Default)]
struct Seen {
    window: i64,
    body_bytes: usize,
    ended: bool,
}

#[test]
fn answers_keep_within_every_window_and_come_whole_once_there_is_room() {
    let mut draw = desk::random(SEED);
    for round in 0..300 {
        let mut below = |bound: usize| draw() as usize % bound;
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        let mut initial = below(100);
        core.handle_input(&initial_window(initial), &mut desk.turn());
        let bodies: Vec<usize> = (0..1 + below(5)).map(|_| below(60_000)).collect();
        let mut seen: Vec<Seen> = bodies.iter().map(|_| Seen::default()).collect();
        let mut connection = 65_535i64;
        for (nth, bytes) in bodies.iter().enumerate() {
            let stream = 2 * nth as u32 + 1;
            seen[nth].window = initial as i64;
            core.handle_input(&request(stream), &mut desk.turn());
            core.handle_answer(stream, with_body(*bytes), &mut desk.turn());
        }
        for step in 0.. {
            assert!(step < 10_000, "seed {SEED}, round {round}: the answers never end");
            for (kind, flags, stream, payload) in frames(&core.take_output()) {
                let Some(seen) = (stream as usize / 2 < seen.len() && stream > 0)
                    .then(|| &mut seen[stream as usize / 2])
                else {
                    continue;
                };
                if kind == DATA {
                    seen.body_bytes += payload.len();
                    seen.window -= payload.len() as i64;
                    connection -= payload.len() as i64;
                    assert!(seen.window >= 0 && connection >= 0, "seed {SEED}, round {round}");
                    assert!(!payload.is_empty() && payload.len() <= 16 << 10);
                }
                assert!(!seen.ended, "nothing behind the end");
                seen.ended = flags & END_STREAM != 0;
            }
            if seen.iter().all(|seen| seen.ended) {
                break;
            }
            let (nth, more) = (below(seen.len()), 1 + below(20_000));
            let input = match below(3) {
                0 => {
                    connection += more as i64;
                    frame(WINDOW_UPDATE, 0, 0, &number(more))
                }
                1 => {
                    seen[nth].window += more as i64;
                    frame(WINDOW_UPDATE, 0, 2 * nth as u32 + 1, &number(more))
                }
                _ => {
                    let before = std::mem::replace(&mut initial, below(2_000));
                    let change = initial as i64 - before as i64;
                    seen.iter_mut().for_each(|seen| seen.window += change);
                    initial_window(initial)
                }
            };
            core.handle_input(&input, &mut desk.turn());
        }
        let came: Vec<usize> = seen.iter().map(|seen| seen.body_bytes).collect();
        assert_eq!(came, bodies, "seed {SEED}, round {round}");
        assert_eq!(core.in_flight(), 0);
    }
}

#[test]
fn an_answer_that_gets_no_room_is_given_up_after_the_write_timeout() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&initial_window(10), &mut desk.turn());
    core.handle_input(&request(1), &mut desk.turn());
    desk.now = 50;
    core.handle_answer(1, with_body(11), &mut desk.turn());
    assert_eq!(core.in_flight(), 0);
    assert_eq!(core.deadline(&LIMITS), Some(50 + LIMITS.write_timeout));
    core.take_output();
    desk.now = 50 + LIMITS.write_timeout;
    core.handle_timeout(&mut desk.turn());
    let output = core.take_output();
    assert_eq!(reset_code(&output, 1), Some(8), "CANCEL");
    assert_eq!((core.standing(), goaway_code(&output)), (Standing::Open, None));
    assert_eq!(desk.troubles, [Trouble::Window]);
    assert_eq!(core.deadline(&LIMITS), Some(desk.now + LIMITS.idle_timeout));
}

#[test]
fn a_long_header_block_is_cut_into_frames_that_the_peer_takes() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&request(1), &mut desk.turn());
    let value = HeaderValue::from_str(&"m".repeat(40_000)).unwrap();
    let headers = Fields::from([(HeaderName::from_static("grpc-message"), value)]);
    core.handle_answer(1, Answer { headers, ..desk::ok() }, &mut desk.turn());
    let sent = frames(&core.take_output());
    let kinds: Vec<(u8, u8)> = sent.iter().map(|frame| (frame.0, frame.1)).collect();
    assert_eq!(kinds, [(HEADERS, END_STREAM), (9, 0), (9, END_HEADERS)]);
    let block: Vec<u8> = sent.into_iter().flat_map(|frame| frame.3).collect();
    assert!(block.starts_with(b"\x88\x00\x0cgrpc-message") && block.ends_with(&[b'm'; 40_000]));
}

#[test]
fn a_peer_that_makes_its_table_smaller_hears_that_we_use_none() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let none = [&[0, 1], &number(0)[..]].concat();
    core.handle_input(&frame(SETTINGS, 0, 0, &none), &mut desk.turn());
    for (stream, block) in [(1, &b"\x20\x88"[..]), (3, b"\x88")] {
        core.handle_input(&request(stream), &mut desk.turn());
        core.handle_answer(stream, desk::ok(), &mut desk.turn());
        let sent = frames(&core.take_output()).into_iter().find(|frame| frame.0 == HEADERS);
        assert_eq!(sent.expect("an answer").3, block);
    }
}

#[test]
fn each_wait_has_its_deadline() {
    let mut desk = Desk::new();
    let mut core = Http2::new(&LIMITS, 5);
    assert_eq!(core.deadline(&LIMITS), Some(5 + LIMITS.header_timeout), "for the preface");
    desk.now = 10;
    core.handle_input(&PREFACE[..10], &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(5 + LIMITS.header_timeout), "for all of it");
    core.handle_input(&PREFACE[10..], &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(5 + LIMITS.idle_timeout), "for the settings");
    core.handle_input(&frame(SETTINGS, 0, 0, &[]), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(10 + LIMITS.idle_timeout));
    desk.now = 20;
    let request = frame(HEADERS, END_HEADERS, 1, REQUEST);
    core.handle_input(&request[..3], &mut desk.turn());
    desk.now = 25;
    core.handle_input(&request[3..12], &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(20 + LIMITS.header_timeout), "for a frame's rest");
    core.handle_input(&request[12..], &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(25 + LIMITS.body_timeout));
    desk.now = 30;
    core.handle_input(&frame(DATA, 0, 1, b"half"), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(30 + LIMITS.body_timeout));
    core.handle_input(&frame(DATA, END_STREAM, 1, b"half"), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), None, "now it is for the engine to answer");
    desk.now = 40;
    core.handle_input(&frame(HEADERS, 0, 3, REQUEST), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(40 + LIMITS.header_timeout), "for a CONTINUATION");
    desk.now = 40 + LIMITS.header_timeout;
    core.handle_timeout(&mut desk.turn());
    assert_eq!(goaway_code(&core.take_output()), Some(11));
    assert_eq!(core.standing(), Standing::FinishThenLinger);
    assert_eq!(desk.troubles, [Trouble::Stalled]);
}

#[test]
fn a_busy_connection_whose_reads_always_end_within_a_frame_is_never_late() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let calls: Vec<u8> = (0..2_000).flat_map(|nth| request(2 * nth + 1)).collect();
    for piece in calls.chunks(request(1).len() + 1) {
        desk.now += LIMITS.header_timeout / 5;
        assert!(core.deadline(&LIMITS).is_none_or(|deadline| deadline > desk.now));
        core.handle_input(piece, &mut desk.turn());
        for request in std::mem::take(&mut desk.requests) {
            core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
        }
        core.take_output();
    }
    assert_eq!(core.standing(), Standing::Open);
}

#[test]
fn a_body_that_stalls_is_answered_and_its_rest_is_waited_for_once_more() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, b"half"), &mut desk.turn());
    desk.now = LIMITS.body_timeout;
    core.handle_timeout(&mut desk.turn());
    assert_eq!(desk.reserved, 0);
    let answer = frames(&core.take_output()).into_iter().find(|f| f.0 == HEADERS && f.2 == 1);
    assert!(answer.expect("an answer").3.ends_with(b"408"));
    desk.now = 2 * LIMITS.body_timeout;
    assert_eq!(core.deadline(&LIMITS), Some(desk.now));
    core.handle_timeout(&mut desk.turn());
    assert_eq!(reset_code(&core.take_output(), 1), Some(0), "NO_ERROR");
    assert_eq!(core.standing(), Standing::Open);
}

#[test]
fn a_refused_body_is_thrown_away_as_far_as_is_bearable() {
    let mut desk = Desk::new();
    desk.refuse = true;
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    let mut output = core.take_output().to_vec();
    let piece = frame(DATA, 0, 1, &[0; 16 << 10]);
    for _ in 0..100 {
        core.handle_input(&piece, &mut desk.turn());
        output.extend_from_slice(&core.take_output());
    }
    assert!(frames(&output).iter().any(|f| f.0 == HEADERS && f.1 & END_STREAM != 0));
    assert_eq!(reset_code(&output, 1), Some(0), "NO_ERROR");
    let credit = |stream: u32| -> u32 {
        let all = frames(&output).into_iter();
        let updates = all.filter(|f| f.0 == WINDOW_UPDATE && f.2 == stream);
        updates.map(|f| u32::from_be_bytes(f.3.try_into().unwrap())).sum()
    };
    assert!(credit(1) >= 512 << 10, "the rest of the body is not stalled");
    assert!(credit(0) >= 1 << 20, "what came is given back, the reset stream's too");
    assert_eq!((core.standing(), desk.reserved), (Standing::Open, 0));
}

#[test]
fn more_data_than_a_window_allows_is_an_error() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    // All in one turn, before any credit can come back: the stream's credit does, the
    // connection's is due at the end.
    let flood: Vec<u8> = (0..300).flat_map(|_| frame(DATA, 0, 1, &[0; 16 << 10])).collect();
    core.handle_input(&flood, &mut desk.turn());
    assert_eq!(goaway_code(&core.take_output()), Some(3), "FLOW_CONTROL_ERROR");
    assert_eq!(desk.reserved, 0);
}

#[test]
fn a_request_that_comes_between_the_two_goaways_is_taken_and_a_later_one_is_not() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&request(1), &mut desk.turn());
    core.drain(&mut desk.turn());
    let first = frames(&core.take_output());
    assert_eq!(first[0].3[..4], number(i32::MAX as usize), "the first names no stream");
    core.handle_input(&request(3), &mut desk.turn());
    let pong = frame(PING, ACK, 0, &first[1].3);
    core.handle_input(&[pong, request(5)].concat(), &mut desk.turn());
    core.handle_input(&request(7), &mut desk.turn());
    assert_eq!(desk.requests.len(), 3, "one came with the PING's answer");
    let second = frames(&core.take_output());
    assert_eq!((second[0].0, &second[0].3[..4]), (GOAWAY, &number(5)[..]));
    core.handle_answer(1, desk::ok(), &mut desk.turn());
    assert_eq!(core.standing(), Standing::Open);
    core.handle_answer(3, desk::ok(), &mut desk.turn());
    core.handle_answer(5, desk::ok(), &mut desk.turn());
    assert_eq!(core.standing(), Standing::FinishThenLinger);
}

#[test]
fn a_peer_that_goes_or_sends_no_more_still_gets_its_answers() {
    let goes: [fn(&mut Http2, &mut Desk); 2] = [
        |core, desk| core.handle_eof(&mut desk.turn()),
        |core, desk| core.handle_input(&frame(GOAWAY, 0, 0, &[0; 8]), &mut desk.turn()),
    ];
    for go in goes {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        core.handle_input(&request(1), &mut desk.turn());
        go(&mut core, &mut desk);
        assert_eq!(core.standing(), Standing::Open);
        core.handle_answer(1, with_body(100), &mut desk.turn());
        assert!(frames(&core.take_output()).iter().any(|f| f.0 == DATA && f.2 == 1));
        if core.standing() == Standing::Open {
            // Who said that it goes is still heard, and not for long.
            core.handle_input(&frame(PING, 0, 0, &[0; 8]), &mut desk.turn());
            assert_eq!(core.take_output().len(), 17);
            assert_eq!(core.deadline(&LIMITS), Some(LIMITS.header_timeout));
            desk.now = LIMITS.header_timeout;
            core.handle_timeout(&mut desk.turn());
        }
        assert_eq!(core.standing(), Standing::FinishThenLinger);
    }
}

#[test]
fn a_peer_that_leaves_in_the_middle_of_a_body_is_let_go_at_once() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, b"half"), &mut desk.turn());
    core.handle_eof(&mut desk.turn());
    assert_eq!((desk.reserved, desk.abandoned), (0, 1));
    assert_eq!(core.standing(), Standing::FinishThenLinger);
}

#[test]
fn a_connection_that_idles_is_told_so_and_then_closed() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    desk.now = LIMITS.idle_timeout;
    core.handle_timeout(&mut desk.turn());
    assert_eq!(goaway_code(&core.take_output()), Some(0));
    assert_eq!(core.deadline(&LIMITS), Some(desk.now + LIMITS.header_timeout));
    desk.now += LIMITS.header_timeout;
    core.handle_timeout(&mut desk.turn());
    let last = frames(&core.take_output());
    assert_eq!((last[0].0, &last[0].3[..4]), (GOAWAY, &number(0)[..]), "no stream was opened");
    assert_eq!(core.standing(), Standing::FinishThenLinger);
    core.handle_input(&frame(RST_STREAM, 0, 1, &number(8)), &mut desk.turn());
    assert!(core.take_output().is_empty(), "what comes now is nobody's business");
}
