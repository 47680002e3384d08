//! `grpc.health.v1.Health`: whether the server, or one of its OTLP services, takes requests.
//!
//! Source: the gRPC health checking protocol: the empty name is the whole server; a service that
//! is not known is NOT_FOUND for Check and SERVICE_UNKNOWN for Watch, which goes on.
//!
//! The same truth as the HTTP health check: every receiver core turns, the process does not drain,
//! and on some core a route is open. It says whether requests would be refused just now, and so is
//! for readiness: a process that is full needs time, not a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use forebay_codec::signal::Signal;
use forebay_net::request::Nanos;
use prost::Message;

use super::OTLP_SERVICES;
use crate::control::health::is_turning;
use crate::shard::ShardStats;

/// As the protocol numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Who is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Server,
    Signal(Signal),
}

/// Who takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    server: bool,
    /// By signal, a bit each.
    signals: u8,
}

impl Serving {
    /// What the receiver cores show of themselves.
    pub fn of(shards: &[Arc<ShardStats>], is_draining: bool, now: Nanos) -> Serving {
        if is_draining || !shards.iter().all(|shard| is_turning(shard, now)) {
            return Serving::default();
        }
        let signals = shards.iter().map(|shard| shard.open_signals.load(Ordering::Relaxed));
        Serving {
            server: shards.iter().any(|shard| shard.open.load(Ordering::Relaxed)),
            signals: signals.fold(0, |all, of_one| all | of_one),
        }
    }

    pub fn status(self, subject: Subject) -> Status {
        let serves = match subject {
            Subject::Server => self.server,
            Subject::Signal(signal) => self.signals & (1 << signal.index()) != 0,
        };
        if serves { Status::Serving } else { Status::NotServing }
    }
}

impl Status {
    /// The answer that says so.
    pub fn to_proto(self) -> Vec<u8> {
        HealthCheckResponse { status: self as i32 }.encode_to_vec()
    }
}

/// The name in a request of Check or Watch.
pub fn service(message: &[u8]) -> Result<String, String> {
    let request = HealthCheckRequest::decode(message);
    request.map(|request| request.service).map_err(|error| error.to_string())
}

/// Who is meant by a name, if a listener that takes these signals has it.
pub fn subject(service: &str, signals: &[bool; 4]) -> Option<Subject> {
    if service.is_empty() {
        return Some(Subject::Server);
    }
    let index = OTLP_SERVICES.iter().position(|known| *known == service)?;
    signals[index].then_some(Subject::Signal(Signal::ALL[index]))
}

/// List's answer: everybody who can be asked about.
pub fn list(signals: &[bool; 4], serving: Serving) -> Vec<u8> {
    let names = [""].into_iter().chain(OTLP_SERVICES);
    let entry = |name: &str| {
        let status = serving.status(subject(name, signals)?) as i32;
        Some((name.to_owned(), HealthCheckResponse { status }))
    };
    HealthListResponse { statuses: names.filter_map(entry).collect() }.encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HealthListResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    statuses: std::collections::BTreeMap<String, HealthCheckResponse>,
}
