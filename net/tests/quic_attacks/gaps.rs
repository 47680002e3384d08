//! Streams with gaps in them: what comes behind one is held, with the buffers that it came in, so
//! it is counted frame by frame, asked for at the door, bounded, and given back.

use forebay_net::ring::fake::Dice;

use crate::caller::request;
use crate::forge::{Forge, Space, frame};
use crate::stage::{Stage, config};
use crate::terms::SECOND;

const EXCESSIVE_LOAD: (u64, bool) = (0x107, true);
const SEEDS: u64 = 50;
/// What one frame counts for: two datagrams, and the list of such frames.
const FRAME_BYTES: u64 = 3_040;
const STREAMS_AT_FIRST: u64 = 16;

/// A STREAM frame.
fn piece(stream: u64, offset: usize, bytes: &[u8]) -> Vec<u8> {
    [&frame(&[0x0e, stream, offset as u64, bytes.len() as u64])[..], bytes].concat()
}

fn forge(stage: &mut Stage, last: u8) -> Forge {
    Forge::established(stage, ([10, 0, 2, last], 1024).into())
}

#[test]
fn what_is_held_is_counted_however_it_comes_and_for_nothing_once_it_is_whole() {
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        let mut stage = Stage::usual();
        let mut forge = forge(&mut stage, 1);
        let whole = request(&vec![7; 3_000]);
        // All but the end, in pieces, of which some come twice.
        let bytes = 30 + dice.below(300) as usize;
        let count = whole.len() / bytes;
        let mut order: Vec<usize> = (0..count).collect();
        let comes_twice = dice.of_1000(300);
        order.extend(
            (0..if comes_twice { 3 } else { 0 }).map(|_| dice.below(count as u64) as usize),
        );
        for at in (1..order.len()).rev() {
            order.swap(at, dice.below(at as u64 + 1) as usize);
        }
        let (mut came, mut rest) = (vec![false; count], &order[..]);
        while !rest.is_empty() {
            // Several frames in a packet, and several packets in a turn.
            for _ in 0..1 + dice.below(3) {
                let (now, later) = rest.split_at(rest.len().min(1 + dice.below(3) as usize));
                rest = later;
                let frames: Vec<u8> = now
                    .iter()
                    .flat_map(|nth| piece(0, nth * bytes, &whole[nth * bytes..][..bytes]))
                    .collect();
                now.iter().for_each(|nth| came[*nth] = true);
                if !frames.is_empty() {
                    let packet = forge.packet(Space::Data, 0, &frames);
                    stage.deliver(forge.address, &packet);
                }
            }
            forge.hear(&mut stage);
            let prefix = came.iter().take_while(|came| **came).count();
            let behind = came[prefix..].iter().filter(|came| **came).count() as u64;
            let held = stage.stats(|stats| stats.held_bytes);
            assert!(held >= behind * FRAME_BYTES, "seed {seed}: {held} for {behind} frames");
            assert!(comes_twice || held == behind * FRAME_BYTES, "seed {seed}: {held}: {behind}");
            assert!(stage.porter.reserved as u64 >= held, "seed {seed}: the door knows");
        }
        let end = count * bytes;
        let last = [&frame(&[0x0f, 0, end as u64, (whole.len() - end) as u64])[..], &whole[end..]];
        forge.say(&mut stage, Space::Data, &last.concat());
        assert_eq!((forge.closed, stage.stats(|stats| stats.held_bytes)), (None, 0), "seed {seed}");
        assert_eq!(stage.porter.reserved, 0, "seed {seed}");
        stage.assert_ends_empty();
    }
}

/// A client that leaves gaps: on each of so many `streams` every second byte. Returns after how
/// many of them it was ended.
fn leave_gaps(stage: &mut Stage, forge: &mut Forge, streams: &[u64]) -> usize {
    for nth in 0..10_000 {
        if forge.closed.is_some() {
            return nth;
        }
        let (stream, offset) = (streams[nth % streams.len()], 1 + 2 * (nth / streams.len()));
        forge.say(stage, Space::Data, &piece(stream, offset, b"?"));
    }
    panic!("it may hold as much as it likes");
}

#[test]
fn who_leaves_gaps_is_ended_long_before_its_windows_are_full_of_them() {
    let requests: Vec<u64> = (0..16).map(|number| 4 * number).collect();
    let others: Vec<u64> = (0..8).map(|number| 2 + 4 * number).collect();
    // All over the streams, or on one, be it of the kind that nobody waits for.
    for (streams, frames_max) in
        [(&requests[..], 220), (&requests[..1], 200), (&others[..], 200), (&others[..1], 36)]
    {
        let mut stage = Stage::usual();
        let mut served = stage.caller(1);
        let mut forge = forge(&mut stage, 1);
        let frames = leave_gaps(&mut stage, &mut forge, streams);
        assert_eq!(forge.closed, Some(EXCESSIVE_LOAD), "{frames}");
        assert!((8..frames_max).contains(&frames), "{frames}");
        assert!(stage.porter.reserved_max as u64 >= (frames as u64 - 8) * FRAME_BYTES);
        assert_eq!(stage.porter.troubles.last().map(|trouble| trouble.name()), Some("gaps"));
        assert_eq!((stage.stats(|stats| stats.held_bytes), stage.porter.reserved), (0, 0));
        stage.assert_serves(&mut served);
        stage.assert_ends_empty();
    }
}

#[test]
fn where_the_door_has_no_room_a_connection_holds_as_much_as_its_window_brings() {
    let mut stage = Stage::usual();
    let mut forge = forge(&mut stage, 1);
    stage.porter.is_full = true;
    let frames = leave_gaps(&mut stage, &mut forge, &[0, 4, 8]);
    assert_eq!(forge.closed, Some(EXCESSIVE_LOAD), "{frames}");
    assert!((27..60).contains(&frames), "{frames}");
    assert_eq!(stage.porter.reserved, 0);
    stage.assert_ends_empty();
}

#[test]
fn a_long_body_of_which_much_comes_twice_is_taken_whole() {
    let mut stage = Stage::usual();
    let mut forge = forge(&mut stage, 1);
    let whole = request(&vec![7; 3 << 20]);
    let frame_bytes = 1_000;
    for (nth, bytes) in whole.chunks(frame_bytes).enumerate() {
        let offset = nth * frame_bytes;
        let is_last = offset + bytes.len() == whole.len();
        let kind = if is_last { 0x0f } else { 0x0e };
        let frame = [&frame(&[kind, 0, offset as u64, bytes.len() as u64])[..], bytes].concat();
        for _ in 0..if nth % 5 == 0 { 2 } else { 1 } {
            forge.say(&mut stage, Space::Data, &frame);
        }
    }
    assert_eq!((forge.closed, stage.stats(|stats| stats.held_bytes)), (None, 0));
    assert_eq!(stage.porter.reserved, 0);
    stage.assert_ends_empty();
}

#[test]
fn what_a_control_stream_says_may_come_many_times() {
    let mut stage = Stage::usual();
    let mut forge = forge(&mut stage, 1);
    // Its type, and settings without any.
    let greeting = piece(2, 0, &[0x00, 0x04, 0x00]);
    for _ in 0..20 {
        forge.say(&mut stage, Space::Data, &greeting);
    }
    assert_eq!(forge.closed, None);
    stage.assert_ends_empty();
}

#[test]
fn where_the_door_has_no_room_a_burst_whose_beginning_is_late_is_served() {
    let mut stage = Stage::usual();
    let mut forge = forge(&mut stage, 1);
    let last = 4 * (STREAMS_AT_FIRST - 1);
    stage.porter.is_full = true;
    // With the last of them all others are open.
    forge.say(&mut stage, Space::Data, &piece(last, 1, b"?"));
    assert_eq!(forge.closed, None);
    assert!(stage.stats(|stats| stats.held_bytes) == 0, "the door gave nothing");
    stage.porter.is_full = false;
    let bytes = request(b"body");
    for number in 0..STREAMS_AT_FIRST {
        let head = frame(&[0x0f, 4 * number, 0, bytes.len() as u64]);
        forge.say(&mut stage, Space::Data, &[&head[..], &bytes].concat());
    }
    assert_eq!((forge.closed, stage.stats(|stats| stats.held_bytes)), (None, 0));
    assert_eq!(stage.porter.reserved, 0);
    stage.assert_ends_empty();
}

#[test]
fn what_is_held_is_given_back_with_its_stream_and_with_its_connection() {
    for ends_connection in [false, true] {
        let mut stage = Stage::usual();
        let mut forge = forge(&mut stage, 1);
        for stream in [0, 4, 8] {
            forge.say(&mut stage, Space::Data, &piece(stream, 100, b"?"));
            forge.say(&mut stage, Space::Data, &piece(stream, 200, b"?"));
        }
        assert_eq!(stage.stats(|stats| stats.held_bytes), 6 * FRAME_BYTES);
        if ends_connection {
            // CONNECTION_CLOSE, of HTTP/3.
            forge.say(&mut stage, Space::Data, &frame(&[0x1d, 0x100, 0]));
        } else {
            // RESET_STREAM, and the time that a head has.
            forge.say(&mut stage, Space::Data, &frame(&[0x04, 0, 0x10c, 300]));
            assert_eq!(stage.stats(|stats| stats.held_bytes), 4 * FRAME_BYTES);
            let limit = config(0, 1).limits.header_timeout;
            for _ in 0..=limit / SECOND {
                stage.pass(SECOND);
                forge.say(&mut stage, Space::Data, &[0x01]);
            }
            assert_eq!(forge.closed, None);
        }
        assert_eq!((stage.stats(|stats| stats.held_bytes), stage.porter.reserved), (0, 0));
        stage.assert_ends_empty();
    }
}

#[test]
fn datagrams_longer_than_was_said_are_not_taken_and_their_clients_are_served_on() {
    let mut stage = Stage::usual();
    let mut forge = forge(&mut stage, 1);
    for bytes in [1_300, 1_500, 9_000, 60_000] {
        let before = stage.stats(|stats| stats.datagrams_too_long);
        let frames = [&piece(0, 10 + bytes, b"?")[..], &vec![0; bytes]].concat();
        forge.say(&mut stage, Space::Data, &frames);
        let is_too_long = u64::from(bytes > 1_472);
        assert_eq!(stage.stats(|stats| stats.datagrams_too_long) - before, is_too_long, "{bytes}");
    }
    assert_eq!(stage.stats(|stats| stats.held_bytes), FRAME_BYTES, "of the first");
    let bytes = request(b"body");
    let whole = [&frame(&[0x0f, 4, 0, bytes.len() as u64])[..], &bytes].concat();
    forge.say(&mut stage, Space::Data, &whole);
    assert_eq!((forge.closed, stage.stats(|stats| stats.timeouts)), (None, 0));
    assert!(stage.porter.troubles.is_empty());
    stage.assert_ends_empty();
}
