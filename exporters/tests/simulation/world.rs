//! One run: exporter cores with their lanes, senders and retry clocks, servers, and the time.
//!
//! Lanes and clocks are the crate's own: batches are offered, held and let go as by its senders.
//!
//! Always, in every run: each batch ends exactly once; a lane holds what it took and has not ended,
//! to the batch, the item and the byte, and no more than it may; retries come in the order in which
//! they are due; an endpoint has one probe at a time; what is sent again stays within the retry
//! budget; nothing is outstanding when all has ended.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_codec::signal::{Counts, Signal};
use forebay_exporters::balance::{Balancer, Bound, Strategy};
use forebay_exporters::batch::{self, BatchId};
use forebay_exporters::budget::{RetryBudget, Settings};
use forebay_exporters::destination::{Queue, Retry, RetryCodes};
use forebay_exporters::dispatch::{After, Delivery, Dispatcher, Step};
use forebay_exporters::endpoints::{Call, Endpoints, Member, Options};
use forebay_exporters::lane::Lane;
use forebay_exporters::verdict::Verdict;
use forebay_exporters::waiting::Waiting;

use crate::server::{Mode, Server, reset};

/// What one run looks like, drawn from its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) cores: usize,
    pub(crate) servers: usize,
    pub(crate) strategy: Strategy,
    /// Between two batches at one core.
    pub(crate) pause: Duration,
    /// A core's lane holds so many batches; what comes then is turned away.
    pub(crate) held_max: usize,
    /// And so many bytes, and one batch.
    pub(crate) bytes_max: Option<u64>,
    /// What has been tried for so long is given up.
    pub(crate) age_max: Option<Duration>,
}

/// Senders of a core.
const CONSUMERS: usize = 10;
/// A batch has fewer bytes.
pub(crate) const BATCH_BYTES: u64 = 10_000;

#[derive(Clone, Debug)]
pub(crate) enum Happens {
    Arrives {
        core: usize,
    },
    /// Something that waits is due.
    Due {
        core: usize,
    },
    Ends {
        call: usize,
        turn: u32,
    },
    Turns {
        server: usize,
        mode: Mode,
    },
    /// The servers that discovery names from now on.
    Names(Vec<usize>),
}

struct Core {
    dispatcher: Dispatcher,
    lane: Lane,
    waiting: Waiting<usize>,
    /// The same, by an account of its own.
    due: BTreeSet<(Instant, usize)>,
    /// They take turns with what is fresh.
    retry_first: bool,
    idle: usize,
    offered_items: u64,
}

pub(crate) struct Batch {
    core: usize,
    batch: Arc<batch::Batch>,
    delivery: Delivery,
    pub(crate) first_tried: Option<Instant>,
    due: Option<Instant>,
    pub(crate) arrived: Instant,
    pub(crate) first_failed: Option<Instant>,
    /// A bit for each server that it was sent to.
    met: u32,
    pub(crate) ended: Option<(Instant, After)>,
}

impl Batch {
    pub(crate) fn has_met(&self, server: usize) -> bool {
        self.met & 1 << server != 0
    }
}

struct UnderWay {
    batch: usize,
    server: usize,
    call: Call,
    began: Instant,
    verdict: Verdict,
    /// Grows when the end is set anew.
    turn: u32,
}

pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) rng: fastrand::Rng,
    /// Apart, so that how large batches are changes nothing else.
    sizes: fastrand::Rng,
    pub(crate) epoch: Instant,
    pub(crate) now: Instant,
    happenings: BinaryHeap<Reverse<(Instant, usize)>>,
    happens: Vec<Option<Happens>>,
    pub(crate) endpoints: Arc<Endpoints>,
    cores: Vec<Core>,
    pub(crate) servers: Vec<Server>,
    pub(crate) batches: Vec<Batch>,
    calls: Vec<Option<UnderWay>>,
    under_way: BTreeSet<usize>,
    arrivals_until: Instant,
    pub(crate) turned_away: usize,
    pub(crate) retries: usize,
    pub(crate) successes: usize,
    /// Each call: to which server, and when.
    pub(crate) offered: Vec<(usize, Instant)>,
}

pub(crate) fn budget() -> Settings {
    Settings::default()
}

impl World {
    pub(crate) fn new(shape: Shape, arrivals_for: Duration) -> World {
        let mut rng = fastrand::Rng::with_seed(shape.seed);
        let epoch = Instant::now();
        let hashing = shape.strategy == Strategy::ConsistentHashing;
        let endpoints = Endpoints::new(Options { hashing, ..Options::default() }, epoch);
        let retries = Arc::new(RetryBudget::new(budget(), epoch));
        let retry = Retry {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: shape.age_max,
            max_attempts: None,
            codes: RetryCodes::default(),
        };
        let cores = (0..shape.cores)
            .map(|_| {
                let balancer = Balancer::new(shape.strategy, Bound::of(shape.strategy), rng.fork());
                let (reader, budget) = (endpoints.reader(), Arc::clone(&retries));
                let dispatcher =
                    Dispatcher::new(reader, balancer, budget, retry.clone(), rng.fork());
                let queue = Queue {
                    batches_max: shape.held_max - CONSUMERS,
                    bytes_max: shape.bytes_max,
                    consumers: CONSUMERS,
                };
                Core {
                    dispatcher,
                    lane: Lane::new(0, &queue),
                    waiting: Waiting::default(),
                    due: BTreeSet::new(),
                    retry_first: false,
                    idle: CONSUMERS,
                    offered_items: 0,
                }
            })
            .collect();
        let servers = (0..shape.servers)
            .map(|number| Server {
                address: format!("collector-{number}:4317"),
                mode: Mode::Well,
                latency: Duration::from_millis(rng.u64(2..10)),
            })
            .collect();
        let mut world = World {
            shape,
            rng,
            sizes: fastrand::Rng::with_seed(shape.seed ^ 0x512e),
            epoch,
            now: epoch,
            happenings: BinaryHeap::new(),
            happens: Vec::new(),
            endpoints,
            cores,
            servers,
            batches: Vec::new(),
            calls: Vec::new(),
            under_way: BTreeSet::new(),
            arrivals_until: epoch + arrivals_for,
            turned_away: 0,
            retries: 0,
            successes: 0,
            offered: Vec::new(),
        };
        world.at(Duration::ZERO, Happens::Names((0..shape.servers).collect()));
        for core in 0..shape.cores {
            let first = shape.pause.mul_f64(world.rng.f64());
            world.at(first, Happens::Arrives { core });
        }
        world
    }

    /// Lets something happen so long after the beginning.
    pub(crate) fn at(&mut self, after: Duration, happens: Happens) {
        self.schedule(self.epoch + after, happens);
    }

    /// Runs until nothing more happens, or that long after the beginning.
    pub(crate) fn run(&mut self, until: Duration) {
        let until = self.epoch + until;
        while let Some(Reverse((at, number))) = self.happenings.peek().copied() {
            if at > until {
                break;
            }
            self.happenings.pop();
            self.now = at;
            let happens = self.happens[number].take().expect("each thing happens once");
            self.happen(happens);
        }
        self.check();
    }

    pub(crate) fn held(&self) -> usize {
        self.batches.iter().filter(|batch| batch.ended.is_none()).count()
    }

    pub(crate) fn held_bytes(&self, core: usize) -> u64 {
        self.cores[core].lane.stats().snapshot().queue_bytes
    }

    pub(crate) fn since(&self, at: Instant) -> Duration {
        at - self.epoch
    }

    fn schedule(&mut self, at: Instant, happens: Happens) {
        self.happenings.push(Reverse((at, self.happens.len())));
        self.happens.push(Some(happens));
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Arrives { core } => self.arrives(core),
            Happens::Due { core } => self.send(core),
            Happens::Ends { call, turn } => {
                let is_current = self.calls[call].as_ref().is_some_and(|call| call.turn == turn);
                if is_current {
                    self.ends(call);
                }
            }
            Happens::Turns { server, mode } => self.turns(server, mode),
            Happens::Names(servers) => {
                let member = |server: usize| Member {
                    address: self.servers[server].address.clone(),
                    weight: 1 + server as u32 % 3,
                };
                let set: Vec<Member> = servers.into_iter().map(member).collect();
                self.endpoints.apply(self.now, &set);
            }
        }
    }

    fn arrives(&mut self, core: usize) {
        if self.now >= self.arrivals_until {
            return;
        }
        let batch = Arc::new(self.fresh());
        match self.cores[core].lane.offer(Arc::clone(&batch)) {
            Ok(()) => {
                let delivery = Delivery::new(Some(self.rng.u64(..)));
                let (arrived, first_tried, first_failed, due) = (self.now, None, None, None);
                self.cores[core].offered_items += batch.counts.items;
                let (met, ended) = (0, None);
                self.batches.push(Batch {
                    core,
                    batch,
                    delivery,
                    first_tried,
                    due,
                    arrived,
                    first_failed,
                    met,
                    ended,
                });
                self.send(core);
            }
            Err(_) => self.turned_away += 1,
        }
        self.check_limits(core);
        let pause = self.shape.pause.mul_f64(2.0 * self.rng.f64());
        self.schedule(self.now + pause, Happens::Arrives { core });
    }

    /// Named by its place among all.
    fn fresh(&mut self) -> batch::Batch {
        let seq = self.batches.len() as u64;
        let (bytes, items) = (self.sizes.u64(1..BATCH_BYTES), self.sizes.u64(1..100));
        batch::Batch {
            id: BatchId { receiver: 0, seq },
            signal: Signal::Logs,
            counts: Counts { items, profiles: 0 },
            bytes,
            chain: Vec::new(),
            may_fail_over: false,
        }
    }

    fn send(&mut self, core: usize) {
        while self.cores[core].idle > 0 {
            let Some(batch) = self.take(core) else {
                return;
            };
            self.cores[core].idle -= 1;
            self.batches[batch].first_tried.get_or_insert(self.now);
            self.step(batch);
        }
    }

    /// As a sender does: fresh batches and retries in turn.
    fn take(&mut self, core: usize) -> Option<usize> {
        self.cores[core].retry_first = !self.cores[core].retry_first;
        match self.cores[core].retry_first {
            true => self.take_due(core).or_else(|| self.take_fresh(core)),
            false => self.take_fresh(core).or_else(|| self.take_due(core)),
        }
    }

    fn take_fresh(&mut self, core: usize) -> Option<usize> {
        self.cores[core].lane.pop().map(|batch| batch.id.seq as usize)
    }

    /// No sooner than it is due, and nothing that was due before it.
    fn take_due(&mut self, core: usize) -> Option<usize> {
        let (seed, now) = (self.shape.seed, self.now);
        let Core { waiting, due, .. } = &mut self.cores[core];
        let first = due.first().map(|(at, _)| *at).filter(|at| *at <= now);
        let taken = waiting.take_due(now);
        let at = taken.and_then(|batch| self.batches[batch].due.take());
        assert_eq!(at, first, "seed {seed}: retries out of order");
        let batch = taken?;
        assert!(due.remove(&(at?, batch)), "seed {seed}: it comes back twice");
        Some(batch)
    }

    /// The sender that has this batch asks what to do with it.
    fn step(&mut self, batch: usize) {
        let now = self.now;
        let held = &mut self.batches[batch];
        let core = held.core;
        match self.cores[core].dispatcher.next(&mut held.delivery, now) {
            Step::Call(call) => self.begins(batch, call),
            Step::Wait { wait, .. } => self.waits(batch, wait),
            Step::GiveUp => self.gives_up(batch),
        }
    }

    fn begins(&mut self, batch: usize, call: Call) {
        self.retries += usize::from(self.batches[batch].delivery.calls() > 1);
        let address = call.endpoint().address();
        let server = self.servers.iter().position(|server| server.address == address);
        let server = server.expect("it was named");
        self.offered.push((server, self.now));
        self.batches[batch].met |= 1 << server;
        if call.is_probe() {
            let id = call.endpoint().id();
            let is_rival =
                |rival: &UnderWay| rival.call.is_probe() && rival.call.endpoint().id() == id;
            let under_way = self.under_way.iter().filter_map(|call| self.calls[*call].as_ref());
            let rivals = under_way.filter(|call| is_rival(call)).count();
            assert_eq!(rivals, 0, "seed {}: two probes at {address}", self.shape.seed);
        }
        let (takes, verdict) = self.servers[server].answers(self.rng.f64());
        let began = self.now;
        let number = self.calls.len();
        self.calls.push(Some(UnderWay { batch, server, call, began, verdict, turn: 0 }));
        self.under_way.insert(number);
        self.schedule(began + takes, Happens::Ends { call: number, turn: 0 });
    }

    fn ends(&mut self, call: usize) {
        self.under_way.remove(&call);
        let ended = self.calls[call].take().expect("its end is scheduled once a turn");
        let UnderWay { batch, server, call, verdict, .. } = ended;
        let is_delivered = matches!(verdict, Verdict::Delivered { .. });
        if is_delivered && self.servers[server].mode == Mode::LiesThenCloses {
            self.cut_off(server, |_| Some((Duration::ZERO, reset())));
        }
        self.successes += usize::from(is_delivered);
        let now = self.now;
        let held = &mut self.batches[batch];
        let core = &mut self.cores[held.core];
        if !is_delivered {
            held.first_failed.get_or_insert(now);
        }
        let (after, _) = core.dispatcher.ended(&mut held.delivery, call, now, &verdict);
        match after {
            After::Elsewhere => self.step(batch),
            After::Wait(wait) => self.waits(batch, wait),
            After::GiveUp => self.gives_up(batch),
            After::Delivered | After::Drop | After::Shrink => self.has_ended(batch, after),
        }
    }

    fn waits(&mut self, batch: usize, wait: Duration) {
        let (number, due) = (self.batches[batch].core, self.now + wait);
        self.batches[batch].due = Some(due);
        let core = &mut self.cores[number];
        core.waiting.add(batch, due);
        core.due.insert((due, batch));
        core.idle += 1;
        self.schedule(due, Happens::Due { core: number });
        self.send(number);
    }

    /// No batch ends twice, and its lane lets it go.
    fn has_ended(&mut self, batch: usize, after: After) {
        let (now, held) = (self.now, &mut self.batches[batch]);
        assert!(held.ended.is_none(), "seed {}: ended twice", self.shape.seed);
        held.ended = Some((now, after));
        let (number, core) = (held.core, &mut self.cores[held.core]);
        core.lane.let_go(&held.batch);
        core.idle += 1;
        self.send(number);
    }

    fn gives_up(&mut self, batch: usize) {
        let Shape { seed, age_max, .. } = self.shape;
        assert!(age_max.is_some(), "seed {seed}: given up without a limit");
        self.has_ended(batch, After::GiveUp);
    }

    fn turns(&mut self, server: usize, mode: Mode) {
        self.servers[server].mode = mode;
        let now = self.now;
        self.cut_off(server, |call| Server::cuts_off(mode, now - call.began));
    }

    /// Ends the calls under way to a server in another way than they would have.
    fn cut_off(&mut self, server: usize, how: impl Fn(&UnderWay) -> Option<(Duration, Verdict)>) {
        let numbers: Vec<usize> = self.under_way.iter().copied().collect();
        for number in numbers {
            let Some(call) = self.calls[number].as_mut().filter(|call| call.server == server)
            else {
                continue;
            };
            if let Some((takes, verdict)) = how(call) {
                call.verdict = verdict;
                call.turn += 1;
                let turn = call.turn;
                self.schedule(self.now + takes, Happens::Ends { call: number, turn });
            }
        }
    }

    fn check_limits(&self, core: usize) {
        let Shape { seed, held_max, bytes_max, .. } = self.shape;
        let lane = self.cores[core].lane.stats().snapshot();
        assert!(lane.queue_batches <= held_max as u64, "seed {seed}: {lane:?}");
        let most = bytes_max.map_or(u64::MAX, |bytes_max| bytes_max + BATCH_BYTES);
        assert!(lane.queue_bytes < most, "seed {seed}: {lane:?}");
    }

    fn check(&self) {
        let Shape { seed, .. } = self.shape;
        let seconds = (self.now - self.epoch).as_secs_f64();
        let settings = budget();
        let paid = f64::from(settings.tokens_max)
            + settings.min_per_second * seconds
            + settings.ratio * self.successes as f64;
        let retries = self.retries as f64;
        assert!(retries <= paid + 1.0, "seed {seed}: {retries} retries, {paid:.0} paid for");
        for (number, core) in self.cores.iter().enumerate() {
            let held = self.batches.iter().filter(|b| b.core == number && b.ended.is_none());
            let (batches, bytes) =
                held.fold((0, 0), |(batches, bytes), held| (batches + 1, bytes + held.batch.bytes));
            let lane = core.lane.stats().snapshot();
            let is_told = (lane.queue_batches, lane.queue_bytes, lane.offered_items);
            let expected = (batches, bytes, core.offered_items);
            assert_eq!(is_told, expected, "seed {seed}, core {number}: batches, bytes, items");
        }
        let outstanding = self.endpoints.fleet().outstanding() as usize;
        assert_eq!(outstanding, self.under_way.len(), "seed {seed}");
    }
}
