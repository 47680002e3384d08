//! What a core does with and for its neighbours: connections and requests that move, and answers.
//!
//! Always
//! - A connection is counted at the core that has it, from the moment it is given away.
//! - What a request holds of a budget is held at its origin until the neighbour's budget has it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use forebay_codec::compress::Encoding;
use forebay_net::request::{Nanos, Request};
use forebay_net::ring::Ring;

use super::{Shard, ShardStats};
use crate::ingest::answers::Form;
use crate::ingest::route::Route;
use crate::neighbours::{Asker, Moved, Reply};
use crate::services::Method;
use crate::spread::{FULL, JSON_WEIGHT, MEASURE_NANOS, Meter, PACKED_WEIGHT, RECEIVE_WEIGHT};
use crate::spread::{RECEIVE_WEIGHT_MIN, is_hot, is_worth_the_way};

/// A core that sleeps after it was busy looks once more, so that nobody takes it for busy still.
const BUSY: u32 = FULL / 20;
const AFTERGLOW: Duration = Duration::from_nanos(4 * MEASURE_NANOS);

/// A core's dealings with the others.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    pub(super) meter: Meter,
    ran: Meter,
    load: u32,
    /// Connections that got their place here, and those of them that others know to have ended.
    placed: u64,
    closed_known: u64,
    connections_given: u64,
    connections_taken: u64,
    requests_given: u64,
    requests_taken: u64,
    requests_returned: u64,
    /// Empty between turns.
    staying: Vec<Request>,
}

impl Sharing {
    /// How long this core may sleep on account of what it shows.
    pub(super) fn patience(&self) -> Duration {
        if self.load >= BUSY { AFTERGLOW } else { Duration::MAX }
    }

    pub(super) fn publish(&self, stats: &ShardStats) {
        stats.load.set(u64::from(self.load));
        stats.connections_given.set(self.connections_given);
        stats.connections_taken.set(self.connections_taken);
        stats.requests_given.set(self.requests_given);
        stats.requests_taken.set(self.requests_taken);
        stats.requests_returned.set(self.requests_returned);
    }
}

impl<R: Ring> Shard<R> {
    /// For how long the thread `ran` since it began, and `waited` for its CPU.
    pub(super) fn measure(&mut self, now: Nanos, ran: Nanos, waited: Nanos) {
        self.sharing.load = self.sharing.meter.look(now, ran + waited);
        self.neighbours.show_load(self.sharing.load, self.sharing.ran.look(now, ran));
    }

    /// Finds a place for each connection that was accepted, and takes those that others gave.
    pub(super) fn place_connections(&mut self, now: Nanos) {
        while let Some((listener, socket)) = self.server.take_fresh() {
            match self.neighbours.place(listener, socket) {
                Some(socket) => {
                    self.sharing.placed += 1;
                    self.server.adopt(listener, socket, now);
                }
                None => self.sharing.connections_given += 1,
            }
        }
        if self.neighbours.is_alone() {
            return;
        }
        while let Some((listener, socket)) = self.neighbours.take_socket() {
            self.sharing.placed += 1;
            self.sharing.connections_taken += 1;
            self.server.adopt(listener, socket, now);
        }
        let closed = self.sharing.placed - self.server.connections() as u64;
        self.neighbours.closed((closed - self.sharing.closed_known) as u32);
        self.sharing.closed_known = closed;
    }

    /// Gives away what neighbours do sooner, if this core is hot.
    pub(super) fn share(&mut self, requests: &mut Vec<Request>) {
        if self.neighbours.is_alone() || requests.is_empty() {
            return;
        }
        let mut here: u64 = requests.iter().map(weight).sum();
        if is_hot(self.sharing.load) && !self.ingest.draining {
            let care = requests.iter().map(receive_weight).sum();
            // What stays keeps its order: parts of one call may be among it.
            let mut staying = std::mem::take(&mut self.sharing.staying);
            for request in requests.drain(..) {
                let weight = weight(&request);
                let kept = match is_worth_the_way(weight, request.body.len() as u64) {
                    true => self.neighbours.give(request, weight, here, care),
                    false => Some(request),
                };
                match kept {
                    Some(request) => staying.push(request),
                    None => {
                        self.sharing.requests_given += 1;
                        here -= weight;
                    }
                }
            }
            requests.append(&mut staying);
            self.sharing.staying = staying;
            self.neighbours.wake_others();
        }
        self.neighbours.show_work(here);
    }

    /// A request of a connection on this core.
    pub(super) fn take_own(&mut self, request: Request, now: Nanos) {
        let asker = Asker { shard: self.index, request: request.id, reserved: 0 };
        self.take(asker, request, now);
    }

    /// Takes the requests that other cores gave, as many as there are now.
    pub(super) fn take_given(&mut self, now: Nanos) {
        if self.neighbours.is_alone() {
            return;
        }
        self.neighbours.show_work(0);
        for _ in 0..self.neighbours.given() {
            let Some(Moved { origin, weight, request }) = self.neighbours.take_given() else {
                break;
            };
            match self.ingest.has_room_for(&request) {
                true => {
                    self.sharing.requests_taken += 1;
                    let (id, reserved) = (request.id, request.reserved);
                    let asker = Asker { shard: origin, request: id, reserved };
                    self.take(asker, request, now);
                }
                false => self.neighbours.reply(origin, Reply::Returned(Box::new(request))),
            }
            self.neighbours.did_given(weight);
        }
    }

    /// A neighbour's request waits here for its delivery: its bytes are in this core's budget now.
    pub(super) fn keep_waiting(&mut self, asker: Asker) -> Asker {
        if asker.shard != self.index {
            self.neighbours.reply(asker.shard, Reply::Taken { reserved: asker.reserved });
        }
        Asker { reserved: 0, ..asker }
    }

    /// What neighbours say of the requests that they were given.
    pub(super) fn take_replies(&mut self, now: Nanos) {
        while let Some(reply) = self.neighbours.take_reply() {
            match reply {
                Reply::Taken { reserved } => self.ingest.budget.give_back(reserved),
                Reply::Answered { request, reserved, answer } => {
                    self.ingest.budget.give_back(reserved);
                    let asker = Asker { shard: self.index, request, reserved: 0 };
                    self.answer(asker, answer, now);
                }
                Reply::Returned(request) => {
                    self.sharing.requests_returned += 1;
                    self.take_own(*request, now);
                }
            }
        }
    }
}

/// How much work a request is from here on, in bytes that are only checked.
fn weight(request: &Request) -> u64 {
    if Method::unpack(request.tag).is_some() {
        // A call lives on the core of its connection.
        return 0;
    }
    let route = Route::unpack(request.tag);
    let each = match (route.encoding, route.form) {
        (Encoding::Identity, Form::Proto) => 1,
        (Encoding::Identity, _) => JSON_WEIGHT,
        _ => PACKED_WEIGHT,
    };
    request.body.len() as u64 * each
}

/// How much work it was to receive a request.
fn receive_weight(request: &Request) -> u64 {
    RECEIVE_WEIGHT_MIN + request.body.len() as u64 * RECEIVE_WEIGHT / 2
}

/// For how long the calling thread has wanted its CPU: ran, or waited for its turn.
pub(super) struct BusyClock {
    /// `/proc/thread-self/schedstat` (proc(5)). Some kernels lack it: then only running counts.
    schedstat: Option<File>,
}

impl BusyClock {
    pub(super) fn new() -> BusyClock {
        BusyClock { schedstat: File::open("/proc/thread-self/schedstat").ok() }
    }

    /// How long it ran, and how long it waited for its CPU.
    pub(super) fn read(&mut self) -> (Nanos, Nanos) {
        let ran = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let waited = self.schedstat.as_ref().and_then(waited).unwrap_or(0);
        (ran.tv_sec as Nanos * 1_000_000_000 + ran.tv_nsec as Nanos, waited)
    }
}

/// The second field: nanoseconds in which the thread waited for its turn.
fn waited(schedstat: &File) -> Option<Nanos> {
    let mut text = [0; 64];
    let bytes = schedstat.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..bytes]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}
