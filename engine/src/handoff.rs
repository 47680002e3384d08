//! Between receiver and exporter cores: whole batches there, their ends back.
//!
//! There: each destination has a lane on each exporter core, an `ArrayQueue` behind
//! `Lane::offer`. A lane that is full gives the batch back, and the receiver keeps it in its
//! [`Outbox`]; while anything waits there, or the destination has all that it may have of this
//! core's memory, the door is closed for the pipelines concerned, so an outbox holds no more than
//! one turn's batches. Back: one queue per receiver core.
//!
//! Always
//! - A full queue is backpressure, never a drop.
//! - A wake costs a system call only when the other side sleeps.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use forebay_exporters::batch::{Batch, Returns, Settled};
use forebay_exporters::lane::Lane;
use forebay_net::wake::Wake;

/// Ends that may wait for a receiver core; more, and the exporters wait.
const RETURNS_MAX: usize = 4096;

/// The way back to one receiver core.
#[derive(Debug)]
pub struct ReturnQueue {
    queue: ArrayQueue<Settled>,
    wake: std::sync::OnceLock<Arc<Wake>>,
}

impl ReturnQueue {
    pub fn new() -> ReturnQueue {
        ReturnQueue { queue: ArrayQueue::new(RETURNS_MAX), wake: std::sync::OnceLock::new() }
    }

    /// The receiver core says how it is woken, once its ring stands.
    pub fn attach(&self, wake: Arc<Wake>) {
        // Only one shard ever attaches to a queue.
        let _ = self.wake.set(wake);
    }

    pub fn pop(&self) -> Option<Settled> {
        self.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }
}

impl Default for ReturnQueue {
    fn default() -> Self {
        ReturnQueue::new()
    }
}

/// All ways back, by receiver core.
#[derive(Debug)]
pub struct ReturnPaths(pub Vec<Arc<ReturnQueue>>);

impl Returns for ReturnPaths {
    fn settle(&self, settled: Settled) -> Result<(), Settled> {
        let path = &self.0[usize::from(settled.batch.receiver)];
        let pushed = path.queue.push(settled);
        path.wake();
        pushed
    }
}

/// One destination as a receiver core sees it.
pub struct Outbox {
    /// The destination's lanes, one per exporter core.
    lanes: Vec<Arc<Lane>>,
    /// The lane that is tried first: receivers prefer different ones.
    first: usize,
    waiting: VecDeque<Arc<Batch>>,
    /// Of this core's budget, what is held for batches that the destination has not settled: more
    /// than their own bytes, where many small requests are in one.
    held_bytes: u64,
    /// How much of them it may have; one batch is always taken.
    quota_bytes: Option<u64>,
}

impl Outbox {
    pub fn new(lanes: Vec<Arc<Lane>>, receiver: usize, quota_bytes: Option<u64>) -> Outbox {
        let first = receiver % lanes.len().max(1);
        Outbox { lanes, first, waiting: VecDeque::new(), held_bytes: 0, quota_bytes }
    }

    /// Takes a batch, for which `held_bytes` are held; it waits if there is no room for it.
    pub fn push(&mut self, batch: Arc<Batch>, held_bytes: u64) {
        self.held_bytes += held_bytes;
        self.waiting.push_back(batch);
    }

    /// Takes a batch if there is room for it now, for one that has nothing to wait for here.
    pub fn push_if_room(&mut self, batch: Arc<Batch>, held_bytes: u64) -> Result<(), Arc<Batch>> {
        let is_over = |quota: u64| self.held_bytes > 0 && self.held_bytes + held_bytes > quota;
        if !self.waiting.is_empty() || self.quota_bytes.is_some_and(is_over) {
            return Err(batch);
        }
        self.offer(batch)?;
        self.held_bytes += held_bytes;
        Ok(())
    }

    /// A batch, for which so much was held, has come back.
    pub fn settled(&mut self, held_bytes: u64) {
        self.held_bytes -= held_bytes;
    }

    /// Offers what waits until every lane is full.
    pub fn feed(&mut self) {
        while let Some(batch) = self.waiting.pop_front() {
            if let Err(batch) = self.offer(batch) {
                self.waiting.push_front(batch);
                break;
            }
        }
    }

    /// Whether something waits: no lane has room.
    pub fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the destination should get no more for now.
    pub fn is_full(&self) -> bool {
        self.is_blocked() || self.quota_bytes.is_some_and(|quota| self.held_bytes >= quota)
    }

    /// Whether its lanes hold more than half of what they may.
    pub fn is_half_full(&self) -> bool {
        let lanes = self.lanes.iter().map(|lane| lane.stats().snapshot());
        let (held, room) = lanes.fold((0, 0), |(held, room), lane| {
            (held + lane.queue_batches, room + lane.queue_capacity)
        });
        2 * held > room
            || self.quota_bytes.is_some_and(|quota| u128::from(self.held_bytes) * 2 > quota.into())
    }

    /// Takes all that was never offered, when the process ends.
    pub fn abandon(&mut self) -> VecDeque<Arc<Batch>> {
        std::mem::take(&mut self.waiting)
    }

    fn offer(&self, batch: Arc<Batch>) -> Result<(), Arc<Batch>> {
        let mut batch = batch;
        for step in 0..self.lanes.len() {
            let lane = &self.lanes[(self.first + step) % self.lanes.len()];
            match lane.offer(batch) {
                Ok(()) => return Ok(()),
                Err(returned) => batch = returned,
            }
        }
        Err(batch)
    }
}

#[cfg(test)]
mod tests {
    use forebay_codec::signal::{Counts, Signal};
    use forebay_exporters::batch::BatchId;
    use forebay_exporters::destination::Queue;

    use super::*;

    fn tiny(seq: u64) -> Arc<Batch> {
        let (chain, counts) = (Vec::new(), Counts { items: 1, profiles: 0 });
        let id = BatchId { receiver: 0, seq };
        Arc::new(Batch { id, signal: Signal::Logs, counts, bytes: 10, chain, may_fail_over: false })
    }

    #[test]
    fn a_destination_has_its_share_of_the_budget_when_as_much_is_held_however_small_its_batches() {
        let queue = Queue { batches_max: 100, bytes_max: None, consumers: 1 };
        let lane = Arc::new(Lane::new(0, &queue));
        let mut outbox = Outbox::new(vec![lane], 0, Some(1000));
        for seq in 0..4 {
            assert!(!outbox.is_full(), "{seq}");
            assert!(outbox.push_if_room(tiny(seq), 250).is_ok(), "{seq}");
        }
        assert!(outbox.is_full() && outbox.push_if_room(tiny(4), 1).is_err());
        outbox.settled(250);
        assert!(!outbox.is_full() && outbox.push_if_room(tiny(4), 250).is_ok());
    }
}
