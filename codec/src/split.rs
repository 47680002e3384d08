//! Cutting a request into smaller ones, at the borders of its items.
//!
//! The engine cuts what is larger than a batch or an endpoint may be. A piece repeats the headers
//! of what it was cut from (everything of a request, resource group, scope group or metric but its
//! repeated children, unknown fields included) and holds a run of the items; item bytes are shared,
//! not copied. Nothing is decoded.
//!
//! Always
//! - The items of all pieces, in order, are the items of the request, in order.
//! - A piece is within both limits, unless it is one item that is larger by itself.
//! - All repeated headers together are at most [`REPEATED_RATIO_MAX`] times the request. What would
//!   need more (a huge header above thousands of small pieces: an attack) stays in one last piece.
//! - Groups, scopes and metrics without items stay in, as they came.
//! - Profiles come back whole: their dictionary belongs to the request.
//!
//! A metric is cut only when a piece of its own would not hold it. One whose `data` was set twice
//! to different kinds (legal protobuf that no encoder makes) counts as a single item.

use std::ops::Range;

use bytes::Bytes;

use crate::check::Checked;
use crate::rope::Rope;
use crate::signal::Signal;
use crate::splice::Chain;
use crate::wire::{Fields, RawField};

use layout::{ITEM_LEVEL, METRIC, POINTS};
use piece::{Frame, Piece};

pub mod by;
mod layout;
mod piece;
mod shards;

/// Cuts so that no piece has more than `items_max` items (0: no limit) or `bytes_max` bytes (0: no
/// limit), unless a single item is larger. A request within both, and an empty one, comes back as
/// the one piece that it is.
pub fn split(checked: Checked, items_max: u64, bytes_max: u64) -> Vec<Chain> {
    let limits = Limits::new(items_max, bytes_max);
    let counts = checked.counts();
    if checked.signal() == Signal::Profiles
        || limits.hold(counts.items, checked.bytes().len() as u64)
    {
        let mut whole = Chain::new(checked.signal());
        whole.push(checked);
        return vec![whole];
    }
    let signal = checked.signal();
    let bytes = checked.into_bytes();
    let mut cut = Cut {
        bytes: &bytes,
        signal,
        limits,
        repeatable_bytes: bytes.len() as u64 * REPEATED_RATIO_MAX,
        piece: Piece::default(),
        done: Vec::new(),
    };
    cut.level(0, 0..bytes.len(), 0);
    cut.take_piece();
    cut.done
}

#[derive(Clone, Copy)]
struct Limits {
    items_max: u64,
    bytes_max: u64,
}

impl Limits {
    fn new(items_max: u64, bytes_max: u64) -> Self {
        let or_none = |max: u64| if max == 0 { u64::MAX } else { max };
        Self { items_max: or_none(items_max), bytes_max: or_none(bytes_max) }
    }

    fn hold(self, items: u64, bytes: u64) -> bool {
        items <= self.items_max && bytes <= self.bytes_max
    }
}

struct Cut<'a> {
    bytes: &'a Bytes,
    signal: Signal,
    limits: Limits,
    /// How many bytes of headers may still be written again.
    repeatable_bytes: u64,
    piece: Piece,
    done: Vec<Chain>,
}

impl Cut<'_> {
    /// Cuts what lies at `message`: level 0 is the request, 1 a resource group, 2 a scope group.
    fn level(&mut self, level: usize, message: Range<usize>, number: u32) {
        let child_number = layout::child_number(level);
        let is_child = |number| number == child_number;
        self.piece.open(Frame::new(number, layout::header(self.bytes, message.clone(), is_child)));
        for child in Fields::new(self.bytes, message).filter(|field| is_child(field.number)) {
            let items = self.items(level + 1, child.value.clone());
            if self.piece_holds(&child.whole, items) {
                self.piece.add(child.whole, items);
            } else if level + 1 < ITEM_LEVEL && self.has_children(level + 1, &child.value) {
                self.level(level + 1, child.value, child_number);
            } else if level + 1 == ITEM_LEVEL && self.signal == Signal::Metrics {
                self.metric(child, items);
            } else {
                self.add(child.whole, items);
            }
        }
        self.piece.close();
    }

    fn items(&self, level: usize, message: Range<usize>) -> u64 {
        let left = self.limits.items_max.saturating_sub(self.piece.items());
        // A metric is counted whole: when it is cut, its count decides how.
        let items_max = if level == ITEM_LEVEL { u64::MAX } else { left };
        layout::counts(self.signal, level, Rope::within(self.bytes, message), items_max).items
    }

    fn only_data_kind(&self, metric: Range<usize>) -> Option<u32> {
        layout::only_data_kind(Rope::within(self.bytes, metric))
    }

    fn has_children(&self, level: usize, message: &Range<usize>) -> bool {
        let child_number = layout::child_number(level);
        Fields::new(self.bytes, message.clone()).any(|field| field.number == child_number)
    }

    /// A metric that the present piece has no room for: whole into a new one, or in parts.
    fn metric(&mut self, metric: RawField, points: u64) {
        let alone = self.piece.bytes_alone(metric.whole.len() as u64);
        let Some(data_number) = self.only_data_kind(metric.value.clone()) else {
            return self.add(metric.whole, points);
        };
        if points < 2 || self.limits.hold(points, alone) {
            return self.add(metric.whole, points);
        }
        let bytes = self.bytes;
        let is_data = |number| number == data_number;
        let is_point = |number| number == POINTS;
        let parts = || {
            let all = Fields::new(bytes, metric.value.clone());
            all.filter(|field| is_data(field.number)).map(|part| part.value)
        };
        // The same kind several times is one message in parts; its header is that of all parts.
        let data_header: Vec<u8> =
            parts().flat_map(|part| layout::header(bytes, part, is_point)).collect();
        let header = layout::header(bytes, metric.value.clone(), is_data);
        self.piece.open(Frame::new(METRIC, header));
        self.piece.open(Frame::new(data_number, data_header.into()));
        for part in parts() {
            for point in Fields::new(bytes, part).filter(|field| is_point(field.number)) {
                self.add(point.whole, 1);
            }
        }
        self.piece.close();
        self.piece.close();
    }

    /// Puts one child as it lies in the request into the innermost open frame, of a new piece if
    /// the present one has no room for it.
    fn add(&mut self, range: Range<usize>, items: u64) {
        if self.piece.holds_something() && !self.piece_holds(&range, items) {
            self.seal();
        }
        self.piece.add(range, items);
    }

    fn piece_holds(&self, range: &Range<usize>, items: u64) -> bool {
        let bytes = self.piece.bytes_with(range.len() as u64);
        self.limits.hold(self.piece.items() + items, bytes)
    }

    /// Begins a new piece inside the frames that are open, if their headers may be repeated.
    fn seal(&mut self) {
        let repeated = self.piece.header_bytes();
        if let Some(left) = self.repeatable_bytes.checked_sub(repeated) {
            self.repeatable_bytes = left;
            self.take_piece();
        }
    }

    fn take_piece(&mut self) {
        if let Some(chain) = self.piece.take(self.signal, self.bytes) {
            self.done.push(chain);
        }
    }
}

/// Never reached below this many pieces, and far above what real requests need.
pub const REPEATED_RATIO_MAX: u64 = 32;

#[cfg(test)]
mod tests;
