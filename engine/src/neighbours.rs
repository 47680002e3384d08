//! Between receiver cores: fresh connections and complete requests there, answers back.
//!
//! Each core has a [`Mailbox`] that the others fill: bounded lock-free queues and what it shows of
//! its load. [`Neighbours`] is one core's end of all this. What to move, and to whom, is decided in
//! `spread`; this file moves it.
//!
//! A connection that is handed over belongs to its new core from the first byte on. A request that
//! is handed over still belongs to its connection: its bytes stay reserved at the origin until the
//! neighbour says that it holds them itself, and its answer comes back to the origin. A neighbour
//! that has no room for it, or drains, gives it back, and the origin does it itself.
//!
//! The end. A core that is about to stop first says that it will hand out nothing more
//! ([`Neighbours::leave_off`]), and wakes the others. It ends only when all others have said so, so
//! that its mailbox stays empty once it is; and when nobody owes it an answer any more. A core that
//! owes answers has open tickets and batches, and so does not end before it gave them. A thread
//! that dies, by a panic even, says that it is gone ([`Neighbours`] is dropped): nobody waits for
//! its word. The answers that it owed never come; their connections end when the time for draining
//! is over.
//!
//! Always
//! - A full queue is no loss: whatever it is stays where it is.
//! - Answers always find room: no core is owed more than [`OWED_MAX`] at once.
//! - A wake costs a system call only when the other side sleeps, and there is one for each turn.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use forebay_net::request::{Answer, Request, RequestId};
use forebay_net::wake::Wake;

use crate::spread::{self, Standing};

/// Fresh connections that may wait for one core.
const SOCKETS_MAX: usize = 256;
/// Requests that may wait for one core: a few turns' work.
const REQUESTS_MAX: usize = 64;
/// Requests of one core that others may owe it the answer of.
pub const OWED_MAX: usize = 256;
/// Two for each request that is owed: its bytes are taken, it is answered.
const REPLIES_MAX: usize = 2 * OWED_MAX;

/// Who waits for an answer: a request on this core, or on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub shard: u16,
    pub request: RequestId,
    /// What the origin still holds for it; it hears with the answer that it need not.
    pub reserved: usize,
}

/// A request away from its connection's core.
#[derive(Debug)]
pub struct Moved {
    pub origin: u16,
    pub weight: u64,
    pub request: Request,
}

/// What a neighbour says to the origin of a request.
#[derive(Debug)]
pub enum Reply {
    /// The neighbour holds the bytes now; the answer comes later.
    Taken {
        reserved: usize,
    },
    Answered {
        request: RequestId,
        reserved: usize,
        answer: Answer,
    },
    /// Do it yourself.
    Returned(Box<Request>),
}

/// What one core shows to the others and takes from them.
#[repr(align(128))]
struct Mailbox<S> {
    wake: OnceLock<Arc<Wake>>,
    stage: AtomicU8,
    load: AtomicU32,
    /// Of its load, the share in which its thread ran.
    ran: AtomicU32,
    /// Open, or on their way here.
    connections: AtomicU32,
    fresh: AtomicU32,
    /// Weight of the requests before it: its own, and those of others.
    own_work: AtomicU64,
    given_work: AtomicU64,
    sockets: ArrayQueue<(u16, S)>,
    requests: ArrayQueue<Moved>,
    replies: ArrayQueue<(u16, Reply)>,
}

/// How far a core is, in this order.
mod stage {
    pub(super) const COMING: u8 = 0;
    pub(super) const OPEN: u8 = 1;
    /// It takes nothing, and hands out nothing, ever again.
    pub(super) const LEAVING: u8 = 2;
    pub(super) const GONE: u8 = 3;
}

impl<S> Mailbox<S> {
    /// `is_alone`: nobody will ever put anything here.
    fn new(is_alone: bool) -> Mailbox<S> {
        let room = |max| if is_alone { 1 } else { max };
        Mailbox {
            wake: OnceLock::new(),
            stage: AtomicU8::new(stage::COMING),
            load: AtomicU32::new(0),
            ran: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            fresh: AtomicU32::new(0),
            own_work: AtomicU64::new(0),
            given_work: AtomicU64::new(0),
            sockets: ArrayQueue::new(room(SOCKETS_MAX)),
            requests: ArrayQueue::new(room(REQUESTS_MAX)),
            replies: ArrayQueue::new(room(REPLIES_MAX)),
        }
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }
}

/// One core's end of the queues between all of them.
pub struct Neighbours<S> {
    me: usize,
    all: Arc<[Mailbox<S>]>,
    /// Of each neighbour: requests that it has and has not answered.
    owed: Vec<usize>,
    /// Who has something new and was not woken for it.
    to_wake: Vec<bool>,
    /// For [`spread::place`].
    standings: Vec<Standing>,
    /// A core with so many takes no more.
    connections_max: u32,
}

impl<S> Neighbours<S> {
    /// One for each of so many cores.
    pub fn all(count: usize) -> Vec<Neighbours<S>> {
        let all: Arc<[Mailbox<S>]> = (0..count).map(|_| Mailbox::new(count == 1)).collect();
        let end = |me| Neighbours {
            me,
            all: all.clone(),
            owed: vec![0; count],
            to_wake: vec![false; count],
            standings: vec![Standing::default(); count],
            connections_max: u32::MAX,
        };
        (0..count).map(end).collect()
    }

    /// For a core without neighbours.
    pub fn alone() -> Neighbours<S> {
        Neighbours::all(1).remove(0)
    }

    pub fn is_alone(&self) -> bool {
        self.all.len() == 1
    }

    /// No core has more connections than this.
    pub fn limit_connections(&mut self, connections_max: usize) {
        self.connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX);
    }

    /// From now on this core takes what it is given, and `wake` wakes it.
    pub fn open(&self, wake: Arc<Wake>) {
        // Only one shard ever has this end.
        let _ = self.mine().wake.set(wake);
        self.mine().stage.store(stage::OPEN, Ordering::Release);
    }

    /// This core hands out nothing more; from now on it gives back what it is given.
    pub fn leave_off(&self) {
        self.step_to(stage::LEAVING);
    }

    /// Whether this core may end as far as the others are concerned.
    pub fn may_end(&self) -> bool {
        let is_over = |(index, other): (usize, &Mailbox<S>)| match other.stage() {
            stage::GONE => true,
            stage::LEAVING => index == self.me || self.owed[index] == 0,
            _ => false,
        };
        // In this order: what was put here came before its sender's word.
        self.is_alone() || (self.all.iter().enumerate().all(is_over) && self.is_empty())
    }

    /// Whether nothing waits here to be taken.
    pub fn is_empty(&self) -> bool {
        let mine = self.mine();
        mine.sockets.is_empty() && mine.requests.is_empty() && mine.replies.is_empty()
    }

    /// `ran`: the part of it in which the thread did not wait for its CPU.
    pub fn show_load(&self, load: u32, ran: u32) {
        self.mine().load.store(load, Ordering::Relaxed);
        self.mine().ran.store(ran, Ordering::Relaxed);
        self.mine().fresh.store(0, Ordering::Relaxed);
    }

    /// So many connections of this core have ended.
    pub fn closed(&self, connections: u32) {
        if connections > 0 {
            self.mine().connections.fetch_sub(connections, Ordering::Relaxed);
        }
    }

    /// Finds a place for a connection that this core accepted. `Some`: it stays here.
    pub fn place(&mut self, listener: u16, socket: S) -> Option<S> {
        let mut kept = socket;
        let target = match self.mine().stage() == stage::OPEN && !self.is_alone() {
            true => {
                self.look_around();
                spread::place(self.me, &self.standings)
            }
            false => self.me,
        };
        if target != self.me {
            // Counted first: the neighbour may have let go of it before we come to count.
            self.count_in(target);
            match self.all[target].sockets.push((listener, kept)) {
                Ok(()) => {
                    self.to_wake[target] = true;
                    return None;
                }
                Err((_, socket)) => {
                    self.all[target].connections.fetch_sub(1, Ordering::Relaxed);
                    kept = socket;
                }
            }
        }
        self.count_in(self.me);
        Some(kept)
    }

    /// A connection that another core gave to this one.
    pub fn take_socket(&self) -> Option<(u16, S)> {
        self.mine().sockets.pop()
    }

    /// `weight` of requests lie before this core, beside what it was given.
    pub fn show_work(&self, weight: u64) {
        self.mine().own_work.store(weight, Ordering::Relaxed);
    }

    /// Gives a request to a neighbour that is done with it sooner than this core, which has `here`
    /// before it, and cares for its connections for `care` more. `Some`: it stays.
    pub fn give(&mut self, request: Request, weight: u64, here: u64, care: u64) -> Option<Request> {
        let (me, owed) = (self.me, self.owed.iter().sum::<usize>());
        let ran = self.mine().ran.load(Ordering::Relaxed);
        let work = |(index, other): (usize, &Mailbox<S>)| {
            let takes = index != me && other.stage() == stage::OPEN && !other.requests.is_full();
            let work = || {
                let own = other.own_work.load(Ordering::Relaxed);
                let given = other.given_work.load(Ordering::Relaxed);
                let is_idler = spread::is_idler(other.ran.load(Ordering::Relaxed), ran);
                let is_asleep = given == 0 && other.wake.get().is_some_and(|wake| wake.is_needed());
                let way = if is_asleep { spread::WAKE_WEIGHT } else { 0 };
                own + given + way + if is_idler { 0 } else { weight + care }
            };
            takes.then(work)
        };
        let target = match owed < OWED_MAX {
            true => spread::move_to(weight, here + care, self.all.iter().enumerate().map(work)),
            false => None,
        };
        let Some(target) = target else {
            return Some(request);
        };
        // Counted first: the neighbour may have done it before we come to count.
        self.all[target].given_work.fetch_add(weight, Ordering::Relaxed);
        match self.all[target].requests.push(Moved { origin: me as u16, weight, request }) {
            Ok(()) => {
                self.owed[target] += 1;
                self.to_wake[target] = true;
                None
            }
            Err(moved) => {
                self.all[target].given_work.fetch_sub(weight, Ordering::Relaxed);
                Some(moved.request)
            }
        }
    }

    /// Requests that wait here, as many as there are now.
    pub fn given(&self) -> usize {
        self.mine().requests.len()
    }

    /// The next request that another core gave to this one.
    pub fn take_given(&self) -> Option<Moved> {
        self.mine().requests.pop()
    }

    /// A request that was taken is done, or given back.
    pub fn did_given(&self, weight: u64) {
        self.mine().given_work.fetch_sub(weight, Ordering::Relaxed);
    }

    pub fn reply(&mut self, origin: u16, reply: Reply) {
        let place = usize::from(origin);
        // One that is gone reads nothing.
        if self.all[place].stage() != stage::GONE {
            let pushed = self.all[place].replies.push((self.me as u16, reply));
            assert!(pushed.is_ok(), "more replies than requests that are owed");
            self.to_wake[place] = true;
        }
    }

    pub fn take_reply(&mut self) -> Option<Reply> {
        let (from, reply) = self.mine().replies.pop()?;
        if !matches!(reply, Reply::Taken { .. }) {
            self.owed[usize::from(from)] -= 1;
        }
        Some(reply)
    }

    /// Wakes everybody who sleeps and was given something.
    pub fn wake_others(&mut self) {
        for (other, to_wake) in self.all.iter().zip(&mut self.to_wake) {
            if std::mem::take(to_wake) {
                other.wake();
            }
        }
    }

    fn mine(&self) -> &Mailbox<S> {
        &self.all[self.me]
    }

    fn count_in(&self, core: usize) {
        self.all[core].connections.fetch_add(1, Ordering::Relaxed);
        self.all[core].fresh.fetch_add(1, Ordering::Relaxed);
    }

    fn look_around(&mut self) {
        let connections_max = self.connections_max;
        for (standing, core) in self.standings.iter_mut().zip(self.all.iter()) {
            let connections = core.connections.load(Ordering::Relaxed);
            *standing = Standing {
                is_open: core.stage() == stage::OPEN && connections < connections_max,
                load: core.load.load(Ordering::Relaxed),
                connections,
                fresh: core.fresh.load(Ordering::Relaxed),
            };
        }
    }

    fn step_to(&self, stage: u8) {
        self.mine().stage.store(stage, Ordering::Release);
        for (index, other) in self.all.iter().enumerate() {
            if index != self.me {
                other.wake();
            }
        }
    }
}

impl<S> Drop for Neighbours<S> {
    fn drop(&mut self) {
        self.step_to(stage::GONE);
    }
}

#[cfg(test)]
mod tests;
