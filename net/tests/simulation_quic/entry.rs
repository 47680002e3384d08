//! Who comes in and what it may send ahead: crowds, pretenders and stalled handshakes cost those
//! who are in no more than a bounded part of a turn and of the memory.

use std::net::SocketAddr;

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::quic::{Config, Path};
use forebay_net::request::{Answer, Door};
use forebay_net::tls::Failure;
use http::StatusCode;
use quinn_proto::{Dir, StreamId};

use crate::door::Desk;
use crate::edges::{Client, Pair, config};
use crate::talk::Made;
use crate::terms::{self, MILLI, SECOND};
use crate::wire;

#[test]
fn a_turn_begins_few_handshakes_and_serves_who_is_in() {
    let mut pair = Pair::new(config(0, 1));
    pair.exchange();
    let before = pair.quic.stats();
    let mut crowd: Vec<Client> = (0..200)
        .map(|nth: u32| {
            let [.., a, b] = nth.to_be_bytes();
            Client::new(SocketAddr::from(([10, 2, a, b], 1024)), u64::from(nth))
        })
        .collect();
    for client in &mut crowd {
        for datagram in client.send(pair.now) {
            pair.quic.handle_datagram(pair.now, client.path(), &datagram);
        }
    }
    pair.client.ask();
    for datagram in pair.client.send(pair.now) {
        pair.quic.handle_datagram(pair.now, pair.client.path(), &datagram);
    }
    let mut begun = Vec::new();
    loop {
        let accepted = pair.quic.stats().accepted;
        pair.work();
        begun.push(pair.quic.stats().accepted - accepted);
        assert_eq!(pair.requests.len(), 1, "who is in does not wait for those who are not");
        if pair.quic.next_timeout() != Some(0) {
            break;
        }
    }
    assert!(begun.iter().all(|count| *count <= 4), "{begun:?}");
    let stats = pair.quic.stats();
    let waited: u64 = begun.iter().sum();
    assert!(waited >= 100, "{stats:?}");
    let at_once = begun[0];
    assert_eq!(stats.put_off - before.put_off, waited - at_once, "each once: {stats:?}");
    assert_eq!(stats.accepted - before.accepted, waited);
}

#[test]
fn who_takes_back_its_first_packet_holds_no_place() {
    let mut pair = Pair::new(config(0, 1));
    let reason = Bytes::from_static(b"never mind");
    pair.client.quic.close(terms::instant(0), 7u32.into(), reason);
    let sent = pair.client.send(0);
    assert!(!sent.is_empty() && sent[0].len() >= 1_200, "an Initial, padded");
    for datagram in sent {
        pair.quic.handle_datagram(0, pair.client.path(), &datagram);
    }
    pair.work();
    let stats = pair.quic.stats();
    assert_eq!((stats.connections, stats.unreadable, stats.accepted), (0, 1, 0), "{stats:?}");
    assert_eq!(pair.quic.next_timeout(), None);
}

#[test]
fn who_gives_up_its_handshake_is_counted_with_those_under_way_until_it_is_forgotten() {
    let mut pair = Pair::new(Config { retry_above: 1, ..config(0, 1) });
    let first = pair.client.send(0);
    pair.quic.handle_datagram(0, pair.client.path(), &first[0]);
    pair.work().iter().for_each(|(_, bytes)| pair.client.receive(0, bytes));
    pair.client.quic.close(terms::instant(0), 7u32.into(), Bytes::new());
    for datagram in pair.client.send(0) {
        pair.quic.handle_datagram(0, pair.client.path(), &datagram);
    }
    pair.work();
    let stats = pair.quic.stats();
    assert_eq!((stats.handshaking, stats.handshakes_failed, stats.connections), (0, 1, 1));
    let mut other = Client::new(([10, 0, 1, 2], 1).into(), 3);
    let come = |pair: &mut Pair, client: &mut Client| {
        for datagram in client.send(pair.now) {
            pair.quic.handle_datagram(pair.now, client.path(), &datagram);
        }
        pair.work();
        pair.quic.stats().retries
    };
    assert_eq!(come(&mut pair, &mut other), 1, "one that pretended is still here");
    pair.pass(5 * SECOND);
    assert_eq!(pair.quic.connections(), 0);
    let mut third = Client::new(([10, 0, 1, 3], 1).into(), 4);
    assert_eq!(come(&mut pair, &mut third), 1, "it is forgotten");
    assert_eq!(pair.quic.connections(), 1);
}

#[test]
fn a_handshake_that_stalls_gives_way_to_a_new_one_once_it_had_its_time() {
    let mut pair = Pair::new(Config { handshakes_max: 2, ..config(0, 1) });
    let come = |pair: &mut Pair, nth: u8| {
        let mut client = Client::new(([10, 0, 2, nth], 1).into(), u64::from(nth));
        for datagram in client.send(pair.now) {
            pair.quic.handle_datagram(pair.now, client.path(), &datagram);
        }
        pair.work();
        let stats = pair.quic.stats();
        (stats.accepted, stats.refused, stats.handshaking)
    };
    assert_eq!([come(&mut pair, 1), come(&mut pair, 2)], [(1, 0, 1), (2, 0, 2)]);
    pair.now = SECOND / 2;
    assert_eq!(come(&mut pair, 3), (2, 1, 2), "both may be honest");
    pair.now = SECOND + MILLI;
    assert_eq!(come(&mut pair, 4), (3, 1, 2));
    let stats = pair.quic.stats();
    let too_many = Failure::ALL.iter().position(|one| *one == Failure::TooMany).expect("it is one");
    assert_eq!((stats.handshakes_failed, stats.failures[too_many]), (1, 1));
    pair.pass(20 * SECOND);
    assert_eq!(pair.quic.connections(), 0);
}

#[test]
fn a_client_may_send_little_ahead_until_it_has_sent_and_the_budget_is_asked_for_more() {
    const FIRST: usize = 32 << 10;
    let config = |window| {
        let mut config = config(0, 1);
        config.limits.connection_window_bytes = window;
        config
    };
    for windows_bytes_max in [0, 100_000, usize::MAX] {
        let mut pair = Pair::new(config(1 << 20));
        pair.desk = Desk::with_room(8 << 20);
        pair.quic.limit_windows(windows_bytes_max);
        pair.exchange();
        let mut ahead = 0;
        let ids: Vec<StreamId> =
            (0..4).filter_map(|_| pair.client.quic.streams().open(Dir::Uni)).collect();
        // A kind that nobody knows, on streams whose first bytes never come.
        for id in ids {
            ahead += pair.client.quic.send_stream(id).write(&[0x21; 1 << 20]).unwrap_or(0);
        }
        assert!(ahead > 0 && ahead <= FIRST, "{ahead} bytes for a stranger");
        let mut pair = Pair::new(config(1 << 20));
        pair.desk = Desk::with_room(8 << 20);
        pair.quic.limit_windows(windows_bytes_max);
        pair.exchange();
        for id in 0..40 {
            send_body(&mut pair, id, 50_000);
        }
        let held = pair.quic.stats().window_bytes as usize;
        assert_eq!(pair.desk.reserved, held, "the budget was asked");
        let wanted = match windows_bytes_max {
            0 => 0..1,
            100_000 => 32 << 10..100_001,
            _ => 64 << 10..1 << 20,
        };
        assert!(wanted.contains(&held), "{held} of {windows_bytes_max}");
        pair.quic.close(pair.now, &mut pair.desk, &mut pair.requests);
        pair.exchange();
        assert_eq!((pair.desk.reserved, pair.quic.stats().window_bytes), (0, 0));
    }
}

#[test]
fn who_sends_little_at_a_time_is_allowed_no_more_and_what_was_not_used_is_taken_back() {
    let mut config = config(0, 1);
    config.limits.connection_window_bytes = 1 << 20;
    let mut pair = Pair::new(config);
    pair.desk = Desk::with_room(8 << 20);
    pair.exchange();
    for id in 0..20 {
        pair.now += SECOND;
        send_body(&mut pair, id, 20_000);
    }
    assert_eq!(pair.quic.stats().window_bytes, 0, "a small window was enough");
    for id in 20..60 {
        send_body(&mut pair, id, 50_000);
    }
    let wide = pair.quic.stats().window_bytes;
    assert!(wide >= 32 << 10, "{wide}");
    for id in 60..180 {
        pair.now += SECOND;
        send_body(&mut pair, id, 10_000);
    }
    assert_eq!((pair.quic.stats().window_bytes, pair.desk.reserved), (0, 0), "of {wide}");
    assert_eq!(pair.client.lost, None);
}

/// The client sends a request with so long a body, as fast as it may, and is answered.
fn send_body(pair: &mut Pair, id: u64, bytes: usize) {
    let body = vec![0; bytes];
    let made = Made { id, path: format!("/r/{id}"), headers: vec![], body };
    let bytes = wire::request(&made, false, &[]);
    let stream = pair.client.quic.streams().open(Dir::Bi).expect("there is room");
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let written = pair.client.quic.send_stream(stream).write(rest).unwrap_or(0);
        rest = &rest[written..];
        pair.exchange();
    }
    pair.client.quic.send_stream(stream).finish().expect("it is open");
    pair.exchange();
    let request = pair.requests.pop().expect("it came");
    pair.desk.release(request.reserved);
    let (headers, trailers) = (Fields::new(), Fields::new());
    let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new(), trailers };
    let (now, desk) = (pair.now, &mut pair.desk);
    pair.quic.answer(request.id, answer, now, desk, &mut pair.requests);
    pair.exchange();
}

#[test]
fn what_a_client_sent_before_it_moved_is_taken_when_it_comes_after() {
    let mut pair = Pair::new(config(0, 1));
    pair.exchange();
    let ping = |pair: &mut Pair| {
        pair.client.quic.ping();
        pair.client.send(pair.now)
    };
    let late: Vec<Vec<u8>> = (0..40).flat_map(|_| ping(&mut pair)).collect();
    let from = SocketAddr::from(([10, 3, 0, 1], 1));
    for datagram in ping(&mut pair) {
        pair.quic.handle_datagram(pair.now, Path { from, ..pair.client.path() }, &datagram);
    }
    pair.work();
    for datagram in late {
        pair.quic.handle_datagram(pair.now, pair.client.path(), &datagram);
        pair.work();
    }
    let stats = pair.quic.stats();
    assert_eq!((stats.migrated, stats.moves_refused), (1, 0), "{stats:?}");
}

#[test]
fn who_forges_new_addresses_has_little_sent_to_them() {
    let mut pair = Pair::new(config(0, 1));
    pair.exchange();
    let home = pair.client.address;
    let mut elsewhere = 0;
    for nth in 0..300_u32 {
        pair.now += MILLI;
        pair.client.quic.ping();
        let [.., a, b] = nth.to_be_bytes();
        let from = SocketAddr::from(([10, 3, a, b], 1));
        for datagram in pair.client.send(pair.now) {
            pair.quic.handle_datagram(pair.now, Path { from, ..pair.client.path() }, &datagram);
        }
        let answers = pair.work();
        elsewhere += answers.iter().filter(|(transmit, _)| transmit.to != home).count();
    }
    let stats = pair.quic.stats();
    assert!((1..=17).contains(&stats.migrated) && stats.moves_refused > 200, "{stats:?}");
    assert!(elsewhere <= 100, "{elsewhere} datagrams to addresses that nobody asked for");
}

#[test]
fn who_drains_waits_for_no_handshake() {
    let mut pair = Pair::new(config(0, 1));
    let first = pair.client.send(0);
    pair.quic.handle_datagram(0, pair.client.path(), &first[0]);
    pair.work();
    assert!(pair.quic.is_busy() && pair.quic.stats().handshaking == 1);
    pair.quic.drain(pair.now, &mut pair.desk, &mut pair.requests);
    pair.work();
    assert!(!pair.quic.is_busy());
}
