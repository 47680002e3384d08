//! One day of a receiver core: what it is made of, who comes, when it drains, and what has to hold
//! in the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::config::plan::{Ack, Batch, Output, Plan, Priorities, Priority, ShiftBy};
use forebay::config::{self, Source};
use forebay::handoff::{ReturnPaths, ReturnQueue};
use forebay::ledger::{Ledger, MIRROR_FULL, PassReason, RefuseReason};
use forebay::neighbours::Neighbours;
use forebay::shard::{Parts, Phase, Shard, ShardStats};
use forebay_codec::mend::InvalidUtf8;
use forebay_exporters::batch::DropReason;
use forebay_exporters::breaker;
use forebay_exporters::cluster::Cluster;
use forebay_exporters::lane::Lane;
use forebay_net::request::Nanos;
use forebay_net::ring::fake::{Dice, Network, Temper};
use forebay_net::ring::{Options, Rung};
use http::HeaderName;

use crate::book::{Book, GRPC};
use crate::customer::{Customer, House};
use crate::destinations::{Destinations, Tally};

const MILLI: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLI;
/// From the beginning of the end until nobody waits any more.
const DRAIN_TIMEOUT: Nanos = 3 * SECOND;
/// No day is as long.
const DAY: Duration = Duration::from_secs(60);
const TURNS_MAX: u64 = 1_000_000;

/// Each destination stands behind one output, so that what it gets says on which way it is.
const CONFIGURATION: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:4317'}, \
                               http: {endpoint: 'localhost:4318'}}}}
exporters:
  otlp_grpc/a: {endpoint: 'a:1', tls: {insecure: true}, dead_letter: nop/letters}
  otlp_grpc/b: {endpoint: 'b:1', tls: {insecure: true}, dead_letter: nop/letters_of_b}
  nop/c:
  nop/d:
  nop/e:
  nop/f:
  nop/g:
  nop/h:
  nop/mirror:
  nop/letters:
  nop/letters_of_b:
connectors:
  failover: {priority_levels: [[traces/b], [traces/c]]}
  mirror: {pipelines: [traces/mirror], percent: 50}
  shift: {shares: {traces/d: 70, traces/e: 30}}
  routing:
    table:
      - {context: request, condition: 'request[\"x-tenant\"] == \"acme\"', pipelines: [logs/acme]}
      - {condition: 'attributes[\"team\"] == \"red\"', pipelines: [logs/red]}
    default_pipelines: [logs/rest]
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_grpc/a, failover, mirror]}
    traces/b: {receivers: [failover], exporters: [otlp_grpc/b]}
    traces/c: {receivers: [failover], exporters: [nop/c]}
    traces/mirror: {receivers: [mirror], exporters: [nop/mirror]}
    traces/second: {receivers: [otlp], exporters: [shift]}
    traces/d: {receivers: [shift], exporters: [nop/d]}
    traces/e: {receivers: [shift], exporters: [nop/e]}
    logs: {receivers: [otlp], exporters: [routing]}
    logs/acme: {receivers: [routing], exporters: [nop/f]}
    logs/red: {receivers: [routing], exporters: [nop/g]}
    logs/rest: {receivers: [routing], exporters: [nop/h]}
";

/// What days brought, in sum.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    days: u64,
    turns: u64,
    oks: u64,
    refusals: u64,
    failures: u64,
    late: u64,
    out_of_memory: u64,
    batches: u64,
    delivered: u64,
    dropped: u64,
    no_buffers: u64,
    abandoned: u64,
    /// Items that went on from one destination to another, by reason.
    passed_on: [u64; PassReason::ALL.len()],
    mirror_full: u64,
    unrouted: u64,
    /// Requests that were sent away because destinations refused, or for others' priority.
    refused_early: u64,
    shed: u64,
}

/// Lives through a day. Panics if anything is not as it has to be.
pub(crate) fn live(plan: &Plan, seed: u64) -> Sums {
    let mut dice = Dice::new(seed);
    let temper = if dice.of_1000(100) { Temper::calm() } else { Temper::drawn(&mut dice) };
    let network = Network::new(dice.number(), temper);
    let options = Options {
        entries: 64,
        buffers: 1 << (1 + dice.below(5)),
        buffer_bytes: 1 << (7 + dice.below(6)),
        datagram_buffers: 0,
        highest: Rung::LADDER[dice.below(3) as usize],
    };
    let plan = Arc::new(drawn(plan.clone(), &mut dice));
    let ledger = Arc::new(Ledger::new(&plan, 1));
    let stats = Arc::new(ShardStats::default());
    let returns = Arc::new(ReturnQueue::new());
    let phase = Arc::new(Phase::default());
    let cores = 1 + dice.below(2);
    let lanes: Vec<Vec<Arc<Lane>>> = (plan.destinations.iter().enumerate())
        .map(|(index, destination)| {
            let lane = || Arc::new(Lane::new(index as u16, &destination.queue));
            (0..cores).map(|_| lane()).collect()
        })
        .collect();
    let epoch = Instant::now();
    let clusters: Vec<Arc<Cluster>> =
        plan.destinations.iter().map(|d| Cluster::new(&d.backends, epoch)).collect();
    let parts = Parts {
        index: 0,
        plan: plan.clone(),
        ledger: ledger.clone(),
        stats: stats.clone(),
        peers: vec![stats.clone()],
        returns: returns.clone(),
        phase: phase.clone(),
        lanes: lanes.clone(),
        clusters: clusters.clone(),
        sockets: plan.listeners.iter().map(|_| network.listener()).collect(),
        acceptors: Vec::new(),
        neighbours: Neighbours::alone(),
        epoch,
    };
    let shard = Shard::new(parts, network.ring(&options));
    assert_eq!(shard.rung(), options.highest);

    let paths = ReturnPaths(vec![returns.clone()]);
    let destinations = Destinations::new(&plan, lanes, clusters, epoch, paths, dice.fork());
    let day = Day::new(&network, &plan, destinations, phase, returns.clone(), dice);
    let day = Rc::new(RefCell::new(day));
    let others = day.clone();
    network.while_waiting(move || others.borrow_mut().act());
    shard.run_by(|| day.borrow_mut().turn(), || (0, 0)).expect("a fake ring never fails");
    network.while_waiting(|| {});
    let mut day = day.borrow_mut();
    day.see_customers_off();
    network.assert_at_rest();

    assert_eq!(stats.tickets.read(), 0, "tickets that nobody answered");
    assert_eq!(stats.batches_pending.read(), 0, "batches that did not end");
    assert_eq!(stats.budget_taken_bytes.read(), 0, "bytes that nobody gave back");
    assert!(returns.is_empty());
    let mut sums = day.account(&plan, &ledger);
    sums.batches = stats.batches_sealed.read();
    sums.no_buffers = stats.ring_no_buffers.read();
    sums
}

pub(crate) fn plan() -> Plan {
    let source = Source::Text { name: "simulation".to_owned(), text: CONFIGURATION.to_owned() };
    config::load(&[source], &[]).expect("the configuration is valid").plan
}

/// The plan with acks, batches and bounds of a day's own.
fn drawn(mut plan: Plan, dice: &mut Dice) -> Plan {
    for pipeline in &mut plan.pipelines {
        pipeline.ack = if dice.of_1000(500) { Ack::Delivered } else { Ack::Accepted };
        let waits = dice.of_1000(600);
        let items_min = if waits { 1 + dice.below(60) } else { 0 };
        let bounded = |dice: &mut Dice, bound: u64| if dice.of_1000(300) { bound } else { 0 };
        pipeline.batch = Batch {
            items_min,
            items_max: bounded(dice, items_min + 5),
            bytes_min: 0,
            bytes_max: if dice.of_1000(300) { 700 } else { 4_000_000 },
            flush_timeout: match waits {
                true => Duration::from_micros(100 + dice.below(20_000)),
                false => Duration::ZERO,
            },
        };
    }
    for pipeline in &mut plan.pipelines {
        for output in &mut pipeline.outputs {
            if let Output::Shift { by, .. } = output
                && dice.of_1000(500)
            {
                *by = ShiftBy::TraceId;
            }
        }
        if dice.of_1000(300) {
            pipeline.routings.iter_mut().for_each(|routing| routing.otherwise.clear());
        }
    }
    plan.engine.priorities = Priorities {
        are_told_apart: dice.of_1000(500),
        tenants: Some((
            HeaderName::from_static("x-tenant"),
            vec![("acme".to_owned(), Priority::High), ("other".to_owned(), Priority::Low)],
        )),
    };
    for destination in &mut plan.destinations {
        // One failure shuts an endpoint off for the rest of the day.
        destination.backends.breaker = breaker::Settings {
            failure_threshold: 1,
            recovery_timeout: DAY,
            ..breaker::Settings::default()
        };
        destination.queue.consumers = 1;
        destination.queue.batches_max = 1 + dice.below(20) as usize;
    }
    let engine = &mut plan.engine;
    engine.memory_budget_bytes = 6_000 + dice.below(150_000) as usize;
    engine.ack_timeout = Duration::from_millis(5 + dice.below(2_000));
    engine.invalid_utf8 =
        [InvalidUtf8::RefuseRequest, InvalidUtf8::RefuseItem, InvalidUtf8::Replace]
            [dice.below(3) as usize];
    let limits = &mut engine.limits;
    limits.requests_max = if dice.of_1000(200) { 4 } else { 1_000 };
    limits.connections_max = if dice.of_1000(100) { 3 } else { 1_000 };
    limits.header_timeout = Duration::from_secs(1);
    limits.body_timeout = Duration::from_secs(1);
    limits.write_timeout = Duration::from_secs(2);
    for listener in &mut plan.listeners {
        listener.lifetime.idle_timeout = Duration::from_secs(5);
        if dice.of_1000(200) {
            listener.lifetime.age_max = Duration::from_micros(500 + dice.below(30_000));
            listener.lifetime.age_grace = Duration::from_secs(3);
        }
    }
    plan
}

/// Everything around the shard.
struct Day {
    dice: Dice,
    network: Network,
    phase: Arc<Phase>,
    returns: Arc<ReturnQueue>,
    /// Since when the shard has something to hear of, and was woken.
    news_since: Option<Nanos>,
    book: Book,
    customers: Vec<Customer>,
    destinations: Destinations,
    drains_at: Nanos,
    /// Some connection may have been one too many, or ended for its age before it said more.
    may_end_early: bool,
    turns: u64,
}

impl Day {
    fn new(
        network: &Network,
        plan: &Plan,
        destinations: Destinations,
        phase: Arc<Phase>,
        returns: Arc<ReturnQueue>,
        mut dice: Dice,
    ) -> Day {
        let rush = 1 + dice.below(20 * MILLI);
        let customer = |number: usize| {
            let is_http1 = dice.of_1000(400);
            let listener = if is_http1 || dice.of_1000(300) { 1 - GRPC } else { GRPC };
            Customer::drawn(number, listener, is_http1, rush, &mut dice)
        };
        let customers: Vec<Customer> = (0..10).map(customer).collect();
        Day {
            network: network.clone(),
            phase,
            returns,
            news_since: None,
            book: Book::new(plan),
            customers,
            destinations,
            drains_at: if dice.of_1000(500) { dice.below(2 * rush) } else { Nanos::MAX },
            may_end_early: plan.engine.limits.connections_max < 10
                || plan.listeners.iter().any(|listener| listener.lifetime.age_max < DAY),
            turns: 0,
            dice,
        }
    }

    /// What the other threads do while the shard waits. The shard hears of it by a wake, if it
    /// sleeps.
    fn act(&mut self) {
        let now = self.network.now();
        let before = (self.phase.is_draining(), self.book.is_abandoned);
        if now >= self.drains_at || self.customers.iter().all(|customer| customer.is_over) {
            self.drains_at = self.drains_at.min(now);
            self.phase.drain();
        }
        if now >= self.abandons_at() && !self.book.is_abandoned {
            self.destinations.abandon();
            self.phase.abandon();
            self.book.is_abandoned = true;
        }
        self.destinations.turn(now, self.phase.is_draining(), &mut self.book);
        let is_changed = before != (self.phase.is_draining(), self.book.is_abandoned);
        if is_changed {
            self.returns.wake();
        }
        if is_changed || !self.returns.is_empty() {
            self.news_since.get_or_insert(now);
        }
        let customers = self.customers.iter().filter(|customer| !customer.is_over);
        let next = customers.map(|customer| customer.next_at).chain(self.destinations.next_at());
        let next = next.chain([self.drains_at, self.abandons_at()]).filter(|at| *at > now).min();
        self.network.wake_by(next.unwrap_or(Nanos::MAX));
    }

    fn abandons_at(&self) -> Nanos {
        self.drains_at.saturating_add(DRAIN_TIMEOUT)
    }

    /// The shard woke: it is told when.
    fn turn(&mut self) -> Nanos {
        let now = self.network.now();
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "the day does not end");
        if let Some(since) = self.news_since.take() {
            assert!(now < since + MILLI, "the shard slept on after it was woken at {since}");
        }
        self.serve_customers(now);
        now
    }

    fn serve_customers(&mut self, now: Nanos) {
        let house = House {
            seal: None,
            is_excused: self.phase.is_draining() || self.may_end_early,
            closes_at: self.drains_at,
        };
        for customer in &mut self.customers {
            if !customer.is_over && customer.next_at <= now {
                customer.step(now, &self.network, &mut self.book, &mut self.dice, house);
            }
        }
    }

    /// The shard is gone: who still reads reads to the end.
    fn see_customers_off(&mut self) {
        let mut now = self.network.now();
        for _ in 0..10_000 {
            if self.customers.iter().all(|customer| customer.is_over) {
                return;
            }
            now += 50 * MILLI;
            self.serve_customers(now);
        }
        panic!("somebody still waits for a word of a process that is gone");
    }

    /// Holds what the ledger says against what was seen.
    fn account(&self, plan: &Plan, ledger: &Ledger) -> Sums {
        let totals = ledger.totals(plan);
        assert!(totals.is_balanced(), "{}", totals.to_text());
        assert_eq!(totals.in_flight_items(), 0, "{}", totals.to_text());
        let (mut unseen, mut mirror_full) = (0, 0);
        let mut passed_on = [0; PassReason::ALL.len()];
        for (index, destination) in plan.destinations.iter().enumerate() {
            let mut tally = Tally::default();
            let mut passed = [0; PassReason::ALL.len()];
            for route in totals.routes.iter().filter(|r| r.destination == destination.name) {
                tally.delivered += route.delivered_items;
                for (sum, dropped) in tally.dropped.iter_mut().zip(route.dropped_items) {
                    *sum += dropped;
                }
                for (sum, items) in passed.iter_mut().zip(route.passed_on_items) {
                    *sum += items;
                }
                mirror_full += route.dropped_items[MIRROR_FULL];
            }
            let seen = &self.destinations.tallies()[index];
            // What was never offered to a lane is dropped by the shard itself.
            let shutdown = DropReason::Shutdown.index();
            let never_offered = tally.dropped[shutdown] - seen.dropped[shutdown];
            tally.dropped[shutdown] -= never_offered;
            // What one gave back may go to it again, and what it never had to another at once.
            (tally.failed_over, tally.refused) = (seen.failed_over, seen.refused);
            assert_eq!(passed[PassReason::DeadLetter as usize], seen.refused);
            assert_eq!(tally, *seen, "{}: {}", destination.name, totals.to_text());
            assert!(never_offered == 0 || self.book.is_abandoned);
            unseen += never_offered;
            for (sum, items) in passed_on.iter_mut().zip(passed) {
                *sum += items;
            }
        }
        let missing = self.book.missing_items();
        assert!(missing <= unseen, "{missing} acknowledged items are lost");
        let refused = |reasons: &[RefuseReason]| -> u64 {
            let counts = totals.doors.iter().map(|door| door.refused_requests);
            counts.map(|counts| reasons.iter().map(|r| counts[*r as usize]).sum::<u64>()).sum()
        };
        Sums {
            days: 1,
            turns: self.turns,
            oks: self.book.oks,
            refusals: self.book.refusals,
            failures: self.book.failures,
            late: self.book.late,
            out_of_memory: self.book.out_of_memory,
            delivered: totals.routes.iter().map(|route| route.delivered_items).sum(),
            dropped: totals.dropped_items(),
            abandoned: u64::from(self.book.is_abandoned),
            passed_on,
            mirror_full,
            unrouted: totals.unrouted_items(),
            refused_early: refused(&[RefuseReason::Refusing]),
            shed: refused(&[RefuseReason::ShedLow, RefuseReason::ShedNormal]),
            ..Sums::default()
        }
    }
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Sums) {
        self.days += other.days;
        self.turns += other.turns;
        self.oks += other.oks;
        self.refusals += other.refusals;
        self.failures += other.failures;
        self.late += other.late;
        self.out_of_memory += other.out_of_memory;
        self.batches += other.batches;
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.no_buffers += other.no_buffers;
        self.abandoned += other.abandoned;
        for (sum, items) in self.passed_on.iter_mut().zip(other.passed_on) {
            *sum += items;
        }
        self.mirror_full += other.mirror_full;
        self.unrouted += other.unrouted;
        self.refused_early += other.refused_early;
        self.shed += other.shed;
    }

    /// Whether enough happened: days on which nothing does prove nothing.
    pub(crate) fn are_telling(&self) -> bool {
        let happened = [
            self.oks / self.days.max(1),
            self.refusals,
            self.failures,
            self.late,
            self.out_of_memory,
            self.batches,
            self.delivered,
            self.dropped,
            self.no_buffers,
            self.abandoned,
            self.mirror_full,
            self.unrouted,
            self.refused_early,
            self.shed,
        ];
        happened.iter().chain(&self.passed_on).all(|times| *times > 0)
    }
}
