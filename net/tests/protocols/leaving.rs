//! Connections that are told to leave, because they are old or because the process ends: no
//! request is lost on the way, and nobody waits for ever.

use bytes::Bytes;
use forebay_net::http1::Http1;
use forebay_net::http2::Http2;
use forebay_net::request::{Answer, Core, Standing};

use crate::desk::{self, Desk, LIMITS};
use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, REQUEST, SETTINGS, WINDOW_UPDATE,
    frame, frames, open,
};

/// What the first GOAWAY names: no stream.
const NONE: u32 = i32::MAX as u32;

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST)
}

/// The streams that the GOAWAYs of an output name, and the PINGs' payloads.
fn farewells(core: &mut Http2) -> (Vec<u32>, Vec<Vec<u8>>) {
    let output = frames(&core.take_output());
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
    let goaways = output.iter().filter(|f| f.0 == GOAWAY).map(|f| number(&f.3)).collect();
    let pings = output.into_iter().filter(|f| (f.0, f.1) == (PING, 0)).map(|f| f.3).collect();
    (goaways, pings)
}

#[test]
fn an_old_connection_finishes_its_bodies_and_takes_what_was_on_its_way() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    core.handle_input(&frame(HEADERS, END_HEADERS, 1, REQUEST), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, b"half"), &mut desk.turn());
    core.retire(&mut desk.turn());
    let (goaways, pings) = farewells(&mut core);
    assert_eq!((goaways, pings.len()), (vec![NONE], 1));
    core.handle_input(&request(3), &mut desk.turn());
    core.handle_input(&frame(PING, ACK, 0, &pings[0]), &mut desk.turn());
    assert_eq!(farewells(&mut core).0, [3]);
    core.handle_input(&request(5), &mut desk.turn());
    core.handle_input(&frame(DATA, END_STREAM, 1, b"whole"), &mut desk.turn());
    let bodies: Vec<(u32, Bytes)> =
        desk.requests.iter().map(|r| (r.id.stream, r.body.clone())).collect();
    assert_eq!(bodies, [(3, Bytes::new()), (1, Bytes::from("halfwhole"))]);
    for stream in [1, 3] {
        assert_eq!(core.standing(), Standing::Open);
        core.handle_answer(stream, desk::ok(), &mut desk.turn());
    }
    assert_eq!(core.standing(), Standing::FinishThenLinger);
    let answered = frames(&core.take_output()).iter().filter(|f| f.0 == HEADERS).count();
    assert_eq!(answered, 2);
}

#[test]
fn a_peer_that_does_not_answer_the_ping_gets_the_last_goaway_all_the_same() {
    let leave: [fn(&mut Http2, &mut Desk); 2] =
        [|core, desk| core.retire(&mut desk.turn()), |core, desk| core.drain(&mut desk.turn())];
    for leave in leave {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        core.handle_input(&request(1), &mut desk.turn());
        desk.now = 10;
        leave(&mut core, &mut desk);
        assert_eq!(farewells(&mut core).0, [NONE]);
        assert!(core.owes());
        let due = core.deadline(&LIMITS).expect("a deadline, whatever is in flight");
        assert!(due <= 10 + LIMITS.header_timeout);
        desk.now = due;
        core.handle_timeout(&mut desk.turn());
        assert_eq!(farewells(&mut core).0, [1]);
        assert!(core.owes() && core.standing() == Standing::Open, "its answer");
        core.handle_answer(1, desk::ok(), &mut desk.turn());
        assert_eq!((core.owes(), core.standing()), (false, Standing::FinishThenLinger));
    }
}

#[test]
fn a_draining_process_owes_an_answer_until_its_last_byte_has_room() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let window = [&[0, 4], &10_u32.to_be_bytes()[..]].concat();
    core.handle_input(&frame(SETTINGS, 0, 0, &window), &mut desk.turn());
    core.handle_input(&request(1), &mut desk.turn());
    core.drain(&mut desk.turn());
    let (_, pings) = farewells(&mut core);
    core.handle_input(&frame(PING, ACK, 0, &pings[0]), &mut desk.turn());
    let answer = Answer { body: Bytes::from_static(&[7; 30]), ..desk::ok() };
    core.handle_answer(1, answer, &mut desk.turn());
    for _ in 0..2 {
        assert!(core.owes());
        let more = frame(WINDOW_UPDATE, 0, 1, &10_u32.to_be_bytes());
        core.handle_input(&more, &mut desk.turn());
    }
    assert!(!core.owes());
    let sent = frames(&core.take_output());
    assert_eq!(sent.iter().filter(|f| f.0 == DATA).map(|f| f.3.len()).sum::<usize>(), 30);
}

#[test]
fn no_goaway_names_a_higher_stream_than_an_earlier_one_and_what_it_allows_is_answered() {
    const SEED: u64 = 0x90a;
    let mut draw = desk::random(SEED);
    for round in 0..2_000 {
        let mut desk = Desk::new();
        let mut core = open(&mut desk);
        let (mut goaways, mut pings, mut next) = (vec![], Vec::<Vec<u8>>::new(), 1);
        let (mut taken, mut broken) = (Vec::new(), false);
        for _ in 0..30 {
            match draw() % 8 {
                0 => core.retire(&mut desk.turn()),
                1 => core.drain(&mut desk.turn()),
                2 => {
                    if let Some(ping) = pings.pop() {
                        core.handle_input(&frame(PING, ACK, 0, &ping), &mut desk.turn());
                    }
                }
                3 => {
                    desk.now += draw() % (2 * LIMITS.header_timeout);
                    if core.deadline(&LIMITS).is_some_and(|due| due <= desk.now) {
                        core.handle_timeout(&mut desk.turn());
                    }
                }
                4 if draw().is_multiple_of(8) => {
                    broken = true;
                    core.handle_input(&frame(PING, 0, 0, b"short"), &mut desk.turn());
                }
                _ => {
                    core.handle_input(&request(next), &mut desk.turn());
                    next += 2;
                }
            }
            taken.extend(desk.requests.drain(..).map(|request| request.id.stream));
            if draw().is_multiple_of(2)
                && let Some(stream) = taken.pop()
            {
                core.handle_answer(stream, desk::ok(), &mut desk.turn());
            }
            let (new_goaways, new_pings) = farewells(&mut core);
            goaways.extend(new_goaways);
            pings.extend(new_pings);
        }
        assert!(goaways.is_sorted_by(|a, b| a >= b), "seed {SEED}, round {round}: {goaways:?}");
        let allowed = goaways.last().copied().unwrap_or(NONE);
        let lost = |stream: &&u32| **stream > allowed;
        assert_eq!(taken.iter().find(lost), None, "seed {SEED}, round {round}: {goaways:?}");
        if !broken && core.standing() == Standing::Open {
            for stream in taken.drain(..) {
                core.handle_answer(stream, desk::ok(), &mut desk.turn());
            }
            assert_eq!(core.in_flight(), 0, "seed {SEED}, round {round}");
        }
    }
}

const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe";

#[test]
fn an_old_http_1_connection_ends_with_its_next_answer_and_keeps_the_body_that_is_under_way() {
    for before_body in [true, false] {
        let mut desk = Desk::new();
        let mut core = Http1::new(0);
        if before_body {
            core.retire(&mut desk.turn());
            assert_eq!(core.standing(), Standing::Open, "a request may be on its way");
            core.handle_input(POST, &mut desk.turn());
        } else {
            core.handle_input(POST, &mut desk.turn());
            core.retire(&mut desk.turn());
        }
        core.handle_input(b"llo", &mut desk.turn());
        let request = desk.requests.pop().expect("it is complete");
        assert_eq!(request.body, "hello");
        core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
        let answer = String::from_utf8(core.take_output().to_vec()).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"));
        assert_eq!(core.standing(), Standing::FinishThenLinger);
    }
}

#[test]
fn an_old_http_1_connection_without_requests_is_closed_soon() {
    let mut desk = Desk::new();
    let mut idle = Http1::new(0);
    desk.now = LIMITS.header_timeout;
    idle.retire(&mut desk.turn());
    assert_eq!(idle.standing(), Standing::FinishThenLinger, "it sent nothing for long");
    let mut young = Http1::new(desk.now);
    young.retire(&mut desk.turn());
    assert_eq!(young.deadline(&LIMITS), Some(desk.now + LIMITS.header_timeout));
    desk.now += LIMITS.header_timeout;
    young.handle_timeout(&mut desk.turn());
    assert_eq!(young.standing(), Standing::Finish);
}
