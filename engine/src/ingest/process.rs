//! A checked request on its way through the processors of each pipeline that takes it.
//!
//! Always
//! - What a processor drops is on purpose: it is counted as filtered, and needs no delivery.
//! - Counts are written when the request was accepted, not before: a refused one left no trace.

use std::rc::Rc;

use forebay_codec::check::Checked;
use forebay_codec::edit::{Editor, TooLarge};
use smallvec::SmallVec;

use crate::batches::Share;
use crate::config::plan::Plan;
use crate::ledger::ShardLedger;

/// What a request in a batch costs beside its bytes: its place in the chain, its ticket.
pub const KEPT_REQUEST_BYTES: usize = 128;

/// What is left of a request for one pipeline: at least one item.
pub struct Part {
    pub pipeline: usize,
    pub checked: Checked,
    pub share: Share,
}

/// As a rule there is one.
pub type Parts = SmallVec<[Part; 1]>;

/// The processors of all pipelines, with buffers of this core's own.
pub struct Processors {
    /// By pipeline, in their order.
    editors: Vec<Vec<Editor>>,
    /// What the last request met.
    passages: Vec<Passage>,
}

struct Passage {
    pipeline: usize,
    place: usize,
    incoming_items: u64,
    filtered_items: u64,
}

/// What the processors made of a request, not yet paid for.
pub struct Processed {
    parts: Parts,
    bytes: usize,
}

impl Processors {
    pub fn new(plan: &Plan) -> Processors {
        let of = |pipeline: &crate::config::plan::Pipeline| {
            pipeline.processors.iter().map(|processor| processor.editor.clone()).collect()
        };
        Processors { editors: plan.pipelines.iter().map(of).collect(), passages: Vec::new() }
    }

    /// Runs a request through the processors of these pipelines. No part of it may get larger
    /// than `bytes_max`.
    pub fn run(
        &mut self,
        pipelines: &[usize],
        checked: Checked,
        bytes_max: usize,
    ) -> Result<Processed, TooLarge> {
        self.passages.clear();
        let mut processed = Processed { parts: Parts::new(), bytes: 0 };
        // Of the first part that goes on with the request's own bytes: others share them.
        let mut first_as_they_came = None;
        let came_at = checked.bytes().as_ptr();
        // The last pipeline, as a rule the only one, takes the request itself.
        let parts = std::iter::repeat_n(checked, pipelines.len());
        for (pipeline, mut part) in pipelines.iter().zip(parts) {
            for (place, editor) in self.editors[*pipeline].iter_mut().enumerate() {
                let incoming_items = part.counts().items;
                let edited = editor.apply(part, bytes_max)?;
                part = edited.checked;
                self.passages.push(Passage {
                    pipeline: *pipeline,
                    place,
                    incoming_items,
                    filtered_items: edited.dropped_items,
                });
                if part.counts().items == 0 {
                    break;
                }
            }
            if part.counts().items == 0 {
                continue;
            }
            let is_rewritten = part.bytes().as_ptr() != came_at;
            let share = match first_as_they_came {
                Some(place) if !is_rewritten => processed.share_of(place),
                _ => processed.charge(part.bytes().len() + KEPT_REQUEST_BYTES),
            };
            if !is_rewritten {
                first_as_they_came.get_or_insert(processed.parts.len());
            }
            processed.parts.push(Part { pipeline: *pipeline, checked: part, share });
        }
        Ok(processed)
    }

    /// Counts what the last request met.
    pub fn count(&self, rows: &ShardLedger) {
        for passage in &self.passages {
            let row = rows.processor(passage.pipeline, passage.place);
            row.incoming_items.add(passage.incoming_items);
            row.filtered_items.add(passage.filtered_items);
        }
    }
}

impl Processed {
    /// What the budget has to hold for it.
    pub fn reserved_bytes(&self) -> usize {
        self.bytes
    }

    /// The parts, once their bytes are reserved.
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    fn charge(&mut self, bytes: usize) -> Share {
        self.bytes += bytes;
        Share::Own(bytes)
    }

    /// Another share of what the part at `place` holds.
    fn share_of(&mut self, place: usize) -> Share {
        let first = &mut self.parts[place].share;
        if let Share::Own(bytes) = *first {
            *first = Share::Joint(Rc::new(bytes));
        }
        first.clone()
    }
}
