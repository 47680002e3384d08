//! One connection of the load: requests in, answers out, whatever the protocol. Sans-I/O.
//!
//! Written for one purpose: to cost less than whatever it drives. Request heads are made once,
//! bodies are copied once, answers are recognised by their bytes.
//!
//! Always: each request that began ends exactly once, in an [`Answer`] or in [`Client::abandon`].

mod h1;
mod raw;

pub use self::raw::ANSWER_BYTES;
use forebay_codec::compress::Encoding;
use forebay_codec::signal::Signal;
use forebay_codec::wire;

use crate::h2;

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Http1,
    /// OTLP/HTTP over HTTP/2: with prior knowledge, or as TLS has agreed.
    Http2,
    /// OTLP/HTTP over HTTP/3: spoken by [`crate::h3`], over streams instead of bytes.
    Http3,
    /// To the floor: this many bytes in, [`raw::ANSWER_BYTES`] out, nothing to parse.
    Raw {
        request_bytes: usize,
    },
}

/// What every request of a connection says in its head.
#[derive(Clone, Debug)]
pub struct Heading {
    pub transport: Transport,
    pub signal: Signal,
    pub encoding: Encoding,
    pub authority: String,
    /// Requests in flight at most.
    pub streams: usize,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Ok,
    /// To be sent again later: UNAVAILABLE, 429, 502, 503, 504. Nothing of it was taken.
    Refused,
    /// Success, but some items were rejected.
    Partial,
    Grpc(u32),
    Http(u16),
    /// The stream was reset: nobody knows what became of the request.
    Reset(u32),
}

/// The end of the request that [`Client::begin`] was given `ticket` for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub ticket: u32,
    pub outcome: Outcome,
}

pub enum Client {
    H1(h1::Client),
    H2(Box<h2::client::Client>),
    Raw(raw::Client),
}

impl Client {
    /// `out` gets what a client says first.
    pub fn new(heading: &Heading, out: &mut Vec<u8>) -> Client {
        match heading.transport {
            Transport::Http1 => Client::H1(h1::Client::new(heading)),
            Transport::Raw { request_bytes } => {
                Client::Raw(raw::Client::new(request_bytes, heading.streams))
            }
            Transport::Http3 => unreachable!("a load over HTTP/3 has streams, and no bytes"),
            Transport::Grpc | Transport::Http2 => {
                Client::H2(Box::new(h2::client::Client::new(heading, out)))
            }
        }
    }

    /// Whether one more request may begin now.
    pub fn has_room(&self) -> bool {
        match self {
            Client::H1(client) => client.has_room(),
            Client::H2(client) => client.has_room(),
            Client::Raw(client) => client.has_room(),
        }
    }

    /// Writes a request, or as much of it as the peer takes now. Only if it has room.
    pub fn begin(&mut self, ticket: u32, body: &[u8], out: &mut Vec<u8>) {
        match self {
            Client::H1(client) => client.begin(ticket, body, out),
            Client::H2(client) => client.begin(ticket, body, out),
            Client::Raw(client) => client.begin(ticket, body, out),
        }
    }

    /// Takes bytes from the peer; what they need said at once goes to `out`. An error ends the
    /// connection.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), String> {
        match self {
            Client::H1(client) => client.handle(bytes, answers),
            Client::H2(client) => client.handle(bytes, out, answers),
            Client::Raw(client) => client.handle(bytes, answers),
        }
    }

    /// The tickets of all requests without an answer; the connection is over.
    pub fn abandon(&mut self) -> Vec<u32> {
        match self {
            Client::H1(client) => client.abandon(),
            Client::H2(client) => client.abandon(),
            Client::Raw(client) => client.abandon(),
        }
    }
}

/// Where a signal is posted to.
pub fn path(transport: Transport, signal: Signal) -> &'static str {
    const GRPC: [&str; 4] = [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    ];
    const HTTP: [&str; 4] = ["/v1/traces", "/v1/metrics", "/v1/logs", "/v1development/profiles"];
    match transport {
        Transport::Grpc => GRPC[signal.index()],
        _ => HTTP[signal.index()],
    }
}

/// What a status and the message that came with it mean (OTLP 1.11, "Failures").
pub fn outcome(status: u16, grpc_status: Option<u32>, message: &[u8]) -> Outcome {
    match (status, grpc_status) {
        (200, Some(14)) | (429 | 502 | 503 | 504, _) => Outcome::Refused,
        (200, Some(0) | None) if rejects_any(message) => Outcome::Partial,
        (200, Some(0) | None) => Outcome::Ok,
        (200, Some(code)) => Outcome::Grpc(code),
        (status, _) => Outcome::Http(status),
    }
}

/// Whether an Export response has a `partial_success` (1) with a rejected count (1).
fn rejects_any(message: &[u8]) -> bool {
    let partial = wire::Fields::new(message, 0..message.len()).find(|field| field.number == 1);
    partial.is_some_and(|partial| {
        let mut fields = wire::Fields::new(message, partial.value);
        fields.any(|field| field.number == 1 && wire::varint_of(&message[field.value]) > 0)
    })
}

#[cfg(test)]
mod tests;
