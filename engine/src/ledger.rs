//! The ledger: where every item is, at every instant.
//!
//! `received = refused(reason) + accepted` for each receiver, transport and signal, and for each
//! pipeline and destination `accepted + taken over = filtered + delivered + dropped(reason) +
//! passed on + in flight`, where what is filtered was dropped on purpose, by a processor of the
//! pipeline. What comes to an output is entered for its first destination; another that takes it
//! takes it over from there. What is routed to another pipeline is accepted there. Each shard
//! writes rows of its own, so that counting needs no lock; whoever reads adds them up. While items
//! move a reader may see a row between two of its counts; at rest the sums are exact.
//!
//! The in-flight gauges are kept by the batches themselves, not derived from the other counts: so
//! [`Totals::is_balanced`] can fail, and would tell of an item that was lost.

use std::sync::atomic::{AtomicU64, Ordering};

use forebay_codec::signal::Signal;
use forebay_net::request::{Protocol, Trouble};

use crate::config::plan::{Output, Pipeline, Plan};

mod names;
mod print;

pub use names::{
    LOSSES, LateBody, MIRROR_FULL, PassReason, RefuseReason, RequestEnd, Transport, loss_names,
};

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
    /// Requests sent away for now, whether or not their items were counted by then.
    pub refused_requests: [Count; RefuseReason::ALL.len()],
    /// Texts that were not UTF-8, and in which bad bytes were replaced.
    pub replaced_texts: Count,
}

/// One pipeline, on one shard.
#[derive(Debug, Default)]
pub struct PipelineRow {
    /// From receivers, and from routings.
    pub accepted_items: Count,
    /// By routing.
    pub routings: Vec<RoutingRow>,
}

/// One routing of a pipeline, on one shard.
#[derive(Debug, Default)]
pub struct RoutingRow {
    /// By row; the last is the default's.
    pub routed_items: Vec<Count>,
    /// What no row had, and no default took.
    pub unrouted_items: Count,
}

/// One pipeline and destination, on one shard.
#[derive(Debug, Default)]
pub struct RouteRow {
    pub accepted_items: Count,
    pub taken_over_items: Count,
    pub delivered_items: Count,
    pub dropped_items: [Count; LOSSES],
    pub passed_on_items: [Count; PassReason::ALL.len()],
    pub in_flight_items: Count,
}

impl RouteRow {
    /// Items under way here go on to `other`.
    pub fn pass_on(&self, other: &RouteRow, items: u64, why: PassReason) {
        self.in_flight_items.subtract(items);
        self.passed_on_items[why as usize].add(items);
        other.taken_over_items.add(items);
        other.in_flight_items.add(items);
    }

    /// Items under way are lost.
    pub fn lose(&self, items: u64, loss: usize) {
        self.in_flight_items.subtract(items);
        self.dropped_items[loss].add(items);
    }
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
    pipelines: Vec<PipelineRow>,
    routes: Vec<Vec<RouteRow>>,
    processors: Vec<Vec<ProcessorRow>>,
    /// Requests that ended before anybody knew which signal they were for.
    pub unrouted: [Count; RequestEnd::ALL.len()],
    /// What HTTP/2 clients did that cost them a stream or their connection.
    pub http2_troubles: [Count; Trouble::ALL.len()],
    pub http3_troubles: [Count; Trouble::ALL.len()],
    /// Requests that were refused because too little of their bodies came, by their protocols.
    pub late_bodies: [[Count; LateBody::ALL.len()]; Protocol::ALL.len()],
}

impl ShardLedger {
    fn new(plan: &Plan) -> ShardLedger {
        let receivers = receivers(plan).len();
        let doors = receivers * Transport::ALL.len() * Signal::ALL.len();
        ShardLedger {
            doors: (0..doors).map(|_| DoorRow::default()).collect(),
            pipelines: plan.pipelines.iter().map(pipeline_row).collect(),
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
            http2_troubles: Default::default(),
            http3_troubles: Default::default(),
            late_bodies: Default::default(),
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

    pub fn pipeline(&self, pipeline: usize) -> &PipelineRow {
        &self.pipelines[pipeline]
    }
}

fn pipeline_row(pipeline: &Pipeline) -> PipelineRow {
    let routing = |routing: &crate::config::plan::Routing| RoutingRow {
        routed_items: (0..=routing.rows.len()).map(|_| Count::default()).collect(),
        unrouted_items: Count::default(),
    };
    let routings = pipeline.routings.iter().map(routing).collect();
    PipelineRow { accepted_items: Count::default(), routings }
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
    pub refused_requests: [u64; RefuseReason::ALL.len()],
    pub replaced_texts: u64,
}

/// The sums of one pipeline and destination.
#[derive(Clone, Debug)]
pub struct RouteTotal {
    pub pipeline: String,
    pub signal: Signal,
    pub destination: String,
    pub accepted_items: u64,
    pub taken_over_items: u64,
    /// Dropped on purpose, by all of the pipeline's processors; none where the destination only
    /// takes over, or gets copies.
    pub filtered_items: u64,
    pub delivered_items: u64,
    pub dropped_items: [u64; LOSSES],
    pub passed_on_items: [u64; PassReason::ALL.len()],
    pub in_flight_items: u64,
}

/// The sums of one routing of a pipeline.
#[derive(Clone, Debug)]
pub struct RoutingTotal {
    pub pipeline: String,
    pub connector: String,
    /// By row; the last is the default's.
    pub routed_items: Vec<u64>,
    pub unrouted_items: u64,
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
    pub routings: Vec<RoutingTotal>,
    pub unrouted: [u64; RequestEnd::ALL.len()],
    pub http2_troubles: [u64; Trouble::ALL.len()],
    pub http3_troubles: [u64; Trouble::ALL.len()],
    /// In the orders of [`Protocol::ALL`] and [`LateBody::ALL`].
    pub late_bodies: [[u64; LateBody::ALL.len()]; Protocol::ALL.len()],
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
        let routings = self.routing_totals(plan);
        let parts = (&doors[..], &processors[..], &routes[..], &routings[..]);
        Totals {
            balanced_pipelines: self.pipelines_are_balanced(plan, parts),
            unrouted: sum_all(self.shards.iter().map(|shard| &shard.unrouted)),
            http2_troubles: sum_all(self.shards.iter().map(|shard| &shard.http2_troubles)),
            http3_troubles: sum_all(self.shards.iter().map(|shard| &shard.http3_troubles)),
            late_bodies: std::array::from_fn(|protocol| {
                sum_all(self.shards.iter().map(|shard| &shard.late_bodies[protocol]))
            }),
            doors,
            processors,
            routes,
            routings,
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
                        refused_requests: sum_all(rows.iter().map(|row| &row.refused_requests)),
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
            let filtered_items = filtered_by(pipeline, processors);
            for (place, destination) in pipeline.destinations.iter().enumerate() {
                let rows: Vec<&RouteRow> =
                    self.shards.iter().map(|shard| shard.route(index, place)).collect();
                let sum = |of: fn(&RouteRow) -> &Count| rows.iter().map(|row| of(row).read()).sum();
                let is_first =
                    pipeline.outputs.iter().any(|way| way.primary() == Some(*destination));
                totals.push(RouteTotal {
                    pipeline: pipeline.name.clone(),
                    signal: pipeline.signal,
                    destination: plan.destinations[usize::from(*destination)].name.clone(),
                    accepted_items: sum(|row| &row.accepted_items),
                    taken_over_items: sum(|row| &row.taken_over_items),
                    filtered_items: if is_first { filtered_items } else { 0 },
                    delivered_items: sum(|row| &row.delivered_items),
                    dropped_items: sum_all(rows.iter().map(|row| &row.dropped_items)),
                    passed_on_items: sum_all(rows.iter().map(|row| &row.passed_on_items)),
                    in_flight_items: sum(|row| &row.in_flight_items),
                });
            }
        }
        totals
    }

    fn routing_totals(&self, plan: &Plan) -> Vec<RoutingTotal> {
        let mut totals = Vec::new();
        for (index, pipeline) in plan.pipelines.iter().enumerate() {
            for (place, routing) in pipeline.routings.iter().enumerate() {
                let rows =
                    || self.shards.iter().map(|shard| &shard.pipelines[index].routings[place]);
                let routed =
                    |row: usize| rows().map(|routing| routing.routed_items[row].read()).sum();
                totals.push(RoutingTotal {
                    pipeline: pipeline.name.clone(),
                    connector: routing.name.clone(),
                    routed_items: (0..=routing.rows.len()).map(routed).collect(),
                    unrouted_items: rows().map(|routing| routing.unrouted_items.read()).sum(),
                });
            }
        }
        totals
    }

    /// Whether each pipeline took what came to it, from doors and from routings, and gave it to
    /// each of its outputs; and whether what one destination passed on another has taken over.
    fn pipelines_are_balanced(
        &self,
        plan: &Plan,
        (doors, processors, routes, routings): (
            &[DoorTotal],
            &[ProcessorTotal],
            &[RouteTotal],
            &[RoutingTotal],
        ),
    ) -> bool {
        let routed_to = |target: usize| -> u64 {
            let plans = plan.pipelines.iter().flat_map(|pipeline| &pipeline.routings);
            let rows = plans.zip(routings).flat_map(|(plan, total)| {
                let rows = plan.rows.iter().map(|row| &row.pipelines);
                rows.chain([&plan.otherwise]).zip(&total.routed_items)
            });
            rows.filter(|(to, _)| to.contains(&target)).map(|(_, items)| items).sum()
        };
        plan.pipelines.iter().enumerate().all(|(index, pipeline)| {
            let of_own = |door: &&DoorTotal| {
                let names = |r: &u16| self.receivers[usize::from(*r)] == door.receiver;
                door.signal == pipeline.signal && pipeline.receivers.iter().any(names)
            };
            let came: u64 = doors.iter().filter(of_own).map(|door| door.accepted_items).sum();
            let accepted: u64 =
                self.shards.iter().map(|shard| shard.pipelines[index].accepted_items.read()).sum();
            let own = || routes.iter().filter(|route| route.pipeline == pipeline.name);
            let row = |destination: &u16| {
                let place = pipeline.destinations.iter().position(|d| d == destination);
                place.and_then(|place| own().nth(place))
            };
            let is_given = |output: &Output| match output.primary() {
                Some(first) => row(&first).is_some_and(|row| row.accepted_items == accepted),
                None => true,
            };
            let filtered = filtered_by(pipeline, processors);
            let is_routed = |routing: &RoutingTotal| {
                let routed: u64 = routing.routed_items.iter().sum();
                accepted == filtered + routed + routing.unrouted_items
            };
            let passed: u64 = own().flat_map(|route| route.passed_on_items).sum();
            accepted == came + routed_to(index)
                && pipeline.outputs.iter().all(is_given)
                && routings.iter().filter(|r| r.pipeline == pipeline.name).all(is_routed)
                && passed == own().map(|route| route.taken_over_items).sum::<u64>()
        })
    }
}

/// What a pipeline's processors dropped on purpose.
fn filtered_by(pipeline: &Pipeline, processors: &[ProcessorTotal]) -> u64 {
    let own = processors.iter().filter(|processor| processor.pipeline == pipeline.name);
    own.map(|processor| processor.filtered_items).sum()
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
            let passed_on: u64 = route.passed_on_items.iter().sum();
            let settled = route.filtered_items + route.delivered_items + dropped + passed_on;
            route.accepted_items + route.taken_over_items == settled + route.in_flight_items
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

    /// Lost on the way to a destination, or unrouted.
    pub fn dropped_items(&self) -> u64 {
        self.routes.iter().flat_map(|route| route.dropped_items).sum::<u64>()
            + self.unrouted_items()
    }

    /// Accepted, and by no row of a routing for anybody.
    pub fn unrouted_items(&self) -> u64 {
        self.routings.iter().map(|routing| routing.unrouted_items).sum()
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
