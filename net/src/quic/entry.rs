//! Who comes in: from a client's first packet to a connection whose handshake has begun, or to its
//! refusal; and who has to go when all places for handshakes are taken.
//!
//! Always
//! - A turn begins a few handshakes and no more: each costs a signature, and those who are in have
//!   to be served meanwhile. The others wait for the next turns, a bounded number of them, and
//!   turns follow each other at once while anybody waits.
//! - First packets that begin nothing take no honest client's place in a turn, and who fills the
//!   queue with them has to prove its address before the queue is full.
//! - A connection that has not proved itself counts as a handshake until it is forgotten, however
//!   it ended: who only pretends pays with a Retry like everybody else.
//! - At the limit a handshake that stalls gives way to a new one.

use std::collections::VecDeque;

use quinn_proto::{ConnectionHandle, EndpointEvent, Incoming};

use super::config::waiting_max;
use super::connection::{Connection, failure_of};
use super::{MARK, Quic, Slot};
use crate::request::Nanos;
use crate::ring::Key;
use crate::server::handshakes::{Handshakes, Progress};
use crate::server::lifetime::Age;
use crate::tls::Failure;

/// Handshakes that one turn begins: with the slowest usual key they take a few milliseconds.
const BEGUN_MAX: usize = 4;
/// First packets that one turn looks at, whatever becomes of them: to see that one is forged costs
/// some microseconds.
const LOOKED_AT_MAX: usize = 64;

/// Those who want to come in, and those who are not yet.
#[derive(Default)]
pub(super) struct Entry {
    waiting: VecDeque<Incoming>,
    /// So many of them, from the front, were counted as put off.
    put_off: usize,
    /// Connections that never were established, those that ended a moment ago too.
    unproven: usize,
    handshakes: Handshakes,
}

impl Entry {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A connection of these was established, or is forgotten.
    pub(super) fn leave(&mut self) {
        self.unproven -= 1;
    }
}

impl Quic {
    /// Whether a new client may come in.
    pub(super) fn decide(&mut self, incoming: Incoming) {
        if self.draining || self.open >= self.config.limits.connections_max {
            return self.refuse(incoming);
        }
        let (waiting, waiting_max) = (self.entry.waiting.len(), waiting_max(&self.config));
        let is_crowded =
            self.entry.unproven + waiting >= self.config.retry_above || waiting >= waiting_max / 2;
        if is_crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            self.stats.retries += 1;
            let mut reply = Vec::new();
            if let Ok(sent) = self.endpoint.retry(incoming, &mut reply) {
                self.reply(&sent, reply);
            }
            return;
        }
        if waiting >= waiting_max {
            // An honest client sends it again in a moment.
            self.stats.put_off += 1;
            return self.endpoint.ignore(incoming);
        }
        self.entry.waiting.push_back(incoming);
    }

    /// Lets in as many of those who wait as a turn may.
    pub(super) fn let_in_some(&mut self, now: Nanos) {
        let mut begun = 0;
        for _ in 0..LOOKED_AT_MAX {
            if begun == BEGUN_MAX {
                break;
            }
            let Some(incoming) = self.entry.waiting.pop_front() else {
                break;
            };
            self.entry.put_off = self.entry.put_off.saturating_sub(1);
            begun += usize::from(self.let_in(incoming, now));
        }
        let waiting = self.entry.waiting.len();
        self.stats.put_off += (waiting - self.entry.put_off) as u64;
        self.entry.put_off = waiting;
    }

    /// Nobody comes in any more.
    pub(super) fn shut(&mut self) {
        self.draining = true;
        self.entry.put_off = 0;
        while let Some(incoming) = self.entry.waiting.pop_front() {
            self.refuse(incoming);
        }
    }

    /// Returns whether its TLS was begun, whatever came of that.
    fn let_in(&mut self, incoming: Incoming, now: Nanos) -> bool {
        let is_full = self.open >= self.config.limits.connections_max;
        if is_full || (self.entry.unproven >= self.config.handshakes_max && !self.make_room(now)) {
            self.refuse(incoming);
            return false;
        }
        let mut reply = Vec::new();
        let instant = self.instant(now);
        match self.endpoint.accept(incoming, instant, &mut reply, None) {
            Ok((handle, quic)) if quic.is_closed() => {
                // It took back its own first packet: nothing would ever end it but its idle time.
                self.stats.unreadable += 1;
                self.endpoint.handle_event(handle, EndpointEvent::drained());
                true
            }
            Ok((handle, quic)) => {
                self.admit(handle, quic, now);
                true
            }
            Err(error) => {
                let failure = failure_of(&error.cause);
                self.count_stillborn(failure);
                if let Some(sent) = error.response {
                    self.reply(&sent, reply);
                }
                failure != Failure::Other
            }
        }
    }

    /// A first packet began no connection, maybe because its TLS had nothing in common with ours.
    fn count_stillborn(&mut self, failure: Failure) {
        if failure == Failure::Other {
            self.stats.unreadable += 1;
            return;
        }
        self.stats.accepted += 1;
        self.stats.handshakes_failed += 1;
        self.stats.failures[failure as usize] += 1;
        self.stats.closed += 1;
    }

    fn refuse(&mut self, incoming: Incoming) {
        self.stats.refused += 1;
        let mut reply = Vec::new();
        let sent = self.endpoint.refuse(incoming, &mut reply);
        self.reply(&sent, reply);
    }

    fn admit(&mut self, handle: ConnectionHandle, quic: quinn_proto::Connection, now: Nanos) {
        self.stats.accepted += 1;
        self.open += 1;
        self.handshaking += 1;
        self.entry.unproven += 1;
        if self.slots.len() <= handle.0 {
            self.slots.resize_with(handle.0 + 1, Slot::default);
        }
        let slot = &mut self.slots[handle.0];
        slot.generation = slot.generation.wrapping_add(1);
        let key = Key { index: handle.0 as u32 | MARK, generation: slot.generation };
        let age = Age::new(&self.config.lifetime, self.chance.draw(), now);
        let due = now + self.config.handshake_timeout;
        slot.connection = Some(Box::new(Connection::new(key, handle, quic, age, due)));
        let (slots, places) = (&self.slots, self.config.handshakes_max as u64);
        let progress_of = |key| progress_of(slots, key);
        self.entry.handshakes.note(key, Progress::Answered, now, places, progress_of);
        self.touch(handle.0);
    }

    /// Forgets the handshake that has stalled for the longest time. Returns whether there was one.
    fn make_room(&mut self, now: Nanos) -> bool {
        let slots = &self.slots;
        let Some(key) = self.entry.handshakes.give_way(now, |key| progress_of(slots, key)) else {
            return false;
        };
        let index = (key.index & !MARK) as usize;
        self.fail(index, Failure::TooMany);
        self.expel(index);
        true
    }

    /// Forgets a connection whatever quinn still has in mind for it.
    pub(super) fn expel(&mut self, index: usize) {
        if let Some(connection) = &self.slots[index].connection {
            self.endpoint.handle_event(connection.handle, EndpointEvent::drained());
            self.forget(index);
        }
    }
}

fn progress_of(slots: &[Slot], key: Key) -> Progress {
    let slot = slots.get((key.index & !MARK) as usize);
    match slot.and_then(|slot| slot.connection.as_ref()) {
        Some(connection) if connection.key == key && !connection.is_established() => {
            Progress::Answered
        }
        _ => Progress::Over,
    }
}
