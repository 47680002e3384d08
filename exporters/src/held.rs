//! A batch on its way to one destination: what is still to be sent, and what became of the rest.
//!
//! A batch is one part, or several: cut by the endpoint that its items belong to, by the
//! destination's size limit, or in halves (see [`crate::parts`]). Parts go their ways alone: each
//! waits, is retried and ends for itself, and the batch settles once, when its last part has ended.
//! Always: each item is in a part still to be sent, in the tally, or given back.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::signal::Counts;
use forebay_codec::splice::Chain;

use crate::batch::{Batch, BatchId, DropReason, GivenBack, Outcome, Why};
use crate::charge::{Charge, Packed};
use crate::dispatch::Delivery;
use crate::lane::Lane;

/// What the parts of one batch share.
pub(crate) struct Held {
    batch: Arc<Batch>,
    tally: RefCell<Tally>,
}

/// A valid request of its own. It must end by [`Part::delivered`], [`Part::dropped`] or
/// [`Part::give_back`]; whichever part of a batch ends last says how the batch ended.
pub(crate) struct Part {
    held: Rc<Held>,
    /// `None`: all of the batch.
    piece: Option<Vec<Bytes>>,
    pub(crate) bytes: u64,
    pub(crate) counts: Counts,
    pub(crate) delivery: Delivery,
    /// It came of a part that was too large for the destination.
    pub(crate) is_half: bool,
    /// Of the set of endpoints that it was cut for; `None`: it was not cut by key.
    pub(crate) generation: Option<u64>,
    /// What its attempts have packed it into.
    pub(crate) packed: Packed,
    packed_charge: Option<Charge>,
    copies_charge: Option<Charge>,
}

/// A batch whose last part has ended.
pub(crate) struct Ended {
    pub(crate) id: BatchId,
    pub(crate) bytes: u64,
    pub(crate) outcome: Outcome,
    pub(crate) given_back: Vec<GivenBack>,
    /// All of it was delivered, but for what a partial success left out.
    pub(crate) is_delivered: bool,
}

#[derive(Default)]
struct Tally {
    parts_delivered: u64,
    /// Items that left without being delivered, by [`DropReason::index`].
    lost_items: [u64; DropReason::ALL.len()],
    last_drop: Option<(DropReason, Option<u32>, String)>,
    given_back: Vec<GivenBack>,
}

impl Part {
    /// All of a batch that was just taken.
    pub(crate) fn whole(batch: Arc<Batch>) -> Part {
        Part {
            piece: None,
            bytes: batch.bytes,
            counts: batch.counts,
            delivery: Delivery::default(),
            is_half: false,
            generation: None,
            packed: Packed::default(),
            packed_charge: None,
            copies_charge: None,
            held: Rc::new(Held { batch, tally: RefCell::default() }),
        }
    }

    /// A piece of this part, which stands where this one stands. All pieces together take the
    /// place of the part.
    pub(crate) fn piece(&self, chain: Chain) -> Part {
        Part {
            held: Rc::clone(&self.held),
            piece: Some(chain.parts),
            bytes: chain.bytes,
            counts: chain.counts,
            delivery: self.delivery.clone(),
            is_half: self.is_half,
            generation: self.generation,
            packed: Packed::default(),
            packed_charge: None,
            copies_charge: None,
        }
    }

    /// Lets `lane` count what of the part, which was cut just now, is not the batch's own memory.
    pub(crate) fn charge_copies(&mut self, lane: &Arc<Lane>) {
        let bytes = self.copied_bytes();
        self.copies_charge = (bytes > 0).then(|| Charge::of(lane, bytes));
    }

    /// Keeps for the next attempt what the last one has packed, if `lane` has room to spare.
    pub(crate) fn keep_packed(&mut self, lane: &Arc<Lane>) {
        let bytes = self.packed.bytes();
        if bytes == 0 || self.packed_charge.is_some() {
            return;
        }
        self.packed_charge = Charge::of_spare(lane, bytes);
        if self.packed_charge.is_none() {
            self.packed.forget();
        }
    }

    fn copied_bytes(&self) -> u64 {
        let Some(piece) = &self.piece else {
            return 0;
        };
        let start = |bytes: &Bytes| bytes.as_ptr().addr();
        let mut own: Vec<(usize, usize)> =
            self.held.batch.chain.iter().map(|own| (start(own), own.len())).collect();
        own.sort_unstable();
        let is_copy = |bytes: &&Bytes| {
            let below = own.partition_point(|(begin, _)| *begin <= start(bytes));
            below == 0 || own[below - 1].0 + own[below - 1].1 <= start(bytes)
        };
        piece.iter().filter(is_copy).map(|bytes| bytes.len() as u64).sum()
    }

    pub(crate) fn batch(&self) -> &Batch {
        &self.held.batch
    }

    pub(crate) fn chain(&self) -> &[Bytes] {
        self.piece.as_ref().unwrap_or(&self.held.batch.chain)
    }

    /// Delivered, `rejected_items` of it excepted.
    pub(crate) fn delivered(self, rejected_items: u64) -> Option<Ended> {
        let mut tally = self.held.tally.borrow_mut();
        tally.parts_delivered += 1;
        tally.lost_items[DropReason::PartialSuccess.index()] += rejected_items;
        drop(tally);
        self.ended()
    }

    /// Given up.
    pub(crate) fn dropped(
        self,
        reason: DropReason,
        code: Option<u32>,
        message: String,
    ) -> Option<Ended> {
        let mut tally = self.held.tally.borrow_mut();
        tally.lost_items[reason.index()] += self.counts.items;
        tally.last_drop = Some((reason, code, message));
        drop(tally);
        self.ended()
    }

    /// Neither delivered nor dropped: back to whoever offered the batch.
    pub(crate) fn give_back(mut self, why: Why) -> Option<Ended> {
        let chain = self.piece.take().unwrap_or_else(|| self.held.batch.chain.clone());
        self.held.tally.borrow_mut().give_back(chain, self.bytes, self.counts, why);
        self.ended()
    }

    /// The last of a batch's parts takes the tally with it.
    fn ended(self) -> Option<Ended> {
        let Held { batch, tally } = Rc::into_inner(self.held)?;
        Some(tally.into_inner().ended(&batch))
    }
}

impl Tally {
    fn give_back(&mut self, chain: Vec<Bytes>, bytes: u64, counts: Counts, why: Why) {
        let alike = self.given_back.iter_mut().find(|given_back| given_back.why == why);
        match alike {
            Some(alike) => {
                alike.chain.extend(chain);
                alike.bytes += bytes;
                alike.counts.items += counts.items;
                alike.counts.profiles += counts.profiles;
            }
            None => self.given_back.push(GivenBack { chain, bytes, counts, why }),
        }
    }

    fn ended(self, batch: &Batch) -> Ended {
        let is_delivered = self.last_drop.is_none() && self.given_back.is_empty();
        let lost_items = self.lost_items;
        // One reason stands for all of a batch only if all of it was lost for that.
        let is_lost_for = |reason: DropReason| {
            let others = (0..lost_items.len()).filter(|index| *index != reason.index());
            self.parts_delivered == 0 && others.map(|index| lost_items[index]).sum::<u64>() == 0
        };
        let outcome = match self.last_drop {
            Some((reason, code, message)) if is_lost_for(reason) => {
                Outcome::Dropped { reason, code, message }
            }
            Some((_, code, message)) => {
                Outcome::Parted { dropped_items: lost_items, code, message }
            }
            None => Outcome::Delivered {
                rejected_items: lost_items[DropReason::PartialSuccess.index()],
            },
        };
        let given_back = self.given_back;
        Ended { id: batch.id, bytes: batch.bytes, outcome, given_back, is_delivered }
    }
}
