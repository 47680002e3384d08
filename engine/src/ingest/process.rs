//! A checked request on its way through the processors of each pipeline that takes it, and over
//! the routings between pipelines.
//!
//! Always
//! - What a processor drops is on purpose: it is counted as filtered, and needs no delivery.
//! - Counts are written when the request was accepted, not before: a refused one left no trace.

use std::rc::Rc;
use std::sync::Arc;

use forebay_codec::check::Checked;
use forebay_codec::edit::{Editor, TooLarge};
use forebay_net::fields::Fields;
use smallvec::SmallVec;

use crate::batches::Share;
use crate::config::plan::{Plan, Routing};
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
    plan: Arc<Plan>,
    /// By pipeline: this core's own copy, since the plan's count of owners is all cores'.
    routings: Rc<[Vec<Routing>]>,
    /// By pipeline, in their order.
    editors: Vec<Vec<Editor>>,
    /// What the last request met.
    arrivals: Vec<Arrival>,
    passages: Vec<Passage>,
    crossings: Vec<Crossing>,
    /// Items that were in no row of a routing, since somebody was told of it.
    pub unrouted_untold: u64,
}

/// Items that came to a pipeline.
struct Arrival {
    pipeline: usize,
    items: u64,
}

struct Passage {
    pipeline: usize,
    place: usize,
    incoming_items: u64,
    filtered_items: u64,
}

/// What a row of a routing had; without pipelines it leads nowhere.
struct Crossing {
    pipeline: usize,
    routing: usize,
    row: usize,
    items: u64,
    is_unrouted: bool,
}

/// What the processors made of a request, not yet paid for.
pub struct Processed {
    parts: Parts,
    bytes: usize,
}

impl Processors {
    pub fn new(plan: &Arc<Plan>) -> Processors {
        let of = |pipeline: &crate::config::plan::Pipeline| {
            pipeline.processors.iter().map(|processor| processor.editor.clone()).collect()
        };
        Processors {
            editors: plan.pipelines.iter().map(of).collect(),
            routings: plan.pipelines.iter().map(|pipeline| pipeline.routings.clone()).collect(),
            plan: plan.clone(),
            arrivals: Vec::new(),
            passages: Vec::new(),
            crossings: Vec::new(),
            unrouted_untold: 0,
        }
    }

    /// Runs a request through these pipelines, and those that they route it to. No part of it may
    /// get larger than `bytes_max`.
    pub fn run(
        &mut self,
        pipelines: &[usize],
        checked: Checked,
        headers: &Fields,
        bytes_max: usize,
    ) -> Result<Processed, TooLarge> {
        self.arrivals.clear();
        self.passages.clear();
        self.crossings.clear();
        let mut processed = Processed { parts: Parts::new(), bytes: 0 };
        // The last pipeline, as a rule the only one, takes the request itself.
        let parts = std::iter::repeat_n(checked, pipelines.len());
        for (pipeline, part) in pipelines.iter().zip(parts) {
            self.pass(*pipeline, part, headers, bytes_max, &mut processed)?;
        }
        Ok(processed)
    }

    fn pass(
        &mut self,
        pipeline: usize,
        part: Checked,
        headers: &Fields,
        bytes_max: usize,
        processed: &mut Processed,
    ) -> Result<(), TooLarge> {
        self.arrivals.push(Arrival { pipeline, items: part.counts().items });
        let part = self.edit(pipeline, part, bytes_max)?;
        let items = part.counts().items;
        if items == 0 {
            return Ok(());
        }
        let routings = self.routings.clone();
        for (place, routing) in routings[pipeline].iter().enumerate() {
            for (row, piece) in routing.cut(part.clone(), headers) {
                let (items, targets) = (piece.counts().items, routing.pipelines(row));
                let is_unrouted = targets.is_empty();
                self.crossings.push(Crossing { pipeline, routing: place, row, items, is_unrouted });
                let pieces = std::iter::repeat_n(piece, targets.len());
                for (target, piece) in targets.iter().zip(pieces) {
                    self.pass(*target, piece, headers, bytes_max, processed)?;
                }
            }
        }
        if !self.plan.pipelines[pipeline].outputs.is_empty() {
            processed.add(pipeline, part);
        }
        Ok(())
    }

    fn edit(
        &mut self,
        pipeline: usize,
        mut part: Checked,
        bytes_max: usize,
    ) -> Result<Checked, TooLarge> {
        for (place, editor) in self.editors[pipeline].iter_mut().enumerate() {
            let incoming_items = part.counts().items;
            let edited = editor.apply(part, bytes_max)?;
            part = edited.checked;
            let filtered_items = edited.dropped_items;
            self.passages.push(Passage { pipeline, place, incoming_items, filtered_items });
            if part.counts().items == 0 {
                break;
            }
        }
        Ok(part)
    }

    /// Counts what the last request met.
    pub fn count(&mut self, rows: &ShardLedger) {
        for Arrival { pipeline, items } in &self.arrivals {
            rows.pipeline(*pipeline).accepted_items.add(*items);
            let plan = &self.plan.pipelines[*pipeline];
            for first in plan.outputs.iter().filter_map(|output| output.primary()) {
                rows.route(*pipeline, plan.place(first)).accepted_items.add(*items);
            }
        }
        for passage in &self.passages {
            let row = rows.processor(passage.pipeline, passage.place);
            row.incoming_items.add(passage.incoming_items);
            row.filtered_items.add(passage.filtered_items);
        }
        for crossing in &self.crossings {
            let row = &rows.pipeline(crossing.pipeline).routings[crossing.routing];
            match crossing.is_unrouted {
                true => {
                    row.unrouted_items.add(crossing.items);
                    self.unrouted_untold += crossing.items;
                }
                false => row.routed_items[crossing.row].add(crossing.items),
            }
        }
    }
}

impl Processed {
    /// What the budget has to hold for it.
    pub fn reserved_bytes(&self) -> usize {
        self.bytes
    }

    /// The pipelines that go on with a part of it.
    pub fn pipelines(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.pipeline)
    }

    /// The parts, once their bytes are reserved.
    pub fn into_parts(self) -> Parts {
        self.parts
    }

    /// Bytes that another part has already are shared with it.
    fn add(&mut self, pipeline: usize, checked: Checked) {
        let at = |checked: &Checked| (checked.bytes().as_ptr(), checked.bytes().len());
        let same = self.parts.iter().position(|part| at(&part.checked) == at(&checked));
        let share = match same {
            Some(place) => self.share_of(place),
            None => self.charge(checked.bytes().len() + KEPT_REQUEST_BYTES),
        };
        self.parts.push(Part { pipeline, checked, share });
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
