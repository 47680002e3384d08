//! How busy and how slow an endpoint is, for choosing the less loaded of two.
//!
//! Latency is a peak-sensitive moving average: one slow call counts at once and in full, and is
//! forgotten over [`DECAY_MS`]; fast calls pull it down by and by. It decays while nothing comes
//! in, so a slow endpoint is tried again. A failure counts as [`FAILURE_US`] at least: failing
//! fast must not look like being fast.
//!
//! Always: average and the time of it are one atomic word.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::breaker::Outcome;

/// After this long about a third of an old average is left.
const DECAY_MS: u64 = 10_000;
const FAILURE_US: u64 = 1_000_000;
const MICROS_BITS: u32 = 26;
const MICROS_MASK: u64 = (1 << MICROS_BITS) - 1;

#[derive(Debug, Default)]
pub(super) struct Load {
    outstanding: AtomicU32,
    /// Milliseconds since the fleet's epoch, above the average in microseconds (up to 67 s).
    average: AtomicU64,
}

impl Load {
    pub(super) fn began(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gone(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// When a call ended last, in milliseconds since the fleet's epoch.
    pub(super) fn last_ms(&self) -> u64 {
        self.average.load(Ordering::Relaxed) >> MICROS_BITS
    }

    pub(super) fn latency(&self, now_ms: u64) -> Duration {
        Duration::from_micros(decayed(self.average.load(Ordering::Relaxed), now_ms))
    }

    /// The average latency times the calls that would be under way. One whose latency is unknown
    /// is tried once, and not again before its first answer.
    pub(super) fn cost(&self, now_ms: u64) -> u64 {
        let outstanding = u64::from(self.outstanding());
        match self.average.load(Ordering::Relaxed) {
            0 => outstanding * FAILURE_US,
            average => decayed(average, now_ms).max(1) * (outstanding + 1),
        }
    }

    pub(super) fn ended(&self, now_ms: u64, outcome: Outcome, latency: Duration) {
        let measured = (latency.as_micros() as u64).clamp(1, MICROS_MASK);
        let sample = match outcome {
            Outcome::Unsent => return,
            Outcome::Success | Outcome::Answered => measured,
            Outcome::Failure | Outcome::Unwell | Outcome::Overloaded { .. } => {
                measured.max(FAILURE_US)
            }
        };
        let (done, lost) = (Ordering::Relaxed, Ordering::Relaxed);
        let mut old = self.average.load(Ordering::Relaxed);
        loop {
            let average = averaged(old, now_ms, sample);
            let stamp_ms = now_ms.max(old >> MICROS_BITS);
            let new = stamp_ms << MICROS_BITS | average;
            match self.average.compare_exchange_weak(old, new, done, lost) {
                Ok(_) => return,
                Err(current) => old = current,
            }
        }
    }
}

/// The old average's share falls with the time since it was made, and by a tenth with each sample.
fn averaged(old: u64, now_ms: u64, sample: u64) -> u64 {
    if old == 0 {
        return sample;
    }
    // At least the sample: a peak counts in full.
    let faded = decayed(old, now_ms).max(sample);
    (faded - (faded - sample) / 10).clamp(1, MICROS_MASK)
}

/// What is left of an average. A rational curve: as good as an exponential one here, and cheaper.
#[inline]
fn decayed(average: u64, now_ms: u64) -> u64 {
    let age_ms = now_ms.saturating_sub(average >> MICROS_BITS);
    let micros = average & MICROS_MASK;
    if age_ms < DECAY_MS / 256 {
        return micros;
    }
    let ratio = (DECAY_MS << 8) / (DECAY_MS + 2 * age_ms);
    (micros * ratio) >> 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_call_counts_at_once_and_fades() {
        let load = Load::default();
        let success = |ms, micros| load.ended(ms, Outcome::Success, Duration::from_micros(micros));
        success(0, 1_000);
        success(1, 500_000);
        assert_eq!(load.latency(1).as_micros(), 500_000);
        for _ in 0..200 {
            success(2, 1_000);
        }
        assert!(load.latency(2).as_micros() < 1_500, "{:?}", load.latency(2));
        success(3, 500_000);
        assert!(load.latency(10_003).as_micros() < 200_000);
    }

    #[test]
    fn failing_fast_is_not_being_fast() {
        let (failing, working) = (Load::default(), Load::default());
        failing.ended(5, Outcome::Failure, Duration::from_micros(10));
        working.ended(5, Outcome::Success, Duration::from_millis(50));
        assert!(failing.cost(5) > 10 * working.cost(5));
    }

    #[test]
    fn the_unknown_is_tried_once_and_not_swarmed() {
        let (unknown, known) = (Load::default(), Load::default());
        known.ended(0, Outcome::Success, Duration::from_millis(1));
        assert!(unknown.cost(0) < known.cost(0));
        unknown.began();
        assert!(unknown.cost(0) > known.cost(0));
    }
}
