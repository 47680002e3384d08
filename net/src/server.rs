//! The connections of one receiver core: completions of the ring in, complete requests out.
//!
//! One [`Server`] lives on one thread and is driven by its owner's loop:
//! [`Server::wait`] sleeps in the ring, [`Server::poll`] takes what was done and yields requests,
//! [`Server::answer`] gives an answer, [`Server::flush`] queues what is due before the next sleep.
//! Who spreads connections over several servers takes the fresh ones out ([`Server::take_fresh`])
//! and gives each to the one where it shall live ([`Server::adopt`]).
//!
//! Always
//! - Every connection has a deadline for whatever it is waiting for (or idles without limit, if
//!   so configured), and one entry in the timer heap.
//! - A connection that does not read its answers is not read either: its memory is bounded.
//! - An error on one connection ends that connection and nothing else.

mod connection;
mod datagrams;
mod extras;
pub(crate) mod handshakes;
pub mod lifetime;
pub mod listen;
pub mod listen_datagrams;
mod received;
mod sealed;
mod stats;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::connection::Connection;
use self::datagrams::Datagrams;
pub use self::datagrams::{DatagramStats, QuicListener};
use self::extras::Extras;
use self::handshakes::Handshakes;
use self::lifetime::{Age, Chance, Lifetime, Step};
use self::received::count_tls;
pub use self::stats::{PreflightStats, ServerStats};
use crate::quic;
use crate::request::{Answer, Door, Limits, Nanos, Request, RequestId, Standing, Turn};
use crate::ring::{Done, End, Key, Ring, Rung};
use crate::tls::Acceptor;
use crate::wake::Wake;

/// After an accept failed (no descriptor left, say), the next try waits this long.
const ACCEPT_RETRY: Nanos = 100_000_000;
/// Beyond a few per open connection, dead entries of the timer heap are cleared away.
const TIMERS_SPARE: usize = 1024;
/// A finished connection is read this long, and this far, for the end of what the peer sends.
const LINGER: Nanos = 2_000_000_000;
const LINGER_BYTES_MAX: usize = 16 << 20;
/// What comes after our end, if it is so much, is no last word that crossed ours.
const FLOOD_BYTES_MIN: usize = 16 << 10;

pub struct Server<R: Ring> {
    ring: R,
    /// By listener.
    limits: Vec<Limits>,
    lifetimes: Vec<Lifetime>,
    chance: Chance,
    connections_max: usize,
    /// By listener.
    acceptors: Vec<Option<Arc<Acceptor>>>,
    handshakes_max: u64,
    handshakes: Handshakes,
    /// When it may be said again that a client took a cleartext port for one with TLS, and the
    /// other way round.
    say_again_at: [Nanos; 2],
    /// Accepted, and not opened yet.
    fresh: VecDeque<(u16, R::Socket)>,
    holds_fresh: bool,
    connections: Vec<Option<Box<Connection>>>,
    open: usize,
    touched: Vec<Key>,
    /// When to look at a connection: only the entry that is its `timer_at` counts, so a deadline
    /// that moves away costs nothing.
    timers: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    /// When to accept again on every listener that stopped.
    accept_again_at: Option<Nanos>,
    draining: bool,
    stats: ServerStats,
    date: String,
    date_until: Nanos,
    /// None where no QUIC is served.
    datagrams: Option<Box<Datagrams>>,
    /// None where no answer carries more than the door says.
    extras: Option<Box<Extras>>,
}

impl<R: Ring> Server<R> {
    /// Accepts on `sockets`: their order gives [`crate::request::Head::listener`].
    pub fn new(mut ring: R, limits: Limits, sockets: Vec<R::Socket>) -> Server<R> {
        let lifetime = Lifetime { idle_timeout: limits.idle_timeout, ..Lifetime::default() };
        let listeners = sockets.len();
        for socket in sockets {
            ring.listen(socket);
        }
        Server {
            ring,
            limits: vec![limits; listeners],
            lifetimes: vec![lifetime; listeners],
            chance: Chance(0),
            connections_max: limits.connections_max,
            acceptors: vec![None; listeners],
            handshakes_max: u64::MAX,
            handshakes: Handshakes::default(),
            say_again_at: [0; 2],
            fresh: VecDeque::new(),
            holds_fresh: false,
            connections: Vec::new(),
            open: 0,
            touched: Vec::new(),
            timers: BinaryHeap::new(),
            accept_again_at: None,
            draining: false,
            stats: ServerStats::default(),
            date: String::new(),
            date_until: 0,
            datagrams: None,
            extras: None,
        }
    }

    /// How old connections get, by listener. `seed`: servers with different ones let their
    /// connections go at different times.
    pub fn with_lifetimes(mut self, lifetimes: &[Lifetime], seed: u64) -> Server<R> {
        for (listener, lifetime) in lifetimes.iter().enumerate().take(self.limits.len()) {
            self.limits[listener].idle_timeout = lifetime.idle_timeout;
            self.lifetimes[listener] = *lifetime;
        }
        self.chance = Chance(seed);
        self
    }

    /// Which listeners speak TLS, and how many handshakes may be under way at once: beyond that
    /// those that stall give way to new ones, and if none does the new ones are sent away.
    pub fn with_tls(
        mut self,
        acceptors: Vec<Option<Arc<Acceptor>>>,
        handshakes_max: usize,
    ) -> Server<R> {
        self.acceptors = acceptors;
        self.acceptors.resize(self.limits.len(), None);
        self.handshakes_max = handshakes_max as u64;
        self
    }

    /// From now on whoever drives this server takes each fresh connection ([`Server::take_fresh`])
    /// and says where it lives.
    pub fn hold_fresh(&mut self) {
        self.holds_fresh = true;
    }

    /// The next connection that was accepted and waits for a place, and its listener.
    pub fn take_fresh(&mut self) -> Option<(u16, R::Socket)> {
        self.fresh.pop_front()
    }

    pub fn rung(&self) -> Rung {
        self.ring.rung()
    }

    /// What others use to end this server's wait.
    pub fn wake(&self) -> Arc<Wake> {
        self.ring.wake()
    }

    pub fn stats(&self) -> ServerStats {
        let (ring, datagrams) = (self.ring.stats(), self.datagram_stats());
        let preflights = self.preflights();
        ServerStats { connections: self.open as u64, ring, datagrams, preflights, ..self.stats }
    }

    /// Open connections, those of QUIC excepted.
    pub fn connections(&self) -> usize {
        self.open
    }

    /// Submits what is queued and sleeps until something is done, somebody wakes us, `timeout`
    /// has passed, or a connection's deadline has.
    pub fn wait(&mut self, now: Nanos, timeout: Duration) -> io::Result<()> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let retry = self.accept_again_at;
        let due = [timer, retry, self.quic_due()].into_iter().flatten().min();
        let until = due.map_or(timeout, |at| Duration::from_nanos(at.saturating_sub(now)));
        self.ring.wait(Some(timeout.min(until)))
    }

    /// Takes an accepted connection as its own; `socket` may come from another server's ring of
    /// the same kind.
    pub fn adopt(&mut self, listener: u16, socket: R::Socket, now: Nanos) {
        if self.open >= self.connections_max {
            self.stats.over_limit += 1;
            return;
        }
        if self.draining {
            return;
        }
        self.stats.accepted += 1;
        self.open += 1;
        let key = self.ring.open(socket);
        let index = key.index as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        let age = Age::new(&self.lifetimes[usize::from(listener)], self.chance.draw(), now);
        let acceptor = self.acceptors[usize::from(listener)].as_deref();
        let connection = Connection::new(key, listener, acceptor, age, now);
        self.connections[index] = Some(Box::new(connection));
        self.ring.receive(key);
        self.schedule(key, now);
    }

    /// Takes what the ring did and what time did, and appends the requests that are complete.
    pub fn poll(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.refresh_date(now);
        while let Some(done) = self.ring.next_done() {
            self.handle(done, now, door, requests);
        }
        self.handle_timers(now, door, requests);
        self.poll_quic(now, door, requests);
        self.settle_touched(now, door, requests);
    }

    /// Gives an answer. It leaves with the next [`Server::flush`]; a request whose connection is
    /// gone is answered to nobody.
    pub fn answer(
        &mut self,
        id: RequestId,
        mut answer: Answer,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        self.complete(id, &mut answer);
        if quic::owns(id.key) {
            return self.answer_quic(id, answer, now, door, requests);
        }
        self.with(id.key, now, door, requests, |connection, turn| {
            connection.core_answer(id.stream, answer, turn);
        });
    }

    /// Says a message of the answer to a streamed request, which [`Server::answer`] ends.
    pub fn say(
        &mut self,
        id: RequestId,
        message: Answer,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        self.with(id.key, now, door, requests, |connection, turn| {
            connection.core_message(id.stream, message, turn);
        });
    }

    /// Queues sends and receives for every connection that something happened to. May append
    /// requests that waited behind the answered ones.
    pub fn flush(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.settle_touched(now, door, requests);
        self.send_datagrams(now);
    }

    /// Stops accepting and tells every peer: what is in flight is answered, then they close. To be
    /// followed by [`Server::poll`]: what the ring has done already comes before what is new.
    pub fn drain(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.accept_again_at = None;
        self.fresh.clear();
        self.ring.stop_listening();
        for key in self.keys() {
            self.with(key, now, door, requests, Connection::drain);
        }
        self.drain_quic(now, door, requests);
    }

    /// Whether any peer is still owed something: an answer, bytes of one, or the time to hear
    /// that we go.
    pub fn is_busy(&mut self) -> bool {
        let is_quic_busy = self.is_quic_busy();
        let ring = &mut self.ring;
        is_quic_busy
            || self.connections.iter().flatten().any(|c| c.owes() || ring.is_sending(c.key))
    }

    /// Whether a finished connection is still read to its end.
    pub fn is_lingering(&self) -> bool {
        self.connections.iter().flatten().any(|c| c.lingering_until.is_some())
    }

    fn keys(&self) -> Vec<Key> {
        self.connections.iter().flatten().map(|connection| connection.key).collect()
    }

    fn handle(
        &mut self,
        done: Done<R::Socket>,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        match done {
            Done::Woken => {}
            Done::Datagrams { chunk, .. } => self.datagrams_came(chunk, now),
            Done::DatagramsEnded { end, .. } => self.datagrams_ended(&end, now),
            Done::DatagramsSent { error, .. } => self.datagrams_sent(error.as_ref()),
            Done::Accepted { listener, socket } if self.holds_fresh => {
                self.fresh.push_back((listener, socket));
            }
            Done::Accepted { listener, socket } => self.adopt(listener, socket, now),
            Done::AcceptEnded { listener, error } => self.accept_ended(listener, error, now),
            Done::Received { key, chunk } => self.received(key, chunk, now, door, requests),
            Done::ReceivedInto { key, buffer } => {
                self.with(key, now, door, requests, |connection, turn| {
                    connection.return_body(buffer, turn);
                });
            }
            Done::ReceiveIntoEnded { key, buffer, end } => {
                self.with(key, now, door, requests, |connection, turn| {
                    connection.return_body(buffer, turn);
                });
                self.receive_ended(key, end, now, door, requests);
            }
            Done::ReceiveEnded { key, end } => self.receive_ended(key, end, now, door, requests),
            Done::Sent { key } => self.with(key, now, door, requests, |connection, turn| {
                connection.handle_sent(turn);
            }),
            Done::SendFailed { key, error } => {
                tracing::debug!(%error, "a connection broke while it was sent to");
                self.close(key, now, door, requests);
            }
        }
    }

    /// Sees to it that the timer heap wakes us no later than the connection's deadline; never in
    /// this pass again, so that no connection can keep the pass from ending.
    fn schedule(&mut self, key: Key, now: Nanos) {
        let Some(connection) = find(&mut self.connections, key) else {
            return;
        };
        let limits = &self.limits[usize::from(connection.listener)];
        if let Some(deadline) = connection.deadline(limits).map(|at| at.max(now + 1))
            && deadline < connection.timer_at
        {
            connection.timer_at = deadline;
            self.timers.push(Reverse((deadline, key.index, key.generation)));
            if self.timers.len() > 4 * self.open + TIMERS_SPARE {
                self.forget_dead_timers();
            }
        }
    }

    /// Entries of connections that are gone, or that have an earlier one, or the same once more,
    /// would stay until due.
    fn forget_dead_timers(&mut self) {
        let connections = &mut self.connections;
        let mut timers = std::mem::take(&mut self.timers).into_vec();
        timers.sort_unstable();
        timers.dedup();
        timers.retain(|Reverse((at, index, generation))| {
            let key = Key { index: *index, generation: *generation };
            find(connections, key).is_some_and(|connection| connection.timer_at == *at)
        });
        self.timers = BinaryHeap::from(timers);
    }

    fn accept_ended(&mut self, listener: u16, error: Option<io::Error>, now: Nanos) {
        if self.draining {
            return;
        }
        match error {
            None => self.ring.accept(listener),
            Some(error) => {
                if self.stats.accept_errors == 0 {
                    tracing::error!(
                        %error,
                        "Accepting failed: new connections wait. Raise `LimitNOFILE` if the error \
                         is about files; the next failures are only counted"
                    );
                }
                self.stats.accept_errors += 1;
                self.accept_again_at = Some(now + ACCEPT_RETRY);
            }
        }
    }

    fn receive_ended(
        &mut self,
        key: Key,
        end: End,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        match end {
            End::Eof => self.with(key, now, door, requests, Connection::handle_eof),
            End::Again | End::NoBuffers => self.with(key, now, door, requests, |_, _| {}),
            End::Failed(error) => {
                tracing::debug!(%error, "a connection broke while it was received from");
                self.close(key, now, door, requests);
            }
        }
    }

    fn handle_timers(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        if self.accept_again_at.take_if(|at| *at <= now).is_some() {
            self.ring.accept_everywhere();
        }
        while let Some(Reverse((at, index, generation))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let key = Key { index, generation };
            let Some(connection) = find(&mut self.connections, key) else {
                continue;
            };
            if connection.timer_at != at {
                continue;
            }
            connection.timer_at = Nanos::MAX;
            let limits = &self.limits[usize::from(connection.listener)];
            match connection.grow_old(now) {
                Some(Step::Retire) => {
                    self.stats.aged += 1;
                    self.with(key, now, door, requests, Connection::retire);
                }
                Some(Step::Cut) => {
                    self.close(key, now, door, requests);
                    continue;
                }
                None if connection.deadline(limits).is_none_or(|deadline| deadline > now) => {}
                None if connection.is_past_saving(now, limits) => {
                    self.stats.timeouts += 1;
                    self.close(key, now, door, requests);
                    continue;
                }
                None => {
                    self.stats.timeouts += 1;
                    self.with(key, now, door, requests, Connection::handle_timeout);
                }
            }
            self.schedule(key, now);
        }
    }

    fn settle_touched(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            self.settle(key, now, door, requests);
        }
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    /// Sends what is due, reads on where more is wanted, and ends what has ended.
    fn settle(&mut self, key: Key, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        let Some(connection) = find(&mut self.connections, key) else {
            return;
        };
        connection.touched = false;
        let output = match self.ring.is_sending(key) {
            true => None,
            false => Some(connection.take_output()).filter(|output| !output.is_empty()),
        };
        if let Some(output) = output {
            self.stats.sent_bytes += output.len() as u64;
            connection.sending_since = Some(now);
            self.ring.send(key, output);
        }
        if connection.wears_out() {
            self.stats.aged += 1;
            self.with(key, now, door, requests, Connection::retire);
        }
        let Some(connection) = find(&mut self.connections, key) else {
            return;
        };
        let sending = self.ring.is_sending(key);
        match connection.standing() {
            _ if connection.lingering_until.is_some() => {}
            Standing::Finish if !sending => return self.close(key, now, door, requests),
            Standing::FinishThenLinger if !sending => {
                if connection.eof {
                    return self.close(key, now, door, requests);
                }
                self.ring.finish_sending(key);
                connection.lingering_until = Some(now + LINGER);
            }
            _ => {}
        }
        if connection.lingering_until.is_some() && connection.eof {
            return self.close(key, now, door, requests);
        }
        self.receive_if_wanted(key);
        self.schedule(key, now);
    }

    fn receive_if_wanted(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else {
            return;
        };
        let receiving = self.ring.is_receiving(key);
        if !connection.wants_input() {
            if receiving && !connection.eof {
                self.ring.stop_receiving(key);
            }
            return;
        }
        if connection.wants_direct() {
            if receiving {
                // What still comes before the end goes the usual way.
                self.ring.stop_receiving(key);
            } else if let Some((buffer, bytes_max)) = connection.lend_body() {
                self.ring.receive_into(key, buffer, bytes_max);
            }
        } else if !receiving {
            self.ring.receive(key);
        }
    }

    fn close(&mut self, key: Key, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.with(key, now, door, requests, Connection::handle_closed);
        if let Some(connection) = find(&mut self.connections, key) {
            count_tls(connection, &mut self.stats.tls);
        }
        if let Some(slot) = self.connections.get_mut(key.index as usize)
            && slot.as_ref().is_some_and(|connection| connection.key == key)
        {
            let is_flooded = slot.as_ref().is_some_and(|connection| connection.is_flooded());
            *slot = None;
            self.open -= 1;
            self.stats.closed += 1;
            match is_flooded {
                true => self.ring.reset(key),
                false => self.ring.close(key),
            }
        }
    }

    fn with(
        &mut self,
        key: Key,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
        act: impl FnOnce(&mut Connection, &mut Turn<'_>),
    ) {
        let Some(connection) = find(&mut self.connections, key) else {
            return;
        };
        let (listener, first, mut porch) = (connection.listener, requests.len(), None);
        let extras = self.extras.as_deref();
        let mut turn = Turn {
            now,
            key,
            listener,
            limits: &self.limits[usize::from(listener)],
            peer: connection.peer().cloned(),
            door: extras::before(extras, listener, self.draining, door, &mut porch),
            requests,
            date: &self.date,
        };
        act(connection, &mut turn);
        touch(connection, &mut self.touched);
        extras::note(&mut self.extras, listener, &requests[first..]);
    }

    fn refresh_date(&mut self, now: Nanos) {
        if now >= self.date_until {
            self.date = httpdate::fmt_http_date(wall_clock());
            self.date_until = now + 1_000_000_000;
        }
    }
}

/// Once a second, for the `Date` header alone.
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn find(connections: &mut [Option<Box<Connection>>], key: Key) -> Option<&mut Connection> {
    let connection = connections.get_mut(key.index as usize)?.as_deref_mut()?;
    (connection.key == key).then_some(connection)
}

fn touch(connection: &mut Connection, touched: &mut Vec<Key>) {
    if !connection.touched {
        connection.touched = true;
        touched.push(connection.key);
    }
}
