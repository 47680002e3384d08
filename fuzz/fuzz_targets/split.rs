//! The pieces of a request are valid requests that keep to the limits and hold all its items.
#![no_main]

use forebay_codec::check::check;
use forebay_codec::signal::{Counts, Signal};
use forebay_codec::split::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [items_max, low, high, input @ ..] = input else { return };
    let (items_max, bytes_max) =
        (u64::from(*items_max), u64::from(u16::from_le_bytes([*low, *high])));
    let Some(checked) = forebay_fuzz::checked(input) else { return };
    let (signal, counts) = (checked.signal(), checked.counts());
    let mut total = Counts::default();
    for piece in split(checked, items_max, bytes_max) {
        let bytes = piece.parts.concat();
        assert_eq!(bytes.len() as u64, piece.bytes);
        let again = check(signal, bytes.into()).expect("a piece is a valid request");
        assert_eq!(again.counts(), piece.counts);
        total += piece.counts;
    }
    // The counts of a metric whose data was set twice are those of its last kind, so that a piece
    // may hold what the whole did not count.
    assert!(total == counts || signal == Signal::Metrics, "{total:?} of {counts:?}");
});
