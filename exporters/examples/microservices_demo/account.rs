//! What happened, written down and told.
//!
//! Never changes what happens. Always: a world that is not told is written down all the same.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forebay_exporters::breaker::Transition;

use crate::policy::Policy;
use crate::schedule::CULPRIT;
use crate::upstream::now;

pub(crate) struct Account {
    /// The schedule's begin.
    epoch: OnceCell<Instant>,
    is_told: bool,
    /// Replicas by address.
    names: RefCell<BTreeMap<String, String>>,
    story: RefCell<Story>,
}

/// All of a world's calls, tries and changes, with times from the schedule's begin.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) policy: &'static str,
    pub(crate) calls_begun: usize,
    pub(crate) calls: Vec<Ended>,
    /// At replicas of `payments`.
    pub(crate) tries: Vec<Try>,
    pub(crate) openings_of_culprit: Vec<Duration>,
}

/// One call of the load.
pub(crate) struct Ended {
    pub(crate) began: Duration,
    pub(crate) latency: Duration,
    pub(crate) is_ok: bool,
}

pub(crate) struct Try {
    pub(crate) at: Duration,
    pub(crate) replica: String,
    /// Not the call's first.
    pub(crate) is_again: bool,
}

impl Account {
    pub(crate) fn new(policy: &Policy) -> Account {
        Account {
            epoch: OnceCell::new(),
            is_told: policy.is_told,
            names: RefCell::default(),
            story: RefCell::new(Story { policy: policy.name, ..Story::default() }),
        }
    }

    /// The schedule's begin: now, if it has not begun.
    pub(crate) fn epoch(&self) -> Instant {
        *self.epoch.get_or_init(now)
    }

    pub(crate) fn names(&self, address: &str, name: &str) {
        self.names.borrow_mut().insert(address.to_owned(), name.to_owned());
    }

    pub(crate) fn name_of(&self, address: &str) -> String {
        self.names.borrow().get(address).map_or(address, String::as_str).to_owned()
    }

    pub(crate) fn begun(&self) {
        self.story.borrow_mut().calls_begun += 1;
    }

    pub(crate) fn ended(&self, began: Instant, is_ok: bool) {
        let latency = now().saturating_duration_since(began);
        let began = began.saturating_duration_since(self.epoch());
        self.story.borrow_mut().calls.push(Ended { began, latency, is_ok });
    }

    pub(crate) fn tried(&self, hop: &str, address: &str, is_again: bool) {
        if hop.ends_with("payments") {
            let (at, replica) = (self.now(), self.name_of(address));
            self.story.borrow_mut().tries.push(Try { at, replica, is_again });
        }
    }

    pub(crate) fn changed(&self, replica: &str, transition: Transition) {
        if replica == CULPRIT && matches!(transition, Transition::Opened { .. }) {
            self.story.borrow_mut().openings_of_culprit.push(self.now());
        }
    }

    pub(crate) fn tell(&self, what: &str) {
        if self.is_told {
            println!("{:6.2} s  {what}", self.now().as_secs_f64());
        }
    }

    /// The last second: calls by when they ended, tries by when they were made.
    pub(crate) fn line(&self, state: &str, tokens: u64) {
        let since = self.now().saturating_sub(Duration::from_secs(1));
        let story = self.story.borrow();
        let calls = || story.calls.iter().filter(|call| call.began + call.latency >= since);
        let tries = || story.tries.iter().filter(|tried| tried.at >= since);
        let (p50, p99) = (percentile(calls(), 50), percentile(calls(), 99));
        let (ended, ok) = (calls().count(), calls().filter(|call| call.is_ok).count());
        let again = tries().filter(|tried| tried.is_again).count();
        let of = |name: &str| tries().filter(|tried| tried.replica == name).count();
        let (one, two, three) = (of("payments-1"), of(CULPRIT), of("payments-3"));
        self.tell(&format!(
            "      {ended:3} calls  {ok:3} ok  p50 {:3} ms  p99 {:3} ms  retries {again:2} \
             ({tokens} left)  payments {one:2} / {two:2} / {three:2}  2 is {state}",
            p50.as_millis(),
            p99.as_millis(),
        ));
    }

    pub(crate) fn take_story(&self) -> Story {
        self.story.take()
    }

    fn now(&self) -> Duration {
        self.epoch.get().map_or(Duration::ZERO, |epoch| now().saturating_duration_since(*epoch))
    }
}

/// Of the calls' latencies, by nearest rank; zero if there are none.
pub(crate) fn percentile<'c>(calls: impl Iterator<Item = &'c Ended>, percent: usize) -> Duration {
    let mut times: Vec<Duration> = calls.map(|call| call.latency).collect();
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
