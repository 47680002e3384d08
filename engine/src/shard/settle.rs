//! The second half of a batch's life: its ends come back, and whoever waited is told.

use std::time::Duration;

use forebay_codec::status::PartialSuccess;
use forebay_exporters::batch::{DropReason, Outcome, Settled};
use forebay_net::grpc::code;
use forebay_net::request::Nanos;
use forebay_net::ring::Ring;
use http::StatusCode;

use super::Shard;
use super::flow::{Leg, never_sent};
use crate::acks::{Ticket, Verdict};
use crate::ingest::answers::{Problem, status_of, success};
use crate::ingest::route::Route;
use crate::ledger::RequestEnd;

/// Overloaded clients are sent away for this long at least, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

impl<R: Ring> Shard<R> {
    /// The items of a request are in flight to each output of `pipeline`.
    pub(super) fn count_in_flight(&self, pipeline: usize, items: u64) {
        let outputs = &self.plan.pipelines[pipeline].outputs;
        for first in outputs.iter().filter_map(|output| output.primary()) {
            self.row(pipeline, first).in_flight_items.add(items);
        }
    }

    pub(super) fn settle_returns(&mut self, now: Nanos) {
        let mut has_settled = false;
        while let Some(settled) = self.returns.pop() {
            self.settle(settled, now);
            has_settled = true;
        }
        if has_settled {
            // The next turn may be a second away, and its first request comes before all else.
            self.refresh_standings(now);
        }
        self.refresh_retry_delay(now);
    }

    /// What never reached a lane when the time for draining is over.
    pub(super) fn abandon_outboxes(&mut self, now: Nanos) {
        for destination in 0..self.outboxes.len() {
            for batch in self.outboxes[destination].abandon() {
                let settled = Settled {
                    batch: batch.id,
                    destination: destination as u16,
                    outcome: never_sent(),
                    given_back: Vec::new(),
                };
                self.settle(settled, now);
            }
        }
        self.abandon_passages(now);
    }

    fn settle(&mut self, settled: Settled, now: Nanos) {
        let Settled { batch, destination, outcome, given_back } = settled;
        let leg = self.flow.take_leg(batch.seq).unwrap_or_else(|| {
            let pending = self.pending.get(&batch.seq);
            Leg::whole(batch.seq, pending.expect("a batch is settled once by each destination"))
        });
        self.outboxes[usize::from(destination)].settled(leg.held_bytes);
        self.flow.words[usize::from(destination)].has_changed();
        let returned: u64 = given_back.iter().map(|back| back.counts.items).sum();
        let items = leg.items.checked_sub(returned).expect("nobody gives back more than they got");
        self.enter(self.pending[&leg.root].pipeline, destination, &outcome, items);
        self.tell_letter(&leg, &outcome, items);
        if leg.is_awaited() {
            self.tell_verdict(leg.root, destination, &outcome, items);
        }
        for back in given_back {
            self.pass_on(&leg, destination, back, now);
        }
        self.end_leg(leg.root, leg.is_awaited(), now);
    }

    /// Moves items from in flight to where they ended.
    fn enter(&self, pipeline: usize, destination: u16, outcome: &Outcome, items: u64) {
        let row = self.row(pipeline, destination);
        row.in_flight_items.subtract(items);
        match outcome {
            Outcome::Delivered { rejected_items } => {
                let rejected = (*rejected_items).min(items);
                row.delivered_items.add(items - rejected);
                row.dropped_items[DropReason::PartialSuccess.index()].add(rejected);
            }
            Outcome::Dropped { reason, .. } => row.dropped_items[reason.index()].add(items),
            Outcome::Parted { dropped_items, .. } => {
                for (row, dropped) in row.dropped_items.iter().zip(dropped_items) {
                    row.add(*dropped);
                }
                row.delivered_items.add(items - dropped_items.iter().sum::<u64>());
            }
        }
    }

    pub(super) fn answer_late_tickets(&mut self, now: Nanos) {
        while let Some(ticket) = self.tickets.poll_late(now) {
            let route = Route::unpack(ticket.tag);
            let delay = self.ingest.delay();
            let message = "not delivered within engine.acks.timeout: the items are still being \
                           retried, and sending them again may deliver them twice";
            let answer = Problem::overloaded(route.shape(), message, delay).answer();
            self.ingest.requests_in_flight -= 1;
            self.ingest.count(&route, RequestEnd::Overloaded);
            self.answer(ticket.asker, answer, now);
        }
    }

    pub(super) fn answer_ticket(&mut self, ticket: Ticket, now: Nanos) {
        let route = Route::unpack(ticket.tag);
        let Verdict { rejected_items, remark, failure, .. } = ticket.verdict;
        self.ingest.requests_in_flight -= 1;
        let answer = match failure {
            None => {
                self.ingest.count(&route, RequestEnd::Ok);
                let partial = PartialSuccess {
                    rejected: rejected_items,
                    message: remark.unwrap_or_default(),
                };
                success(route.shape(), route.signal, &partial)
            }
            Some(failure) if failure.retryable => {
                self.ingest.count(&route, RequestEnd::Overloaded);
                let delay = self.ingest.delay();
                Problem::overloaded(route.shape(), &failure.message, delay).answer()
            }
            Some(failure) => {
                self.ingest.count(&route, RequestEnd::Failed);
                let code = failure.code.unwrap_or(code::INTERNAL);
                let status = match code {
                    // "Too many requests" would invite the client to try again.
                    code::RESOURCE_EXHAUSTED => StatusCode::PAYLOAD_TOO_LARGE,
                    code => status_of(code),
                };
                Problem::new(route.shape(), status, code, failure.message).answer()
            }
        };
        self.answer(ticket.asker, answer, now);
    }

    /// How long it takes to work off what is held, at the pace of the last second.
    fn refresh_retry_delay(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.rate_since);
        if elapsed < 1_000_000_000 {
            return;
        }
        let per_second = self.settled_bytes as f64 * 1e9 / elapsed as f64;
        let held = self.ingest.budget.taken_bytes() as f64;
        let seconds = if per_second > 0.0 { held / per_second } else { held.min(30.0) };
        self.ingest.retry_delay = Duration::from_secs_f64(
            seconds.clamp(RETRY_MIN.as_secs_f64(), RETRY_MAX.as_secs_f64()),
        );
        (self.settled_bytes, self.rate_since) = (0, now);
    }
}
