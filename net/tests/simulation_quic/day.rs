//! One day of some cores: who comes, over which network, and what has to hold in the end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use forebay_net::quic::{CoreId, Path, Quic, QuicStats, Stranger};
use forebay_net::request::{Nanos, Request};
use forebay_net::ring::fake::Dice;

use crate::book::Book;
use crate::client::Socket;
use crate::door::Desk;
use crate::network::{Network, Packet};
use crate::terms::{self, Common, SECOND};
use crate::wire;

const TURNS_MAX: u64 = 200_000;
/// Longer than all of a connection's deadlines one after another.
const EVERY_DEADLINE: Nanos = 60 * SECOND;
/// Above this bit of a generation stands the core: a request's key is one core's own.
pub(crate) const CORE_SHIFT: u32 = 24;

/// What days brought, in sum.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    days: u64,
    requests: u64,
    answered: u64,
    refused_requests: u64,
    content: u64,
    drained: u64,
    moved: u64,
    lost: u64,
    repeated: u64,
    quic: QuicStats,
}

/// Lives through a day. Panics if anything is not as it has to be.
pub(crate) fn live(seed: u64) -> Sums {
    let mut day = Day::new(seed);
    while !day.is_over() {
        day.turn();
    }
    day.finish()
}

struct Day {
    now: Nanos,
    dice: Dice,
    network: Network,
    server: SocketAddr,
    cores: Vec<Quic>,
    strangers: Vec<Stranger>,
    /// Of 1,000 datagrams, those that the kernel gives to any core.
    astray: u32,
    desk: Desk,
    book: Book,
    sockets: Vec<Socket>,
    /// By socket: when its address changes, and how often it still may.
    moves: Vec<(Nanos, u32)>,
    moved: u64,
    drains_at: Nanos,
    has_drained: bool,
    /// What came from a socket whose owner has proved nothing, and what went there.
    unproven: HashMap<IpAddr, (usize, usize)>,
    quiet_since: Option<Nanos>,
    turns: u64,
}

impl Day {
    fn new(seed: u64) -> Day {
        let mut dice = Dice::new(seed);
        let count = 1 + dice.below(3) as usize;
        let common = Common::drawn(&mut dice);
        let core = |index| CoreId { index, count };
        let cores =
            (0..count).map(|i| Quic::new(terms::server(core(i), &mut dice, &common))).collect();
        let server = SocketAddr::from(([10, 0, 0, 1], 4318));
        let mut number = 0;
        let sockets: Vec<Socket> = (0..1 + dice.below(4))
            .map(|nth| {
                let address = SocketAddr::from(([10, 0, 1, nth as u8], 1024));
                let socket = Socket::drawn(address, server, number, 0, dice.fork());
                number += socket.connections();
                socket
            })
            .collect();
        let moves = sockets
            .iter()
            .map(|_| match dice.of_1000(400) {
                true => (dice.below(2 * SECOND), 1 + dice.below(3) as u32),
                false => (Nanos::MAX, 0),
            })
            .collect();
        Day {
            now: 0,
            network: Network::drawn(dice.fork()),
            server,
            cores,
            strangers: Vec::new(),
            astray: if dice.of_1000(500) { dice.below(300) as u32 } else { 0 },
            desk: Desk::new(dice.fork()),
            book: Book::default(),
            sockets,
            moves,
            moved: 0,
            drains_at: if dice.of_1000(300) { dice.below(2 * SECOND) } else { Nanos::MAX },
            has_drained: false,
            unproven: HashMap::new(),
            quiet_since: None,
            turns: 0,
            dice,
        }
    }

    fn turn(&mut self) {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "the day does not end");
        self.move_sockets();
        for socket in &mut self.sockets {
            socket.act(self.now, &mut self.book, &mut self.network);
        }
        self.now = self.next_at();
        while let Some(packet) = self.network.receive(self.now) {
            self.deliver(packet);
        }
        for stranger in std::mem::take(&mut self.strangers) {
            self.cores[stranger.core].handle_stranger(self.now, &stranger);
        }
        self.serve();
        self.send();
    }

    fn next_at(&mut self) -> Nanos {
        let drains_at = (!self.has_drained).then_some(self.drains_at);
        let moves = self.moves.iter().map(|(at, _)| *at);
        let sockets = self.sockets.iter_mut().filter_map(Socket::next_at);
        let cores = self.cores.iter().filter_map(Quic::next_timeout);
        let others = [self.network.next_at(), self.desk.next_at(), drains_at];
        let all = others.into_iter().flatten().chain(moves).chain(sockets).chain(cores);
        // If nothing is to come, time passes all the same.
        all.min().unwrap_or(Nanos::MAX).clamp(self.now, self.now + SECOND)
    }

    fn deliver(&mut self, packet: Packet) {
        if packet.to != self.server {
            // Who has moved does not get what was sent to where it was.
            let owner = self.sockets.iter_mut().find(|socket| socket.address == packet.to);
            if let Some(socket) = owner {
                socket.receive(self.now, packet);
            }
            return;
        }
        self.account(&packet);
        let Packet { from, ecn, bytes, .. } = packet;
        let is_long = bytes[0] & 0x80 != 0;
        let count = self.cores.len();
        let mut core = match is_long {
            true => usize::from(from.port()) % count,
            false => usize::from(bytes[1]) % count,
        };
        if !is_long && self.dice.of_1000(self.astray) {
            core = self.dice.below(count as u64) as usize;
        }
        let path = Path { from, local_ip: Some(self.server.ip()), ecn };
        let stranger = self.cores[core].handle_datagram(self.now, path, &bytes);
        self.strangers.extend(stranger);
    }

    /// A client has proved that it hears us by a Handshake packet, or by a token in an Initial;
    /// wherever its packet came from: it heard us where it was.
    fn account(&mut self, packet: &Packet) {
        let is_proven = proves(&packet.bytes);
        match self.unproven.get_mut(&packet.from.ip()) {
            Some((received, _)) if !is_proven => *received += packet.bytes.len(),
            Some((received, _)) => *received = usize::MAX / 4,
            None => {
                let received = if is_proven { usize::MAX / 4 } else { packet.bytes.len() };
                self.unproven.insert(packet.from.ip(), (received, 0));
            }
        }
    }

    fn serve(&mut self) {
        let now = self.now;
        let drains = now >= self.drains_at && !self.has_drained;
        self.has_drained |= drains;
        let mut requests: Vec<(usize, Request)> = Vec::new();
        for (core, quic) in self.cores.iter_mut().enumerate() {
            let mut new = Vec::new();
            if drains {
                quic.drain(now, &mut self.desk, &mut new);
            }
            quic.poll(now, &mut self.desk, &mut new);
            requests.extend(new.into_iter().map(|request| (core, request)));
        }
        for (core, mut request) in requests {
            request.id.key.generation |= (core as u32) << CORE_SHIFT;
            self.desk.take(request, now, &mut self.book);
        }
        while let Some((mut id, answer)) = self.desk.next_answer(now) {
            let core = (id.key.generation >> CORE_SHIFT) as usize;
            id.key.generation &= (1 << CORE_SHIFT) - 1;
            let mut new = Vec::new();
            self.cores[core].answer(id, answer, now, &mut self.desk, &mut new);
            assert!(new.is_empty(), "an answer brings no request");
        }
    }

    fn send(&mut self) {
        let mut buffer = Vec::new();
        for quic in &mut self.cores {
            while let Some(sent) = quic.poll_transmit(self.now, &mut buffer) {
                assert_eq!(buffer.len(), sent.bytes);
                let (received, answered) = self.unproven.entry(sent.to.ip()).or_insert((0, 0));
                *answered += sent.bytes;
                assert!(*answered <= 3 * *received, "{answered} for {received} to {}", sent.to);
                for bytes in buffer.chunks(sent.segment_bytes.unwrap_or(sent.bytes)) {
                    let (from, to, ecn) = (self.server, sent.to, sent.ecn);
                    self.network.send(self.now, Packet { from, to, ecn, bytes: bytes.to_vec() });
                }
            }
        }
    }

    fn move_sockets(&mut self) {
        for (socket, (at, left)) in self.sockets.iter_mut().zip(&mut self.moves) {
            if *at <= self.now && *left > 0 {
                *left -= 1;
                *at = if *left > 0 { self.now + self.dice.below(SECOND) } else { Nanos::MAX };
                socket.address.set_port(socket.address.port() + 1);
                self.moved += 1;
            }
        }
    }

    fn is_over(&mut self) -> bool {
        if !self.sockets.iter().all(Socket::is_over) {
            return false;
        }
        let since = *self.quiet_since.get_or_insert(self.now);
        let is_over = self.cores.iter().all(|quic| quic.connections() == 0) && self.desk.is_empty();
        assert!(is_over || self.now < since + EVERY_DEADLINE, "a connection outlives its client");
        is_over
    }

    fn finish(self) -> Sums {
        assert_eq!(self.desk.reserved, 0, "what was reserved is released");
        let mut sums = Sums { days: 1, drained: u64::from(self.has_drained), ..Sums::default() };
        for quic in &self.cores {
            let stats = quic.stats();
            assert!(!quic.is_busy() && quic.in_flight() == 0 && stats.handshaking == 0);
            assert_eq!(stats.accepted, stats.closed, "{stats:?}");
            assert_eq!(stats.accepted, stats.handshakes + stats.handshakes_failed, "{stats:?}");
            sums.add_stats(&stats);
        }
        self.sockets.iter().for_each(Socket::assert_content);
        let ends = self.sockets.iter().flat_map(Socket::ends);
        sums.content = ends.filter(|end| *end == "content").count() as u64;
        sums.requests = self.book.count(|handed_out, _| handed_out);
        sums.answered = self.book.count(|_, answered| answered);
        sums.refused_requests = self.desk.refused;
        (sums.moved, sums.lost) = (self.moved, self.network.lost);
        sums.repeated = self.network.repeated;
        sums
    }
}

/// Whether a client that sent this has heard the server. RFC 9000, 12.2 and 17.2: several packets
/// may lie in one datagram.
fn proves(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let Some(first) = rest.first() {
        if first & 0xb0 != 0x80 {
            return true;
        }
        let mut behind = &rest[5..];
        for _ in 0..2 {
            behind = &behind[1 + usize::from(behind[0])..];
        }
        let token_bytes = wire::number(&mut behind);
        if token_bytes > 0 {
            return true;
        }
        let bytes = wire::number(&mut behind) as usize;
        rest = &behind[bytes..];
    }
    false
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Sums) {
        self.days += other.days;
        self.requests += other.requests;
        self.answered += other.answered;
        self.refused_requests += other.refused_requests;
        self.content += other.content;
        self.drained += other.drained;
        self.moved += other.moved;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.add_stats(&other.quic);
    }

    fn add_stats(&mut self, other: &QuicStats) {
        let quic = &mut self.quic;
        quic.accepted += other.accepted;
        quic.handshakes += other.handshakes;
        quic.handshakes_failed += other.handshakes_failed;
        quic.closed += other.closed;
        quic.refused += other.refused;
        quic.unreadable += other.unreadable;
        quic.retries += other.retries;
        quic.resets += other.resets;
        quic.strangers += other.strangers;
        quic.adopted += other.adopted;
        quic.migrated += other.migrated;
        quic.lost_packets += other.lost_packets;
        quic.timeouts += other.timeouts;
        quic.replies_dropped += other.replies_dropped;
        quic.received_datagrams += other.received_datagrams;
        quic.received_bytes += other.received_bytes;
        quic.sent_datagrams += other.sent_datagrams;
        quic.sent_bytes += other.sent_bytes;
    }

    /// Whether enough happened: days on which nothing does prove nothing.
    pub(crate) fn are_telling(&self) -> bool {
        let happened = [
            self.requests / self.days.max(1),
            self.answered / self.days.max(1),
            self.refused_requests,
            self.content,
            self.drained,
            self.moved,
            self.lost,
            self.repeated,
            self.quic.handshakes_failed,
            self.quic.refused,
            self.quic.retries,
            self.quic.strangers,
            self.quic.migrated,
            self.quic.lost_packets,
            self.quic.timeouts,
        ];
        happened.iter().all(|times| *times > 0) && self.quic.strangers == self.quic.adopted
    }
}
