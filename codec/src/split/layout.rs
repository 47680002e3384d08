//! Where the items lie: the few field numbers that cutting needs, counting, and telling a header
//! from the children around it.
//!
//! All of it runs on checked bytes and keeps nothing per child: a request may be millions of empty
//! messages.

use std::ops::Range;

use bytes::Bytes;

use crate::signal::Signal;
use crate::wire::Fields;

/// Request 0, resource group 1, scope group 2, item (a metric, for metrics) 3.
pub(super) const ITEM_LEVEL: usize = 3;

/// The field number of a metric in its scope group.
pub(super) const METRIC: u32 = 2;

/// The field number of the data points in every kind of data.
pub(super) const POINTS: u32 = 1;

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

/// How many items lie in the message at this level.
pub(super) fn items(bytes: &[u8], signal: Signal, level: usize, message: Range<usize>) -> u64 {
    match level {
        ITEM_LEVEL if signal == Signal::Metrics => points(bytes, message),
        ITEM_LEVEL => 1,
        _ => {
            let child_number = child_number(level);
            Fields::new(bytes, message)
                .filter(|field| field.number == child_number)
                .map(|child| items(bytes, signal, level + 1, child.value))
                .sum()
        }
    }
}

/// The kind of data that a metric holds, unless it holds none or several.
pub(super) fn only_data_kind(bytes: &[u8], metric: Range<usize>) -> Option<u32> {
    let mut kinds = data(bytes, metric).map(|(number, _)| number);
    let first = kinds.next()?;
    kinds.all(|number| number == first).then_some(first)
}

/// Counts as `check` does: of different kinds of data, the last one counts.
fn points(bytes: &[u8], metric: Range<usize>) -> u64 {
    let (mut kind, mut count) = (0, 0);
    for (number, part) in data(bytes, metric) {
        if number != kind {
            (kind, count) = (number, 0);
        }
        let points = Fields::new(bytes, part).filter(|field| field.number == POINTS);
        count += points.count() as u64;
    }
    count
}

fn data(bytes: &[u8], metric: Range<usize>) -> impl Iterator<Item = (u32, Range<usize>)> {
    Fields::new(bytes, metric)
        .filter(|field| METRIC_DATA.contains(&field.number))
        .map(|field| (field.number, field.value))
}
