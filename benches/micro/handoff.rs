//! Handing batches from core to core and their ends back: `ArrayQueue` and `Wake` beside the
//! bounded channels of the standard library.
//!
//! Both do what receiver and exporter do: one thread keeps a number of batches in flight, the
//! other settles each of them; whoever has nothing to do sleeps. Ours sleeps in a ring, as a
//! receiver does, and is woken through its eventfd only when it sleeps. The CPU time is that of
//! both threads together, system calls included. Each thread is pinned to a core of its own, as in
//! the engine; where there is only one core, the two take turns on it.

mod timing;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, spawn};

use crossbeam_queue::ArrayQueue;
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Options, Ring, Rung};
use forebay_net::wake::Wake;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

fn main() -> ExitCode {
    let mut session = Session::start("Hand-off between two threads");
    let cores = Cores::allowed();
    pin(cores.first);
    if let Err(why) = Uring::new(&OPTIONS) {
        println!("\n*** NOTHING WAS MEASURED: this machine gives no io_uring: {why} ***");
        return session.finish();
    }
    let other = cores.other;
    session.run(contest("batch there and back, 1 in flight", 1, other));
    session.run(contest("batch there and back, 64 in flight", 64, other));
    session.run(contest("batch there and back, 1024 in flight", 1024, other));
    session.finish()
}

const BATCHES: u64 = 4_096;
/// Tells the other thread to end.
const STOP: u64 = u64::MAX;
const OPTIONS: Options = Options {
    entries: 8,
    buffers: 2,
    buffer_bytes: 4096,
    datagram_buffers: 0,
    highest: Rung::Deferred,
};

/// Where the two threads run.
struct Cores {
    first: usize,
    other: usize,
}

impl Cores {
    /// The first two cores that this process may use, or twice the only one.
    fn allowed() -> Cores {
        let allowed = sched_getaffinity(None).expect("a thread may ask where it runs");
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let first = cores.next().expect("it runs somewhere");
        Cores { first, other: cores.next().unwrap_or(first) }
    }
}

/// Keeps the calling thread on a core.
fn pin(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).expect("the core is one of the allowed");
}

fn contest(name: &'static str, in_flight: usize, other: usize) -> Contest<'static> {
    let ours = || Ours::new(in_flight, other);
    let (mut ours, mut ours_told) = (ours(), ours());
    let theirs = || Channels::new(in_flight, other);
    let (theirs, theirs_told) = (theirs(), theirs());
    Contest {
        name,
        unit: "round trip",
        bytes: 0,
        cpu: Cpu::Process,
        ours: Contender {
            name: "ArrayQueue, Wake",
            work: Box::new(move || ours.exchange(|_| ())),
            outcome: Box::new(move || told(|heard| ours_told.exchange(heard))),
        },
        theirs: Contender {
            name: "std sync_channel",
            work: Box::new(move || theirs.exchange(|_| ())),
            outcome: Box::new(move || told(|heard| theirs_told.exchange(heard))),
        },
        bar: Bar::None,
    }
}

/// Counts what comes back, and hashes it in the order in which it does.
fn told(exchange: impl FnOnce(&mut dyn FnMut(u64)) -> u64) -> Outcome {
    let mut heard = Vec::new();
    let count = exchange(&mut |settled| heard.extend(settled.to_le_bytes()));
    Outcome::of(count, &heard)
}

/// What the other side makes of a batch: so that it can't be the same by chance.
fn settled(batch: u64) -> u64 {
    batch.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
}

/// A queue with the wake of the thread that empties it.
struct Way {
    queue: ArrayQueue<u64>,
    wake: Arc<Wake>,
}

impl Way {
    fn push(&self, value: u64) {
        self.queue.push(value).expect("no more are in flight than the queue holds");
        self.wake.wake();
    }

    /// The next one; sleeps in the ring while there is none.
    fn pop(&self, ring: &mut Uring) -> u64 {
        loop {
            if let Some(value) = self.queue.pop() {
                return value;
            }
            self.wake.about_to_sleep();
            if self.queue.is_empty() {
                ring.wait(None).expect("the ring waits");
            }
            self.wake.awake();
            while ring.next_done().is_some() {}
        }
    }
}

struct Ours {
    in_flight: usize,
    ring: Uring,
    there: Arc<Way>,
    back: Arc<Way>,
    other: Option<JoinHandle<()>>,
}

impl Ours {
    fn new(in_flight: usize, core: usize) -> Ours {
        let ring = Uring::new(&OPTIONS).expect("main has made one before");
        // Room for the batches in flight and for the word to stop.
        let room = in_flight + 1;
        let back = Arc::new(Way { queue: ArrayQueue::new(room), wake: ring.wake() });
        let (told, tells) = sync_channel(1);
        let back_again = back.clone();
        let other = spawn(move || {
            pin(core);
            let mut ring = Uring::new(&OPTIONS).expect("main has made one before");
            let there = Arc::new(Way { queue: ArrayQueue::new(room), wake: ring.wake() });
            told.send(there.clone()).expect("the first thread waits for it");
            loop {
                match there.pop(&mut ring) {
                    STOP => break,
                    batch => back_again.push(settled(batch)),
                }
            }
        });
        let there = tells.recv().expect("the other thread made its ring");
        Ours { in_flight, ring, there, back, other: Some(other) }
    }

    fn exchange(&mut self, mut heard: impl FnMut(u64)) -> u64 {
        let (mut sent, mut returned) = (0, 0);
        while returned < BATCHES {
            while sent < BATCHES && sent - returned < self.in_flight as u64 {
                self.there.push(sent);
                sent += 1;
            }
            heard(self.back.pop(&mut self.ring));
            returned += 1;
        }
        returned
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.there.push(STOP);
        let other = self.other.take().expect("joined once");
        // A panic over there was printed there.
        let _ = other.join();
    }
}

struct Channels {
    in_flight: usize,
    there: SyncSender<u64>,
    back: Receiver<u64>,
}

impl Channels {
    /// The other thread ends when the sender is dropped.
    fn new(in_flight: usize, core: usize) -> Channels {
        let (there, batches) = sync_channel(in_flight);
        let (ends, back) = sync_channel(in_flight);
        spawn(move || {
            pin(core);
            for batch in batches {
                if ends.send(settled(batch)).is_err() {
                    break;
                }
            }
        });
        Channels { in_flight, there, back }
    }

    fn exchange(&self, mut heard: impl FnMut(u64)) -> u64 {
        let (mut sent, mut returned) = (0, 0);
        while returned < BATCHES {
            while sent < BATCHES && sent - returned < self.in_flight as u64 {
                self.there.send(sent).expect("the other thread lives");
                sent += 1;
            }
            heard(self.back.recv().expect("the other thread lives"));
            returned += 1;
        }
        returned
    }
}
