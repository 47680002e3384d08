//! Spans as an HTTP service writes them: about 390 bytes with eight attributes.

use fastrand::Rng;

use super::*;

/// Puts `items` spans into a `ScopeSpans`.
pub(super) fn put(scope: &mut Vec<u8>, items: usize, attributes: usize, random: &mut Rng) {
    let mut trace = trace_id(random);
    let mut begin = EPOCH_NANOS + random.u64(..3_600_000_000_000);
    let mut span = Vec::new();
    for _ in 0..items {
        // A few spans in a row belong to one trace.
        if random.u8(..) < 64 {
            trace = trace_id(random);
        }
        begin += random.u64(..2_000_000);
        span.clear();
        put_bytes(&mut span, 1, &trace);
        put_id_bytes(&mut span, 2);
        if random.u8(..) < 190 {
            put_bytes(&mut span, 4, &random.u64(1..).to_be_bytes());
        }
        let name = pick(random, &["GET /api/orders/{id}", "POST /api/cart", "SELECT orders"]);
        put_bytes(&mut span, 5, name.as_bytes());
        put_enum(&mut span, 6, random.u64(1..4));
        put_fixed64(&mut span, 7, begin);
        put_fixed64(&mut span, 8, begin + random.u64(50_000..900_000_000));
        put_attributes(&mut span, 9, attributes, random);
        if random.u8(..) < 16 {
            put_bytes(&mut span, 11, &event(begin, random));
        }
        put_bytes(&mut span, 15, &[]);
        put_bytes(scope, 2, &span);
    }
}

fn trace_id(random: &mut Rng) -> [u8; 16] {
    random.u128(1..).to_be_bytes()
}

fn event(begin: u64, random: &mut Rng) -> Vec<u8> {
    let mut event = Vec::new();
    put_fixed64(&mut event, 1, begin + random.u64(..50_000));
    put_bytes(&mut event, 2, b"exception");
    put_text(&mut event, 3, "exception.type", pick(random, &["TimeoutError", "ConnectionError"]));
    event
}
