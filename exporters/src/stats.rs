//! What a lane counts: numbers that any thread may read at any time.
//!
//! Never locks. Every counter is relaxed but the number of held batches, which hands queue slots
//! from the sender back to the door. What receivers write and
//! what the exporter core writes lie on cache lines of their own, so that neither slows the other.
//! At rest (nothing held) `offered_items` is the sum of `delivered_items`, all `dropped_items` and
//! all `given_back_items`.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use forebay_codec::signal::Signal;

use crate::batch::{DropReason, Why};
use crate::dispatch::Waiting;
use crate::verdict::FailureKind;

const SIGNALS: usize = Signal::ALL.len();
const REASONS: usize = DropReason::ALL.len();
const FAILURES: usize = FailureKind::ALL.len();
const WAITS: usize = Waiting::ALL.len();
const WHYS: usize = Why::NAMES.len();

/// What a lane may hold of things that it can do without.
const SPARE_BYTES_MAX: u64 = 16 << 20;

/// The counters of one lane.
pub struct LaneStats {
    queue_capacity: u64,
    queue_bytes_max: u64,
    door: OwnLine<Door>,
    sender: OwnLine<Sender>,
}

/// All counters of a lane, read one after another (so not at one instant).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Items of all batches that the lane took.
    pub offered_items: u64,
    pub delivered_items: u64,
    pub delivered_batches: u64,
    /// By [`DropReason::index`].
    pub dropped_items: [u64; REASONS],
    /// By [`Why::index`].
    pub given_back_items: [u64; WHYS],
    /// By [`Signal::index`].
    pub offered_items_by_signal: [u64; SIGNALS],
    /// By [`Signal::index`].
    pub delivered_items_by_signal: [u64; SIGNALS],
    /// By [`DropReason::index`], then by [`Signal::index`].
    pub dropped_items_by_signal: [[u64; SIGNALS]; REASONS],
    /// Batches the lane holds: waiting, in flight, waiting for a retry or to be settled.
    pub queue_batches: u64,
    /// Request bytes of those batches, with copies made of them.
    pub queue_bytes: u64,
    /// Batches the lane may hold; at this many it takes no more.
    pub queue_capacity: u64,
    /// Request bytes at which the lane takes no more; `None`: the number of batches alone counts.
    pub queue_bytes_max: Option<u64>,
    pub in_flight_requests: u64,
    /// Parts (most batches are one) that wait for their next attempt.
    pub retries_waiting: u64,
    pub attempts: u64,
    /// Attempts beyond a part's first.
    pub attempts_again: u64,
    /// Parts that needed more than one attempt.
    pub parts_again: u64,
    /// How often a part had to wait, by [`Waiting::index`].
    pub waits: [u64; WAITS],
    /// By [`FailureKind::index`].
    pub failed_attempts: [u64; FAILURES],
    /// Message bytes handed to the transport, after compression, attempts that failed included.
    pub sent_bytes: u64,
    /// Requests sent once more, to the same endpoint within the same attempt, because the
    /// connection closed before an answer began.
    pub repeated_requests: u64,
    pub connections_made: u64,
    pub connections_open: u64,
}

impl LaneStats {
    pub fn snapshot(&self) -> Snapshot {
        let (door, sender) = (&self.door.0, &self.sender.0);
        let offered_items_by_signal = load(&door.offered_items);
        let delivered_items_by_signal = load(&sender.delivered_items);
        let dropped_items_by_signal: [[u64; SIGNALS]; REASONS] =
            std::array::from_fn(|reason| load(&sender.dropped_items[reason]));
        Snapshot {
            offered_items: offered_items_by_signal.iter().sum(),
            delivered_items: delivered_items_by_signal.iter().sum(),
            delivered_batches: sender.delivered_batches.load(Relaxed),
            dropped_items: dropped_items_by_signal.map(|items| items.iter().sum()),
            given_back_items: load(&sender.given_back_items),
            offered_items_by_signal,
            delivered_items_by_signal,
            dropped_items_by_signal,
            queue_batches: door.held_batches.load(Relaxed),
            queue_bytes: door.held_bytes.load(Relaxed),
            queue_capacity: self.queue_capacity,
            queue_bytes_max: (self.queue_bytes_max < u64::MAX).then_some(self.queue_bytes_max),
            in_flight_requests: sender.in_flight_requests.load(Relaxed),
            retries_waiting: sender.retries_waiting.load(Relaxed),
            attempts: sender.attempts.load(Relaxed),
            attempts_again: sender.attempts_again.load(Relaxed),
            parts_again: sender.parts_again.load(Relaxed),
            waits: load(&sender.waits),
            failed_attempts: load(&sender.failed_attempts),
            sent_bytes: sender.sent_bytes.load(Relaxed),
            repeated_requests: sender.repeated_requests.load(Relaxed),
            connections_made: sender.connections_made.load(Relaxed),
            connections_open: sender.connections_open.load(Relaxed),
        }
    }

    pub(crate) fn new(queue_capacity: u64, queue_bytes_max: Option<u64>) -> LaneStats {
        LaneStats {
            queue_capacity,
            queue_bytes_max: queue_bytes_max.unwrap_or(u64::MAX).max(1),
            door: OwnLine(Door::default()),
            sender: OwnLine(Sender::default()),
        }
    }

    /// Takes room for one batch. False: the lane holds as many as it may, or as many bytes.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let Door { held_batches, held_bytes, .. } = &self.door.0;
        if held_batches.fetch_add(1, Acquire) < self.queue_capacity {
            // Whoever finds it below the limit may pass it, so the largest batch is taken too.
            if held_bytes.fetch_add(bytes, Relaxed) < self.queue_bytes_max {
                return true;
            }
            held_bytes.fetch_sub(bytes, Relaxed);
        }
        held_batches.fetch_sub(1, Relaxed);
        false
    }

    /// Of a batch whose bytes were released.
    pub(crate) fn unreserve(&self) {
        self.door.0.held_batches.fetch_sub(1, Release);
    }

    pub(crate) fn held_batches(&self) -> u64 {
        self.door.0.held_batches.load(Relaxed)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.held_batches() < self.queue_capacity
            && self.door.0.held_bytes.load(Relaxed) < self.queue_bytes_max
    }

    pub(crate) fn offered(&self, signal: Signal, items: u64) {
        self.door.0.offered_items[signal.index()].fetch_add(items, Relaxed);
    }

    pub(crate) fn bytes_released(&self, bytes: u64) {
        self.door.0.held_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Memory that what is held takes beside its own.
    pub(crate) fn charge(&self, bytes: u64) {
        self.door.0.held_bytes.fetch_add(bytes, Relaxed);
    }

    /// As [`LaneStats::charge`], for what can be done without. False: there is no room to spare,
    /// which means that the lane would be more than half full, or has [`SPARE_BYTES_MAX`] of it.
    pub(crate) fn charge_spare(&self, bytes: u64) -> bool {
        let (held, spare) = (&self.door.0.held_bytes, &self.sender.0.spare_bytes);
        let has_room = spare.load(Relaxed) + bytes <= SPARE_BYTES_MAX
            && held.load(Relaxed) + bytes <= self.queue_bytes_max / 2;
        if has_room {
            held.fetch_add(bytes, Relaxed);
            spare.fetch_add(bytes, Relaxed);
        }
        has_room
    }

    /// Of what was released.
    pub(crate) fn spare_released(&self, bytes: u64) {
        self.sender.0.spare_bytes.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn delivered(&self, signal: Signal, items: u64) {
        self.sender.0.delivered_items[signal.index()].fetch_add(items, Relaxed);
    }

    pub(crate) fn delivered_batch(&self) {
        self.sender.0.delivered_batches.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped(&self, reason: DropReason, signal: Signal, items: u64) {
        self.sender.0.dropped_items[reason.index()][signal.index()].fetch_add(items, Relaxed);
    }

    pub(crate) fn given_back(&self, why: &Why, items: u64) {
        self.sender.0.given_back_items[why.index()].fetch_add(items, Relaxed);
    }

    /// The `number`th attempt of a part, from one.
    pub(crate) fn attempt_began(&self, number: u32) {
        let sender = &self.sender.0;
        sender.attempts.fetch_add(1, Relaxed);
        sender.in_flight_requests.fetch_add(1, Relaxed);
        if number > 1 {
            sender.attempts_again.fetch_add(1, Relaxed);
            sender.parts_again.fetch_add(u64::from(number == 2), Relaxed);
        }
    }

    pub(crate) fn waits(&self, why: Waiting) {
        self.sender.0.waits[why.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn attempt_ended(&self) {
        self.sender.0.in_flight_requests.fetch_sub(1, Relaxed);
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        self.sender.0.failed_attempts[kind.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sender.0.sent_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn repeated(&self) {
        self.sender.0.repeated_requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_made(&self) {
        self.sender.0.connections_made.fetch_add(1, Relaxed);
        self.sender.0.connections_open.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.sender.0.connections_open.fetch_sub(1, Relaxed);
    }

    pub(crate) fn retries_waiting(&self, batches: u64) {
        self.sender.0.retries_waiting.store(batches, Relaxed);
    }
}

/// Two lines, since processors fetch them in pairs.
#[repr(align(128))]
struct OwnLine<T>(T);

/// Written by receivers (and by the sender when it lets go of a batch).
#[derive(Default)]
struct Door {
    held_batches: AtomicU64,
    held_bytes: AtomicU64,
    offered_items: [AtomicU64; SIGNALS],
}

/// Written by the exporter core alone.
#[derive(Default)]
struct Sender {
    delivered_items: [AtomicU64; SIGNALS],
    delivered_batches: AtomicU64,
    dropped_items: [[AtomicU64; SIGNALS]; REASONS],
    in_flight_requests: AtomicU64,
    given_back_items: [AtomicU64; WHYS],
    retries_waiting: AtomicU64,
    /// Of what is held, what can be done without.
    spare_bytes: AtomicU64,
    attempts: AtomicU64,
    attempts_again: AtomicU64,
    parts_again: AtomicU64,
    waits: [AtomicU64; WAITS],
    failed_attempts: [AtomicU64; FAILURES],
    sent_bytes: AtomicU64,
    repeated_requests: AtomicU64,
    connections_made: AtomicU64,
    connections_open: AtomicU64,
}

fn load<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|i| counters[i].load(Relaxed))
}
