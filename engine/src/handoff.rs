//! Between receiver and exporter cores: whole batches there, their ends back.
//!
//! There: each destination has a lane on each exporter core, an `ArrayQueue` behind
//! `Lane::offer`. A lane that is full gives the batch back, and the receiver keeps it in its
//! [`Outbox`]; while anything waits there the door is closed for the pipelines concerned, so an
//! outbox holds no more than one turn's batches. Back: one queue per receiver core.
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
}

impl Outbox {
    pub fn new(lanes: Vec<Arc<Lane>>, receiver: usize) -> Outbox {
        let first = receiver % lanes.len().max(1);
        Outbox { lanes, first, waiting: VecDeque::new() }
    }

    pub fn push(&mut self, batch: Arc<Batch>) {
        self.waiting.push_back(batch);
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
