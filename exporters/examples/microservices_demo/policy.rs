//! Three ways to call a fleet, which differ in nothing but settings, and how patient each hop is.
//!
//! Decides nothing. Always: each hop is more patient than the one behind it, or it would blame a
//! replica for what that one only waits for.

use std::time::Duration;

use forebay_exporters::balance::{Bound, Strategy};
use forebay_exporters::breaker;
use forebay_exporters::budget;
use forebay_exporters::destination::Retry;

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    /// What happens is told of this one only.
    pub(crate) is_told: bool,
    pub(crate) breaker: breaker::Settings,
    pub(crate) bound: Bound,
    pub(crate) retry: Retry,
    pub(crate) budget: budget::Settings,
}

/// From one service to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    pub(crate) name: &'static str,
    /// For one try.
    pub(crate) timeout: Duration,
    /// Answers that take longer speak against a replica.
    pub(crate) slow: Duration,
}

pub(crate) const INNER: Hop = hop(250, 150);
pub(crate) const MIDDLE: Hop = hop(400, 200);
pub(crate) const OUTER: Hop = hop(2_000, 1_000);

/// Everything that the crate has. About a tenth of the default times, so that a bad night passes
/// in seconds.
pub(crate) fn whole() -> Policy {
    Policy {
        name: "forebay",
        is_told: true,
        breaker: breaker::Settings {
            failure_threshold: 3,
            window: Duration::from_millis(500),
            minimum_calls: 3,
            recovery_timeout: Duration::from_secs(1),
            recovery_timeout_max: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(4),
            ..breaker::Settings::default()
        },
        bound: Bound::of(Strategy::RoundRobin),
        retry: retry(4),
        budget: budget::Settings { tokens_max: 20, ..budget::Settings::default() },
    }
}

/// A failed try is made at the next replica, twice at most, whatever happens.
pub(crate) fn retries_alone() -> Policy {
    Policy { name: "retries alone", retry: retry(3), ..one_try() }
}

/// Each replica in turn, and nothing else.
pub(crate) fn one_try() -> Policy {
    Policy {
        name: "one try",
        is_told: false,
        // Zero failures in a row, and shares that are never reached: it stays closed.
        breaker: breaker::Settings {
            failure_threshold: 0,
            failure_rate: 2.0,
            slow_call_rate: 2.0,
            ..breaker::Settings::default()
        },
        bound: Bound { percent: 100, calls_min: u32::MAX },
        retry: Retry { enabled: false, ..retry(1) },
        budget: budget::Settings {
            tokens_max: 16_000,
            min_per_second: 10_000.0,
            ..budget::Settings::default()
        },
    }
}

/// In milliseconds and not in seconds: somebody waits for the answer.
fn retry(attempts: u32) -> Retry {
    Retry {
        initial_interval: Duration::from_millis(50),
        max_interval: Duration::from_millis(200),
        max_elapsed_time: Some(Duration::from_millis(3_000)),
        max_attempts: Some(attempts),
        ..Retry::default()
    }
}

const fn hop(timeout_ms: u64, slow_ms: u64) -> Hop {
    let (timeout, slow) = (Duration::from_millis(timeout_ms), Duration::from_millis(slow_ms));
    Hop { name: "", timeout, slow }
}
