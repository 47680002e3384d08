//! Streamed requests: messages cut anywhere, answers that go on, and every way that a stream ends.

use bytes::Bytes;
use forebay_net::grpc;
use forebay_net::http2::Http2;
use forebay_net::request::{Answer, Core, Part, Refusal, Standing, Trouble};
use forebay_net::tls::peer::PeerIdentity;
use http::StatusCode;

use crate::desk::{self, BODY_BYTES_MAX, Desk, LIMITS};
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, REQUEST, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, frames, open, reset_code,
};
use crate::slow::SLOW;

const SEED: u64 = 0x57e4_a3ed;
type Act<'a> = &'a dyn Fn(&mut Desk, &mut Http2);

/// Of a stream, as our settings say.
const WINDOW_BYTES: usize = 1 << 20;

fn streaming() -> (Desk, Http2) {
    let mut desk = Desk::new();
    desk.streams = true;
    let core = open(&mut desk);
    (desk, core)
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, REQUEST)
}

fn message(bytes: &[u8]) -> Answer {
    Answer { body: grpc::frame(bytes), ..desk::ok() }
}

fn parts(desk: &mut Desk) -> Vec<Part> {
    let requests = std::mem::take(&mut desk.requests);
    for request in &requests {
        desk.reserved -= request.reserved;
    }
    requests.into_iter().map(|request| request.part).collect()
}

/// The bytes of a stream's DATA frames, and whether it has ended.
fn said(output: &[u8], stream: u32) -> (Vec<u8>, bool) {
    let of_stream = frames(output).into_iter().filter(|frame| frame.2 == stream);
    of_stream.fold((Vec::new(), false), |(mut bytes, ended), (kind, flags, _, payload)| {
        assert!(!ended, "nothing comes behind the end");
        if kind == DATA {
            bytes.extend(payload);
        }
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        (bytes, ended || ends)
    })
}

#[test]
fn messages_come_whole_one_at_a_time_however_they_are_cut_and_each_is_answered() {
    let mut draw = desk::random(SEED);
    for round in 0..300 {
        let at = format!("seed {SEED:#x}, round {round}");
        let mut below = |bound: usize| draw() as usize % bound;
        let (mut desk, mut core) = streaming();
        let initial = (below(3_000) as u32).to_be_bytes();
        core.handle_input(
            &frame(SETTINGS, 0, 0, &[&[0, 4], &initial[..]].concat()),
            &mut desk.turn(),
        );
        let messages: Vec<Vec<u8>> =
            (0..below(8)).map(|nth| vec![nth as u8; below(5_000)]).collect();
        let mut body: Vec<u8> = messages.iter().flat_map(|bytes| grpc::frame(bytes)).collect();
        let (mut has_ended, mut wire) = (false, request(1));
        let (mut taken, mut back, mut is_answered) = (Vec::new(), Vec::new(), false);
        for step in 0.. {
            assert!(step < 5_000, "{at}: it never ends");
            if !has_ended {
                let piece: Vec<u8> = body.drain(..below(2_000).min(body.len())).collect();
                has_ended = body.is_empty() && below(3) == 0;
                wire.extend(frame(DATA, u8::from(has_ended), 1, &piece));
            }
            let more = (1 + below(4_000) as u32).to_be_bytes();
            wire.extend(frame(WINDOW_UPDATE, 0, below(2) as u32, &more));
            let piece: Vec<u8> = wire.drain(..below(3_000).min(wire.len())).collect();
            core.handle_input(&piece, &mut desk.turn());
            let requests = std::mem::take(&mut desk.requests);
            assert!(requests.len() <= 1, "{at}: {requests:?}");
            for request in requests {
                desk.reserved -= request.reserved;
                match request.part {
                    Part::Message => {
                        let (_, bytes) =
                            grpc::unframe(request.body.clone()).expect("a whole message");
                        core.handle_message(1, message(&bytes), &mut desk.turn());
                        taken.push(bytes);
                    }
                    Part::End => core.handle_answer(1, grpc::finished(), &mut desk.turn()),
                    other => panic!("{at}: {other:?}"),
                }
            }
            let (bytes, ends) = said(&core.take_output(), 1);
            back.extend(bytes);
            is_answered |= ends;
            if is_answered {
                break;
            }
        }
        assert_eq!(taken, messages, "{at}");
        let expected: Vec<u8> = messages.iter().flat_map(|bytes| grpc::frame(bytes)).collect();
        assert!(back == expected, "{at}: what was said came otherwise");
        assert_eq!((core.in_flight(), desk.reserved), (0, 0), "{at}");
        assert_eq!(core.standing(), Standing::Open, "{at}");
    }
}

#[test]
fn whoever_was_handed_a_message_hears_once_that_the_stream_is_lost() {
    let mut draw = desk::random(SEED);
    for round in 0..500 {
        let at = format!("seed {SEED:#x}, round {round}");
        let mut below = |bound: usize| draw() as usize % bound;
        let (mut desk, mut core) = streaming();
        let (mut known, mut lost, mut open_streams) = (0, 0, Vec::new());
        for nth in 0..6 {
            core.handle_input(&request(2 * nth + 1), &mut desk.turn());
            open_streams.push(2 * nth + 1);
        }
        for _ in 0..below(20) {
            let stream = open_streams[below(6)];
            let bytes = grpc::frame(&vec![1; below(50)]);
            match below(6) {
                0 => core.handle_input(&frame(RST_STREAM, 0, stream, &[0; 4]), &mut desk.turn()),
                1 => core.handle_message(stream, message(b"news"), &mut desk.turn()),
                _ => core.handle_input(
                    &frame(DATA, 0, stream, &bytes[..below(bytes.len() + 1)]),
                    &mut desk.turn(),
                ),
            }
        }
        match below(3) {
            0 => core.handle_lost(&mut desk.turn()),
            1 => core.handle_eof(&mut desk.turn()),
            _ => core.handle_input(&frame(DATA, 0, 0, b"broken"), &mut desk.turn()),
        }
        let mut seen = std::collections::HashSet::new();
        for request in std::mem::take(&mut desk.requests) {
            desk.reserved -= request.reserved;
            match request.part {
                Part::Message => known += usize::from(seen.insert(request.id.stream)),
                Part::Lost => {
                    assert!(seen.contains(&request.id.stream), "{at}: nobody knew of it");
                    lost += 1;
                }
                other => panic!("{at}: {other:?}"),
            }
        }
        assert_eq!(known, lost, "{at}");
        assert_eq!((core.in_flight(), desk.reserved), (0, 0), "{at}");
    }
}

#[test]
fn each_message_says_who_the_client_proved_to_be() {
    let (mut desk, mut core) = streaming();
    desk.peer = Some(PeerIdentity::default().into());
    core.handle_input(&request(1), &mut desk.turn());
    core.handle_input(&frame(DATA, END_STREAM, 1, &grpc::frame(b"one")), &mut desk.turn());
    assert!(!desk.requests.is_empty());
    assert!(desk.requests.iter().all(|request| request.head.peer == desk.peer));
}

#[test]
fn a_slow_peer_gets_what_has_begun_and_then_the_newest() {
    let (mut desk, mut core) = streaming();
    core.handle_input(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 3]), &mut desk.turn());
    core.handle_input(&request(1), &mut desk.turn());
    core.handle_input(&frame(DATA, END_STREAM, 1, &grpc::frame(b"watch")), &mut desk.turn());
    assert_eq!(parts(&mut desk), [Part::Message]);
    for nth in 0..1_000u16 {
        core.handle_message(1, message(&nth.to_be_bytes()), &mut desk.turn());
    }
    let (first, _) = said(&core.take_output(), 1);
    assert_eq!(first.len(), 3);
    core.handle_input(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 20]), &mut desk.turn());
    let (rest, ended) = said(&core.take_output(), 1);
    let expected = [grpc::frame(&[0, 0]), grpc::frame(&999u16.to_be_bytes())].concat();
    assert_eq!(([first, rest].concat(), ended), (expected, false));
    assert_eq!(parts(&mut desk), [Part::End], "the end waited for the answer to leave");

    // The last word before the end is said, however little room there is.
    for nth in 0..3u8 {
        core.handle_message(1, message(&[b'a' + nth; 20]), &mut desk.turn());
    }
    core.handle_answer(1, grpc::failed(14, "going", None), &mut desk.turn());
    core.handle_message(1, message(b"too late"), &mut desk.turn());
    let (first, ended) = said(&core.take_output(), 1);
    assert!(!ended);
    core.handle_input(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 99]), &mut desk.turn());
    let output = core.take_output();
    let (rest, ended) = said(&output, 1);
    let expected = [grpc::frame(&[b'a'; 20]), grpc::frame(&[b'c'; 20])].concat();
    assert_eq!(([first, rest].concat(), ended), (expected, true));
    let trailers = frames(&output).pop().expect("trailers").3;
    let has = |text: &[u8]| trailers.windows(text.len()).any(|window| window == text);
    assert!(has(b"grpc-status\x0214") && !has(b"application/grpc"), "{trailers:?}");
    assert_eq!((core.in_flight(), desk.reserved), (0, 0));
}

#[test]
fn between_messages_there_is_no_deadline_and_within_one_there_is() {
    let (mut desk, mut core) = streaming();
    desk.now = 10;
    core.handle_input(&request(1), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(10 + LIMITS.body_timeout), "for the first message");
    let two = grpc::frame(b"hello").repeat(2);
    desk.now = 20;
    core.handle_input(&frame(DATA, 0, 1, &two[..15]), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), None, "it is for the engine to say something");
    desk.now = 30;
    core.handle_message(1, message(b"hello"), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(30 + LIMITS.body_timeout), "for the message's rest");
    core.handle_input(&frame(DATA, 0, 1, &two[15..]), &mut desk.turn());
    core.handle_message(1, message(b"hello"), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), None, "not even for an idle connection");
    assert_eq!(parts(&mut desk), [Part::Message, Part::Message]);
    core.handle_input(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), &mut desk.turn());
    desk.now = 40;
    core.handle_message(1, message(&[0; 70_000]), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(40 + LIMITS.write_timeout), "for room");
    core.take_output();
    desk.now = 40 + LIMITS.write_timeout;
    core.handle_timeout(&mut desk.turn());
    assert_eq!(reset_code(&core.take_output(), 1), Some(8), "CANCEL");
    assert_eq!(parts(&mut desk), [Part::Lost]);
    assert_eq!((&desk.troubles[..], core.in_flight()), (&[Trouble::Window][..], 0));
}

#[test]
fn a_message_that_comes_a_byte_now_and_then_is_refused_however_long_it_was_silent_before() {
    let (mut desk, mut core) = streaming();
    desk.limits = SLOW;
    core.handle_input(&request(1), &mut desk.turn());
    let whole = grpc::frame(&[7; 1_000]);
    for _ in 0..3 {
        desk.now += SLOW.idle_timeout;
        core.handle_input(&frame(DATA, 0, 1, &whole[..500]), &mut desk.turn());
        desk.now += SLOW.body_timeout - 1;
        core.handle_input(&frame(DATA, 0, 1, &whole[500..]), &mut desk.turn());
        core.handle_message(1, message(b"hello"), &mut desk.turn());
        assert_eq!(core.deadline(&SLOW), None, "between messages");
        core.take_output();
    }
    desk.now += SLOW.idle_timeout;
    let began = desk.now;
    for byte in whole.iter().take(100) {
        core.handle_input(&frame(DATA, 0, 1, &[*byte]), &mut desk.turn());
        let due = core.deadline(&SLOW).expect("it is awaited");
        if due <= desk.now + SLOW.body_timeout / 3 {
            desk.now = due;
            core.handle_timeout(&mut desk.turn());
            break;
        }
        desk.now += SLOW.body_timeout / 3;
    }
    assert_eq!(*desk.refusals, [Refusal::BodyTooSlow]);
    assert!(desk.now - began <= SLOW.body_timeout + SLOW.body_timeout / 3, "{}", desk.now - began);
    let told = [Part::Message, Part::Message, Part::Message, Part::Lost];
    assert_eq!((parts(&mut desk), desk.reserved), (told.to_vec(), 0));
}

#[test]
fn a_message_that_stalls_or_is_too_long_is_refused_and_one_that_is_cut_off_resets() {
    let stall = |desk: &mut Desk, core: &mut Http2| {
        core.handle_input(&frame(DATA, 0, 1, &[0, 0, 0]), &mut desk.turn());
        desk.now += LIMITS.body_timeout;
        core.handle_timeout(&mut desk.turn());
    };
    let exceed = |desk: &mut Desk, core: &mut Http2| {
        let length = (BODY_BYTES_MAX as u32 - 4).to_be_bytes();
        core.handle_input(&frame(DATA, 0, 1, &[&[0], &length[..]].concat()), &mut desk.turn());
    };
    let refusals: [(Act<'_>, StatusCode); 2] =
        [(&stall, StatusCode::REQUEST_TIMEOUT), (&exceed, StatusCode::PAYLOAD_TOO_LARGE)];
    for (act, status) in refusals {
        for is_known in [false, true] {
            let (mut desk, mut core) = streaming();
            core.handle_input(&request(1), &mut desk.turn());
            if is_known {
                core.handle_input(&frame(DATA, 0, 1, &grpc::frame(b"one")), &mut desk.turn());
                core.handle_message(1, message(b"one"), &mut desk.turn());
                assert_eq!(parts(&mut desk), [Part::Message]);
                core.take_output();
            }
            act(&mut desk, &mut core);
            let output = core.take_output();
            let (_, ended) = said(&output, 1);
            assert!(ended, "{status}");
            let headers = frames(&output).into_iter().find(|frame| frame.0 == HEADERS);
            let says = headers.is_some_and(|frame| frame.3.ends_with(status.as_str().as_bytes()));
            assert_eq!(says, !is_known, "{status}: behind a message there are trailers alone");
            let told = if is_known { vec![Part::Lost] } else { Vec::new() };
            assert_eq!(parts(&mut desk), told);
            assert_eq!((core.in_flight(), desk.reserved), (0, 0), "{status}");
        }
    }
    let (mut desk, mut core) = streaming();
    core.handle_input(&request(1), &mut desk.turn());
    core.handle_input(&frame(DATA, END_STREAM, 1, &[0, 0, 0, 0, 2, 7]), &mut desk.turn());
    assert_eq!(reset_code(&core.take_output(), 1), Some(1), "PROTOCOL_ERROR");
    assert_eq!((desk.reserved, &desk.troubles[..]), (0, &[Trouble::Malformed][..]));
}

#[test]
fn what_a_peer_sends_ahead_waits_within_its_window() {
    let (mut desk, mut core) = streaming();
    core.handle_input(&request(1), &mut desk.turn());
    let piece = frame(DATA, 0, 1, &grpc::frame(&[7; 1_019]).repeat(8));
    let mut output = Vec::new();
    for _ in 0..WINDOW_BYTES / (8 * 1_024) {
        core.handle_input(&piece, &mut desk.turn());
        output.extend_from_slice(&core.take_output());
    }
    assert_eq!(desk.requests.len(), 1, "the next one waits for an answer");
    let gives = |frame: &(u8, u8, u32, Vec<u8>)| frame.0 == WINDOW_UPDATE && frame.2 == 1;
    assert!(!frames(&output).iter().any(gives), "no more room before");
    assert_eq!(desk.reserved, WINDOW_BYTES);
    for nth in 0..WINDOW_BYTES / 1_024 {
        assert_eq!(parts(&mut desk), [Part::Message], "message {nth}");
        core.handle_message(1, message(b""), &mut desk.turn());
    }
    assert!(frames(&core.take_output()).iter().any(gives), "all is taken: there is room again");
    assert_eq!((parts(&mut desk), desk.reserved), (vec![], 0));
    for _ in 0..WINDOW_BYTES / (8 * 1_024) {
        core.handle_input(&piece, &mut desk.turn());
    }
    core.handle_input(&piece, &mut desk.turn());
    assert_eq!(reset_code(&core.take_output(), 1), Some(3), "FLOW_CONTROL_ERROR");
    assert_eq!(parts(&mut desk), [Part::Message, Part::Lost]);
    assert_eq!(desk.reserved, 0);
}

#[test]
fn who_drains_asks_for_the_end_of_what_is_known_and_refuses_the_rest() {
    let (mut desk, mut core) = streaming();
    for stream in [1, 3, 5] {
        core.handle_input(&request(stream), &mut desk.turn());
    }
    core.handle_input(&frame(DATA, 0, 1, &grpc::frame(b"known")), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 3, &grpc::frame(b"half")[..7]), &mut desk.turn());
    core.handle_message(1, message(b"hello"), &mut desk.turn());
    assert_eq!(parts(&mut desk), [Part::Message]);
    core.take_output();
    core.drain(&mut desk.turn());
    core.drain(&mut desk.turn());
    assert_eq!(parts(&mut desk), [Part::Leaving, Part::Leaving], "each time it is asked");
    core.handle_input(&request(7), &mut desk.turn());
    let output = core.take_output();
    for stream in [3, 5, 7] {
        assert!(said(&output, stream).1, "stream {stream} is refused");
    }
    assert_eq!(core.in_flight(), 1);
    core.handle_message(1, message(b"the last word"), &mut desk.turn());
    core.handle_answer(1, grpc::failed(14, "going", None), &mut desk.turn());
    let (bytes, ended) = said(&core.take_output(), 1);
    assert_eq!((Bytes::from(bytes), ended), (grpc::frame(b"the last word"), true));
    assert_eq!((core.in_flight(), desk.reserved), (0, 0));
    for stream in [1, 3, 5, 7] {
        core.handle_input(&frame(RST_STREAM, 0, stream, &[0; 4]), &mut desk.turn());
    }
    core.handle_input(&frame(PING, 1, 0, b"farewell"), &mut desk.turn());
    assert!(frames(&core.take_output()).iter().any(|frame| frame.0 == GOAWAY));
    assert_eq!(core.standing(), Standing::FinishThenLinger);
}

#[test]
fn a_request_without_any_message_is_handed_out_as_its_end() {
    let (mut desk, mut core) = streaming();
    core.handle_input(&frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST), &mut desk.turn());
    core.handle_input(&request(3), &mut desk.turn());
    core.handle_input(&frame(HEADERS, END_HEADERS | END_STREAM, 3, b""), &mut desk.turn());
    assert_eq!(parts(&mut desk), [Part::End, Part::End]);
    for stream in [1, 3] {
        core.handle_answer(stream, grpc::finished(), &mut desk.turn());
        let sent = frames(&core.take_output());
        assert_eq!(sent.len(), 1, "a status alone: {sent:?}");
    }
    assert_eq!(core.in_flight(), 0);
}

#[test]
fn a_stream_whose_end_waited_for_room_is_gone_once_both_sides_have_ended() {
    let (mut desk, mut core) = streaming();
    core.handle_input(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 3]), &mut desk.turn());
    core.handle_input(&request(1), &mut desk.turn());
    core.handle_input(&frame(DATA, 0, 1, &grpc::frame(b"one")), &mut desk.turn());
    core.handle_message(1, message(b"hello"), &mut desk.turn());
    core.handle_answer(1, grpc::finished(), &mut desk.turn());
    core.handle_input(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]), &mut desk.turn());
    let (bytes, ended) = said(&core.take_output(), 1);
    assert_eq!((Bytes::from(bytes), ended), (grpc::frame(b"hello"), true));
    core.handle_input(&frame(DATA, END_STREAM, 1, &grpc::frame(b"two")), &mut desk.turn());
    assert_eq!(parts(&mut desk), [Part::Message], "what comes behind the end is thrown away");
    core.drain(&mut desk.turn());
    core.handle_input(&frame(PING, 1, 0, b"farewell"), &mut desk.turn());
    assert_eq!(core.standing(), Standing::FinishThenLinger, "no stream is left");
    assert_eq!((core.in_flight(), desk.reserved), (0, 0));
}
