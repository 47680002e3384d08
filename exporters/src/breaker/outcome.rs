//! What a call's end says about the endpoint, which is not what it says about the batch.
//!
//! Never judges the batch; [`crate::verdict`] does. Always: what the endpoint did not cause (a
//! batch that nobody would take, a limit that it keeps for good reason, a call that was never
//! made) is not held against it.

use std::time::Duration;

use forebay_net::grpc::code;

use crate::verdict::{Failure, FailureKind, Remedy, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took the call.
    Success,
    /// No connection, no answer, or none that can be read: it does not work. INTERNAL and UNKNOWN
    /// too, because each costs a batch. So many in a row open the breaker.
    Failure,
    /// UNAVAILABLE without a delay, 502 to 504: something is alive there, perhaps a proxy of whose
    /// servers one is ill, so the share of such answers decides.
    Unwell,
    /// It works and refused the batch for good: counts for nothing, and proves a probe.
    Answered,
    /// It works and has too much to do: RESOURCE_EXHAUSTED, 429, or any answer with a delay. Not
    /// a failure; the endpoint is left alone for the delay (at most the `recovery_timeout`) if it
    /// is not the only one.
    Overloaded { delay: Option<Duration> },
    /// The call was never made, or its end lies with us.
    Unsent,
}

impl Outcome {
    pub fn of(verdict: &Verdict) -> Outcome {
        match verdict {
            Verdict::Delivered { .. } => Outcome::Success,
            Verdict::Failed(failure) => Outcome::of_failure(failure),
        }
    }

    fn of_failure(failure: &Failure) -> Outcome {
        let delay = match failure.remedy {
            Remedy::Retry { delay } => delay,
            Remedy::Shrink | Remedy::Drop => None,
        };
        match (failure.kind, failure.code) {
            (FailureKind::Internal | FailureKind::Write, _) => Outcome::Unsent,
            (FailureKind::TooLarge, _) => Outcome::Answered,
            (_, Some(code::RESOURCE_EXHAUSTED)) => Outcome::Overloaded { delay },
            (FailureKind::Unavailable, _) if delay.is_some() => Outcome::Overloaded { delay },
            // INTERNAL and UNKNOWN, and with them HTTP 500: permanent for the batch by OTLP, but
            // an endpoint that says so to everything is better left alone.
            (FailureKind::Refused, Some(code::INTERNAL | code::UNKNOWN)) => Outcome::Failure,
            (FailureKind::Refused, _) => Outcome::Answered,
            (FailureKind::Unavailable, _) => Outcome::Unwell,
            (
                FailureKind::Connect
                | FailureKind::Tls
                | FailureKind::Disconnected
                | FailureKind::Timeout
                | FailureKind::Garbage,
                _,
            ) => Outcome::Failure,
        }
    }
}
