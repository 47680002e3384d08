//! When to try again: exponential backoff with full jitter, and the destination's own wish first.
//!
//! Sans I/O: the time and the randomness are arguments. Always: a delay that the destination asked
//! for is waited in full (up to [`DELAY_MAX`]) and the backoff grows from it; a delay of nothing is
//! none, or who asks for it would be called in a circle without a pause; with
//! `max_elapsed_time: None` and `max_attempts: None` a batch is never given up.

use std::time::{Duration, Instant};

use crate::destination::{Retry, RetryCodes};
use crate::verdict::{Failure, FailureKind, Remedy};

/// A destination that asks for more than this is not believed: one wrong header would otherwise
/// park acknowledged data for years.
pub const DELAY_MAX: Duration = Duration::from_secs(300);

/// Where one batch stands in its retries.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    first_failure: Option<Instant>,
    /// The interval that the next wait is drawn from; `None` before the first failure.
    interval: Option<Duration>,
    /// Attempts that have failed.
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after this long.
    Wait(Duration),
    /// `max_elapsed_time` would pass first, `max_attempts` are made, or retry is switched off.
    GiveUp,
}

/// What follows a failure where the configuration names the codes that are tried again: those that
/// it names and no others. It has a say in answers alone: what never came to one is tried again,
/// and what is too large comes in smaller requests.
pub fn remedy(codes: &RetryCodes, failure: &Failure) -> Remedy {
    let is_answer = matches!(failure.kind, FailureKind::Unavailable | FailureKind::Refused);
    let is_too_large = failure.kind == FailureKind::TooLarge;
    let is_listed = match failure.status {
        Some(status) => codes.http.as_ref().map(|listed| listed.contains(&status)),
        None => failure.code.zip(codes.grpc.as_ref()).map(|(code, listed)| listed.contains(&code)),
    };
    let delay = match failure.remedy {
        Remedy::Retry { delay } => delay,
        Remedy::Shrink | Remedy::Drop => None,
    };
    match is_listed {
        Some(true) if is_answer || is_too_large => Remedy::Retry { delay },
        Some(false) if is_answer => Remedy::Drop,
        _ => failure.remedy,
    }
}

impl Backoff {
    /// What follows an attempt that began at `began` and failed at `now`. `delay` is what the
    /// destination asked for (RetryInfo, Retry-After). `random` is uniform in 0.0..1.0.
    ///
    /// Elapsed time is counted from the first attempt's begin (OTLP 1.11 client rules, and the
    /// Collector's `max_elapsed_time`).
    pub fn failed(
        &mut self,
        policy: &Retry,
        began: Instant,
        now: Instant,
        delay: Option<Duration>,
        random: f64,
    ) -> Next {
        if !self.counts_one_more(policy, began) {
            return Next::GiveUp;
        }
        let current = self.current(policy);
        let delay = delay.filter(|delay| !delay.is_zero()).map(|delay| delay.min(DELAY_MAX));
        let wait = match delay {
            // Asked to stay away: at least that long, and a little spread, so that all who were
            // told the same do not come back in the same instant.
            Some(delay) => delay + current.min(delay).mul_f64(0.1 * random),
            None => current.mul_f64(random),
        };
        let grown_from = delay.map_or(current, |delay| current.max(delay));
        let grown = grown_from.as_secs_f64() * policy.multiplier.max(1.0);
        self.interval = Some(Duration::from_secs_f64(grown.min(policy.max_interval.as_secs_f64())));
        self.within(policy, now, wait)
    }

    /// What follows an attempt that failed while another endpoint may take the batch at once: it
    /// counts, and nothing is waited for.
    pub fn failed_here(&mut self, policy: &Retry, began: Instant, now: Instant) -> Next {
        match self.counts_one_more(policy, began) {
            true => self.within(policy, now, Duration::ZERO),
            false => Next::GiveUp,
        }
    }

    /// How long to wait when no attempt could be made: no endpoint admits one, or the retry budget
    /// is used up. At least `least`, and drawn as after a failure, but nothing grows.
    pub fn held_up(
        &mut self,
        policy: &Retry,
        since: Instant,
        now: Instant,
        least: Duration,
        random: f64,
    ) -> Next {
        self.first_failure.get_or_insert(since);
        let wait = least + self.current(policy).min(least).mul_f64(0.5 * random);
        match policy.enabled {
            true => self.within(policy, now, wait),
            // Waiting is no retry, and it loses nothing.
            false => Next::Wait(wait),
        }
    }

    /// A wait drawn from the current interval.
    pub fn jittered(&self, policy: &Retry, random: f64) -> Duration {
        self.current(policy).mul_f64(random)
    }

    fn counts_one_more(&mut self, policy: &Retry, began: Instant) -> bool {
        self.first_failure.get_or_insert(began);
        self.attempts = self.attempts.saturating_add(1);
        policy.enabled && policy.max_attempts.is_none_or(|most| self.attempts < most)
    }

    fn current(&self, policy: &Retry) -> Duration {
        self.interval.unwrap_or(policy.initial_interval).min(policy.max_interval)
    }

    fn within(&self, policy: &Retry, now: Instant, wait: Duration) -> Next {
        let elapsed =
            self.first_failure.map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        match policy.max_elapsed_time {
            Some(elapsed_max) if elapsed + wait > elapsed_max => Next::GiveUp,
            _ => Next::Wait(wait),
        }
    }
}

#[cfg(test)]
mod tests;
