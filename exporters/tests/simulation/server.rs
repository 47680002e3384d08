//! How an endpoint behaves, moment by moment.

use std::time::Duration;

use forebay_exporters::verdict::{Failure, FailureKind, Remedy, Verdict, again};
use forebay_net::grpc::code;

/// The client's timeout for one call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Well,
    /// The process is gone: no connection, and what was under way is cut off.
    Dead,
    /// Connections stand and nothing is answered.
    Hung,
    /// Takes a request and closes the connection before the answer.
    Resets,
    /// A hundred times as slow.
    Slow,
    /// Takes one request, and closes on all others.
    LiesThenCloses,
    /// Says UNAVAILABLE to nearly half of its calls: too few to open its breaker for.
    Flaky,
    Says(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    Unavailable,
    UnavailableFor(Duration),
    ExhaustedFor(Duration),
    Internal,
    Invalid,
}

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) mode: Mode,
    pub(crate) latency: Duration,
}

impl Server {
    /// After how long a call that begins now ends, and how. `random` is uniform in 0.0..1.0.
    pub(crate) fn answers(&self, random: f64) -> (Duration, Verdict) {
        let latency = self.latency.mul_f64(0.5 + random);
        match self.mode {
            Mode::Well | Mode::LiesThenCloses => (latency, delivered()),
            Mode::Flaky if random < 0.4 => (latency, Refusal::Unavailable.verdict()),
            Mode::Flaky => (latency, delivered()),
            Mode::Slow => (latency * 100, delivered()),
            Mode::Dead => (Duration::from_millis(1), again(FailureKind::Connect, "refused")),
            Mode::Hung => (TIMEOUT, again(FailureKind::Timeout, "no answer")),
            Mode::Resets => (latency / 2, reset()),
            Mode::Says(refusal) => (latency, refusal.verdict()),
        }
    }

    /// What a change to `mode` does to a call that has been under way for `age`.
    pub(crate) fn cuts_off(mode: Mode, age: Duration) -> Option<(Duration, Verdict)> {
        match mode {
            Mode::Dead => Some((Duration::ZERO, reset())),
            Mode::Hung => {
                Some((TIMEOUT.saturating_sub(age), again(FailureKind::Timeout, "no answer")))
            }
            _ => None,
        }
    }
}

pub(crate) fn delivered() -> Verdict {
    Verdict::Delivered { rejected: 0, warning: String::new() }
}

pub(crate) fn reset() -> Verdict {
    again(FailureKind::Disconnected, "reset")
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 5] = [
        Refusal::Unavailable,
        Refusal::UnavailableFor(Duration::from_secs(3)),
        Refusal::ExhaustedFor(Duration::from_secs(2)),
        Refusal::Internal,
        Refusal::Invalid,
    ];

    fn verdict(self) -> Verdict {
        let unavailable = FailureKind::Unavailable;
        let retry = |delay| Remedy::Retry { delay };
        let (kind, code, remedy) = match self {
            Refusal::Unavailable => (unavailable, code::UNAVAILABLE, retry(None)),
            Refusal::UnavailableFor(delay) => (unavailable, code::UNAVAILABLE, retry(Some(delay))),
            Refusal::ExhaustedFor(delay) => {
                (unavailable, code::RESOURCE_EXHAUSTED, retry(Some(delay)))
            }
            Refusal::Internal => (FailureKind::Refused, code::INTERNAL, Remedy::Drop),
            Refusal::Invalid => (FailureKind::Refused, code::INVALID_ARGUMENT, Remedy::Drop),
        };
        let (code, message) = (Some(code), String::new());
        Verdict::Failed(Failure { kind, code, status: None, message, remedy })
    }
}
