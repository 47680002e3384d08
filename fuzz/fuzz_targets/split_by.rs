//! Shards are valid requests, hold all items between them, and say exactly whose they are.
#![no_main]

use forebay_codec::check::check;
use forebay_codec::hash::stable_hash;
use forebay_codec::signal::{Counts, Signal};
use forebay_codec::split::by::{Key, Request, split_by};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [how, shards, input @ ..] = input else { return };
    let key = match how % 5 {
        0 => Key::TraceId,
        1 => Key::SERVICE_NAME,
        2 => Key::MetricName,
        3 => Key::Attribute("k"),
        _ => Key::Tenant,
    };
    let Some(checked) = forebay_fuzz::checked(input) else { return };
    let (signal, counts) = (checked.signal(), checked.counts());
    let parts = [checked.into_bytes()];
    let request = Request { parts: &parts, counts, tenant: b"tenant" };
    let shards = usize::from(*shards % 9);
    let mut total = Counts::default();
    for shard in split_by(signal, &[request, request], key, shards, stable_hash) {
        let bytes = shard.chain.parts.concat();
        let again = check(signal, bytes.into()).expect("a shard is a valid request");
        assert_eq!(again.counts(), shard.chain.counts);
        let mut of_origins = Counts::default();
        shard.origins.iter().for_each(|origin| of_origins += origin.counts);
        assert_eq!(of_origins, shard.chain.counts);
        total += shard.chain.counts;
    }
    let mut twice = counts;
    twice += counts;
    // The counts of a metric whose data was set twice are those of its last kind, so that a shard
    // may hold what the whole did not count.
    assert!(total == twice || signal == Signal::Metrics, "{total:?} of {twice:?}");
});
