//! The fake ring's datagrams: none is lost, changed or given a wrong address however the ring
//! behaves, a seed brings the same day, and a caller's mistakes are told.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::{Dice, FakeRing, Network, Temper};
use super::*;
use crate::request::Nanos;
use crate::ring::{Chunk, Done, End, Options, Ring, Rung};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What the caller is told, and what for.
type Breach = (&'static str, fn(&mut FakeRing, &Everybody));

fn standing(rung: Rung, seed: u64, temper: Temper) -> (Network, FakeRing, Everybody) {
    let network = Network::new(seed, temper);
    let options =
        Options { entries: 8, buffers: 2, buffer_bytes: 64, datagram_buffers: 4, highest: rung };
    let mut ring = network.ring(&options);
    let (socket, everybody) = network.datagrams();
    assert_eq!(ring.open_datagrams(socket).unwrap(), 0);
    (network, ring, everybody)
}

/// The `number`th datagram of a day: from one of three peers, of one of a few lengths.
fn datagram(number: u32, dice: &mut Dice) -> Datagram {
    let source = SocketAddr::from(([192, 0, 2, dice.below(3) as u8], 9));
    let mut bytes = BytesMut::from(&number.to_le_bytes()[..]);
    bytes.resize(4 + 100 * dice.below(3) as usize, number as u8);
    Datagram { source, local: Some(LOCAL), ecn: dice.below(2) as u8, bytes }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize
}

/// What a day came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Day {
    ended_at: Nanos,
    truncated: u64,
    put_together: usize,
    out_of_order: usize,
    starved: usize,
    failed: usize,
}

/// Brings datagrams, sends each back from where it came, and looks that all are there.
fn echo(rung: Rung, seed: u64, alter: fn(&mut Temper)) -> Day {
    const DATAGRAMS: usize = 120;
    let mut dice = Dice::new(seed);
    let mut temper = Temper::drawn(&mut dice);
    alter(&mut temper);
    let (network, mut ring, everybody) = standing(rung, dice.number(), temper);
    let brought: Vec<Datagram> = (0..DATAGRAMS as u32).map(|n| datagram(n, &mut dice)).collect();
    let (mut given, mut came, mut back) = (0, vec![0; DATAGRAMS], vec![0; DATAGRAMS]);
    let (mut sends, mut held, mut day, mut last) = (0, Vec::new(), Day::default(), 0);
    ring.receive_datagrams(0);
    for turn in 0..20_000 {
        for datagram in brought.iter().skip(given).take(dice.below(9) as usize) {
            everybody.send(datagram.clone());
            given += 1;
        }
        network.wake_by(network.now() + 1_000);
        ring.wait(Some(Duration::from_millis(1))).unwrap();
        while let Some(done) = ring.next_done() {
            match done {
                Done::Datagrams { socket: 0, chunk } => held.push(chunk),
                Done::DatagramsEnded { socket: 0, end } => {
                    assert!(matches!(end, End::Again | End::NoBuffers), "seed {seed}: {end:?}");
                    day.starved += usize::from(matches!(end, End::NoBuffers));
                    ring.receive_datagrams(0);
                }
                Done::DatagramsSent { socket: 0, error } => {
                    sends -= 1;
                    day.failed += usize::from(error.is_some());
                }
                Done::Woken => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        // Some chunks are kept a while, so that there are no buffers left.
        while !held.is_empty() && !dice.of_1000(300) {
            let chunk: Chunk = held.swap_remove(dice.below(held.len() as u64) as usize);
            let arrival = ring.arrival(&chunk);
            let bytes = Bytes::copy_from_slice(ring.bytes(&chunk));
            day.put_together += usize::from(arrival.segments(&bytes).count() > 1);
            for segment in arrival.segments(&bytes) {
                let was = &brought[number(segment)];
                assert_eq!(segment, &was.bytes, "seed {seed}");
                let from = (was.source, was.local, was.ecn);
                assert_eq!((arrival.source, arrival.local, arrival.ecn), from, "seed {seed}");
                came[number(segment)] += 1;
                day.out_of_order += usize::from(number(segment) < last);
                last = number(segment);
            }
            ring.give_back(chunk);
            let Arrival { source: to, local: from, ecn, segment_bytes } = arrival;
            ring.send_datagrams(0, Departure { to, from, ecn, segment_bytes, bytes });
            sends += 1;
        }
        while let Some(departure) = everybody.receive() {
            let was = &brought[number(&departure.bytes)];
            assert_eq!((departure.to, departure.ecn), (was.source, was.ecn), "seed {seed}");
            assert_eq!(departure.segments(), 1, "the wire has single datagrams");
            assert_eq!(departure.bytes, was.bytes);
            back[number(&departure.bytes)] += 1;
        }
        let is_idle = turn > 500 && held.is_empty() && sends == 0;
        if given == DATAGRAMS && is_idle && (ring.datagram_room(0) == SENDS_MAX) {
            day.ended_at = network.now();
            day.truncated = ring.stats().datagrams_truncated;
            if day.truncated == 0 && came.contains(&0) {
                continue;
            }
            break;
        }
    }
    assert!(day.ended_at > 0, "seed {seed}: it never ends");
    assert!(came.iter().all(|times| *times <= 1), "seed {seed}: {came:?}");
    assert_eq!(came.contains(&0), day.truncated > 0, "seed {seed}: {came:?}");
    if day.failed == 0 {
        assert_eq!(back, came, "seed {seed}");
    }
    ring.close_datagrams(0);
    network.assert_at_rest_after(&mut ring);
    day
}

impl Network {
    /// Turns until the ring has let go of everything.
    fn assert_at_rest_after(&self, ring: &mut FakeRing) {
        for _ in 0..1_000 {
            self.wake_by(self.now() + 1_000);
            ring.wait(Some(Duration::from_millis(1))).unwrap();
            while let Some(done) = ring.next_done() {
                assert!(matches!(done, Done::Woken), "nobody hears of a closed socket: {done:?}");
            }
        }
        self.assert_at_rest();
    }
}

#[test]
fn no_datagram_is_lost_or_changed_however_the_ring_behaves_and_a_seed_brings_the_same_day() {
    let mut all = Day::default();
    for seed in 0..100 {
        for rung in Rung::LADDER {
            let day = echo(rung, seed, |_| {});
            assert_eq!(day, echo(rung, seed, |_| {}), "seed {seed}");
            assert_eq!((day.truncated, day.failed), (0, 0), "seed {seed}");
            all.put_together += day.put_together;
            all.out_of_order += day.out_of_order;
            all.starved += day.starved;
        }
    }
    let happened = [all.put_together, all.out_of_order, all.starved];
    assert!(happened.iter().all(|times| *times > 100), "the bad days are there: {all:?}");
}

#[test]
fn what_does_not_fit_is_counted_and_a_send_that_is_refused_says_so_and_ends_nothing() {
    let (mut truncated, mut failed) = (0, 0);
    for seed in 0..30 {
        let day = echo(Rung::Deferred, seed, |temper| temper.truncates = 50);
        truncated += day.truncated;
        failed += echo(Rung::Oneshot, seed, |temper| temper.refuses = 50).failed;
    }
    assert!(truncated > 30 && failed > 30, "{truncated} {failed}");
}

#[test]
fn a_closed_socket_sends_what_it_has_and_hears_no_more() {
    for seed in 0..50 {
        let temper = Temper::drawn(&mut Dice::new(seed));
        let (network, mut ring, everybody) = standing(Rung::Deferred, seed, temper);
        let mut dice = Dice::new(seed);
        ring.receive_datagrams(0);
        for number in 0..5 {
            let Datagram { source: to, bytes, .. } = datagram(number, &mut dice);
            let (segment_bytes, bytes) = (bytes.len(), bytes.freeze());
            ring.send_datagrams(0, Departure { to, from: None, ecn: 0, segment_bytes, bytes });
            everybody.send(datagram(number, &mut dice));
        }
        ring.close_datagrams(0);
        ring.receive_datagrams(0);
        assert_eq!(ring.datagram_room(0), 0);
        network.assert_at_rest_after(&mut ring);
        let mut left: Vec<usize> =
            std::iter::from_fn(|| everybody.receive()).map(|out| number(&out.bytes)).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2, 3, 4], "seed {seed}");
    }
}

#[test]
fn a_socket_that_is_left_open_and_a_chunk_that_is_kept_are_noticed() {
    let (network, mut ring, everybody) = standing(Rung::Deferred, 1, Temper::calm());
    everybody.send(datagram(0, &mut Dice::new(1)));
    ring.receive_datagrams(0);
    ring.wait(None).unwrap();
    let kept = ring.next_done();
    assert!(matches!(kept, Some(Done::Datagrams { .. })));
    let complains = || catch_unwind(AssertUnwindSafe(|| network.assert_at_rest())).is_err();
    assert!(complains());
    ring.close_datagrams(0);
    drop(ring);
    assert!(complains(), "the chunk is still out");
}

#[test]
fn a_caller_that_breaks_the_rules_of_datagrams_is_told() {
    fn send(ring: &mut FakeRing, segment_bytes: usize, bytes: usize) {
        let to = SocketAddr::from(([192, 0, 2, 1], 9));
        let bytes = Bytes::from(vec![1; bytes]);
        ring.send_datagrams(0, Departure { to, from: None, ecn: 0, segment_bytes, bytes });
    }
    let broken: [Breach; 8] = [
        ("a send of nothing", |ring, _| send(ring, 1, 0)),
        ("segments without a length", |ring, _| send(ring, 0, 1)),
        ("a train of 65508 bytes", |ring, _| send(ring, 1_200, 65_508)),
        ("a train of 65 segments", |ring, _| send(ring, 1, 65)),
        ("room for", |ring, _| (0..=SENDS_MAX).for_each(|_| send(ring, 1, 1))),
        ("room for", |ring, _| {
            ring.close_datagrams(0);
            send(ring, 1, 1);
        }),
        ("is closed", |ring, _| (0..2).for_each(|_| ring.close_datagrams(0))),
        ("given back twice", |ring, everybody| {
            everybody.send(datagram(0, &mut Dice::new(1)));
            ring.receive_datagrams(0);
            ring.wait(None).unwrap();
            let Some(Done::Datagrams { chunk: Chunk::Datagrams { buffer, bytes }, .. }) =
                ring.next_done()
            else {
                panic!("something came");
            };
            ring.network.0.borrow_mut().chunks_out += 1;
            ring.give_back(Chunk::Datagrams { buffer, bytes });
            ring.give_back(Chunk::Datagrams { buffer, bytes });
        }),
    ];
    for (said, breaks) in broken {
        let (_network, mut ring, everybody) = standing(Rung::Deferred, 1, Temper::calm());
        let told = catch_unwind(AssertUnwindSafe(|| breaks(&mut ring, &everybody)));
        let told = told.expect_err(said);
        let text = told.downcast_ref::<String>().cloned();
        let text = text.or_else(|| told.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        assert!(text.as_deref().is_some_and(|text| text.contains(said)), "{said}: {text:?}");
    }
}
