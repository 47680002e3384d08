//! The endpoints of one destination: who is in the fleet, as every exporter core sees it.
//!
//! Discovery says who is there ([`Endpoints::apply`], on the control thread); exporter cores hold
//! a [`Reader`] each. An endpoint that stays keeps its breaker, its load and its calls; one that
//! leaves is handed no new call, finishes those it has, and is forgotten after the last. Nothing
//! waits for a particular endpoint, so what was not sent yet goes to the others.
//!
//! Sans I/O. Always:
//! - A reader compares one atomic number with the one it has; only after a change does it fetch the
//!   new snapshot, without a lock.
//! - An empty set changes nothing: a source that fails or forgets must not silence a destination.
//! - A snapshot never changes. Only the endpoints in it do: state, load, weight.
//! - An address is in the fleet once. One that leaves and comes back is a new endpoint with a
//!   closed breaker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use forebay_codec::hash::stable_hash;

use crate::breaker::{self, Admission, Breaker, Fleet, FleetSettings, Outcome, Permit, Transition};

mod load;
mod slots;
#[cfg(test)]
mod tests;

use load::Load;
use slots::Slots;

/// More members are cut off: a discovery source gone wild must not take all memory.
pub const MEMBERS_MAX: usize = 10_000;

/// How soon to look again while discovery has named nobody yet.
pub const NOBODY_PAUSE: Duration = Duration::from_millis(500);

/// What discovery knows of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    /// Its share relative to the others; 0: only if no other can be used.
    pub weight: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub breaker: breaker::Settings,
    pub fleet: FleetSettings,
    /// Keep the table that consistent hashing looks keys up in.
    pub hashing: bool,
}

/// One member of the fleet, shared by all exporter cores.
pub struct Endpoint {
    /// Unique within the destination; an address that comes back gets another.
    id: u64,
    address: Arc<str>,
    address_hash: u64,
    weight: AtomicU32,
    pub breaker: Breaker,
    load: Load,
    fleet: Arc<Fleet>,
    last_check: ArcSwapOption<Check>,
}

/// How a health check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// `None`: all is well.
    pub trouble: Option<String>,
}

/// The right to one call to one endpoint, counted as outstanding until it ends. Dropped without
/// [`Call::end`], it gives everything back as a call that was not made.
pub struct Call {
    endpoint: Arc<Endpoint>,
    permit: Option<Permit>,
    began: Instant,
}

/// What [`Endpoints::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub joined: usize,
    pub left: usize,
    pub reweighted: usize,
    /// The set was empty: the last one stays in use.
    pub kept_last: bool,
    /// Members beyond [`MEMBERS_MAX`].
    pub cut_off: usize,
}

/// The fleet at one moment, as a core works with it.
pub struct Snapshot {
    generation: u64,
    endpoints: Vec<Arc<Endpoint>>,
    slots: Option<Arc<[u16]>>,
    weight_of_all: u64,
    /// Those that have a weight.
    weighted: usize,
    fleet: Arc<Fleet>,
}

/// See the file's head.
pub struct Endpoints {
    snapshot: ArcSwap<Snapshot>,
    generation: AtomicU64,
    fleet: Arc<Fleet>,
    options: Options,
    /// Only who applies and who reports takes it; both run on the control thread.
    writer: Mutex<Writer>,
}

/// One exporter core's view of the endpoints.
pub struct Reader {
    endpoints: Arc<Endpoints>,
    snapshot: Arc<Snapshot>,
}

/// One endpoint for metrics and the admin page.
#[derive(Clone, Debug)]
pub struct Status {
    pub address: Arc<str>,
    pub state: breaker::State,
    pub weight: u32,
    pub outstanding: u32,
    /// Peak-sensitive moving average.
    pub latency: Duration,
    /// It has left and finishes its calls.
    pub is_draining: bool,
    /// The last health check; `None`: calls alone have told so far.
    pub check: Option<Arc<Check>>,
}

/// The control side's own account of the fleet.
#[derive(Default)]
struct Writer {
    members: Vec<Arc<Endpoint>>,
    index_of: HashMap<Arc<str>, usize>,
    /// By index: the round in which a source named it last.
    named_in: Vec<u64>,
    round: u64,
    endpoints_made: u64,
    slots: Option<Slots>,
    draining: Vec<Arc<Endpoint>>,
}

impl Endpoints {
    /// Empty until the first set is applied. `epoch`: no later `now` may lie before it.
    pub fn new(options: Options, epoch: Instant) -> Arc<Endpoints> {
        let fleet = Arc::new(Fleet::new(options.fleet, epoch));
        let slots = options.hashing.then(Slots::default);
        let snapshot = Snapshot {
            generation: 0,
            endpoints: Vec::new(),
            slots: slots.as_ref().map(Slots::table),
            weight_of_all: 0,
            weighted: 0,
            fleet: Arc::clone(&fleet),
        };
        Arc::new(Endpoints {
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: AtomicU64::new(0),
            fleet,
            options,
            writer: Mutex::new(Writer { slots, ..Writer::default() }),
        })
    }

    /// Makes the fleet equal to `set`, in which the last mention of an address counts.
    pub fn apply(&self, now: Instant, set: &[Member]) -> Change {
        if set.is_empty() {
            return Change { kept_last: true, ..Change::default() };
        }
        let cut_off = set.len().saturating_sub(MEMBERS_MAX);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.round += 1;
        let (mut joined, mut reweighted) = (0, 0);
        for member in &set[..set.len() - cut_off] {
            match writer.index_of.get(member.address.as_str()).copied() {
                Some(index) => reweighted += usize::from(writer.stays(index, member.weight)),
                None => {
                    writer.joins(member, self.options.breaker, &self.fleet, now);
                    joined += 1;
                }
            }
        }
        let left = writer.drop_unnamed();
        writer.draining.retain(|endpoint| endpoint.outstanding() > 0);
        if joined + left + reweighted > 0 {
            self.publish(&writer);
        }
        Change { joined, left, reweighted, kept_last: false, cut_off }
    }

    /// A view for one exporter core.
    pub fn reader(self: &Arc<Endpoints>) -> Reader {
        Reader { endpoints: Arc::clone(self), snapshot: self.snapshot() }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Counts over all of the fleet.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// If no endpoint takes calls: when the first may. Admission answers early with that.
    pub fn refuses(&self, now: Instant) -> Option<Duration> {
        if self.fleet.closed() > 0 && !self.fleet.may_be_paused(now) {
            return None;
        }
        let mut soonest = None;
        for endpoint in &self.snapshot().endpoints {
            let retry_in = endpoint.breaker.refuses(now)?;
            soonest = Some(soonest.map_or(retry_in, |soonest| retry_in.min(soonest)));
        }
        Some(soonest.unwrap_or(NOBODY_PAUSE))
    }

    /// Everybody, those that still drain included.
    pub fn status(&self, now: Instant) -> Vec<Status> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let members = writer.members.iter().map(|endpoint| endpoint.status(now, false));
        let draining = writer.draining.iter().filter(|endpoint| endpoint.outstanding() > 0);
        members.chain(draining.map(|endpoint| endpoint.status(now, true))).collect()
    }

    fn publish(&self, writer: &Writer) {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        self.snapshot.store(Arc::new(Snapshot {
            generation,
            endpoints: writer.members.clone(),
            slots: writer.slots.as_ref().map(Slots::table),
            weight_of_all: writer.members.iter().map(|member| u64::from(member.weight())).sum(),
            weighted: writer.members.iter().filter(|member| member.weight() > 0).count(),
            fleet: Arc::clone(&self.fleet),
        }));
        // After the snapshot: who sees the number finds that snapshot or a later one.
        self.generation.store(generation, Ordering::Release);
    }
}

impl Writer {
    /// True if its weight is another now.
    fn stays(&mut self, index: usize, weight: u32) -> bool {
        self.named_in[index] = self.round;
        let was = self.members[index].weight.swap(weight, Ordering::Relaxed);
        if was == weight {
            return false;
        }
        if let Some(slots) = &mut self.slots {
            slots.leaves(index, &self.members);
            slots.joins(index, &self.members);
        }
        true
    }

    fn joins(
        &mut self,
        member: &Member,
        settings: breaker::Settings,
        fleet: &Arc<Fleet>,
        now: Instant,
    ) {
        let address: Arc<str> = member.address.as_str().into();
        self.endpoints_made += 1;
        self.index_of.insert(Arc::clone(&address), self.members.len());
        self.named_in.push(self.round);
        self.members.push(Arc::new(Endpoint {
            id: self.endpoints_made,
            address_hash: stable_hash(address.as_bytes()),
            address,
            weight: AtomicU32::new(member.weight),
            breaker: Breaker::new(settings, Arc::clone(fleet), now),
            load: Load::default(),
            fleet: Arc::clone(fleet),
            last_check: ArcSwapOption::empty(),
        }));
        if let Some(slots) = &mut self.slots {
            slots.joins(self.members.len() - 1, &self.members);
        }
    }

    fn drop_unnamed(&mut self) -> usize {
        let mut left = 0;
        for index in (0..self.members.len()).rev() {
            if self.named_in[index] != self.round {
                self.leaves(index);
                left += 1;
            }
        }
        left
    }

    fn leaves(&mut self, index: usize) {
        let last = self.members.len() - 1;
        if let Some(slots) = &mut self.slots {
            slots.leaves(index, &self.members);
            slots.moved(last, index);
        }
        let endpoint = self.members.swap_remove(index);
        self.named_in.swap_remove(index);
        self.index_of.remove(&endpoint.address);
        if let Some(moved) = self.members.get(index) {
            self.index_of.insert(Arc::clone(&moved.address), index);
        }
        endpoint.breaker.retire();
        self.draining.push(endpoint);
    }
}

impl Reader {
    /// The newest snapshot.
    #[inline]
    pub fn snapshot(&mut self) -> &Arc<Snapshot> {
        if self.endpoints.generation.load(Ordering::Acquire) != self.snapshot.generation {
            self.snapshot = self.endpoints.snapshot();
        }
        &self.snapshot
    }
}

impl Snapshot {
    /// Grows with each change of the set.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// In no particular order; the order changes with the set.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What those that have a weight weigh on average, as of when the set was made.
    pub(crate) fn weight_average(&self) -> f64 {
        self.weight_of_all as f64 / self.weighted.max(1) as f64
    }

    /// How many share the load: those that have a weight and whose breakers are closed. Breakers
    /// are counted over all of the fleet, so where some have no weight this takes the same part of
    /// both kinds to be closed.
    #[inline]
    pub(crate) fn sharing(&self) -> u32 {
        let (closed, members) = (self.fleet.closed(), self.endpoints.len());
        if self.weighted == members {
            return closed.max(1);
        }
        let part = u64::from(closed) * self.weighted as u64;
        (part.div_ceil(members.max(1) as u64) as u32).max(1)
    }

    /// The endpoint that a key belongs to while all work; with hashing only.
    #[inline]
    pub fn owner(&self, key_hash: u64) -> Option<usize> {
        let slots = self.slots.as_ref().filter(|_| !self.endpoints.is_empty())?;
        Some(usize::from(slots[slots::slot_of(key_hash)]))
    }
}

impl Endpoint {
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Calls under way.
    pub fn outstanding(&self) -> u32 {
        self.load.outstanding()
    }

    /// What a further call is likely to wait, for comparison with another endpoint. `now_ms` is
    /// the fleet's.
    #[inline]
    pub(crate) fn cost(&self, now_ms: u64) -> u64 {
        self.load.cost(now_ms)
    }

    /// Asks the breaker, and counts the call as outstanding from here on.
    #[inline]
    pub fn admit(self: &Arc<Endpoint>, now: Instant) -> Result<Call, Duration> {
        let permit = match self.breaker.admit(now) {
            Admission::Pass(permit) | Admission::Probe(permit) => permit,
            Admission::Refuse { retry_in } => return Err(retry_in),
        };
        self.load.began();
        self.fleet.call_began();
        Ok(Call { endpoint: Arc::clone(self), permit: Some(permit), began: now })
    }

    /// Whether a call is under way, or one has ended since.
    pub(crate) fn has_calls(&self, since: Instant) -> bool {
        self.outstanding() > 0 || self.load.last_ms() > self.fleet.ms(since)
    }

    pub(crate) fn note_check(&self, check: Check) {
        self.last_check.store(Some(Arc::new(check)));
    }

    fn status(&self, now: Instant, is_draining: bool) -> Status {
        Status {
            address: Arc::clone(&self.address),
            state: self.breaker.state(now),
            weight: self.weight(),
            outstanding: self.outstanding(),
            latency: self.load.latency(self.fleet.ms(now)),
            is_draining,
            check: self.last_check.load_full(),
        }
    }
}

impl Call {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    pub fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_probe)
    }

    /// What admitting this call changed: see [`Permit::transition`].
    pub fn transition(&self) -> Option<Transition> {
        self.permit.as_ref().and_then(|permit| permit.transition)
    }

    /// Enters how it ended. Says so if that changed the breaker's state.
    pub fn end(
        mut self,
        now: Instant,
        outcome: Outcome,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let latency = now.saturating_duration_since(self.began);
        self.endpoint.load.ended(self.endpoint.fleet.ms(now), outcome, latency);
        let permit = self.permit.take()?;
        self.endpoint.breaker.record(permit, now, outcome, latency, rng)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.endpoint.load.gone();
        self.endpoint.fleet.call_ended();
        if let Some(permit) = self.permit.take() {
            self.endpoint.breaker.give_back(&permit);
        }
    }
}
