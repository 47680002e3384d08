//! Strides change what the verdict costs, never what it is.

use std::collections::BTreeSet;

use super::super::*;
use super::field;
use crate::schema::{I64, Kind, LEN, Message, Shape, VARINT};

/// Field by field, with every kind of value that its kind can have, `depth` messages deep.
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
    // Lists in lists, and at the bottom an attribute that a stride would pass by itself.
    for depth in 0..DEPTH_MAX {
        let leaf = field(1, &[&field(1, &[b"key"]), &field(2, &[&field(1, &[b"value"])])]);
        let nest = |inner: Vec<u8>| field(1, &[&field(2, &[&field(6, &[&inner])])]);
        let nested = (0..depth).fold(leaf, |inner, _| nest(inner));
        let bytes = field(1, &[&field(1, &[&nested])]);
        same_verdict(Signal::Traces, &bytes);
    }
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
        for bytes in [descending(inner, &bytes), bytes] {
            let items = shapes::items_of(inner.shape, &bytes);
            assert!(items.is_some(), "{}: {bytes:02x?}", inner.name);
            seen.insert(inner.name);
        }
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
            Kind::Message(inner) if inner.name == "AnyValue" => match dice.u8(0..5) {
                4 => super::field(5, &[&super::field(1, &[&[2 << 3, 1]]).repeat(2)]),
                0 => [3 << 3, 0xff, 0xff, 0x03].to_vec(),
                1 => [2 << 3, 1].to_vec(),
                2 => [&[4 << 3 | 1][..], &[0xaa; 8]].concat(),
                _ => super::field(1, &[text(dice).as_bytes()]),
            },
            Kind::Message(inner) => plainly(inner, dice),
            Kind::String => text(dice).into_bytes(),
            Kind::Id(bytes) => vec![0xab; bytes],
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
