//! What one load thread keeps account of, however its requests travel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use super::ledger::{Known, Ledger};
use super::{Counts, Report, Settings, histogram};
use crate::client::Outcome;
use crate::items::Id;
use crate::payload::Pool;

const PROBLEMS_MAX: usize = 10;

pub(super) struct Tally {
    id: Id,
    pool: Pool,
    ledger: Ledger,
    counts: Arc<Counts>,
    latencies: Histogram<u64>,
    outcomes: BTreeMap<Outcome, u64>,
    problems: Vec<String>,
    pub(super) sent_bytes: u64,
    /// Connections that ended, and not because we wanted it.
    pub(super) broken: u64,
    /// Latencies count.
    pub(super) is_measuring: bool,
}

impl Tally {
    pub(super) fn new(settings: &Settings, source: u8, pool: Pool, counts: Arc<Counts>) -> Tally {
        Tally {
            id: Id { run: settings.run, source, sequence: 0 },
            ledger: Ledger::new(source, pool.items, pool.is_repeating),
            pool,
            counts,
            latencies: histogram(),
            outcomes: BTreeMap::new(),
            problems: Vec::new(),
            sent_bytes: 0,
            broken: 0,
            is_measuring: false,
        }
    }

    /// A request to send now: the number of its first item, and its message.
    pub(super) fn begin(&mut self) -> (u64, &[u8]) {
        let fresh = Id { sequence: self.ledger.take(), ..self.id };
        let place = self.pool.next(fresh);
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        let request = &self.pool.requests[place];
        let first = if self.pool.is_repeating { request.first } else { fresh.sequence };
        (first, &request.body)
    }

    /// The end of the request that began with `first` and counts since `since`.
    pub(super) fn settle(&mut self, first: u64, since: u64, outcome: Outcome, now: u64) {
        *self.outcomes.entry(outcome).or_default() += 1;
        let add = |count: &AtomicU64, n| count.fetch_add(n, Ordering::Relaxed);
        let known = match outcome {
            Outcome::Ok => {
                add(&self.counts.ok, 1);
                add(&self.counts.ok_items, self.pool.items);
                if self.is_measuring {
                    self.latencies.saturating_record(now.saturating_sub(since).max(1));
                }
                Known::Taken
            }
            Outcome::Refused => {
                add(&self.counts.refused, 1);
                Known::NotTaken
            }
            _ => {
                add(&self.counts.failed, 1);
                Known::Unknown
            }
        };
        self.ledger.note(first, known);
    }

    /// The load itself was late by so much, and nothing held it up.
    pub(super) fn late(&self, late_us: u64) {
        if self.is_measuring {
            self.counts.late_us_max.fetch_max(late_us, Ordering::Relaxed);
        }
    }

    pub(super) fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn report(self) -> Report {
        Report {
            claims: self.ledger.into_claims(),
            latencies: self.latencies,
            outcomes: self.outcomes,
            problems: self.problems,
            sent_bytes: self.sent_bytes,
            connections_broken: self.broken,
        }
    }
}
