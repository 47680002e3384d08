//! `processors`: what is done to the items of a pipeline (attributes, filters, sampling), batching
//! in the Collector's two forms, and a memory limiter that says what limits memory here instead.

use std::time::Duration;

use forebay_codec::edit::{Action, Condition, Editor, Op, Owner, Sampler, Sampling, Unfit};
use forebay_codec::signal::Signal;

use super::exporters::delivery::{self, BatchWish};
use super::keys::{Table, block, ignored, refused, value};
use super::problem::{Place, Problem, Report};
use super::section::{Component, Section};

pub(crate) mod attributes;
pub(crate) mod filter;
pub(crate) mod sampler;

const PARTITION: &str = "batches by client metadata are not supported yet: remove it";
const QUEUE: &str = "the destinations' `sending_queue` holds what waits";

pub(crate) const KINDS: [&str; 7] = [
    "batch",
    "queue_batch",
    "memory_limiter",
    "attributes",
    "resource",
    "filter",
    "probabilistic_sampler",
];

pub(crate) const BATCH: Table = Table {
    path: "processors.batch[/name]",
    keys: &[
        value(
            "send_batch_size",
            "items",
            "8192",
            "A batch is sent when it has this many. 0: each \
            request is a batch of its own.",
        ),
        value(
            "timeout",
            "duration",
            "200ms",
            "A batch waits no longer for more. 0: each request \
            is a batch of its own.",
        ),
        value("send_batch_max_size", "items", "0", "Larger batches are split. 0: not by items."),
        ignored("metadata_cardinality_limit", "it limits `metadata_keys`, which are not supported"),
        refused("metadata_keys", PARTITION),
    ],
};

pub(crate) const QUEUE_BATCH: Table = Table {
    path: "processors.queue_batch[/name]",
    keys: &[
        block("batch", "When a batch is sent."),
        ignored("num_consumers", QUEUE),
        ignored("queue_size", QUEUE),
        ignored("sizer", QUEUE),
        ignored("block_on_overflow", "a full queue always pushes back"),
        ignored("wait_for_result", "set `engine.acks` or the exporters' `wait_for_result`"),
        refused("storage", "a queue on disk is not supported yet: remove it"),
    ],
};

pub(crate) const QUEUE_BATCH_BATCH: Table =
    Table { path: "processors.queue_batch[/name].batch", keys: delivery::BATCH_KEYS };

pub(crate) const MEMORY_LIMITER: Table = Table {
    path: "processors.memory_limiter[/name]",
    keys: &[
        value("limit_mib", "MiB", "", "Taken, but `engine.memory.budget_bytes` is what limits."),
        value("limit_percentage", "percent", "", "The same."),
        value("spike_limit_mib", "MiB", "", "The same."),
        value("spike_limit_percentage", "percent", "", "The same."),
        value("check_interval", "duration", "", "The same: forebay counts at each request."),
        ignored("min_gc_interval_when_soft_limited", "there is no garbage collector"),
        ignored("min_gc_interval_when_hard_limited", "there is no garbage collector"),
    ],
};

pub(crate) struct Processor {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// `None`: it has no effect on batches.
    pub(crate) batch: Option<BatchWish>,
    /// `None`: it leaves items as they are.
    edits: Option<Edits>,
}

/// What a processor does to items, of whatever signal.
enum Edits {
    Attributes(Owner, Vec<Action>),
    Filter(Vec<(Signal, Condition)>),
    Sampler(Sampling),
}

impl Processor {
    /// What it does in a pipeline of this signal; `None`: nothing. An error says why it can't.
    pub(crate) fn editor(&self, signal: Signal) -> Result<Option<Editor>, String> {
        let ops: Vec<Op> = match &self.edits {
            None => return Ok(None),
            Some(Edits::Attributes(owner, actions)) => {
                actions.iter().map(|action| Op::Attribute(*owner, action.clone())).collect()
            }
            Some(Edits::Filter(conditions)) => {
                let own = conditions.iter().filter(|(of, _)| *of == signal);
                own.map(|(_, condition)| Op::Drop(condition.clone())).collect()
            }
            Some(Edits::Sampler(sampling)) => {
                let sampler = Sampler::new(signal, sampling.clone());
                vec![Op::Sample(sampler.ok_or("only traces and logs can be sampled")?)]
            }
        };
        if ops.is_empty() {
            return Ok(None);
        }
        Editor::new(signal, ops).map(Some).map_err(|unfit: Unfit| unfit.to_string())
    }
}

pub(crate) fn read(components: &[Component<'_>], report: &Report) -> Vec<Processor> {
    let mut processors = Vec::new();
    for component in components {
        let open = |table| {
            Section::open(component.node, component.place, component.path.as_str(), table, report)
        };
        let (mut wish, mut edits) = (None, None);
        match component.kind {
            "batch" => wish = Some(batch(&open(&BATCH))),
            "queue_batch" => wish = Some(queue_batch(&open(&QUEUE_BATCH))),
            "memory_limiter" => memory_limiter(&open(&MEMORY_LIMITER)),
            "attributes" => {
                let section = open(&attributes::ATTRIBUTES);
                let actions =
                    attributes::actions(&section, "actions", &attributes::ATTRIBUTES_ACTION);
                edits = Some(Edits::Attributes(Owner::Item, actions));
            }
            "resource" => {
                let section = open(&attributes::RESOURCE);
                let actions =
                    attributes::actions(&section, "attributes", &attributes::RESOURCE_ACTION);
                edits = Some(Edits::Attributes(Owner::Resource, actions));
            }
            "filter" => edits = Some(Edits::Filter(filter::conditions(&open(&filter::FILTER)))),
            "probabilistic_sampler" => {
                edits = Some(Edits::Sampler(sampler::sampling(&open(&sampler::SAMPLER))));
            }
            _ => {
                report.add(component.unknown("processor", &KINDS));
                continue;
            }
        };
        let (name, place) = (component.id.to_owned(), component.place.clone());
        processors.push(Processor { name, place, batch: wish, edits });
    }
    processors
}

fn batch(section: &Section<'_>) -> BatchWish {
    let size_min = section.count("send_batch_size", 0..=u32::MAX.into());
    let size_max = section.count("send_batch_max_size", 0..=u32::MAX.into());
    if size_max > 0 && size_max < size_min {
        let fault = format!("must be 0 or at least send_batch_size ({size_min})");
        section.fault("send_batch_max_size", &fault);
    }
    let timeout: Duration = section.duration("timeout");
    delivery::wish(section, size_min, size_max, timeout, delivery::Sizer::Items)
}

/// `batch: null` keeps the default here, because batching is what the processor is for.
fn queue_batch(section: &Section<'_>) -> BatchWish {
    delivery::batch(&section.block("batch", &QUEUE_BATCH_BATCH), delivery::Sizer::Items)
}

fn memory_limiter(section: &Section<'_>) {
    for (name, unit_max) in [
        ("limit_mib", u64::MAX),
        ("limit_percentage", 100),
        ("spike_limit_mib", u64::MAX),
        ("spike_limit_percentage", 100),
    ] {
        section.read(name, |text| match super::values::count(text)? {
            count if count <= unit_max => Ok(count),
            _ => Err("must lie from 0 to 100".to_owned()),
        });
    }
    section.read("check_interval", super::values::duration);
    let what = format!("{} does not limit memory in forebay", section.path);
    section.report.add(
        Problem::warning(&section.place, what)
            .why("bytes are counted when a request arrives, so nothing has to poll the heap")
            .hint("set engine.memory.budget_bytes: request bytes per receiver core, 128MiB now"),
    );
}
