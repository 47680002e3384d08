//! The fake ring itself: it carries bytes faithfully however badly it behaves, brings the same day
//! for the same seed, and tells its caller of mistakes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

const BYTES: usize = 3_000;

/// What the caller is told, and what for.
type Breach = (&'static str, fn(&mut FakeRing, Key));

fn options(rung: Rung) -> Options {
    Options { entries: 8, buffers: 4, buffer_bytes: 64, datagram_buffers: 4, highest: rung }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place * 7 + place / 251) as u8).collect()
}

/// A connection that was accepted.
fn accepted(network: &Network, ring: &mut FakeRing) -> (Key, Client) {
    let client = network.connect(0).expect("somebody listens");
    loop {
        ring.wait(None).expect("a fake ring never fails");
        while let Some(done) = ring.next_done() {
            match done {
                Done::Accepted { socket, .. } => return (ring.open(socket), client),
                Done::AcceptEnded { listener, .. } => ring.accept(listener),
                _ => {}
            }
        }
    }
}

fn standing(rung: Rung, seed: u64, temper: Temper) -> (Network, FakeRing) {
    let network = Network::new(seed, temper);
    let mut ring = network.ring(&options(rung));
    ring.listen(network.listener());
    (network, ring)
}

/// Carries a pattern both ways, by every kind of receive. Returns when it was done.
fn carry(rung: Rung, seed: u64) -> Nanos {
    let mut dice = Dice::new(seed);
    let temper = Temper::drawn(&mut dice);
    let (network, mut ring) = standing(rung, dice.number(), temper);
    let (key, client) = accepted(&network, &mut ring);
    let (up, down) = (pattern(BYTES), pattern(2 * BYTES));
    let (mut written, mut received, mut read) = (0, Vec::new(), Vec::new());
    let (mut sent, mut has_ended) = (0, false);
    while !has_ended || read.len() < down.len() {
        if written < up.len() {
            let bytes = 1 + dice.below(400) as usize;
            written += client.write(&up[written..up.len().min(written + bytes)]);
        } else {
            client.finish();
        }
        read.extend_from_slice(&client.read(1 + dice.below(400) as usize));
        if !has_ended && !ring.is_receiving(key) {
            match dice.below(2) {
                0 => ring.receive(key),
                _ => ring.receive_into(key, BytesMut::with_capacity(100), 90),
            }
        } else if !has_ended && dice.of_1000(100) {
            ring.stop_receiving(key);
        }
        if sent < down.len() && !ring.is_sending(key) {
            let bytes = (1 + dice.below(700) as usize).min(down.len() - sent);
            ring.send(key, Bytes::copy_from_slice(&down[sent..sent + bytes]));
            sent += bytes;
        }
        network.wake_by(network.now() + 1_000);
        ring.wait(Some(Duration::from_secs(1))).expect("a fake ring never fails");
        while let Some(done) = ring.next_done() {
            match done {
                Done::Received { key: of, chunk } => {
                    assert_eq!(of, key);
                    received.extend_from_slice(ring.bytes(&chunk));
                    ring.give_back(chunk);
                }
                Done::ReceivedInto { buffer, .. } => {
                    assert!((1..=90).contains(&buffer.len()));
                    received.extend_from_slice(&buffer);
                }
                Done::ReceiveEnded { end, .. } | Done::ReceiveIntoEnded { end, .. } => {
                    has_ended |= matches!(end, End::Eof);
                    assert!(!matches!(end, End::Failed(_)), "seed {seed}: {end:?}");
                }
                _ => {}
            }
        }
    }
    assert_eq!(received, up, "seed {seed}");
    assert_eq!(read, down, "seed {seed}");
    ring.close(key);
    assert_eq!(client.end(), Some(LineEnd::Finished), "seed {seed}");
    drop(ring);
    network.assert_at_rest();
    network.now()
}

#[test]
fn bytes_arrive_whole_and_in_order_however_the_ring_behaves_and_a_seed_brings_the_same_day() {
    for seed in 0..200 {
        for rung in Rung::LADDER {
            assert_eq!(carry(rung, seed), carry(rung, seed), "seed {seed}");
        }
    }
}

#[test]
fn a_slot_is_kept_until_its_last_completion_and_then_used_under_another_generation() {
    let temper = Temper { idle: 500, late: 500, ..Temper::calm() };
    let (network, mut ring) = standing(Rung::Deferred, 1, temper);
    let (first, client) = accepted(&network, &mut ring);
    ring.receive(first);
    client.write(b"which nobody will ever see");
    ring.close(first);
    let (second, _other) = accepted(&network, &mut ring);
    assert_ne!(first.index, second.index, "something is in flight on the first slot");
    for _ in 0..50 {
        ring.wait(Some(Duration::from_millis(1))).expect("a fake ring never fails");
        while let Some(done) = ring.next_done() {
            assert!(!matches!(done, Done::Received { .. }), "nobody hears of a closed socket");
        }
    }
    let (third, _another) = accepted(&network, &mut ring);
    assert_eq!((third.index, third.generation), (first.index, first.generation + 1));
}

#[test]
fn whoever_closes_with_bytes_unread_resets() {
    let (network, mut ring) = standing(Rung::Deferred, 1, Temper::calm());
    let (key, client) = accepted(&network, &mut ring);
    client.write(b"unread");
    ring.close(key);
    assert_eq!(client.end(), Some(LineEnd::Reset));
    assert_eq!(client.write(b"more"), 0);
}

#[test]
fn a_caller_that_breaks_the_rules_is_told() {
    let broken: [Breach; 6] = [
        ("one send at a time", |ring, key| {
            ring.send(key, Bytes::from_static(b"a"));
            ring.send(key, Bytes::from_static(b"b"));
        }),
        ("a send of nothing", |ring, key| ring.send(key, Bytes::new())),
        ("one receive at a time", |ring, key| {
            ring.receive(key);
            ring.receive_into(key, BytesMut::with_capacity(10), 10);
        }),
        ("needs room", |ring, key| ring.receive_into(key, BytesMut::new(), 10)),
        ("is closed", |ring, key| {
            ring.close(key);
            ring.receive(key);
        }),
        ("given back twice", |ring, key| {
            ring.receive(key);
            ring.wait(None).expect("a fake ring never fails");
            let Some(Done::Received { chunk: Chunk::Provided { buffer, bytes }, .. }) =
                ring.next_done()
            else {
                panic!("something came");
            };
            ring.network.0.borrow_mut().chunks_out += 1;
            ring.give_back(Chunk::Provided { buffer, bytes });
            ring.give_back(Chunk::Provided { buffer, bytes });
        }),
    ];
    for (said, breaks) in broken {
        let (network, mut ring) = standing(Rung::Deferred, 1, Temper::calm());
        let (key, client) = accepted(&network, &mut ring);
        client.write(b"a");
        let told = catch_unwind(AssertUnwindSafe(|| breaks(&mut ring, key)));
        let told = told.expect_err(said);
        let text = told.downcast_ref::<String>().cloned();
        let text = text.or_else(|| told.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        assert!(text.as_deref().is_some_and(|text| text.contains(said)), "{said}: {text:?}");
    }
}

#[test]
fn a_chunk_that_is_kept_and_a_connection_that_is_left_open_are_noticed() {
    let (network, mut ring) = standing(Rung::Deferred, 1, Temper::calm());
    let (key, client) = accepted(&network, &mut ring);
    assert!(catch_unwind(AssertUnwindSafe(|| network.assert_at_rest())).is_err());
    client.write(b"a");
    ring.receive(key);
    ring.wait(None).expect("a fake ring never fails");
    let kept = ring.next_done();
    assert!(matches!(kept, Some(Done::Received { .. })));
    drop(ring);
    assert!(catch_unwind(AssertUnwindSafe(|| network.assert_at_rest())).is_err());
}
