//! A checked request on its way through the processors of each pipeline that takes it.
//!
//! Always
//! - What a processor drops is on purpose: it is counted as filtered, and needs no delivery.
//! - Counts are written when the request was accepted, not before: a refused one left no trace.

use std::rc::Rc;

use forebay_codec::check::Checked;
use forebay_codec::edit::{Editor, TooLarge};

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
    parts: Vec<(usize, Checked, Bytes)>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// Those of the request, which several pipelines may share.
    AsTheyCame,
    Rewritten,
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
        let mut processed = Processed { parts: Vec::with_capacity(pipelines.len()), bytes: 0 };
        let mut is_shared = false;
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
            if is_rewritten || !is_shared {
                processed.bytes += part.bytes().len() + KEPT_REQUEST_BYTES;
            }
            is_shared |= !is_rewritten;
            let bytes = if is_rewritten { Bytes::Rewritten } else { Bytes::AsTheyCame };
            processed.parts.push((*pipeline, part, bytes));
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
    pub fn into_parts(self) -> Vec<Part> {
        let as_they_came = |(_, _, bytes): &&(usize, Checked, Bytes)| *bytes == Bytes::AsTheyCame;
        let sharing = self.parts.iter().filter(as_they_came).count();
        let mut joint: Option<Rc<usize>> = None;
        let part = |(pipeline, checked, bytes): (usize, Checked, Bytes)| {
            let kept = checked.bytes().len() + KEPT_REQUEST_BYTES;
            let share = match bytes {
                Bytes::AsTheyCame if sharing > 1 => {
                    Share::Joint(joint.get_or_insert_with(|| Rc::new(kept)).clone())
                }
                _ => Share::Own(kept),
            };
            Part { pipeline, checked, share }
        };
        self.parts.into_iter().map(part).collect()
    }
}
