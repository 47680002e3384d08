//! What to make of a source's answers: which sets to publish, when to ask again, what to tell.
//!
//! Sans I/O: time and randomness are arguments.
//!
//! Always
//! - What was published last stays good until the source names at least one endpoint: neither a
//!   failure nor an empty answer takes it away.
//! - Between an answer and the next question lies [`Pace::interval_min`] or more: what changes
//!   faster is seen as one change.
//! - A lasting trouble is told when it begins, when its reason changes, and every [`REMIND`]; one
//!   that comes and goes is told at most once in [`CALM`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::{self, shortened};
use super::event::{Cost, Event, Recovered, Trouble, Update};
use super::source::{Again, Answer, Failure, Said};

/// After this long a trouble that has not changed is told again.
pub const REMIND: Duration = Duration::from_secs(300);
/// Different troubles of one source are told no faster than this.
pub const CALM: Duration = Duration::from_secs(10);

/// How often a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From an answer to the next question at least.
    pub interval_min: Duration,
    /// From an answer to the next question at most; for a source that watches, how long it trusts
    /// a silent watch.
    pub interval_max: Duration,
    /// From a failure to the next question at most.
    pub backoff_max: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        let seconds = Duration::from_secs;
        Pace { interval_min: seconds(1), interval_max: seconds(60), backoff_max: seconds(30) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a set; of a larger answer the first by address are used.
    pub endpoints_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { endpoints_max: 4096 }
    }
}

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    pub source: String,
    /// The set in use; `None` before the first good answer.
    pub update: Option<Arc<Update>>,
    /// Since the source last said that it is so.
    pub age: Option<Duration>,
    /// Failures and empty answers in a row, and the reason of the last one.
    pub failures: u32,
    pub failing: Option<String>,
    pub answers_total: u64,
    pub failures_total: u64,
}

/// The policy for one source.
pub struct Keeper {
    source: String,
    pace: Pace,
    limits: Limits,
    good: Option<Good>,
    failing: Option<Failing>,
    /// The interval that the next wait after a failure is drawn from.
    backoff: Backoff,
    ask_at: Option<Instant>,
    events: VecDeque<Event>,
    failures_told: Teller,
    notes_told: Teller,
    answers_total: u64,
    failures_total: u64,
}

struct Good {
    update: Arc<Update>,
    /// When the source last said so.
    confirmed: Instant,
}

struct Failing {
    since: Instant,
    failures: u32,
    what: String,
}

impl Keeper {
    pub fn new(source: String, pace: Pace, limits: Limits, now: Instant) -> Keeper {
        Keeper {
            source,
            pace,
            limits,
            good: None,
            failing: None,
            backoff: Backoff::new(pace.interval_min, pace.backoff_max),
            ask_at: Some(now),
            events: VecDeque::new(),
            failures_told: Teller::default(),
            notes_told: Teller::default(),
            answers_total: 0,
            failures_total: 0,
        }
    }

    /// Takes what a look has brought. `random` is uniform in 0.0..1.0.
    pub fn take(&mut self, said: Said, now: Instant, random: f64) {
        match said {
            Ok(answer) => {
                self.backoff.reset();
                self.ask_at = self.next_ask(answer.again, now, random);
                self.answered(answer, now);
            }
            Err(failure) => {
                self.ask_at = Some(now + self.backoff.failed(random));
                self.failed(failure, now);
            }
        }
    }

    /// When to look again; `None`: there is nothing more to learn.
    pub fn ask_at(&self) -> Option<Instant> {
        self.ask_at
    }

    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn status(&self, now: Instant) -> Status {
        let age = |good: &Good| now.saturating_duration_since(good.confirmed);
        Status {
            source: self.source.clone(),
            update: self.good.as_ref().map(|good| Arc::clone(&good.update)),
            age: self.good.as_ref().map(age),
            failures: self.failing.as_ref().map_or(0, |failing| failing.failures),
            failing: self.failing.as_ref().map(|failing| failing.what.clone()),
            answers_total: self.answers_total,
            failures_total: self.failures_total,
        }
    }

    fn next_ask(&self, again: Again, now: Instant, random: f64) -> Option<Instant> {
        match again {
            Again::Never => None,
            Again::AtOnce => Some(now + self.pace.interval_min),
            Again::After(wait) => {
                let wait = wait.min(self.pace.interval_max).max(self.pace.interval_min);
                // Those who got the same answer at the same time do not come back together.
                Some(now + wait + wait.mul_f64(0.1 * random))
            }
        }
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        let Answer { mut endpoints, mut notes, .. } = answer;
        self.answers_total += 1;
        let surplus = endpoint::normalise(&mut endpoints, self.limits.endpoints_max);
        if surplus > 0 {
            let endpoints_max = self.limits.endpoints_max;
            notes.push(format!(
                "the answer names {surplus} endpoints more than the limit of {endpoints_max}"
            ));
        }
        if endpoints.is_empty() {
            let why = notes.first().map(|note| format!(" ({note})")).unwrap_or_default();
            let what = format!("the answer names no endpoint{why}");
            return self
                .failed(Failure::new(what, "check that the fleet is up and registered"), now);
        }
        self.publish(endpoints, now);
        self.recovered(now);
        self.tell_notes(&notes, now);
    }

    fn publish(&mut self, endpoints: Vec<endpoint::Endpoint>, now: Instant) {
        let generation = match &mut self.good {
            Some(good) if good.update.endpoints == endpoints => {
                good.confirmed = now;
                return;
            }
            Some(good) => good.update.generation + 1,
            None => 1,
        };
        let update = Arc::new(Update { generation, endpoints });
        self.good = Some(Good { update: Arc::clone(&update), confirmed: now });
        self.events.push_back(Event::Changed(update));
    }

    fn failed(&mut self, failure: Failure, now: Instant) {
        self.failures_total += 1;
        let what = shortened(&failure.what);
        let failing = self.failing.get_or_insert_with(|| Failing {
            since: now,
            failures: 0,
            what: String::new(),
        });
        failing.failures = failing.failures.saturating_add(1);
        failing.what.clone_from(&what);
        let failures = failing.failures;
        if !self.failures_told.tells(&what, now) {
            return;
        }
        let cost = match &self.good {
            None => Cost::NoEndpoints,
            Some(good) => Cost::LastGood {
                endpoints: good.update.endpoints.len(),
                age: now.saturating_duration_since(good.confirmed),
            },
        };
        let (source, advice) = (self.source.clone(), failure.advice);
        self.events.push_back(Event::Trouble(Trouble { source, what, cost, advice, failures }));
    }

    fn recovered(&mut self, now: Instant) {
        if let Some(failing) = self.failing.take()
            && self.failures_told.end()
        {
            let after = now.saturating_duration_since(failing.since);
            let source = self.source.clone();
            self.events.push_back(Event::Recovered(Recovered { source, after }));
        }
    }

    fn tell_notes(&mut self, notes: &[String], now: Instant) {
        let Some(first) = notes.first() else {
            self.notes_told.end();
            return;
        };
        let more = match notes.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more like it)"),
        };
        let what = shortened(first) + &more;
        if self.notes_told.tells(&what, now) {
            self.events.push_back(Event::Trouble(Trouble {
                source: self.source.clone(),
                what,
                cost: Cost::PartUnused,
                advice: "correct what the source says",
                failures: 1,
            }));
        }
    }
}

/// Waits that double from failure to failure, half of each drawn.
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    current: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Backoff {
        let first = first.max(Duration::from_millis(1));
        Backoff { first, max: max.max(first), current: first }
    }

    pub(super) fn reset(&mut self) {
        self.current = self.first;
    }

    /// How long to wait now. Never less than half of the interval: one who asks for nothing but
    /// a sign of life has no reason to ask twice in a row.
    pub(super) fn failed(&mut self, random: f64) -> Duration {
        let interval = self.current;
        self.current = interval.saturating_mul(2).min(self.max);
        (interval / 2 + (interval / 2).mul_f64(random)).max(self.first / 2)
    }
}

/// Which troubles are worth a line of the log.
#[derive(Default)]
pub(super) struct Teller {
    last: Option<(Instant, String)>,
    /// Whether the trouble at hand has been told.
    is_open: bool,
}

impl Teller {
    pub(super) fn tells(&mut self, what: &str, now: Instant) -> bool {
        let is_due = match &self.last {
            None => true,
            Some((at, last)) => {
                let is_known = self.is_open && last == what;
                let wait = if is_known { REMIND } else { CALM };
                now.saturating_duration_since(*at) >= wait
            }
        };
        if is_due {
            self.last = Some((now, what.to_owned()));
            self.is_open = true;
        }
        is_due
    }

    /// The trouble is over; was it told?
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.is_open)
    }
}

#[cfg(test)]
mod tests;
