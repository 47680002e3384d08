//! Clients that are slow on purpose: what they hold has its time, then it ends in its own way, is
//! counted, and was bounded meanwhile.

use std::sync::Arc;

use forebay_net::request::{Refusal, Trouble};
use quinn_proto::{Dir, StreamId};

use crate::caller::{Caller, request};
use crate::forge::{self, Forge, Space, frame, varint};
use crate::stage::{Stage, config};
use crate::terms::{MILLI, SECOND};

/// Some time of both, in steps; what the server says arrives.
fn live(stage: &mut Stage, callers: &mut [&mut Caller], nanos: u64) {
    let until = stage.now + nanos;
    while stage.now < until {
        stage.now += 100 * MILLI;
        stage.exchange(callers, 1);
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_has_as_long_as_one_that_never_comes() {
    let mut stage = Stage::usual();
    let (mut slow, mut served) = (stage.caller(1), stage.caller(2));
    let whole = request(b"");
    let silent = slow.open(Dir::Bi, &whole[..1], false).expect("there is room");
    let stream = slow.open(Dir::Bi, &whole[..1], false).expect("there is room");
    let began = stage.now;
    for byte in &whole[1..] {
        if slow.reset_code(stream).is_some() {
            break;
        }
        slow.write(stream, &[*byte], false);
        live(&mut stage, &mut [&mut slow, &mut served], 200 * MILLI);
    }
    let limit = config(0, 1).limits.header_timeout;
    assert!((limit..limit + SECOND).contains(&(stage.now - began)), "{}", stage.now - began);
    for stream in [silent, stream] {
        assert_eq!(slow.reset_code(stream), Some(0x10c), "H3_REQUEST_CANCELLED");
        assert_eq!(slow.stop_code(stream), Some(0x10c));
    }
    assert_eq!(stage.porter.troubles, [Trouble::Stalled; 2]);
    assert!(stage.stats(|stats| stats.timeouts) > 0);
    stage.assert_serves(&mut slow);
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
}

#[test]
fn a_drain_waits_for_no_head_that_stalls_on_a_connection_that_was_told_to_go_before() {
    let mut config = config(0, 1);
    config.lifetime.age_max = SECOND;
    let mut stage = Stage::new([config]);
    let mut slow = stage.caller(1);
    live(&mut stage, &mut [&mut slow], 800 * MILLI);
    let stream = slow.open(Dir::Bi, &request(b"")[..1], false).expect("there is room");
    live(&mut stage, &mut [&mut slow], 700 * MILLI);
    assert!(slow.is_open() && slow.reset_code(stream).is_none(), "its head has more time");
    stage.cores[0].drain(stage.now, &mut stage.porter, &mut Vec::new());
    stage.exchange(&mut [&mut slow], 100);
    assert_eq!(slow.close_code(), Some(0x100), "H3_NO_ERROR: {:?}", slow.lost);
    assert!(!stage.cores[0].is_busy());
    stage.assert_ends_empty();
}

#[test]
fn who_is_told_to_go_hears_which_requests_were_taken_before_its_connection_ends() {
    let mut stage = Stage::usual();
    let mut caller = stage.caller(1);
    let last = caller.ask(b"taken");
    // The answer has arrived, and its acknowledgement, too: nothing else is waited for.
    stage.exchange(&mut [&mut caller], 200);
    assert_eq!(caller.answer(last), Some((200, b"taken".to_vec())));
    stage.cores[0].drain(stage.now, &mut stage.porter, &mut Vec::new());
    while caller.goaways().len() < 2 {
        stage.exchange(&mut [&mut caller], 1);
        assert!(caller.is_open(), "{:?} of {:?}", caller.lost, caller.goaways());
    }
    let told = stage.now;
    assert_eq!(caller.goaways(), [(1 << 62) - 4, u64::from(last) + 4]);
    stage.exchange(&mut [&mut caller], 1_100);
    assert_eq!(caller.close_code(), Some(0x100), "H3_NO_ERROR: {:?}", caller.lost);
    assert!(!stage.cores[0].is_busy() && stage.now > told);
    stage.assert_ends_empty();
}

#[test]
fn bodies_that_stall_are_answered_and_let_go_and_cost_what_came_of_them() {
    let mut stage = Stage::usual();
    let (mut slow, mut served) = (stage.caller(1), stage.caller(2));
    let whole = request(&[7; 20_000]);
    let streams: Vec<StreamId> = (0..16)
        .map(|_| slow.open(Dir::Bi, &whole[..2_000], false).expect("there is room"))
        .collect();
    live(&mut stage, &mut [&mut slow, &mut served], SECOND);
    assert!(stage.porter.reserved < 16 * 17_000, "{} for 32,000", stage.porter.reserved);
    for _ in 0..8 {
        live(&mut stage, &mut [&mut slow, &mut served], SECOND / 2);
        stage.assert_serves(&mut served);
    }
    for stream in &streams {
        assert_eq!(slow.answer(*stream), Some((408, vec![])), "request timeout");
    }
    let window = config(0, 1).limits.connection_window_bytes as usize;
    assert!(stage.porter.reserved <= window, "of bodies nothing is kept");
    assert!(stage.stats(|stats| stats.timeouts) > 0);
    // They are its own to give back.
    streams.into_iter().for_each(|stream| slow.reset(stream));
    live(&mut stage, &mut [&mut slow, &mut served], SECOND);
    stage.assert_serves(&mut slow);
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
}

#[test]
fn bodies_of_which_a_byte_comes_now_and_then_are_given_up_as_those_that_stall() {
    let mut stage = Stage::usual();
    let (mut slow, mut served) = (stage.caller(1), stage.caller(2));
    let whole = request(&[7; 20_000]);
    let mut streams: Vec<StreamId> =
        (0..16).map(|_| slow.open(Dir::Bi, &whole[..500], false).expect("there is room")).collect();
    let began = stage.now;
    let limit = config(0, 1).limits.body_timeout;
    while !streams.is_empty() {
        live(&mut stage, &mut [&mut slow, &mut served], limit / 2);
        assert!(stage.now < began + 4 * limit, "{} are still held", streams.len());
        streams.retain(|stream| slow.answer(*stream).is_none());
        streams.iter().for_each(|stream| slow.write(*stream, &[7], false));
        stage.assert_serves(&mut served);
    }
    assert_eq!(stage.porter.refusals, [Refusal::BodyTooSlow; 16]);
    assert!(stage.stats(|stats| stats.timeouts) > 0);
    stage.assert_ends_empty();
}

#[test]
fn a_client_that_reads_no_answer_is_given_up_and_its_answers_are_bounded() {
    let mut stage = Stage::usual();
    let mut served = stage.caller(1);
    let config = Arc::new(forge::config(&[b"h3"]));
    let parameters = forge::parameters_with(100);
    let mut forge = Forge::with(([10, 0, 2, 1], 1024).into(), config, parameters);
    forge.shake_hands(&mut stage);
    // Requests whose answers are longer than the window that it gave.
    let whole = request(&[7; 3_000]);
    let mut sent = 0;
    for number in 0..8_u64 {
        for (offset, piece) in whole.chunks(1_000).enumerate() {
            let offset = 1_000 * offset as u64;
            let ends = offset as usize + piece.len() == whole.len();
            let kind = if ends { 0x0f } else { 0x0e };
            let head = frame(&[kind, 4 * number, offset, piece.len() as u64]);
            forge.say(&mut stage, Space::Data, &[&head[..], piece].concat());
            sent += piece.len();
        }
    }
    assert!(sent > 24_000, "{sent}");
    // Nobody's flow control is opened, and nothing is acknowledged.
    let began = stage.now;
    while stage.porter.troubles.len() < 8 && stage.now < began + 10 * SECOND {
        stage.pass(200 * MILLI);
        // It is there, and says so.
        forge.say(&mut stage, Space::Data, &[0x01]);
        if forge.closed.is_some() {
            break;
        }
    }
    assert_eq!(stage.porter.troubles, [Trouble::Window; 8]);
    assert!(stage.now >= began + 3 * SECOND, "they had their time");
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
}

#[test]
fn bytes_with_gaps_before_them_are_bounded_by_the_windows_and_end_with_their_connection() {
    let mut stage = Stage::usual();
    let limits = config(0, 1).limits;
    let stream_window = u64::from(limits.connection_window_bytes / 4);
    let said = |stage: &mut Stage, forge: &mut Forge, stream: u64, offset: u64| {
        let head = [&[0x0e][..], &varint(stream), &varint(offset), &varint(500)].concat();
        forge.say(stage, Space::Data, &[&head[..], &[7; 500]].concat());
    };
    // All of a stream but some of its bytes, the first among them; then more than its window.
    let mut forge = Forge::established(&mut stage, ([10, 0, 2, 1], 1024).into());
    for offset in (1..stream_window - 500).step_by(501) {
        said(&mut stage, &mut forge, 0, offset);
    }
    assert_eq!(forge.closed, None);
    assert_eq!(stage.requests.len(), 0, "nothing of it can be read");
    said(&mut stage, &mut forge, 0, stream_window - 499);
    assert_eq!(forge.closed, Some((0x03, false)), "FLOW_CONTROL_ERROR");
    // The ends of many streams, requests and others: together more than the connection's window.
    for first in [0, 2] {
        let mut forge = Forge::established(&mut stage, ([10, 0, 2, 3 + first], 1024).into());
        for number in 0..8 {
            said(&mut stage, &mut forge, u64::from(first) + 4 * number, stream_window - 500);
        }
        assert_eq!(forge.closed, Some((0x03, false)), "FLOW_CONTROL_ERROR");
    }
    stage.assert_ends_empty();
}

#[test]
fn streams_that_never_say_what_they_are_are_not_read_for_long_however_busy_the_others_are() {
    let mut stage = Stage::usual();
    let (mut slow, mut served) = (stage.caller(1), stage.caller(2));
    // With the last one the others count as opened, and nothing of them comes.
    let silent: Vec<StreamId> =
        (0..5).map(|_| slow.open(Dir::Uni, &[], false).expect("there is room")).collect();
    let named = slow.open(Dir::Uni, &[0x21, 7, 7], false).expect("there is room");
    let began = stage.now;
    let limit = config(0, 1).limits.header_timeout;
    while silent.iter().any(|stream| slow.stop_code(*stream).is_none()) {
        stage.assert_serves(&mut slow);
        live(&mut stage, &mut [&mut slow, &mut served], SECOND / 4);
        assert!(stage.now < began + 2 * limit, "it reads on");
    }
    assert!(stage.now >= began + limit, "they had their time");
    for stream in silent.iter().chain([&named]) {
        assert_eq!(slow.stop_code(*stream), Some(0x103), "H3_STREAM_CREATION_ERROR");
    }
    assert_eq!(stage.porter.troubles, [Trouble::Stalled; 5]);
    assert!(stage.stats(|stats| stats.timeouts) > 0);
    stage.assert_serves(&mut slow);
    stage.assert_ends_empty();
}

#[test]
fn streams_of_one_direction_whose_first_byte_never_comes_end_in_time() {
    let mut stage = Stage::usual();
    let mut forge = Forge::established(&mut stage, ([10, 0, 2, 1], 1024).into());
    for number in 0..8_u64 {
        let head = frame(&[0x0e, 2 + 4 * number, 1, 500]);
        forge.say(&mut stage, Space::Data, &[&head[..], &[7; 500]].concat());
    }
    // It is there, and says so: until the idle time is over it costs what it was let send ahead.
    let began = stage.now;
    while forge.closed.is_none() {
        stage.pass(SECOND / 2);
        forge.say(&mut stage, Space::Data, &[0x01]);
        assert!(stage.now < began + 60 * SECOND, "it has no end");
    }
    assert!(stage.stats(|stats| stats.timeouts) > 0);
    stage.assert_ends_empty();
}
