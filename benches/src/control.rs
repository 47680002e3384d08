//! How `run` talks to the load, sink and floor that it starts: a line of JSON each way.
//!
//! A child says [`Event::Ready`] first. Its standard input ends when `run` does, whatever the
//! reason, and then the child ends too: nothing is left behind.

use std::io::{BufRead, Write};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::account::{Claim, Verdict};
use crate::result::Latency;

/// What a child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Load: begin to send.
    Start,
    /// Load: count latencies from here on; say how far it is.
    Begin,
    /// Load: stop counting latencies; say how far it is.
    End,
    /// Everybody: stop, and say what there was. The load waits for answers first.
    Stop,
    /// Sink: compare what arrived with this.
    Audit { claims: Vec<Claim> },
}

/// What a child says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Ready(Ready),
    Progress(Progress),
    Loaded(Box<Loaded>),
    Sunk(Sunk),
    Audited { verdict: Verdict, sunk: Sunk },
}

/// Where a child listens, and what the load will send.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub raw: Option<SocketAddr>,
    /// Mean bytes of a request's body.
    pub body_bytes: f64,
}

/// How far the load is, since it started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    pub sent_requests: u64,
    pub ok_requests: u64,
    pub ok_items: u64,
    pub refused_requests: u64,
    pub failed_requests: u64,
    /// Microseconds that the load itself was late, at worst, when it sent; only in open mode.
    pub late_us_max: u64,
}

/// The load's last word.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Loaded {
    pub progress: Progress,
    pub claims: Vec<Claim>,
    pub latency_us: Latency,
    /// Latencies that were counted.
    pub latencies: u64,
    /// What went wrong, with counts, for people.
    pub problems: Vec<String>,
    /// Bytes written to all connections.
    pub sent_bytes: u64,
    pub connections_broken: u64,
}

/// What the sink took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sunk {
    pub requests: u64,
    pub items: u64,
    /// Of messages after decompression, or raw bytes.
    pub bytes: u64,
    /// Requests that could not be read.
    pub unreadable: u64,
    /// Items that it answered and did not count, or counted twice, because it was told to.
    pub dropped_items: u64,
    pub doubled_items: u64,
    pub refused_requests: u64,
}

/// A child's side: says `event`.
pub fn say(event: &Event) {
    let line = serde_json::to_string(event).expect("events are plain data");
    let mut stdout = std::io::stdout().lock();
    // If nobody listens any more, standard input has ended as well, and so do we.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// A child's side: the orders, until `run` is gone.
pub fn orders() -> impl Iterator<Item = Order> {
    std::io::stdin().lock().lines().map_while(Result::ok).filter_map(|line| {
        let order = serde_json::from_str(&line);
        order.inspect_err(|error| eprintln!("an order that means nothing: {error}: {line}")).ok()
    })
}
