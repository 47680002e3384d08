//! Log records as an application writes them: about 250 bytes with three attributes.

use fastrand::Rng;

use super::*;

/// Puts `items` log records into a `ScopeLogs`.
pub(super) fn put(scope: &mut Vec<u8>, items: usize, attributes: usize, random: &mut Rng) {
    let mut time = EPOCH_NANOS + random.u64(..3_600_000_000_000);
    let mut record = Vec::new();
    for _ in 0..items {
        time += random.u64(..5_000_000);
        record.clear();
        put_fixed64(&mut record, 1, time);
        let (number, text) = severity(random);
        put_enum(&mut record, 2, number);
        put_bytes(&mut record, 3, text.as_bytes());
        let mut body = Vec::new();
        put_bytes(&mut body, 1, line(random).as_bytes());
        put_bytes(&mut record, 5, &body);
        put_attributes(&mut record, 6, attributes, random);
        put_bytes(&mut record, 9, &random.u128(1..).to_be_bytes());
        put_id_bytes(&mut record, 10);
        put_fixed64(&mut record, 11, time + random.u64(..1_000_000));
        put_bytes(scope, 2, &record);
    }
}

fn severity(random: &mut Rng) -> (u64, &'static str) {
    match random.u8(..) {
        0..4 => (17, "ERROR"),
        4..20 => (13, "WARN"),
        _ => (9, "INFO"),
    }
}

fn line(random: &mut Rng) -> String {
    let (order, user) = (random.u32(..10_000_000), random.u32(..));
    let ms = f64::from(random.u32(..90_000)) / 100.0;
    match random.u8(0..3) {
        0 => format!(
            "order {order} of user {user:08x} was accepted by the payment provider after {ms} ms"
        ),
        1 => format!(
            "cache miss for item {order}, read from the replica of the database in {ms} ms, now kept for 5m"
        ),
        _ => format!(
            "user {user:08x} opened a session from a known device, {} items in the cart",
            order % 40
        ),
    }
}
