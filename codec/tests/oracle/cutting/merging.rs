//! Merging a chain, then decoding it, is decoding it, then merging.

use fastrand::Rng;
use forebay_codec::check::check;
use forebay_codec::signal::Signal;
use forebay_codec::splice::{Chain, Merger};
use prost::Message;

use super::{batch, honest};
use crate::decoded::Decoded;
use crate::generate;

#[test]
fn merging_then_decoding_is_decoding_then_merging() {
    let mut merger = Merger::new();
    let (mut merged, mut saved) = (0, 0);
    for seed in 0..1_000 {
        let mut random = Rng::with_seed(seed);
        let signal = Signal::ALL[random.usize(0..3)];
        let kinds: Vec<_> = (0..3).map(|_| generate::request(signal, &mut random)).collect();
        let mut chain = Chain::new(signal);
        for _ in 0..random.usize(1..8) {
            let bytes = kinds[random.usize(0..kinds.len())].to_proto();
            chain.push(check(signal, bytes.into()).unwrap());
        }
        let note = format!("seed {seed}, {signal}");
        let mut expected = Decoded::from_proto(signal, &chain.parts.concat()).unwrap();
        merge(&mut expected);
        let Some(came) = merger.merge(&chain, 0) else { panic!("{note}: not merged") };
        let decoded = honest(&came.chain, &note);
        assert_eq!(decoded.to_proto(), expected.to_proto(), "{note}");
        assert_eq!(came.chain.counts, chain.counts, "{note}");
        assert_eq!(came.saved_bytes, chain.bytes - came.chain.bytes, "{note}");
        // It says before it writes whether it pays.
        assert!(merger.merge(&chain, came.saved_bytes + 1).is_none(), "{note}");
        merged += usize::from(came.saved_bytes > 0);
        saved += came.saved_bytes;
    }
    assert!(merged > 500 && saved > 100_000, "{merged} merged: the test tests little");
}

#[test]
fn in_every_legal_form_the_same_items_stay_under_the_same_headers() {
    let mut merger = Merger::new();
    for seed in 0..1_000 {
        let mut chain = Chain::new(batch(seed)[0].signal);
        for request in batch(seed).into_iter().chain(batch(seed)) {
            if chain.takes(request.signal) {
                chain.append(request);
            }
        }
        let merged = merger.merge(&chain, 0);
        let Some(merged) = merged.filter(|_| chain.signal != Signal::Profiles) else { continue };
        let note = format!("seed {seed}, {}", chain.signal);
        let mut before = honest(&chain, &note).items();
        let mut after = honest(&merged.chain, &note).items();
        before.sort();
        after.sort();
        assert_eq!(before, after, "{note}");
    }
}

/// With prost's types: groups, then scopes in them, in the order of their first.
fn merge(request: &mut Decoded) {
    macro_rules! merge {
        ($groups:expr, $scopes:ident, $items:ident) => {{
            let mut merged: Vec<(Vec<u8>, _)> = Vec::new();
            for mut group in std::mem::take(&mut $groups) {
                let scopes = std::mem::take(&mut group.$scopes);
                let header = group.encode_to_vec();
                match merged.iter_mut().find(|(own, _)| *own == header) {
                    None => {
                        group.$scopes = scopes;
                        merged.push((header, group));
                    }
                    Some((_, group)) => group.$scopes.extend(scopes),
                }
            }
            $groups = merged.into_iter().map(|(_, group)| group).collect();
            for group in &mut $groups {
                let mut merged: Vec<(Vec<u8>, _)> = Vec::new();
                for mut scope in std::mem::take(&mut group.$scopes) {
                    let items = std::mem::take(&mut scope.$items);
                    let header = scope.encode_to_vec();
                    match merged.iter_mut().find(|(own, _)| *own == header) {
                        None => {
                            scope.$items = items;
                            merged.push((header, scope));
                        }
                        Some((_, scope)) => scope.$items.extend(items),
                    }
                }
                group.$scopes = merged.into_iter().map(|(_, scope)| scope).collect();
            }
        }};
    }
    match request {
        Decoded::Traces(request) => merge!(request.resource_spans, scope_spans, spans),
        Decoded::Logs(request) => merge!(request.resource_logs, scope_logs, log_records),
        Decoded::Metrics(request) => merge!(request.resource_metrics, scope_metrics, metrics),
        Decoded::Profiles(_) => {}
    }
}
