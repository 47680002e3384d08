//! The shape of a day's flow, read plainly from its plan: which outputs each item is for, and what
//! stands behind each destination.

use forebay::config::plan::{Ack, Condition, Output, Plan};
use forebay_codec::signal::Signal;

/// One output of one pipeline.
pub(crate) struct Way {
    pub(crate) pipeline: usize,
    pub(crate) is_mirror: bool,
    /// An OK waits for it.
    pub(crate) is_awaited: bool,
    destinations: Vec<u16>,
}

pub(crate) struct Shape {
    pub(crate) ways: Vec<Way>,
    names: Vec<String>,
    plan: Plan,
}

/// What routings tell requests and resources apart by.
pub(crate) struct Traits {
    pub(crate) signal: Signal,
    pub(crate) tenant: Option<&'static str>,
    pub(crate) is_red: bool,
}

impl Shape {
    pub(crate) fn new(plan: &Plan) -> Shape {
        let mut ways = Vec::new();
        for (index, pipeline) in plan.pipelines.iter().enumerate() {
            for output in &pipeline.outputs {
                let is_mirror = matches!(output, Output::Mirror { .. });
                ways.push(Way {
                    pipeline: index,
                    is_mirror,
                    is_awaited: !is_mirror && pipeline.ack == Ack::Delivered,
                    destinations: output.destinations(),
                });
            }
        }
        Shape {
            ways,
            names: plan.destinations.iter().map(|d| d.name.clone()).collect(),
            plan: plan.clone(),
        }
    }

    /// The way of a batch that arrived at a destination: of a letter, its refuser's.
    pub(crate) fn way_of(&self, destination: u16, batch: &[u8]) -> usize {
        let mut from = destination;
        let kept = self.plan.dead_letters.iter().position(|keeper| *keeper == Some(destination));
        if let Some(refuser) = kept {
            // No two have one keeper: there are no marks when the budget has no room for them.
            let has = |text: &str| batch.windows(text.len()).any(|w| w == text.as_bytes());
            let is_marked = has("forebay.dead_letter.reason");
            assert!(!is_marked || has(&self.names[refuser]), "a letter names its refuser");
            from = refuser as u16;
        }
        let way = self.ways.iter().position(|way| way.destinations.contains(&from));
        way.expect("each destination stands behind some output")
    }

    /// Whether batches go there as they were sealed.
    pub(crate) fn is_plain(&self, destination: u16) -> bool {
        let plain = Output::One(destination);
        self.plan.pipelines.iter().any(|pipeline| pipeline.outputs.contains(&plain))
    }

    /// The ways that an item has to go, copies aside.
    pub(crate) fn ways_for(&self, of: &Traits) -> Vec<usize> {
        let takes = |pipeline: &usize| {
            let plan = &self.plan.pipelines[*pipeline];
            plan.signal == of.signal && !plan.receivers.is_empty()
        };
        let mut pipelines: Vec<usize> = (0..self.plan.pipelines.len()).filter(takes).collect();
        for first in pipelines.clone() {
            for routing in &self.plan.pipelines[first].routings {
                let is_true = |condition: &Condition| match condition {
                    Condition::Header(_, tenant) => of.tenant == Some(tenant),
                    Condition::Attribute(..) => of.is_red,
                };
                let row = routing.rows.iter().find(|row| is_true(&row.condition));
                pipelines.extend(row.map_or(&routing.otherwise, |row| &row.pipelines));
            }
        }
        let is_one = |way: &usize| {
            let way = &self.ways[*way];
            pipelines.contains(&way.pipeline) && !way.is_mirror
        };
        (0..self.ways.len()).filter(is_one).collect()
    }
}
