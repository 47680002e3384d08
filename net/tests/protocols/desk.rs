//! A door and a turn for protocol cores under test.

use std::sync::Arc;

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::request::{
    Admitted, Answer, Door, Head, Limits, Nanos, Protocol, Refusal, Request, Trouble, Turn,
};
use forebay_net::ring::Key;
use forebay_net::tls::peer::PeerIdentity;
use http::{HeaderMap, StatusCode};

pub(crate) const LIMITS: Limits = Limits {
    header_bytes_max: 4096,
    connections_max: 10,
    connection_requests_max: 32,
    connection_window_bytes: 4 << 20,
    header_timeout: 1_000,
    body_timeout: 3_000,
    idle_timeout: 60_000,
    write_timeout: 3_000,
};

/// The largest body that this door lets in.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

pub(crate) struct Desk {
    pub(crate) now: Nanos,
    pub(crate) limits: Limits,
    pub(crate) requests: Vec<Request>,
    /// Who the client proved to be.
    pub(crate) peer: Option<Arc<PeerIdentity>>,
    books: Books,
}

/// What the door keeps.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) refuse: bool,
    /// Requests are streamed.
    pub(crate) streams: bool,
    pub(crate) reserved: usize,
    /// How often something was.
    pub(crate) reservations: usize,
    pub(crate) abandoned: usize,
    /// Of requests that had been let in.
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) troubles: Vec<Trouble>,
}

impl std::ops::Deref for Desk {
    type Target = Books;

    fn deref(&self) -> &Books {
        &self.books
    }
}

impl std::ops::DerefMut for Desk {
    fn deref_mut(&mut self) -> &mut Books {
        &mut self.books
    }
}

impl Desk {
    pub(crate) fn new() -> Desk {
        let (requests, books) = (Vec::new(), Books::default());
        Desk { now: 0, limits: LIMITS, requests, peer: None, books }
    }

    pub(crate) fn turn(&mut self) -> Turn<'_> {
        Turn {
            now: self.now,
            key: Key { index: 0, generation: 0 },
            listener: 0,
            limits: &self.limits,
            peer: self.peer.clone(),
            door: &mut self.books,
            requests: &mut self.requests,
            date: "Thu, 01 Jan 1970 00:00:00 GMT",
        }
    }
}

impl Door for Books {
    fn admit(&mut self, _: &mut Head) -> Result<Admitted, Answer> {
        match self.refuse {
            true => Err(answer(StatusCode::SERVICE_UNAVAILABLE)),
            false => Ok(Admitted {
                body_bytes_max: BODY_BYTES_MAX,
                streamed: self.streams,
                tag: 0,
                reserved: 0,
            }),
        }
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.reserved += bytes;
        self.reservations += 1;
        true
    }

    fn release(&mut self, bytes: usize) {
        assert!(bytes <= self.reserved, "more was released than was reserved");
        self.reserved -= bytes;
    }

    fn refuse(&mut self, _: &Head, refusal: Refusal) -> Answer {
        self.refusals.push(refusal);
        answer(match refusal {
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Overloaded | Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::BodyTimeout | Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Malformed { status, .. } => status,
        })
    }

    fn malformed(&mut self, status: StatusCode, _: &'static str) -> Answer {
        answer(status)
    }

    fn abandoned(&mut self, _: Protocol) {
        self.abandoned += 1;
    }

    fn trouble(&mut self, _: Protocol, trouble: Trouble) {
        self.troubles.push(trouble);
    }
}

pub(crate) fn ok() -> Answer {
    answer(StatusCode::OK)
}

pub(crate) fn answer(status: StatusCode) -> Answer {
    Answer { status, headers: Fields::new(), body: Bytes::new(), trailers: Fields::new() }
}

/// Fields in whatever order they came.
pub(crate) fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields.clone() {
        map.append(name, value);
    }
    map
}

/// xorshift64 from a seed.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
