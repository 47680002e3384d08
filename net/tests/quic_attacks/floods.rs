//! Floods by a client whose handshake is done: what costs work and brings no request ends its
//! connection with H3_EXCESSIVE_LOAD, is told to the door by its name, and hurts nobody beside it.

use forebay_net::request::Trouble;
use quinn_proto::Dir;

use crate::caller::{Caller, request};
use crate::forge::{Forge, Space, frame};
use crate::stage::Stage;
use crate::terms::MILLI;
use crate::wire;

const EXCESSIVE_LOAD: u64 = 0x107;
/// More rounds than any flood may last.
const ROUNDS_MAX: usize = 2_000;

/// Floods until the connection is ended. Beside it somebody is served all the time.
fn flood(trouble: Trouble, mut round: impl FnMut(&mut Stage, &mut Caller)) -> usize {
    let mut stage = Stage::usual();
    let mut served = stage.caller(1);
    let mut flooder = stage.caller(2);
    let mut rounds = 0;
    while flooder.lost.is_none() {
        round(&mut stage, &mut flooder);
        let before = stage.stats(|stats| stats.sent_bytes);
        stage.exchange(&mut [&mut served, &mut flooder], 1);
        let sent = stage.stats(|stats| stats.sent_bytes) - before;
        assert!(sent < 30_000, "{trouble:?}: {sent} bytes in one turn");
        if rounds % 50 == 0 {
            stage.assert_serves(&mut served);
        }
        rounds += 1;
        assert!(rounds < ROUNDS_MAX, "{trouble:?} has no end");
        assert!(stage.porter.reserved_max < 400_000, "{}", stage.porter.reserved_max);
    }
    assert_eq!(flooder.close_code(), Some(EXCESSIVE_LOAD), "{:?}", flooder.lost);
    assert_eq!(stage.porter.troubles.last(), Some(&trouble));
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
    rounds
}

/// As many streams as there may be now, each with this at its beginning.
fn open_all(caller: &mut Caller, dir: Dir, bytes: &[u8], ends: bool) -> Vec<quinn_proto::StreamId> {
    std::iter::from_fn(|| caller.open(dir, bytes, ends)).collect()
}

#[test]
fn rapid_resets_of_requests_in_any_state_end_the_connection() {
    let whole = request(b"body");
    let begun = &whole[..whole.len() - 2];
    // Nothing of it was sent; its head was; all of it was.
    for (bytes, is_whole) in [(&b""[..], false), (begun, false), (&whole[..], true)] {
        let rounds = flood(Trouble::Resets, |stage, caller| {
            stage.answers_at_once = !is_whole;
            let streams = open_all(caller, Dir::Bi, bytes, is_whole);
            if !bytes.is_empty() {
                stage.exchange(&mut [&mut *caller], 1);
            }
            for stream in streams {
                match is_whole {
                    true => caller.stop(stream),
                    false => caller.reset(stream),
                }
            }
            if is_whole {
                stage.exchange(&mut [&mut *caller], 1);
                stage.answer();
                stage.answers_at_once = true;
            }
        });
        assert!(rounds > 10, "{} were borne", rounds);
    }
}

#[test]
fn malformed_requests_end_the_connection_once_they_are_many() {
    let mut head = Vec::new();
    wire::put_frame(&mut head, 1, b"\0\0\xd1");
    let rounds = flood(Trouble::Errors, |_, caller| {
        open_all(caller, Dir::Bi, &head, true);
    });
    assert!(rounds > 2, "{rounds}");
}

#[test]
fn frames_and_settings_that_nobody_knows_end_the_connection_once_they_are_many() {
    let mut grease = Vec::new();
    (0..10).for_each(|_| wire::put_frame(&mut grease, 0x21, b"?"));
    // On the control stream.
    let mut control = None;
    flood(Trouble::Control, |_, caller| match control {
        None => control = caller.open(Dir::Uni, &wire::control(), false),
        Some(stream) => caller.write(stream, &grease, false),
    });
    // On requests that never end.
    let mut streams = Vec::new();
    flood(Trouble::Control, |_, caller| {
        if streams.is_empty() {
            streams = open_all(caller, Dir::Bi, b"", false);
        }
        streams.iter().for_each(|stream| caller.write(*stream, &grease[..12], false));
    });
    // MAX_PUSH_ID, which means something and is good for nothing.
    let (mut control, mut number) = (None, 0);
    flood(Trouble::Control, |_, caller| match control {
        None => control = caller.open(Dir::Uni, &wire::control(), false),
        Some(stream) => {
            let mut frames = Vec::new();
            for _ in 0..10 {
                number += 1;
                wire::put_frame(&mut frames, 0x0d, &(0x4000 | number as u16).to_be_bytes());
            }
            caller.write(stream, &frames, false);
        }
    });
}

#[test]
fn settings_without_end_are_not_waited_for() {
    let mut stage = Stage::usual();
    let mut caller = stage.caller(1);
    let mut settings = vec![0x00, 0x04, 0x80, 0x01, 0, 0];
    settings.extend((0..200).flat_map(|nth| [0x40 + nth / 64, nth, 0]));
    caller.open(Dir::Uni, &settings, false).expect("there is room");
    stage.exchange(&mut [&mut caller], 5);
    assert_eq!(caller.close_code(), Some(EXCESSIVE_LOAD));
    stage.assert_ends_empty();
}

#[test]
fn streams_of_one_direction_that_nobody_knows_end_the_connection_once_they_are_many() {
    let rounds = flood(Trouble::Control, |_, caller| {
        open_all(caller, Dir::Uni, b"\x21 of no use", true);
    });
    assert!(rounds > 50, "{rounds}");
    flood(Trouble::Control, |stage, caller| {
        let streams = open_all(caller, Dir::Uni, b"\x21 of no use", false);
        stage.exchange(&mut [&mut *caller], 1);
        streams.into_iter().for_each(|stream| caller.reset(stream));
    });
}

#[test]
fn streams_of_one_direction_that_say_nothing_at_all_are_as_much_of_a_flood() {
    flood(Trouble::Control, |_, caller| {
        open_all(caller, Dir::Uni, b"", true);
    });
    flood(Trouble::Control, |_, caller| {
        let streams = open_all(caller, Dir::Uni, b"", false);
        streams.into_iter().for_each(|stream| caller.reset(stream));
    });
}

#[test]
fn instructions_for_a_table_that_has_no_room_end_the_connection_once_they_are_many() {
    for (kind, instruction) in [(0x02, 0x20), (0x03, 0x44)] {
        let mut stream = None;
        flood(Trouble::Control, |_, caller| match stream {
            None => stream = caller.open(Dir::Uni, &[kind], false),
            Some(stream) => caller.write(stream, &[instruction; 100], false),
        });
    }
}

#[test]
fn bodies_in_crumbs_end_the_connection_once_they_are_many() {
    let mut streams = Vec::new();
    let mut crumbs = Vec::new();
    (0..16).for_each(|_| wire::put_frame(&mut crumbs, 0x00, b"x"));
    let head = request(b"");
    flood(Trouble::Crumbs, |_, caller| {
        if streams.is_empty() {
            streams = open_all(caller, Dir::Bi, &head, false);
        }
        streams.iter().for_each(|stream| caller.write(*stream, &crumbs, false));
    });
}

#[test]
fn heads_that_are_too_long_are_answered_and_heads_that_never_end_are_few() {
    let mut stage = Stage::usual();
    let mut caller = stage.caller(1);
    let mut long = Vec::new();
    wire::put_frame(&mut long, 1, &[0; 5_000]);
    for _ in 0..100 {
        let stream = caller.open(Dir::Bi, &long, true).expect("there is room");
        stage.exchange(&mut [&mut caller], 5);
        assert_eq!(caller.answer(stream), Some((431, vec![])));
    }
    assert_eq!(caller.lost, None);
    assert!(stage.porter.reserved_max < 400_000, "{}", stage.porter.reserved_max);
    // Heads of all but their last byte, on as many streams as there may be.
    let mut begun = Vec::new();
    wire::put_frame(&mut begun, 1, &[0; 4_000]);
    begun.pop();
    while caller.lost.is_none() && caller.open(Dir::Bi, &begun, false).is_some() {
        stage.exchange(&mut [&mut caller], 2);
    }
    assert_eq!(caller.close_code(), Some(EXCESSIVE_LOAD));
    assert_eq!(stage.porter.troubles, [Trouble::HeaderBlock]);
    stage.assert_ends_empty();
}

/// Frames, of which each number has its own.
type Numbered = fn(u64) -> Vec<u8>;

#[test]
fn pings_probes_and_ids_without_end_bring_less_back_than_they_are_and_cost_no_memory() {
    let new_id = |id: u64| {
        let id_frame = frame(&[0x18, id, id, 8]);
        [&id_frame[..], &id.to_be_bytes(), &[7; 16]].concat()
    };
    let floods: [(&str, Numbered); 5] = [
        ("PING", |_| vec![0x01]),
        ("MAX_DATA", |_| frame(&[0x10, 1 << 20])),
        ("DATA_BLOCKED", |_| frame(&[0x14, 9])),
        ("STREAMS_BLOCKED", |_| frame(&[0x16, 9])),
        ("NEW_CONNECTION_ID", new_id),
    ];
    let mut stage = Stage::usual();
    let mut served = stage.caller(1);
    for (number, (what, next)) in floods.into_iter().enumerate() {
        let address = ([10, 0, 2, number as u8], 1024).into();
        let mut forge = Forge::established(&mut stage, address);
        let (mut said, mut heard) = (0, 0);
        for times in 1..500 {
            let mut frames = next(times);
            // As many as fit into a datagram; but each ID is to be another one.
            while what != "NEW_CONNECTION_ID" && frames.len() < 1_000 {
                frames.extend(next(times));
            }
            let packet = forge.packet(Space::Data, 0, &frames);
            said += packet.len();
            stage.deliver(forge.address, &packet);
            heard += forge.hear(&mut stage);
            if forge.closed.is_some() {
                break;
            }
        }
        // Acknowledgements, and what was never acknowledged itself.
        assert!(4 * heard < said, "{what}: {heard} for {said}");
    }
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
}

#[test]
fn a_stream_that_nobody_knows_is_not_taken_up_again_in_its_middle() {
    let mut stage = Stage::usual();
    let mut served = stage.caller(1);
    // What follows the kind would be a push, a second control stream, a second one of QPACK.
    for (number, first) in [0x01, 0x00, 0x02, 0x03, 0x40].into_iter().enumerate() {
        let address = ([10, 0, 2, number as u8], 1024).into();
        let mut forge = Forge::established(&mut stage, address);
        let control = [&frame(&[0x0a, 2, 3])[..], &[0, 4, 0]].concat();
        forge.say(&mut stage, Space::Data, &control);
        let begun = [&frame(&[0x0e, 6, 0, 3])[..], &[0x21, 7, 7]].concat();
        let rest = [&frame(&[0x0e, 6, 3, 3])[..], &[first, 0, 0]].concat();
        // Both in one packet, behind each other, and the rest first.
        match number % 2 {
            0 => forge.say(&mut stage, Space::Data, &[begun, rest].concat()),
            _ => forge.say(&mut stage, Space::Data, &[rest, begun].concat()),
        }
        assert_eq!(forge.closed, None, "{first:#x}");
    }
    assert_eq!(stage.porter.troubles, []);
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
}

#[test]
fn new_keys_with_every_packet_bring_little_back_and_hurt_nobody() {
    let mut stage = Stage::usual();
    let mut served = stage.caller(1);
    // One waits until the server has answered with the new keys, the other never does.
    for waits in [true, false] {
        let address = ([10, 0, 2, u8::from(waits)], 1024).into();
        let mut forge = Forge::established(&mut stage, address);
        let (mut said, mut heard) = (0, 0);
        for times in 0..200 {
            if times % 50 == 0 {
                stage.assert_serves(&mut served);
            }
            forge.update_keys();
            let packet = forge.packet(Space::Data, 0, &[0x01; 40]);
            said += packet.len();
            stage.deliver(forge.address, &packet);
            if waits {
                heard += forge.hear(&mut stage);
                stage.pass(30 * MILLI);
            }
        }
        heard += forge.hear(&mut stage);
        assert!(heard < said + 10_000, "{heard} for {said}");
        stage.assert_serves(&mut served);
    }
    stage.assert_ends_empty();
}
