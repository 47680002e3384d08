//! How often a connection may come from yet another address.
//!
//! Each new one is sent a challenge and a probe, before it has said that it wants them: who forges
//! addresses would have us send to many. A client whose network changes does so now and then, and
//! what it sent before may come after: its last proven address is no new one.

use std::net::SocketAddr;

use crate::request::Nanos;

/// Datagrams from another address than the last that are taken at once, and after how long one more
/// is.
const BURST: Nanos = 16;
const INTERVAL: Nanos = 1_000_000_000;
/// Where a peer stayed for so long it has proved to be: the transport goes back from where nobody
/// answered its challenge, and sooner than that.
const PROVEN_AFTER: Nanos = 10_000_000_000;

/// Where a peer is and was; and a bucket that leaks: by when it will be empty.
pub(super) struct Moves {
    here: SocketAddr,
    since: Nanos,
    /// Where it was, as far as that was proven.
    proven: SocketAddr,
    empty_at: Nanos,
}

impl Moves {
    /// The handshake proves where it is.
    pub(super) fn new(here: SocketAddr) -> Moves {
        Moves { here, since: 0, proven: here, empty_at: 0 }
    }

    pub(super) fn here(&self) -> SocketAddr {
        self.here
    }

    /// Whether one more is taken that comes from elsewhere than here.
    pub(super) fn take(&mut self, from: SocketAddr, now: Nanos) -> bool {
        if from == self.proven {
            return true;
        }
        let empty_at = self.empty_at.max(now) + INTERVAL;
        let is_taken = empty_at <= now + BURST * INTERVAL;
        if is_taken {
            self.empty_at = empty_at;
        }
        is_taken
    }

    /// The peer is there now. Returns whether it has moved.
    pub(super) fn note(&mut self, there: SocketAddr, now: Nanos) -> bool {
        if there == self.here {
            return false;
        }
        if now >= self.since + PROVEN_AFTER {
            self.proven = self.here;
        }
        (self.here, self.since) = (there, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    fn taken(moves: &mut Moves, last: u8, now: Nanos) -> u64 {
        (0..100).filter(|_| moves.take(address(last), now)).count() as u64
    }

    #[test]
    fn after_a_burst_one_is_taken_in_each_interval() {
        let mut moves = Moves::new(address(1));
        assert_eq!(taken(&mut moves, 2, 5), BURST);
        assert_eq!(taken(&mut moves, 2, 5 + INTERVAL - 1), 0);
        assert_eq!(taken(&mut moves, 2, 5 + INTERVAL), 1);
        assert_eq!(taken(&mut moves, 2, 5 + 1_000 * INTERVAL), BURST);
    }

    #[test]
    fn what_comes_late_from_the_last_proven_address_is_taken() {
        let mut moves = Moves::new(address(1));
        assert_eq!([moves.note(address(2), 5), moves.note(address(2), 6)], [true, false]);
        assert_eq!(taken(&mut moves, 1, 6), 100);
        // It did not stay: nobody knows whether it was there.
        moves.note(address(3), 7);
        assert_eq!([taken(&mut moves, 2, 7), taken(&mut moves, 1, 7)], [BURST, 100]);
        moves.note(address(4), 7 + PROVEN_AFTER);
        let now = 7 + PROVEN_AFTER;
        assert_eq!(taken(&mut moves, 3, now), 100);
        assert!(taken(&mut moves, 1, now) <= BURST);
    }
}
