//! Which endpoint the next call goes to.
//!
//! A [`Balancer`] belongs to one exporter core and keeps what only this core needs: whose turn it
//! is. What all cores know (load, weight, breaker) stands in the endpoints. Four strategies:
//!
//! - **Round robin**: each in turn. Cores start at places of their own.
//! - **Weighted round robin**: the earliest deadline first; an endpoint of weight `w` is due every
//!   `1/w`. As smooth as the classic "add all weights" form, in the logarithm of the fleet's size
//!   instead of all of it. A weight that changes counts from the endpoint's next turn on.
//! - **Least outstanding**: the better of two picked at random, by peak-sensitive average latency
//!   times calls under way. One whose breaker is due for a probe goes first, or it would never be
//!   tried.
//! - **Consistent hashing**: the key's owner (see [`Snapshot::owner`]); if it can't be used, the
//!   owner of the key hashed again, so that a missing endpoint's keys spread over all others. An
//!   owner that has its bound of calls is waited for first ([`Balancer::owner_is_busy`]).
//!
//! Sans I/O: time and randomness are arguments. Never allocates while picking, but for a schedule
//! when the fleet has changed.
//!
//! Always:
//! - An endpoint that its breaker refuses, or that this attempt has tried already, is passed over.
//! - No endpoint holds more than its bound ([`Bound`]) of the calls under way while another that
//!   has a weight can be used: one that hangs can't collect all senders.
//! - One of weight zero gets a call only if none that has a weight can be used, however busy those
//!   are: it stands by, and it may be far away or dear.
//! - If any endpoint can be used, one is found; at the latest by asking each.

use std::time::{Duration, Instant};

use crate::endpoints::{Call, Endpoint, NOBODY_PAUSE, Snapshot};
use std::sync::Arc;

mod routing;
mod schedule;
#[cfg(test)]
mod tests;

pub use routing::RoutingKey;

use schedule::Schedule;

/// So many times a key is hashed again, and the schedule asked, before everybody is asked in turn.
pub(crate) const TURNS_MAX: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    RoundRobin,
    WeightedRoundRobin,
    LeastOutstanding,
    ConsistentHashing,
}

/// How many calls under way are too many for one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In percent of its share of all calls under way: an even one, or with weighted round robin
    /// that of its weight.
    pub percent: u32,
    /// This many are never too many.
    pub calls_min: u32,
}

impl Bound {
    /// What a strategy wants: with consistent hashing an endpoint may be much busier than others
    /// before what is its own has to wait. `calls_min` stays below the senders of one core, or one
    /// endpoint that hangs could hold all of them.
    pub fn of(strategy: Strategy) -> Bound {
        match strategy {
            Strategy::ConsistentHashing => Bound { percent: 250, calls_min: 8 },
            _ => Bound { percent: 125, calls_min: 2 },
        }
    }

    #[inline]
    fn has_room(self, outstanding: u32, outstanding_of_all: u32, endpoints: u32) -> bool {
        // Less than the share rounded up is less than the share.
        outstanding < self.calls_min
            || u64::from(outstanding) * u64::from(endpoints) * 100
                < u64::from(self.percent) * (u64::from(outstanding_of_all) + 1)
    }

    fn has_room_by(self, share: f64, outstanding: u32, outstanding_of_all: u32) -> bool {
        let room = f64::from(self.percent) / 100.0 * share * (f64::from(outstanding_of_all) + 1.0);
        outstanding < self.calls_min || f64::from(outstanding) < room
    }
}

/// What one attempt has tried already.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    ids: [u64; Tried::MAX],
    count: usize,
}

impl Tried {
    /// An attempt ends after so many endpoints.
    pub const MAX: usize = 8;

    /// Forgotten if there are [`Tried::MAX`] already.
    pub fn add(&mut self, endpoint: &Endpoint) {
        if let Some(id) = self.ids.get_mut(self.count) {
            *id = endpoint.id();
            self.count += 1;
        }
    }

    pub fn clear(&mut self) {
        self.count = 0;
    }

    pub fn count(&self) -> usize {
        self.count
    }

    #[inline]
    fn has(&self, endpoint: &Endpoint) -> bool {
        self.count > 0 && self.ids[..self.count].contains(&endpoint.id())
    }
}

/// What [`Balancer::pick`] found.
pub enum Pick {
    Call(Call),
    /// Every endpoint was tried by this attempt or is refused by its breaker.
    Nobody {
        /// When the first breaker may admit; `None`: each endpoint that would take the call was
        /// tried already.
        retry_in: Option<Duration>,
    },
}

pub struct Balancer {
    strategy: Strategy,
    bound: Bound,
    rng: fastrand::Rng,
    turn: usize,
    schedule: Schedule,
}

impl Balancer {
    /// `rng` is this core's own.
    pub fn new(strategy: Strategy, bound: Bound, mut rng: fastrand::Rng) -> Balancer {
        // Cores that began at the same place would all hit the same endpoint at once.
        let turn = rng.usize(0..1 << 32);
        Balancer { strategy, bound, rng, turn, schedule: Schedule::default() }
    }

    /// Whether the key's owner works, and has its bound of calls under way: then its keys had
    /// better wait a while, or traces would be torn apart in every burst.
    pub fn owner_is_busy(&self, snapshot: &Snapshot, key_hash: u64, tried: &Tried) -> bool {
        if self.strategy != Strategy::ConsistentHashing {
            return false;
        }
        let owner = snapshot.owner(key_hash).map(|owner| &snapshot.endpoints()[owner]);
        owner.is_some_and(|owner| {
            let fleet = snapshot.fleet();
            let (of_all, sharing) = (fleet.outstanding(), fleet.closed().max(1));
            owner.weight() > 0
                && owner.breaker.is_closed()
                && !tried.has(owner)
                && !self.bound.has_room(owner.outstanding(), of_all, sharing)
        })
    }

    /// The endpoint for the next call, admitted and counted. `key_hash` is for consistent hashing;
    /// without one a call goes to any.
    pub fn pick(
        &mut self,
        snapshot: &Snapshot,
        now: Instant,
        key_hash: Option<u64>,
        tried: &Tried,
    ) -> Pick {
        if snapshot.endpoints().is_empty() {
            return Pick::Nobody { retry_in: Some(NOBODY_PAUSE) };
        }
        let by_weight = self.strategy == Strategy::WeightedRoundRobin;
        let mut search = Search::new(snapshot, now, tried, self.bound, by_weight);
        if let Some(call) = self.first_choice(&mut search, key_hash) {
            return Pick::Call(call);
        }
        let start = match key_hash {
            Some(key_hash) => key_hash as usize,
            None => self.rng.usize(..),
        };
        match search.anybody(start).or_else(|| search.in_need(start)) {
            Some(call) => Pick::Call(call),
            None => Pick::Nobody { retry_in: search.retry_in },
        }
    }

    #[inline]
    fn first_choice(&mut self, search: &mut Search<'_>, key_hash: Option<u64>) -> Option<Call> {
        match (self.strategy, key_hash) {
            (Strategy::ConsistentHashing, Some(key_hash)) => by_key(search, key_hash),
            (Strategy::LeastOutstanding, _) => self.better_of_two(search),
            (Strategy::WeightedRoundRobin, _) => self.by_schedule(search),
            (Strategy::RoundRobin | Strategy::ConsistentHashing, _) => self.in_turn(search),
        }
    }

    fn in_turn(&mut self, search: &mut Search<'_>) -> Option<Call> {
        let count = search.endpoints.len();
        for _ in 0..TURNS_MAX {
            // Also after the fleet has shrunk.
            let index = if self.turn < count { self.turn } else { self.turn % count };
            self.turn = index + 1;
            if let Some(call) = search.ask(index) {
                return Some(call);
            }
        }
        None
    }

    fn by_schedule(&mut self, search: &mut Search<'_>) -> Option<Call> {
        self.schedule.follow(search.snapshot, &mut self.rng);
        for _ in 0..TURNS_MAX {
            let index = self.schedule.next(search.endpoints)?;
            if let Some(call) = search.ask(index) {
                return Some(call);
            }
        }
        None
    }

    fn better_of_two(&mut self, search: &mut Search<'_>) -> Option<Call> {
        let count = search.endpoints.len();
        let one = self.rng.usize(0..count);
        if count == 1 {
            return search.ask(one);
        }
        let other = (one + 1 + self.rng.usize(0..count - 1)) % count;
        let [first, second] = search.better_first(one, other);
        search.ask(first).or_else(|| search.ask(second))
    }
}

fn by_key(search: &mut Search<'_>, key_hash: u64) -> Option<Call> {
    for again in 0..TURNS_MAX {
        let owner = search.snapshot.owner(hash_again(key_hash, again))?;
        if let Some(call) = search.ask(owner) {
            return Some(call);
        }
    }
    None
}

/// A key's hash, hashed again so many times: whose owner it is that gets the key next.
#[inline]
pub(crate) fn hash_again(key_hash: u64, again: u64) -> u64 {
    match again {
        0 => key_hash,
        _ => key_hash.wrapping_add(again).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// One pick: whom it may not have, and what it heard from those it asked.
struct Search<'s> {
    snapshot: &'s Snapshot,
    endpoints: &'s [Arc<Endpoint>],
    now: Instant,
    tried: &'s Tried,
    bound: Bound,
    /// The load is shared by weight.
    by_weight: bool,
    need: Need,
    /// Somebody could be used in greater need.
    passed_over: bool,
    retry_in: Option<Duration>,
}

/// Whom a search takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Those that have a weight and room.
    None,
    /// Also those beyond their bound: rather too many calls for one than none for anybody.
    Room,
    /// Also those of weight zero.
    Anybody,
}

impl<'s> Search<'s> {
    #[inline]
    fn new(
        snapshot: &'s Snapshot,
        now: Instant,
        tried: &'s Tried,
        bound: Bound,
        by_weight: bool,
    ) -> Search<'s> {
        Search {
            snapshot,
            endpoints: snapshot.endpoints(),
            now,
            tried,
            bound,
            by_weight,
            need: Need::None,
            passed_over: false,
            retry_in: None,
        }
    }

    /// A call to this endpoint, if it can be used.
    #[inline]
    fn ask(&mut self, index: usize) -> Option<Call> {
        let endpoint = &self.endpoints[index];
        if self.tried.has(endpoint) {
            return None;
        }
        if !self.is_welcome(endpoint) {
            self.passed_over = true;
            return None;
        }
        match endpoint.admit(self.now) {
            Ok(call) => Some(call),
            Err(retry_in) => {
                self.retry_in = Some(self.retry_in.map_or(retry_in, |least| least.min(retry_in)));
                None
            }
        }
    }

    #[inline]
    fn is_welcome(&self, endpoint: &Endpoint) -> bool {
        let weight = endpoint.weight();
        match self.need {
            Need::None => weight > 0 && self.has_room(endpoint, weight),
            Need::Room => weight > 0,
            Need::Anybody => true,
        }
    }

    #[inline]
    fn has_room(&self, endpoint: &Endpoint, weight: u32) -> bool {
        let outstanding = endpoint.outstanding();
        if outstanding < self.bound.calls_min {
            return true;
        }
        let of_all = self.snapshot.fleet().outstanding();
        match self.by_weight {
            false => self.bound.has_room(outstanding, of_all, self.snapshot.sharing()),
            true => self.bound.has_room_by(self.share(weight), outstanding, of_all),
        }
    }

    /// Of a weight, in the load of those that share it: taken to weigh as much as all do on
    /// average.
    fn share(&self, weight: u32) -> f64 {
        f64::from(weight) / (self.snapshot.weight_average() * f64::from(self.snapshot.sharing()))
    }

    #[inline]
    fn better_first(&self, one: usize, other: usize) -> [usize; 2] {
        let (first, second) = (&self.endpoints[one], &self.endpoints[other]);
        let is_second_better = match (first.breaker.is_closed(), second.breaker.is_closed()) {
            (true, true) => {
                let now_ms = self.snapshot.fleet().ms(self.now);
                second.cost(now_ms) < first.cost(now_ms)
            }
            // It may be due for a probe; if it is not, asking it costs little.
            (true, false) => true,
            (false, _) => false,
        };
        if is_second_better { [other, one] } else { [one, other] }
    }

    #[cold]
    fn in_need(&mut self, start: usize) -> Option<Call> {
        [Need::Room, Need::Anybody].into_iter().find_map(|need| {
            if !std::mem::take(&mut self.passed_over) {
                return None;
            }
            self.need = need;
            self.anybody(start)
        })
    }

    /// Everybody, beginning anywhere.
    #[cold]
    fn anybody(&mut self, start: usize) -> Option<Call> {
        let count = self.endpoints.len();
        let start = start % count;
        (start..count).chain(0..start).find_map(|index| self.ask(index))
    }
}
