//! Fake destinations: they take batches from their lanes when it pleases them, and settle each
//! some day, in any order and with any outcome, or give parts of it back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::config::plan::Plan;
use forebay::handoff::ReturnPaths;
use forebay_codec::check::check;
use forebay_codec::split::split;
use forebay_exporters::batch::{Batch, DropReason, GivenBack, Outcome, Returns, Settled, Why};
use forebay_exporters::breaker;
use forebay_exporters::cluster::Cluster;
use forebay_exporters::discovery::Endpoint;
use forebay_exporters::lane::Lane;
use forebay_net::request::Nanos;
use forebay_net::ring::fake::Dice;

use crate::book::Book;
use crate::payload::{ItemId, items_in};

pub(crate) struct Destinations {
    /// By destination, then by exporter core.
    lanes: Vec<Vec<Arc<Lane>>>,
    returns: ReturnPaths,
    held: Vec<Held>,
    tallies: Vec<Tally>,
    fleets: Vec<Fleet>,
    epoch: Instant,
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

/// Who stands behind a destination: one endpoint, which may be shut off.
struct Fleet {
    cluster: Arc<Cluster>,
    keeps_refused: bool,
    is_there: bool,
    /// When it comes or goes.
    changes_at: Nanos,
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
    /// Given back: for another to take, and for good.
    pub(crate) failed_over: u64,
    pub(crate) refused: u64,
}

impl Destinations {
    pub(crate) fn new(
        plan: &Plan,
        lanes: Vec<Vec<Arc<Lane>>>,
        clusters: Vec<Arc<Cluster>>,
        epoch: Instant,
        returns: ReturnPaths,
        mut dice: Dice,
    ) -> Destinations {
        let is_calm = dice.of_1000(300);
        let fleet = |(cluster, destination): (Arc<Cluster>, &_)| {
            let changes_at = if is_calm { Nanos::MAX } else { dice.below(30_000_000) };
            let forebay_exporters::destination::Destination { keeps_refused, .. } = destination;
            cluster.apply(epoch, &[Endpoint::local("somebody")]);
            Fleet { cluster, keeps_refused: *keeps_refused, is_there: true, changes_at }
        };
        let fleets = clusters.into_iter().zip(&plan.destinations).map(fleet).collect();
        let patience = if dice.of_1000(500) { 200_000 } else { 50_000_000 };
        Destinations {
            tallies: vec![Tally::default(); lanes.len()],
            lanes,
            fleets,
            epoch,
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
        let fleets = self.fleets.iter().map(|fleet| fleet.changes_at);
        self.held.iter().map(|held| held.due).chain(fleets).min()
    }

    /// From here on nothing is taken; what is here already is settled in the next turn.
    pub(crate) fn abandon(&self) {
        self.lanes.iter().flatten().for_each(|lane| lane.end());
    }

    /// Takes some of what is there, and settles what is due.
    pub(crate) fn turn(&mut self, now: Nanos, is_draining: bool, book: &mut Book) {
        self.come_and_go(now);
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
        let bytes = batch.chain.concat();
        let items = items_in(&bytes);
        assert_eq!(items.len() as u64, batch.counts.items);
        assert_eq!(batch.chain.iter().map(|part| part.len() as u64).sum::<u64>(), batch.bytes);
        book.see(destination, batch.id.seq, &bytes, items);
        let due = match self.dice.of_1000(self.stuck) {
            true => Nanos::MAX,
            false => now + self.dice.below(self.patience),
        };
        self.held.push(Held { due, destination, lane: lane.clone(), batch });
    }

    /// Whoever is there is shut off, or somebody else comes.
    fn come_and_go(&mut self, now: Nanos) {
        let instant = self.epoch + Duration::from_nanos(now);
        for fleet in self.fleets.iter_mut().filter(|fleet| fleet.changes_at <= now) {
            fleet.is_there = !fleet.is_there;
            match fleet.is_there {
                // Somebody new, of whom nothing bad is known.
                true => {
                    let name = format!("somebody {}", self.dice.number());
                    fleet.cluster.apply(instant, &[Endpoint::local(&name)]);
                }
                false => {
                    let snapshot = fleet.cluster.endpoints().snapshot();
                    let call = snapshot.endpoints()[0].admit(instant).expect("it is closed");
                    let mut rng = fastrand::Rng::with_seed(self.dice.number());
                    call.end(instant, breaker::Outcome::Failure, &mut rng);
                }
            }
            assert_eq!(fleet.cluster.refuses(instant).is_none(), fleet.is_there);
            let stay = if fleet.is_there { 60_000_000 } else { 20_000_000 };
            fleet.changes_at = now + 1 + self.dice.below(stay);
        }
    }

    fn settle(&mut self, held: &Held, book: &mut Book) {
        let Held { destination, batch, lane, .. } = held;
        let (mut rest, given_back) = match book.is_abandoned {
            true => (vec![batch.chain.concat()], Vec::new()),
            false => self.draw_given_back(batch, *destination, book),
        };
        let items: Vec<ItemId> = rest.iter_mut().flat_map(|bytes| items_in(bytes)).collect();
        let count = items.len() as u64;
        let outcome = match book.is_abandoned {
            true => dropped(DropReason::Shutdown, batch, *destination, &mut self.dice),
            false if count == 0 => Outcome::Delivered { rejected_items: 0 },
            false => self.draw_outcome(batch, *destination, count),
        };
        self.tallies[usize::from(*destination)].add(&outcome, count);
        book.settle(*destination, batch.id.seq, &items, &outcome);
        let (batch_id, destination) = (batch.id, *destination);
        let settled = Settled { batch: batch_id, destination, outcome, given_back };
        self.returns.settle(settled).expect("there is room for more ends than there are batches");
        lane.let_go(batch);
    }

    /// What of a batch ends here, and what goes back.
    fn draw_given_back(
        &mut self,
        batch: &Batch,
        destination: u16,
        book: &mut Book,
    ) -> (Vec<Vec<u8>>, Vec<GivenBack>) {
        let fleet = &self.fleets[usize::from(destination)];
        let dice = &mut self.dice;
        let may_move = batch.may_fail_over && (!fleet.is_there || dice.of_1000(30));
        let may_refuse = fleet.keeps_refused && dice.of_1000(self.troubled);
        if !may_move && !may_refuse {
            return (vec![batch.chain.concat()], Vec::new());
        }
        let checked = check(batch.signal, Bytes::from(batch.chain.concat())).expect("it checks");
        let items_max = 1 + dice.below(batch.counts.items);
        let (mut rest, mut given_back) = (Vec::new(), Vec::new());
        for piece in split(checked, items_max, 0) {
            let bytes = piece.parts.concat();
            let is_refused = may_refuse && (!may_move || dice.of_1000(500));
            if dice.of_1000(300) {
                rest.push(bytes);
                continue;
            }
            let why = match is_refused {
                true => {
                    let message = message(batch, destination);
                    Why::Refused { reason: DropReason::Refused, code: Some(3), message }
                }
                false => Why::Failover,
            };
            let tally = &mut self.tallies[usize::from(destination)];
            let count = if is_refused { &mut tally.refused } else { &mut tally.failed_over };
            *count += piece.counts.items;
            book.give_back(destination, batch.id.seq, &items_in(&bytes), is_refused);
            let (bytes, counts, chain) = (piece.bytes, piece.counts, piece.parts);
            given_back.push(GivenBack { chain, bytes, counts, why });
        }
        (rest, given_back)
    }

    fn draw_outcome(&mut self, batch: &Batch, destination: u16, items: u64) -> Outcome {
        let dice = &mut self.dice;
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
