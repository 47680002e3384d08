//! Shapes by hand; `tests/oracle/cutting` compares random batches with prost.

use super::*;
use crate::check::check;
use crate::hash::stable_hash;
use crate::wire;

fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, &parts.concat());
    out
}

/// A resource group of one scope group around these children.
fn group(children: &[&[u8]]) -> Vec<u8> {
    let scope = field(1, &[&field(1, &[b"scope"])]);
    field(1, &[&field(1, &[&[2 << 3, 9]]), &field(2, &[&scope, &children.concat()])])
}

fn span(id: u8) -> Vec<u8> {
    field(2, &[&field(1, &[&[id; 16]])])
}

/// The first byte of a key is its shard.
fn first_byte(key: &[u8]) -> u64 {
    key.first().map_or(0, |first| u64::from(*first))
}

fn shards(signal: Signal, requests: &[&[u8]], key: Key<'_>, shards: usize) -> Vec<Shard> {
    let requests: Vec<_> = requests
        .iter()
        .map(|bytes| check(signal, Bytes::copy_from_slice(bytes)).unwrap())
        .collect();
    let requests: Vec<_> = requests
        .iter()
        .map(|checked| Request {
            parts: std::slice::from_ref(checked.bytes()),
            counts: checked.counts(),
            tenant: b"",
        })
        .collect();
    let out = split_by(signal, &requests, key, shards, first_byte);
    for shard in &out {
        let joined = check(signal, joined(shard).into()).unwrap();
        assert_eq!(joined.counts(), shard.chain.counts);
        assert_eq!(joined.bytes().len() as u64, shard.chain.bytes);
    }
    out
}

fn joined(shard: &Shard) -> Vec<u8> {
    shard.chain.parts.concat()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

#[test]
fn unknown_fields_at_every_level_are_in_every_shard() {
    let [in_request, in_group, in_scope, in_span] =
        [b"of request", b"of a group", b"of a scope", b"of a spann"].map(|text| field(77, &[text]));
    let spans = [0, 1].map(|id: u8| field(2, &[&in_span, &field(1, &[&[id; 16]])]));
    // Descending: children first, what belongs to the header behind them.
    let scope = field(2, &[&spans.concat(), &in_scope, &field(1, &[&field(1, &[b"scope"])])]);
    let request = [field(1, &[&scope, &in_group]), in_request.clone()].concat();
    let out = shards(Signal::Traces, &[&request], Key::TraceId, 2);
    assert_eq!(out.len(), 2);
    for (shard, span) in out.iter().zip(&spans) {
        let bytes = joined(shard);
        for part in [&in_request, &in_group, &in_scope, &in_span, span] {
            assert!(has(&bytes, part), "{part:?}");
        }
        assert_eq!(shard.chain.counts.items, 1);
    }
}

#[test]
fn adjacent_items_are_one_run_and_large_runs_are_shared() {
    let large = |id: u8| field(2, &[&field(1, &[&[id; 16]]), &field(5, &[&[b'n'; 300]])]);
    let request = group(&[&large(1), &large(1), &large(0), &large(1), &large(1)]);
    let checked = check(Signal::Traces, request.into()).unwrap();
    let parts = [checked.bytes().clone()];
    let whole = [Request { parts: &parts, counts: checked.counts(), tenant: b"" }];
    let out = split_by(Signal::Traces, &whole, Key::TraceId, 2, first_byte);
    assert_eq!(out[0].chain.parts.len(), 1);
    assert_eq!(out[1].chain.parts.len(), 3);
    let within = parts[0].as_ptr_range();
    assert!(out[1].chain.parts[1..].iter().all(|run| within.contains(&run.as_ptr())));
}

#[test]
fn tenants_and_single_groups_keep_their_bytes_where_they_are() {
    let request = Bytes::from(group(&[&span(1).repeat(40)]));
    let counts = check(Signal::Traces, request.clone()).unwrap().counts();
    let parts = [request.clone()];
    let whole = [Request { parts: &parts, counts, tenant: b"tenant" }];
    for key in [Key::Tenant, Key::SERVICE_NAME] {
        let out = split_by(Signal::Traces, &whole, key, 3, stable_hash);
        assert_eq!(out.len(), 1, "{key:?}");
        assert_eq!(out[0].chain.parts, [&request[..]], "{key:?}");
        assert_eq!(out[0].chain.parts[0].as_ptr(), request.as_ptr(), "{key:?}");
    }
}

#[test]
fn what_has_no_items_goes_with_the_empty_key() {
    let empty_group = field(1, &[&field(1, &[&[2 << 3, 7]])]);
    let empty_scope = field(2, &[&field(1, &[&field(1, &[b"alone"])])]);
    let request = [empty_group.clone(), field(1, &[&empty_scope]), group(&[&span(1)])].concat();
    let unknown = field(77, &[b"nothing else"]);
    let out = shards(Signal::Traces, &[&request, &unknown, b""], Key::TraceId, 2);
    let [first, second] = &out[..] else { panic!("{} shards", out.len()) };
    let nothing = |request| Origin { request, counts: Counts::default() };
    assert_eq!(first.origins, [nothing(0), nothing(1)]);
    for part in [&empty_group, &empty_scope, &unknown] {
        assert!(has(&joined(first), part), "{part:?}");
    }
    assert_eq!(joined(second), group(&[&span(1)]));
    assert_eq!(second.origins, [Origin { request: 0, counts: ONE }]);
}

#[test]
fn a_metric_is_cut_between_its_points_and_keeps_what_stands_above_them() {
    let point = |text: &[u8]| {
        let value = field(2, &[&field(1, &[text])]);
        field(1, &[&field(7, &[&field(1, &[b"host"]), &value])])
    };
    let points = [point(b"\x01"), point(b"\x00"), point(b"\x01")];
    let temporality = [2 << 3, 2];
    // The data comes in two parts, which are one message.
    let data = [field(7, &[&points[0], &temporality]), field(7, &[&points[1], &points[2]])];
    let metric = field(2, &[&field(1, &[b"name"]), &data.concat(), &field(3, &[b"unit"])]);
    let out = shards(Signal::Metrics, &[&group(&[&metric])], Key::Attribute("host"), 2);
    let cut = |points: &[u8]| {
        let data = field(7, &[&temporality, points]);
        group(&[&field(2, &[&field(1, &[b"name"]), &field(3, &[b"unit"]), &data])])
    };
    assert_eq!(joined(&out[0]), cut(&points[1]));
    assert_eq!(joined(&out[1]), cut(&[&points[0][..], &points[2]].concat()));
}

#[test]
fn d1_a_metric_of_two_kinds_of_data_goes_whole_with_the_empty_key() {
    let data = [field(5, &[&field(1, &[])]), field(7, &[&field(1, &[]).repeat(3)])];
    let request = group(&[&field(2, &[&data.concat()])]);
    let out = shards(Signal::Metrics, &[&request], Key::Attribute("host"), 4);
    assert_eq!((out.len(), out[0].index, out[0].chain.counts.items), (1, 0, 3));
    assert_eq!(joined(&out[0]), request);
}

#[test]
fn r1_profiles_stay_whole_and_alone() {
    let profile = field(2, &[&field(2, &[]).repeat(3)]);
    let request = [group(&[&profile]), group(&[&profile])].concat();
    for key in [Key::TraceId, Key::SERVICE_NAME, Key::MetricName, Key::Attribute("a")] {
        let out = shards(Signal::Profiles, &[&request, &request], key, 3);
        assert_eq!(out.len(), 2, "{key:?}");
        for (index, shard) in out.iter().enumerate() {
            assert_eq!(joined(shard), request, "{key:?}");
            let counts = Counts { items: 6, profiles: 2 };
            assert_eq!(shard.origins, [Origin { request: index, counts }], "{key:?}");
        }
    }
}

#[test]
fn millions_of_empty_items_are_one_run() {
    let request = field(1, &[&field(2, &[&field(2, &[]).repeat(1 << 19)])]);
    for key in [Key::TraceId, Key::Attribute("host"), Key::SERVICE_NAME] {
        let out = shards(Signal::Traces, &[&request], key, 8);
        assert_eq!((out.len(), out[0].chain.counts.items), (1, 1 << 19), "{key:?}");
        assert!(out[0].chain.parts.len() <= 2, "{key:?}");
    }
}

#[test]
fn a_header_in_a_million_pieces_is_gathered() {
    let unknown = field(77, &[b""]);
    let scopes = [&unknown[..], &field(2, &[&span(0)])].concat().repeat(1 << 16);
    let out = shards(Signal::Traces, &[&field(1, &[&scopes])], Key::TraceId, 1);
    assert_eq!(out[0].chain.counts.items, 1 << 16);
    assert_eq!(memchr::memmem::find_iter(&joined(&out[0]), &unknown).count(), 1 << 16);
}

#[test]
fn headers_are_repeated_only_so_often_that_a_request_cannot_become_a_flood() {
    let resource = field(1, &[&field(1, &[&field(1, &[&[b'x'; 90_000]])])]);
    let spans: Vec<u8> = (0..200).flat_map(span).collect();
    let request = field(1, &[&resource, &field(2, &[&spans])]);
    let out = shards(Signal::Traces, &[&request], Key::TraceId, 256);
    let bytes: u64 = out.iter().map(|shard| shard.chain.bytes).sum();
    assert!(bytes <= request.len() as u64 * (REPEATED_RATIO_MAX + 2), "{bytes} bytes");
    assert!(out.len() as u64 > REPEATED_RATIO_MAX);
    assert_eq!(out.iter().map(|shard| shard.chain.counts.items).sum::<u64>(), 200);
}
