//! What travels: a sealed batch towards a destination, and word of its end back.

use forebay_codec::signal::{Counts, Signal};

/// Names a batch for as long as anybody waits for it: the receiver that sealed it, and a number
/// that this receiver never uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId {
    pub receiver: u16,
    pub seq: u64,
}

/// A sealed batch: a chain of bytes that, read one after another, are one valid export request.
/// Shared between destinations (`Arc<Batch>`), never changed.
#[derive(Debug)]
pub struct Batch {
    pub id: BatchId,
    pub signal: Signal,
    pub counts: Counts,
    /// The sum of the lengths in `chain`.
    pub bytes: u64,
    pub chain: Vec<bytes::Bytes>,
    /// Whether another destination may take what this one does not ([`Why::Failover`]).
    pub may_fail_over: bool,
}

/// What a destination gives back: items that it neither took nor dropped.
#[derive(Clone, Debug)]
pub struct GivenBack {
    /// Valid requests, one after another, of the settled batch's signal.
    pub chain: Vec<bytes::Bytes>,
    pub bytes: u64,
    pub counts: Counts,
    pub why: Why,
}

/// Why a destination gives something back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No endpoint takes it at this time.
    Failover,
    /// It was refused for good, or is too large: what a dead letter is.
    Refused { reason: DropReason, code: Option<u32>, message: String },
}

impl Why {
    /// Labels, by [`Why::index`].
    pub const NAMES: [&'static str; 2] = ["failover", "refused"];

    pub fn index(&self) -> usize {
        match self {
            Why::Failover => 0,
            Why::Refused { .. } => 1,
        }
    }
}

/// How a batch ended at one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took it. `rejected_items` were refused by its partial success: they are
    /// gone (a partial success is never retried) and count as dropped.
    Delivered { rejected_items: u64 },
    /// The batch is gone, and why. It is counted as dropped, under `reason`.
    Dropped { reason: DropReason, code: Option<u32>, message: String },
    /// It was sent in parts that ended differently, or were lost for different reasons: what was
    /// dropped, by [`DropReason::index`]; the rest, if any, was delivered. `code` and `message` are
    /// the last drop's.
    Parted { dropped_items: [u64; DropReason::ALL.len()], code: Option<u32>, message: String },
}

/// Why items left without being delivered. Each is a label in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The destination answered with a code that must not be retried.
    Refused,
    /// The destination took the request and rejected some of its items (partial success).
    PartialSuccess,
    /// `retry_on_failure.max_elapsed_time` passed, or retry is switched off.
    RetriesExhausted,
    /// The process stopped before the destination took it.
    Shutdown,
    /// One item alone is larger than the destination may be sent.
    TooLarge,
}

impl DropReason {
    pub const ALL: [DropReason; 5] = [
        DropReason::Refused,
        DropReason::PartialSuccess,
        DropReason::RetriesExhausted,
        DropReason::Shutdown,
        DropReason::TooLarge,
    ];

    pub fn index(self) -> usize {
        self as usize
    }

    /// The label's value in `forebay_ledger_dropped_items{reason=...}`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Refused => "refused_by_destination",
            DropReason::PartialSuccess => "partial_success",
            DropReason::RetriesExhausted => "retries_exhausted",
            DropReason::Shutdown => "shutdown",
            DropReason::TooLarge => "too_large",
        }
    }
}

/// Word that a batch has ended at one destination. Sent exactly once per batch and destination.
#[derive(Clone, Debug)]
pub struct Settled {
    pub batch: BatchId,
    /// Index of the destination in the plan.
    pub destination: u16,
    /// Of all items but those given back.
    pub outcome: Outcome,
    /// Only from destinations that are told so ([`crate::destination::Destination::fails_over`],
    /// `keeps_refused`).
    pub given_back: Vec<GivenBack>,
}

/// The way back to the receiver that sealed the batch.
pub trait Returns: Send + Sync {
    /// Hands `settled` over, or gives it back when that receiver's queue is full: try again soon.
    fn settle(&self, settled: Settled) -> Result<(), Settled>;
}
