//! What a sink does wrong on purpose, and when. Decided by counting, so that it is exact.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::exchange::{Reply, Retry};

/// All off by default. "One in N" counts per thread of the sink.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Answer each request this many milliseconds late
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,
    /// Refuse one request in N (0: none)
    #[arg(long, default_value_t = 0)]
    pub fail_every: u64,
    /// The gRPC code of refusals (over HTTP always 503)
    #[arg(long, default_value_t = 14)]
    pub fail_code: u32,
    /// Refusals say to come back after this many milliseconds (0: they don't say)
    #[arg(long, default_value_t = 0)]
    pub retry_ms: u32,
    /// Close the connection instead of answering one request in N
    #[arg(long, default_value_t = 0)]
    pub reset_every: u64,
    /// Never answer one request in N
    #[arg(long, default_value_t = 0)]
    pub stall_every: u64,
    /// Answer one request in N with bytes that mean nothing, and close
    #[arg(long, default_value_t = 0)]
    pub garbage_every: u64,
    /// Read each connection no faster than this (0: as fast as it comes)
    #[arg(long, default_value_t = 0)]
    pub read_bytes_per_s: u64,
    /// Take requests for this long ...
    #[arg(long, default_value_t = 0)]
    pub flap_up_ms: u64,
    /// ... then refuse all of them for this long, and again (0: always up)
    #[arg(long, default_value_t = 0)]
    pub flap_down_ms: u64,
    /// Answer OK, and drop one item in N: a broken sink, to test the accounts with
    #[arg(long, default_value_t = 0)]
    pub drop_every: u64,
    /// Count one item in N twice: the same
    #[arg(long, default_value_t = 0)]
    pub double_every: u64,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Keep it, and say so.
    Keep,
    /// Don't keep it.
    Refuse(Reply),
    Reset,
    Stall,
    Garbage,
}

impl Faults {
    /// Of the `nth` request (from 1), `since_start` after the sink's start.
    pub fn fate(&self, nth: u64, since_start: Duration) -> Fate {
        let is_turn = |every: u64| every > 0 && nth.is_multiple_of(every);
        if is_turn(self.garbage_every) {
            Fate::Garbage
        } else if is_turn(self.reset_every) {
            Fate::Reset
        } else if is_turn(self.stall_every) {
            Fate::Stall
        } else if is_turn(self.fail_every) || self.is_down(since_start) {
            let retry = (self.retry_ms > 0).then_some(Retry { ms: self.retry_ms });
            Fate::Refuse(Reply::Refuse { code: self.fail_code, retry })
        } else {
            Fate::Keep
        }
    }

    /// How often the `nth` item (from 1) is counted.
    pub fn times(&self, nth: u64) -> u32 {
        if self.drop_every > 0 && nth.is_multiple_of(self.drop_every) {
            0
        } else if self.double_every > 0 && nth.is_multiple_of(self.double_every) {
            2
        } else {
            1
        }
    }

    /// Whether a retried request may have been kept the first time.
    pub fn may_repeat(&self) -> bool {
        self.latency_ms > 0 || self.stall_every > 0
    }

    fn is_down(&self, since_start: Duration) -> bool {
        let period = self.flap_up_ms + self.flap_down_ms;
        self.flap_down_ms > 0 && since_start.as_millis() as u64 % period.max(1) >= self.flap_up_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_sink_follows_its_schedule() {
        let faults = Faults { flap_up_ms: 20, flap_down_ms: 10, ..Faults::default() };
        let is_up = |ms| faults.fate(1, Duration::from_millis(ms)) == Fate::Keep;
        let seen: Vec<bool> = [0, 19, 20, 29, 30, 49, 50].into_iter().map(is_up).collect();
        assert_eq!(seen, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn one_in_n_is_exactly_one_in_n() {
        let faults = Faults { drop_every: 1000, fail_every: 7, ..Faults::default() };
        assert_eq!((1..=50_000).filter(|nth| faults.times(*nth) == 0).count(), 50);
        let refused = (1..=700).filter(|nth| faults.fate(*nth, Duration::ZERO) != Fate::Keep);
        assert_eq!(refused.count(), 100);
    }
}
