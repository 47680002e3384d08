//! When each endpoint is checked, and what the result says to its breaker.
//!
//! One exporter core checks for all. An endpoint is checked at its interval while it has no calls,
//! since calls tell more; after a check that failed soon again, so that one that died is found
//! before a batch pays for it; and when its breaker is due for a probe, so that a batch pays for
//! that neither.
//!
//! Sans I/O: time is an argument, randomness a seeded generator. Always:
//! - A check asks the breaker as a call does: there is one probe at a time, whoever makes it.
//! - A failed check is a failed call. That a connection can be made says little: it frees a probe
//!   for a call and counts for nothing. Only a service that says it serves proves a probe; while
//!   the breaker is closed even that hides no failed call.
//! - No more than [`CHECKS_MAX`] are under way, and who has been due for longest is next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{Outcome, Transition};
use crate::destination::{HealthCheck, Probe};
use crate::endpoints::{Call, Check, Endpoint, Snapshot};
use crate::verdict::FailureKind;

const CHECKS_MAX: usize = 64;
/// After a failed check the next comes so many times sooner.
const SOONER: u32 = 10;
/// An open breaker is asked again no sooner.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A connection was made.
    Connected,
    /// The server says that it serves.
    Serving,
    /// There is a server, and it has no health service: no use asking again.
    NoHealthService,
    Trouble(Trouble),
}

/// What is wrong with an endpoint that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: FailureKind,
    pub(crate) why: String,
}

impl Finding {
    pub(crate) fn trouble(kind: FailureKind, why: impl Into<String>) -> Finding {
        Finding::Trouble(Trouble { kind, why: why.into() })
    }
}

/// A check that is to be made now.
pub(crate) struct Due {
    pub(crate) call: Call,
    /// Never [`Probe::Off`].
    pub(crate) probe: Probe,
}

/// All endpoints' checks.
pub(crate) struct Checkup {
    settings: HealthCheck,
    rng: fastrand::Rng,
    generation: Option<u64>,
    /// By [`Endpoint::id`].
    patients: HashMap<u64, Patient>,
    under_way: usize,
}

struct Patient {
    endpoint: Arc<Endpoint>,
    due: Instant,
    /// When it was due before.
    since: Instant,
    is_being_checked: bool,
    was_closed: bool,
    has_health_service: bool,
}

impl Checkup {
    pub(crate) fn new(settings: HealthCheck, rng: fastrand::Rng) -> Checkup {
        let patients = HashMap::new();
        Checkup { settings, rng, generation: None, patients, under_way: 0 }
    }

    /// The checks to be made now. Each is to be told to [`Checkup::ended`].
    pub(crate) fn due(&mut self, now: Instant, snapshot: &Snapshot) -> Vec<Due> {
        if self.settings.probe == Probe::Off {
            return Vec::new();
        }
        if self.generation != Some(snapshot.generation()) {
            self.follow(now, snapshot);
        }
        let mut due = Vec::new();
        for id in self.longest_due_first(now) {
            if self.under_way + due.len() == CHECKS_MAX {
                break;
            }
            let Some(patient) = self.patients.get_mut(&id) else { continue };
            if let Some(call) = patient.look(now, &self.settings, &mut self.rng) {
                let probe = patient.probe(&self.settings);
                due.push(Due { call, probe });
            }
        }
        self.under_way += due.len();
        due
    }

    /// Enters how a check ended. Says so if that changed the state of the breaker.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        call: Call,
        finding: Finding,
    ) -> Option<Transition> {
        self.under_way -= 1;
        let endpoint = Arc::clone(call.endpoint());
        let took = now.saturating_duration_since(call.began());
        let transition = match finding {
            Finding::Trouble(_) => call.end(now, Outcome::Failure, &mut self.rng),
            Finding::Serving if call.is_probe() => call.end(now, Outcome::Success, &mut self.rng),
            // As a call that was not made.
            Finding::Serving | Finding::Connected | Finding::NoHealthService => None,
        };
        let is_settled = endpoint.breaker.is_closed() && !matches!(finding, Finding::Trouble(_));
        if let Some(patient) = self.patients.get_mut(&endpoint.id()) {
            let interval = self.settings.interval;
            let pause = if is_settled { interval } else { interval / SOONER };
            patient.is_being_checked = false;
            patient.has_health_service &= finding != Finding::NoHealthService;
            patient.put_off(now, jittered(pause, &mut self.rng));
        }
        let trouble = match finding {
            Finding::Trouble(trouble) => Some(trouble.why),
            Finding::Connected | Finding::Serving | Finding::NoHealthService => None,
        };
        endpoint.note_check(Check { at: now, took, trouble });
        transition
    }

    /// In any other order, those that never come first would not be checked at all while there are
    /// more than can be.
    fn longest_due_first(&mut self, now: Instant) -> Vec<u64> {
        let due = self.patients.iter_mut().filter_map(|(id, patient)| {
            let due = patient.due_by(now)?;
            Some((due, *id))
        });
        let mut due: Vec<(Instant, u64)> = due.collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn follow(&mut self, now: Instant, snapshot: &Snapshot) {
        self.generation = Some(snapshot.generation());
        let mut known = std::mem::take(&mut self.patients);
        for endpoint in snapshot.endpoints() {
            let patient = known.remove(&endpoint.id()).unwrap_or_else(|| Patient {
                endpoint: Arc::clone(endpoint),
                // Not all of a fleet at once.
                due: now + self.settings.interval.mul_f64(self.rng.f64()),
                since: now,
                is_being_checked: false,
                was_closed: true,
                has_health_service: true,
            });
            self.patients.insert(endpoint.id(), patient);
        }
    }
}

impl Patient {
    /// Since when it is due, if it is.
    fn due_by(&mut self, now: Instant) -> Option<Instant> {
        if self.is_being_checked {
            return None;
        }
        let is_closed = self.endpoint.breaker.is_closed();
        if self.was_closed && !is_closed {
            // It says when its probe is due, which may be long before the next check.
            self.due = now;
        }
        self.was_closed = is_closed;
        (self.due <= now).then_some(self.due)
    }

    /// The right to check it, now that it is due.
    fn look(
        &mut self,
        now: Instant,
        settings: &HealthCheck,
        rng: &mut fastrand::Rng,
    ) -> Option<Call> {
        if self.endpoint.breaker.is_closed() && self.endpoint.has_calls(self.since) {
            self.put_off(now, jittered(settings.interval, rng));
            return None;
        }
        match self.endpoint.admit(now) {
            Ok(call) => {
                self.is_being_checked = true;
                Some(call)
            }
            Err(retry_in) => {
                let pause = retry_in.max(ASK_AGAIN_MIN).min(settings.interval);
                self.put_off(now, pause);
                None
            }
        }
    }

    fn put_off(&mut self, now: Instant, pause: Duration) {
        self.since = now;
        self.due = now + pause;
    }

    fn probe(&self, settings: &HealthCheck) -> Probe {
        match &settings.probe {
            Probe::Grpc(_) if !self.has_health_service => Probe::Connect,
            probe => probe.clone(),
        }
    }
}

/// Give or take a tenth.
fn jittered(pause: Duration, rng: &mut fastrand::Rng) -> Duration {
    pause.mul_f64(0.9 + 0.2 * rng.f64())
}

#[cfg(test)]
mod tests;
