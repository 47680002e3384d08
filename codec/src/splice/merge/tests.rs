//! Shapes by hand; `tests/oracle/cutting/merging.rs` compares random chains with prost.

use super::*;
use crate::check::check;

fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, &parts.concat());
    out
}

/// A resource group with this many dropped attributes, of scope groups.
fn group(resource: u8, scopes: &[&[u8]]) -> Vec<u8> {
    field(1, &[&field(1, &[&[2 << 3, resource]]), &scopes.concat()])
}

fn scope(name: &[u8], items: &[&[u8]]) -> Vec<u8> {
    field(2, &[&field(1, &[&field(1, &[name])]), &items.concat()])
}

fn item(name: u8, bytes: usize) -> Vec<u8> {
    field(2, &[&field(5, &[&vec![name; bytes]])])
}

fn chain(requests: &[&[u8]]) -> Chain {
    let mut chain = Chain::new(Signal::Traces);
    for request in requests {
        chain.push(check(Signal::Traces, Bytes::copy_from_slice(request)).unwrap());
    }
    chain
}

fn merged(requests: &[&[u8]]) -> Vec<u8> {
    let merged = Merger::new().merge(&chain(requests), 0).expect("it can be merged");
    merged.chain.parts.concat()
}

#[test]
fn equal_groups_and_equal_scopes_in_them_go_under_the_first() {
    let (a, b, c) = (item(b'a', 9), item(b'b', 9), item(b'c', 9));
    let first = [group(1, &[&scope(b"x", &[&a]), &scope(b"y", &[&b])]), group(2, &[])].concat();
    let second = [group(2, &[&scope(b"x", &[&c])]), group(1, &[&scope(b"x", &[&b, &c])])].concat();
    let expected = [
        group(1, &[&scope(b"x", &[&a, &b, &c]), &scope(b"y", &[&b])]),
        group(2, &[&scope(b"x", &[&c])]),
    ];
    assert_eq!(merged(&[&first, &second]), expected.concat());
}

#[test]
fn groups_that_differ_in_an_unknown_field_stay_apart_and_all_unknown_fields_stay() {
    let unknown = |text: &[u8]| field(77, &[text]);
    let one = |text: &[u8]| {
        let around = field(1, &[&unknown(text), &scope(b"x", &[&item(b'a', 3)])]);
        [around, unknown(b"of the request")].concat()
    };
    let merged = merged(&[&one(b"1"), &one(b"2"), &one(b"1")]);
    let count = |part: &[u8]| memchr::memmem::find_iter(&merged, part).count();
    assert_eq!((count(&unknown(b"1")), count(&unknown(b"2"))), (1, 1));
    assert_eq!(count(b"of the request"), 3);
    assert_eq!(count(&item(b'a', 3)), 3);
}

#[test]
fn large_items_are_shared_and_small_ones_gathered() {
    let requests = [0; 4].map(|_| group(1, &[&scope(b"x", &[&item(b'a', 2_000), &item(b'b', 4)])]));
    let chain = chain(&requests.each_ref().map(|request| &request[..]));
    let merged = Merger::new().merge(&chain, 1).unwrap();
    // Header, and each run of items in a part of its own.
    assert_eq!(merged.chain.parts.len(), 1 + 4);
    for (run, part) in merged.chain.parts[1..].iter().zip(&chain.parts) {
        assert!(part.as_ptr_range().contains(&run.as_ptr()), "the items were copied");
    }
    assert_eq!(merged.saved_bytes, chain.bytes - merged.chain.bytes);
}

#[test]
fn it_says_no_when_it_saves_too_little_and_to_profiles() {
    let request = group(1, &[&scope(b"x", &[&item(b'a', 9)])]);
    let twice = chain(&[&request, &request]);
    let mut merger = Merger::new();
    let saved = merger.merge(&twice, 0).unwrap().saved_bytes;
    assert!(merger.merge(&twice, saved).is_some());
    assert!(merger.merge(&twice, saved + 1).is_none());
    assert_eq!(merger.merge(&chain(&[&request]), 0).unwrap().saved_bytes, 0);
    assert!(merger.merge(&Chain::new(Signal::Profiles), 0).is_none());
    assert_eq!(merger.merge(&Chain::new(Signal::Logs), 0).unwrap().chain.bytes, 0);
}

#[test]
fn a_chain_of_too_many_different_groups_is_left_alone_and_the_next_is_not() {
    let group_of = |index: u32| field(1, &[&field(3, &[index.to_string().as_bytes()])]);
    let many: Vec<u8> = (0..=PLACES_MAX as u32).flat_map(group_of).collect();
    let mut merger = Merger::new();
    assert!(merger.merge(&chain(&[&many]), 0).is_none());
    let fewer: Vec<u8> = (0..PLACES_MAX as u32 - 1).flat_map(group_of).collect();
    let twice = [&fewer[..], &fewer].concat();
    let merged = merger.merge(&chain(&[&twice]), 1).unwrap();
    // A header that finds its places of the table taken is not merged; hardly any does.
    assert!(merged.saved_bytes > fewer.len() as u64 * 9 / 10, "{}", merged.saved_bytes);
}

#[test]
fn millions_of_equal_empty_groups_are_one() {
    let many = field(1, &[]).repeat(1 << 20);
    assert_eq!(merged(&[&many]), field(1, &[]));
}
