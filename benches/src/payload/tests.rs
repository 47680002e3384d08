//! The requests are valid OTLP, as large as they say, and never the same twice.

use std::collections::HashSet;

use forebay_codec::check::check;

use super::*;
use crate::items::bits_at;

const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

fn shape(signal: Signal, items: usize, seed: u64) -> Shape {
    Shape { signal, items, attributes: 8, encoding: Encoding::Identity, seed }
}

#[test]
fn every_request_is_valid_and_has_its_items_whatever_the_seed() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for signal in SIGNALS {
        for items in [1, 2, 10, 100, 513] {
            let pool = Pool::make(&shape(signal, items, seed), 1, 2).unwrap();
            for request in &pool.requests {
                let checked = check(signal, Bytes::from(request.body.clone())).unwrap();
                assert_eq!(checked.counts().items, items as u64, "{signal} {items}");
            }
        }
    }
}

#[test]
fn each_sending_numbers_the_items_anew_and_nothing_else_changes_size() {
    for signal in SIGNALS {
        let mut pool = Pool::make(&shape(signal, 10, 5), 3, 4).unwrap();
        let mut seen = HashSet::new();
        for turn in 0..2_000u64 {
            let index = pool.next(Id { run: 3, source: 4, sequence: turn * 10 });
            let body = &pool.requests[index].body;
            each_id(signal, body, |place| {
                let id = Id::from_bits(bits_at(body, place.unwrap())).unwrap();
                assert_eq!((id.run, id.source), (3, 4));
                assert!(seen.insert(id.sequence));
            });
        }
        assert_eq!(seen.len(), 20_000);
    }
}

#[test]
fn spans_and_logs_have_the_sizes_that_figures_are_quoted_for() {
    let mean = |signal, attributes| {
        let shape = Shape { attributes, ..shape(signal, 1000, 7) };
        Pool::make(&shape, 0, 0).unwrap().mean_bytes() / 1000.0
    };
    let (span, log) = (mean(Signal::Traces, 8), mean(Signal::Logs, 3));
    assert!((370.0..410.0).contains(&span), "a span has {span} bytes");
    assert!((235.0..265.0).contains(&log), "a log record has {log} bytes");
}

#[test]
fn compression_finds_no_more_than_it_would_in_real_telemetry() {
    let plain = Pool::make(&shape(Signal::Traces, 100, 1), 0, 0).unwrap();
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let packed = Shape { encoding, ..shape(Signal::Traces, 100, 1) };
        let packed = Pool::make(&packed, 0, 0).unwrap();
        assert!(packed.is_repeating && !plain.is_repeating);
        let ratio = plain.mean_bytes() / packed.mean_bytes();
        assert!((3.0..9.0).contains(&ratio), "{encoding:?}: {ratio}");
    }
}
