//! What follows an attempt, and every way in which a part ends: delivered, dropped, given back.
//!
//! Never sends and never waits. Always: what ends is counted where it ends, and the last part of a
//! batch settles it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;

use super::{Sender, wake};
use crate::batch::{DropReason, Settled, Why};
use crate::breaker::Transition;
use crate::dispatch::{After, Waiting};
use crate::endpoints::{Call, Endpoint};
use crate::held::{Ended, Part};
use crate::parts;
use crate::verdict::{Failure, FailureKind, Remedy, Verdict};

impl Sender {
    /// Enters a verdict into the breaker, the part, the counters and the log. Some: the part is to
    /// be sent again at once.
    pub(super) fn judge(
        &self,
        mut part: Part,
        call: Call,
        verdict: Verdict,
        now: Instant,
    ) -> Option<Part> {
        let endpoint = Arc::clone(call.endpoint());
        let (after, transition) =
            self.dispatcher.borrow_mut().ended(&mut part.delivery, call, now, &verdict);
        if let Some(transition) = transition {
            self.tell(now, &endpoint, &transition);
            // What waits may have a reason to wait no longer.
            self.lane.wake();
        }
        let failure = match verdict {
            Verdict::Delivered { rejected, warning } => {
                self.delivered(part, rejected, &warning, now);
                return None;
            }
            Verdict::Failed(failure) => failure,
        };
        self.stats().failed(failure.kind);
        if matches!(after, After::Elsewhere | After::Wait(_)) {
            part.keep_packed(&self.lane);
        }
        match after {
            After::Delivered | After::Elsewhere => return Some(part),
            After::Wait(wait) => self.retry_later(part, failure, now, wait),
            After::GiveUp => self.drop_part(part, DropReason::RetriesExhausted, failure, now),
            After::Shrink => self.shrink(part, failure, now),
            After::Drop => self.drop_part(part, DropReason::Refused, failure, now),
        }
        None
    }

    /// Over the client's own limit even alone: OTLP 1.11 forbids sending it. A part of several
    /// items (cutting could not help) is tried in halves first.
    pub(super) fn over_limit(&self, part: Part, bytes_max: u64) {
        let bytes = part.bytes;
        let message = format!("{bytes} bytes are over the limit of {bytes_max} for one request");
        let failure = ours(FailureKind::TooLarge, message, Remedy::Shrink);
        self.stats().failed(failure.kind);
        self.shrink(part, failure, Instant::now());
    }

    pub(super) fn give_up_unsent(&self, part: Part, now: Instant) {
        let may_leave = self.destination.fails_over && part.batch().may_fail_over;
        if may_leave && self.cluster.is_first_answer_awaited(now) {
            // Its own time ends before discovery's: the next level is better than no level.
            return self.fail_over([part], now);
        }
        let message = "no endpoint could be called in time".to_owned();
        let failure = ours(FailureKind::Unavailable, message, Remedy::Drop);
        self.drop_part(part, DropReason::RetriesExhausted, failure, now);
    }

    /// No call could be made.
    pub(super) fn hold_up(&self, part: Part, now: Instant, wait: Duration, why: Waiting) {
        self.stats().waits(why);
        if why == Waiting::Busy {
            return self.wait(part, now + wait);
        }
        if why == Waiting::Breakers || self.is_refused_by_all(now) {
            // Whatever else waits would fare no better.
            self.fail_over_waiting(now);
            if self.may_fail_over(&part, now) {
                return self.fail_over([part], now);
            }
        }
        let fleet = self.cluster.endpoints().fleet();
        self.journal.held_up(now, why, wait, part.counts.items, (fleet.closed(), fleet.members()));
        self.wait(part, now + wait);
    }

    /// What waits, or is ready, and may go elsewhere does.
    pub(super) fn fail_over_waiting(&self, now: Instant) {
        if !self.fails_over(now) {
            return;
        }
        let mut parts = self.waiting.borrow_mut().take(|part| part.batch().may_fail_over);
        self.stats().retries_waiting(self.waiting.borrow().count());
        let (going, staying): (VecDeque<Part>, VecDeque<Part>) =
            self.ready.take().into_iter().partition(|part| part.batch().may_fail_over);
        self.ready.replace(staying);
        parts.extend(going);
        if !parts.is_empty() {
            self.fail_over(parts, now);
        }
    }

    /// The process ends before these were delivered.
    pub(super) fn shut_down(&self, parts: impl IntoIterator<Item = Part>) {
        let mut dropped_items = 0;
        for part in parts {
            dropped_items += part.counts.items;
            self.stats().dropped(DropReason::Shutdown, part.batch().signal, part.counts.items);
            let text = "the process stopped before the destination took it".to_owned();
            self.settle_if_ended(part.dropped(DropReason::Shutdown, None, text));
        }
        if dropped_items > 0 {
            let text = "stopped before the destination took it";
            self.journal.dropped(Instant::now(), DropReason::Shutdown, text, dropped_items);
        }
    }

    /// Ends everything that no sender has in hand, and calls off what they have.
    pub(super) fn abandon(&self) {
        self.lane.end();
        self.shut_down(std::iter::from_fn(|| self.lane.pop()).map(Part::whole));
        self.shut_down(self.ready.take());
        let waiting = self.waiting.borrow_mut().take(|_| true);
        self.shut_down(waiting);
        self.stats().retries_waiting(0);
        for place in &self.places {
            wake(&place.sending);
        }
    }

    pub(super) fn settle_waiting(&self) {
        let mut unsettled = self.unsettled.borrow_mut();
        for _ in 0..unsettled.len() {
            let Some(settled) = unsettled.pop_front() else {
                return;
            };
            match self.returns.settle(settled) {
                Ok(()) => self.stats().unreserve(),
                // Others may be for another receiver, so they are tried too.
                Err(settled) => unsettled.push_back(settled),
            }
        }
    }

    /// An endpoint's breaker has changed.
    pub(super) fn tell(&self, now: Instant, endpoint: &Endpoint, transition: &Transition) {
        let fleet = self.cluster.endpoints().fleet();
        let taking = (fleet.closed(), fleet.members());
        self.journal.transition(now, endpoint.address(), transition, taking);
    }

    fn retry_later(&self, part: Part, failure: Failure, now: Instant, wait: Duration) {
        self.stats().waits(Waiting::Backoff);
        if self.may_fail_over(&part, now) && self.is_refused_by_all(now) {
            return self.fail_over([part], now);
        }
        self.journal.will_retry(now, &failure, wait, part.counts.items);
        self.wait(part, now + wait);
    }

    fn wait(&self, part: Part, due: Instant) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.add(part, due);
        self.stats().retries_waiting(waiting.count());
        drop(waiting);
        // The keeper may be asleep until something later.
        self.lane.wake();
    }

    /// Too large: in halves, or not at all.
    fn shrink(&self, part: Part, failure: Failure, now: Instant) {
        match parts::halves(part) {
            Ok(mut halves) => {
                halves.iter_mut().for_each(|half| half.charge_copies(&self.lane));
                self.make_ready(halves);
            }
            Err(part) => {
                let is_ours = failure.code.is_none();
                let reason = if is_ours { DropReason::TooLarge } else { DropReason::Refused };
                self.drop_part(part, reason, failure, now);
            }
        }
    }

    fn delivered(&self, part: Part, rejected: u64, warning: &str, now: Instant) {
        let signal = part.batch().signal;
        let rejected_items = rejected_items(&part, rejected);
        self.stats().delivered(signal, part.counts.items - rejected_items);
        if rejected_items > 0 {
            self.stats().dropped(DropReason::PartialSuccess, signal, rejected_items);
        }
        if rejected_items > 0 || !warning.is_empty() {
            self.journal.partial(now, warning, rejected_items);
        }
        self.journal.delivered(now);
        self.settle_if_ended(part.delivered(rejected_items));
    }

    fn drop_part(&self, part: Part, reason: DropReason, failure: Failure, now: Instant) {
        let Failure { code, message, .. } = failure;
        let items = part.counts.items;
        let is_refused = matches!(reason, DropReason::Refused | DropReason::TooLarge);
        let ended = if is_refused && self.destination.keeps_refused {
            self.journal.refused(now, reason, &message, items);
            let why = Why::Refused { reason, code, message };
            self.stats().given_back(&why, items);
            part.give_back(why)
        } else {
            self.stats().dropped(reason, part.batch().signal, items);
            self.journal.dropped(now, reason, &message, items);
            part.dropped(reason, code, message)
        };
        self.settle_if_ended(ended);
    }

    fn may_fail_over(&self, part: &Part, now: Instant) -> bool {
        part.batch().may_fail_over && self.fails_over(now)
    }

    /// Not before discovery had its time to say who is there.
    fn fails_over(&self, now: Instant) -> bool {
        self.destination.fails_over && !self.cluster.is_first_answer_awaited(now)
    }

    fn is_refused_by_all(&self, now: Instant) -> bool {
        self.cluster.refuses(now).is_some()
    }

    fn fail_over(&self, parts: impl IntoIterator<Item = Part>, now: Instant) {
        let mut items = 0;
        for part in parts {
            items += part.counts.items;
            self.stats().given_back(&Why::Failover, part.counts.items);
            self.settle_if_ended(part.give_back(Why::Failover));
        }
        self.journal.failed_over(now, items);
    }

    fn settle_if_ended(&self, ended: Option<Ended>) {
        let Some(Ended { id, bytes, outcome, given_back, is_delivered }) = ended else {
            return;
        };
        if is_delivered {
            self.stats().delivered_batch();
        }
        let destination = self.lane.destination_index();
        let settled = Settled { batch: id, destination, outcome, given_back };
        self.stats().bytes_released(bytes);
        match self.returns.settle(settled) {
            Ok(()) => self.stats().unreserve(),
            Err(settled) => self.unsettled.borrow_mut().push_back(settled),
        }
        // A stop may be waiting for the last batch, and an unsettled one for its next try.
        self.lane.wake();
    }
}

/// A failure that no destination answered with.
fn ours(kind: FailureKind, message: String, remedy: Remedy) -> Failure {
    Failure { kind, code: None, status: None, message, remedy }
}

/// A partial success counts profiles where everything else counts samples: the share of the
/// profiles is taken for the share of the samples. Never more than were sent.
fn rejected_items(part: &Part, rejected: u64) -> u64 {
    let (items, profiles) = (part.counts.items, part.counts.profiles);
    match part.batch().signal {
        Signal::Profiles if profiles > 0 => {
            let rejected = u128::from(rejected.min(profiles));
            (u128::from(items) * rejected / u128::from(profiles)) as u64
        }
        _ => rejected.min(items),
    }
}
