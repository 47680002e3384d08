//! A server on a quiet network whose clients come from pages, or not, and may not stay.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::cors::Pattern;
use crate::fields::Fields;
use crate::request::{Limits, Nanos};
use crate::ring::fake::{Client, Dice, FakeRing, Network, Temper};
use crate::ring::{Options, Rung};

const SECOND: Nanos = 1_000_000_000;
const SEEDS: u64 = 20;

/// Lets everybody in.
struct Open;

impl Door for Open {
    fn admit(&mut self, _: &mut Head) -> Result<Admitted, Answer> {
        Ok(Admitted { body_bytes_max: 1 << 20, tag: 0, reserved: 0, streamed: false })
    }

    fn reserve(&mut self, _: usize) -> bool {
        true
    }

    fn release(&mut self, _: usize) {}

    fn refuse(&mut self, _: &Head, _: Refusal) -> Answer {
        answer(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn malformed(&mut self, status: StatusCode, _: &'static str) -> Answer {
        answer(status)
    }

    fn abandoned(&mut self, _: Protocol) {}
}

fn answer(status: StatusCode) -> Answer {
    Answer { status, headers: Fields::new(), body: Bytes::new(), trailers: Fields::new() }
}

/// Listener 0 has rules and another way, listener 1 has nothing.
fn server(network: &Network) -> Server<FakeRing> {
    let options = Options {
        datagram_buffers: 0,
        entries: 64,
        buffers: 16,
        buffer_bytes: 700,
        highest: Rung::Deferred,
    };
    let limits = Limits {
        header_bytes_max: 4096,
        connections_max: 1000,
        connection_requests_max: 16,
        connection_window_bytes: 4 << 20,
        header_timeout: 5 * SECOND,
        body_timeout: 5 * SECOND,
        idle_timeout: 60 * SECOND,
        write_timeout: 5 * SECOND,
    };
    let sockets = vec![network.listener(), network.listener()];
    let shop = Pattern::read("https://shop.example").expect("a proper origin");
    let rules = vec![Some(Arc::new(Cors::new(vec![shop]))), None];
    let mut server = Server::new(network.ring(&options), limits, sockets)
        .with_tls(vec![None, None], 10)
        .with_cors(rules);
    server.offer(vec![Some(HeaderValue::from_static("h3=\":1\"")), None]);
    server
}

struct Place {
    network: Network,
    server: Server<FakeRing>,
    requests: Vec<Request>,
}

impl Place {
    fn turn(&mut self) {
        for _ in 0..20 {
            let now = self.network.now();
            self.network.wake_by(now + 1);
            self.server.wait(now, Duration::from_millis(1)).expect("a fake ring never fails");
            let now = self.network.now();
            self.server.poll(now, &mut Open, &mut self.requests);
            self.server.flush(now, &mut Open, &mut self.requests);
        }
    }

    fn kept(&self) -> usize {
        self.server.extras.as_ref().map_or(0, |extras| extras.allowed.len())
    }
}

/// A page's origin, and whether its answer names it.
const ORIGINS: [(&str, bool); 3] = [
    ("origin: https://shop.example\r\n", true),
    ("origin: https://other.example\r\n", false),
    ("", false),
];

#[test]
fn whoever_leaves_or_stays_nothing_is_kept_of_a_request_that_was_answered() {
    for seed in 0..SEEDS {
        let mut dice = Dice::new(seed);
        let network = Network::new(seed, Temper::calm());
        let mut place = Place { server: server(&network), network, requests: Vec::new() };
        let mut clients: Vec<(Client, usize, usize, bool)> = Vec::new();
        for _ in 0..30 {
            let (listener, origin) = (dice.below(2) as usize, dice.below(3) as usize);
            let client = place.network.connect(listener).expect("it listens");
            let head = format!("GET /a HTTP/1.1\r\nhost: a\r\n{}\r\n", ORIGINS[origin].0);
            assert_eq!(client.write(head.as_bytes()), head.len(), "seed {seed}");
            clients.push((client, listener, origin, dice.of_1000(300)));
        }
        place.turn();
        let pages =
            clients.iter().filter(|(_, listener, origin, _)| (*listener, *origin) == (0, 0));
        assert_eq!((place.requests.len(), place.kept()), (30, pages.count()), "seed {seed}");
        for (client, ..) in clients.iter().filter(|(.., leaves)| *leaves) {
            client.reset();
        }
        place.turn();
        let now = place.network.now();
        for request in std::mem::take(&mut place.requests) {
            let (id, ok) = (request.id, answer(StatusCode::OK));
            place.server.answer(id, ok, now, &mut Open, &mut place.requests);
        }
        place.turn();
        assert_eq!(place.kept(), 0, "seed {seed}");
        for (client, listener, origin, leaves) in &clients {
            let heard = String::from_utf8(client.read(4096).to_vec()).expect("text");
            let (is_here, is_named) = (*listener == 0 && !leaves, ORIGINS[*origin].1);
            assert_eq!(heard.starts_with("HTTP/1.1 200"), !leaves, "seed {seed}: {heard}");
            let names = heard.contains("access-control-allow-origin: https://shop.example\r\n");
            assert_eq!(names, is_here && is_named, "seed {seed}: {heard}");
            assert_eq!(heard.contains("vary: origin\r\n"), is_here, "seed {seed}: {heard}");
            assert_eq!(heard.contains("alt-svc: h3=\":1\"\r\n"), is_here, "seed {seed}: {heard}");
        }
    }
}

#[test]
fn what_browsers_ask_before_a_request_is_counted_by_what_they_are_told() {
    let network = Network::new(1, Temper::calm());
    let mut place = Place { server: server(&network), network, requests: Vec::new() };
    let ask = "access-control-request-method: POST\r\n";
    for (listener, head) in [
        (0, ["OPTIONS", ORIGINS[0].0, ask]),
        (0, ["OPTIONS", ORIGINS[1].0, ask]),
        (0, ["OPTIONS", ORIGINS[1].0, ask]),
        // These ask for nothing: no origin, no method, no such method, no rules.
        (0, ["OPTIONS", ORIGINS[2].0, ask]),
        (0, ["OPTIONS", ORIGINS[0].0, ""]),
        (0, ["GET", ORIGINS[0].0, ask]),
        (1, ["OPTIONS", ORIGINS[0].0, ask]),
    ] {
        let client = place.network.connect(listener).expect("it listens");
        let [method, origin, ask] = head;
        let head = format!("{method} /a HTTP/1.1\r\nhost: a\r\n{origin}{ask}\r\n");
        assert_eq!(client.write(head.as_bytes()), head.len());
        place.turn();
    }
    let expected = PreflightStats { allowed: 1, refused: 2 };
    assert_eq!((place.server.stats().preflights, place.requests.len()), (expected, 4));
}
