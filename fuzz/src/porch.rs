//! A door with terms by path, and how the bytes of an input are cut: what the targets that drive a
//! protocol core share.
//!
//! Always
//! - What the door says depends on the request and on how much is kept, never on how it came.
//! - More released than reserved is a panic here.

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::request::{
    Admitted, Answer, Core, Door, Head, Limits, Nanos, Protocol, Refusal, Request, Trouble, Turn,
};
use forebay_net::ring::Key;
use http::{HeaderMap, Method, StatusCode};

pub const HEADER_BYTES_MAX: usize = 1024;

/// Of a path that begins with `/small`.
const SMALL_BODY_BYTES_MAX: usize = 16;
const BODY_BYTES_MAX: usize = 1 << 20;
/// For each request that is let in, whatever its body.
const HEAD_RESERVED_BYTES: usize = 100;

/// What a request is, whoever says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub stream: u32,
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl From<Request> for Told {
    fn from(request: Request) -> Told {
        let Request { id, head, body, .. } = request;
        let Head { method, path, headers, .. } = head;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Told { stream: id.stream, method, path: path.to_string(), headers: map, body }
    }
}

pub struct Porch {
    pub now: Nanos,
    pub limits: Limits,
    pub requests: Vec<Request>,
    pub books: Books,
}

/// What the door keeps.
pub struct Books {
    pub reserved: usize,
    pub abandoned: usize,
    /// Requests refused, those without a readable head too.
    pub refused: usize,
    budget_bytes: usize,
    refuses: bool,
}

impl Porch {
    /// Refuses by path and by budget.
    pub fn strict(budget_bytes: usize, streams_max: usize) -> Porch {
        Porch::new(budget_bytes, streams_max, true)
    }

    /// Lets everything in.
    pub fn open() -> Porch {
        Porch::new(usize::MAX, usize::MAX, false)
    }

    fn new(budget_bytes: usize, streams_max: usize, refuses: bool) -> Porch {
        let limits = Limits {
            header_bytes_max: HEADER_BYTES_MAX,
            connections_max: 10,
            connection_requests_max: streams_max,
            connection_window_bytes: 4 << 20,
            header_timeout: 1_000,
            body_timeout: 3_000,
            idle_timeout: 60_000,
            write_timeout: 3_000,
        };
        let books = Books { reserved: 0, abandoned: 0, refused: 0, budget_bytes, refuses };
        Porch { now: 0, limits, requests: Vec::new(), books }
    }

    pub fn turn(&mut self) -> Turn<'_> {
        Turn {
            now: self.now,
            key: Key { index: 0, generation: 0 },
            listener: 0,
            limits: &self.limits,
            peer: None,
            door: &mut self.books,
            requests: &mut self.requests,
            date: "Thu, 01 Jan 1970 00:00:00 GMT",
        }
    }

    /// Gives back what is kept for a request that is done.
    pub fn settle(&mut self, request: &Request) {
        self.books.release(request.reserved);
    }
}

impl Door for Books {
    fn admit(&mut self, head: &mut Head) -> Result<Admitted, Answer> {
        let body_bytes_max = match &*head.path {
            path if self.refuses && path.starts_with("/no") => {
                self.refused += 1;
                return Err(answer(StatusCode::NOT_FOUND));
            }
            path if self.refuses && path.starts_with("/small") => SMALL_BODY_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        };
        if !self.reserve(HEAD_RESERVED_BYTES) {
            self.refused += 1;
            return Err(answer(StatusCode::SERVICE_UNAVAILABLE));
        }
        Ok(Admitted { body_bytes_max, tag: 0, reserved: HEAD_RESERVED_BYTES, streamed: false })
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        let fits = self.budget_bytes - self.reserved >= bytes;
        self.reserved += if fits { bytes } else { 0 };
        fits
    }

    fn release(&mut self, bytes: usize) {
        self.reserved = self.reserved.checked_sub(bytes).expect("no more than was reserved");
    }

    fn refuse(&mut self, _: &Head, refusal: Refusal) -> Answer {
        self.refused += 1;
        answer(match refusal {
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Overloaded | Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::BodyTimeout | Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Malformed { status, .. } => status,
        })
    }

    fn malformed(&mut self, status: StatusCode, _: &'static str) -> Answer {
        self.refused += 1;
        answer(status)
    }

    fn abandoned(&mut self, _: Protocol) {
        self.abandoned += 1;
    }

    fn trouble(&mut self, _: Protocol, _: Trouble) {}
}

pub fn answer(status: StatusCode) -> Answer {
    let body = Bytes::from_static(b"body");
    Answer { status, headers: Fields::new(), body, trailers: Fields::new() }
}

/// How an input is cut into reads.
#[derive(Clone, Copy, Debug)]
pub enum Cut<'a> {
    Whole,
    Bytewise,
    /// In turn: so many bytes, and again from the first; 0 is all that is left.
    Sizes(&'a [u8]),
}

impl Cut<'_> {
    /// Calls `feed` with each piece.
    pub fn each(self, input: &[u8], mut feed: impl FnMut(&[u8])) {
        let (mut rest, mut nth) = (input, 0);
        while !rest.is_empty() {
            let bytes = match self {
                Cut::Whole | Cut::Sizes([]) => rest.len(),
                Cut::Bytewise => 1,
                Cut::Sizes(sizes) => match sizes[nth % sizes.len()] {
                    0 => rest.len(),
                    size => usize::from(size).min(rest.len()),
                },
            };
            nth += 1;
            let (piece, behind) = rest.split_at(bytes);
            rest = behind;
            feed(piece);
        }
    }
}

/// Takes up to `count_max` sizes off the front of an input: first how many.
pub fn sizes(input: &[u8], count_max: usize) -> Option<(&[u8], &[u8])> {
    let (count, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(*count) % (count_max + 1))
}

/// Ends a connection in the middle of whatever it does: nothing may stay reserved for it.
///
/// # Panics
/// If something does.
pub fn lose(core: &mut dyn Core, porch: &mut Porch) {
    core.handle_lost(&mut porch.turn());
    assert_eq!(porch.books.reserved, 0, "what was reserved is given back");
    assert_eq!(core.in_flight(), 0, "a connection that is gone waits for nothing");
}
