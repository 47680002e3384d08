//! Shapes by hand; `tests/oracle/cutting.rs` compares random requests with prost.

use super::*;
use crate::check::check;
use crate::wire;

fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, &parts.concat());
    out
}

/// A resource group of one scope group around these children.
fn group(children: &[&[u8]]) -> Vec<u8> {
    let resource = field(1, &[&field(3, &[b""])]);
    let scope = field(1, &[&field(1, &[b"scope"])]);
    let children = children.concat();
    field(1, &[&resource, &field(2, &[&scope, &children, &field(3, &[b"url"])])])
}

fn pieces(signal: Signal, bytes: &[u8], items_max: u64, bytes_max: u64) -> Vec<Chain> {
    let checked = check(signal, Bytes::copy_from_slice(bytes)).unwrap();
    let pieces = split(checked, items_max, bytes_max);
    for piece in &pieces {
        let joined = check(signal, piece.parts.concat().into()).unwrap();
        assert_eq!(joined.counts(), piece.counts);
        assert_eq!(joined.bytes().len() as u64, piece.bytes);
    }
    pieces
}

fn items(pieces: &[Chain]) -> Vec<u64> {
    pieces.iter().map(|piece| piece.counts.items).collect()
}

fn joined(piece: &Chain) -> Vec<u8> {
    piece.parts.concat()
}

#[test]
fn what_fits_comes_back_as_it_is() {
    let bytes = group(&[&field(2, &[]), &field(2, &[])]);
    for (items_max, bytes_max) in [(0, 0), (2, 0), (0, bytes.len() as u64), (9, 999)] {
        let pieces = pieces(Signal::Traces, &bytes, items_max, bytes_max);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].parts, [&bytes[..]]);
    }
    assert_eq!(pieces(Signal::Logs, b"", 1, 1).len(), 1);
}

#[test]
fn pieces_are_filled_to_the_limit_and_repeat_the_headers() {
    let span = field(2, &[&field(5, &[b"n"])]);
    let unknown = field(77, &[b"new"]);
    let bytes = [group(&[&span.repeat(5)]), unknown.clone(), group(&[&span.repeat(2)])].concat();
    let pieces = pieces(Signal::Traces, &bytes, 3, 0);
    assert_eq!(items(&pieces), [3, 3, 1]);
    // The request's unknown field is part of its header, and a header comes first. In a group that
    // is cut, too, the trailing schema URL moves before the spans.
    let resource = field(1, &[&field(3, &[b""])]);
    let scope = [field(1, &[&field(1, &[b"scope"])]), field(3, &[b"url"])].concat();
    let cut = |spans| field(1, &[&resource, &field(2, &[&scope, &span.repeat(spans)])]);
    assert_eq!(joined(&pieces[0]), [unknown.clone(), cut(3)].concat());
    assert_eq!(joined(&pieces[1]), [unknown.clone(), cut(2), cut(1)].concat());
    assert_eq!(joined(&pieces[2]), [unknown, cut(1)].concat());
}

#[test]
fn groups_that_fit_are_passed_on_untouched() {
    let one = group(&[&field(2, &[])]);
    let pieces = pieces(Signal::Logs, &one.repeat(5), 2, 0);
    assert_eq!(items(&pieces), [2, 2, 1]);
    assert_eq!(joined(&pieces[0]), one.repeat(2));
}

#[test]
fn bytes_are_bounded_exactly() {
    let record = field(2, &[&field(3, &[&[b'x'; 40]])]);
    let bytes = group(&[&record.repeat(20)]);
    let whole = bytes.len() as u64;
    for bytes_max in 60..whole {
        let pieces = pieces(Signal::Logs, &bytes, 0, bytes_max);
        assert_eq!(items(&pieces).iter().sum::<u64>(), 20);
        for (index, piece) in pieces.iter().enumerate() {
            assert!(piece.bytes <= bytes_max || piece.counts.items == 1);
            // One more item would not have fitted, or the cut came too early.
            let has_room = piece.bytes + record.len() as u64 + 6 <= bytes_max;
            assert!(!has_room || index == pieces.len() - 1, "{bytes_max}: {}", piece.bytes);
        }
    }
}

#[test]
fn an_item_that_is_larger_than_the_limit_is_a_piece_of_its_own() {
    let (small, large) = (field(2, &[]), field(2, &[&field(3, &[&[b'x'; 500]])]));
    let bytes = group(&[&small, &large, &small]);
    let pieces = pieces(Signal::Logs, &bytes, 0, 100);
    assert_eq!(items(&pieces), [1, 1, 1]);
}

#[test]
fn a_metric_is_cut_only_when_a_piece_of_its_own_would_not_hold_it() {
    let metric = |points: usize| {
        let sum = field(7, &[&field(1, &[]).repeat(points), &[2 << 3, 2, 3 << 3, 1]]);
        field(2, &[&field(1, &[b"name"]), &sum, &field(3, &[b"unit"])])
    };
    let bytes = group(&[&metric(2), &metric(3), &metric(7)]);
    let pieces = pieces(Signal::Metrics, &bytes, 4, 0);
    assert_eq!(items(&pieces), [2, 4, 4, 2]);
    for piece in &pieces[1..] {
        let bytes = joined(piece);
        for header in [&b"name"[..], b"unit", &[2 << 3, 2, 3 << 3, 1], b"scope", b"url"] {
            assert!(memchr::memmem::find(&bytes, header).is_some(), "{header:?}");
        }
    }
}

#[test]
fn d1_a_metric_whose_data_comes_in_parts_is_cut_as_one() {
    let parts =
        [field(7, &[&field(1, &[]), &[2 << 3, 1]]), field(7, &[&[2 << 3, 2], &field(1, &[])])];
    let bytes = group(&[&field(2, &[&parts.concat()])]);
    let pieces = pieces(Signal::Metrics, &bytes, 1, 0);
    assert_eq!(items(&pieces), [1, 1]);
    // Both pieces carry both temporalities, in order, so the last one counts in both.
    let header = [2 << 3, 1, 2 << 3, 2];
    assert!(pieces.iter().all(|piece| memchr::memmem::find(&joined(piece), &header).is_some()));
}

#[test]
fn d1_a_metric_of_two_kinds_of_data_stays_whole() {
    let data = [field(5, &[&field(1, &[]).repeat(2)]), field(7, &[&field(1, &[]).repeat(3)])];
    let mixed = field(2, &[&data.concat()]);
    let bytes = group(&[&mixed, &mixed]);
    let pieces = pieces(Signal::Metrics, &bytes, 1, 0);
    assert_eq!(items(&pieces), [3, 3]);
}

#[test]
fn s8_empty_groups_scopes_and_metrics_stay_in() {
    let empty_group = field(1, &[&field(1, &[&[2 << 3, 9]])]);
    let empty_scope = field(1, &[&field(2, &[&field(1, &[&field(1, &[b"alone"])])])]);
    let full = group(&[&field(2, &[&field(5, &[&field(1, &[]).repeat(3)])])]);
    let bytes = [empty_group.clone(), empty_scope.clone(), full, empty_group.clone()].concat();
    let pieces = pieces(Signal::Metrics, &bytes, 2, 0);
    assert_eq!(items(&pieces), [2, 1]);
    let all: Vec<u8> = pieces.iter().flat_map(joined).collect();
    assert!(memchr::memmem::find(&all, &empty_scope).is_some());
    assert_eq!(memchr::memmem::find_iter(&all, &empty_group).count(), 2);
}

#[test]
fn r1_profiles_come_back_whole() {
    let bytes = group(&[&field(2, &[&field(2, &[]).repeat(9)])]);
    let pieces = pieces(Signal::Profiles, &bytes, 1, 1);
    assert_eq!(items(&pieces), [9]);
}

#[test]
fn large_items_are_shared_and_small_headers_gathered() {
    let record = field(2, &[&field(3, &[&[b'x'; 2_000]])]);
    let request = Bytes::from(group(&[&record.repeat(4)]));
    let within = request.as_ptr_range();
    let pieces = split(check(Signal::Logs, request.clone()).unwrap(), 2, 0);
    for piece in &pieces {
        assert_eq!(piece.parts.len(), 2);
        assert!(within.contains(&piece.parts[1].as_ptr()), "the records were copied");
    }
}

#[test]
fn millions_of_empty_items_are_cut_without_a_trace_in_memory() {
    let children = field(2, &[]).repeat(1 << 20);
    let bytes = field(1, &[&field(2, &[&children])]);
    let pieces = pieces(Signal::Traces, &bytes, 1 << 18, 0);
    assert_eq!(items(&pieces), [1 << 18; 4]);
    assert!(pieces.iter().all(|piece| piece.parts.len() <= 2));
}

#[test]
fn headers_are_repeated_only_so_often_that_a_request_cannot_become_a_flood() {
    let resource = field(1, &[&field(1, &[&field(1, &[&[b'x'; 10_000]])])]);
    let spans = field(2, &[]).repeat(5_000);
    let bytes = field(1, &[&resource, &field(2, &[&spans])]);
    let pieces = pieces(Signal::Traces, &bytes, 1, 0);
    assert_eq!(items(&pieces).iter().sum::<u64>(), 5_000);
    let out: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    assert!(out <= bytes.len() as u64 * (REPEATED_RATIO_MAX + 2), "{out} bytes");
    assert!(pieces.len() as u64 > REPEATED_RATIO_MAX);
    let (last, others) = pieces.split_last().unwrap();
    assert!(others.iter().all(|piece| piece.counts.items == 1));
    assert!(last.counts.items > 1);
}
