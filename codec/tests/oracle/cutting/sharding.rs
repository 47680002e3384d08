//! `split_by` sends every item where its key says, under what stood above it, and knows whose it
//! is.

use bytes::Bytes;
use fastrand::Rng;
use forebay_codec::hash::stable_hash;
use forebay_codec::signal::{Counts, Signal};
use forebay_codec::splice::{Chain, Merger};
use forebay_codec::split::by::{Key, Request, Shard, split_by};
use forebay_codec::view;

use super::keys::keys;
use super::{batch, honest};
use crate::decoded::Decoded;

/// Two keys that the generator writes often.
const NAMES: [&str; 2] = ["", "é☂😀\"\\\n\u{0}\u{7f}/"];

fn key(random: &mut Rng) -> Key<'static> {
    let name = NAMES[random.usize(0..NAMES.len())];
    match random.u8(0..5) {
        0 => Key::Tenant,
        1 => Key::Resource(name),
        2 => Key::TraceId,
        3 => Key::MetricName,
        _ => Key::Attribute(name),
    }
}

#[test]
fn every_item_is_in_the_shard_of_its_key_once_and_in_order_and_its_request_is_known() {
    let mut moved = 0;
    for seed in 0..1_500 {
        let chains = batch(seed);
        let mut random = Rng::with_seed(!seed);
        let key = key(&mut random);
        let shards = random.usize(1..6);
        let note = format!("seed {seed}, {}, {key:?}, {shards} shards", chains[0].signal);
        let out = split(&chains, key, shards);
        moved += compared(&chains, key, shards, &out, &note);
    }
    assert!(moved > 2_000, "only {moved} items beside the first shard: the test tests little");
}

#[test]
fn what_was_merged_is_split_as_what_was_not() {
    let mut merger = Merger::new();
    for seed in 0..500 {
        let mut whole = Chain::new(batch(seed)[0].signal);
        for chain in batch(seed).into_iter().cycle().take(6) {
            if whole.takes(chain.signal) {
                whole.append(chain);
            }
        }
        if let Some(merged) = merger.merge(&whole, 0) {
            let key = key(&mut Rng::with_seed(!seed));
            let chains = [merged.chain];
            let out = split(&chains, key, 4);
            compared(&chains, key, 4, &out, &format!("seed {seed}, {key:?}"));
        }
    }
}

#[test]
fn parts_that_end_anywhere_lose_nothing_and_are_not_merged_into_nonsense() {
    let mut merger = Merger::new();
    for seed in 0..500 {
        let mut random = Rng::with_seed(!seed);
        let chains: Vec<Chain> = batch(seed).iter().map(|chain| cut(chain, &mut random)).collect();
        let key = key(&mut random);
        let note = format!("seed {seed}, {key:?}");
        let out = split(&chains, key, 4);
        compared(&chains, key, 4, &out, &note);
        for chain in &chains {
            for group in view::chain_groups(chain) {
                group.resource().attributes().iter().for_each(drop);
                group.scopes().for_each(|scope| assert!(scope.scope().name().len() < 1_000));
            }
            if let Some(merged) = merger.merge(chain, 0) {
                honest(&merged.chain, &note);
            }
        }
    }
}

/// The same bytes in parts that end anywhere.
fn cut(chain: &Chain, random: &mut Rng) -> Chain {
    let mut left = Bytes::from(chain.parts.concat());
    let mut parts = Vec::new();
    while !left.is_empty() {
        parts.push(left.split_to(random.usize(1..=left.len())));
    }
    Chain { parts, ..chain.clone() }
}

fn tenant(request: usize) -> Vec<u8> {
    vec![b't', request as u8 % 3]
}

fn split(chains: &[Chain], key: Key<'_>, shards: usize) -> Vec<Shard> {
    let tenants: Vec<_> = (0..chains.len()).map(tenant).collect();
    let requests: Vec<_> = chains
        .iter()
        .zip(&tenants)
        .map(|(chain, tenant)| Request { parts: &chain.parts, counts: chain.counts, tenant })
        .collect();
    split_by(chains[0].signal, &requests, key, shards, stable_hash)
}

/// Holds the shards to what prost says; returns how many items are not in the first of them.
fn compared(chains: &[Chain], key: Key<'_>, shards: usize, out: &[Shard], note: &str) -> u64 {
    let mut items = vec![Vec::new(); shards];
    let mut counts = vec![vec![0; chains.len()]; shards];
    let mut total = Counts::default();
    for (index, chain) in chains.iter().enumerate() {
        let request = Decoded::from_proto(chain.signal, &chain.parts.concat()).expect(note);
        let keys = keys(&request, key, &tenant(index));
        total += chain.counts;
        if chain.signal == Signal::Profiles {
            if !chain.is_empty() {
                let shard = place(&keys[0], shards);
                let is_there = |out: &&Shard| out.origins[0].request == index;
                let mut found = out.iter().filter(is_there);
                let found = (found.next().expect(note), found.next());
                assert!(found.1.is_none(), "{note}");
                assert_eq!((found.0.index, found.0.origins.len()), (shard, 1), "{note}");
                assert_eq!(honest(&found.0.chain, note).to_proto(), request.to_proto(), "{note}");
            }
            continue;
        }
        let all = request.items();
        assert_eq!(all.len(), keys.len(), "{note}");
        for (item, key) in all.into_iter().zip(keys) {
            let shard = place(&key, shards);
            items[shard].push(item);
            counts[shard][index] += 1;
        }
    }
    let mut came = Counts::default();
    let mut moved = 0;
    for shard in out {
        let decoded = honest(&shard.chain, note);
        let mut of_origins = Counts::default();
        for origin in &shard.origins {
            of_origins += origin.counts;
            let expected = counts[shard.index][origin.request];
            let is_whole = shard.chain.signal == Signal::Profiles;
            assert!(origin.counts.items == expected || is_whole, "{note}");
        }
        assert!(shard.origins.is_sorted_by(|a, b| a.request < b.request), "{note}");
        assert_eq!(of_origins, shard.chain.counts, "{note}");
        came += of_origins;
        assert!(decoded.items() == items[shard.index], "{note}, shard {}", shard.index);
        moved += if shard.index > 0 { of_origins.items } else { 0 };
    }
    assert!(out.is_sorted_by_key(|shard| shard.index), "{note}");
    assert_eq!(came, total, "{note}");
    moved
}

fn place(key: &[u8], shards: usize) -> usize {
    (stable_hash(key) % shards as u64) as usize
}
