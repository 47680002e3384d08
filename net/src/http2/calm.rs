//! What a peer may ask for nothing: budgets that leak, and the names of their excess.
//!
//! Everything that costs us work and brings no request is counted against a budget; time and
//! answered requests give it back. A budget that is spent ends the connection with
//! ENHANCE_YOUR_CALM. A client that behaves never comes near one.

use crate::request::{Nanos, Trouble};

const SECOND: Nanos = 1_000_000_000;

/// How much at once, how much a second, and what an answered request gives back.
#[derive(Clone, Copy)]
struct Terms {
    burst: u32,
    per_second: u32,
    per_answer: u32,
}

/// Requests that the peer reset (CVE-2023-44487). A client whose calls time out by the hundred
/// meets it too, and loses nothing but its connection.
const RESETS: Terms = Terms { burst: 512, per_second: 50, per_answer: 1 };
/// Streams that we reset for the peer's errors (CVE-2025-8671).
const ERRORS: Terms = Terms { burst: 64, per_second: 5, per_answer: 0 };
/// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown frames and frames for streams that are gone.
const CONTROL: Terms = Terms { burst: 1024, per_second: 100, per_answer: 8 };
/// DATA frames that are empty or nearly so and don't end a body.
const CRUMBS: Terms = Terms { burst: 4096, per_second: 500, per_answer: 8 };

/// What a DATA frame of so many bytes that does not end its body counts as a crumb: an empty one
/// is good for nothing.
pub(crate) fn crumb_weight(bytes: usize) -> u32 {
    match bytes {
        0 => 8,
        1..64 => 1,
        _ => 0,
    }
}

pub(crate) struct Calm {
    resets: u32,
    errors: u32,
    control: u32,
    crumbs: u32,
    /// When time last gave back.
    since: Nanos,
}

impl Calm {
    pub(crate) fn new(now: Nanos) -> Calm {
        Calm { resets: 0, errors: 0, control: 0, crumbs: 0, since: now }
    }

    /// Counts `weight` more of what `trouble` names. `false`: that was too much.
    pub(crate) fn take(&mut self, trouble: Trouble, weight: u32, now: Nanos) -> bool {
        let terms = terms(trouble);
        let spent = self.spent(trouble);
        *spent = spent.saturating_add(weight);
        if *spent <= terms.burst {
            return true;
        }
        self.leak(now);
        *self.spent(trouble) <= terms.burst
    }

    /// A request is answered.
    pub(crate) fn answered(&mut self) {
        self.resets = self.resets.saturating_sub(RESETS.per_answer);
        self.control = self.control.saturating_sub(CONTROL.per_answer);
        self.crumbs = self.crumbs.saturating_sub(CRUMBS.per_answer);
    }

    /// Whole seconds give back, and only when a budget looks spent: all calm costs nothing.
    fn leak(&mut self, now: Nanos) {
        let seconds = now.saturating_sub(self.since) / SECOND;
        self.since += seconds * SECOND;
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        for trouble in [Trouble::Resets, Trouble::Errors, Trouble::Control, Trouble::Crumbs] {
            let given = seconds.saturating_mul(terms(trouble).per_second);
            let spent = self.spent(trouble);
            *spent = spent.saturating_sub(given);
        }
    }

    fn spent(&mut self, trouble: Trouble) -> &mut u32 {
        match trouble {
            Trouble::Resets => &mut self.resets,
            Trouble::Errors => &mut self.errors,
            Trouble::Crumbs => &mut self.crumbs,
            _ => &mut self.control,
        }
    }
}

fn terms(trouble: Trouble) -> Terms {
    match trouble {
        Trouble::Resets => RESETS,
        Trouble::Errors => ERRORS,
        Trouble::Crumbs => CRUMBS,
        _ => CONTROL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Trouble; 4] = [Trouble::Resets, Trouble::Errors, Trouble::Control, Trouble::Crumbs];

    #[test]
    fn a_burst_is_borne_and_one_more_is_not() {
        for trouble in ALL {
            let mut calm = Calm::new(0);
            for nth in 0..terms(trouble).burst {
                assert!(calm.take(trouble, 1, 0), "{trouble:?} {nth}");
            }
            assert!(!calm.take(trouble, 1, 0), "{trouble:?}");
        }
    }

    #[test]
    fn what_comes_slower_than_its_rate_is_borne_for_ever() {
        for trouble in ALL {
            let mut calm = Calm::new(0);
            let pause = SECOND / Nanos::from(terms(trouble).per_second) + 1_000;
            for nth in 0..100_000 {
                assert!(calm.take(trouble, 1, nth * pause), "{trouble:?} {nth}");
            }
        }
    }

    #[test]
    fn answered_requests_make_up_for_their_own_resets() {
        let mut calm = Calm::new(0);
        for nth in 0..100_000 {
            assert!(calm.take(Trouble::Resets, 1, 0), "{nth}");
            calm.answered();
        }
    }
}
