//! The number that every item carries, and where it lies in a request.
//!
//! Eight bytes, little-endian: `0x41` and a tag of the run (16 bits), the load thread that made it
//! (8 bits), and its place in that thread's sequence (40 bits). It stands where OTLP has eight
//! bytes anyway: a span's and a log record's `span_id`, an integer data point's `as_int`, a
//! histogram point's `sum` (as a double it is an everyday number: that is what `0x41` is for).
//!
//! Always: the width never changes, so a number is written over another in place.
//! Source of the field numbers: opentelemetry-proto 1.11.

use std::ops::Range;

use forebay_codec::signal::Signal;
use forebay_codec::wire;

pub const ID_BYTES: usize = 8;
const SEQUENCE_BITS: u32 = 40;
const SOURCE_BITS: u32 = 8;
const MARK: u64 = 0x41;

/// What an item's number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Tells items of this run from those of any other.
    pub run: u8,
    /// The load thread.
    pub source: u8,
    /// Counted from 0 by that thread.
    pub sequence: u64,
}

impl Id {
    pub fn to_bits(self) -> u64 {
        debug_assert!(self.sequence >> SEQUENCE_BITS == 0);
        let head = MARK << 8 | u64::from(self.run);
        (head << SOURCE_BITS | u64::from(self.source)) << SEQUENCE_BITS | self.sequence
    }

    /// `None`: not a number of ours.
    pub fn from_bits(bits: u64) -> Option<Id> {
        let head = bits >> (SEQUENCE_BITS + SOURCE_BITS);
        (head >> 8 == MARK).then_some(Id {
            run: head as u8,
            source: (bits >> SEQUENCE_BITS) as u8,
            sequence: bits & ((1 << SEQUENCE_BITS) - 1),
        })
    }
}

/// Calls `found` with the number's place for each item of a request, in wire order, and with
/// `None` for an item that has none. Profiles have no items here.
///
/// The request must be valid: behind a malformed field nothing is found.
pub fn each_id(signal: Signal, request: &[u8], mut found: impl FnMut(Option<Range<usize>>)) {
    each(request, 0..request.len(), 1, |group| {
        each(request, group, 2, |scope| {
            each(request, scope, 2, |item| match signal {
                Signal::Traces => found(field(request, item, 2)),
                Signal::Logs => found(field(request, item, 10)),
                Signal::Metrics => each_point(request, item, &mut found),
                Signal::Profiles => {}
            });
        });
    });
}

/// Gauge (5) and sum (7) points carry it as `as_int` (6), histogram (9) points as `sum` (5).
fn each_point(request: &[u8], metric: Range<usize>, found: &mut impl FnMut(Option<Range<usize>>)) {
    for data in wire::Fields::new(request, metric) {
        let number = match data.number {
            5 | 7 => 6,
            9 => 5,
            _ => continue,
        };
        each(request, data.value, 1, |point| found(field(request, point, number)));
    }
}

fn each(request: &[u8], message: Range<usize>, number: u32, mut go: impl FnMut(Range<usize>)) {
    for field in wire::Fields::new(request, message) {
        if field.number == number {
            go(field.value);
        }
    }
}

fn field(request: &[u8], message: Range<usize>, number: u32) -> Option<Range<usize>> {
    wire::Fields::new(request, message)
        .find(|field| field.number == number)
        .map(|field| field.value)
        .filter(|value| value.len() == ID_BYTES)
}

/// The number at a place that [`each_id`] found.
pub fn bits_at(request: &[u8], place: Range<usize>) -> u64 {
    let bytes: [u8; ID_BYTES] = request[place].try_into().expect("each_id finds eight bytes");
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_whole_and_others_are_not_taken_for_ours() {
        for (run, source, sequence) in [(0, 0, 0), (255, 255, (1 << 40) - 1), (7, 3, 123_456)] {
            let id = Id { run, source, sequence };
            assert_eq!(Id::from_bits(id.to_bits()), Some(id));
            assert!(f64::from_bits(id.to_bits()).is_finite());
            assert!(id.to_bits() <= i64::MAX as u64);
        }
        assert_eq!(Id::from_bits(0), None);
        assert_eq!(Id::from_bits(u64::MAX), None);
    }
}
