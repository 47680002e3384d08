//! The server under attack: one or more cores, a door that lets everybody in and counts, and
//! whoever works behind it, who answers each request with its own body.

use std::net::SocketAddr;

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::quic::{Config, CoreId, Path, Quic, QuicStats};
use forebay_net::request::{
    Admitted, Answer, Door, Head, Nanos, Protocol, Refusal, Request, Trouble,
};
use forebay_net::ring::fake::Dice;
use http::StatusCode;

use crate::caller::Caller;
use crate::terms::{self, Common, MILLI};

pub(crate) const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 4318);

pub(crate) struct Stage {
    pub(crate) now: Nanos,
    pub(crate) cores: Vec<Quic>,
    pub(crate) porter: Porter,
    /// Requests that wait for [`Stage::answer`], with their cores.
    pub(crate) requests: Vec<(usize, Request)>,
    /// Requests are answered in the turn in which they come.
    pub(crate) answers_at_once: bool,
}

/// A datagram on its way out.
pub(crate) struct Packet {
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// Lets everybody in, and counts.
#[derive(Default)]
pub(crate) struct Porter {
    pub(crate) troubles: Vec<Trouble>,
    /// Of requests that had been let in.
    pub(crate) refusals: Vec<Refusal>,
    /// It has room for nothing more.
    pub(crate) is_full: bool,
    pub(crate) reserved: usize,
    pub(crate) reserved_max: usize,
    pub(crate) abandoned: usize,
}

/// A core of so many, with the same keys in every call.
pub(crate) fn config(index: usize, count: usize) -> Config {
    let mut dice = Dice::new(9);
    let common = Common::drawn(&mut dice);
    let mut config = terms::server(CoreId { index, count }, &mut dice, &common);
    config.limits.header_bytes_max = 4096;
    config.limits.connections_max = 1_000;
    config.limits.connection_requests_max = 16;
    config.limits.connection_window_bytes = 100_000;
    config.handshakes_max = 1_000;
    config.retry_above = 1_000;
    config.lifetime.age_max = 0;
    config.segments_max = 10;
    config
}

impl Stage {
    pub(crate) fn new(configs: impl IntoIterator<Item = Config>) -> Stage {
        Stage {
            now: 0,
            cores: configs.into_iter().map(Quic::new).collect(),
            porter: Porter::default(),
            requests: Vec::new(),
            answers_at_once: true,
        }
    }

    /// One core on usual terms.
    pub(crate) fn usual() -> Stage {
        Stage::new([config(0, 1)])
    }

    /// A datagram arrives, at the core that the kernel's filter gives it to.
    pub(crate) fn deliver(&mut self, from: SocketAddr, bytes: &[u8]) {
        let count = self.cores.len();
        let is_long = bytes.first().is_none_or(|first| first & 0x80 != 0);
        let steered = if is_long { usize::from(from.port()) } else { usize::from(bytes[1]) };
        self.deliver_at(steered % count, from, bytes);
    }

    /// A datagram arrives at a core, which may not be the one that it is for.
    pub(crate) fn deliver_at(&mut self, core: usize, from: SocketAddr, bytes: &[u8]) {
        let path = Path { from, local_ip: None, ecn: 0 };
        if let Some(stranger) = self.cores[core].handle_datagram(self.now, path, bytes) {
            assert_ne!(stranger.core, core);
            self.cores[stranger.core].handle_stranger(self.now, &stranger);
        }
    }

    /// One turn of every core: what it has to send.
    pub(crate) fn work(&mut self) -> Vec<Packet> {
        let mut new = Vec::new();
        for (core, quic) in self.cores.iter_mut().enumerate() {
            quic.poll(self.now, &mut self.porter, &mut new);
            self.requests.extend(new.drain(..).map(|request| (core, request)));
        }
        if self.answers_at_once {
            self.answer();
        }
        let mut packets = Vec::new();
        let mut buffer = Vec::new();
        for quic in &mut self.cores {
            while let Some(sent) = quic.poll_transmit(self.now, &mut buffer) {
                for bytes in buffer.chunks(sent.segment_bytes.unwrap_or(sent.bytes)) {
                    packets.push(Packet { to: sent.to, bytes: bytes.to_vec() });
                }
            }
        }
        packets
    }

    /// Answers what waits, each with its own body.
    pub(crate) fn answer(&mut self) {
        for (core, request) in std::mem::take(&mut self.requests) {
            let Request { id, body, reserved, .. } = request;
            self.porter.release(reserved);
            let answer = answer(StatusCode::OK, body);
            let mut new = Vec::new();
            self.cores[core].answer(id, answer, self.now, &mut self.porter, &mut new);
            assert!(new.is_empty(), "an answer brings no request");
        }
    }

    /// Some milliseconds in which every datagram arrives, and the callers do what they have to.
    pub(crate) fn exchange(&mut self, callers: &mut [&mut Caller], millis: u64) {
        for _ in 0..millis {
            self.now += MILLI;
            for caller in &mut *callers {
                for bytes in caller.send(self.now) {
                    self.deliver(caller.address, &bytes);
                }
            }
            for packet in self.work() {
                for caller in &mut *callers {
                    if caller.address == packet.to {
                        caller.receive(self.now, &packet.bytes);
                    }
                }
            }
        }
    }

    /// Time goes by, and whatever the cores say is lost.
    pub(crate) fn pass(&mut self, nanos: Nanos) -> Vec<Packet> {
        let until = self.now + nanos;
        let mut packets = Vec::new();
        loop {
            let next = self.cores.iter().filter_map(Quic::next_timeout).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            packets.extend(self.work());
        }
        self.now = until;
        packets
    }

    /// A caller whose handshake is done.
    pub(crate) fn caller(&mut self, last: u8) -> Caller {
        let address = SocketAddr::from(([10, 0, 1, last], 1024));
        let mut caller = Caller::new(address, u64::from(last), self.now);
        self.exchange(&mut [&mut caller], 10);
        assert!(caller.is_open(), "{:?}", caller.lost);
        caller
    }

    /// Of all cores.
    pub(crate) fn stats(&self, of: impl Fn(&QuicStats) -> u64) -> u64 {
        self.cores.iter().map(|quic| of(&quic.stats())).sum()
    }

    /// A request of a caller is answered, as always.
    pub(crate) fn assert_serves(&mut self, caller: &mut Caller) {
        let stream = caller.ask(b"still here");
        self.exchange(&mut [&mut *caller], 5);
        assert_eq!(caller.answer(stream), Some((200, b"still here".to_vec())), "{:?}", caller.lost);
    }

    /// Nothing is left of anybody, once everybody's time is over.
    pub(crate) fn assert_ends_empty(&mut self) {
        self.answer();
        self.pass(60 * terms::SECOND);
        for quic in &self.cores {
            let stats = quic.stats();
            assert_eq!((quic.connections(), quic.in_flight()), (0, 0), "{stats:?}");
            assert_eq!((stats.handshaking, stats.accepted), (0, stats.closed), "{stats:?}");
        }
        assert_eq!(self.porter.reserved, 0, "what was reserved is given back");
    }
}

impl Door for Porter {
    fn admit(&mut self, _: &mut Head) -> Result<Admitted, Answer> {
        Ok(Admitted { body_bytes_max: 60_000, tag: 0, reserved: 0, streamed: false })
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        if self.is_full {
            return false;
        }
        self.reserved += bytes;
        self.reserved_max = self.reserved_max.max(self.reserved);
        true
    }

    fn release(&mut self, bytes: usize) {
        assert!(bytes <= self.reserved, "more is released than was reserved");
        self.reserved -= bytes;
    }

    fn refuse(&mut self, _: &Head, refusal: Refusal) -> Answer {
        self.refusals.push(refusal);
        let status = match refusal {
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Overloaded | Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::BodyTimeout | Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Malformed { status, .. } => status,
        };
        answer(status, Bytes::new())
    }

    fn malformed(&mut self, status: StatusCode, _: &'static str) -> Answer {
        answer(status, Bytes::new())
    }

    fn abandoned(&mut self, _: Protocol) {
        self.abandoned += 1;
    }

    fn trouble(&mut self, _: Protocol, trouble: Trouble) {
        self.troubles.push(trouble);
    }
}

fn answer(status: StatusCode, body: Bytes) -> Answer {
    Answer { status, headers: Fields::new(), body, trailers: Fields::new() }
}
