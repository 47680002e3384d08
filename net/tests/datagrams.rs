//! Datagrams on the ring against a real kernel, on every rung of the ladder: what comes, from
//! where and to where, and what goes out.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use forebay_net::datagrams::{Crossing, Datagram, owner};
use forebay_net::ring::datagrams::{Arrival, Departure, SENDS_MAX, TRAIN_BYTES_MAX};
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, End, Options, Ring, Rung};
use forebay_net::server::listen_datagrams::{PortLock, listen_datagrams};

const PATIENCE: Duration = Duration::from_secs(10);

/// A ring with one datagram socket or more, which receive all the time.
struct Host {
    ring: Uring,
    address: SocketAddr,
    seen: VecDeque<Seen>,
    sent: usize,
    errors: Vec<std::io::Error>,
    /// How often receiving found no buffer.
    starved: usize,
    /// Takes what comes as a loan, where there is one.
    borrows: bool,
    lent: VecDeque<Option<BytesMut>>,
    _lock: PortLock,
}

/// What one receive brought.
#[derive(Clone, Debug)]
struct Seen {
    socket: u16,
    arrival: Arrival,
    bytes: Vec<u8>,
}

impl Host {
    fn new(rung: Rung, address: &str) -> Host {
        Host::with_sockets(rung, address, 1, 8)
    }

    fn with_sockets(rung: Rung, address: &str, sockets: usize, datagram_buffers: u16) -> Host {
        let options =
            Options { entries: 8, buffers: 2, buffer_bytes: 512, datagram_buffers, highest: rung };
        let mut ring = Uring::new(&options).expect("this machine has io_uring");
        assert_eq!(ring.rung(), rung, "this kernel carries every rung");
        let address = address.parse().expect("an address");
        let group = listen_datagrams(address, sockets).expect("the port is free");
        for socket in group.sockets {
            let socket = ring.open_datagrams(socket).expect("the ring takes it");
            ring.receive_datagrams(socket);
        }
        ring.wait(Some(Duration::ZERO)).expect("the ring waits");
        Host {
            ring,
            address: group.address,
            seen: VecDeque::new(),
            sent: 0,
            errors: Vec::new(),
            starved: 0,
            borrows: false,
            lent: VecDeque::new(),
            _lock: group.lock,
        }
    }

    /// Goes on until `enough` says so. Receiving is armed again whenever it ends.
    fn until(&mut self, mut enough: impl FnMut(&Host) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(self) {
            assert!(Instant::now() < deadline, "the ring did not do it: {:?}", self.errors);
            self.ring.wait(Some(Duration::from_millis(10))).expect("the ring waits");
            while let Some(done) = self.ring.next_done() {
                self.handle(done);
            }
        }
    }

    fn handle<S: std::fmt::Debug>(&mut self, done: Done<S>) {
        match done {
            Done::Datagrams { chunk, .. } if self.borrows => {
                let lent = self.ring.lend(chunk);
                self.lent.push_back(lent.map_err(|chunk| self.ring.give_back(chunk)).ok());
            }
            Done::Datagrams { socket, chunk } => {
                let arrival = self.ring.arrival(&chunk);
                let bytes = self.ring.bytes(&chunk).to_vec();
                self.ring.give_back(chunk);
                self.seen.push_back(Seen { socket, arrival, bytes });
            }
            Done::DatagramsEnded { socket, end } => {
                assert!(matches!(end, End::Again | End::NoBuffers), "{end:?}");
                self.starved += usize::from(matches!(end, End::NoBuffers));
                self.ring.receive_datagrams(socket);
            }
            Done::DatagramsSent { error, .. } => {
                self.sent += 1;
                self.errors.extend(error);
            }
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, to: SocketAddr, segment_bytes: usize, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let departure = Departure { to, from: None, ecn: 0, segment_bytes, bytes };
        self.ring.send_datagrams(0, departure);
    }

    /// What comes next, if it is lent.
    fn borrow(&mut self) -> Option<BytesMut> {
        self.until(|host| !host.lent.is_empty());
        self.lent.pop_front().expect("something came")
    }

    fn next(&mut self) -> Seen {
        self.until(|host| !host.seen.is_empty());
        self.seen.pop_front().expect("something came")
    }
}

/// A socket that knows nothing of rings, GRO or GSO.
fn plain(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut bytes).expect("a datagram comes");
    bytes.truncate(length);
    (bytes, from)
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place * 7 + place / 251 + seed) as u8).collect()
}

#[test]
fn what_is_lent_stays_as_it_is_while_any_part_is_held_and_the_kernel_has_the_other_buffers() {
    for rung in Rung::LADDER {
        let mut host = Host::new(rung, "127.0.0.1:0");
        host.borrows = true;
        let client = plain("127.0.0.1:0");
        let mut borrow = |round: usize| {
            let sent = pattern(1_000 + 100 * round, round);
            client.send_to(&sent, host.address).expect("it is sent");
            (host.borrow(), sent)
        };
        for round in 0..100 {
            let (lent, sent) = borrow(round);
            let mut lent = lent.expect("nothing else is lent");
            assert_eq!(lent, sent, "{rung:?}");
            lent.fill(0xee);
        }
        // Of eight buffers two are lent; a byte holds all of one.
        let mut held = Vec::new();
        for round in 0..2 {
            let (lent, sent) = borrow(round);
            let mut lent = lent.expect("few are lent");
            held.push((lent.split_off(500).split_to(1), sent[500]));
        }
        for round in 0..100 {
            assert_eq!(borrow(round).0, None, "{rung:?}: two are lent");
            for (byte, sent) in &held {
                assert_eq!(byte[..], [*sent], "{rung:?}");
            }
        }
        held.pop();
        let (lent, sent) = borrow(7);
        assert_eq!(lent.expect("one came back"), sent, "{rung:?}");
        assert_eq!(held[0].0[..], [held[0].1], "{rung:?}");
    }
}

#[test]
fn datagrams_of_every_length_are_echoed_whole_to_whoever_sent_them() {
    for rung in Rung::LADDER {
        for (here, there) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
            let mut host = Host::new(rung, here);
            let client = plain(there);
            for length in [1, 2, 20, 1199, 1200, 1452, 4096, 9000, 40_000, 65_000] {
                let sent = pattern(length, length);
                client.send_to(&sent, host.address).expect("it is sent");
                let seen = host.next();
                assert_eq!(seen.bytes.len(), length, "{rung:?}");
                assert_eq!(seen.arrival.source, client.local_addr().expect("an address"));
                assert_eq!(seen.arrival.local, Some(host.address.ip()));
                assert_eq!(seen.arrival.segments(&seen.bytes).count(), 1);
                host.send(seen.arrival.source, length, seen.bytes);
                host.until(|host| host.sent > 0);
                assert!(host.errors.is_empty(), "{rung:?} {length}: {:?}", host.errors);
                assert!(receive(&client) == (sent, host.address), "{rung:?} {length}");
                host.sent = 0;
            }
        }
    }
}

#[test]
fn a_datagram_without_a_byte_is_a_datagram_and_no_end() {
    for rung in Rung::LADDER {
        let mut host = Host::new(rung, "127.0.0.1:0");
        let client = plain("127.0.0.1:0");
        client.send_to(&[], host.address).expect("it is sent");
        client.send_to(b"next", host.address).expect("it is sent");
        let seen = host.next();
        assert_eq!((seen.bytes.len(), seen.arrival.segment_bytes), (0, 1), "{rung:?}");
        assert_eq!(host.next().bytes, b"next");
    }
}

#[test]
fn a_train_arrives_in_one_piece_with_the_length_of_its_segments() {
    for rung in Rung::LADDER {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let mut sender = Host::new(rung, address);
            let mut receiver = Host::new(rung, address);
            for (segment_bytes, bytes) in [(1200, 12_000), (1452, 65_000), (500, 1_300), (7, 14)] {
                let sent = pattern(bytes, segment_bytes);
                sender.send(receiver.address, segment_bytes, sent.clone());
                sender.until(|host| host.sent > 0);
                sender.sent = 0;
                let seen = receiver.next();
                assert_eq!(seen.arrival.segment_bytes, segment_bytes, "{rung:?}");
                assert_eq!(seen.arrival.source, sender.address);
                assert!(seen.bytes == sent, "{rung:?}: {} bytes", seen.bytes.len());
                let segments = seen.arrival.segments(&seen.bytes).count();
                assert_eq!(segments, bytes.div_ceil(segment_bytes));
            }
            assert!(sender.errors.is_empty(), "{:?}", sender.errors);
            assert_eq!(sender.ring.stats().trains_refused, 0);
        }
    }
}

#[test]
fn the_kernel_cuts_even_the_longest_train_for_whoever_takes_single_datagrams() {
    for rung in Rung::LADDER {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let mut sender = Host::new(rung, address);
            let receiver = plain(address);
            let sent = pattern(TRAIN_BYTES_MAX, 3);
            sender.send(receiver.local_addr().expect("an address"), 1200, sent.clone());
            sender.until(|host| host.sent > 0);
            assert!(sender.errors.is_empty(), "{rung:?} {address}: {:?}", sender.errors);
            for segment in sent.chunks(1200) {
                assert!(receive(&receiver).0 == segment, "{rung:?}");
            }
        }
    }
}

#[test]
fn the_local_address_and_ecn_survive_both_ways_on_every_family() {
    // Where the host is bound, to which of its addresses the client speaks, where the client is.
    let cases = [
        ("127.0.0.1:0", "127.0.0.1", "127.0.0.1:0"),
        ("0.0.0.0:0", "127.0.0.7", "127.0.0.1:0"),
        ("[::1]:0", "::1", "[::1]:0"),
        ("[::]:0", "::1", "[::1]:0"),
        ("[::]:0", "127.0.0.9", "127.0.0.1:0"),
    ];
    for rung in Rung::LADDER {
        for (bound, spoken_to, client) in cases {
            let (mut host, mut client) = (Host::new(rung, bound), Host::new(rung, client));
            let spoken_to: IpAddr = spoken_to.parse().expect("an address");
            let to = SocketAddr::new(spoken_to, host.address.port());
            for ecn in 0..4 {
                let bytes = Bytes::from(pattern(3000, 5));
                let there = Departure { to, from: None, ecn, segment_bytes: 1000, bytes };
                client.ring.send_datagrams(0, there.clone());
                client.until(|client| client.sent > usize::from(ecn));
                let Arrival { source, local, ecn: came, .. } = host.next().arrival;
                assert_eq!((source, local), (client.address, Some(spoken_to)), "{rung:?}");
                assert_eq!(came, ecn, "{rung:?} {bound} to {spoken_to}");
                let ecn = 3 - ecn;
                host.ring.send_datagrams(0, Departure { to: source, from: local, ecn, ..there });
                host.until(|host| host.sent > usize::from(3 - ecn));
                let back = client.next().arrival;
                assert_eq!((back.source, back.ecn), (to, ecn), "{rung:?} {bound}: {spoken_to}");
            }
            let errors = [host.errors, client.errors];
            assert!(errors.iter().all(Vec::is_empty), "{rung:?} {bound}: {errors:?}");
        }
    }
}

#[test]
fn a_send_that_fails_says_so_and_ends_nothing() {
    for rung in Rung::LADDER {
        let mut host = Host::new(rung, "127.0.0.1:0");
        let client = plain("127.0.0.1:0");
        let good = client.local_addr().expect("an address");
        let departure = |to: &str, from: Option<&str>, segment_bytes| Departure {
            to: to.parse().expect("an address"),
            from: from.map(|from| from.parse().expect("an address")),
            ecn: 0,
            segment_bytes,
            bytes: Bytes::from_static(b"nobody gets it"),
        };
        let bad = [
            departure("127.0.0.1:0", None, 20),
            departure("[2001:db8::1]:9", None, 20),
            departure("255.255.255.255:9", None, 20),
            departure(&good.to_string(), Some("192.0.2.1"), 20),
            // A bad address is no fault of the train's, which may be one the next time.
            departure("127.0.0.1:0", None, 5),
        ];
        for (number, departure) in bad.into_iter().enumerate() {
            host.ring.send_datagrams(0, departure.clone());
            host.until(|host| host.sent == number + 1);
            assert_eq!(host.errors.len(), number + 1, "{rung:?}: {departure:?}");
        }
        assert_eq!(host.ring.stats().trains_refused, 1, "one train was tried apart");
        host.send(good, 5, pattern(9, 1));
        host.until(|host| host.sent == 6);
        assert_eq!((host.errors.len(), host.ring.stats().trains_refused), (5, 1), "{rung:?}");
        assert_eq!((receive(&client).0.len(), receive(&client).0.len()), (5, 4));
        client.send_to(b"and it hears", host.address).expect("it is sent");
        assert_eq!(host.next().bytes, b"and it hears");
    }
}

#[test]
fn more_sends_than_the_queue_has_entries_are_in_flight_up_to_the_room_and_none_is_lost() {
    for rung in Rung::LADDER {
        let mut sender = Host::new(rung, "127.0.0.1:0");
        let mut receiver = Host::new(rung, "127.0.0.1:0");
        for round in 0..3 {
            assert_eq!(sender.ring.datagram_room(0), SENDS_MAX, "{rung:?} {round}");
            for number in 0..SENDS_MAX {
                sender.send(receiver.address, 100, vec![number as u8; 100]);
            }
            assert_eq!(sender.ring.datagram_room(0), 0);
            sender.until(|host| host.sent == SENDS_MAX);
            sender.sent = 0;
            let mut seen = 0;
            while seen < SENDS_MAX {
                let next = receiver.next();
                for segment in next.arrival.segments(&next.bytes) {
                    assert_eq!(segment, [seen as u8; 100], "{rung:?}: in order, for want of load");
                    seen += 1;
                }
            }
        }
        assert!(sender.errors.is_empty(), "{:?}", sender.errors);
    }
}

#[test]
fn without_a_free_buffer_receiving_ends_and_goes_on_when_one_comes_back() {
    for rung in Rung::LADDER {
        let mut host = Host::with_sockets(rung, "127.0.0.1:0", 1, 2);
        let client = plain("127.0.0.1:0");
        for number in 0..6 {
            client.send_to(&[number; 10], host.address).expect("it is sent");
        }
        let (mut held, mut starved) = (Vec::new(), false);
        let deadline = Instant::now() + PATIENCE;
        while !starved {
            assert!(Instant::now() < deadline, "{rung:?}: two buffers can't hold six");
            host.ring.wait(Some(Duration::from_millis(10))).expect("the ring waits");
            while let Some(done) = host.ring.next_done() {
                match done {
                    Done::Datagrams { chunk, .. } => held.push(chunk),
                    Done::DatagramsEnded { end: End::NoBuffers, .. } => starved = true,
                    Done::DatagramsEnded { end: End::Again, socket } => {
                        host.ring.receive_datagrams(socket);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(host.ring.stats().no_buffers > 0);
        assert_eq!(held.len(), 2, "{rung:?}");
        for (number, chunk) in held.into_iter().enumerate() {
            assert_eq!(host.ring.bytes(&chunk), [number as u8; 10]);
            host.ring.give_back(chunk);
        }
        host.ring.receive_datagrams(0);
        for number in 2..6 {
            assert_eq!(host.next().bytes, [number; 10], "{rung:?}");
        }
    }
}

#[test]
fn a_ring_without_datagram_buffers_takes_no_datagram_socket() {
    let options = Options {
        entries: 8,
        buffers: 2,
        buffer_bytes: 512,
        datagram_buffers: 0,
        highest: Rung::Deferred,
    };
    let mut ring = Uring::new(&options).expect("this machine has io_uring");
    let group = listen_datagrams("127.0.0.1:0".parse().expect("an address"), 1).expect("a group");
    let socket = group.sockets.into_iter().next().expect("a socket");
    let error = ring.open_datagrams(socket).expect_err("there are no buffers");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_closed_socket_sends_what_it_has_says_no_more_and_leaves_its_port() {
    for rung in Rung::LADDER {
        let mut host = Host::new(rung, "127.0.0.1:0");
        let client = plain("127.0.0.1:0");
        let bye = Departure {
            to: client.local_addr().expect("an address"),
            from: None,
            ecn: 0,
            segment_bytes: 3,
            bytes: Bytes::from_static(b"bye"),
        };
        host.ring.send_datagrams(0, bye);
        host.ring.close_datagrams(0);
        host.ring.close_datagrams(0);
        host.ring.receive_datagrams(0);
        assert_eq!(host.ring.datagram_room(0), 0);
        assert_eq!(receive_while(&mut host, &client), b"bye", "{rung:?}");
        let deadline = Instant::now() + PATIENCE;
        while UdpSocket::bind(host.address).is_err() {
            assert!(Instant::now() < deadline, "{rung:?}: the port is never free");
            host.ring.wait(Some(Duration::from_millis(1))).expect("the ring waits");
            assert!(host.ring.next_done().is_none(), "nobody hears of a closed socket");
        }
    }
}

/// What the client gets, while the host's ring turns.
fn receive_while(host: &mut Host, client: &UdpSocket) -> Vec<u8> {
    host.ring.wait(Some(Duration::ZERO)).expect("the ring waits");
    receive(client).0
}

#[test]
fn a_ring_that_is_dropped_with_everything_in_flight_leaves_its_port() {
    for rung in Rung::LADDER {
        let address = {
            let mut host = Host::with_sockets(rung, "127.0.0.1:0", 3, 8);
            let nobody = "127.0.0.1:9".parse().expect("an address");
            for _ in 0..100 {
                host.send(nobody, 1200, vec![1; 60_000]);
            }
            host.address
        };
        UdpSocket::bind(address).expect("the port is free");
    }
}

#[test]
fn a_train_for_several_cores_arrives_at_the_first_ones_and_is_handed_on() {
    const CORES: usize = 4;
    for rung in [Rung::Deferred, Rung::Oneshot] {
        let mut host = Host::with_sockets(rung, "127.0.0.1:0", CORES, 8);
        let mut client = Host::new(rung, "127.0.0.1:0");
        let crossing = Crossing::new(CORES);
        // Eight packets with short headers, for the cores 2, 3, 0, 1, 2 ...
        let train: Vec<u8> =
            (0..8u8).flat_map(|n| [&[0x40, n + 2][..], &[n; 1198][..]].concat()).collect();
        client.send(host.address, 1200, train);
        client.until(|client| client.sent > 0);
        let seen = host.next();
        assert_eq!(seen.socket, 2, "{rung:?}: the kernel looked at the first packet only");
        assert_eq!(seen.bytes.len(), 8 * 1200);
        let Arrival { source, local, ecn, .. } = seen.arrival;
        let mut kept = 0;
        for segment in seen.arrival.segments(&seen.bytes) {
            match owner(segment, CORES).expect("a short header") {
                2 => kept += 1,
                core => {
                    let datagram = Datagram { source, local, ecn, bytes: segment.into() };
                    assert!(crossing.hand(core, datagram));
                }
            }
        }
        assert_eq!(kept, 2);
        for core in [0, 1, 3] {
            for _ in 0..2 {
                let datagram = crossing.take(core).expect("two packets for each core");
                assert_eq!(owner(&datagram.bytes, CORES), Some(core));
                assert_eq!(datagram.source, client.address);
            }
            assert!(!crossing.is_waiting(core));
        }
    }
}
