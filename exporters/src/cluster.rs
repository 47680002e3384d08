//! One destination's endpoints and retry budget, as the whole process shares them.
//!
//! Made once per destination; the control thread says who is in it ([`Cluster::apply`]), each
//! exporter core sends through a [`Dispatcher`] of its own, receivers ask whether anybody takes
//! anything. Sans I/O: time is an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::balance::{Balancer, Bound};
use crate::budget::RetryBudget;
use crate::destination::{Backends, Destination};
use crate::discovery::Endpoint as Found;
use crate::dispatch::Dispatcher;
use crate::endpoints::{Change, Endpoints, Member, Options, Status};

/// See the file's head.
pub struct Cluster {
    backends: Backends,
    endpoints: Arc<Endpoints>,
    budget: Arc<RetryBudget>,
    /// An exporter core checks the endpoints' health for all.
    has_checker: AtomicBool,
    first_answer_until: Instant,
}

impl Cluster {
    /// Empty until the first set is applied. `epoch`: no later `now` may lie before it.
    pub fn new(backends: &Backends, epoch: Instant) -> Arc<Cluster> {
        let options = Options {
            breaker: backends.breaker,
            fleet: backends.ejection,
            hashing: backends.routing_key.is_some(),
        };
        Arc::new(Cluster {
            endpoints: Endpoints::new(options, epoch),
            budget: Arc::new(RetryBudget::new(backends.retry_budget, epoch)),
            backends: backends.clone(),
            has_checker: AtomicBool::new(false),
            first_answer_until: epoch + backends.first_answer_max,
        })
    }

    /// Makes the cluster equal to `found`. Those of the lowest priority number share the load by
    /// weight; others are used only if none of these can be.
    pub fn apply(&self, now: Instant, found: &[Found]) -> Change {
        let first = found.iter().map(|endpoint| endpoint.priority).min();
        let member = |endpoint: &Found| Member {
            address: endpoint.address().to_owned(),
            weight: if Some(endpoint.priority) == first { endpoint.weight } else { 0 },
        };
        self.endpoints.apply(now, &found.iter().map(member).collect::<Vec<_>>())
    }

    /// For one exporter core.
    pub fn dispatcher(&self, destination: &Destination, mut rng: fastrand::Rng) -> Dispatcher {
        let strategy = self.backends.strategy;
        let balancer = Balancer::new(strategy, Bound::of(strategy), rng.fork());
        let budget = Arc::clone(&self.budget);
        Dispatcher::new(self.endpoints.reader(), balancer, budget, destination.retry.clone(), rng)
    }

    /// True for the first who asks: it checks the endpoints' health from then on.
    pub(crate) fn claim_checks(&self) -> bool {
        !self.has_checker.swap(true, Ordering::Relaxed)
    }

    /// If no endpoint takes calls: when the first may.
    pub fn refuses(&self, now: Instant) -> Option<Duration> {
        self.endpoints.refuses(now)
    }

    /// Whether nobody is known only because the process has just begun, and discovery may answer
    /// any moment: too early to fail over.
    pub fn is_first_answer_awaited(&self, now: Instant) -> bool {
        now < self.first_answer_until && self.endpoints.snapshot().endpoints().is_empty()
    }

    /// Everybody, those that still drain included.
    pub fn status(&self, now: Instant) -> Vec<Status> {
        self.endpoints.status(now)
    }

    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    pub fn backends(&self) -> &Backends {
        &self.backends
    }
}
