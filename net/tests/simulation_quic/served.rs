//! Days of whole servers: each core has a ring without a kernel, which brings datagrams in any
//! order, together or apart, ends receiving for no reason, runs out of buffers and is slow to send.
//! What they receive of each other's goes over the [`Crossing`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use forebay_net::datagrams::{Crossing, Datagram};
use forebay_net::quic::{CoreId, owns};
use forebay_net::request::{Nanos, Request};
use forebay_net::ring::fake::{Dice, Everybody, FakeRing, Network as Wires, Temper};
use forebay_net::ring::{Options, Rung};
use forebay_net::server::{DatagramStats, QuicListener, Server};
use forebay_net::tls::Acceptor;

use crate::book::Book;
use crate::client::Socket;
use crate::day::CORE_SHIFT;
use crate::door::Desk;
use crate::network::{Network, Packet};
use crate::terms::{self, Common, MILLI, SECOND};

const TURNS_MAX: u64 = 400_000;
/// The longest sleep: what a ring has not brought yet, it brings soon.
const STEP: Nanos = 4 * MILLI;
/// Longer ones are not even tried, whatever the path takes.
const DATAGRAM_BYTES_MAX: usize = 1_452;
const EVERY_DEADLINE: Nanos = 60 * SECOND;

/// What days brought, in sum.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    answered: u64,
    ends: u64,
    /// Clients that had every answer and left by themselves.
    content: u64,
    drained: u64,
    handshakes: u64,
    handed: u64,
    no_buffers: u64,
}

struct Core {
    server: Server<FakeRing>,
    everybody: Everybody,
    wires: Wires,
}

/// Lives through a day. Panics if anything is not as it has to be.
pub(crate) fn live(seed: u64) -> Sums {
    let mut dice = Dice::new(seed);
    let count = 1 + dice.below(3) as usize;
    let cores = cores(count, &mut dice);
    let address = SocketAddr::from(([10, 0, 0, 1], 4318));
    let mut number = 0;
    let sockets = (0..1 + dice.below(4)).map(|nth| {
        let client = SocketAddr::from(([10, 0, 1, nth as u8], 1024));
        let socket = Socket::drawn(client, address, number, 0, dice.fork());
        number += socket.connections();
        socket
    });
    let mut day = Day {
        now: 0,
        address,
        sockets: sockets.collect(),
        cores,
        astray: if dice.of_1000(500) { dice.below(300) as u32 } else { 0 },
        network: Network::drawn(dice.fork()),
        desk: Desk::new(dice.fork()),
        book: Book::default(),
        drains_at: if dice.of_1000(400) { dice.below(2 * SECOND) } else { Nanos::MAX },
        sums: Sums::default(),
        dice,
    };
    let mut quiet_since = None;
    for turn in 0.. {
        assert!(turn < TURNS_MAX, "the day does not end");
        day.turn();
        if day.sockets.iter().all(Socket::is_over) {
            let since = *quiet_since.get_or_insert(day.now);
            if day.is_quiet() {
                break;
            }
            assert!(day.now < since + EVERY_DEADLINE, "a connection outlives its client");
        }
    }
    day.finish()
}

fn cores(count: usize, dice: &mut Dice) -> Vec<Core> {
    let common = Common::drawn(dice);
    let crossing = Crossing::new(count);
    let acceptor = Arc::new(Acceptor::new(terms::server_tls(), SECOND));
    let core = |index| {
        let temper = if dice.of_1000(200) { Temper::calm() } else { Temper::drawn(dice) };
        let wires = Wires::new(dice.number(), temper);
        let options = Options {
            entries: 64,
            buffers: 2,
            buffer_bytes: 128,
            datagram_buffers: 1 << (1 + dice.below(4)),
            highest: Rung::LADDER[dice.below(3) as usize],
        };
        let limits = common.limits();
        let mut server = Server::new(wires.ring(&options), limits, vec![wires.listener()]);
        let (socket, everybody) = wires.datagrams();
        let config = terms::server(CoreId { index, count }, dice, &common);
        let (acceptor, crossing) = (acceptor.clone(), crossing.clone());
        let windows_bytes_max = 100_000;
        let listener = QuicListener { socket, config, acceptor, crossing, windows_bytes_max };
        server.open_quic(listener).expect("a fake ring has memory");
        Core { server, everybody, wires }
    };
    (0..count).map(core).collect()
}

struct Day {
    now: Nanos,
    dice: Dice,
    address: SocketAddr,
    cores: Vec<Core>,
    sockets: Vec<Socket>,
    /// Of 1,000 datagrams, those that the kernel gives to any core.
    astray: u32,
    network: Network,
    desk: Desk,
    book: Book,
    drains_at: Nanos,
    sums: Sums,
}

impl Day {
    fn turn(&mut self) {
        for socket in &mut self.sockets {
            socket.act(self.now, &mut self.book, &mut self.network);
        }
        let sockets = self.sockets.iter_mut().filter_map(Socket::next_at);
        let others = [self.network.next_at(), self.desk.next_at()].into_iter().flatten();
        let next = sockets.chain(others).min().unwrap_or(Nanos::MAX);
        self.now = next.clamp(self.now, self.now + STEP);
        while let Some(packet) = self.network.receive(self.now) {
            self.deliver(packet);
        }
        let drains = self.now >= self.drains_at && self.sums.drained == 0;
        self.sums.drained += u64::from(drains);
        for core in 0..self.cores.len() {
            self.serve(core, drains);
        }
        self.answer();
        for core in &mut self.cores {
            let mut requests = Vec::new();
            core.server.flush(self.now, &mut self.desk, &mut requests);
            assert!(requests.is_empty(), "to send brings no request");
            while let Some(sent) = core.everybody.receive() {
                assert_eq!(sent.from, Some(self.address.ip()), "from where it was spoken to");
                assert!(sent.bytes.len() <= DATAGRAM_BYTES_MAX, "a train is cut");
                let (from, to, ecn, bytes) = (self.address, sent.to, sent.ecn, sent.bytes.to_vec());
                self.network.send(self.now, Packet { from, to, ecn, bytes });
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        if packet.to != self.address {
            let owner = self.sockets.iter_mut().find(|socket| socket.address == packet.to);
            owner.expect("nobody moves").receive(self.now, packet);
            return;
        }
        let Packet { from: source, ecn, bytes, .. } = packet;
        let count = self.cores.len();
        let is_long = bytes[0] & 0x80 != 0;
        let steered = if is_long { usize::from(source.port()) } else { usize::from(bytes[1]) };
        let core = match !is_long && self.dice.of_1000(self.astray) {
            true => self.dice.below(count as u64) as usize,
            false => steered % count,
        };
        let (local, bytes) = (Some(self.address.ip()), BytesMut::from(&bytes[..]));
        self.cores[core].everybody.send(Datagram { source, local, ecn, bytes });
    }

    fn serve(&mut self, index: usize, drains: bool) {
        let now = self.now;
        let server = &mut self.cores[index].server;
        let mut requests: Vec<Request> = Vec::new();
        if drains {
            server.drain(now, &mut self.desk, &mut requests);
        }
        server.wait(now, Duration::ZERO).expect("a fake ring never fails");
        server.poll(now, &mut self.desk, &mut requests);
        for mut request in requests {
            assert!(owns(request.id.key));
            request.id.key.generation |= (index as u32) << CORE_SHIFT;
            self.desk.take(request, now, &mut self.book);
        }
    }

    fn answer(&mut self) {
        while let Some((mut id, answer)) = self.desk.next_answer(self.now) {
            let core = (id.key.generation >> CORE_SHIFT) as usize;
            id.key.generation &= (1 << CORE_SHIFT) - 1;
            let mut requests = Vec::new();
            let server = &mut self.cores[core].server;
            server.answer(id, answer, self.now, &mut self.desk, &mut requests);
            assert!(requests.is_empty(), "an answer brings no request");
        }
    }

    fn is_quiet(&mut self) -> bool {
        let has_none = |core: &Core| core.server.stats().datagrams.quic.connections == 0;
        let is_idle = |core: &mut Core| !core.server.is_busy();
        self.cores.iter().all(has_none)
            && self.cores.iter_mut().all(is_idle)
            && self.desk.is_empty()
    }

    fn finish(mut self) -> Sums {
        assert_eq!(self.desk.reserved, 0, "what was reserved is released");
        self.sockets.iter().for_each(Socket::assert_content);
        self.sums.answered = self.book.count(|_, answered| answered);
        for end in self.sockets.iter().flat_map(Socket::ends) {
            self.sums.ends += 1;
            self.sums.content += u64::from(end == "content");
        }
        for Core { server, wires, .. } in self.cores {
            let stats = server.stats();
            let DatagramStats { quic, crossing, receive_errors, .. } = stats.datagrams;
            assert_eq!(quic.accepted, quic.closed, "{quic:?}");
            assert_eq!((crossing.handed, crossing.dropped), (quic.adopted, 0), "{quic:?}");
            assert_eq!(receive_errors, 0, "nothing failed for good");
            self.sums.handshakes += quic.handshakes;
            self.sums.handed += quic.strangers;
            self.sums.no_buffers += stats.ring.no_buffers;
            drop(server);
            wires.assert_at_rest();
        }
        self.sums
    }
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Sums) {
        self.answered += other.answered;
        self.ends += other.ends;
        self.content += other.content;
        self.drained += other.drained;
        self.handshakes += other.handshakes;
        self.handed += other.handed;
        self.no_buffers += other.no_buffers;
    }

    /// Whether enough happened, and went well: receiving and sending that stop cost most clients
    /// their connections.
    pub(crate) fn are_telling(&self) -> bool {
        let happened = [self.answered, self.drained, self.handshakes, self.handed, self.no_buffers];
        happened.iter().all(|times| *times > 0) && self.content * 5 > self.ends * 3
    }
}
