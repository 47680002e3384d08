//! What the ledger tells apart, and what each is called in metrics and JSON.

use forebay_exporters::batch::DropReason;
use forebay_net::pace::BYTES_PER_SECOND_MIN;
use forebay_net::request::Refusal;

/// How a receiver was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Http,
}

impl Transport {
    pub const ALL: [Transport; 2] = [Transport::Grpc, Transport::Http];

    /// The label's value in the Collector's metrics.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Grpc => "grpc",
            Transport::Http => "http",
        }
    }
}

/// Why items that came were not taken. The client was told so, and still has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// The memory budget of the receiver core has no room.
    Memory,
    /// A destination's queue has no room.
    QueueFull,
    /// The process is about to stop.
    Draining,
    /// More requests in flight than `engine.limits.requests_max`.
    Requests,
    /// Text that is not UTF-8, where `engine.invalid_utf8` is `refuse_item`: a partial success.
    InvalidUtf8,
    /// No endpoint of a destination takes anything, and its queue is half full.
    Refusing,
    /// Memory runs short, and others go before.
    ShedLow,
    ShedNormal,
}

impl RefuseReason {
    pub const ALL: [RefuseReason; 8] = [
        RefuseReason::Memory,
        RefuseReason::QueueFull,
        RefuseReason::Draining,
        RefuseReason::Requests,
        RefuseReason::InvalidUtf8,
        RefuseReason::Refusing,
        RefuseReason::ShedLow,
        RefuseReason::ShedNormal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RefuseReason::Memory => "memory_budget",
            RefuseReason::QueueFull => "queue_full",
            RefuseReason::Draining => "draining",
            RefuseReason::Requests => "requests_in_flight",
            RefuseReason::InvalidUtf8 => "invalid_utf8",
            RefuseReason::Refusing => "destinations_refuse",
            RefuseReason::ShedLow => "shed_low",
            RefuseReason::ShedNormal => "shed_normal",
        }
    }
}

/// Why items go on to another destination of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassReason {
    /// The destination does not take them at this time, and another does.
    Failover,
    /// They are another's share.
    Shift,
    /// They were refused for good: another keeps them.
    DeadLetter,
}

impl PassReason {
    pub const ALL: [PassReason; 3] =
        [PassReason::Failover, PassReason::Shift, PassReason::DeadLetter];

    pub fn name(self) -> &'static str {
        match self {
            PassReason::Failover => "failover",
            PassReason::Shift => "shift",
            PassReason::DeadLetter => "dead_letter",
        }
    }
}

/// Why items are lost: each [`DropReason`], and the full queue of a mirror.
pub const LOSSES: usize = DropReason::ALL.len() + 1;
pub const MIRROR_FULL: usize = DropReason::ALL.len();

/// The labels of [`LOSSES`].
pub fn loss_names() -> [&'static str; LOSSES] {
    std::array::from_fn(|index| DropReason::ALL.get(index).map_or("mirror_full", |r| r.name()))
}

/// How requests ended, whatever they held. A request that is refused before it is read has no
/// items that anybody could count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// Answered with success.
    Ok,
    /// Refused for now: come back later.
    Overloaded,
    /// Not OTLP, or not well-formed.
    Invalid,
    TooLarge,
    /// A path, method or content type that nobody serves.
    Unserved,
    /// A stalled or malformed header or body, answered by the protocol itself.
    Malformed,
    /// The client left before its request was complete.
    Abandoned,
    /// Accepted, but a destination refused it for good (`delivered` acks).
    Failed,
}

impl RequestEnd {
    pub const ALL: [RequestEnd; 8] = [
        RequestEnd::Ok,
        RequestEnd::Overloaded,
        RequestEnd::Invalid,
        RequestEnd::TooLarge,
        RequestEnd::Unserved,
        RequestEnd::Malformed,
        RequestEnd::Abandoned,
        RequestEnd::Failed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RequestEnd::Ok => "ok",
            RequestEnd::Overloaded => "overloaded",
            RequestEnd::Invalid => "invalid",
            RequestEnd::TooLarge => "too_large",
            RequestEnd::Unserved => "unserved",
            RequestEnd::Malformed => "malformed",
            RequestEnd::Abandoned => "abandoned",
            RequestEnd::Failed => "failed",
        }
    }
}

/// What is wrong with a body of which too little came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateBody {
    /// Nothing came for `engine.limits.body_timeout`.
    Stalled,
    /// It came, but took longer than its bytes had earned it.
    Slow,
}

impl LateBody {
    pub const ALL: [LateBody; 2] = [LateBody::Stalled, LateBody::Slow];

    pub fn of(refusal: Refusal) -> LateBody {
        match refusal {
            Refusal::BodyTooSlow => LateBody::Slow,
            _ => LateBody::Stalled,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            LateBody::Stalled => "stalled",
            LateBody::Slow => "slow",
        }
    }

    /// What its client is told.
    pub fn message(self) -> String {
        match self {
            LateBody::Stalled => {
                "the body stalled for longer than engine.limits.body_timeout".to_owned()
            }
            LateBody::Slow => format!(
                "the body took longer than engine.limits.body_timeout and a second for each \
                 {BYTES_PER_SECOND_MIN} bytes"
            ),
        }
    }
}
