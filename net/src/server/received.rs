//! What came on a connection: cleartext or TLS, each to where it belongs, and what is not what its
//! listener speaks sent away, counted, and now and then said.

use super::connection::Connection;
use super::handshakes::Progress;
use super::sealed::{HANDSHAKE, Outcome};
use super::{Server, extras, find, touch};
use crate::request::{Door, Nanos, Request, Turn};
use crate::ring::{Chunk, Key, Ring};
use crate::tls::{Failure, TlsStats};

/// Clients that take one port for the other come in crowds: one line of log for all of them.
const SAY_AGAIN: Nanos = 60_000_000_000;

impl<R: Ring> Server<R> {
    pub(super) fn received(
        &mut self,
        key: Key,
        mut chunk: Chunk,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        let has_room = self.has_room(key, &chunk, now);
        let mut came_to = None;
        if let Some(connection) = find(&mut self.connections, key) {
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
            if let Some(acceptor) = &self.acceptors[usize::from(listener)] {
                let input = self.ring.bytes_mut(&mut chunk);
                self.stats.received_bytes += input.len() as u64;
                let before = connection.progress();
                connection.handle_sealed(input, acceptor, has_room, &mut turn);
                came_to = Some(connection.progress()).filter(|progress| *progress != before);
                let failure = count_tls(connection, &mut self.stats.tls);
                if failure == Some(Failure::Plaintext) && now >= self.say_again_at[1] {
                    self.say_again_at[1] = now + SAY_AGAIN;
                    say_plaintext();
                }
            } else {
                let input = self.ring.bytes(&chunk);
                self.stats.received_bytes += input.len() as u64;
                if !connection.handle_input(input, &mut turn) {
                    self.stats.tls.misdirected += 1;
                    if now >= self.say_again_at[0] {
                        self.say_again_at[0] = now + SAY_AGAIN;
                        say_misdirected();
                    }
                }
            }
            touch(connection, &mut self.touched);
            extras::note(&mut self.extras, listener, &requests[first..]);
        }
        self.ring.give_back(chunk);
        if let Some(progress) = came_to {
            let places = self.handshakes_max;
            let progress_of = |key| progress_of(&mut self.connections, key);
            self.handshakes.note(key, progress, now, places, progress_of);
        }
    }

    /// Whether a handshake may begin, if `chunk` is the beginning of one; somebody may have to
    /// give way to it.
    fn has_room(&mut self, key: Key, chunk: &Chunk, now: Nanos) -> bool {
        if self.stats.tls.pending < self.handshakes_max {
            return true;
        }
        let is_first = progress_of(&mut self.connections, key) == Progress::Silent;
        if !is_first || self.ring.bytes(chunk).first() != Some(&HANDSHAKE) {
            return true;
        }
        let progress_of = |key| progress_of(&mut self.connections, key);
        let Some(oldest) = self.handshakes.give_way(now, progress_of) else {
            return false;
        };
        if let Some(connection) = find(&mut self.connections, oldest) {
            connection.give_way();
            count_tls(connection, &mut self.stats.tls);
            touch(connection, &mut self.touched);
        }
        true
    }
}

fn progress_of(connections: &mut [Option<Box<Connection>>], key: Key) -> Progress {
    find(connections, key).map_or(Progress::Over, |connection| connection.progress())
}

/// Counts a handshake that has begun or ended, and says why if it came to nothing.
pub(super) fn count_tls(connection: &mut Connection, stats: &mut TlsStats) -> Option<Failure> {
    let is_pending = connection.is_handshaking();
    stats.pending = stats.pending + u64::from(is_pending) - u64::from(connection.is_counted);
    connection.is_counted = is_pending;
    stats.broken += u64::from(connection.take_breakage());
    match connection.take_outcome()? {
        Outcome::Opened { is_resumed } => {
            stats.completed += 1;
            stats.resumed += u64::from(is_resumed);
            None
        }
        Outcome::Failed(failure) => {
            stats.count_failure(failure);
            Some(failure)
        }
    }
}

fn say_misdirected() {
    tracing::warn!(
        "A client began TLS on a port without it, and was sent away: it can deliver nothing. Take \
         the client's TLS away (insecure, http), or give this receiver a `tls` block. Said at most \
         once a minute; the metrics count all"
    );
}

fn say_plaintext() {
    tracing::warn!(
        "A client came without TLS to a port that has it, and was sent away: it can deliver \
         nothing. Set up TLS at the client (https, a CA), or take the receiver's `tls` block away. \
         Said at most once a minute; the metrics count all"
    );
}
