//! Fake destinations: they take batches from their lanes when it pleases them, and settle each
//! some day, in any order and with any outcome.

use std::sync::Arc;

use forebay::handoff::ReturnPaths;
use forebay_exporters::batch::{Batch, DropReason, Outcome, Returns, Settled};
use forebay_exporters::lane::Lane;
use forebay_net::request::Nanos;
use forebay_net::ring::fake::Dice;

use crate::book::Book;
use crate::payload::items_in;

pub(crate) struct Destinations {
    /// By destination, then by exporter core.
    lanes: Vec<Vec<Arc<Lane>>>,
    returns: ReturnPaths,
    held: Vec<Held>,
    tallies: Vec<Tally>,
    dice: Dice,
    /// How long a batch is held, at most.
    patience: Nanos,
    /// Of 1,000 batches, those that are held until the end.
    stuck: u32,
    /// Of 1,000 batches, those that are not simply delivered.
    troubled: u32,
    /// They give nothing back when the process drains, until it stops to wait for them.
    are_stubborn: bool,
}

struct Held {
    due: Nanos,
    destination: u16,
    lane: Arc<Lane>,
    batch: Arc<Batch>,
}

/// Items by their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) dropped: [u64; DropReason::ALL.len()],
}

impl Destinations {
    pub(crate) fn new(
        lanes: Vec<Vec<Arc<Lane>>>,
        returns: ReturnPaths,
        mut dice: Dice,
    ) -> Destinations {
        let patience = if dice.of_1000(500) { 200_000 } else { 50_000_000 };
        Destinations {
            tallies: vec![Tally::default(); lanes.len()],
            lanes,
            returns,
            held: Vec::new(),
            patience: 1 + dice.below(patience),
            stuck: if dice.of_1000(300) { dice.below(300) as u32 } else { 0 },
            troubled: if dice.of_1000(600) { dice.below(400) as u32 } else { 0 },
            are_stubborn: dice.of_1000(150),
            dice,
        }
    }

    pub(crate) fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.held.iter().map(|held| held.due).min()
    }

    /// From here on nothing is taken; what is here already is settled in the next turn.
    pub(crate) fn abandon(&self) {
        self.lanes.iter().flatten().for_each(|lane| lane.end());
    }

    /// Takes some of what is there, and settles what is due.
    pub(crate) fn turn(&mut self, now: Nanos, is_draining: bool, book: &mut Book) {
        for destination in 0..self.lanes.len() {
            for lane in self.lanes[destination].clone() {
                while book.is_abandoned || self.dice.of_1000(400) {
                    let Some(batch) = lane.pop() else { break };
                    self.take(destination as u16, &lane, batch, now, book);
                }
            }
        }
        if is_draining && !self.are_stubborn {
            for held in &mut self.held {
                held.due = held.due.min(now + self.dice.below(self.patience));
            }
        }
        // In any order.
        let mut place = 0;
        while place < self.held.len() {
            match self.held[place].due <= now || book.is_abandoned {
                true => {
                    let held = self.held.swap_remove(place);
                    self.settle(&held, book);
                }
                false => place += 1,
            }
        }
    }

    fn take(
        &mut self,
        destination: u16,
        lane: &Arc<Lane>,
        batch: Arc<Batch>,
        now: Nanos,
        book: &mut Book,
    ) {
        let items = items_in(&batch.chain.concat());
        assert_eq!(items.len() as u64, batch.counts.items);
        assert_eq!(batch.chain.iter().map(|part| part.len() as u64).sum::<u64>(), batch.bytes);
        book.see(destination, batch.id.seq, items);
        let due = match self.dice.of_1000(self.stuck) {
            true => Nanos::MAX,
            false => now + self.dice.below(self.patience),
        };
        self.held.push(Held { due, destination, lane: lane.clone(), batch });
    }

    fn settle(&mut self, held: &Held, book: &mut Book) {
        let Held { destination, batch, lane, .. } = held;
        let outcome = match book.is_abandoned {
            true => dropped(DropReason::Shutdown, batch, *destination, &mut self.dice),
            false => self.draw_outcome(batch, *destination),
        };
        self.tallies[usize::from(*destination)].add(&outcome, batch.counts.items);
        book.settle(*destination, batch.id.seq, &outcome);
        let (batch_id, destination) = (batch.id, *destination);
        let settled = Settled { batch: batch_id, destination, outcome, given_back: Vec::new() };
        self.returns.settle(settled).expect("there is room for more ends than there are batches");
        lane.let_go(batch);
    }

    fn draw_outcome(&mut self, batch: &Batch, destination: u16) -> Outcome {
        let dice = &mut self.dice;
        let items = batch.counts.items;
        if !dice.of_1000(self.troubled) {
            return Outcome::Delivered { rejected_items: 0 };
        }
        match dice.below(3) {
            0 => Outcome::Delivered { rejected_items: 1 + dice.below(items) },
            1 => {
                let mut dropped_items = [0; DropReason::ALL.len()];
                dropped_items[DropReason::TooLarge.index()] = 1 + dice.below(items);
                let message = message(batch, destination);
                Outcome::Parted { dropped_items, code: Some(3), message }
            }
            _ => {
                let reasons =
                    [DropReason::Refused, DropReason::RetriesExhausted, DropReason::TooLarge];
                let reason = reasons[dice.below(3) as usize];
                dropped(reason, batch, destination, dice)
            }
        }
    }
}

impl Tally {
    fn add(&mut self, outcome: &Outcome, items: u64) {
        match outcome {
            Outcome::Delivered { rejected_items } => {
                self.delivered += items - rejected_items;
                self.dropped[DropReason::PartialSuccess.index()] += rejected_items;
            }
            Outcome::Dropped { reason, .. } => self.dropped[reason.index()] += items,
            Outcome::Parted { dropped_items, .. } => {
                self.delivered += items - dropped_items.iter().sum::<u64>();
                for (sum, dropped) in self.dropped.iter_mut().zip(dropped_items) {
                    *sum += dropped;
                }
            }
        }
    }
}

fn dropped(reason: DropReason, batch: &Batch, destination: u16, dice: &mut Dice) -> Outcome {
    let code = [None, Some(3), Some(8), Some(13)][dice.below(4) as usize];
    Outcome::Dropped { reason, code, message: message(batch, destination) }
}

/// So that whoever is told of it knows of what.
fn message(batch: &Batch, destination: u16) -> String {
    format!("batch-{}-{destination}", batch.id.seq)
}
