//! Turns against the standard library's heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::*;
use crate::endpoints::{Endpoints, Member, Options};

/// The standard library's heap says whose turn it is, over fleets of all sizes and over the
/// moment at which times begin from zero again.
#[test]
fn turns_come_in_the_order_of_their_times() {
    let now = Instant::now();
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let endpoints = Endpoints::new(Options::default(), now);
        let member = |number: u64| Member {
            address: format!("c-{number}:1"),
            weight: rng.u32(1..=1 + seed as u32),
        };
        endpoints.apply(now, &(0..=seed * 3).map(member).collect::<Vec<_>>());
        let snapshot = endpoints.snapshot();
        let mut schedule = Schedule::default();
        schedule.follow(&snapshot, &mut rng);
        let offset = if seed % 2 == 0 { 0 } else { LATE - (3 << 40) };
        schedule.due.iter_mut().for_each(|turn| *turn += offset);
        let wide = |turn: &u64| Reverse(u128::from(*turn));
        let mut oracle: BinaryHeap<Reverse<u128>> = schedule.due.iter().map(wide).collect();
        for turn in 0..10 * snapshot.endpoints().len() {
            let mut first = oracle.peek_mut().expect("everybody has a weight");
            let expected = (first.0 as u64 & INDEX_MASK) as usize;
            let weight = snapshot.endpoints()[expected].weight();
            first.0 += u128::from(period(weight)) << INDEX_BITS;
            drop(first);
            let next = schedule.next(snapshot.endpoints());
            assert_eq!(next, Some(expected), "seed {seed}, turn {turn}");
        }
    }
}
