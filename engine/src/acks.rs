//! Who waits for which batch: tickets for requests whose answer is due when their items arrived.
//!
//! A request may have parts in several batches (it was split, or several pipelines take it). Its
//! ticket is answered when the last part has ended, with the worst of what the parts met; or when
//! it has waited for `engine.acks.timeout` (or the call's own `grpc-timeout`, if that is sooner),
//! as retryable, while its parts go on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use forebay_codec::status::PartialSuccess;
use forebay_exporters::batch::{DropReason, Outcome};
use forebay_net::request::Nanos;

use crate::neighbours::Asker;

/// A remark that is as long gets no longer.
const REMARK_BYTES_MAX: usize = 512;
/// So many deadlines of answered tickets are kept before they are cleared away.
const DEADLINES_SPARE: usize = 64;

/// A ticket, until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketId {
    index: u32,
    generation: u32,
}

/// What is known of a request that waits.
#[derive(Debug)]
pub struct Ticket {
    pub asker: Asker,
    /// What the answer has to look like: `ingest::route::Route`.
    pub tag: u32,
    parts: u32,
    pub verdict: Verdict,
}

/// The worst that happened to any part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Items that destinations rejected by partial success, where it is known that they were
    /// this request's.
    pub rejected_items: u64,
    /// By output of the pipeline, and for what went elsewhere together: an output's destinations
    /// have different items of the request, different outputs the same.
    rejected_by_output: Vec<(Option<usize>, u64)>,
    /// A remark for the client: rejections that can't be told apart by request.
    pub remark: Option<String>,
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The destination's gRPC code, if it gave one.
    pub code: Option<u32>,
    pub message: String,
    /// Whether the client should send it again.
    pub retryable: bool,
}

#[derive(Debug, Default)]
pub struct Tickets {
    slots: Vec<(u32, Option<Ticket>)>,
    free: Vec<u32>,
    /// The next first. Tickets that were answered stay until they are due, or are many.
    deadlines: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    open: usize,
}

impl Tickets {
    /// `verdict`: what is said already, whatever becomes of the parts.
    pub fn open(&mut self, asker: Asker, tag: u32, deadline: Nanos, verdict: Verdict) -> TicketId {
        let ticket = Ticket { asker, tag, parts: 0, verdict };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push((0, None));
                self.slots.len() as u32 - 1
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(ticket);
        self.open += 1;
        let id = TicketId { index, generation: slot.0 };
        self.deadlines.push(Reverse((deadline, id.index, id.generation)));
        if self.deadlines.len() > 2 * self.open + DEADLINES_SPARE {
            let slots = &self.slots;
            self.deadlines.retain(|Reverse((_, index, generation))| {
                let (current, ticket) = &slots[*index as usize];
                ticket.is_some() && current == generation
            });
        }
        id
    }

    /// The request has so many parts more. Said when they go into batches, not when these are
    /// sealed: the first part may have ended before the last one's batch is full.
    pub fn add_parts(&mut self, id: TicketId, parts: u32) {
        if let Some(ticket) = self.find(id) {
            ticket.parts += parts;
        }
    }

    /// A part has ended; the ticket, if it was the last.
    pub fn end_part(&mut self, id: TicketId, verdict: &Verdict) -> Option<Ticket> {
        let ticket = self.find(id)?;
        ticket.parts -= 1;
        ticket.verdict.merge(verdict);
        (ticket.parts == 0).then(|| self.take(id))
    }

    /// The next ticket that has waited too long.
    pub fn poll_late(&mut self, now: Nanos) -> Option<Ticket> {
        while let Some(Reverse((deadline, index, generation))) = self.deadlines.peek().copied() {
            let id = TicketId { index, generation };
            let is_open = self.find(id).is_some();
            if is_open && deadline > now {
                return None;
            }
            self.deadlines.pop();
            if is_open {
                return Some(self.take(id));
            }
        }
        None
    }

    /// When [`Tickets::poll_late`] has something to say, at the latest.
    pub fn deadline(&self) -> Option<Nanos> {
        self.deadlines.peek().map(|Reverse((deadline, ..))| *deadline)
    }

    pub fn count(&self) -> usize {
        self.open
    }

    fn find(&mut self, id: TicketId) -> Option<&mut Ticket> {
        let (generation, ticket) = self.slots.get_mut(id.index as usize)?;
        ticket.as_mut().filter(|_| *generation == id.generation)
    }

    fn take(&mut self, id: TicketId) -> Ticket {
        let slot = &mut self.slots[id.index as usize];
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(id.index);
        self.open -= 1;
        slot.1.take().expect("an open ticket")
    }
}

impl Verdict {
    /// What the door itself did not take.
    pub fn of(partial: &PartialSuccess) -> Verdict {
        let remark = (!partial.message.is_empty()).then(|| partial.message.clone());
        Verdict { rejected_items: partial.rejected, remark, ..Verdict::default() }
    }

    fn merge(&mut self, other: &Verdict) {
        self.rejected_items += other.rejected_items;
        if let Some(remark) = &other.remark {
            self.add_remark(remark);
        }
        // A permanent failure is worse than one that may be tried again.
        match (&self.failure, &other.failure) {
            (Some(mine), Some(theirs)) if mine.retryable && !theirs.retryable => {
                self.failure.clone_from(&other.failure);
            }
            (None, Some(_)) => self.failure.clone_from(&other.failure),
            _ => {}
        }
    }

    /// Adds that items were refused for good, and are kept as dead letters.
    pub fn add_kept(&mut self, refuser: &str, items: u64, why: &str, keeper: &str) {
        let remark =
            format!("{refuser} refused {items} items for good ({why}): they are kept at {keeper}");
        self.add_remark(&remark);
    }

    /// Adds what one destination of `output` said of a batch. `alone`: the batch is this one
    /// request.
    pub fn add(
        &mut self,
        output: Option<usize>,
        destination: &str,
        outcome: &Outcome,
        batch_items: u64,
        alone: bool,
    ) {
        match outcome {
            Outcome::Delivered { rejected_items: 0 } => {}
            Outcome::Delivered { rejected_items } if alone => {
                self.add_rejected(output, *rejected_items);
                self.add_remark(&format!("{destination} rejected {rejected_items} items"));
            }
            Outcome::Delivered { rejected_items } => {
                self.add_remark(&format!(
                    "{destination} rejected {rejected_items} of the {batch_items} items of the \
                     batch that this request travelled in"
                ));
            }
            Outcome::Parted { dropped_items, code, message } => {
                let mut lost = DropReason::ALL.iter().filter(|r| dropped_items[r.index()] > 0);
                let is_whole = dropped_items.iter().sum::<u64>() >= batch_items;
                let failure = Failure {
                    code: *code,
                    message: match is_whole {
                        true => format!("{destination} took nothing of the batch: {message}"),
                        false => format!("{destination} took only parts of the batch: {message}"),
                    },
                    // What was taken in part would be doubled.
                    retryable: is_whole && lost.all(may_pass_later),
                };
                self.merge(&Verdict { failure: Some(failure), ..Verdict::default() });
            }
            Outcome::Dropped { reason, code, message } => {
                let failure = Failure {
                    code: *code,
                    message: format!("{destination}: {message}"),
                    retryable: may_pass_later(reason),
                };
                self.merge(&Verdict { failure: Some(failure), ..Verdict::default() });
            }
        }
    }
    fn add_rejected(&mut self, output: Option<usize>, items: u64) {
        match self.rejected_by_output.iter_mut().find(|(of, _)| *of == output) {
            Some((_, rejected)) => *rejected += items,
            None => self.rejected_by_output.push((output, items)),
        }
        let of_outputs = self.rejected_by_output.iter().map(|(_, rejected)| *rejected);
        self.rejected_items = of_outputs.max().unwrap_or(0);
    }

    fn add_remark(&mut self, remark: &str) {
        match &mut self.remark {
            Some(mine) if mine.len() < REMARK_BYTES_MAX && mine != remark => {
                *mine += "; ";
                *mine += remark;
            }
            Some(_) => {}
            None => self.remark = Some(remark.to_owned()),
        }
    }
}

/// Whether the same items may be taken another time.
fn may_pass_later(reason: &DropReason) -> bool {
    matches!(reason, DropReason::Shutdown | DropReason::RetriesExhausted)
}

#[cfg(test)]
mod tests {
    use forebay_net::request::RequestId;
    use forebay_net::ring::Key;

    use super::*;

    fn request(stream: u32) -> Asker {
        let request = RequestId { key: Key { index: 0, generation: 0 }, stream };
        Asker { shard: 0, request, reserved: 0 }
    }

    #[test]
    fn a_ticket_is_answered_with_its_last_part_and_the_worst_verdict() {
        let mut tickets = Tickets::default();
        let id = tickets.open(request(1), 7, 100, Verdict::default());
        tickets.add_parts(id, 2);
        let mut bad = Verdict::default();
        let dropped = |reason| Outcome::Dropped { reason, code: Some(3), message: "no".into() };
        bad.add(Some(0), "otlp_grpc", &dropped(DropReason::Shutdown), 10, true);
        bad.add(Some(0), "otlp_http", &dropped(DropReason::Refused), 10, true);
        assert!(tickets.end_part(id, &bad).is_none());
        let ticket = tickets.end_part(id, &Verdict::default()).unwrap();
        let failure = ticket.verdict.failure.unwrap();
        assert!(!failure.retryable, "the permanent refusal wins");
        assert_eq!(failure.message, "otlp_http: no");
        assert_eq!(tickets.count(), 0);
    }

    #[test]
    fn what_the_door_refused_and_what_a_destination_refused_are_both_told() {
        let partial = PartialSuccess { rejected: 3, message: "3 were not UTF-8".to_owned() };
        let mut tickets = Tickets::default();
        let id = tickets.open(request(1), 7, 100, Verdict::of(&partial));
        tickets.add_parts(id, 1);
        let mut rejected = Verdict::default();
        let outcome = Outcome::Delivered { rejected_items: 5 };
        rejected.add(Some(0), "otlp_grpc", &outcome, 10, true);
        let verdict = tickets.end_part(id, &rejected).expect("the last part").verdict;
        assert_eq!(verdict.rejected_items, 8);
        let remark = verdict.remark.expect("a remark");
        assert_eq!(remark, "3 were not UTF-8; otlp_grpc rejected 5 items");
    }

    #[test]
    fn the_parts_of_an_output_add_up_and_outputs_that_had_the_same_items_do_not() {
        let mut verdict = Verdict::default();
        let rejects = |rejected_items| Outcome::Delivered { rejected_items };
        verdict.add(Some(0), "otlp_http/old", &rejects(3), 6, true);
        verdict.add(Some(1), "otlp_grpc", &rejects(4), 10, true);
        verdict.add(Some(0), "otlp_http/new", &rejects(2), 4, true);
        assert_eq!(verdict.rejected_items, 5);
        let remark = verdict.remark.expect("a remark");
        let said = "otlp_http/old rejected 3 items; otlp_grpc rejected 4 items; \
                    otlp_http/new rejected 2 items";
        assert_eq!(remark, said);
    }

    #[test]
    fn answered_tickets_leave_no_deadlines_behind_however_long_one_of_them_waits() {
        let mut tickets = Tickets::default();
        let stuck = tickets.open(request(0), 0, 1_000, Verdict::default());
        tickets.add_parts(stuck, 1);
        for n in 1..10_000 {
            let id = tickets.open(request(n), 0, 1_000 + u64::from(n), Verdict::default());
            tickets.add_parts(id, 1);
            assert!(tickets.end_part(id, &Verdict::default()).is_some());
            assert!(tickets.deadlines.len() <= 2 * 2 + DEADLINES_SPARE);
        }
        let early = tickets.open(request(1), 0, 500, Verdict::default());
        tickets.add_parts(early, 1);
        assert_eq!(tickets.deadline(), Some(500));
        assert_eq!(tickets.poll_late(500).unwrap().asker, request(1));
        assert_eq!(tickets.poll_late(1_000).unwrap().asker, request(0));
    }

    #[test]
    fn a_late_ticket_is_answered_once_and_its_parts_end_unheard() {
        let mut tickets = Tickets::default();
        let id = tickets.open(request(1), 0, 100, Verdict::default());
        tickets.add_parts(id, 1);
        assert!(tickets.poll_late(99).is_none());
        assert_eq!(tickets.poll_late(100).unwrap().asker, request(1));
        assert!(tickets.poll_late(100).is_none());
        let again = tickets.open(request(2), 0, 200, Verdict::default());
        tickets.add_parts(again, 1);
        assert!(tickets.end_part(id, &Verdict::default()).is_none(), "an old id is nobody's");
        assert_eq!(tickets.end_part(again, &Verdict::default()).unwrap().asker, request(2));
    }
}
