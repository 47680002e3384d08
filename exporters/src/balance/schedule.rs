//! Weighted turns: a heap of endpoints by when they are next due.
//!
//! Never looks at breakers: an endpoint that could not be used has had its turn, or it would be
//! owed a burst when it returns. Always: each endpoint begins at a random part of its period, so
//! that neither cores nor endpoints of equal weight run in step.
//!
//! The heap has four children to a parent. All that ever happens to it is that the first moves
//! down, and half as many levels of twice as many neighbours in the cache are the faster way down.

use std::sync::Arc;

use crate::endpoints::{Endpoint, MEMBERS_MAX, Snapshot};

#[cfg(test)]
mod tests;

/// One turn of an endpoint of weight one: fine enough for weights up to a million.
const PERIOD: u64 = 1 << 24;
const INDEX_BITS: u32 = 16;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const _: () = assert!(MEMBERS_MAX <= 1 << INDEX_BITS);
/// From here on times begin from zero again: once in millions of turns of weight one.
const LATE: u64 = 1 << 63;
const CHILDREN: usize = 4;

#[derive(Default)]
pub(super) struct Schedule {
    generation: Option<u64>,
    /// When, above which endpoint: one number is compared faster than two. No parent is due after
    /// its children.
    due: Vec<u64>,
}

impl Schedule {
    /// Begins anew if the fleet is another than before.
    #[inline]
    pub(super) fn follow(&mut self, snapshot: &Snapshot, rng: &mut fastrand::Rng) {
        if self.generation != Some(snapshot.generation()) {
            self.generation = Some(snapshot.generation());
            self.begin(snapshot.endpoints(), rng);
        }
    }

    /// Whose turn it is; `None` if nobody has a weight.
    #[inline]
    pub(super) fn next(&mut self, endpoints: &[Arc<Endpoint>]) -> Option<usize> {
        let first = *self.due.first()?;
        if first >= LATE {
            self.begin_times_from_zero(first);
            return self.next(endpoints);
        }
        let index = (first & INDEX_MASK) as usize;
        // An endpoint that has lost its weight comes round seldom, and is not used then.
        let weight = endpoints[index].weight();
        self.replace_first(first + (period(weight.max(1)) << INDEX_BITS));
        Some(index)
    }

    #[inline]
    fn replace_first(&mut self, turn: u64) {
        let mut place = 0;
        while let Some((child, least)) = self.first_child(place) {
            if turn <= least {
                break;
            }
            self.due[place] = least;
            place = child;
        }
        self.due[place] = turn;
    }

    #[inline]
    fn first_child(&self, parent: usize) -> Option<(usize, u64)> {
        let from = CHILDREN * parent + 1;
        let earlier =
            |one: (usize, u64), other: (usize, u64)| if other.1 < one.1 { other } else { one };
        match self.due.get(from..)? {
            [a, b, c, d, ..] => {
                let left = earlier((from, *a), (from + 1, *b));
                let right = earlier((from + 2, *c), (from + 3, *d));
                Some(earlier(left, right))
            }
            few => (from..).zip(few.iter().copied()).reduce(earlier),
        }
    }

    /// Nobody is due before `first`. All times move by the same, so the order stays.
    #[cold]
    fn begin_times_from_zero(&mut self, first: u64) {
        let passed = first & !INDEX_MASK;
        self.due.iter_mut().for_each(|turn| *turn -= passed);
    }

    #[cold]
    fn begin(&mut self, endpoints: &[Arc<Endpoint>], rng: &mut fastrand::Rng) {
        self.due.clear();
        let weighted = endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.weight() > 0);
        self.due.extend(weighted.map(|(index, endpoint)| {
            let due = rng.u64(0..=period(endpoint.weight()));
            due << INDEX_BITS | index as u64
        }));
        // In order, it is a heap.
        self.due.sort_unstable();
    }
}

fn period(weight: u32) -> u64 {
    (PERIOD / u64::from(weight)).max(1)
}
