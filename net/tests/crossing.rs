//! Several cores that share a port, each with a ring on a thread of its own: wherever a client
//! sends from, and whatever it puts into one train, each packet reaches the core that its
//! connection ID names, once.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_net::datagrams::{Crossing, Datagram, owner};
use forebay_net::ring::datagrams::Departure;
use forebay_net::ring::fake::Dice;
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, Options, Ring, Rung};
use forebay_net::server::listen_datagrams::listen_datagrams;

const PATIENCE: Duration = Duration::from_secs(20);
const CORES: usize = 3;
const PACKETS: u32 = 6_000;
const PACKET_BYTES: usize = 64;

fn ring(rung: Rung) -> Uring {
    let options =
        Options { entries: 64, buffers: 2, buffer_bytes: 512, datagram_buffers: 16, highest: rung };
    Uring::new(&options).expect("this machine has io_uring")
}

/// What all cores see of each other.
struct Shared {
    crossing: Arc<Crossing>,
    taken: AtomicUsize,
    is_over: AtomicBool,
}

/// Ends the cores also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One core: takes its own packets, hands on the others. Returns the numbers of its packets.
fn serve(core: usize, rung: Rung, socket: OwnedFd, shared: &Shared) -> Vec<u32> {
    let mut ring = ring(rung);
    let socket = ring.open_datagrams(socket).expect("the ring takes it");
    ring.receive_datagrams(socket);
    let wake = ring.wake();
    shared.crossing.join(core, wake.clone());
    let mut numbers = Vec::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        wake.about_to_sleep();
        let is_waiting = shared.crossing.is_waiting(core);
        let timeout = if is_waiting { Duration::ZERO } else { Duration::from_millis(20) };
        ring.wait(Some(timeout)).expect("the ring waits");
        wake.awake();
        let before = numbers.len();
        while let Some(done) = ring.next_done() {
            match done {
                Done::Datagrams { chunk, .. } => {
                    let from = ring.arrival(&chunk);
                    for packet in from.segments(ring.bytes(&chunk)) {
                        match owner(packet, CORES).expect("all headers are short") {
                            me if me == core => numbers.push(number(packet)),
                            other => {
                                let (source, local, ecn) = (from.source, from.local, from.ecn);
                                let bytes = packet.into();
                                let packet = Datagram { source, local, ecn, bytes };
                                assert!(shared.crossing.hand(other, packet), "there is room");
                            }
                        }
                    }
                    ring.give_back(chunk);
                }
                Done::DatagramsEnded { .. } => ring.receive_datagrams(socket),
                Done::Woken => {}
                other => panic!("{other:?}"),
            }
        }
        while let Some(packet) = shared.crossing.take(core) {
            assert_eq!(owner(&packet.bytes, CORES), Some(core));
            numbers.push(number(&packet.bytes));
        }
        shared.taken.fetch_add(numbers.len() - before, Ordering::Relaxed);
    }
    numbers
}

fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(*packet[2..].first_chunk().expect("a number"))
}

/// A client that takes a new port for every few trains. It waits for the cores now and then, so
/// that no socket buffer and no crossing overflows.
fn send_all(rung: Rung, to: SocketAddr, dice: &mut Dice, shared: &Shared) {
    let deadline = Instant::now() + PATIENCE;
    let (mut ring, mut sent) = (ring(rung), 0);
    while sent < PACKETS {
        let mine = listen_datagrams("127.0.0.1:0".parse().expect("an address"), 1);
        let mine = mine.expect("a free port").sockets.remove(0);
        let socket = ring.open_datagrams(mine).expect("the ring takes it");
        let mut in_flight = 0;
        for _ in 0..4 {
            let packets = (1 + dice.below(20) as u32).min(PACKETS - sent);
            let mut bytes = Vec::new();
            for number in sent..sent + packets {
                bytes.extend_from_slice(&[0x40, dice.number() as u8]);
                bytes.extend_from_slice(&number.to_be_bytes());
                bytes.resize(bytes.len().next_multiple_of(PACKET_BYTES), 0);
            }
            if packets > 0 {
                sent += packets;
                in_flight += 1;
                let bytes = Bytes::from(bytes);
                let departure =
                    Departure { to, from: None, ecn: 0, segment_bytes: PACKET_BYTES, bytes };
                ring.send_datagrams(socket, departure);
            }
        }
        ring.close_datagrams(socket);
        ring.wait(Some(Duration::ZERO)).expect("the ring waits");
        assert!(in_flight > 0 && ring.next_done().is_none(), "a closed socket says no more");
        while shared.taken.load(Ordering::Relaxed) + 500 < sent as usize {
            assert!(Instant::now() < deadline, "packets are lost");
            ring.wait(Some(Duration::from_millis(1))).expect("the ring waits");
        }
    }
    while shared.taken.load(Ordering::Relaxed) < PACKETS as usize {
        assert!(Instant::now() < deadline, "packets are lost");
        ring.wait(Some(Duration::from_millis(1))).expect("the ring waits");
    }
}

#[test]
fn a_client_that_moves_from_port_to_port_loses_nothing_and_every_core_gets_its_own() {
    for (seed, rung) in Rung::LADDER.into_iter().enumerate() {
        let mut dice = Dice::new(seed as u64);
        let any = "127.0.0.1:0".parse().expect("an address");
        let group = listen_datagrams(any, CORES).expect("a free port");
        let shared = Shared {
            crossing: Crossing::new(CORES),
            taken: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        let numbers: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let shared = &shared;
            let cores = group.sockets.into_iter().enumerate();
            let cores: Vec<_> = cores
                .map(|(core, socket)| scope.spawn(move || serve(core, rung, socket, shared)))
                .collect();
            let ends = Ends(&shared.is_over);
            send_all(rung, group.address, &mut dice, shared);
            drop(ends);
            cores.into_iter().map(|core| core.join().expect("a core ends")).collect()
        });
        assert!(numbers.iter().all(|mine| mine.len() > 1_000), "seed {seed}: all have work");
        let mut all: Vec<u32> = numbers.concat();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..PACKETS), "seed {seed}: each packet once");
        let handed: u64 = (0..CORES).map(|core| shared.crossing.stats(core).handed).sum();
        let dropped: u64 = (0..CORES).map(|core| shared.crossing.stats(core).dropped).sum();
        assert!(handed > 1_000 && dropped == 0, "seed {seed}: {handed} {dropped}");
    }
}
