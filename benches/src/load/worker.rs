//! One thread of the load: a ring, its connections, and when they send.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, End, Key, Ring};
use forebay_net::wake::Wake;
use hdrhistogram::Histogram;

use super::ledger::{Known, Ledger};
use super::schedule::Schedule;
use super::{Counts, MEASURING, Phase, Report, STOPPING, Settings, WAITING, histogram};
use crate::client::{Answer, Client, Heading, Outcome, Transport};
use crate::items::Id;
use crate::outbox::{Outbox, ring};
use crate::payload::Pool;

/// How long connections may take to open, all of them together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers may take once nothing more is sent.
const LAST_ANSWERS: Duration = Duration::from_secs(35);
/// A refused request's stream pauses for so long.
const PAUSE: u64 = 100_000_000;
/// A connection's send holds about so much; the rest follows when it has left.
const SEND_BYTES: usize = 256 << 10;
const PULSE: Duration = Duration::from_millis(100);
/// HTTP/2 has streams for a few more requests than this.
const CONNECTION_REQUESTS_MAX: u64 = 1 << 29;

struct Connection {
    key: Key,
    client: Client,
    outbox: Outbox,
    in_flight: usize,
    /// Streams that pause after a refusal.
    paused: usize,
    began: u64,
    /// In `ready`, in `dirty`.
    is_ready: bool,
    is_dirty: bool,
    is_dead: bool,
}

/// A request without its answer.
#[derive(Clone, Copy)]
struct InFlight {
    connection: u32,
    /// The number of its first item.
    first: u64,
    /// Since when its latency counts.
    since: u64,
}

pub(super) struct Worker {
    target: SocketAddr,
    heading: Heading,
    requests_max: u64,
    id: Id,
    pool: Pool,
    ring: Uring,
    connections: Vec<Connection>,
    by_key: HashMap<Key, u32>,
    /// Connections that may have room, in turn.
    ready: VecDeque<u32>,
    /// Connections with something to send.
    dirty: Vec<u32>,
    paused: VecDeque<(u64, u32)>,
    in_flight: Vec<InFlight>,
    free: Vec<u32>,
    open_requests: usize,
    schedule: Option<Schedule>,
    ledger: Ledger,
    counts: Arc<Counts>,
    latencies: Histogram<u64>,
    outcomes: BTreeMap<Outcome, u64>,
    problems: Vec<String>,
    sent_bytes: u64,
    broken: u64,
    answers: Vec<Answer>,
    epoch: Instant,
    /// Requests are due, and every stream is taken: not the load's lateness.
    is_held_up: bool,
    is_measuring: bool,
    is_stopping: bool,
}

impl Worker {
    /// Opens all connections, and waits until each can take a request.
    pub(super) fn connect(
        settings: &Settings,
        source: u8,
        pool: Pool,
        counts: Arc<Counts>,
    ) -> Result<Worker, String> {
        let transport = settings.transport();
        let streams = if transport == Transport::Http1 { 1 } else { settings.streams.max(1) };
        let heading = Heading {
            transport,
            signal: settings.signal,
            encoding: settings.compression,
            authority: settings.target.to_string(),
            streams,
        };
        let schedule = (settings.rate > 0.0).then(|| {
            Schedule::new(settings.arrivals, settings.rate, settings.seed ^ u64::from(source))
        });
        let requests_max = match settings.churn {
            0 => CONNECTION_REQUESTS_MAX,
            some => some.min(CONNECTION_REQUESTS_MAX),
        };
        let mut worker = Worker {
            target: settings.target,
            heading,
            requests_max,
            id: Id { run: settings.run, source, sequence: 0 },
            ledger: Ledger::new(source, pool.items, pool.is_repeating),
            pool,
            ring: ring()?,
            connections: Vec::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            paused: VecDeque::new(),
            in_flight: Vec::new(),
            free: Vec::new(),
            open_requests: 0,
            schedule,
            counts,
            latencies: histogram(),
            outcomes: BTreeMap::new(),
            problems: Vec::new(),
            sent_bytes: 0,
            broken: 0,
            answers: Vec::new(),
            epoch: Instant::now(),
            is_held_up: false,
            is_measuring: false,
            is_stopping: false,
        };
        for index in 0..settings.connections {
            let connection = worker.open().map_err(|error| {
                format!(
                    "connection {} of {} to {} can't be opened: {error}",
                    index + 1,
                    settings.connections,
                    settings.target
                )
            })?;
            worker.add(index as u32, connection);
        }
        worker.wait_until_open()?;
        Ok(worker)
    }

    pub(super) fn wake(&self) -> Arc<Wake> {
        self.ring.wake()
    }

    /// Until the phase says to stop and the last answer came.
    pub(super) fn run(mut self, phase: &Phase) -> Report {
        let wake = self.ring.wake();
        let mut stop_by = None;
        let mut was = WAITING;
        loop {
            let is = phase.read();
            if was == WAITING && is != WAITING {
                self.epoch = Instant::now();
            }
            was = is;
            self.is_measuring = is == MEASURING;
            if is == STOPPING {
                self.is_stopping = true;
                let by = *stop_by.get_or_insert_with(|| Instant::now() + LAST_ANSWERS);
                if self.open_requests == 0 || Instant::now() > by {
                    return self.report();
                }
            } else if is != WAITING {
                self.issue();
            }
            self.flush_all();
            wake.about_to_sleep();
            if phase.read() != is {
                wake.awake();
                continue;
            }
            let outcome = self.ring.wait(Some(self.timeout()));
            wake.awake();
            if let Err(error) = outcome {
                self.problems.push(format!("the load's ring failed: {error}"));
                return self.report();
            }
            self.take_what_is_done();
        }
    }

    fn timeout(&self) -> Duration {
        let now = self.now();
        let scheduled = self.schedule.as_ref().filter(|_| !self.ready.is_empty());
        let paused = self.paused.front().map(|(due, _)| *due);
        let due = scheduled.map(Schedule::next).into_iter().chain(paused).min();
        due.map_or(PULSE, |due| Duration::from_nanos(due.saturating_sub(now)).min(PULSE))
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    // --- sending ---

    fn issue(&mut self) {
        let now = self.now();
        while self.paused.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, index)) = self.paused.pop_front() {
                self.connections[index as usize].paused -= 1;
                self.make_ready(index);
            }
        }
        match self.schedule.take() {
            None => self.issue_all(now),
            Some(mut schedule) => {
                self.issue_due(now, &mut schedule);
                self.schedule = Some(schedule);
            }
        }
    }

    /// Closed loop: whoever has room sends.
    fn issue_all(&mut self, now: u64) {
        while let Some(index) = self.ready.pop_front() {
            self.connections[index as usize].is_ready = false;
            while self.has_room(index) {
                self.begin(index, now);
            }
        }
    }

    /// Open mode: what is due is sent, each on the next connection in turn.
    fn issue_due(&mut self, now: u64, schedule: &mut Schedule) {
        let mut is_first = !std::mem::take(&mut self.is_held_up);
        while schedule.next() <= now {
            let Some(index) = self.ready.pop_front() else {
                self.is_held_up = true;
                return;
            };
            self.connections[index as usize].is_ready = false;
            if !self.has_room(index) {
                continue;
            }
            if std::mem::take(&mut is_first) {
                let late_us = (now - schedule.next()) / 1000;
                if self.is_measuring {
                    self.counts.late_us_max.fetch_max(late_us, Ordering::Relaxed);
                }
            }
            self.begin(index, schedule.next());
            schedule.advance();
            if self.has_room(index) {
                self.make_ready(index);
            }
        }
    }

    fn has_room(&self, index: u32) -> bool {
        let connection = &self.connections[index as usize];
        !connection.is_dead
            && connection.client.has_room()
            && connection.in_flight + connection.paused < self.heading.streams
            && connection.began < self.requests_max
            && connection.outbox.filling.len() < SEND_BYTES
    }

    fn begin(&mut self, index: u32, since: u64) {
        let fresh = Id { sequence: self.ledger.take(), ..self.id };
        let place = self.pool.next(fresh);
        let request = &self.pool.requests[place];
        let first = if self.pool.is_repeating { request.first } else { fresh.sequence };
        let in_flight = InFlight { connection: index, first, since };
        let ticket = match self.free.pop() {
            Some(ticket) => {
                self.in_flight[ticket as usize] = in_flight;
                ticket
            }
            None => {
                self.in_flight.push(in_flight);
                self.in_flight.len() as u32 - 1
            }
        };
        let connection = &mut self.connections[index as usize];
        connection.client.begin(ticket, &request.body, &mut connection.outbox.filling);
        connection.in_flight += 1;
        connection.began += 1;
        self.open_requests += 1;
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        self.make_dirty(index);
    }

    fn make_ready(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(index);
        }
    }

    fn make_dirty(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(index);
        }
    }

    fn flush_all(&mut self) {
        for index in self.dirty.drain(..) {
            let connection = &mut self.connections[index as usize];
            connection.is_dirty = false;
            if !connection.is_dead && !connection.outbox.is_sending() {
                self.sent_bytes += connection.outbox.filling.len() as u64;
                connection.outbox.flush(&mut self.ring, connection.key);
            }
        }
    }

    // --- receiving ---

    fn take_what_is_done(&mut self) {
        let now = self.now();
        while let Some(done) = self.ring.next_done() {
            match done {
                Done::Received { key, chunk } => {
                    let Some(&index) = self.by_key.get(&key) else {
                        self.ring.give_back(chunk);
                        continue;
                    };
                    let connection = &mut self.connections[index as usize];
                    let out = &mut connection.outbox.filling;
                    let bytes = self.ring.bytes(&chunk);
                    let outcome = connection.client.handle(bytes, out, &mut self.answers);
                    self.ring.give_back(chunk);
                    self.make_dirty(index);
                    self.make_ready(index);
                    self.answered(index, now);
                    if let Err(error) = outcome {
                        self.problem(format!("a connection ended: {error}"));
                        self.broke(index, now);
                    }
                }
                Done::Sent { key } => {
                    if let Some(&index) = self.by_key.get(&key) {
                        self.connections[index as usize].outbox.sent();
                        self.make_dirty(index);
                        self.make_ready(index);
                    }
                }
                Done::ReceiveEnded { key, end: End::Again | End::NoBuffers } => {
                    self.ring.receive(key);
                }
                Done::ReceiveEnded { key, .. } | Done::SendFailed { key, .. } => {
                    if let Some(&index) = self.by_key.get(&key) {
                        self.broke(index, now);
                    }
                }
                _ => {}
            }
        }
    }

    fn answered(&mut self, index: u32, now: u64) {
        let mut answers = std::mem::take(&mut self.answers);
        for answer in answers.drain(..) {
            self.settle(answer.ticket, answer.outcome, now);
            if answer.outcome == Outcome::Refused && self.schedule.is_none() {
                self.connections[index as usize].paused += 1;
                self.paused.push_back((now + PAUSE, index));
            }
        }
        self.answers = answers;
        let connection = &self.connections[index as usize];
        if connection.began >= self.requests_max && connection.in_flight == 0 {
            self.reopen(index);
        }
    }

    fn settle(&mut self, ticket: u32, outcome: Outcome, now: u64) {
        let request = self.in_flight[ticket as usize];
        self.free.push(ticket);
        self.open_requests -= 1;
        self.connections[request.connection as usize].in_flight -= 1;
        *self.outcomes.entry(outcome).or_default() += 1;
        let add = |count: &std::sync::atomic::AtomicU64, n| count.fetch_add(n, Ordering::Relaxed);
        let known = match outcome {
            Outcome::Ok => {
                add(&self.counts.ok, 1);
                add(&self.counts.ok_items, self.pool.items);
                if self.is_measuring {
                    self.latencies.saturating_record(now.saturating_sub(request.since).max(1));
                }
                Known::Taken
            }
            Outcome::Refused => {
                add(&self.counts.refused, 1);
                Known::NotTaken
            }
            _ => {
                add(&self.counts.failed, 1);
                Known::Unknown
            }
        };
        self.ledger.note(request.first, known);
    }

    // --- connections ---

    fn open(&mut self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.target, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        let key = self.ring.open(OwnedFd::from(stream));
        self.ring.receive(key);
        let mut outbox = Outbox::default();
        let client = Client::new(&self.heading, &mut outbox.filling);
        Ok(Connection {
            key,
            client,
            outbox,
            in_flight: 0,
            paused: 0,
            began: 0,
            is_ready: false,
            is_dirty: false,
            is_dead: false,
        })
    }

    fn add(&mut self, index: u32, connection: Connection) {
        self.by_key.insert(connection.key, index);
        match self.connections.get_mut(index as usize) {
            Some(place) => *place = connection,
            None => self.connections.push(connection),
        }
        self.make_dirty(index);
        self.make_ready(index);
    }

    fn wait_until_open(&mut self) -> Result<(), String> {
        let by = Instant::now() + OPEN_TIMEOUT;
        loop {
            self.flush_all();
            let waiting = self.connections.iter().filter(|c| !c.client.has_room()).count();
            if waiting == 0 {
                return Ok(());
            }
            if Instant::now() > by || !self.problems.is_empty() || self.broken > 0 {
                return Err(format!(
                    "{waiting} of {} connections to {} do not speak {:?}: {}",
                    self.connections.len(),
                    self.target,
                    self.heading.transport,
                    self.problems.first().map_or("no answer came", String::as_str)
                ));
            }
            self.ring.wait(Some(PULSE)).map_err(|error| format!("the load's ring: {error}"))?;
            self.take_what_is_done();
        }
    }

    /// The connection is gone, and not because we wanted it.
    fn broke(&mut self, index: u32, now: u64) {
        let connection = &mut self.connections[index as usize];
        if connection.is_dead {
            return;
        }
        let tickets = connection.client.abandon();
        self.broken += u64::from(!tickets.is_empty() || connection.began == 0);
        for ticket in tickets {
            // Nobody knows what became of it; the outcome tells it apart from a reset stream.
            self.settle(ticket, Outcome::Reset(u32::MAX), now);
        }
        self.reopen(index);
    }

    fn reopen(&mut self, index: u32) {
        let old = &mut self.connections[index as usize];
        old.is_dead = true;
        let paused = old.paused;
        let (is_ready, is_dirty) = (old.is_ready, old.is_dirty);
        self.by_key.remove(&old.key);
        self.ring.close(old.key);
        if self.is_stopping {
            return;
        }
        match self.open() {
            Ok(connection) => {
                // What lies in the queues under this index is the new connection's now.
                self.add(index, Connection { paused, is_ready, is_dirty, ..connection });
            }
            Err(error) => {
                self.problem(format!("{} takes no new connection: {error}", self.target));
            }
        }
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < 10 {
            self.problems.push(problem);
        }
    }

    fn report(mut self) -> Report {
        let now = self.now();
        let waiting: Vec<u32> =
            self.connections.iter_mut().flat_map(|c| c.client.abandon()).collect();
        if !waiting.is_empty() {
            let seconds = LAST_ANSWERS.as_secs();
            self.problem(format!("{} requests had no answer after {seconds} s", waiting.len()));
        }
        for ticket in waiting {
            self.settle(ticket, Outcome::Reset(u32::MAX), now);
        }
        Report {
            claims: self.ledger.into_claims(),
            latencies: self.latencies,
            outcomes: self.outcomes,
            problems: self.problems,
            sent_bytes: self.sent_bytes,
            connections_broken: self.broken,
        }
    }
}
