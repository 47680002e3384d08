//! What a breaker tells: its state, and each change of it with its cause.
//!
//! Never changes anything. Always: one change of state is told by exactly one call.

use std::fmt;
use std::time::Duration;

/// Where a breaker stands, as of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open {
        /// Until a probe may go.
        retry_in: Duration,
        /// For a rate; otherwise nothing worked.
        is_ejected: bool,
    },
    HalfOpen {
        /// Probes that have succeeded so far.
        successes: u32,
        /// Whether one is under way.
        is_probing: bool,
    },
    /// Its endpoint has left the fleet.
    Retired,
}

impl State {
    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::Retired => "retired",
        }
    }
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    Opened {
        /// By the failure of a probe: it was half-open. Otherwise it was closed.
        from_probe: bool,
        cause: Cause,
        /// Until the next probe.
        open_for: Duration,
    },
    /// The time is over and the first probe goes out.
    HalfOpened,
    Closed {
        /// Probes in a row that succeeded.
        successes: u32,
    },
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    FailuresInARow {
        failures: u32,
    },
    FailureRate {
        failures: u32,
        calls: u32,
    },
    SlowCallRate {
        slow: u32,
        calls: u32,
    },
    ProbeFailed,
    /// The endpoint answered the probe that it has too much to do.
    ProbeTurnedAway,
}

impl Transition {
    /// The state that each kind of change leads to, and its cause: labels of a counter.
    pub const KINDS: [(&str, &str); 7] = [
        ("open", "failures_in_a_row"),
        ("open", "failure_rate"),
        ("open", "slow_call_rate"),
        ("open", "probe_failed"),
        ("open", "probe_turned_away"),
        ("half_open", "time_over"),
        ("closed", "probes_passed"),
    ];

    /// Place in [`Transition::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Transition::Opened { cause, .. } => match cause {
                Cause::FailuresInARow { .. } => 0,
                Cause::FailureRate { .. } => 1,
                Cause::SlowCallRate { .. } => 2,
                Cause::ProbeFailed => 3,
                Cause::ProbeTurnedAway => 4,
            },
            Transition::HalfOpened => 5,
            Transition::Closed { .. } => 6,
        }
    }

    pub(super) const HALF_OPENED: Transition = Transition::HalfOpened;

    pub(super) fn opened(from_probe: bool, cause: Cause, open_for: Duration) -> Transition {
        Transition::Opened { from_probe, cause, open_for }
    }

    pub(super) fn closed(successes: u32) -> Transition {
        Transition::Closed { successes }
    }
}

impl Cause {
    /// Whether it is the kind of trouble that an endpoint is ejected for while others are better.
    pub(super) fn is_ejection(self) -> bool {
        match self {
            Cause::FailureRate { failures, calls } => failures < calls,
            Cause::SlowCallRate { .. } => true,
            Cause::FailuresInARow { .. } | Cause::ProbeFailed | Cause::ProbeTurnedAway => false,
        }
    }
}

/// For the log: what happened, why, what it costs. The endpoint's name is the caller's to add.
impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transition::Opened { cause, open_for, .. } => {
                write!(f, "circuit open for {open_for:?}: {cause}; others take its share meanwhile")
            }
            Transition::HalfOpened => {
                write!(f, "circuit half-open: one request at a time tries the endpoint")
            }
            Transition::Closed { successes } => {
                write!(f, "circuit closed: {successes} probes in a row succeeded")
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::FailuresInARow { failures } => {
                write!(f, "{failures} requests in a row had no proper answer")
            }
            Cause::FailureRate { failures, calls } => {
                write!(f, "{failures} of the last {calls} requests failed")
            }
            Cause::SlowCallRate { slow, calls } => {
                write!(f, "{slow} of the last {calls} requests were slow")
            }
            Cause::ProbeFailed => write!(f, "the probe failed"),
            Cause::ProbeTurnedAway => write!(f, "the probe was told to come back later"),
        }
    }
}
