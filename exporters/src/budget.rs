//! The retry budget of one destination: retries are a share of what succeeds, and a few a second.
//!
//! A token bucket, shared by all exporter cores without a lock. Each success puts in a share of a
//! token, time puts in [`Settings::min_per_second`], and each call beyond a batch's first takes one
//! out. So a fleet that fails is offered little more than its first calls, and one that comes back
//! after an hour is not met by an hour's retries at once: what has no token waits, and is not lost.
//!
//! Sans I/O: time is an argument. Always: over any span, withdrawals are at most
//! `tokens_max + min_per_second * seconds + ratio * successes`. The bucket's level and the time to
//! which it was filled are one atomic word, so no token is made twice. Time puts in at least
//! [`PER_SECOND_MIN`]: after an outage that has spent every token, what waits for one would else
//! wait for a success that only it could bring.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How many retries a destination may see.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tokens for each success. Default 0.2: one retry for five successes.
    pub ratio: f64,
    /// Tokens for each second, so that a destination that takes nothing is still tried. Less than
    /// [`PER_SECOND_MIN`] counts as that. Default 10.
    pub min_per_second: f64,
    /// What can be saved up, and what there is at the start; at most 16,000. Default 100: ten
    /// seconds' worth.
    pub tokens_max: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { ratio: 0.2, min_per_second: 10.0, tokens_max: 100 }
    }
}

/// Tokens for each second, whatever the settings say.
pub const PER_SECOND_MIN: f64 = 1.0;

/// Tokens are counted in thousandths.
const TOKEN: u64 = 1_000;
/// 16,000 tokens; 40 bits of milliseconds are left and last for 34 years.
const LEVEL_BITS: u32 = 24;
const LEVEL_MASK: u64 = (1 << LEVEL_BITS) - 1;

pub struct RetryBudget {
    epoch: Instant,
    per_success: u64,
    /// Thousandths of a token a second, which are millionths a millisecond.
    per_second: u64,
    level_max: u64,
    /// Milliseconds since the epoch to which it was filled, above the level.
    bucket: AtomicU64,
}

impl RetryBudget {
    /// Full. `epoch`: no later `now` may lie before it.
    pub fn new(settings: Settings, epoch: Instant) -> RetryBudget {
        let thousandths = |tokens: f64| (tokens.clamp(0.0, 100_000.0) * TOKEN as f64) as u64;
        let level_max = (u64::from(settings.tokens_max.max(1)) * TOKEN).min(LEVEL_MASK);
        RetryBudget {
            epoch,
            per_success: thousandths(settings.ratio),
            per_second: thousandths(settings.min_per_second.max(PER_SECOND_MIN)),
            level_max,
            bucket: AtomicU64::new(level_max),
        }
    }

    /// A call has succeeded.
    pub fn deposit(&self, now: Instant) {
        self.add(now, self.per_success);
    }

    /// Takes a token for one more call, or says when to ask again: there may be one by then, but
    /// others ask too.
    pub fn withdraw(&self, now: Instant) -> Result<(), Duration> {
        match self.change(now, |level| level.checked_sub(TOKEN)) {
            Ok(()) => Ok(()),
            Err(level) => Err(self.until_token(level)),
        }
    }

    /// The token of a call that was not made after all.
    pub fn give_back(&self, now: Instant) {
        self.add(now, TOKEN);
    }

    /// Whole tokens, for metrics.
    pub fn tokens(&self, now: Instant) -> u64 {
        self.filled(self.bucket.load(Ordering::Relaxed), now).0 / TOKEN
    }

    fn add(&self, now: Instant, tokens: u64) {
        self.change(now, |level| Some((level + tokens).min(self.level_max)))
            .expect("no edit that adds is refused");
    }

    /// Applies `edit` to the level as of `now`; the level that it refused otherwise.
    fn change(&self, now: Instant, edit: impl Fn(u64) -> Option<u64>) -> Result<(), u64> {
        let mut bucket = self.bucket.load(Ordering::Relaxed);
        loop {
            let (level, filled_ms) = self.filled(bucket, now);
            let edited = edit(level).ok_or(level)?;
            let changed = filled_ms << LEVEL_BITS | edited;
            let (done, lost) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.bucket.compare_exchange_weak(bucket, changed, done, lost) {
                Ok(_) => return Ok(()),
                Err(current) => bucket = current,
            }
        }
    }

    /// The level with what time has added, and the time to which that is. Time that has added
    /// less than a thousandth stays for the next call.
    fn filled(&self, bucket: u64, now: Instant) -> (u64, u64) {
        let (level, filled_ms) = (bucket & LEVEL_MASK, bucket >> LEVEL_BITS);
        let now_ms = now.saturating_duration_since(self.epoch).as_millis() as u64;
        let passed_ms = now_ms.saturating_sub(filled_ms);
        let added = passed_ms.saturating_mul(self.per_second) / 1_000;
        if level + added >= self.level_max {
            return (self.level_max, filled_ms.max(now_ms));
        }
        let paid_ms = (added * 1_000).div_ceil(self.per_second);
        (level + added, filled_ms + paid_ms)
    }

    fn until_token(&self, level: u64) -> Duration {
        let lacking = TOKEN.saturating_sub(level);
        Duration::from_millis((lacking * 1_000).div_ceil(self.per_second))
    }
}
