//! The last calls of an endpoint: a sliding window by time and by count in one ring of buckets.
//!
//! The window is cut into ten buckets. A bucket ends when its tenth of the time is over or when it
//! holds its tenth of the calls, so a busy endpoint is judged by its last calls and a quiet one by
//! its last seconds. Bucket numbers count both: the time's slice, plus one for each bucket that
//! was full before its slice ended. What number a bucket was last used for stands in it, so old
//! ones need no clearing.
//!
//! Never locks. Always: a bucket is one atomic word, and a call is added by one compare-and-swap,
//! so calls, failures and slow calls of a bucket agree with each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: u64 = 10;
const COUNT_BITS: u32 = 12;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const STAMP_SHIFT: u32 = 3 * COUNT_BITS;
const STAMP_MASK: u64 = (1 << (64 - STAMP_SHIFT)) - 1;

pub(super) struct Window {
    slice_ms: u64,
    bucket_calls_max: u64,
    /// Buckets that ended before their time.
    early: AtomicU64,
    /// Stamp, slow calls, failures, calls, from the top.
    buckets: [AtomicU64; BUCKETS as usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    Slow,
    Failed,
    SlowFailed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl Window {
    pub(super) fn new(window: Duration, calls: u32) -> Window {
        Window {
            slice_ms: (window.as_millis() as u64 / BUCKETS).max(1),
            bucket_calls_max: (u64::from(calls) / BUCKETS).clamp(1, COUNT_MASK),
            // So that a stamp of zero is older than any window.
            early: AtomicU64::new(2 * BUCKETS),
            buckets: [const { AtomicU64::new(0) }; BUCKETS as usize],
        }
    }

    pub(super) fn record(&self, now_ms: u64, kind: Kind) {
        let (failed, slow) = match kind {
            Kind::Good => (0, 0),
            Kind::Slow => (0, 1),
            Kind::Failed => (1, 0),
            Kind::SlowFailed => (1, 1),
        };
        let call = slow << (2 * COUNT_BITS) | failed << COUNT_BITS | 1;
        loop {
            let number = self.number(now_ms);
            let bucket = &self.buckets[(number % BUCKETS) as usize];
            let old = bucket.load(Ordering::Relaxed);
            // An older number: the bucket begins anew. A newer one: another core's clock is ahead.
            let is_current = !is_older(old >> STAMP_SHIFT, number & STAMP_MASK);
            let base = if is_current { old } else { (number & STAMP_MASK) << STAMP_SHIFT };
            if base & COUNT_MASK >= self.bucket_calls_max {
                // Who filled it has not ended it yet; one of us does.
                self.end_early(number, now_ms);
                continue;
            }
            let swapped = bucket.compare_exchange_weak(
                old,
                base + call,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                if base & COUNT_MASK == self.bucket_calls_max - 1 {
                    self.end_early(number, now_ms);
                }
                return;
            }
        }
    }

    pub(super) fn counts(&self, now_ms: u64) -> Counts {
        let newest = self.number(now_ms);
        let mut counts = Counts::default();
        for bucket in &self.buckets {
            let word = bucket.load(Ordering::Relaxed);
            // Number minus stamp, around the wrap; a stamp ahead of us is another core's clock.
            let age = newest.wrapping_sub(word >> STAMP_SHIFT) & STAMP_MASK;
            let is_too_old = (BUCKETS..=STAMP_MASK / 2).contains(&age);
            if !is_too_old {
                counts.calls += (word & COUNT_MASK) as u32;
                counts.failures += (word >> COUNT_BITS & COUNT_MASK) as u32;
                counts.slow += (word >> (2 * COUNT_BITS) & COUNT_MASK) as u32;
            }
        }
        counts
    }

    /// Makes everything that was recorded too old to count.
    pub(super) fn clear(&self) {
        self.early.fetch_add(BUCKETS, Ordering::Relaxed);
    }

    fn number(&self, now_ms: u64) -> u64 {
        now_ms / self.slice_ms + self.early.load(Ordering::Relaxed)
    }

    fn end_early(&self, number: u64, now_ms: u64) {
        let early = number - now_ms / self.slice_ms;
        let relaxed = Ordering::Relaxed;
        // Lost: somebody else ended it, which is as good.
        let _ = self.early.compare_exchange(early, early + 1, relaxed, relaxed);
    }
}

fn is_older(stamp: u64, than: u64) -> bool {
    let ahead = than.wrapping_sub(stamp) & STAMP_MASK;
    ahead != 0 && ahead <= STAMP_MASK / 2
}
