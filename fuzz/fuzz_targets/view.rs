//! A view of any request that passed sees as many items as were counted, and never panics.
#![no_main]

use forebay_codec::signal::Signal;
use forebay_codec::view::{self, Attributes, KeySpace, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(checked) = forebay_fuzz::checked(input) else { return };
    let mut items = 0;
    for group in view::groups(&checked) {
        look(group.resource().attributes());
        for scope in group.scopes() {
            look(scope.scope().attributes());
            for span in scope.spans() {
                assert!(matches!(span.trace_id().len(), 0 | 16));
                look(span.attributes());
                items += 1;
            }
            for record in scope.log_records() {
                look_into(record.body(), 3);
                look(record.attributes());
                items += 1;
            }
            for metric in scope.metrics() {
                for point in metric.points() {
                    look(point.attributes());
                    items += 1;
                }
            }
        }
    }
    let is_seen = checked.signal() != Signal::Profiles;
    assert!(!is_seen || items == checked.counts().items, "{items} of {:?}", checked.counts());
});

fn look(attributes: Attributes<'_>) {
    for (key, value) in attributes.iter() {
        assert!(attributes.value(key).is_some());
        look_into(value, 3);
    }
}

fn look_into(value: Value<'_>, depth: usize) {
    let mut space = KeySpace::default();
    std::hint::black_box(value.key(&mut space));
    match value {
        Value::Array(values) if depth > 0 => {
            values.iter().for_each(|value| look_into(value, depth - 1));
        }
        Value::Map(pairs) if depth > 0 => look(pairs),
        _ => {}
    }
}
