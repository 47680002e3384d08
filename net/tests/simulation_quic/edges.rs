//! What anybody can do to an endpoint without being a client of ours: each costs little, and what
//! it costs is bounded and counted.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use forebay_net::fields::Fields;
use forebay_net::quic::{Config, CoreId, Path, Quic, Stranger, Tls, TlsError, Transmit};
use forebay_net::request::{Answer, Nanos, Request};
use forebay_net::ring::fake::Dice;
use http::StatusCode;
use quinn_proto::{
    ClientConfig, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event,
    StreamEvent, StreamId,
};

use crate::book::pattern;
use crate::door::Desk;
use crate::talk::Made;
use crate::terms::{self, Common, MILLI, SECOND};
use crate::wire;

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 4318);
const CLIENT: ([u8; 4], u16) = ([10, 0, 1, 1], 1024);

/// One core and one client, with nothing between them.
pub(crate) struct Pair {
    pub(crate) now: Nanos,
    pub(crate) quic: Quic,
    pub(crate) desk: Desk,
    pub(crate) requests: Vec<Request>,
    pub(crate) client: Client,
}

pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) handle: ConnectionHandle,
    pub(crate) quic: quinn_proto::Connection,
    pub(crate) lost: Option<ConnectionError>,
    pub(crate) got: Vec<u8>,
}

impl Pair {
    pub(crate) fn new(config: Config) -> Pair {
        let dice = Dice::new(1);
        let client = Client::new(CLIENT.into(), 2);
        Pair { now: 0, quic: Quic::new(config), desk: Desk::new(dice), requests: vec![], client }
    }

    /// Until neither side has anything to say.
    pub(crate) fn exchange(&mut self) {
        loop {
            self.now += MILLI;
            let sent = self.client.send(self.now);
            for bytes in &sent {
                let stranger = self.quic.handle_datagram(self.now, self.client.path(), bytes);
                assert!(stranger.is_none(), "there is one core");
            }
            let answered = self.work();
            for (transmit, bytes) in &answered {
                assert_eq!(transmit.to, self.client.address);
                for segment in bytes.chunks(transmit.segment_bytes.unwrap_or(bytes.len())) {
                    self.client.receive(self.now, segment);
                }
            }
            if sent.is_empty() && answered.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn work(&mut self) -> Vec<(Transmit, Vec<u8>)> {
        self.quic.poll(self.now, &mut self.desk, &mut self.requests);
        transmits(&mut self.quic, self.now)
    }

    pub(crate) fn pass(&mut self, nanos: Nanos) {
        let until = self.now + nanos;
        while let Some(next) = self.quic.next_timeout().filter(|next| *next <= until) {
            self.now = next;
            self.work();
        }
        self.now = until;
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, seed: u64) -> Client {
        Client::with(address, seed, terms::client)
    }

    pub(crate) fn with(
        address: SocketAddr,
        seed: u64,
        terms: impl FnOnce(&mut Dice) -> ClientConfig,
    ) -> Client {
        let mut dice = Dice::new(seed);
        let config = terms::client_endpoint(&mut dice);
        let mut endpoint = Endpoint::new(config.into(), None, true, Some(terms::seed(&mut dice)));
        let (handle, quic) = endpoint
            .connect(terms::instant(0), terms(&mut dice), SERVER.into(), terms::NAME)
            .expect("the address is one");
        Client { address, endpoint, handle, quic, lost: None, got: Vec::new() }
    }

    pub(crate) fn path(&self) -> Path {
        Path { from: self.address, local_ip: None, ecn: 0 }
    }

    pub(crate) fn send(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        let at = terms::instant(now);
        if self.quic.poll_timeout().is_some_and(|due| due <= at) {
            self.quic.handle_timeout(at);
        }
        let mut datagrams = Vec::new();
        let mut buffer = Vec::new();
        while self.quic.poll_transmit(at, 1, &mut buffer).is_some() {
            datagrams.push(std::mem::take(&mut buffer));
        }
        datagrams
    }

    pub(crate) fn receive(&mut self, now: Nanos, bytes: &[u8]) {
        let (at, bytes) = (terms::instant(now), BytesMut::from(bytes));
        let mut reply = Vec::new();
        let event = self.endpoint.handle(at, SERVER.into(), None, None, bytes, &mut reply);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.quic.handle_event(event);
        }
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                Event::Stream(StreamEvent::Readable { id }) if id.dir() == Dir::Bi => {
                    self.read(id);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn read(&mut self, id: StreamId) {
        let mut stream = self.quic.recv_stream(id);
        let mut chunks = stream.read(true).expect("it is open");
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.got.extend_from_slice(&chunk.bytes);
        }
        let _ = chunks.finalize();
    }

    pub(crate) fn write(&mut self, dir: Dir, bytes: &[u8], ends: bool) {
        let id = self.quic.streams().open(dir).expect("there is room");
        assert_eq!(self.quic.send_stream(id).write(bytes), Ok(bytes.len()));
        if ends {
            self.quic.send_stream(id).finish().expect("it is open");
        }
    }

    pub(crate) fn ask(&mut self) {
        let made = Made { id: 1, path: "/r/1".into(), headers: vec![], body: vec![] };
        self.write(Dir::Bi, &wire::request(&made, false, &[]), true);
    }
}

pub(crate) fn transmits(quic: &mut Quic, now: Nanos) -> Vec<(Transmit, Vec<u8>)> {
    let mut all = Vec::new();
    let mut buffer = Vec::new();
    while let Some(transmit) = quic.poll_transmit(now, &mut buffer) {
        all.push((transmit, buffer.clone()));
    }
    all
}

/// Of a core of so many; with the same keys in every call.
pub(crate) fn config(index: usize, count: usize) -> Config {
    let mut dice = Dice::new(9);
    let common = Common::drawn(&mut dice);
    let mut config = terms::server(CoreId { index, count }, &mut dice, &common);
    config.limits.connections_max = 1_000;
    config.limits.connection_requests_max = 16;
    config.handshakes_max = 1_000;
    config.retry_above = 1_000;
    config.lifetime.age_max = 0;
    config.segments_max = 10;
    config
}

#[test]
fn a_peer_that_breaks_the_rules_hears_which() {
    let broken: [(Dir, &[u8], u64); 4] = [
        (Dir::Uni, b"\0\0\x01a", 0x10a),
        (Dir::Bi, b"\0\x01a", 0x105),
        (Dir::Bi, b"\x01\x03\0\0\x80", 0x200),
        (Dir::Uni, b"\x02\x3f\x10", 0x201),
    ];
    for (dir, bytes, code) in broken {
        let mut pair = Pair::new(config(0, 1));
        pair.exchange();
        pair.client.write(dir, bytes, false);
        pair.exchange();
        let Some(ConnectionError::ApplicationClosed(close)) = &pair.client.lost else {
            panic!("{code:#x}: {:?}", pair.client.lost);
        };
        assert_eq!(close.error_code.into_inner(), code, "{}", bytes.escape_ascii());
        assert!(!close.reason.is_empty(), "it says what was wrong");
        pair.pass(10 * SECOND);
        assert_eq!(pair.quic.connections(), 0);
    }
}

#[test]
fn a_stream_of_a_kind_that_nobody_knows_is_not_read_from_its_middle() {
    for behind in [0, 1, 2, 0x40] {
        let mut pair = Pair::new(config(0, 1));
        pair.exchange();
        pair.client.write(Dir::Uni, &[&[0x21][..], &[behind; 3_500]].concat(), false);
        pair.client.ask();
        pair.exchange();
        assert_eq!((pair.client.lost, pair.requests.len()), (None, 1), "{behind}");
    }
}

#[test]
fn a_long_answer_leaves_in_trains_of_equal_datagrams() {
    let mut pair = Pair::new(config(0, 1));
    pair.exchange();
    pair.client.ask();
    pair.exchange();
    let request = pair.requests.pop().expect("the request");
    let body = Bytes::from(pattern(1, 9_000));
    let (headers, trailers) = (Fields::new(), Fields::new());
    let answer = Answer { status: StatusCode::OK, headers, body, trailers };
    let (now, desk) = (pair.now, &mut pair.desk);
    pair.quic.answer(request.id, answer, now, desk, &mut pair.requests);
    let mut longest = 0;
    // In as many rounds as the client's windows take.
    for _ in 0..40 {
        for (transmit, bytes) in transmits(&mut pair.quic, pair.now) {
            let segment = transmit.segment_bytes.unwrap_or(bytes.len());
            longest = longest.max(bytes.len().div_ceil(segment));
            bytes.chunks(segment).for_each(|one| pair.client.receive(pair.now, one));
        }
        pair.exchange();
    }
    assert_eq!(wire::answer(&pair.client.got).body, pattern(1, 9_000));
    assert!((2..=10).contains(&longest), "{longest} datagrams in the longest");
}

#[test]
fn noise_makes_no_connection_and_gets_less_back_than_it_is() {
    let mut quic = Quic::new(config(0, 2));
    let mut desk = Desk::new(Dice::new(3));
    let mut dice = Dice::new(4);
    for round in 0..20_000 {
        let length = dice.below(1_400) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| dice.number() as u8).collect();
        if let Some(version) = bytes.get_mut(1..5)
            && dice.of_1000(500)
        {
            version.copy_from_slice(&[0, 0, 0, 1]);
        }
        let path = Path { from: CLIENT.into(), local_ip: None, ecn: dice.number() as u8 };
        let stranger = quic.handle_datagram(round * MILLI, path, &bytes);
        assert!(stranger.is_none_or(|stranger| stranger.core == 1), "seed 4, round {round}");
        quic.poll(round * MILLI, &mut desk, &mut Vec::new());
        let answered: usize =
            transmits(&mut quic, round * MILLI).iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(answered <= length, "seed 4, round {round}: {answered} for {length}");
    }
    assert_eq!(quic.connections(), 0);
    assert_eq!(quic.stats().resets, 0, "no ID was sealed by us");
}

#[test]
fn a_flood_of_handshakes_is_bounded_and_asked_for_its_address() {
    let config = Config { handshakes_max: 40, retry_above: 20, ..config(0, 1) };
    let mut quic = Quic::new(config);
    let mut desk = Desk::new(Dice::new(5));
    let mut addresses = 0u32;
    let mut come = |quic: &mut Quic, seed| {
        addresses += 1;
        let [.., a, b] = addresses.to_be_bytes();
        let mut client = Client::new(SocketAddr::from(([10, 1, a, b], 1024)), seed);
        for datagram in client.send(0) {
            quic.handle_datagram(0, client.path(), &datagram);
        }
        quic.poll(0, &mut desk, &mut Vec::new());
        let answers = transmits(quic, 0);
        answers.iter().for_each(|(_, bytes)| client.receive(0, bytes));
        client
    };
    let mut clients: Vec<Client> = (0..300).map(|seed| come(&mut quic, seed)).collect();
    assert_eq!((quic.connections(), quic.stats().retries), (20, 280));
    assert_eq!(quic.stats().handshaking, 20);
    // Those who prove their address are let in, until there are too many of them as well.
    for client in &mut clients {
        for datagram in client.send(0) {
            quic.handle_datagram(0, client.path(), &datagram);
        }
    }
    while quic.next_timeout() == Some(0) {
        quic.poll(0, &mut desk, &mut Vec::new());
    }
    let stats = quic.stats();
    assert_eq!((stats.handshakes, stats.handshaking), (20, 40), "{stats:?}");
    assert!(quic.stats().refused > 0);
    let mut pair = Pair { now: 0, quic, desk, requests: vec![], client: clients.remove(0) };
    pair.pass(20 * SECOND);
    assert_eq!((pair.quic.connections(), pair.quic.stats().handshaking), (0, 0));
}

#[test]
fn a_retry_token_is_good_for_its_own_address_alone() {
    let mut pair = Pair::new(Config { retry_above: 0, ..config(0, 1) });
    let first = pair.client.send(0);
    pair.quic.handle_datagram(0, pair.client.path(), &first[0]);
    let retry = pair.work();
    assert_eq!((pair.quic.stats().retries, pair.quic.connections()), (1, 0));
    pair.client.receive(0, &retry[0].1);
    let with_token = pair.client.send(0);
    let elsewhere = Path { from: ([10, 0, 9, 9], 1).into(), local_ip: None, ecn: 0 };
    pair.quic.handle_datagram(0, elsewhere, &with_token[0]);
    assert_eq!(pair.quic.connections(), 0, "a token that somebody stole");
    pair.work();
    // One that is too old.
    let late = 60 * SECOND;
    pair.quic.handle_datagram(late, pair.client.path(), &with_token[0]);
    assert_eq!(pair.quic.connections(), 0, "a token that is too old");
    pair.work();
    let mut pair = Pair::new(Config { retry_above: 0, ..config(0, 1) });
    pair.exchange();
    assert_eq!(pair.quic.stats().handshakes, 1, "its owner gets in");
}

#[test]
fn who_talks_to_a_process_that_is_gone_is_told_and_nobody_else_can_tell_him() {
    let mut pair = Pair::new(config(0, 1));
    pair.exchange();
    // Somebody who does not know the key.
    let mut dice = Dice::new(6);
    for _ in 0..200 {
        let forged: Vec<u8> = (0..60).map(|_| 0x40 | dice.number() as u8 & 0x7f).collect();
        pair.client.receive(pair.now, &forged);
        pair.quic.handle_datagram(pair.now, pair.client.path(), &forged);
    }
    pair.exchange();
    assert_eq!(pair.client.lost, None);
    // Another process with the same secret.
    pair.quic = Quic::new(config(0, 1));
    pair.client.ask();
    pair.exchange();
    assert_eq!(pair.client.lost, Some(ConnectionError::Reset));
    assert_eq!(pair.quic.stats().resets, 1);
}

#[test]
fn what_belongs_to_another_core_is_handed_back_as_it_came() {
    let mut pair = Pair::new(config(1, 3));
    let first = pair.client.send(0);
    pair.quic.handle_datagram(0, pair.client.path(), &first[0]);
    for (_, bytes) in pair.work() {
        pair.client.receive(0, &bytes);
    }
    let mut other = Quic::new(config(2, 3));
    let mut kinds = [0, 0];
    for round in 0..4 {
        for datagram in pair.client.send(round * MILLI) {
            let Some(stranger) = other.handle_datagram(0, pair.client.path(), &datagram) else {
                panic!("a datagram of core 1 was kept: {}", datagram.escape_ascii());
            };
            let Stranger { core, path, bytes } = &stranger;
            assert_eq!((*core, *path, &bytes[..]), (1, pair.client.path(), &datagram[..]));
            kinds[usize::from(datagram[0] & 0x80 != 0)] += 1;
            pair.quic.handle_stranger(0, &stranger);
        }
        pair.quic.poll(0, &mut pair.desk, &mut pair.requests);
        for (transmit, bytes) in transmits(&mut pair.quic, 0) {
            let segment = transmit.segment_bytes.unwrap_or(bytes.len());
            bytes.chunks(segment).for_each(|one| pair.client.receive(0, one));
        }
        if round == 1 {
            pair.client.ask();
        }
    }
    assert!(kinds[0] > 0 && kinds[1] > 0, "short and long headers: {kinds:?}");
    assert_eq!(pair.requests.len(), 1);
    assert_eq!(other.stats().strangers, pair.quic.stats().adopted);
    assert_eq!(other.connections(), 0);
}

#[test]
fn a_handshake_has_its_time_and_no_more() {
    let mut pair = Pair::new(config(0, 1));
    let first = pair.client.send(0);
    pair.quic.handle_datagram(0, pair.client.path(), &first[0]);
    pair.work();
    assert_eq!((pair.quic.connections(), pair.quic.stats().handshaking), (1, 1));
    pair.pass(3 * SECOND + MILLI);
    let stats = pair.quic.stats();
    assert_eq!((stats.handshaking, stats.handshakes_failed, stats.timeouts), (0, 1, 1));
    pair.pass(10 * SECOND);
    assert_eq!(pair.quic.connections(), 0);
}

#[test]
fn a_tls_configuration_that_is_not_for_quic_is_refused() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = |change: fn(&mut rustls::ServerConfig)| {
        let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("they are known")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        tls.alpn_protocols = vec![b"h3".to_vec()];
        change(&mut tls);
        Tls::new(Arc::new(tls)).err()
    };
    assert_eq!(tls(|_| {}), None);
    assert_eq!(tls(|tls| tls.alpn_protocols = vec![b"h2".to_vec()]), Some(TlsError::NoAlpn));
    assert_eq!(tls(|tls| tls.max_early_data_size = u32::MAX), Some(TlsError::EarlyData));
}

#[test]
fn who_drains_answers_what_it_has_and_lets_nobody_in() {
    let mut pair = Pair::new(config(0, 1));
    pair.exchange();
    pair.client.ask();
    pair.exchange();
    let request = pair.requests.pop().expect("the request");
    assert_eq!(pair.quic.peer(request.id.key), Some(pair.client.address));
    pair.quic.drain(pair.now, &mut pair.desk, &mut pair.requests);
    pair.exchange();
    assert!(pair.quic.is_busy() && pair.client.lost.is_none(), "an answer is owed");
    let mut late = Client::new(([10, 0, 1, 2], 1).into(), 3);
    for datagram in late.send(pair.now) {
        pair.quic.handle_datagram(pair.now, late.path(), &datagram);
    }
    pair.work().iter().for_each(|(_, bytes)| late.receive(pair.now, bytes));
    assert!(matches!(late.lost, Some(ConnectionError::ConnectionClosed(_))), "{:?}", late.lost);
    assert_eq!((pair.quic.stats().refused, pair.quic.connections()), (1, 1));
    let (headers, trailers) = (Fields::new(), Fields::new());
    let answer = Answer { status: StatusCode::OK, headers, body: "done".into(), trailers };
    let (now, desk) = (pair.now, &mut pair.desk);
    pair.quic.answer(request.id, answer, now, desk, &mut pair.requests);
    for _ in 0..100 {
        pair.exchange();
    }
    assert_eq!(wire::answer(&pair.client.got).body, b"done");
    let Some(ConnectionError::ApplicationClosed(close)) = &pair.client.lost else {
        panic!("{:?}", pair.client.lost);
    };
    assert_eq!(close.error_code.into_inner(), 0x100, "H3_NO_ERROR");
    assert!(!pair.quic.is_busy());
}
