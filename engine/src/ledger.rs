//! The ledger: where every item is, at every instant.
//!
//! `received = refused(reason) + accepted` for each receiver, transport and signal, and for each
//! pipeline and destination `accepted = filtered + delivered + dropped(reason) + in flight`, where
//! what is filtered was dropped on purpose, by a processor of the pipeline. Each shard writes
//! rows of its own, so that counting needs no lock; whoever reads adds them up. While items move
//! a reader may see a row between two of its counts; at rest the sums are exact.
//!
//! The in-flight gauges are kept by the batches themselves, not derived from the other counts: so
//! [`Totals::is_balanced`] can fail, and would tell of an item that was lost.

use std::sync::atomic::{AtomicU64, Ordering};

use forebay_codec::signal::Signal;
use forebay_exporters::batch::DropReason;
use forebay_net::request::Trouble;

use crate::config::plan::Plan;

/// How a receiver was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Http,
}

impl Transport {
    pub const ALL: [Transport; 2] = [Transport::Grpc, Transport::Http];

    /// The label's value in the Collector's metrics.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Grpc => "grpc",
            Transport::Http => "http",
        }
    }
}

/// Why items that came were not taken. The client was told so, and still has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// The memory budget of the receiver core has no room.
    Memory,
    /// A destination's queue has no room.
    QueueFull,
    /// The process is about to stop.
    Draining,
    /// More requests in flight than `engine.limits.requests_max`.
    Requests,
    /// Text that is not UTF-8, where `engine.invalid_utf8` is `refuse_item`: a partial success.
    InvalidUtf8,
}

impl RefuseReason {
    pub const ALL: [RefuseReason; 5] = [
        RefuseReason::Memory,
        RefuseReason::QueueFull,
        RefuseReason::Draining,
        RefuseReason::Requests,
        RefuseReason::InvalidUtf8,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RefuseReason::Memory => "memory_budget",
            RefuseReason::QueueFull => "queue_full",
            RefuseReason::Draining => "draining",
            RefuseReason::Requests => "requests_in_flight",
            RefuseReason::InvalidUtf8 => "invalid_utf8",
        }
    }
}

/// How requests ended, whatever they held. A request that is refused before it is read has no
/// items that anybody could count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// Answered with success.
    Ok,
    /// Refused for now: come back later.
    Overloaded,
    /// Not OTLP, or not well-formed.
    Invalid,
    TooLarge,
    /// A path, method or content type that nobody serves.
    Unserved,
    /// A stalled or malformed header or body, answered by the protocol itself.
    Malformed,
    /// The client left before its request was complete.
    Abandoned,
    /// Accepted, but a destination refused it for good (`delivered` acks).
    Failed,
}

impl RequestEnd {
    pub const ALL: [RequestEnd; 8] = [
        RequestEnd::Ok,
        RequestEnd::Overloaded,
        RequestEnd::Invalid,
        RequestEnd::TooLarge,
        RequestEnd::Unserved,
        RequestEnd::Malformed,
        RequestEnd::Abandoned,
        RequestEnd::Failed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RequestEnd::Ok => "ok",
            RequestEnd::Overloaded => "overloaded",
            RequestEnd::Invalid => "invalid",
            RequestEnd::TooLarge => "too_large",
            RequestEnd::Unserved => "unserved",
            RequestEnd::Malformed => "malformed",
            RequestEnd::Abandoned => "abandoned",
            RequestEnd::Failed => "failed",
        }
    }
}

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    pub fn subtract(&self, n: u64) {
        let before = self.0.load(Ordering::Relaxed);
        assert!(before >= n, "more left than had come");
        self.0.store(before - n, Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One receiver, transport and signal, on one shard.
#[derive(Debug, Default)]
pub struct DoorRow {
    pub received_items: Count,
    pub accepted_items: Count,
    pub refused_items: [Count; RefuseReason::ALL.len()],
    pub requests: [Count; RequestEnd::ALL.len()],
    /// Texts that were not UTF-8, and in which bad bytes were replaced.
    pub replaced_texts: Count,
}

/// One pipeline and destination, on one shard.
#[derive(Debug, Default)]
pub struct RouteRow {
    pub accepted_items: Count,
    pub delivered_items: Count,
    pub dropped_items: [Count; DropReason::ALL.len()],
    pub in_flight_items: Count,
}

/// One processor in one pipeline, on one shard.
#[derive(Debug, Default)]
pub struct ProcessorRow {
    pub incoming_items: Count,
    /// Dropped on purpose.
    pub filtered_items: Count,
}

/// The rows that one shard writes.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardLedger {
    doors: Vec<DoorRow>,
    routes: Vec<Vec<RouteRow>>,
    processors: Vec<Vec<ProcessorRow>>,
    /// Requests that ended before anybody knew which signal they were for.
    pub unrouted: [Count; RequestEnd::ALL.len()],
    /// What HTTP/2 clients did that cost them a stream or their connection.
    pub troubles: [Count; Trouble::ALL.len()],
}

impl ShardLedger {
    fn new(plan: &Plan) -> ShardLedger {
        let receivers = receivers(plan).len();
        let doors = receivers * Transport::ALL.len() * Signal::ALL.len();
        ShardLedger {
            doors: (0..doors).map(|_| DoorRow::default()).collect(),
            routes: plan
                .pipelines
                .iter()
                .map(|pipeline| pipeline.destinations.iter().map(|_| RouteRow::default()).collect())
                .collect(),
            processors: plan
                .pipelines
                .iter()
                .map(|pipeline| {
                    pipeline.processors.iter().map(|_| ProcessorRow::default()).collect()
                })
                .collect(),
            unrouted: Default::default(),
            troubles: Default::default(),
        }
    }

    pub fn door(&self, receiver: u16, transport: Transport, signal: Signal) -> &DoorRow {
        let transports = Transport::ALL.len();
        let row = (usize::from(receiver) * transports + transport as usize) * Signal::ALL.len();
        &self.doors[row + signal.index()]
    }

    /// `place`: the destination's place in the pipeline.
    pub fn route(&self, pipeline: usize, place: usize) -> &RouteRow {
        &self.routes[pipeline][place]
    }

    /// `place`: the processor's place in the pipeline.
    pub fn processor(&self, pipeline: usize, place: usize) -> &ProcessorRow {
        &self.processors[pipeline][place]
    }

    pub fn routes(&self, pipeline: usize) -> &[RouteRow] {
        &self.routes[pipeline]
    }
}

/// All shards' rows, and what they are called.
#[derive(Debug)]
pub struct Ledger {
    pub shards: Vec<ShardLedger>,
    /// Receivers' names, by their index in the plan.
    pub receivers: Vec<String>,
}

/// The sums of one receiver, transport and signal.
#[derive(Clone, Debug)]
pub struct DoorTotal {
    pub receiver: String,
    pub transport: Transport,
    pub signal: Signal,
    pub received_items: u64,
    pub accepted_items: u64,
    pub refused_items: [u64; RefuseReason::ALL.len()],
    pub requests: [u64; RequestEnd::ALL.len()],
    pub replaced_texts: u64,
}

/// The sums of one pipeline and destination.
#[derive(Clone, Debug)]
pub struct RouteTotal {
    pub pipeline: String,
    pub signal: Signal,
    pub destination: String,
    pub accepted_items: u64,
    /// Dropped on purpose, by all of the pipeline's processors.
    pub filtered_items: u64,
    pub delivered_items: u64,
    pub dropped_items: [u64; DropReason::ALL.len()],
    pub in_flight_items: u64,
}

/// The sums of one processor in one pipeline.
#[derive(Clone, Debug)]
pub struct ProcessorTotal {
    pub pipeline: String,
    pub signal: Signal,
    pub processor: String,
    /// Its type: `filter`, `attributes`.
    pub kind: String,
    pub incoming_items: u64,
    pub filtered_items: u64,
}

#[derive(Clone, Debug)]
pub struct Totals {
    pub doors: Vec<DoorTotal>,
    pub processors: Vec<ProcessorTotal>,
    pub routes: Vec<RouteTotal>,
    pub unrouted: [u64; RequestEnd::ALL.len()],
    pub troubles: [u64; Trouble::ALL.len()],
    balanced_pipelines: bool,
}

impl Ledger {
    pub fn new(plan: &Plan, shards: usize) -> Ledger {
        Ledger {
            shards: (0..shards).map(|_| ShardLedger::new(plan)).collect(),
            receivers: receivers(plan),
        }
    }

    pub fn totals(&self, plan: &Plan) -> Totals {
        let doors = self.door_totals();
        let processors = self.processor_totals(plan);
        let routes = self.route_totals(plan, &processors);
        Totals {
            balanced_pipelines: self.pipelines_took_what_doors_accepted(plan, &doors, &routes),
            unrouted: sum_all(self.shards.iter().map(|shard| &shard.unrouted)),
            troubles: sum_all(self.shards.iter().map(|shard| &shard.troubles)),
            doors,
            processors,
            routes,
        }
    }

    fn door_totals(&self) -> Vec<DoorTotal> {
        let mut totals = Vec::new();
        for (receiver, name) in self.receivers.iter().enumerate() {
            for transport in Transport::ALL {
                for signal in Signal::ALL {
                    let rows: Vec<&DoorRow> = self
                        .shards
                        .iter()
                        .map(|shard| shard.door(receiver as u16, transport, signal))
                        .collect();
                    totals.push(DoorTotal {
                        receiver: name.clone(),
                        transport,
                        signal,
                        received_items: rows.iter().map(|row| row.received_items.read()).sum(),
                        accepted_items: rows.iter().map(|row| row.accepted_items.read()).sum(),
                        refused_items: sum_all(rows.iter().map(|row| &row.refused_items)),
                        requests: sum_all(rows.iter().map(|row| &row.requests)),
                        replaced_texts: rows.iter().map(|row| row.replaced_texts.read()).sum(),
                    });
                }
            }
        }
        totals
    }

    fn processor_totals(&self, plan: &Plan) -> Vec<ProcessorTotal> {
        let mut totals = Vec::new();
        for (index, pipeline) in plan.pipelines.iter().enumerate() {
            for (place, processor) in pipeline.processors.iter().enumerate() {
                let rows: Vec<&ProcessorRow> =
                    self.shards.iter().map(|shard| shard.processor(index, place)).collect();
                totals.push(ProcessorTotal {
                    pipeline: pipeline.name.clone(),
                    signal: pipeline.signal,
                    processor: processor.name.clone(),
                    kind: processor.kind().to_owned(),
                    incoming_items: rows.iter().map(|row| row.incoming_items.read()).sum(),
                    filtered_items: rows.iter().map(|row| row.filtered_items.read()).sum(),
                });
            }
        }
        totals
    }

    fn route_totals(&self, plan: &Plan, processors: &[ProcessorTotal]) -> Vec<RouteTotal> {
        let mut totals = Vec::new();
        for (index, pipeline) in plan.pipelines.iter().enumerate() {
            let own = processors.iter().filter(|processor| processor.pipeline == pipeline.name);
            let filtered_items: u64 = own.map(|processor| processor.filtered_items).sum();
            for (place, destination) in pipeline.destinations.iter().enumerate() {
                let rows: Vec<&RouteRow> =
                    self.shards.iter().map(|shard| shard.route(index, place)).collect();
                totals.push(RouteTotal {
                    pipeline: pipeline.name.clone(),
                    signal: pipeline.signal,
                    destination: plan.destinations[usize::from(*destination)].name.clone(),
                    accepted_items: rows.iter().map(|row| row.accepted_items.read()).sum(),
                    filtered_items,
                    delivered_items: rows.iter().map(|row| row.delivered_items.read()).sum(),
                    dropped_items: sum_all(rows.iter().map(|row| &row.dropped_items)),
                    in_flight_items: rows.iter().map(|row| row.in_flight_items.read()).sum(),
                });
            }
        }
        totals
    }

    fn pipelines_took_what_doors_accepted(
        &self,
        plan: &Plan,
        doors: &[DoorTotal],
        routes: &[RouteTotal],
    ) -> bool {
        plan.pipelines.iter().all(|pipeline| {
            let accepted: u64 = doors
                .iter()
                .filter(|door| door.signal == pipeline.signal)
                .filter(|door| {
                    let names = |r: &u16| self.receivers[usize::from(*r)] == door.receiver;
                    pipeline.receivers.iter().any(names)
                })
                .map(|door| door.accepted_items)
                .sum();
            routes
                .iter()
                .filter(|route| route.pipeline == pipeline.name)
                .all(|route| route.accepted_items == accepted)
        })
    }
}

impl Totals {
    /// Whether every item that came is refused, filtered, delivered, dropped for a reason, or in
    /// flight.
    pub fn is_balanced(&self) -> bool {
        let doors = self.doors.iter().all(|door| {
            door.received_items == door.accepted_items + door.refused_items.iter().sum::<u64>()
        });
        let routes = self.routes.iter().all(|route| {
            let dropped: u64 = route.dropped_items.iter().sum();
            let settled = route.filtered_items + route.delivered_items + dropped;
            route.accepted_items == settled + route.in_flight_items
        });
        doors && routes && self.balanced_pipelines
    }

    pub fn in_flight_items(&self) -> u64 {
        self.routes.iter().map(|route| route.in_flight_items).sum()
    }

    /// Dropped on purpose, each item once for each pipeline that filtered it.
    pub fn filtered_items(&self) -> u64 {
        self.processors.iter().map(|processor| processor.filtered_items).sum()
    }

    pub fn dropped_items(&self) -> u64 {
        self.routes.iter().flat_map(|route| route.dropped_items).sum()
    }

    /// For a person at a terminal: the sums, and the routes that anything took.
    pub fn to_text(&self) -> String {
        let sum = |of: fn(&DoorTotal) -> u64| self.doors.iter().map(of).sum::<u64>();
        let verdict = if self.is_balanced() { "balanced" } else { "NOT BALANCED" };
        let mut text = format!(
            "ledger: {verdict}\n  received {} = refused {} + accepted {}\n",
            sum(|door| door.received_items),
            sum(|door| door.refused_items.iter().sum()),
            sum(|door| door.accepted_items),
        );
        for route in self.routes.iter().filter(|route| route.accepted_items > 0) {
            text += &format!(
                "  {} -> {}: accepted {} = filtered {} + delivered {} + dropped {} \
                 + in flight {}\n",
                route.pipeline,
                route.destination,
                route.accepted_items,
                route.filtered_items,
                route.delivered_items,
                route.dropped_items.iter().sum::<u64>(),
                route.in_flight_items,
            );
        }
        text
    }

    /// One line of JSON: the process's last word, and `GET /ledger`.
    pub fn to_json(&self) -> String {
        let doors: Vec<_> = self
            .doors
            .iter()
            .filter(|door| door.received_items > 0 || door.requests.iter().any(|n| *n > 0))
            .map(|door| {
                serde_json::json!({
                    "receiver": door.receiver,
                    "transport": door.transport.name(),
                    "signal": door.signal.name(),
                    "received_items": door.received_items,
                    "accepted_items": door.accepted_items,
                    "refused_items": named(&door.refused_items, RefuseReason::ALL.map(RefuseReason::name)),
                    "requests": named(&door.requests, RequestEnd::ALL.map(RequestEnd::name)),
                })
            })
            .collect();
        let routes: Vec<_> = self
            .routes
            .iter()
            .map(|route| {
                serde_json::json!({
                    "pipeline": route.pipeline,
                    "exporter": route.destination,
                    "accepted_items": route.accepted_items,
                    "filtered_items": route.filtered_items,
                    "delivered_items": route.delivered_items,
                    "dropped_items": named(&route.dropped_items, DropReason::ALL.map(DropReason::name)),
                    "in_flight_items": route.in_flight_items,
                })
            })
            .collect();
        let processors: Vec<_> = self
            .processors
            .iter()
            .map(|processor| {
                serde_json::json!({
                    "pipeline": processor.pipeline,
                    "processor": processor.processor,
                    "incoming_items": processor.incoming_items,
                    "filtered_items": processor.filtered_items,
                })
            })
            .collect();
        let sum = |of: fn(&DoorTotal) -> u64| self.doors.iter().map(of).sum::<u64>();
        serde_json::json!({"ledger": {
            "balanced": self.is_balanced(),
            "received_items": sum(|door| door.received_items),
            "refused_items": sum(|door| door.refused_items.iter().sum()),
            "accepted_items": sum(|door| door.accepted_items),
            "filtered_items": self.filtered_items(),
            "delivered_items": self.routes.iter().map(|r| r.delivered_items).sum::<u64>(),
            "dropped_items": self.dropped_items(),
            "in_flight_items": self.in_flight_items(),
            "unrouted_requests": named(&self.unrouted, RequestEnd::ALL.map(RequestEnd::name)),
            "receivers": doors,
            "processors": processors,
            "routes": routes,
        }})
        .to_string()
    }
}

/// Receivers' names in the order of their indices.
fn receivers(plan: &Plan) -> Vec<String> {
    let count = plan.listeners.iter().map(|l| usize::from(l.receiver) + 1).max().unwrap_or(0);
    let mut names = vec![String::new(); count];
    for listener in &plan.listeners {
        names[usize::from(listener.receiver)].clone_from(&listener.receiver_name);
    }
    names
}

fn sum_all<'a, const N: usize>(rows: impl Iterator<Item = &'a [Count; N]>) -> [u64; N] {
    let mut sums = [0; N];
    for row in rows {
        for (sum, count) in sums.iter_mut().zip(row) {
            *sum += count.read();
        }
    }
    sums
}

/// The counts that are not zero, by name.
fn named<const N: usize>(counts: &[u64; N], names: [&str; N]) -> serde_json::Value {
    names
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| ((*name).to_owned(), serde_json::Value::from(*count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
