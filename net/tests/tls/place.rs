//! A server with TLS on a quiet network, and clients by rustls that come to it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::request::{
    Admitted, Answer, Door, Head, Limits, Nanos, Protocol, Refusal, Request,
};
use forebay_net::ring::fake::{Client, FakeRing, LineEnd, Network, Temper};
use forebay_net::ring::{Options, Rung};
use forebay_net::server::Server;
use forebay_net::tls::peer::PeerIdentity;
use forebay_net::tls::{Acceptor, Failure};
use http::StatusCode;
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use rustls_pki_types::ServerName;

pub(crate) const SECOND: Nanos = 1_000_000_000;
pub(crate) const HANDSHAKE_TIMEOUT: Nanos = 2 * SECOND;

/// Listener 0 has TLS, listener 1 has none.
pub(crate) struct Place {
    pub(crate) network: Network,
    pub(crate) server: Server<FakeRing>,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) porter: Porter,
    /// Requests that were handed out, and are answered when this is told to.
    pub(crate) requests: Vec<Request>,
    pub(crate) answers_at_once: bool,
}

/// Lets everybody in, and remembers who it was.
#[derive(Default)]
pub(crate) struct Porter {
    pub(crate) seen: Vec<Option<Arc<PeerIdentity>>>,
}

impl Place {
    pub(crate) fn new(config: Arc<ServerConfig>, handshakes_max: usize) -> Place {
        let acceptor = Arc::new(Acceptor::new(config, HANDSHAKE_TIMEOUT));
        Place::with(acceptor, handshakes_max)
    }

    pub(crate) fn with(acceptor: Arc<Acceptor>, handshakes_max: usize) -> Place {
        let network = Network::new(7, Temper::calm());
        let options = Options {
            datagram_buffers: 0,
            entries: 64,
            buffers: 16,
            buffer_bytes: 700,
            highest: Rung::Deferred,
        };
        let sockets = vec![network.listener(), network.listener()];
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
        let server = Server::new(network.ring(&options), limits, sockets)
            .with_tls(vec![Some(acceptor.clone()), None], handshakes_max);
        let (porter, requests) = (Porter::default(), Vec::new());
        Place { network, server, acceptor, porter, requests, answers_at_once: true }
    }

    /// A few turns: enough for all that is on its way to come and be answered.
    pub(crate) fn turn(&mut self) {
        for _ in 0..20 {
            let now = self.network.now();
            self.network.wake_by(now + 1);
            self.server.wait(now, Duration::from_millis(1)).expect("a fake ring never fails");
            let now = self.network.now();
            self.server.poll(now, &mut self.porter, &mut self.requests);
            if self.answers_at_once {
                self.answer();
            }
            self.server.flush(now, &mut self.porter, &mut self.requests);
        }
    }

    pub(crate) fn answer(&mut self) {
        let now = self.network.now();
        for request in std::mem::take(&mut self.requests) {
            let body = format!("{} of {} bytes", request.head.path, request.body.len());
            let answer = answer(StatusCode::OK, body);
            self.server.answer(request.id, answer, now, &mut self.porter, &mut self.requests);
        }
    }

    /// Lets time go by.
    pub(crate) fn wait(&mut self, nanos: Nanos) {
        let until = self.network.now() + nanos;
        while self.network.now() < until {
            self.network.wake_by(until);
            let now = self.network.now();
            let left = Duration::from_nanos(until - now);
            self.server.wait(now, left).expect("a fake ring never fails");
            self.server.poll(self.network.now(), &mut self.porter, &mut self.requests);
        }
        self.turn();
    }

    pub(crate) fn failed(&self, failure: Failure) -> u64 {
        self.server.stats().tls.failed[failure as usize]
    }

    pub(crate) fn visit(&mut self, config: &Arc<ClientConfig>, name: &str) -> Visitor {
        let client = self.network.connect(0).expect("it listens");
        let name = ServerName::try_from(name.to_owned()).expect("a proper name");
        let tls = ClientConnection::new(config.clone(), name).expect("a proper configuration");
        Visitor { client, tls, error: None, heard: Vec::new() }
    }

    /// One whole visit: what was heard, or why it came to nothing.
    pub(crate) fn ask(&mut self, config: &Arc<ClientConfig>) -> Result<String, rustls::Error> {
        let mut visitor = self.visit(config, "localhost");
        visitor.say(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
        visitor.live(self);
        match visitor.error {
            Some(error) => Err(error),
            None => Ok(String::from_utf8(visitor.heard).expect("text")),
        }
    }
}

impl Door for Porter {
    fn admit(&mut self, head: &mut Head) -> Result<Admitted, Answer> {
        self.seen.push(head.peer.clone());
        Ok(Admitted { body_bytes_max: 1 << 20, tag: 0, reserved: 0, streamed: false })
    }

    fn reserve(&mut self, _: usize) -> bool {
        true
    }

    fn release(&mut self, _: usize) {}

    fn refuse(&mut self, _: &Head, _: Refusal) -> Answer {
        answer(StatusCode::SERVICE_UNAVAILABLE, String::new())
    }

    fn malformed(&mut self, status: StatusCode, reason: &'static str) -> Answer {
        answer(status, reason.to_owned())
    }

    fn abandoned(&mut self, _: Protocol) {}
}

fn answer(status: StatusCode, body: String) -> Answer {
    Answer { status, headers: Fields::new(), body: Bytes::from(body), trailers: Fields::new() }
}

/// A client with TLS.
pub(crate) struct Visitor {
    pub(crate) client: Client,
    pub(crate) tls: ClientConnection,
    pub(crate) error: Option<rustls::Error>,
    pub(crate) heard: Vec<u8>,
}

impl Visitor {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("it fits");
    }

    /// Goes on until nothing more comes of it.
    pub(crate) fn live(&mut self, place: &mut Place) {
        for _ in 0..8 {
            self.push();
            place.turn();
            self.pull();
        }
    }

    pub(crate) fn push(&mut self) {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).expect("a vector takes all");
        }
        if !sealed.is_empty() && self.client.end().is_none() {
            assert_eq!(self.client.write(&sealed), sealed.len(), "there is room");
        }
    }

    pub(crate) fn pull(&mut self) {
        let sealed = self.client.read(1 << 20);
        let mut rest = &sealed[..];
        while !rest.is_empty() && self.error.is_none() {
            self.tls.read_tls(&mut rest).expect("a slice can be read");
            self.error = self.tls.process_new_packets().err();
            let _ = self.tls.reader().read_to_end(&mut self.heard);
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// Whether the server said that nothing follows, and then ended the connection.
    pub(crate) fn was_told_goodbye(&mut self) -> bool {
        let heard_it = matches!(self.tls.reader().read(&mut [0; 1]), Ok(0));
        heard_it && self.client.end() == Some(LineEnd::Finished)
    }
}
