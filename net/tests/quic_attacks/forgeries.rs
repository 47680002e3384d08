//! Others on the way: who sees a connection's datagrams and does not have its keys can not end it,
//! move it or make it say anything.

use std::net::SocketAddr;

use forebay_net::ring::fake::Dice;
use quinn_proto::{ConnectionError, Dir};

use crate::caller::{Caller, request};
use crate::forge::{INITIAL_FRAMES_BYTES, Space, frame, initial_keys, seal};
use crate::stage::{Packet, Stage, config};
use crate::terms::{MILLI, SECOND};

const ELSEWHERE: ([u8; 4], u16) = ([10, 7, 7, 7], 777);

/// A caller, and a datagram of it with a short header: its ID of the server's is there to see.
fn seen(stage: &mut Stage) -> (Caller, Vec<u8>) {
    let mut caller = stage.caller(1);
    let stream = caller.ask(b"seen");
    let datagrams = caller.send(stage.now);
    for datagram in &datagrams {
        stage.deliver(caller.address, datagram);
    }
    stage.exchange(&mut [&mut caller], 5);
    assert_eq!(caller.answer(stream), Some((200, b"seen".to_vec())));
    let short = datagrams.into_iter().find(|datagram| datagram[0] & 0x80 == 0);
    (caller, short.expect("a request goes in packets with short headers"))
}

fn id(datagram: &[u8]) -> &[u8] {
    &datagram[1..11]
}

#[test]
fn forged_resets_end_nothing_and_move_nobody() {
    let mut stage = Stage::usual();
    let (mut caller, datagram) = seen(&mut stage);
    let mut dice = Dice::new(3);
    let before = stage.cores[0].stats();
    let mut answered = 0;
    for round in 0..2_000_u32 {
        let length = 21 + dice.below(60) as usize;
        let mut forged: Vec<u8> = (0..length).map(|_| dice.number() as u8).collect();
        forged[0] = 0x40 | forged[0] & 0x3f;
        if round % 2 == 0 {
            forged[1..11].copy_from_slice(id(&datagram));
        }
        let from = if round % 3 == 0 { SocketAddr::from(ELSEWHERE) } else { caller.address };
        stage.deliver(from, &forged);
        caller.receive(stage.now, &forged);
        let said = stage.work();
        answered += said.iter().filter(|packet| packet.to == ELSEWHERE.into()).count();
    }
    assert_eq!((caller.lost.clone(), answered), (None, 0), "seed 3");
    let stats = stage.cores[0].stats();
    assert_eq!((stats.migrated, stats.resets, stats.closed), (0, 0, before.closed), "{stats:?}");
    stage.assert_serves(&mut caller);
    stage.assert_ends_empty();
}

#[test]
fn a_connection_is_ended_by_nobody_without_its_keys() {
    let mut stage = Stage::usual();
    let (mut caller, datagram) = seen(&mut stage);
    let close = frame(&[0x1c, 0, 0, 0]);
    // The only keys that an onlooker can make are those of first packets, of any ID.
    for known in [&b"first id"[..], id(&datagram)] {
        let keys = initial_keys(known);
        for space in [Space::Initial, Space::Handshake, Space::Data] {
            for number in [0, 1, 2, 50] {
                let mut frames = close.clone();
                frames.resize(INITIAL_FRAMES_BYTES, 0);
                let forged = seal(&keys.local, space, id(&datagram), number, 0, &frames);
                for from in [caller.address, ELSEWHERE.into()] {
                    stage.deliver(from, &forged);
                    stage.work();
                }
            }
        }
    }
    assert_eq!(stage.stats(|stats| stats.closed + stats.migrated), 0);
    stage.assert_serves(&mut caller);
    stage.assert_ends_empty();
}

#[test]
fn what_is_seen_and_sent_again_from_elsewhere_moves_nobody_and_asks_for_nothing_twice() {
    let mut stage = Stage::usual();
    let mut caller = stage.caller(1);
    stage.answers_at_once = false;
    caller.ask(b"once");
    let datagrams = caller.send(stage.now);
    for round in 0..50 {
        for datagram in &datagrams {
            let from = if round == 0 { caller.address } else { ELSEWHERE.into() };
            stage.deliver(from, datagram);
        }
        stage.now += MILLI;
        let to_elsewhere = |packet: &&Packet| packet.to == ELSEWHERE.into();
        assert_eq!(stage.work().iter().filter(to_elsewhere).count(), 0);
    }
    assert_eq!((stage.requests.len(), stage.stats(|stats| stats.migrated)), (1, 0));
    stage.answers_at_once = true;
    stage.assert_serves(&mut caller);
    stage.assert_ends_empty();
}

#[test]
fn resets_of_ours_are_shorter_than_what_asked_for_them_and_few() {
    let mut stage = Stage::usual();
    let (mut caller, datagram) = seen(&mut stage);
    // Another process with the same secret, which knows no connection.
    stage.cores = vec![forebay_net::quic::Quic::new(config(0, 1))];
    let mut resets = 0;
    for round in 0..1_000 {
        let length = 30 + round % 400;
        let mut asking = vec![7; length];
        asking[0] = 0x47;
        asking[1..11].copy_from_slice(id(&datagram));
        stage.deliver(caller.address, &asking);
        for reset in stage.work() {
            assert!(reset.bytes.len() < length, "{} for {length}", reset.bytes.len());
            resets += 1;
        }
        // 1,000 in a tenth of a second.
        stage.now += MILLI / 10;
    }
    assert!((1..=6).contains(&resets), "{resets}");
    assert_eq!(stage.stats(|stats| stats.resets), resets);
    // And they are believed, for this is the one that may say so.
    stage.now += SECOND;
    caller.ask(b"anybody there?");
    stage.exchange(&mut [&mut caller], 5);
    assert_eq!(caller.lost, Some(ConnectionError::Reset));
}

#[test]
fn clients_that_move_between_cores_under_load_lose_no_request_and_get_their_own_answers() {
    const CALLERS: u8 = 6;
    const ROUNDS: usize = 60;
    let mut dice = Dice::new(4);
    let mut stage = Stage::new([0, 1].map(|index| {
        let mut config = config(index, 2);
        config.limits.connection_requests_max = 100;
        config
    }));
    let mut callers: Vec<Caller> = (0..CALLERS)
        .map(|number| {
            let address = SocketAddr::from(([10, 0, 1, number], 1_024 + u16::from(number)));
            Caller::new(address, number.into(), stage.now)
        })
        .collect();
    stage.exchange(&mut callers.iter_mut().collect::<Vec<_>>(), 10);
    assert!(callers.iter().all(Caller::is_open));
    let mut asked = Vec::new();
    for round in 0..ROUNDS {
        for (nth, caller) in callers.iter_mut().enumerate() {
            let body = format!("{nth}/{round}/").repeat(1 + dice.below(100) as usize);
            // Some wait for what was lost on the way to where they were.
            if let Some(stream) = caller.open(Dir::Bi, &request(body.as_bytes()), true) {
                asked.push((nth, stream, body));
            }
            if dice.of_1000(200) {
                // A new port: what is on its way to the old one is lost, as behind a NAT.
                caller.address.set_port(2_000 + dice.below(60_000) as u16);
            }
        }
        // Whatever the filter says, some datagrams come to the core that they are not for.
        for _ in 0..2 {
            stage.now += MILLI;
            for caller in &mut callers {
                for bytes in caller.send(stage.now) {
                    stage.deliver_at(dice.below(2) as usize, caller.address, &bytes);
                }
            }
            for packet in stage.work() {
                let caller = callers.iter_mut().find(|caller| caller.address == packet.to);
                if let Some(caller) = caller {
                    caller.receive(stage.now, &packet.bytes);
                }
            }
        }
    }
    let mut all: Vec<&mut Caller> = callers.iter_mut().collect();
    stage.exchange(&mut all, 3_000);
    assert!(asked.len() > 200, "seed 4: {} asked", asked.len());
    for (nth, stream, body) in asked {
        let answer = callers[nth].answer(stream);
        assert_eq!(answer, Some((200, body.into_bytes())), "seed 4: {nth} on {stream}");
    }
    let (moved, strangers) = (stage.stats(|s| s.migrated), stage.stats(|s| s.strangers));
    assert!(moved > 30 && strangers > 200, "seed 4: {moved} moved, {strangers} strangers");
    assert_eq!(strangers, stage.stats(|stats| stats.adopted));
    for core in &stage.cores {
        assert!(core.stats().handshakes > 0, "seed 4: each core has connections");
    }
    stage.assert_ends_empty();
}
