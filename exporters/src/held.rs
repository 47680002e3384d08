//! A batch on its way to one destination: what is still to be sent, and what became of the rest.
//!
//! Usually one part, the batch itself. A batch over the destination's limit is cut at item
//! borders, and a part that the destination finds too large is halved once; the batch settles once,
//! when its last part has ended. Always: each item is in a part still to be sent or in the tally.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::check::check;
use forebay_codec::signal::{Counts, Signal};
use forebay_codec::split::split;

use crate::batch::{Batch, DropReason, Outcome};
use crate::dispatch::Delivery;
use crate::encode::join;

/// A batch that a lane holds and has not settled.
pub(crate) struct Held {
    pub(crate) batch: Arc<Batch>,
    /// In order; the front is sent next. Never empty while the batch is unsettled.
    parts: VecDeque<Part>,
    /// Where the part in front stands.
    pub(crate) delivery: Delivery,
    tally: Tally,
}

/// A valid request of its own.
pub(crate) struct Part {
    pub(crate) chain: Vec<Bytes>,
    pub(crate) bytes: u64,
    pub(crate) counts: Counts,
    /// It came of a part that was too large for the destination.
    halved: bool,
}

#[derive(Default)]
struct Tally {
    parts_delivered: u64,
    /// Items that left without being delivered, by [`DropReason::index`].
    lost_items: [u64; DropReason::ALL.len()],
    last_drop: Option<(DropReason, Option<u32>, String)>,
}

impl Held {
    /// Cuts what is larger than `bytes_max`. A single item that is larger stays whole: the sender
    /// sees its size.
    pub(crate) fn new(batch: Arc<Batch>, bytes_max: Option<u64>) -> Held {
        let whole = Part {
            chain: batch.chain.clone(),
            bytes: batch.bytes,
            counts: batch.counts,
            halved: false,
        };
        let parts = match bytes_max {
            Some(bytes_max) if batch.bytes > bytes_max => {
                cut(batch.signal, whole, 0, bytes_max, false)
            }
            _ => VecDeque::from([whole]),
        };
        Held { batch, parts, delivery: Delivery::default(), tally: Tally::default() }
    }

    /// What is sent next; `None` when everything has ended.
    pub(crate) fn part(&self) -> Option<&Part> {
        self.parts.front()
    }

    /// The part in front was delivered, `rejected_items` of it excepted.
    pub(crate) fn delivered(&mut self, rejected_items: u64) {
        self.tally.parts_delivered += 1;
        self.tally.lost_items[DropReason::PartialSuccess.index()] += rejected_items;
        self.next_part();
    }

    /// The part in front is given up; says how many items that costs.
    pub(crate) fn dropped(
        &mut self,
        reason: DropReason,
        code: Option<u32>,
        message: String,
    ) -> u64 {
        let items = self.part().map_or(0, |part| part.counts.items);
        self.tally.lost_items[reason.index()] += items;
        self.tally.last_drop = Some((reason, code, message));
        self.next_part();
        items
    }

    /// Replaces the part in front by its halves. False: it is one already, or cannot be cut.
    pub(crate) fn halve(&mut self) -> bool {
        let Some(part) = self.parts.pop_front() else {
            return false;
        };
        if part.halved || part.counts.items < 2 {
            self.parts.push_front(part);
            return false;
        }
        let items_max = part.counts.items.div_ceil(2);
        let halves = cut(self.batch.signal, part, items_max, 0, true);
        let was_cut = halves.len() > 1;
        for half in halves.into_iter().rev() {
            self.parts.push_front(half);
        }
        if was_cut {
            self.delivery = Delivery::default();
        }
        was_cut
    }

    /// Items in parts that have not ended.
    pub(crate) fn items_left(&self) -> u64 {
        self.parts.iter().map(|part| part.counts.items).sum()
    }

    /// How the batch ended, all parts taken together.
    pub(crate) fn outcome(self) -> Outcome {
        match self.tally {
            Tally { parts_delivered: 0, last_drop: Some((reason, code, message)), .. } => {
                Outcome::Dropped { reason, code, message }
            }
            Tally { lost_items, last_drop: Some((_, code, message)), .. } => {
                Outcome::Parted { dropped_items: lost_items, code, message }
            }
            Tally { lost_items, last_drop: None, .. } => {
                let rejected_items = lost_items[DropReason::PartialSuccess.index()];
                Outcome::Delivered { rejected_items }
            }
        }
    }

    fn next_part(&mut self) {
        self.parts.pop_front();
        self.delivery = Delivery::default();
    }
}

/// Cuts a part at item borders. A batch consists of checked requests, so their sum checks too; if
/// it ever does not, the part stays whole and the destination has the last word.
fn cut(signal: Signal, part: Part, items_max: u64, bytes_max: u64, halved: bool) -> VecDeque<Part> {
    match check(signal, join(&part.chain)) {
        Ok(checked) => split(checked, items_max, bytes_max)
            .into_iter()
            .map(|piece| Part {
                chain: piece.parts,
                bytes: piece.bytes,
                counts: piece.counts,
                halved,
            })
            .collect(),
        Err(error) => {
            tracing::error!(
                error = ?error,
                items = part.counts.items,
                "A batch that was checked before does not check now and cannot be cut.",
            );
            VecDeque::from([Part { halved, ..part }])
        }
    }
}
