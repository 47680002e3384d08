//! When to look at which connection: one heap for all, in which a deadline that moves away costs
//! nothing.
//!
//! An entry counts as long as its connection still has it in mind; others are passed over, and
//! cleared away when they are many. A connection that is gone may leave one: whoever is woken by it
//! finds nothing due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::request::Nanos;

/// Beyond a few for each connection, entries that do not count are cleared away.
const SPARE: usize = 256;
const ENTRIES_USUAL: usize = 4;

#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Nanos, usize)>>);

impl Timers {
    pub(super) fn push(&mut self, at: Nanos, index: usize) {
        self.0.push(Reverse((at, index)));
    }

    pub(super) fn next(&self) -> Option<Nanos> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out the earliest entry that is due.
    pub(super) fn next_due(&mut self, now: Nanos) -> Option<(Nanos, usize)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop().map(|Reverse(entry)| entry)
    }

    pub(super) fn are_crowded(&self, connections: usize) -> bool {
        self.0.len() > ENTRIES_USUAL * connections + SPARE
    }

    pub(super) fn keep(&mut self, counts: impl Fn(Nanos, usize) -> bool) {
        let mut entries = std::mem::take(&mut self.0).into_vec();
        entries.sort_unstable();
        entries.dedup();
        entries.retain(|Reverse((at, index))| counts(*at, *index));
        self.0 = BinaryHeap::from(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_when_they_are_due_and_in_their_order() {
        let mut timers = Timers::default();
        for (at, index) in [(30, 1), (10, 2), (20, 3), (10, 2)] {
            timers.push(at, index);
        }
        assert_eq!((timers.next(), timers.next_due(9)), (Some(10), None));
        timers.keep(|at, index| (at, index) != (20, 3));
        let due: Vec<_> = std::iter::from_fn(|| timers.next_due(30)).collect();
        assert_eq!(due, [(10, 2), (30, 1)], "once each");
    }
}
