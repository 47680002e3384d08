//! What the data path does for each request allocates nothing, however many items one holds.
//!
//! Counted by an allocator that notes what the thread asks for, not by reading the code.

use std::hint::black_box;

use allocation_counter::measure;
use bytes::Bytes;
use forebay_codec::check::check;
use forebay_codec::signal::Signal;
use forebay_codec::splice::Chain;
use forebay_codec::{view, wire};

const ITEMS: usize = 1_000;

#[test]
fn check_allocates_nothing() {
    for signal in Signal::ALL {
        let bytes = request(signal, ITEMS);
        let mut items = 0;
        let counted = measure(|| {
            items = check(signal, bytes.clone()).expect("it is valid").counts().items;
        });
        assert_eq!(counted.count_total, 0, "{signal}: {counted:?}");
        assert_eq!(items, ITEMS as u64, "{signal}");
    }
}

#[test]
fn check_of_fields_in_descending_order_allocates_nothing() {
    // A scope group with its URL first, then its items, each with its later fields first.
    let bytes = shared(nested(&[1, 2], &[text(3, "url"), item(Signal::Traces)].concat()));
    let counted = measure(|| {
        black_box(check(Signal::Traces, bytes.clone()).expect("it is valid"));
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn a_refused_request_allocates_for_its_error_and_not_for_its_size() {
    let allocations = [1, ITEMS].map(|items| {
        let mut bytes = request(Signal::Traces, items).to_vec();
        bytes.push(0);
        let bytes = shared(bytes);
        measure(|| {
            black_box(check(Signal::Traces, bytes.clone()).expect_err("a tag of zero"));
        })
        .count_total
    });
    assert_eq!(allocations[0], allocations[1]);
    assert!(allocations[0] < 10, "{allocations:?}");
}

#[test]
fn a_view_of_every_item_and_its_attributes_allocates_nothing() {
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let checked = check(signal, request(signal, ITEMS)).expect("it is valid");
        let mut items = 0;
        let counted = measure(|| {
            for group in view::groups(&checked) {
                black_box(group.resource().service_name());
                for scope in group.scopes() {
                    black_box(scope.scope().name());
                    for span in scope.spans() {
                        black_box((span.trace_id(), span.attributes().value("key").is_some()));
                        items += 1;
                    }
                    for record in scope.log_records() {
                        black_box((record.body(), record.attributes().value("key").is_some()));
                        items += 1;
                    }
                    for point in scope.metrics().flat_map(|metric| metric.points()) {
                        black_box(point.attributes().iter().count());
                        items += 1;
                    }
                }
            }
        });
        assert_eq!(counted.count_total, 0, "{signal}: {counted:?}");
        assert_eq!(items, ITEMS as u64, "{signal}");
    }
}

#[test]
fn a_splice_into_a_chain_that_was_as_long_before_allocates_nothing() {
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let requests = [(); 64].map(|()| check(signal, request(signal, 10)).expect("it is valid"));
        let mut chain = Chain::new(signal);
        requests.iter().cloned().for_each(|request| chain.push(request));
        chain.parts.clear();
        let counted = measure(|| {
            requests.iter().cloned().for_each(|request| chain.push(request));
        });
        assert_eq!(counted.count_total, 0, "{signal}: {counted:?}");
        assert_eq!(chain.parts.len(), requests.len());
    }
}

#[test]
fn a_splice_allocates_only_as_its_list_of_parts_doubles() {
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let request = check(signal, request(signal, 10)).expect("it is valid");
        let mut chain = Chain::new(signal);
        let counted = measure(|| (0..1_024).for_each(|_| chain.push(request.clone())));
        assert!(counted.count_total <= 10, "{signal}: {counted:?} for 1,024 requests");
    }
}

/// A valid request with so many items: spans, data points of a gauge, log records or samples.
fn request(signal: Signal, items: usize) -> Bytes {
    let items = item(signal).repeat(items);
    let path: &[u32] = match signal {
        Signal::Traces | Signal::Logs => &[1, 2],
        Signal::Metrics => &[1, 2, 2, 5],
        Signal::Profiles => &[1, 2, 2],
    };
    shared(nested(path, &items))
}

/// As the engine has them: bytes that were cut off a buffer, which costs one allocation once.
fn shared(bytes: Vec<u8>) -> Bytes {
    let bytes = Bytes::from(bytes);
    drop(bytes.clone());
    bytes
}

/// One item as a field of the message around it.
fn item(signal: Signal) -> Vec<u8> {
    let key_value = [text(1, "http.route"), nested(&[2], &text(1, "/items"))].concat();
    let attributes = |number| nested(&[number], &key_value).repeat(4);
    match signal {
        Signal::Traces => {
            let ids = [text(1, "0123456789abcdef"), text(2, "01234567")].concat();
            nested(&[2], &[attributes(9), text(5, "GET /items"), ids].concat())
        }
        Signal::Metrics => nested(&[1], &attributes(7)),
        Signal::Logs => {
            let body = nested(&[5], &text(1, "order accepted"));
            nested(&[2], &[text(3, "INFO"), body, attributes(6)].concat())
        }
        Signal::Profiles => nested(&[2], &text(4, "\u{1}\u{2}")),
    }
}

fn text(number: u32, text: &str) -> Vec<u8> {
    nested(&[number], text.as_bytes())
}

/// The bytes inside fields of these numbers, outermost first.
fn nested(path: &[u32], bytes: &[u8]) -> Vec<u8> {
    path.iter().rev().fold(bytes.to_vec(), |inner, &number| {
        let mut around = Vec::new();
        wire::put_bytes(&mut around, number, &inner);
        around
    })
}
