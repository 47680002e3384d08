//! One receiver core: a ring, a plain loop, and everything that happens to a request until its
//! batch is on its way. Read [`Shard::turn`] downwards: it is the data path.
//!
//! Always
//! - It waits for nothing but its ring.
//! - A request that was taken is answered exactly once, or its connection is gone.
//! - Every batch is settled by each of its destinations before the shard ends.
//!
//! Not here: protocols (`net`), bytes (`codec`), destinations (`exporters`), what a request has to
//! be (`ingest`), what moves between cores and why (`neighbours`, `spread`).

mod calls;
pub mod datagrams;
mod flow;
mod settle;
mod sharing;
mod standings;
mod stats;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_codec::status::PartialSuccess;
use forebay_exporters::cluster::Cluster;
use forebay_exporters::lane::Lane;
use forebay_net::request::{Limits, Nanos, Request};
use forebay_net::ring::{Options, Ring, Rung};
use forebay_net::server::lifetime::Lifetime;
use forebay_net::server::{QuicListener, Server};
use forebay_net::tls::Acceptor;
use forebay_net::wake::Wake;
use http::HeaderValue;

use self::flow::Flow;
use self::sharing::{BusyClock, Sharing};
pub use self::stats::ShardStats;
use crate::acks::{TicketId, Tickets, Verdict};
use crate::batches::{Batcher, Held, Sealed};
use crate::config::plan::{self, Ack, Output, Plan};
use crate::handoff::{Outbox, ReturnQueue};
use crate::ingest::answers::{Problem, success};
use crate::ingest::process::Part;
use crate::ingest::{Ingest, Taken, TakenItems};
use crate::ledger::{Ledger, RequestEnd};
use crate::neighbours::{Asker, Neighbours, Reply};
use crate::services::Method;

/// A shard that has nothing to do turns this often all the same, so that its pulse can be felt.
const PULSE: Duration = Duration::from_secs(1);
/// While batches wait for room in a lane, it looks again after this.
const BLOCKED_RETRY: Duration = Duration::from_millis(2);
/// While somebody watches the health, it is looked at this often.
const WATCHED_PULSE: Duration = Duration::from_millis(200);
/// What the last answers may take to leave after all else has ended.
const LAST_WORDS: Nanos = 300_000_000;

/// What the process is doing; each shard follows.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    const RUNNING: u8 = 0;
    const DRAINING: u8 = 1;
    const ABANDONING: u8 = 2;

    /// Take nothing new, answer and deliver what is there.
    pub fn drain(&self) {
        self.0.store(Self::DRAINING, Ordering::Release);
    }

    /// The time for draining is over: account for what is left, and end.
    pub fn abandon(&self) {
        self.0.store(Self::ABANDONING, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) != Self::RUNNING
    }

    fn is_abandoning(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::ABANDONING
    }

    fn read(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// What a shard is made of.
pub struct Parts<S> {
    pub index: usize,
    pub plan: Arc<Plan>,
    pub ledger: Arc<Ledger>,
    pub stats: Arc<ShardStats>,
    /// The stats of all shards: health is of the whole process.
    pub peers: Vec<Arc<ShardStats>>,
    pub returns: Arc<ReturnQueue>,
    pub phase: Arc<Phase>,
    /// By destination, then by exporter core.
    pub lanes: Vec<Vec<Arc<Lane>>>,
    /// By destination.
    pub clusters: Vec<Arc<Cluster>>,
    /// One listening socket per listener of the plan.
    pub sockets: Vec<S>,
    /// By listener, if it speaks TLS.
    pub acceptors: Vec<Option<Arc<Acceptor>>>,
    /// Its place among the receiver cores.
    pub neighbours: Neighbours<S>,
    /// All shards count from here.
    pub epoch: Instant,
}

pub struct Shard<R: Ring> {
    index: u16,
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    stats: Arc<ShardStats>,
    peers: Vec<Arc<ShardStats>>,
    phase: Arc<Phase>,
    phase_followed: u8,
    returns: Arc<ReturnQueue>,
    wake: Arc<Wake>,
    server: Server<R>,
    neighbours: Neighbours<R::Socket>,
    sharing: Sharing,
    ingest: Ingest,
    batchers: Vec<Batcher>,
    tickets: Tickets,
    outboxes: Vec<Outbox>,
    flow: Flow,
    /// Batches that not every destination has settled.
    pending: HashMap<u64, Pending>,
    next_seq: u64,
    batches_sealed: u64,
    requests: Vec<Request>,
    sealed: Vec<Sealed>,
    epoch: Instant,
    settled_bytes: u64,
    rate_since: Nanos,
}

/// A batch under way.
struct Pending {
    pipeline: usize,
    signal: Signal,
    items: u64,
    bytes: u64,
    held: Held,
    /// Of the budget, as each destination's share counts it; parts of the batch, by their bytes.
    held_bytes: u64,
    requests: usize,
    tickets: Vec<TicketId>,
    /// Legs that have not ended: the batch's bytes are held until then.
    outstanding: usize,
    /// Those of them that an answer waits for.
    awaited: usize,
    verdict: Verdict,
}

impl<R: Ring> Shard<R> {
    /// Begins to accept on `ring`.
    pub fn new(parts: Parts<R::Socket>, ring: R) -> Shard<R> {
        let Parts { index, plan, ledger, stats, peers, returns, phase, .. } = parts;
        let Parts { lanes, clusters, sockets, acceptors, mut neighbours, epoch, .. } = parts;
        let lifetimes: Vec<Lifetime> = plan.listeners.iter().map(lifetime).collect();
        let cors = plan.listeners.iter().map(|listener| listener.http.as_ref()?.cors.clone());
        let mut server = Server::new(ring, net_limits(&plan.engine), sockets)
            .with_lifetimes(&lifetimes, index as u64)
            .with_tls(acceptors, plan.engine.limits.handshakes_max)
            .with_cors(cors.collect());
        server.hold_fresh();
        let wake = server.wake();
        returns.attach(wake.clone());
        neighbours.limit_connections(plan.engine.limits.connections_max);
        neighbours.open(wake.clone());
        let mut shard = Shard {
            index: index as u16,
            ingest: Ingest::new(plan.clone(), ledger.clone(), index),
            batchers: plan.pipelines.iter().map(|p| Batcher::new(p.batch)).collect(),
            outboxes: outboxes(&plan, lanes, index),
            flow: Flow::new(&plan, clusters),
            tickets: Tickets::default(),
            pending: HashMap::new(),
            next_seq: 0,
            batches_sealed: 0,
            requests: Vec::new(),
            sealed: Vec::new(),
            settled_bytes: 0,
            rate_since: 0,
            plan,
            ledger,
            stats,
            peers,
            phase,
            phase_followed: Phase::RUNNING,
            returns,
            wake,
            server,
            neighbours,
            sharing: Sharing::default(),
            epoch,
        };
        // The first turn comes with the first client: healthy from here on.
        shard.publish(epoch.elapsed().as_nanos() as Nanos);
        shard
    }

    pub fn rung(&self) -> Rung {
        self.server.rung()
    }

    /// Takes HTTP/3, too.
    ///
    /// # Errors
    /// The ring has no memory for what datagrams are received into.
    pub fn open_quic(
        &mut self,
        listener: QuicListener<R::Socket>,
        alternatives: Vec<Option<HeaderValue>>,
    ) -> std::io::Result<()> {
        self.server.offer(alternatives);
        self.server.open_quic(listener)
    }

    /// Turns until the process drains and nothing is left.
    pub fn run(self) -> std::io::Result<()> {
        let (epoch, mut busy) = (self.epoch, BusyClock::new());
        self.run_by(|| epoch.elapsed().as_nanos() as Nanos, move || busy.read())
    }

    /// As [`Shard::run`], by other clocks than the machine's. `clock` is read once a turn; `busy`
    /// now and then: for how long this thread ran, and for how long it waited for its CPU.
    pub fn run_by(
        mut self,
        mut clock: impl FnMut() -> Nanos,
        mut busy: impl FnMut() -> (Nanos, Nanos),
    ) -> std::io::Result<()> {
        let mut now = clock();
        while !self.is_done() {
            self.sleep(now)?;
            now = clock();
            if self.sharing.meter.is_due(now) {
                let (ran, waited) = busy();
                self.measure(now, ran, waited);
            }
            self.turn(now);
        }
        // The last answers leave, if their readers read them soon: a connection that is closed
        // with bytes unread is reset, and that can overtake the answer.
        let until = now + LAST_WORDS;
        self.server.close_quic(now, &mut self.ingest, &mut self.requests);
        while self.owes_last_words() && now < until {
            self.server.wait(now, BLOCKED_RETRY)?;
            now = clock();
            self.turn(now);
        }
        self.publish(now);
        Ok(())
    }

    /// One turn. Bounded: it works off what the ring had done when it began.
    fn turn(&mut self, now: Nanos) {
        self.follow_phase(now);
        self.server.poll(now, &mut self.ingest, &mut self.requests); // bytes    -> requests
        self.place_connections(now); //                                 sockets  -> cores
        self.take_requests(now); //                                     requests -> batches
        self.seal_due(now);
        self.hand_off(now); //                                          batches  -> exporter cores
        self.settle_returns(now); //                                    ends     -> answers
        self.answer_late_tickets(now);
        self.tell_watches(now);
        self.take_replies(now); //                                      others' answers
        self.neighbours.wake_others();
        self.server.flush(now, &mut self.ingest, &mut self.requests); // answers -> bytes
        self.publish_sometimes(now);
    }

    /// Sleeps in the ring until there is something to do.
    fn sleep(&mut self, now: Nanos) -> std::io::Result<()> {
        self.wake.about_to_sleep();
        let idle = self.requests.is_empty()
            && self.returns.is_empty()
            && self.neighbours.is_empty()
            && self.phase_is_followed()
            && !self.is_done();
        let timeout = if idle { self.timeout(now) } else { Duration::ZERO };
        let waited = self.server.wait(now, timeout);
        self.wake.awake();
        waited
    }

    fn timeout(&self, now: Nanos) -> Duration {
        let batches = self.batchers.iter().filter_map(Batcher::deadline);
        let due = batches.chain(self.tickets.deadline()).min();
        let due = due.map_or(PULSE, |due| Duration::from_nanos(due.saturating_sub(now)));
        let blocked = self.outboxes.iter().any(Outbox::is_blocked) || self.flow.is_waiting();
        let pulse = match blocked {
            true => BLOCKED_RETRY,
            false if self.ingest.services.has_watches() => WATCHED_PULSE,
            false => PULSE,
        };
        due.min(pulse).min(self.sharing.patience())
    }

    fn take_requests(&mut self, now: Nanos) {
        let mut requests = std::mem::take(&mut self.requests);
        self.share(&mut requests);
        for request in requests.drain(..) {
            self.take_own(request, now);
        }
        self.take_given(now);
        // Answers that were given may have let further requests in; they wait for the next turn.
        requests.append(&mut self.requests);
        self.requests = requests;
    }

    fn take(&mut self, asker: Asker, request: Request, now: Nanos) {
        let tag = request.tag;
        if Method::unpack(tag).is_some() {
            return self.serve(&request, now);
        }
        let route = crate::ingest::route::Route::unpack(tag);
        match self.ingest.take(request) {
            Ok(Taken { items: Some(items), partial }) => self.batch(asker, items, partial, now),
            Ok(Taken { items: None, partial }) => {
                self.ingest.count(&route, RequestEnd::Ok);
                let answer = success(route.shape(), route.signal, &partial);
                self.answer(asker, answer, now);
            }
            Err((route, problem)) => {
                self.ingest.count(&route, end_of(&problem));
                tracing::debug!(
                    signal = route.signal.name(),
                    transport = route.transport.name(),
                    error = problem.message,
                    "A request was refused"
                );
                self.answer(asker, problem.answer(), now);
            }
        }
    }

    /// Puts what is left of a request into the batch of each pipeline that takes it, and answers
    /// it if nobody has to wait for its delivery.
    fn batch(&mut self, asker: Asker, taken: TakenItems, partial: PartialSuccess, now: Nanos) {
        let TakenItems { parts, route, timeout } = taken;
        let waits = |part: &Part| self.plan.pipelines[part.pipeline].ack == Ack::Delivered;
        let ticket = parts.iter().any(waits).then(|| {
            let patience = timeout.unwrap_or(Duration::MAX).min(self.plan.engine.ack_timeout);
            let deadline = now + patience.as_nanos() as Nanos;
            let asker = self.keep_waiting(asker);
            self.tickets.open(asker, route.pack(), deadline, Verdict::of(&partial))
        });
        if ticket.is_some() {
            self.ingest.requests_in_flight += 1;
        }
        for part in parts {
            let waits = self.plan.pipelines[part.pipeline].ack == Ack::Delivered;
            let waiting = ticket.filter(|_| waits);
            let Part { pipeline, checked, share } = part;
            let items = checked.counts().items;
            let before = self.sealed.len();
            let batcher = &mut self.batchers[pipeline];
            let pieces = batcher.push(checked, share, waiting, now, &mut self.sealed);
            if let Some(ticket) = waiting {
                self.tickets.add_parts(ticket, pieces);
            }
            self.count_in_flight(pipeline, items);
            self.seal_from(before, pipeline, now);
        }
        if ticket.is_none() {
            self.ingest.count(&route, RequestEnd::Ok);
            let answer = success(route.shape(), route.signal, &partial);
            self.answer(asker, answer, now);
        }
    }

    fn seal_due(&mut self, now: Nanos) {
        let draining = self.phase.is_draining();
        for pipeline in 0..self.batchers.len() {
            let before = self.sealed.len();
            match draining {
                true => self.batchers[pipeline].seal(&mut self.sealed),
                false => self.batchers[pipeline].seal_due(now, &mut self.sealed),
            }
            self.seal_from(before, pipeline, now);
        }
    }

    /// Sends the batches of `pipeline` that were sealed since `before`.
    fn seal_from(&mut self, before: usize, pipeline: usize, now: Nanos) {
        let mut sealed = std::mem::take(&mut self.sealed);
        for batch in sealed.drain(before..) {
            self.send(pipeline, batch, now);
        }
        self.sealed = sealed;
    }

    fn answer(&mut self, asker: Asker, answer: forebay_net::request::Answer, now: Nanos) {
        let Asker { shard, request, reserved } = asker;
        if shard == self.index {
            self.server.answer(request, answer, now, &mut self.ingest, &mut self.requests);
        } else {
            self.neighbours.reply(shard, Reply::Answered { request, reserved, answer });
        }
    }

    fn follow_phase(&mut self, now: Nanos) {
        self.phase_followed = self.phase.read();
        if self.phase.is_draining() && !self.ingest.draining {
            self.ingest.draining = true;
            self.neighbours.leave_off();
            self.server.drain(now, &mut self.ingest, &mut self.requests);
        }
        if self.phase.is_abandoning() {
            self.abandon_outboxes(now);
        }
    }

    fn phase_is_followed(&self) -> bool {
        self.phase.read() == self.phase_followed
    }

    fn owes_last_words(&self) -> bool {
        self.server.connections() > 0 || self.server.is_sending_datagrams()
    }

    fn is_done(&mut self) -> bool {
        self.ingest.draining
            && self.requests.is_empty()
            && self.pending.is_empty()
            && self.batchers.iter().all(|batcher| batcher.deadline().is_none())
            && self.neighbours.may_end()
            && (self.phase.is_abandoning() || !self.server.is_busy())
    }
}

/// Of a core's memory, what copies for one mirror may take: an eighth.
const MIRROR_SHARE: u64 = 8;

/// One for each destination. Where there are several over the network, none may have more than
/// half of this core's memory: the others go on when it is dead.
fn outboxes(plan: &Plan, lanes: Vec<Vec<Arc<Lane>>>, index: usize) -> Vec<Outbox> {
    let budget = plan.engine.memory_budget_bytes as u64;
    let outputs = || plan.pipelines.iter().flat_map(|pipeline| &pipeline.outputs);
    let quota = |index: usize| {
        let is_its_mirror = |output: &Output| match output {
            Output::Mirror { destination, .. } => usize::from(*destination) == index,
            _ => false,
        };
        match outputs().any(is_its_mirror) {
            true => Some(budget / MIRROR_SHARE),
            false => plan.has_quotas().then_some(budget / 2),
        }
    };
    let outbox = |(destination, lanes)| Outbox::new(lanes, index, quota(destination));
    lanes.into_iter().enumerate().map(outbox).collect()
}

fn end_of(problem: &Problem) -> RequestEnd {
    match problem {
        Problem { retry_delay: Some(_), .. } => RequestEnd::Overloaded,
        Problem { status: http::StatusCode::PAYLOAD_TOO_LARGE, .. } => RequestEnd::TooLarge,
        Problem { status: http::StatusCode::UNSUPPORTED_MEDIA_TYPE, .. } => RequestEnd::Unserved,
        _ => RequestEnd::Invalid,
    }
}

/// What may come before a core gets to it: each holds up to 64 KiB of one client's datagrams.
const DATAGRAM_BUFFERS: u16 = 128;

/// The ring that a plan asks for.
pub fn ring_options(plan: &Plan) -> Options {
    let ring = &plan.engine.ring;
    let has_quic = plan.listeners.iter().any(|listener| listener.is_quic);
    Options {
        entries: ring.entries,
        buffers: ring.buffers,
        buffer_bytes: ring.buffer_bytes,
        datagram_buffers: if has_quic { DATAGRAM_BUFFERS } else { 0 },
        highest: match ring.rung {
            plan::Rung::Auto => Rung::Deferred,
            plan::Rung::Multishot => Rung::Cooperative,
            plan::Rung::Oneshot => Rung::Oneshot,
        },
    }
}

pub(crate) fn lifetime(listener: &plan::Listener) -> Lifetime {
    let nanos = |duration: Duration| duration.as_nanos() as Nanos;
    Lifetime {
        idle_timeout: nanos(listener.lifetime.idle_timeout),
        age_max: nanos(listener.lifetime.age_max),
        age_grace: nanos(listener.lifetime.age_grace),
    }
}

/// Of all that a core may hold, one connection may have so much on its way.
const WINDOW_SHARE: usize = 32;
const WINDOW_BYTES_MIN: usize = 1 << 20;
const WINDOW_BYTES_MAX: usize = 16 << 20;

pub(crate) fn net_limits(engine: &plan::Engine) -> Limits {
    let limits = &engine.limits;
    let window_bytes = engine.memory_budget_bytes / WINDOW_SHARE;
    let window_bytes = window_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    let nanos = |duration: Duration| duration.as_nanos() as Nanos;
    Limits {
        header_bytes_max: limits.header_bytes_max,
        connections_max: limits.connections_max,
        connection_requests_max: limits.connection_requests_max,
        connection_window_bytes: window_bytes as u32,
        header_timeout: nanos(limits.header_timeout),
        body_timeout: nanos(limits.body_timeout),
        idle_timeout: nanos(limits.idle_timeout),
        write_timeout: nanos(limits.write_timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_a_connection_may_send_ahead_follows_the_memory_budget_within_bounds() {
        let mut engine =
            config::load(&[config::embedded()], &[]).expect("it is proper").plan.engine;
        for (budget, window) in [(1 << 24, 1 << 20), (128 << 20, 4 << 20), (64 << 30, 16 << 20)] {
            engine.memory_budget_bytes = budget;
            assert_eq!(net_limits(&engine).connection_window_bytes, window);
        }
    }
}
