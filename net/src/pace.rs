//! How slowly a body may come: the one rule for HTTP/1.1, HTTP/2 and HTTP/3, and for what of a
//! refused body is thrown away as for what is kept.
//!
//! A body has `body_timeout` from one arrival to the next. And it has as much for all of it, with a
//! second more for each [`BYTES_PER_SECOND_MIN`] that came: a byte now and then keeps nothing open.
//! A message of a call that is a stream of messages is a body in this.
//!
//! Always
//! - A deadline never moves to an earlier time: whoever keeps the earliest of many may keep one
//!   that is too early, but never one that is too late.

use crate::request::{Limits, Nanos, Refusal};

/// Far below what any link gives that an export can be sent over before its client gives it up,
/// shared by many requests at once; far above what one costs who only wants to be in the way.
pub const BYTES_PER_SECOND_MIN: u64 = 256;
const SECOND: Nanos = 1_000_000_000;

/// Of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    begun: Nanos,
    last: Nanos,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(now: Nanos) -> Pace {
        Pace { begun: now, last: now, bytes: 0 }
    }

    /// More of it came; what is empty is no arrival.
    pub(crate) fn note(&mut self, bytes: usize, now: Nanos) {
        if bytes > 0 {
            self.last = now;
        }
        self.bytes += bytes as u64;
    }

    /// When more of it has to have come.
    pub(crate) fn due(&self, limits: &Limits) -> Nanos {
        self.stalled_at(limits).min(self.slow_at(limits))
    }

    pub(crate) fn is_late(&self, now: Nanos, limits: &Limits) -> bool {
        self.due(limits) <= now
    }

    /// Why it is refused that is late.
    pub(crate) fn refusal(&self, now: Nanos, limits: &Limits) -> Refusal {
        match self.stalled_at(limits) <= now {
            true => Refusal::BodyTimeout,
            false => Refusal::BodyTooSlow,
        }
    }

    fn stalled_at(&self, limits: &Limits) -> Nanos {
        self.last.saturating_add(limits.body_timeout)
    }

    fn slow_at(&self, limits: &Limits) -> Nanos {
        let earned = self.bytes.saturating_mul(SECOND) / BYTES_PER_SECOND_MIN;
        self.begun.saturating_add(limits.body_timeout).saturating_add(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        header_bytes_max: 0,
        connections_max: 0,
        connection_requests_max: 0,
        connection_window_bytes: 0,
        header_timeout: SECOND,
        body_timeout: 30 * SECOND,
        idle_timeout: 0,
        write_timeout: SECOND,
    };

    /// When a body is given up of which `bytes` come every `pause`, and why; `None`: never.
    fn given_up(bytes: usize, pause: Nanos) -> Option<(Nanos, Refusal)> {
        let mut pace = Pace::new(0);
        for nth in 1..10_000 {
            let (due, next) = (pace.due(&LIMITS), nth * pause);
            if due <= next {
                return Some((due, pace.refusal(due, &LIMITS)));
            }
            pace.note(bytes, next);
            assert!(pace.due(&LIMITS) >= due, "no deadline moves to an earlier time");
        }
        None
    }

    #[test]
    fn a_byte_now_and_then_holds_a_body_open_for_little_longer_than_none() {
        for pause in [SECOND / 100, SECOND, 29 * SECOND] {
            let (at, why) = given_up(1, pause).expect("it is slow");
            assert!((30 * SECOND..=55 * SECOND).contains(&at), "{pause}: {at}");
            assert_eq!(why, Refusal::BodyTooSlow, "{pause}");
        }
        assert_eq!(given_up(1 << 20, 31 * SECOND), Some((30 * SECOND, Refusal::BodyTimeout)));
    }

    #[test]
    fn what_comes_at_the_least_rate_or_faster_has_all_the_time_it_needs() {
        let least = BYTES_PER_SECOND_MIN as usize;
        assert_eq!(given_up(least, SECOND), None);
        assert_eq!(given_up(20 * least, 20 * SECOND), None, "in bursts");
        let (at, why) = given_up(least - 26, SECOND).expect("it is slower");
        assert!(at > 200 * SECOND && why == Refusal::BodyTooSlow, "{at}: {why:?}");
    }
}
