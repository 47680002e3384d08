//! Strides change what the verdict costs, never what it is.

use std::collections::BTreeSet;

use super::super::*;
use super::field;
use crate::schema::{I64, Kind, LEN, Message, Shape, VARINT};

/// Field by field, with values of each kind as encoders write them, `depth` messages deep.
fn filled(message: &'static Message, dice: &mut fastrand::Rng, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut has_chosen = false;
    for field in message.fields {
        if dice.u8(..) < 40 || (field.either && has_chosen && dice.u8(..) < 250) {
            continue;
        }
        has_chosen |= field.either;
        let times = if field.repeated { dice.usize(1..3) } else { 1 };
        for _ in 0..times {
            put(field, dice, depth, &mut out);
        }
    }
    out
}

fn put(field: &Field, dice: &mut fastrand::Rng, depth: usize, out: &mut Vec<u8>) {
    let any = |dice: &mut fastrand::Rng, bytes: usize| -> Vec<u8> {
        (0..bytes).map(|_| dice.u8(..)).collect()
    };
    let value = match field.kind {
        Kind::Message(_) if depth == 0 => return,
        Kind::Message(inner) => filled(inner, dice, depth - 1),
        Kind::String => text(dice).into_bytes(),
        Kind::Bytes => any(dice, 9),
        Kind::Id(bytes) => any(dice, bytes),
        Kind::ProfileId => any(dice, 16),
        _ if field.repeated && dice.bool() => match field.kind.wire_type() {
            VARINT => [0x80, 0x01, 0x07].repeat(dice.usize(0..4)),
            _ => {
                let numbers = dice.usize(0..4);
                any(dice, 8 * numbers)
            }
        },
        _ => {
            wire::put_tag(out, field.number, field.kind.wire_type());
            match field.kind.wire_type() {
                VARINT => wire::put_varint(out, dice.u64(..) >> dice.u32(0..64)),
                I64 => out.extend(dice.u64(..).to_le_bytes()),
                _ => out.extend(dice.u32(..).to_le_bytes()),
            }
            return;
        }
    };
    wire::put_bytes(out, field.number, &value);
}

fn text(dice: &mut fastrand::Rng) -> String {
    let letters = if dice.u8(..) < 40 { "aé漢🦀z" } else { "http.route" };
    let letters: Vec<char> = letters.chars().collect();
    (0..dice.usize(0..40)).map(|_| letters[dice.usize(..letters.len())]).collect()
}

/// The same message with its fields in descending order, those of the same number as they were.
fn descending(message: &'static Message, bytes: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = wire::Fields::new(bytes, 0..bytes.len()).collect();
    fields.sort_by_key(|field| std::cmp::Reverse(field.number));
    let mut out = Vec::new();
    for raw in fields {
        match message.field(raw.number).map(|field| field.kind) {
            Some(Kind::Message(inner)) if raw.wire_type == LEN => {
                wire::put_bytes(&mut out, raw.number, &descending(inner, &bytes[raw.value]));
            }
            _ => out.extend_from_slice(&bytes[raw.whole]),
        }
    }
    out
}

fn same_verdict(signal: Signal, bytes: &[u8]) -> bool {
    let with = Walk::<true>::verdict(signal, bytes);
    let without = Walk::<false>::verdict(signal, bytes);
    assert_eq!(with, without, "{signal}: {bytes:02x?}");
    with.is_ok()
}

#[test]
fn strides_change_no_verdict_on_requests_of_any_content_order_or_damage() {
    let mut passed = 0;
    for seed in 0..2_000 {
        let dice = &mut fastrand::Rng::with_seed(seed);
        for signal in Signal::ALL {
            let message = schema::request(signal);
            let ascending = filled(message, dice, 8);
            let mut bytes = match dice.bool() {
                true => descending(message, &ascending),
                false => ascending,
            };
            assert!(same_verdict(signal, &bytes), "seed {seed}: a valid request was refused");
            for _ in 0..8 {
                if !bytes.is_empty() {
                    let at = dice.usize(..bytes.len());
                    match dice.u8(0..4) {
                        0 => bytes[at] = dice.u8(..),
                        1 => bytes[at] ^= 1 << dice.u8(0..8),
                        2 => drop(bytes.remove(at)),
                        _ => bytes.insert(at, dice.u8(..)),
                    }
                }
                passed += usize::from(same_verdict(signal, &bytes));
            }
        }
    }
    assert!(passed > 1_000, "all damaged requests were refused: the damage is too coarse");
}

#[test]
fn strides_stop_where_messages_nest_too_deep() {
    let text = field(1, &[b"value"]);
    let array = field(5, &[&field(1, &[&text])]);
    let (mut passed, mut refused) = (0, 0);
    // At the bottom something that a stride would pass by itself; its last messages lie on each
    // side of the limit, whatever number of messages a level adds.
    for value in [text, array] {
        let leaf = field(1, &[&field(1, &[b"key"]), &field(2, &[&value])]);
        for depth in 0..DEPTH_MAX {
            for arrays in 0..3 {
                let in_list = |inner: Vec<u8>| field(1, &[&field(2, &[&field(6, &[&inner])])]);
                let nested = (0..depth).fold(leaf.clone(), |inner, _| in_list(inner));
                let in_array = |inner: Vec<u8>| field(5, &[&field(1, &[&inner])]);
                let value = (0..arrays).fold(field(6, &[&nested]), |inner, _| in_array(inner));
                let attribute = field(1, &[&field(2, &[&value])]);
                let bytes = field(1, &[&field(1, &[&attribute])]);
                match same_verdict(Signal::Traces, &bytes) {
                    true => passed += 1,
                    false => refused += 1,
                }
            }
        }
    }
    assert!(passed > 50 && refused > 50, "{passed} {refused}");
}

/// Varints of 1 to 12 bytes that end in each way, and runs of 0 to 40 bytes.
fn edges() -> Vec<Vec<u8>> {
    let ends = [0x00, 0x01, 0x02, 0x7f, 0x80, 0xff];
    let varint = |before: usize, end: u8| [vec![0xff; before], vec![end]].concat();
    let varints = (0..12).flat_map(|before| ends.map(|end| varint(before, end)));
    let twice = varints.clone().map(|varint| [&varint[..], &varint].concat());
    let runs = (0..=40).map(|bytes| vec![0x11; bytes]);
    varints.clone().chain(twice).chain(runs).collect()
}

#[test]
fn numbers_of_any_length_get_the_same_verdict_in_every_field_of_every_shape() {
    let mut passed = 0;
    for edge in edges() {
        for tag in 0..=u8::MAX {
            let tags: &[&[u8]] = &[&[tag], &[tag | 0x80, 1]];
            for tag in tags {
                let bare = [tag, &edge[..]].concat();
                let run = [tag, &[edge.len() as u8][..], &edge].concat();
                for content in [bare, run] {
                    passed += usize::from(same_verdict_everywhere(&content));
                }
            }
        }
    }
    assert!(passed > 10_000, "{passed}");
}

/// As the content of a span, an attribute, a log record's body, a gauge's and a histogram's point,
/// and the buckets of an exponential one.
fn same_verdict_everywhere(content: &[u8]) -> bool {
    let in_items = |item: &[u8]| field(1, &[&field(2, &[&field(2, &[item])])]);
    let attribute = field(9, &[&field(1, &[b"key"]), &field(2, &[content])]);
    let point = |data: u32, point: &[u8]| in_items(&field(data, &[&field(1, &[point])]));
    let buckets = point(10, &field(8, &[content]));
    same_verdict(Signal::Traces, &in_items(content))
        | same_verdict(Signal::Traces, &in_items(&attribute))
        | same_verdict(Signal::Logs, &in_items(&field(5, &[content])))
        | same_verdict(Signal::Metrics, &point(5, content))
        | same_verdict(Signal::Metrics, &point(9, content))
        | same_verdict(Signal::Metrics, &buckets)
}

/// The dearest request that was found: at each level of a metric something that shows only at its
/// end that it has no shape.
fn dear(values: usize) -> Vec<u8> {
    let text = field(1, &["\u{e9}".as_bytes()]);
    let value = field(1, &[&text]).repeat(values);
    // An integer of ten bytes, padded, so that it is valid and not plain.
    let odd = field(1, &[&[3 << 3, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]]);
    let list = field(1, &[&field(6, &[])]);
    let array = field(5, &[&value, &odd, &list]);
    let exemplar = field(5, &[&field(7, &[&field(2, &[&array])])]);
    let gauge = field(5, &[&field(1, &[&exemplar])]);
    field(1, &[&field(2, &[&field(2, &[&gauge])])])
}

#[test]
fn no_request_costs_many_times_what_the_general_rules_cost() {
    let cpu_time = |act: &dyn Fn()| {
        let clock = rustix::time::ClockId::ThreadCPUTime;
        let before = rustix::time::clock_gettime(clock);
        act();
        let after = rustix::time::clock_gettime(clock);
        (after.tv_sec - before.tv_sec) as f64 + (after.tv_nsec - before.tv_nsec) as f64 / 1e9
    };
    let bytes = dear(100_000);
    let best = |act: &dyn Fn()| (0..5).map(|_| cpu_time(act)).fold(f64::MAX, f64::min);
    let with = best(&|| assert!(Walk::<true>::verdict(Signal::Metrics, &bytes).is_ok()));
    let without = best(&|| assert!(Walk::<false>::verdict(Signal::Metrics, &bytes).is_ok()));
    // Measured: 3. When both orders were tried at every level, it was a hundred.
    assert!(with < 10.0 * without, "{with} s, {without} s without strides");
}

#[test]
fn messages_as_encoders_lay_them_have_their_shape_in_both_orders() {
    let mut seen = BTreeSet::new();
    for seed in 0..500 {
        let dice = &mut fastrand::Rng::with_seed(seed);
        for signal in Signal::ALL {
            shaped(schema::request(signal), dice, &mut seen);
        }
    }
    assert_eq!(seen.len(), 14, "{seen:?}");
}

fn shaped(message: &'static Message, dice: &mut fastrand::Rng, seen: &mut BTreeSet<&'static str>) {
    for field in message.fields {
        let Kind::Message(inner) = field.kind else { continue };
        if !matches!(inner.shape, Shape::KeyValue) && inner.name != "AnyValue" {
            shaped(inner, dice, seen);
        }
        if inner.shape == Shape::Other {
            continue;
        }
        let bytes = plainly(inner, dice);
        let descending = descending(inner, &bytes);
        assert!(shapes::items_of::<false>(inner.shape, &bytes).is_some(), "{bytes:02x?}");
        assert!(shapes::items_of::<true>(inner.shape, &descending).is_some(), "{descending:02x?}");
        seen.insert(inner.name);
    }
}

/// What an SDK sends: packed numbers, no empty texts, one value of each `oneof`, no nested values.
fn plainly(message: &'static Message, dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let either: Vec<_> = message.fields.iter().filter(|field| field.either).collect();
    let chosen = either.get(dice.usize(..either.len().max(1))).map(|field| field.number);
    for field in message.fields {
        let skipped = field.either && Some(field.number) != chosen;
        if skipped || matches!(field.name, "entity_refs" | "key_strindex") {
            continue;
        }
        let value = match field.kind {
            Kind::Message(inner) if inner.name == "AnyValue" => match dice.u8(0..7) {
                6 => [&[3 << 3][..], &[0xff; 9], &[1]].concat(),
                5 => super::field(7, &[&[0xff; 5]]),
                4 => super::field(5, &[&super::field(1, &[&[2 << 3, 1]]).repeat(2)]),
                0 => [3 << 3, 0xff, 0xff, 0x03].to_vec(),
                1 => [2 << 3, 1].to_vec(),
                2 => [&[4 << 3 | 1][..], &[0xaa; 8]].concat(),
                _ => super::field(1, &[text(dice).as_bytes()]),
            },
            Kind::Message(inner) => plainly(inner, dice),
            Kind::String => text(dice).into_bytes(),
            Kind::Id(bytes) => vec![0xab; if dice.bool() { bytes } else { 0 }],
            kind if field.repeated => match kind.wire_type() {
                VARINT => [0x80, 0x01, 0x07].repeat(3),
                _ => vec![0xcd; 24],
            },
            kind => {
                wire::put_tag(&mut out, field.number, kind.wire_type());
                match kind.wire_type() {
                    VARINT => wire::put_varint(&mut out, dice.u64(0..1 << 21)),
                    I64 => out.extend([0xee; 8]),
                    _ => out.extend([0xdd; 4]),
                }
                continue;
            }
        };
        wire::put_bytes(&mut out, field.number, &value);
    }
    out
}
