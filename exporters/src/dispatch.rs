//! The way of one batch to a fleet: which endpoint, now or later, again or no more.
//!
//! A [`Dispatcher`] belongs to one exporter core and one destination. It puts together what the
//! other modules know: the [`Balancer`] picks an endpoint whose breaker admits, the
//! [`RetryBudget`] pays for each call beyond a batch's first, the [`Backoff`] says when. The lane
//! makes the call and holds what has to wait on its clock.
//!
//! A call that fails through its endpoint's fault is made at another one at once; only when all
//! have been tried (or [`Tried::MAX`] of them) does the batch wait. So an endpoint that dies costs
//! its calls one more hop and no pause.
//!
//! Sans I/O: time is an argument, randomness a seeded generator given at the start. Always: what
//! the breakers refuse or the budget does not pay for waits; it is neither sent nor dropped, and
//! it is not counted as an attempt. Only `max_elapsed_time` and `max_attempts` give up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balance::{Balancer, Pick, Tried};
use crate::breaker::{Outcome, Transition};
use crate::budget::RetryBudget;
use crate::destination::Retry;
use crate::endpoints::{Call, Reader, Snapshot};
use crate::retry::{Backoff, Next, remedy};
use crate::verdict::{Remedy, Verdict};

/// How soon to look again whether a key's owner has ended some of its calls.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// For so long a key waits for its owner in all; then another endpoint is better than none.
const BUSY_MAX: Duration = Duration::from_millis(500);

pub struct Dispatcher {
    reader: Reader,
    balancer: Balancer,
    budget: Arc<RetryBudget>,
    retry: Retry,
    rng: fastrand::Rng,
}

/// Where one batch, or one part of it, stands.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// For consistent hashing.
    pub key_hash: Option<u64>,
    tried: Tried,
    backoff: Backoff,
    calls: u32,
    since: Option<Instant>,
    /// Since when its key's owner has enough to do.
    busy_since: Option<Instant>,
}

/// What to do with a batch.
pub enum Step {
    /// Send it there, and tell [`Dispatcher::ended`] how that went.
    Call(Call),
    /// Not before this long; nothing was sent.
    Wait { wait: Duration, why: Waiting },
    /// `max_elapsed_time` would pass first.
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No endpoint admits it.
    Breakers,
    /// A retry that the budget does not pay for yet.
    Budget,
    /// Every endpoint that admits it has just failed.
    Backoff,
    /// The endpoint that its key belongs to has enough to do.
    Busy,
}

impl Waiting {
    pub const ALL: [Waiting; 4] =
        [Waiting::Breakers, Waiting::Budget, Waiting::Backoff, Waiting::Busy];

    pub fn index(self) -> usize {
        self as usize
    }

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Waiting::Breakers => "breakers",
            Waiting::Budget => "budget",
            Waiting::Backoff => "backoff",
            Waiting::Busy => "busy",
        }
    }
}

/// What follows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Delivered,
    /// Ask [`Dispatcher::next`] at once: another endpoint may take it.
    Elsewhere,
    /// Ask [`Dispatcher::next`] after this long.
    Wait(Duration),
    /// `max_elapsed_time` or `max_attempts`.
    GiveUp,
    /// It was too large; smaller ones may pass.
    Shrink,
    /// It will never be taken.
    Drop,
}

impl Delivery {
    pub fn new(key_hash: Option<u64>) -> Delivery {
        Delivery { key_hash, ..Delivery::default() }
    }

    /// How often it was sent.
    pub fn calls(&self) -> u32 {
        self.calls
    }
}

impl Dispatcher {
    pub fn new(
        reader: Reader,
        balancer: Balancer,
        budget: Arc<RetryBudget>,
        retry: Retry,
        rng: fastrand::Rng,
    ) -> Dispatcher {
        Dispatcher { reader, balancer, budget, retry, rng }
    }

    /// Who is in the fleet now.
    pub fn snapshot(&mut self) -> &Arc<Snapshot> {
        self.reader.snapshot()
    }

    /// What is to be done with a batch that is due.
    pub fn next(&mut self, delivery: &mut Delivery, now: Instant) -> Step {
        let since = *delivery.since.get_or_insert(now);
        // Paid before it is asked for: an endpoint's probe is not for who can't make the call.
        if let Err(least) = self.pay(delivery, now) {
            let jittered = delivery.backoff.jittered(&self.retry, self.rng.f64());
            return self.hold(delivery, since, now, least.max(jittered), Waiting::Budget);
        }
        let snapshot = self.reader.snapshot();
        if let Some(key_hash) = delivery.key_hash
            && self.balancer.owner_is_busy(snapshot, key_hash, &delivery.tried)
            && now.saturating_duration_since(*delivery.busy_since.get_or_insert(now)) < BUSY_MAX
        {
            if delivery.calls > 0 {
                self.budget.give_back(now);
            }
            return self.hold(delivery, since, now, BUSY_PAUSE, Waiting::Busy);
        }
        let retry_in = match self.balancer.pick(snapshot, now, delivery.key_hash, &delivery.tried) {
            Pick::Call(call) => {
                delivery.calls = delivery.calls.saturating_add(1);
                return Step::Call(call);
            }
            Pick::Nobody { retry_in } => retry_in,
        };
        if delivery.calls > 0 {
            self.budget.give_back(now);
        }
        match retry_in {
            Some(least) if delivery.tried.count() == 0 => {
                self.hold(delivery, since, now, least, Waiting::Breakers)
            }
            _ => {
                let jittered = delivery.backoff.jittered(&self.retry, self.rng.f64());
                self.hold(delivery, since, now, jittered, Waiting::Backoff)
            }
        }
    }

    /// Enters how a call ended, and says what follows and whether the endpoint's breaker changed.
    pub fn ended(
        &mut self,
        delivery: &mut Delivery,
        call: Call,
        now: Instant,
        verdict: &Verdict,
    ) -> (After, Option<Transition>) {
        let outcome = Outcome::of(verdict);
        let began = delivery.since.unwrap_or_else(|| call.began());
        delivery.tried.add(call.endpoint());
        let transition = call.end(now, outcome, &mut self.rng);
        let after = match verdict {
            Verdict::Delivered { .. } => {
                self.budget.deposit(now);
                After::Delivered
            }
            Verdict::Failed(failure) => match remedy(&self.retry.codes, failure) {
                Remedy::Shrink => After::Shrink,
                Remedy::Drop => After::Drop,
                Remedy::Retry { delay } => self.again(delivery, outcome, delay, began, now),
            },
        };
        (after, transition)
    }

    /// The first call of a batch is free.
    fn pay(&self, delivery: &Delivery, now: Instant) -> Result<(), Duration> {
        match delivery.calls {
            0 => Ok(()),
            _ => self.budget.withdraw(now),
        }
    }

    fn hold(
        &mut self,
        delivery: &mut Delivery,
        since: Instant,
        now: Instant,
        least: Duration,
        why: Waiting,
    ) -> Step {
        delivery.tried.clear();
        match delivery.backoff.held_up(&self.retry, since, now, least, self.rng.f64()) {
            Next::Wait(wait) => Step::Wait { wait, why },
            Next::GiveUp => Step::GiveUp,
        }
    }

    fn again(
        &mut self,
        delivery: &mut Delivery,
        outcome: Outcome,
        delay: Option<Duration>,
        began: Instant,
        now: Instant,
    ) -> After {
        let tried = delivery.tried.count();
        let has_others = tried < Tried::MAX && tried < self.reader.snapshot().endpoints().len();
        let is_endpoints_fault =
            matches!(outcome, Outcome::Failure | Outcome::Unwell | Outcome::Overloaded { .. });
        if has_others && is_endpoints_fault {
            return match delivery.backoff.failed_here(&self.retry, began, now) {
                Next::Wait(_) => After::Elsewhere,
                Next::GiveUp => After::GiveUp,
            };
        }
        delivery.tried.clear();
        match delivery.backoff.failed(&self.retry, began, now, delay, self.rng.f64()) {
            Next::Wait(wait) => After::Wait(wait),
            Next::GiveUp => After::GiveUp,
        }
    }
}
