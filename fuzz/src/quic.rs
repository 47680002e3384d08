//! QUIC's datagram entry: real clients whose datagrams are lost, repeated, bent, cut and mixed with
//! others, before two cores. Nothing panics, nobody is answered with more than three times what
//! came, but for the rest of one datagram on each core, and in the end every connection and every
//! reservation is gone.
//!
//! No client moves here: quinn asserts, where a fuzzer's build asserts, that no timer of the path
//! before is left. `net/tests/simulation_quic` moves them.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use forebay_net::quic::{Config, CoreId, Epoch, Path, Quic, Secrets, Tls};
use forebay_net::request::{Limits, Nanos, Request};
use forebay_net::server::lifetime::Lifetime;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
};

use crate::papers;
use crate::porch::{Porch, answer};
use crate::streams::{DATA, HEADERS, REQUEST, frame};

const CORES: usize = 2;
const SECOND: Nanos = 1_000_000_000;
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 4318);
const CLIENT: ([u8; 4], u16) = ([10, 0, 1, 1], 1024);
const STEPS_MAX: usize = 60;
const DATAGRAM_BYTES_MAX: usize = 1_452;

static EPOCH: LazyLock<Epoch> =
    LazyLock::new(|| Epoch { instant: Instant::now(), wall: SystemTime::now() });
static TLS: LazyLock<(Tls, Arc<QuicClientConfig>)> = LazyLock::new(tls);

/// An input says, byte by byte, what becomes of the next datagram.
///
/// # Panics
/// If an input breaks what this target holds.
pub fn check(input: &[u8]) {
    let mut world = World::new();
    let mut rest = input;
    for _ in 0..STEPS_MAX {
        let [first, behind @ ..] = rest else { break };
        rest = behind;
        world.step(*first, &mut rest);
    }
    world.end();
}

struct World {
    now: Nanos,
    cores: Vec<Quic>,
    porch: Porch,
    client: Client,
    /// What came in all, and what went out before anybody was proved to be there.
    received: usize,
    sent: usize,
    has_settled: bool,
}

struct Client {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: quinn_proto::Connection,
    /// What it sent and nobody has taken.
    under_way: Vec<Vec<u8>>,
}

impl World {
    fn new() -> World {
        let core = |index| Quic::new(config(CoreId { index, count: CORES }));
        let cores = (0..CORES).map(core).collect();
        let porch = Porch::strict(20_000, 16);
        let client = Client::new();
        World { now: 0, cores, porch, client, received: 0, sent: 0, has_settled: false }
    }

    fn step(&mut self, first: u8, rest: &mut &[u8]) {
        self.now += 1_000_000;
        self.client.go_on(self.now);
        let mut take = || match rest {
            [byte, behind @ ..] => {
                *rest = behind;
                usize::from(*byte)
            }
            [] => 0,
        };
        let core = usize::from(first >> 7);
        let waiting = self.client.under_way.len();
        let nth = usize::from(first >> 4 & 7) % waiting.max(1);
        let datagram = (waiting > 0).then(|| self.client.under_way.remove(nth));
        match (first & 0xf, datagram) {
            (0, Some(_)) => {}
            (1, Some(datagram)) => {
                self.deliver(core, &datagram);
                self.deliver(1 - core, &datagram);
            }
            (2, Some(mut datagram)) => {
                let at = (take() << 3 | take() >> 5) % datagram.len().max(1);
                datagram[at] ^= 1 << (take() & 7);
                self.deliver(core, &datagram);
            }
            (3, Some(datagram)) => {
                let end = (take() << 3) % (datagram.len() + 1);
                self.deliver(core, &datagram[..end]);
            }
            (4, Some(datagram)) => {
                self.deliver(core, &datagram);
                self.client.under_way.push(datagram);
            }
            (5, _) => {
                let bytes: Vec<u8> = (0..take()).map(|_| take() as u8).collect();
                self.deliver(core, &bytes);
            }
            (6, _) => self.now += SECOND * take() as u64 / 64,
            (7, _) => self.client.ask(),
            (8, Some(datagram)) => {
                self.deliver(core, &[&datagram[..], &vec![take() as u8; take()]].concat());
            }
            (_, Some(datagram)) => self.deliver(core, &datagram),
            (_, None) => {}
        }
        self.work();
    }

    fn deliver(&mut self, core: usize, datagram: &[u8]) {
        let path = Path { from: CLIENT.into(), local_ip: None, ecn: 2 };
        self.received += datagram.len();
        if let Some(stranger) = self.cores[core].handle_datagram(self.now, path, datagram) {
            assert_ne!(stranger.core, core);
            assert_eq!(stranger.bytes, datagram);
            self.cores[stranger.core].handle_stranger(self.now, &stranger);
        }
    }

    fn work(&mut self) {
        let mut buffer = Vec::new();
        for quic in &mut self.cores {
            let mut requests: Vec<Request> = Vec::new();
            quic.poll(self.now, &mut self.porch.books, &mut requests);
            for request in requests {
                self.porch.settle(&request);
                let (id, answer) = (request.id, answer(http::StatusCode::OK));
                quic.answer(id, answer, self.now, &mut self.porch.books, &mut Vec::new());
            }
            while let Some(sent) = quic.poll_transmit(self.now, &mut buffer) {
                self.sent += sent.bytes;
                for bytes in buffer.chunks(sent.segment_bytes.unwrap_or(sent.bytes)) {
                    self.client.receive(self.now, bytes);
                }
            }
            self.has_settled |= quic.stats().handshakes > 0;
        }
        // While anything is left of the three times, quinn sends a datagram whole.
        let rest = CORES * DATAGRAM_BYTES_MAX;
        let is_bounded = self.has_settled || self.sent < 3 * self.received + rest;
        assert!(is_bounded, "{} for {}", self.sent, self.received);
    }

    fn end(mut self) {
        // The client is gone: time does the rest.
        for _ in 0..200 {
            let next = self.cores.iter().filter_map(Quic::next_timeout).min();
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            self.client.under_way.clear();
            self.work();
        }
        for quic in &self.cores {
            assert_eq!((quic.connections(), quic.in_flight()), (0, 0), "{:?}", quic.stats());
            assert!(!quic.is_busy());
        }
        assert_eq!(self.porch.books.reserved, 0, "what was reserved is given back");
    }
}

impl Client {
    fn new() -> Client {
        let mut endpoint =
            Endpoint::new(Arc::new(EndpointConfig::default()), None, true, Some([7; 32]));
        let config = ClientConfig::new(TLS.1.clone());
        let (handle, quic) = endpoint
            .connect(instant(0), config, SERVER.into(), papers::NAME)
            .expect("the address is one");
        Client { endpoint, handle, quic, under_way: Vec::new() }
    }

    fn go_on(&mut self, now: Nanos) {
        if self.quic.poll_timeout().is_some_and(|due| due <= instant(now)) {
            self.quic.handle_timeout(instant(now));
        }
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
        while let Some(event) = self.quic.poll() {
            if matches!(event, Event::Connected) {
                self.ask();
            }
        }
        let mut buffer = Vec::new();
        while self.quic.poll_transmit(instant(now), 1, &mut buffer).is_some() {
            self.under_way.push(std::mem::take(&mut buffer));
        }
    }

    fn ask(&mut self) {
        if let Some(id) = self.quic.streams().open(Dir::Bi) {
            let request = [frame(HEADERS, REQUEST), frame(DATA, &[7; 500])].concat();
            // Less room than that is a request that never ends.
            let _ = self.quic.send_stream(id).write(&request);
            let _ = self.quic.send_stream(id).finish();
        }
    }

    fn receive(&mut self, now: Nanos, bytes: &[u8]) {
        let bytes = BytesMut::from(bytes);
        let mut reply = Vec::new();
        let event =
            self.endpoint.handle(instant(now), SERVER.into(), None, None, bytes, &mut reply);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.quic.handle_event(event);
        }
    }
}

fn instant(now: Nanos) -> Instant {
    EPOCH.instant + Duration::from_nanos(now)
}

fn config(core: CoreId) -> Config {
    Config {
        core,
        listener: 0,
        limits: Limits {
            header_bytes_max: 1024,
            connections_max: 4,
            connection_requests_max: 16,
            connection_window_bytes: 100_000,
            header_timeout: SECOND,
            body_timeout: 2 * SECOND,
            idle_timeout: 3 * SECOND,
            write_timeout: 2 * SECOND,
        },
        lifetime: Lifetime { idle_timeout: 3 * SECOND, age_max: 0, age_grace: 0 },
        tls: TLS.0.clone(),
        secrets: Secrets::derive(&[3; 32]),
        seed: [core.index as u8; 32],
        epoch: *EPOCH,
        handshakes_max: 3,
        retry_above: 2,
        handshake_timeout: SECOND,
        segments_max: 4,
        datagram_bytes_max: DATAGRAM_BYTES_MAX as u16,
    }
}

fn tls() -> (Tls, Arc<QuicClientConfig>) {
    let (server, client) = papers::tls();
    (Tls::new(server).expect("for QUIC"), client)
}

/// What becomes of datagrams, to begin with.
pub fn seeds() -> [(&'static str, &'static [u8]); 4] {
    [
        ("usual", &[0xf; 40]),
        ("noise", b"\x05\x20\xc0\0\0\0\x01\x08abcdefgh\0\0\x40\x10\x0f\x0f\x0f\x0f\x0f\x0f\x0f"),
        ("twice", &[0xf, 0xf, 0xf, 0x4, 0x84, 0x7, 0x4, 0xf, 0x1, 0x81, 0x7, 0xf, 0x6, 0xff]),
        ("bent", &[0x2, 3, 9, 1, 0xf, 0xf, 0x2, 0, 1, 1, 0x3, 9, 0x8, 7, 40, 0xf, 0xf, 0x0]),
    ]
}
