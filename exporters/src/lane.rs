//! One destination's queue on one exporter core: the door that receivers knock on.
//!
//! Never blocks, never drops: an offer is taken or given back, and full means backpressure.
//! Always: a batch counts as held from a successful offer until its end was handed to its
//! receiver, wherever it is meanwhile (queue, in flight, waiting for a retry), and a lane never
//! takes more than `queue.batches_max + queue.consumers`, nor anything at `queue.bytes_max` bytes
//! or more. Copies of what it holds count as bytes of it (`charge`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;

use crate::batch::Batch;
use crate::destination::Queue;
use crate::stats::LaneStats;

/// One destination's queue and sender on one exporter core.
pub struct Lane {
    destination_index: u16,
    queue: ArrayQueue<Arc<Batch>>,
    /// Wakes the lane's keeper on the exporter core.
    waker: AtomicWaker,
    /// Something happened since the keeper looked.
    knocked: AtomicBool,
    /// Set when the sender takes no more: an offer would have nobody to settle it.
    ended: AtomicBool,
    /// Set when nobody waits for what it holds any longer.
    abandoned: AtomicBool,
    stats: LaneStats,
}

impl Lane {
    pub fn new(destination_index: u16, queue: &Queue) -> Lane {
        let capacity = queue.batches_max.max(1) + queue.consumers.max(1);
        Lane {
            destination_index,
            queue: ArrayQueue::new(capacity),
            waker: AtomicWaker::new(),
            knocked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            stats: LaneStats::new(capacity as u64, queue.bytes_max),
        }
    }

    /// Never blocks; gives the batch back when the lane is full (that is backpressure) or has
    /// ended.
    pub fn offer(&self, batch: Arc<Batch>) -> Result<(), Arc<Batch>> {
        if !self.stats.reserve(batch.bytes) {
            return Err(batch);
        }
        // Reserved first: the sender ends only when nothing is held, so it sees either this
        // reservation or makes this load true.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            self.let_go(&batch);
            return Err(batch);
        }
        self.stats.offered(batch.signal, batch.counts.items);
        self.queue.push(batch).expect("the queue has a slot for each reservation");
        self.wake();
        Ok(())
    }

    /// Whether an offer made now would be taken, other offers aside.
    pub fn has_room(&self) -> bool {
        self.stats.has_room()
    }

    pub fn stats(&self) -> &LaneStats {
        &self.stats
    }

    /// Index of the destination in the plan.
    pub fn destination_index(&self) -> u16 {
        self.destination_index
    }

    /// The next batch, for the lane's keeper: the sender here, or a test in its place. It is held
    /// until [`Lane::let_go`].
    pub fn pop(&self) -> Option<Arc<Batch>> {
        self.queue.pop()
    }

    /// The end of a batch was handed to its receiver: there is room for another.
    pub fn let_go(&self, batch: &Batch) {
        self.stats.bytes_released(batch.bytes);
        self.stats.unreserve();
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Registers the keeper to be woken by the next offer or stop.
    pub(crate) fn listen(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Whether anybody knocked since the last call. Call after [`Lane::listen`]: then none is
    /// missed.
    pub(crate) fn take_knock(&self) -> bool {
        self.knocked.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn wake(&self) {
        self.knocked.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// From here on every offer is given back; those under way still arrive.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// This lane alone settles all it holds as dropped (`Shutdown`), and takes no more: its copies
    /// must not hold up the end of the process.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Forgets the keeper, whose executor is about to go.
    pub(crate) fn forget_waker(&self) {
        drop(self.waker.take());
    }
}
