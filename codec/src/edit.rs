//! Rewriting a request: attributes inserted, changed, deleted or hashed, items dropped by a
//! condition or by sampling. What the Collector's `attributes`, `resource`, `filter` and
//! `probabilistic_sampler` processors do, on the bytes.
//!
//! An [`Editor`] is compiled once and applied to each request. It copies untouched ranges in runs
//! as long as they are, rewrites what changes and the lengths around it, and decodes nothing.
//!
//! Always
//! - What comes out is a valid request with exactly the counts that it says.
//! - Untouched ranges keep their bytes, unknown fields and the order of fields included; a request
//!   in which nothing changes comes back as the very bytes that it was.
//! - Drops are decided first, on the request as it came; then what is left is edited.
//! - A metric, scope group or resource group that lost what it held is removed.
//!
//! Never touched: profiles (their attributes lie in a table that the whole request shares), span
//! events, span links, exemplars, metadata of metrics: as in the Collector.

use bytes::Bytes;

use crate::check::Checked;
use crate::signal::{Counts, Signal};

pub use attributes::{Action, Source, Verb};
pub use condition::{Condition, ConditionError, Context};
pub use sample::{AttributeSource, Mode, Sampler, Sampling};

use attributes::Steps;
use condition::{Above, Level};
use pass::{Pass, Scratch};

mod attributes;
mod condition;
mod pass;
mod read;
mod sample;

/// One thing to do to each request.
#[derive(Clone, Debug)]
pub enum Op {
    /// Attributes of `Owner`; several act one after the other, each on what the last one left.
    Attribute(Owner, Action),
    /// Drops what the condition is true of: a span, log record, data point or metric.
    Drop(Condition),
    /// Keeps a share of the spans or log records, and tells the next sampler in those that stay.
    Sample(Sampler),
}

/// Whose attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Resource,
    Scope,
    /// A span, log record or data point of any kind of metric.
    Item,
}

/// Why an [`Editor`] can't do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    Profiles,
    /// A condition or sampler that is made for another signal.
    OtherSignal,
    /// The second one has to see what the first one wrote: use two editors.
    TwoSamplers,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unfit::Profiles => "profiles can't be edited: their attributes lie in a shared table",
            Unfit::OtherSignal => "the condition or sampler is made for another signal",
            Unfit::TwoSamplers => "two samplers need an editor each",
        })
    }
}

impl std::error::Error for Unfit {}

/// A list of edits, compiled for one signal. Cloning gives another with buffers of its own.
#[derive(Clone, Debug)]
pub struct Editor {
    rules: Rules,
    scratch: Scratch,
}

/// What an [`Editor`] does, sorted by whom it is done to.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    signal: Signal,
    resource: Steps,
    scope: Steps,
    item: Steps,
    drop_items: Vec<Condition>,
    drop_metrics: Vec<Condition>,
    sampler: Option<Sampler>,
    /// Keys and values that the steps refer to: the beginning of every arena.
    constants: Vec<u8>,
    /// What conditions read above the items.
    above: Vec<Above>,
}

/// The edited request would have had more than the `bytes_max` bytes that it may have, or one of
/// its resources, scopes or items has more than 65,536 attributes or parts to be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// A request after its edits.
#[derive(Clone, Debug)]
pub struct Edited {
    pub checked: Checked,
    /// How many of its items were dropped on purpose.
    pub dropped_items: u64,
}

impl Editor {
    pub fn new(signal: Signal, ops: Vec<Op>) -> Result<Self, Unfit> {
        if signal == Signal::Profiles {
            return Err(Unfit::Profiles);
        }
        let mut rules = Rules {
            signal,
            resource: Steps::default(),
            scope: Steps::default(),
            item: Steps::default(),
            drop_items: Vec::new(),
            drop_metrics: Vec::new(),
            sampler: None,
            constants: Vec::new(),
            above: Vec::new(),
        };
        for op in ops {
            rules.add(op)?;
        }
        let scratch = Scratch::new(&rules.constants);
        Ok(Self { rules, scratch })
    }

    pub fn signal(&self) -> Signal {
        self.rules.signal
    }

    /// Edits a request. What grows beyond `bytes_max` is given up as soon as it does: attributes
    /// that are added to millions of empty items must not take all memory.
    ///
    /// # Panics
    /// If the request is of another signal.
    pub fn apply(&mut self, checked: Checked, bytes_max: usize) -> Result<Edited, TooLarge> {
        let (signal, counts, warnings) = (checked.signal(), checked.counts(), checked.warnings());
        assert_eq!(signal, self.rules.signal, "an editor is made for one signal");
        let bytes = checked.bytes().clone();
        let pass = Pass::new(&bytes, &self.rules, &mut self.scratch, bytes_max);
        let done = pass.request();
        self.scratch.shrink();
        let (out, dropped_items) = done?;
        let checked = match out {
            None => checked,
            Some(out) => {
                let items = counts.items - dropped_items;
                Checked::rewritten(signal, fitted(out), Counts { items, ..counts }, warnings)
            }
        };
        Ok(Edited { checked, dropped_items })
    }
}

impl Rules {
    fn add(&mut self, op: Op) -> Result<(), Unfit> {
        match op {
            Op::Attribute(owner, action) => {
                let steps = match owner {
                    Owner::Resource => &mut self.resource,
                    Owner::Scope => &mut self.scope,
                    Owner::Item => &mut self.item,
                };
                steps.add(action, &mut self.constants);
            }
            Op::Drop(mut condition) => {
                condition.bind(&mut self.above);
                match (condition.context(), self.signal) {
                    (Context::Span, Signal::Traces)
                    | (Context::LogRecord, Signal::Logs)
                    | (Context::DataPoint, Signal::Metrics) => self.drop_items.push(condition),
                    (Context::Metric, Signal::Metrics) => self.drop_metrics.push(condition),
                    _ => return Err(Unfit::OtherSignal),
                }
            }
            Op::Sample(sampler) if sampler.signal() != self.signal => {
                return Err(Unfit::OtherSignal);
            }
            Op::Sample(_) if self.sampler.is_some() => return Err(Unfit::TwoSamplers),
            Op::Sample(sampler) => {
                if self.signal == Signal::Logs {
                    self.item.add_made(sample::THRESHOLD, 0, &mut self.constants);
                    self.item.add_made(sample::RANDOMNESS, 1, &mut self.constants);
                }
                self.sampler = Some(sampler);
            }
        }
        Ok(())
    }

    fn conditions_read(&self, level: Level) -> bool {
        self.above.iter().any(|above| above.level() == level)
    }

    /// Whether anything is done to spans, log records or data points.
    fn looks_at_items(&self) -> bool {
        !self.item.is_empty() || !self.drop_items.is_empty() || self.sampler.is_some()
    }

    /// The field of an item that holds its attributes; of a data point, that of its kind of data.
    fn item_attributes(&self, data_kind: u32) -> u32 {
        match (self.signal, data_kind) {
            (Signal::Traces, _) => 9,
            (Signal::Logs, _) => 6,
            (_, HISTOGRAM) => 9,
            (_, EXPONENTIAL_HISTOGRAM) => 1,
            _ => 7,
        }
    }
}

/// Members of `Metric.data` whose points have their attributes elsewhere than the others'.
const HISTOGRAM: u32 = 9;
const EXPONENTIAL_HISTOGRAM: u32 = 10;

/// Few bytes must not hold a large allocation: the engine counts the bytes that it keeps.
fn fitted(mut out: Vec<u8>) -> Bytes {
    if out.capacity() - out.len() > out.len() / 8 {
        out.shrink_to_fit();
    }
    out.into()
}

#[cfg(test)]
mod tests;
