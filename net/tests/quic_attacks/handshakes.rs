//! Handshakes by the thousand, by half and by accident: they are bounded and counted, whoever is
//! served goes on to be served, and whoever is honest gets in.

use std::net::SocketAddr;

use forebay_net::quic::Config;
use quinn_proto::Dir;

use crate::caller::{Caller, request};
use crate::forge::{
    Forge, INITIAL_BYTES_MIN, INITIAL_FRAMES_BYTES, Space, crypto_frame, frame, initial_keys, seal,
    spoofed,
};
use crate::stage::{Stage, config};
use crate::terms::{MILLI, SECOND};

fn stranger(number: u32) -> SocketAddr {
    let [.., a, b] = number.to_be_bytes();
    SocketAddr::from(([10, 8, a, b], 4_000))
}

fn bounded() -> Config {
    Config { handshakes_max: 40, retry_above: 20, ..config(0, 1) }
}

#[test]
fn a_flood_of_first_packets_holds_up_no_request_and_keeps_nobody_honest_out() {
    const ROUNDS: u32 = 30;
    const EACH: u32 = 100;
    let mut stage = Stage::new([bounded()]);
    let mut served = stage.caller(1);
    let before = stage.cores[0].stats();
    for round in 0..ROUNDS {
        for nth in 0..EACH {
            let number = round * EACH + nth;
            let id = [&number.to_be_bytes()[..], b"-id-"].concat();
            stage.deliver(stranger(number), &spoofed(&id, INITIAL_BYTES_MIN));
        }
        let stream = served.ask(b"during the flood");
        stage.exchange(&mut [&mut served], 3);
        assert_eq!(served.answer(stream), Some((200, b"during the flood".to_vec())), "{round}");
        let stats = stage.cores[0].stats();
        assert!(stats.handshaking <= 20 && stats.connections <= 21, "{stats:?}");
    }
    let mut newcomer = Caller::new(([10, 0, 1, 2], 1024).into(), 2, stage.now);
    stage.exchange(&mut [&mut newcomer], 20);
    assert!(newcomer.is_open(), "it proves its address and gets in: {:?}", newcomer.lost);
    stage.assert_serves(&mut newcomer);
    let stats = stage.cores[0].stats();
    assert!(stats.retries >= u64::from(ROUNDS * EACH) / 2, "{stats:?}");
    assert_eq!(stats.handshakes, before.handshakes + 1);
    stage.assert_ends_empty();
}

#[test]
fn junk_instead_of_first_packets_keeps_nobody_honest_waiting() {
    let mut stage = Stage::usual();
    for round in 0..10_u32 {
        for nth in 0..200 {
            let number = round * 200 + nth;
            let id = [&number.to_be_bytes()[..], b"-id-"].concat();
            let mut junk = spoofed(&id, INITIAL_BYTES_MIN);
            *junk.last_mut().expect("it is long") ^= 1;
            stage.deliver(stranger(number), &junk);
        }
        stage.work();
    }
    let mut newcomer = Caller::new(([10, 0, 1, 2], 1024).into(), 2, stage.now);
    stage.exchange(&mut [&mut newcomer], 20);
    assert!(newcomer.is_open(), "{:?}", stage.cores[0].stats());
    let stats = stage.cores[0].stats();
    assert!(stats.retries > 500, "who fills the queue is asked for its address: {stats:?}");
    assert_eq!((stats.accepted, stats.handshakes), (1, 1), "{stats:?}");
    assert!(stats.unreadable > 500, "{stats:?}");
    stage.assert_ends_empty();
}

#[test]
fn a_thousand_that_come_back_at_once_are_in_before_anybody_asks_again() {
    const CROWD: usize = 1_000;
    let mut config = Config { handshakes_max: 1_024, retry_above: 256, ..config(0, 1) };
    config.limits.connections_max = 2 * CROWD;
    let mut stage = Stage::new([config]);
    let mut crowd: Vec<Caller> =
        (0..CROWD as u32).map(|nth| Caller::new(stranger(nth), u64::from(nth), 0)).collect();
    let mut turns = 0;
    while !crowd.iter().all(Caller::is_open) {
        // As many as come together in one turn of a ring, and no time goes by.
        for first in (0..CROWD).step_by(100) {
            for caller in &mut crowd[first..first + 100] {
                for datagram in caller.send(stage.now) {
                    stage.deliver(caller.address, &datagram);
                }
            }
            for packet in stage.work() {
                let caller = crowd.binary_search_by_key(&packet.to, |caller| caller.address);
                crowd[caller.expect("one of them")].receive(stage.now, &packet.bytes);
            }
            turns += 1;
        }
        assert!(turns < 600, "{turns} turns: {:?}", stage.cores[0].stats());
    }
    let stats = stage.cores[0].stats();
    assert_eq!((stats.refused, stats.handshakes_failed), (0, 0), "{stats:?}");
}

#[test]
fn who_is_in_since_this_very_turn_gives_no_place_to_another() {
    let mut stage = Stage::new([Config { handshakes_max: 1, ..config(0, 1) }]);
    let mut first = Caller::new(stranger(1), 1, 0);
    let come = |stage: &mut Stage, caller: &mut Caller| {
        for datagram in caller.send(stage.now) {
            stage.deliver(caller.address, &datagram);
        }
    };
    come(&mut stage, &mut first);
    for packet in stage.work() {
        first.receive(stage.now, &packet.bytes);
    }
    // It took so long that it would have to give way.
    stage.now = SECOND + MILLI;
    come(&mut stage, &mut first);
    let mut second = Caller::new(stranger(2), 2, stage.now);
    come(&mut stage, &mut second);
    stage.exchange(&mut [&mut first, &mut second], 10);
    assert!(first.is_open() && second.is_open(), "{:?}", stage.cores[0].stats());
    assert_eq!(stage.stats(|stats| stats.handshakes_failed), 0);
    stage.assert_serves(&mut first);
    stage.assert_ends_empty();
}

#[test]
fn a_last_word_in_the_turn_in_which_its_time_is_over_leaves_nothing_behind() {
    for drains in [false, true] {
        let mut stage = Stage::usual();
        let mut caller = Caller::new(stranger(1), 1, 0);
        for datagram in caller.send(0) {
            stage.deliver(caller.address, &datagram);
        }
        for packet in stage.work() {
            caller.receive(0, &packet.bytes);
        }
        caller.open(Dir::Bi, &request(&[7; 20_000])[..3_000], false).expect("there is room");
        stage.now = 3 * SECOND;
        for datagram in caller.send(stage.now) {
            stage.deliver(caller.address, &datagram);
        }
        if drains {
            stage.cores[0].drain(stage.now, &mut stage.porter, &mut Vec::new());
        }
        stage.work();
        let stats = stage.cores[0].stats();
        assert_eq!((stats.handshakes, stats.timeouts), (u64::from(!drains), 0), "{stats:?}");
        assert_eq!(stage.porter.reserved > 0, !drains, "a part of a body");
        stage.assert_ends_empty();
    }
}

#[test]
fn handshakes_of_proven_addresses_are_bounded_too_and_the_rest_is_refused_and_counted() {
    let mut stage = Stage::new([bounded()]);
    let mut served = stage.caller(1);
    let mut flood: Vec<Caller> = (0..120)
        .map(|number| Caller::new(stranger(number), 1_000 + u64::from(number), stage.now))
        .collect();
    // Each says its first word, and its second to a Retry: where it is. Then it says no more.
    for _ in 0..2 {
        for caller in &mut flood {
            for datagram in caller.send(stage.now) {
                stage.deliver(caller.address, &datagram);
            }
        }
        // As many turns as it takes to decide on all of them.
        let packets: Vec<_> = (0..60).flat_map(|_| stage.work()).collect();
        for packet in packets {
            let is_retry = packet.bytes[0] & 0xf0 == 0xf0;
            let caller = flood.iter_mut().find(|caller| caller.address == packet.to);
            if let Some(caller) = caller.filter(|_| is_retry) {
                caller.receive(stage.now, &packet.bytes);
            }
        }
        let stats = stage.cores[0].stats();
        assert!(stats.handshaking <= 40, "{stats:?}");
    }
    let stats = stage.cores[0].stats();
    assert_eq!(stats.handshaking, 40, "{stats:?}");
    assert!(stats.refused >= 80 - 20, "{stats:?}");
    stage.assert_serves(&mut served);
    // Their time comes, their places are free.
    for _ in 0..4 {
        stage.pass(SECOND);
        stage.assert_serves(&mut served);
    }
    let stats = stage.cores[0].stats();
    assert_eq!((stats.handshaking, stats.timeouts), (0, stats.handshakes_failed), "{stats:?}");
    assert!(stats.handshakes_failed >= 40, "{stats:?}");
    let mut newcomer = stage.caller(2);
    stage.assert_serves(&mut newcomer);
    stage.assert_ends_empty();
}

#[test]
fn whoever_begins_and_says_no_more_has_its_time_and_not_a_moment_longer() {
    let mut stage = Stage::usual();
    // One after its first packet, one after it heard us, one that goes on acknowledging.
    stage.deliver(stranger(1), &spoofed(b"first id", INITIAL_BYTES_MIN));
    let mut silent = Forge::new(stranger(2));
    silent.begin(&mut stage);
    let mut talkative = Forge::new(stranger(3));
    talkative.begin(&mut stage);
    let began = stage.now;
    assert_eq!(stage.stats(|stats| stats.handshaking), 3);
    while stage.stats(|stats| stats.handshaking) > 0 {
        assert!(stage.now < began + 4 * SECOND, "a handshake lives on its pings");
        if talkative.closed.is_none() {
            talkative.say(&mut stage, Space::Handshake, &[0x01]);
        }
        stage.pass(100 * MILLI);
    }
    assert!(stage.now > began + 2 * SECOND, "{} ms", (stage.now - began) / MILLI);
    let stats = stage.cores[0].stats();
    assert_eq!((stats.handshakes_failed, stats.timeouts), (3, 3), "{stats:?}");
    stage.assert_ends_empty();
}

#[test]
fn a_handshake_that_is_not_of_our_tls_costs_its_place_for_a_moment_only() {
    let mut stage = Stage::usual();
    for number in 0..50_u32 {
        let mut forge = Forge::new(stranger(number));
        forge.begin(&mut stage);
        // A Finished that proves nothing.
        let finished = [&[20, 0, 0, 32][..], &[number as u8; 32]].concat();
        let crypto = crypto_frame(0, &finished);
        forge.say(&mut stage, Space::Handshake, &crypto);
        assert_eq!(forge.closed, Some((0x100 + 51, false)), "decrypt_error");
        assert_eq!(stage.stats(|stats| stats.handshaking), 0);
    }
    assert_eq!(stage.stats(|stats| stats.handshakes_failed), 50);
    stage.assert_ends_empty();
}

#[test]
fn first_packets_that_are_bent_make_no_connection_that_lasts() {
    let mut stage = Stage::usual();
    let whole = spoofed(b"first id", INITIAL_BYTES_MIN);
    for at in 0..400_u32 {
        let mut bent = whole.clone();
        bent[at as usize * 3] ^= 1 << (at % 8);
        stage.deliver(stranger(at), &bent);
        stage.work();
        stage.now += MILLI;
    }
    let stats = stage.cores[0].stats();
    assert!(stats.connections <= 2, "{stats:?}");
    assert_eq!(stats.handshakes, 0);
    assert!(stats.unreadable + stats.accepted > 0, "{stats:?}");
    stage.assert_ends_empty();
}

#[test]
fn first_packets_that_take_themselves_back_hold_no_place() {
    let mut stage = Stage::new([bounded()]);
    let mut served = stage.caller(1);
    for round in 0..20_u32 {
        for nth in 0..50_u32 {
            let number = round * 50 + nth;
            let id = [&number.to_be_bytes()[..], b"-id-"].concat();
            stage.deliver(stranger(number), &taken_back(&id));
        }
        stage.exchange(&mut [&mut served], 2);
        let stats = stage.cores[0].stats();
        assert!(stats.connections <= 1 + 40, "{stats:?}");
    }
    for _ in 0..5 {
        stage.pass(SECOND);
        stage.assert_serves(&mut served);
    }
    let stats = stage.cores[0].stats();
    assert!(stats.connections <= 1, "{stats:?}");
    let mut newcomer = stage.caller(2);
    stage.assert_serves(&mut newcomer);
    stage.assert_ends_empty();
}

#[test]
fn a_hello_that_never_ends_is_given_up_before_it_costs_much() {
    let mut stage = Stage::usual();
    let mut served = stage.caller(1);
    let id = b"first id";
    let keys = initial_keys(id);
    let (mut said, mut offset) = (0, 0);
    // A hello of 2^24 bytes, as far as anybody listens.
    for number in 0..400 {
        let mut piece = vec![0; 1_100];
        if number == 0 {
            piece[..4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
        }
        let mut frames = crypto_frame(offset, &piece);
        offset += piece.len() as u64;
        frames.resize(frames.len().max(INITIAL_FRAMES_BYTES), 0);
        stage.deliver(stranger(1), &seal(&keys.local, Space::Initial, id, number, 0, &frames));
        stage.now += MILLI;
        stage.work();
        if stage.stats(|stats| stats.handshakes_failed) > 0 {
            break;
        }
        said += 1_100;
    }
    assert!(said < 70_000, "{said} bytes of a hello are waited for");
    assert_eq!(stage.stats(|stats| stats.handshaking), 0);
    stage.assert_serves(&mut served);
    stage.assert_ends_empty();
}

#[test]
fn a_hello_in_single_bytes_and_in_any_order_is_a_hello() {
    let mut stage = Stage::usual();
    let mut forge = Forge::new(stranger(1));
    let hello = forge.hello();
    let mut dice = forebay_net::ring::fake::Dice::new(5);
    let mut places: Vec<usize> = (0..hello.len()).collect();
    for at in (1..places.len()).rev() {
        places.swap(at, dice.below(at as u64 + 1) as usize);
    }
    for places in places.chunks(200) {
        let crypto = |place: &usize| crypto_frame(*place as u64, &hello[*place..=*place]);
        let mut frames: Vec<u8> = places.iter().flat_map(crypto).collect();
        frames.resize(INITIAL_FRAMES_BYTES, 0);
        let packet = forge.packet(Space::Initial, 0, &frames);
        stage.deliver(forge.address, &packet);
        stage.work();
        stage.now += MILLI;
    }
    stage.pass(SECOND).iter().for_each(|packet| forge.receive(&packet.bytes));
    forge.shake_hands(&mut stage);
    assert!(forge.is_confirmed, "seed 5: {:?}", forge.closed);
    stage.assert_ends_empty();
}

#[test]
fn what_comes_before_its_time_with_early_keys_makes_no_connection_and_asks_for_nothing() {
    let mut stage = Stage::usual();
    for number in 0..500_u32 {
        let id = [&number.to_be_bytes()[..], b"-id-"].concat();
        let mut early = spoofed(&id, INITIAL_BYTES_MIN);
        // The kind of packet that carries 0-RTT data.
        early[0] = 0xd3;
        stage.deliver(stranger(number), &early);
        assert!(stage.work().is_empty(), "{number}");
    }
    assert_eq!(stage.stats(|stats| stats.accepted + stats.handshakes), 0);
    assert!(stage.requests.is_empty());
}

/// A first packet that ends the connection which it begins.
fn taken_back(id: &[u8]) -> Vec<u8> {
    let mut frames = frame(&[0x1c, 0, 0, 0]);
    frames.resize(INITIAL_FRAMES_BYTES, 0);
    seal(&initial_keys(id).local, Space::Initial, id, 0, 0, &frames)
}
