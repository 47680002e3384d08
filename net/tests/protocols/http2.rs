//! HTTP/2 without a socket: what a client made of raw frames may do, and what ends its connection.

use forebay_net::request::{Core, Standing};

use crate::desk::{self, Desk, LIMITS};
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, REQUEST, RST_STREAM, WINDOW_UPDATE, frame,
    frames, goaway_code, open,
};

#[test]
fn a_request_is_the_same_however_its_bytes_are_cut() {
    let mut input = frame(HEADERS, END_HEADERS, 1, REQUEST);
    input.extend(frame(DATA, 0, 1, b"hel"));
    input.extend(frame(HEADERS, END_HEADERS | END_STREAM, 3, REQUEST));
    input.extend(frame(DATA, END_STREAM, 1, b"lo"));
    for step in 1..input.len() {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        for piece in input.chunks(step) {
            core.handle_input(piece, &mut desk.turn());
        }
        let mut bodies: Vec<(u32, Vec<u8>)> =
            desk.requests.iter().map(|r| (r.id.stream, r.body.to_vec())).collect();
        bodies.sort();
        assert_eq!(bodies, [(1, b"hello".to_vec()), (3, Vec::new())], "in steps of {step}");
        assert!((5..=4096).contains(&desk.reserved), "{} for 5 bytes", desk.reserved);
        assert_eq!(core.in_flight(), 2);
    }
}

#[test]
fn answers_may_come_in_any_order_and_only_once() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    for stream in [1, 3, 5] {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST);
        core.handle_input(&request, &mut desk.turn());
    }
    for stream in [3, 5, 3, 1, 99] {
        core.handle_answer(stream, desk::ok(), &mut desk.turn());
    }
    let answered: Vec<u32> = frames(&core.take_output())
        .into_iter()
        .filter(|frame| frame.0 == HEADERS)
        .map(|frame| frame.2)
        .collect();
    assert_eq!(answered, [3, 5, 1]);
    assert_eq!(core.in_flight(), 0);
}

#[test]
fn the_room_that_a_body_gets_is_reserved_and_in_proportion_to_what_has_come() {
    let message = 40_000u32;
    let mut body = [&[0][..], &message.to_be_bytes()].concat();
    body.resize(5 + message as usize, 7);
    for (came, room) in [(5, 4096), (1_000, 4096), (3_000, 24_000), (8_000, 40_005)] {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        core.handle_input(&frame(HEADERS, END_HEADERS, 1, &grpc_request()), &mut desk.turn());
        core.handle_input(&frame(DATA, 0, 1, &body[..came]), &mut desk.turn());
        assert_eq!(desk.reserved, room, "after {came} bytes");
        for (nth, piece) in body[came..].chunks(10_000).enumerate() {
            let ends = came + 10_000 * nth + piece.len() == body.len();
            let flags = if ends { END_STREAM } else { 0 };
            core.handle_input(&frame(DATA, flags, 1, piece), &mut desk.turn());
        }
        let request = desk.requests.pop().expect("the body is whole");
        assert_eq!((&request.body[..], request.reserved), (&body[..], desk.reserved));
        assert!(desk.reserved >= body.len());
    }
}

#[test]
fn a_body_that_is_longer_than_its_prefix_says_does_not_grow_byte_by_byte() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, &grpc_request()), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, &[0, 0, 0, 0, 1]), &mut desk.turn());
    let piece = frame(DATA, 0, 1, &[7; 64]);
    for _ in 0..8_000 {
        core.handle_input(&piece, &mut desk.turn());
        core.take_output();
    }
    assert!(desk.reserved >= 512_000, "the body is kept");
    assert!(desk.reservations < 40, "{} times for 500 KB", desk.reservations);
}

/// The head of a call.
fn grpc_request() -> Vec<u8> {
    [REQUEST, b"\x0f\x10\x10application/grpc"].concat()
}

#[test]
fn a_client_that_resets_in_the_middle_of_a_body_leaves_no_reservation() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, b"half"), &mut desk.turn());
    assert!((4..=4096).contains(&desk.reserved), "{} for 4 bytes", desk.reserved);
    core.handle_input(&frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()), &mut desk.turn());
    assert_eq!((desk.reserved, desk.abandoned), (0, 1));
    core.handle_input(&frame(HEADERS, END_HEADERS, 3, REQUEST), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 3, b"half"), &mut desk.turn());
    core.handle_lost(&mut desk.turn());
    assert_eq!((desk.reserved, desk.abandoned), (0, 2));
}

#[test]
fn credit_for_a_body_comes_back_as_it_is_read() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    let chunk = vec![0; 16 << 10];
    for _ in 0..63 {
        core.handle_input(&frame(DATA, 0, 1, &chunk), &mut desk.turn());
    }
    let credit: u32 = frames(&core.take_output())
        .into_iter()
        .filter(|frame| frame.0 == WINDOW_UPDATE && frame.2 == 1)
        .map(|frame| u32::from_be_bytes(frame.3.try_into().expect("four bytes")))
        .sum();
    assert!(credit >= 512 << 10, "{credit} bytes of credit for a body of a megabyte");
}

#[test]
fn rapid_resets_end_the_connection_and_calm_is_asked_for() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let mut output = Vec::new();
    for n in 0..2_000u32 {
        let stream = 2 * n + 1;
        let mut flood = frame(HEADERS, END_HEADERS, stream, REQUEST);
        flood.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        core.handle_input(&flood, &mut desk.turn());
        output.extend_from_slice(&core.take_output());
        if core.standing() != Standing::Open {
            break;
        }
    }
    assert_eq!(goaway_code(&output), Some(11), "ENHANCE_YOUR_CALM");
    assert_eq!(core.standing(), Standing::FinishThenLinger);
    assert_eq!(desk.reserved, 0);
}

#[test]
fn a_header_list_over_its_limit_never_becomes_a_request() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let mut block = REQUEST.to_vec();
    for _ in 0..LIMITS.header_bytes_max / 40 + 10 {
        block.extend(b"\x00\x05x-pad\x28");
        block.extend([b'v'; 40]);
    }
    core.handle_input(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block), &mut desk.turn());
    assert!(desk.requests.is_empty());
    let ours = frames(&core.take_output());
    assert!(ours.iter().any(|frame| frame.2 == 1 || frame.0 == GOAWAY), "{ours:?}");
}

#[test]
fn draining_says_goaway_and_still_answers_what_is_in_flight() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST), &mut desk.turn());
    core.drain(&mut desk.turn());
    let output = core.take_output();
    assert_eq!(goaway_code(&output), Some(0), "a first GOAWAY, without an error");
    // The client answers the ping that marks the first GOAWAY; then the last stream is known.
    for (kind, flags, _, payload) in frames(&output) {
        if kind == 6 && flags == 0 {
            core.handle_input(&frame(6, 1, 0, &payload), &mut desk.turn());
        }
    }
    assert_eq!(core.in_flight(), 1);
    core.handle_answer(1, desk::ok(), &mut desk.turn());
    let answered = frames(&core.take_output()).iter().any(|f| f.0 == HEADERS && f.2 == 1);
    assert!(answered);
    assert_eq!(core.standing(), Standing::FinishThenLinger);
}

#[test]
fn random_frames_never_panic_and_never_leave_a_reservation() {
    const SEED: u64 = 0x2b1d;
    let mut draw = desk::random(SEED);
    for _ in 0..3_000 {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        for _ in 0..draw() % 20 {
            let kind = (draw() % 11) as u8;
            let flags = draw() as u8 & 0x2d;
            let stream = (draw() % 8) as u32;
            let payload: Vec<u8> = match draw() % 3 {
                0 => REQUEST.to_vec(),
                1 => (0..draw() % 40).map(|_| draw() as u8).collect(),
                _ => (draw() as u32).to_be_bytes().to_vec(),
            };
            core.handle_input(&frame(kind, flags, stream, &payload), &mut desk.turn());
            core.take_output();
            while let Some(request) = desk.requests.pop() {
                desk.reserved -= request.reserved;
                core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
            }
        }
        core.handle_lost(&mut desk.turn());
        assert_eq!(desk.reserved, 0, "seed {SEED}");
    }
}
