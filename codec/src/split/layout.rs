//! Where the items lie: the few field numbers that cutting needs, counting, and telling a header
//! from the children around it.
//!
//! All of it runs on checked bytes and keeps nothing per child: a request may be millions of empty
//! messages.

use std::ops::Range;

use bytes::Bytes;

use crate::rope::{Field, Rope};
use crate::signal::{Counts, Signal};
use crate::wire::Fields;

/// Request 0, resource group 1, scope group 2, item (a metric, for metrics) 3.
pub(super) const ITEM_LEVEL: usize = 3;

/// The field number of a metric in its scope group.
pub(super) const METRIC: u32 = 2;

/// The field number of the data points in every kind of data.
pub(super) const POINTS: u32 = 1;

/// The field number of a sample in its profile.
const SAMPLES: u32 = 2;

/// The kinds of `Metric.data`: gauge, sum, histogram, exponential histogram, summary.
const METRIC_DATA: [u32; 5] = [5, 7, 9, 10, 11];

/// The field number of the repeated children at this level, the same in all three signals.
pub(super) fn child_number(level: usize) -> u32 {
    match level {
        0 => 1,
        _ => 2,
    }
}

/// The bytes of a message that are not children, in order; shared where they lie side by side.
pub(super) fn header(
    bytes: &Bytes,
    message: Range<usize>,
    is_child: impl Fn(u32) -> bool,
) -> Bytes {
    let mut run = message.start..message.start;
    let mut copied: Vec<u8> = Vec::new();
    for field in Fields::new(bytes, message).filter(|field| !is_child(field.number)) {
        if run.end != field.whole.start {
            copied.extend_from_slice(&bytes[run]);
            run = field.whole.start..field.whole.start;
        }
        run.end = field.whole.end;
    }
    if copied.is_empty() {
        return bytes.slice(run);
    }
    copied.extend_from_slice(&bytes[run]);
    copied.into()
}

/// How many items lie in the message at this level; if more than `items_max`, more than that.
pub(super) fn counts(signal: Signal, level: usize, message: Rope<'_>, items_max: u64) -> Counts {
    match (level, signal) {
        (ITEM_LEVEL, Signal::Traces | Signal::Logs) => Counts { items: 1, profiles: 0 },
        (ITEM_LEVEL, Signal::Metrics) => Counts { items: points(message), profiles: 0 },
        (ITEM_LEVEL, Signal::Profiles) => {
            let samples = message.fields().filter(|field| field.number == SAMPLES);
            Counts { items: samples.count() as u64, profiles: 1 }
        }
        _ => {
            let child_number = child_number(level);
            let mut all = Counts::default();
            let mut rest = message;
            while let Some(child) = rest.next_field() {
                if child.number == child_number {
                    all += counts(signal, level + 1, child.value, items_max);
                }
                if all.items > items_max {
                    break;
                }
            }
            all
        }
    }
}

/// The kind of data that a metric holds, unless it holds none or several.
pub(super) fn only_data_kind(metric: Rope<'_>) -> Option<u32> {
    let mut kinds = data(metric).map(|part| part.number);
    let first = kinds.next()?;
    kinds.all(|number| number == first).then_some(first)
}

/// Counts as `check` does: of different kinds of data, the last one counts.
pub(super) fn points(metric: Rope<'_>) -> u64 {
    let (mut kind, mut count) = (0, 0);
    for part in data(metric) {
        if part.number != kind {
            (kind, count) = (part.number, 0);
        }
        let points = part.value.fields().filter(|field| field.number == POINTS);
        count += points.count() as u64;
    }
    count
}

fn data<'a>(metric: Rope<'a>) -> impl Iterator<Item = Field<'a>> {
    metric.fields().filter(|field| METRIC_DATA.contains(&field.number))
}

/// Whether the parts that a message lies in end only where those of a chain may: see
/// [`Chain`](crate::splice::Chain).
pub(super) fn ends_well(signal: Signal, level: usize, mut message: Rope<'_>) -> bool {
    while let Some(field) = message.next_field() {
        if field.whole().is_some() {
            continue;
        }
        let may_reach_on = match level {
            0..ITEM_LEVEL => {
                let is_item = level + 1 == ITEM_LEVEL;
                field.number == child_number(level) && (!is_item || signal == Signal::Metrics)
            }
            ITEM_LEVEL => METRIC_DATA.contains(&field.number),
            _ => false,
        };
        if !may_reach_on || !ends_well(signal, level + 1, field.value) {
            return false;
        }
    }
    message.len() == 0
}
