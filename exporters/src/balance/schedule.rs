//! Weighted turns: a heap of endpoints by when they are next due.
//!
//! Never looks at breakers: an endpoint that could not be used has had its turn, or it would be
//! owed a burst when it returns. Always: each endpoint begins at a random part of its period, so
//! that neither cores nor endpoints of equal weight run in step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::endpoints::{Endpoint, Snapshot};

/// One turn of an endpoint of weight one: fine enough for weights up to a million, and a schedule
/// lasts for 2^72 such turns.
const PERIOD: u64 = 1 << 24;
const INDEX_BITS: u32 = 32;

#[derive(Default)]
pub(super) struct Schedule {
    generation: Option<u64>,
    /// When, above which endpoint: one number is compared faster than two.
    due: BinaryHeap<Reverse<u128>>,
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
        let mut first = self.due.peek_mut()?;
        let index = first.0 as u32 as usize;
        // An endpoint that has lost its weight comes round seldom, and is not used then.
        let weight = endpoints[index].weight();
        first.0 = first.0.saturating_add(u128::from(period(weight.max(1))) << INDEX_BITS);
        Some(index)
    }

    #[cold]
    fn begin(&mut self, endpoints: &[Arc<Endpoint>], rng: &mut fastrand::Rng) {
        let mut turns = std::mem::take(&mut self.due).into_vec();
        turns.clear();
        let weighted = endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.weight() > 0);
        turns.extend(weighted.map(|(index, endpoint)| {
            let due = rng.u64(0..=period(endpoint.weight()));
            Reverse(u128::from(due) << INDEX_BITS | index as u128)
        }));
        self.due = turns.into();
    }
}

fn period(weight: u32) -> u64 {
    (PERIOD / u64::from(weight)).max(1)
}
