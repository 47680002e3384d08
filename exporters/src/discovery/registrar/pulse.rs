//! When to give the next sign of life, and what to tell of how it was taken.
//!
//! Sans I/O. Always: between two signs lies a third of the entry's TTL at most, so that two may
//! fail before the entry dies; after a failure the next comes sooner, and never in a burst.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Announced, News};
use crate::discovery::event::{Cost, Recovered, Trouble};
use crate::discovery::keeper::{Backoff, Teller};
use crate::discovery::source::Failure;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

pub struct Pulse {
    registry: String,
    interval: Duration,
    due: Instant,
    backoff: Backoff,
    told: Teller,
    /// Since when, and how often.
    failing: Option<(Instant, u32)>,
    news: VecDeque<News>,
}

impl Pulse {
    pub fn new(registry: String, ttl: Duration, now: Instant) -> Pulse {
        let interval = (ttl / 3).max(Duration::from_millis(100));
        let backoff = Backoff::new(BACKOFF_FIRST.min(interval), BACKOFF_MAX.min(interval));
        let (told, news) = (Teller::default(), VecDeque::new());
        Pulse { registry, interval, due: now, backoff, told, failing: None, news }
    }

    pub fn due(&self) -> Instant {
        self.due
    }

    /// There is something that can't wait.
    pub fn hurry(&mut self, now: Instant) {
        // Not while it fails: the backoff protects the registry from us.
        if self.failing.is_none() {
            self.due = now;
        }
    }

    pub fn take_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// `random` is uniform in 0.0..1.0.
    pub fn take(&mut self, said: Result<Announced, Failure>, now: Instant, random: f64) {
        match said {
            Ok(announced) => {
                self.backoff.reset();
                // Up to a tenth sooner: those who began together do not stay together.
                self.due = now + self.interval - self.interval.mul_f64(0.1 * random);
                if announced == Announced::Anew {
                    self.news.push_back(News::Registered { registry: self.registry.clone() });
                }
                self.recovered(now);
            }
            Err(failure) => {
                self.due = now + self.backoff.failed(random);
                self.failed(failure, now);
            }
        }
    }

    fn recovered(&mut self, now: Instant) {
        if let Some((since, _)) = self.failing.take()
            && self.told.end()
        {
            let (source, after) = (self.registry.clone(), now.saturating_duration_since(since));
            self.news.push_back(News::Recovered(Recovered { source, after }));
        }
    }

    fn failed(&mut self, failure: Failure, now: Instant) {
        let (_, failures) = self.failing.get_or_insert((now, 0));
        *failures = failures.saturating_add(1);
        let failures = *failures;
        if self.told.tells(&failure.what, now) {
            let (source, cost) = (self.registry.clone(), Cost::NotFound);
            let Failure { what, advice } = failure;
            let trouble = Trouble { source, what, cost, advice, failures };
            self.news.push_back(News::Trouble(trouble));
        }
    }
}

#[cfg(test)]
mod tests;
