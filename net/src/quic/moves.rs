//! How often a connection may come from yet another address.
//!
//! Each new one is sent a challenge and a probe, before it has said that it wants them: who forges
//! addresses would have us send to many. A client whose network changes does so now and then.

use crate::request::Nanos;

/// Datagrams from another address than the last that are taken at once, and after how long one more
/// is.
const BURST: Nanos = 16;
const INTERVAL: Nanos = 1_000_000_000;

/// A bucket that leaks: by when it will be empty.
#[derive(Default)]
pub(super) struct Moves {
    empty_at: Nanos,
}

impl Moves {
    /// Whether one more is taken.
    pub(super) fn take(&mut self, now: Nanos) -> bool {
        let empty_at = self.empty_at.max(now) + INTERVAL;
        let is_taken = empty_at <= now + BURST * INTERVAL;
        if is_taken {
            self.empty_at = empty_at;
        }
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_one_is_taken_in_each_interval() {
        let mut moves = Moves::default();
        let taken = |moves: &mut Moves, now| (0..100).filter(|_| moves.take(now)).count() as u64;
        assert_eq!(taken(&mut moves, 5), BURST);
        assert_eq!(taken(&mut moves, 5 + INTERVAL - 1), 0);
        assert_eq!(taken(&mut moves, 5 + INTERVAL), 1);
        assert_eq!(taken(&mut moves, 5 + 1_000 * INTERVAL), BURST);
    }
}
