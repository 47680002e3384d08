//! One thread of the load: a ring, its connections, and when they send.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, End, Key, Ring};
use forebay_net::wake::Wake;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::schedule::Schedule;
use super::seal::Seal;
use super::tally::Tally;
use super::{
    CONNECTION_REQUESTS_MAX, Counts, LAST_ANSWERS, MEASURING, OPEN_TIMEOUT, PAUSE, Phase, Report,
    STOPPING, Settings, WAITING,
};
use crate::client::{Answer, Client, Heading, Outcome, Transport};
use crate::outbox::{Outbox, ring};
use crate::payload::Pool;

/// A connection's send holds about so much; the rest follows when it has left.
const SEND_BYTES: usize = 256 << 10;
const PULSE: Duration = Duration::from_millis(100);

struct Connection {
    key: Key,
    client: Client,
    /// `None`: in clear text.
    seal: Option<Box<Seal>>,
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

impl Connection {
    /// Connected, through its handshake, and ready for a request.
    fn is_open(&self) -> bool {
        self.client.has_room() && !self.seal.as_ref().is_some_and(|seal| seal.is_handshaking())
    }

    /// Bytes that wait for their send.
    fn waiting_bytes(&self) -> usize {
        self.outbox.filling.len() + self.seal.as_ref().map_or(0, |seal| seal.plain.len())
    }

    fn begin(&mut self, ticket: u32, body: &[u8]) {
        let out = self.seal.as_mut().map_or(&mut self.outbox.filling, |seal| &mut seal.plain);
        self.client.begin(ticket, body, out);
    }

    fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        let Some(seal) = &mut self.seal else {
            return self.client.handle(bytes, &mut self.outbox.filling, answers);
        };
        let opened = seal.open(bytes)?;
        let handled = match opened.is_empty() {
            true => Ok(()),
            false => self.client.handle(&opened, &mut seal.plain, answers),
        };
        seal.give_back(opened);
        handled
    }

    fn encrypt(&mut self) {
        if let Some(seal) = &mut self.seal {
            seal.put(&mut self.outbox.filling);
        }
    }
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
    /// `None`: in clear text.
    tls: Option<Tls>,
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
    tally: Tally,
    answers: Vec<Answer>,
    epoch: Instant,
    /// Requests are due, and every stream is taken: not the load's lateness.
    is_held_up: bool,
    is_stopping: bool,
}

/// How this thread's connections are encrypted.
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// What a server must agree on; HTTP/1.1 is what is spoken without any agreement.
    protocol: Option<&'static [u8]>,
}

impl Tls {
    fn of(settings: &Settings) -> Result<Option<Tls>, String> {
        if !settings.tls {
            return Ok(None);
        }
        let (alpn, protocol) = match settings.transport() {
            Transport::Http1 => ("http/1.1", None),
            _ => ("h2", Some(&b"h2"[..])),
        };
        let config = Arc::new(settings.trust.config(&[alpn])?);
        let name = settings.trust.server_name(&settings.target)?;
        Ok(Some(Tls { config, name, protocol }))
    }
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
            authority: settings.target.address.to_string(),
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
            target: settings.target.address,
            heading,
            requests_max,
            tls: Tls::of(settings)?,
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
            tally: Tally::new(settings, source, pool, counts),
            answers: Vec::new(),
            epoch: Instant::now(),
            is_held_up: false,
            is_stopping: false,
        };
        for index in 0..settings.connections {
            let connection = worker.open().map_err(|error| {
                format!(
                    "connection {} of {} to {} can't be opened: {error}",
                    index + 1,
                    settings.connections,
                    settings.target.address
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
            self.tally.is_measuring = is == MEASURING;
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
                self.tally.problem(format!("the load's ring failed: {error}"));
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
                self.tally.late((now - schedule.next()) / 1000);
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
            && connection.waiting_bytes() < SEND_BYTES
    }

    fn begin(&mut self, index: u32, since: u64) {
        let (first, body) = self.tally.begin();
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
        connection.begin(ticket, body);
        connection.in_flight += 1;
        connection.began += 1;
        self.open_requests += 1;
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
                connection.encrypt();
                self.tally.sent_bytes += connection.outbox.filling.len() as u64;
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
                    let bytes = self.ring.bytes(&chunk);
                    let outcome = connection.handle(bytes, &mut self.answers);
                    self.ring.give_back(chunk);
                    self.make_dirty(index);
                    self.make_ready(index);
                    self.answered(index, now);
                    if let Err(error) = outcome {
                        self.tally.problem(format!("a connection ended: {error}"));
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
        self.tally.settle(request.first, request.since, outcome, now);
    }

    // --- connections ---

    fn open(&mut self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.target, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        let key = self.ring.open(OwnedFd::from(stream));
        self.ring.receive(key);
        let mut outbox = Outbox::default();
        let mut seal = match &self.tls {
            Some(tls) => {
                let seal = Seal::new(&tls.config, &tls.name, tls.protocol);
                Some(Box::new(seal.map_err(std::io::Error::other)?))
            }
            None => None,
        };
        let first = seal.as_mut().map_or(&mut outbox.filling, |seal| &mut seal.plain);
        let client = Client::new(&self.heading, first);
        Ok(Connection {
            key,
            client,
            seal,
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
            let waiting = self.connections.iter().filter(|c| !c.is_open()).count();
            if waiting == 0 {
                return Ok(());
            }
            if Instant::now() > by || !self.tally.problems().is_empty() || self.tally.broken > 0 {
                return Err(format!(
                    "{waiting} of {} connections to {} do not speak {:?}: {}",
                    self.connections.len(),
                    self.target,
                    self.heading.transport,
                    self.tally.problems().first().map_or("no answer came", String::as_str)
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
        self.tally.broken += u64::from(!tickets.is_empty() || connection.began == 0);
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
                self.tally.problem(format!("{} takes no new connection: {error}", self.target));
            }
        }
    }

    fn report(mut self) -> Report {
        let now = self.now();
        let waiting: Vec<u32> =
            self.connections.iter_mut().flat_map(|c| c.client.abandon()).collect();
        if !waiting.is_empty() {
            let seconds = LAST_ANSWERS.as_secs();
            self.tally
                .problem(format!("{} requests had no answer after {seconds} s", waiting.len()));
        }
        for ticket in waiting {
            self.settle(ticket, Outcome::Reset(u32::MAX), now);
        }
        self.tally.report()
    }
}
