//! From a sealed batch to its destinations: to all, to the first that takes it, by shares, as a
//! copy; and what comes back from one to go on to another.
//!
//! A batch is owed to each of its outputs. What goes to a destination under the batch's own name
//! is the whole of it; everything else (what may fail over, a copy, a part, a dead letter) is a
//! [`Leg`] with a name of its own. The batch ends with its last leg.
//!
//! Always
//! - Each item of a batch is at one destination of each output, and in that destination's row.
//! - What nobody takes waits here, and the pipeline's door is closed meanwhile. It is tried again
//!   when a turn comes, and moves from one destination to another once in [`MOVE_PAUSE`] at most.
//! - A mirror is never waited for: neither by an answer, nor by another output, nor by the door.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::hash::stable_hash;
use forebay_codec::signal::{Counts, Signal};
use forebay_codec::split::by::{Key, Request, split_by};
use forebay_exporters::batch::{Batch, BatchId, DropReason, GivenBack, Outcome, Why};
use forebay_exporters::cluster::Cluster;
use forebay_net::request::Nanos;
use forebay_net::ring::Ring;

use super::standings::Word;
use super::{Pending, Shard};
use crate::acks::Verdict;
use crate::batches::Sealed;
use crate::config::plan::{Output, Plan, ShiftBy};
use crate::ledger::{MIRROR_FULL, PassReason, RouteRow};
use crate::letters::{self, Refusal};
use crate::shares::Shares;

/// A batch that comes back this soon waits until then.
const MOVE_PAUSE: Nanos = 10_000_000;
/// What a shard knows of its batches' ways.
pub(super) struct Flow {
    /// By pipeline: this core's own copy, since the plan's count of owners is all cores'.
    pub(super) ways: Rc<[Vec<Output>]>,
    pub(super) clusters: Vec<Arc<Cluster>>,
    /// By destination.
    pub(super) words: Vec<Word>,
    /// By their own number.
    legs: HashMap<u64, Leg>,
    sidings: Vec<Siding>,
    /// By pipeline and output: whose turn it is.
    turns: Vec<Vec<Shares>>,
    pub(super) mirror_full_untold: u64,
    pub(super) warned_at: Option<Nanos>,
}

/// Items of a batch on their way to one destination.
#[derive(Clone)]
pub(super) struct Leg {
    /// The batch.
    pub(super) root: u64,
    pub(super) items: u64,
    /// Of the budget: see [`Pending::held_bytes`].
    pub(super) held_bytes: u64,
    role: Role,
    moved_at: Nanos,
}

#[derive(Clone)]
enum Role {
    /// All of the output's share: nobody else takes it.
    Share,
    /// A level of the pipeline's output of this index.
    Level {
        output: usize,
        level: usize,
    },
    Mirror,
    /// What another destination refused.
    Letter {
        refusal: Box<Refusal>,
        is_awaited: bool,
    },
}

/// Where what may fail over waits while nobody takes it.
pub(super) struct Siding {
    pipeline: usize,
    output: usize,
    waiting: VecDeque<Passage>,
    /// What was moved a moment ago, and when it may move again.
    resting: VecDeque<(Nanos, Passage)>,
}

/// Items of an output that may fail over and are nowhere.
struct Passage {
    root: u64,
    /// In whose row they are.
    at: u16,
    /// The level that has just given them back.
    except: Option<usize>,
    batch: Arc<Batch>,
}

impl Leg {
    /// Of a batch that travels under its own name.
    pub(super) fn whole(root: u64, pending: &Pending) -> Leg {
        let (items, held_bytes) = (pending.items, pending.held_bytes);
        Leg { root, items, held_bytes, role: Role::Share, moved_at: 0 }
    }

    /// Whether an answer waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        match &self.role {
            Role::Share | Role::Level { .. } => true,
            Role::Mirror => false,
            Role::Letter { is_awaited, .. } => *is_awaited,
        }
    }
}

impl Siding {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.resting.is_empty()
    }

    /// Whether no level took what may move at any time.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Flow {
    pub(super) fn new(plan: &Plan, clusters: Vec<Arc<Cluster>>) -> Flow {
        let mut sidings = Vec::new();
        let mut turns = Vec::new();
        for (pipeline, settings) in plan.pipelines.iter().enumerate() {
            let mut of_outputs = Vec::new();
            for (output, way) in settings.outputs.iter().enumerate() {
                of_outputs.push(Shares::new(match way {
                    Output::Shift { shares, .. } => shares.iter().map(|(_, w)| *w).collect(),
                    Output::Mirror { percent, .. } => vec![*percent, 100 - percent],
                    Output::One(_) | Output::Failover(_) => Vec::new(),
                }));
                if matches!(way, Output::Failover(_)) {
                    let (waiting, resting) = (VecDeque::new(), VecDeque::new());
                    sidings.push(Siding { pipeline, output, waiting, resting });
                }
            }
            turns.push(of_outputs);
        }
        Flow {
            ways: plan.pipelines.iter().map(|pipeline| pipeline.outputs.clone()).collect(),
            words: vec![Word::default(); clusters.len()],
            clusters,
            legs: HashMap::new(),
            sidings,
            turns,
            mirror_full_untold: 0,
            warned_at: None,
        }
    }

    /// Whether something waits for a destination to take it.
    pub(super) fn is_waiting(&self) -> bool {
        self.sidings.iter().any(|siding| !siding.is_empty())
    }

    pub(super) fn take_leg(&mut self, seq: u64) -> Option<Leg> {
        self.legs.remove(&seq)
    }

    pub(super) fn siding(&mut self, pipeline: usize, output: usize) -> &mut Siding {
        let is_it = |siding: &&mut Siding| (siding.pipeline, siding.output) == (pipeline, output);
        self.sidings.iter_mut().find(is_it).expect("each failover has one")
    }
}

impl<R: Ring> Shard<R> {
    /// Sends a batch its ways.
    pub(super) fn send(&mut self, pipeline: usize, sealed: Sealed, now: Nanos) {
        let Sealed { chain, held, tickets, requests } = sealed;
        let root = self.next_seq();
        self.batches_sealed += 1;
        let pending = Pending {
            pipeline,
            signal: chain.signal,
            items: chain.counts.items,
            bytes: chain.bytes,
            held_bytes: chain.bytes.max(held.portion_bytes() as u64),
            held,
            requests,
            tickets,
            // One for this sending: nothing ends before all of it is on its way.
            outstanding: 1,
            awaited: 1,
            verdict: Verdict::default(),
        };
        self.pending.insert(root, pending);
        let batch = Arc::new(Batch {
            id: BatchId { receiver: self.index, seq: root },
            signal: chain.signal,
            counts: chain.counts,
            bytes: chain.bytes,
            chain: chain.parts,
            may_fail_over: false,
        });
        let ways = self.flow.ways.clone();
        for (output, way) in ways[pipeline].iter().enumerate() {
            match way {
                Output::One(destination) => self.push_whole(root, *destination, &batch),
                Output::Shift { shares, by: ShiftBy::Batch } => {
                    let (destination, _) = shares[self.flow.turns[pipeline][output].next_turn()];
                    let items = batch.counts.items;
                    self.pass_row(pipeline, shares[0].0, destination, items, PassReason::Shift);
                    self.push_whole(root, destination, &batch);
                }
                Output::Shift { shares, by: ShiftBy::TraceId } => {
                    self.shift_by_trace(root, pipeline, output, shares, &batch);
                }
                Output::Failover(levels) => {
                    let all = (batch.chain.clone(), batch.counts, batch.bytes);
                    let batch = self.leg_batch(batch.signal, all, levels.len() > 1);
                    self.owe(root, true);
                    let passage = Passage { root, at: levels[0], except: None, batch };
                    self.set_out(pipeline, output, passage, now);
                }
                Output::Mirror { destination, .. } => {
                    if self.flow.turns[pipeline][output].next_turn() == 0 {
                        self.mirror(root, pipeline, *destination, &batch, now);
                    }
                }
            }
        }
        self.end_leg(root, true, now);
    }

    /// Lets waiting batches move, and says how each pipeline stands.
    pub(super) fn hand_off(&mut self, now: Nanos) {
        for outbox in &mut self.outboxes {
            outbox.feed();
        }
        for place in 0..self.flow.sidings.len() {
            self.work_off(place, now);
        }
        self.refresh_standings(now);
        self.tell_losses(now);
    }

    /// What a destination gave back goes on to another.
    pub(super) fn pass_on(&mut self, leg: &Leg, destination: u16, back: GivenBack, now: Nanos) {
        let pending = &self.pending[&leg.root];
        let (pipeline, signal) = (pending.pipeline, pending.signal);
        let GivenBack { chain, bytes, counts, why } = back;
        match (why, &leg.role) {
            (Why::Failover, Role::Level { output, level }) => {
                self.flow.words[usize::from(destination)].gave_back(now);
                let batch = self.leg_batch(signal, (chain, counts, bytes), true);
                self.owe(leg.root, true);
                let except = Some(*level);
                let passage = Passage { root: leg.root, at: destination, except, batch };
                if now < leg.moved_at + MOVE_PAUSE {
                    let siding = self.flow.siding(pipeline, *output);
                    siding.resting.push_back((now + MOVE_PAUSE, passage));
                } else {
                    self.set_out(pipeline, *output, passage, now);
                }
            }
            (Why::Failover, role) => {
                // Nobody else may have it: it goes back to where it was.
                let role = role.clone();
                let batch = self.leg_batch(signal, (chain, counts, bytes), false);
                self.owe(leg.root, leg.is_awaited());
                self.push_leg(leg.root, destination, role, batch, now);
            }
            (why @ Why::Refused { .. }, _) => {
                let back = GivenBack { chain, bytes, counts, why };
                self.keep_letter(leg, destination, back, now);
            }
        }
    }

    /// Gives up what is nowhere, when the time for draining is over.
    pub(super) fn abandon_passages(&mut self, now: Nanos) {
        for place in 0..self.flow.sidings.len() {
            let siding = &mut self.flow.sidings[place];
            let pipeline = siding.pipeline;
            let resting = siding.resting.drain(..).map(|(_, passage)| passage);
            let passages: Vec<Passage> = siding.waiting.drain(..).chain(resting).collect();
            for Passage { root, at, batch, .. } in passages {
                let items = batch.counts.items;
                self.row(pipeline, at).lose(items, DropReason::Shutdown.index());
                self.tell_verdict(root, at, &never_sent(), items);
                self.end_leg(root, true, now);
            }
        }
    }

    /// A leg has ended; with the last that an answer waits for, whoever waits is told.
    pub(super) fn end_leg(&mut self, root: u64, is_awaited: bool, now: Nanos) {
        let pending = self.pending.get_mut(&root).expect("a batch is there until its last leg");
        pending.outstanding -= 1;
        pending.awaited -= usize::from(is_awaited);
        let mut told = None;
        if pending.awaited == 0 && !pending.tickets.is_empty() {
            told = Some((std::mem::take(&mut pending.tickets), pending.verdict.clone()));
        }
        if pending.outstanding == 0
            && let Some(pending) = self.pending.remove(&root)
        {
            let given_back = pending.held.into_bytes();
            self.settled_bytes += given_back as u64;
            self.ingest.budget.give_back(given_back);
        }
        let (tickets, verdict) = told.unwrap_or_default();
        for ticket in tickets {
            if let Some(ticket) = self.tickets.end_part(ticket, &verdict) {
                self.answer_ticket(ticket, now);
            }
        }
    }

    /// Adds what a destination said of items that an answer waits for.
    pub(super) fn tell_verdict(&mut self, root: u64, at: u16, outcome: &Outcome, items: u64) {
        let pending = self.pending.get_mut(&root).expect("a batch is there until its last leg");
        let is_all_well = matches!(outcome, Outcome::Delivered { rejected_items: 0 });
        if !pending.tickets.is_empty() && items > 0 && !is_all_well {
            let name = &self.plan.destinations[usize::from(at)].name;
            let outputs = &self.plan.pipelines[pending.pipeline].outputs;
            let output = outputs.iter().position(|output| output.destinations().contains(&at));
            pending.verdict.add(output, name, outcome, items, pending.requests == 1);
        }
    }

    pub(super) fn row(&self, pipeline: usize, destination: u16) -> &RouteRow {
        let place = self.plan.pipelines[pipeline].place(destination);
        self.ledger.shards[usize::from(self.index)].route(pipeline, place)
    }

    /// What of a letter's end its refuser's client must hear.
    pub(super) fn tell_letter(&mut self, leg: &Leg, outcome: &Outcome, items: u64) {
        let Role::Letter { refusal, is_awaited: true } = &leg.role else {
            return;
        };
        if !matches!(outcome, Outcome::Delivered { rejected_items: 0 }) {
            let Refusal { destination, reason, code, message } = &**refusal;
            let (reason, code, message) = (*reason, *code, message.clone());
            let refused = Outcome::Dropped { reason, code, message };
            self.tell_verdict(leg.root, *destination, &refused, items);
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// The batch has one more leg.
    fn owe(&mut self, root: u64, is_awaited: bool) {
        let pending = self.pending.get_mut(&root).expect("a batch is there until its last leg");
        pending.outstanding += 1;
        pending.awaited += usize::from(is_awaited);
    }

    fn push_whole(&mut self, root: u64, destination: u16, batch: &Arc<Batch>) {
        self.owe(root, true);
        let held_bytes = self.held_bytes(root, batch);
        self.outboxes[usize::from(destination)].push(batch.clone(), held_bytes);
    }

    /// What of the budget is held for this much of a batch.
    fn held_bytes(&self, root: u64, part: &Batch) -> u64 {
        let Pending { held_bytes, bytes, .. } = self.pending[&root];
        let held_bytes = u128::from(held_bytes) * u128::from(part.bytes);
        held_bytes.div_ceil(u128::from(bytes.max(1))) as u64
    }

    /// A batch of a name of its own.
    fn leg_batch(
        &mut self,
        signal: Signal,
        (chain, counts, bytes): (Vec<Bytes>, Counts, u64),
        may_fail_over: bool,
    ) -> Arc<Batch> {
        let id = BatchId { receiver: self.index, seq: self.next_seq() };
        Arc::new(Batch { id, signal, counts, bytes, chain, may_fail_over })
    }

    fn enter_leg(&mut self, root: u64, role: Role, batch: &Batch, moved_at: Nanos) {
        let (items, held_bytes) = (batch.counts.items, self.held_bytes(root, batch));
        self.flow.legs.insert(batch.id.seq, Leg { root, items, held_bytes, role, moved_at });
    }

    fn push_leg(&mut self, root: u64, to: u16, role: Role, batch: Arc<Batch>, now: Nanos) {
        self.enter_leg(root, role, &batch, now);
        let held_bytes = self.held_bytes(root, &batch);
        self.outboxes[usize::from(to)].push(batch, held_bytes);
    }

    /// Items in flight of one row are another's from here on.
    fn pass_row(&self, pipeline: usize, from: u16, to: u16, items: u64, why: PassReason) {
        if from != to {
            self.row(pipeline, from).pass_on(self.row(pipeline, to), items, why);
        }
    }

    fn shift_by_trace(
        &mut self,
        root: u64,
        pipeline: usize,
        output: usize,
        shares: &[(u16, u32)],
        batch: &Batch,
    ) {
        let turns = &self.flow.turns[pipeline][output];
        let request = Request { parts: &batch.chain, counts: batch.counts, tenant: b"" };
        let owner = |key: &[u8]| turns.owner(stable_hash(key)) as u64;
        let parts = split_by(batch.signal, &[request], Key::TraceId, shares.len(), owner);
        for part in parts {
            let ((destination, _), chain) = (shares[part.index], part.chain);
            let items = chain.counts.items;
            self.pass_row(pipeline, shares[0].0, destination, items, PassReason::Shift);
            let all = (chain.parts, chain.counts, chain.bytes);
            let batch = self.leg_batch(batch.signal, all, false);
            self.owe(root, true);
            self.push_leg(root, destination, Role::Share, batch, 0);
        }
    }

    fn mirror(&mut self, root: u64, pipeline: usize, to: u16, batch: &Batch, now: Nanos) {
        let items = batch.counts.items;
        self.row(pipeline, to).accepted_items.add(items);
        let all = (batch.chain.clone(), batch.counts, batch.bytes);
        let copy = self.leg_batch(batch.signal, all, false);
        let held_bytes = self.held_bytes(root, &copy);
        match self.outboxes[usize::from(to)].push_if_room(copy.clone(), held_bytes) {
            Ok(()) => {
                self.row(pipeline, to).in_flight_items.add(items);
                self.owe(root, false);
                self.enter_leg(root, Role::Mirror, &copy, now);
            }
            Err(_) => {
                self.row(pipeline, to).dropped_items[MIRROR_FULL].add(items);
                self.flow.mirror_full_untold += items;
            }
        }
    }

    fn keep_letter(&mut self, leg: &Leg, refuser: u16, back: GivenBack, now: Nanos) {
        let pending = &self.pending[&leg.root];
        let (pipeline, signal, items) = (pending.pipeline, pending.signal, back.counts.items);
        let Why::Refused { reason, code, message } = back.why.clone() else {
            unreachable!("what nobody takes at this time is no dead letter");
        };
        let Some(keeper) = self.plan.dead_letters[usize::from(refuser)] else {
            self.row(pipeline, refuser).lose(items, reason.index());
            let outcome = Outcome::Dropped { reason, code, message };
            if leg.is_awaited() {
                self.tell_verdict(leg.root, refuser, &outcome, items);
            }
            return;
        };
        let refusal = Refusal { destination: refuser, reason, code, message };
        let (chain, bytes) = self.letter(leg.root, signal, &back, &refusal);
        let batch = self.leg_batch(signal, (chain, back.counts, bytes), false);
        let is_awaited = leg.is_awaited();
        let held_bytes = self.held_bytes(leg.root, &batch);
        let outbox = &mut self.outboxes[usize::from(keeper)];
        if is_awaited {
            outbox.push(batch.clone(), held_bytes);
        } else if outbox.push_if_room(batch.clone(), held_bytes).is_err() {
            // A mirror's: it must not shut the door of those that use the same keeper.
            return self.row(pipeline, refuser).lose(items, reason.index());
        }
        self.pass_row(pipeline, refuser, keeper, items, PassReason::DeadLetter);
        if is_awaited {
            let name = |index: u16| self.plan.destinations[usize::from(index)].name.as_str();
            let pending = self.pending.get_mut(&leg.root).expect("the leg has not ended");
            pending.verdict.add_kept(name(refuser), items, &refusal.message, name(keeper));
        }
        self.owe(leg.root, is_awaited);
        let role = Role::Letter { refusal: Box::new(refusal), is_awaited };
        self.enter_leg(leg.root, role, &batch, now);
    }

    /// What was refused, with its marks if the budget has room for them.
    fn letter(
        &mut self,
        root: u64,
        signal: Signal,
        back: &GivenBack,
        refusal: &Refusal,
    ) -> (Vec<Bytes>, u64) {
        let refuser = &self.plan.destinations[usize::from(refusal.destination)].name;
        let (chain, bytes) = letters::marked(signal, back, refuser, refusal);
        let growth = bytes.saturating_sub(back.bytes) as usize;
        if !self.ingest.budget.take(growth) {
            return (back.chain.clone(), back.bytes);
        }
        let pending = self.pending.get_mut(&root).expect("the leg has not ended");
        pending.held.grow(growth);
        (chain, bytes)
    }

    /// To the first level that takes it, or to where it waits for one.
    fn set_out(&mut self, pipeline: usize, output: usize, passage: Passage, now: Nanos) {
        let siding = self.flow.siding(pipeline, output);
        if passage.except.is_none() && siding.is_waiting() {
            siding.waiting.push_back(passage);
            return;
        }
        if let Err(passage) = self.place(pipeline, output, passage, now) {
            let siding = self.flow.siding(pipeline, output);
            match passage.except {
                Some(_) => siding.resting.push_back((now + MOVE_PAUSE, passage)),
                None => siding.waiting.push_back(passage),
            }
        }
    }

    fn work_off(&mut self, place: usize, now: Nanos) {
        let siding = &mut self.flow.sidings[place];
        let (pipeline, output) = (siding.pipeline, siding.output);
        while siding.resting.front().is_some_and(|(due, _)| *due <= now) {
            siding.waiting.extend(siding.resting.pop_front().map(|(_, passage)| passage));
        }
        while let Some(passage) = self.flow.sidings[place].waiting.pop_front() {
            if let Err(passage) = self.place_anywhere(pipeline, output, passage, now) {
                self.flow.sidings[place].waiting.push_front(passage);
                break;
            }
        }
    }

    /// Where it comes from only if no other level takes it.
    fn place_anywhere(
        &mut self,
        pipeline: usize,
        output: usize,
        passage: Passage,
        now: Nanos,
    ) -> Result<(), Passage> {
        match self.place(pipeline, output, passage, now) {
            Err(passage) if passage.except.is_some() => {
                self.place(pipeline, output, Passage { except: None, ..passage }, now)
            }
            placed => placed,
        }
    }

    fn place(
        &mut self,
        pipeline: usize,
        output: usize,
        passage: Passage,
        now: Nanos,
    ) -> Result<(), Passage> {
        let ways = self.flow.ways.clone();
        let Output::Failover(levels) = &ways[pipeline][output] else {
            unreachable!("only what may fail over looks for its place");
        };
        for (level, destination) in levels.iter().enumerate() {
            if passage.except == Some(level) || self.is_passed_over(*destination, now).is_some() {
                continue;
            }
            let held_bytes = self.held_bytes(passage.root, &passage.batch);
            let outbox = &mut self.outboxes[usize::from(*destination)];
            if outbox.push_if_room(passage.batch.clone(), held_bytes).is_ok() {
                let Passage { root, at, batch, .. } = &passage;
                let items = batch.counts.items;
                self.pass_row(pipeline, *at, *destination, items, PassReason::Failover);
                self.enter_leg(*root, Role::Level { output, level }, batch, now);
                return Ok(());
            }
        }
        Err(passage)
    }
}

/// How what is nowhere ends.
pub(super) fn never_sent() -> Outcome {
    Outcome::Dropped {
        reason: DropReason::Shutdown,
        code: None,
        message: "the process stopped before it was sent".to_owned(),
    }
}
