//! Data points as a runtime's and a server's instruments write them: counters, gauges, histograms.

use fastrand::Rng;

use super::*;

/// Points of one metric that share its name and unit.
const POINTS_PER_METRIC: usize = 8;

/// Puts metrics with `items` data points in all into a `ScopeMetrics`.
pub(super) fn put(scope: &mut Vec<u8>, items: usize, attributes: usize, random: &mut Rng) {
    let time = EPOCH_NANOS + random.u64(..3_600_000_000_000);
    let mut left = items;
    let mut nth = 0usize;
    while left > 0 {
        let points = left.min(POINTS_PER_METRIC);
        left -= points;
        let metric = match nth % 4 {
            3 => histogram(points, attributes, time, random),
            kind => number(kind, points, attributes, time, random),
        };
        put_bytes(scope, 2, &metric);
        nth += 1;
    }
}

fn number(kind: usize, points: usize, attributes: usize, time: u64, random: &mut Rng) -> Vec<u8> {
    let is_sum = kind != 0;
    let name = match is_sum {
        true => pick(random, &["http.server.requests", "jvm.gc.count", "db.client.calls"]),
        false => pick(random, &["process.memory.usage", "queue.depth", "jvm.threads"]),
    };
    let mut data = Vec::new();
    for _ in 0..points {
        let mut point = Vec::new();
        put_fixed64(&mut point, 2, time - 600_000_000_000);
        put_fixed64(&mut point, 3, time);
        put_fixed64(&mut point, 6, 0);
        put_attributes(&mut point, 7, attributes, random);
        put_bytes(&mut data, 1, &point);
    }
    if is_sum {
        put_enum(&mut data, 2, 2);
        put_enum(&mut data, 3, 1);
    }
    let mut metric = Vec::new();
    put_bytes(&mut metric, 1, name.as_bytes());
    put_bytes(&mut metric, 3, b"1");
    put_bytes(&mut metric, if is_sum { 7 } else { 5 }, &data);
    metric
}

fn histogram(points: usize, attributes: usize, time: u64, random: &mut Rng) -> Vec<u8> {
    let bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let bounds: Vec<u8> = bounds.iter().flat_map(|bound: &f64| bound.to_le_bytes()).collect();
    let mut data = Vec::new();
    for _ in 0..points {
        let buckets: Vec<u64> = (0..11).map(|_| random.u64(..500)).collect();
        let packed: Vec<u8> = buckets.iter().flat_map(|count| count.to_le_bytes()).collect();
        let mut point = Vec::new();
        put_fixed64(&mut point, 2, time - 600_000_000_000);
        put_fixed64(&mut point, 3, time);
        put_fixed64(&mut point, 4, buckets.iter().sum());
        put_fixed64(&mut point, 5, 0);
        put_bytes(&mut point, 6, &packed);
        put_bytes(&mut point, 7, &bounds);
        put_attributes(&mut point, 9, attributes, random);
        put_bytes(&mut data, 1, &point);
    }
    put_enum(&mut data, 2, 2);
    let mut metric = Vec::new();
    put_bytes(&mut metric, 1, b"http.server.request.duration");
    put_bytes(&mut metric, 3, b"s");
    put_bytes(&mut metric, 9, &data);
    metric
}
