//! What other encoders, and attackers, do to a request.

use std::ops::Range;

use fastrand::Rng;
use forebay_codec::schema::{Field, I32, I64, Kind, LEN, Message, VARINT};
use forebay_codec::wire::{self, Fields, RawField};

/// The same message in another legal form: fields in any order, singular messages in two parts,
/// packed numbers unpacked, varints padded, unknown fields in between.
pub(crate) fn legal_form(message: &'static Message, bytes: &[u8], random: &mut Rng) -> Vec<u8> {
    form(message, bytes, random, &mut 0)
}

/// As [`legal_form`], but for one or two values that do not belong where they stand; all lengths
/// around them are right.
pub(crate) fn illegal_form(message: &'static Message, bytes: &[u8], random: &mut Rng) -> Vec<u8> {
    form(message, bytes, random, &mut 2)
}

/// The same message with the fields of each message in the order that `key` gives to numbers;
/// those of the same number stay in theirs.
pub(crate) fn ordered(message: &'static Message, bytes: &[u8], key: fn(u32) -> u32) -> Vec<u8> {
    let mut fields: Vec<RawField> = Fields::new(bytes, 0..bytes.len()).collect();
    fields.sort_by_key(|raw| key(raw.number));
    let mut out = Vec::with_capacity(bytes.len());
    for raw in fields {
        match message.field(raw.number).map(|field| field.kind) {
            Some(Kind::Message(inner)) if raw.wire_type == LEN => {
                wire::put_bytes(&mut out, raw.number, &ordered(inner, &bytes[raw.value], key));
            }
            _ => out.extend_from_slice(&bytes[raw.whole]),
        }
    }
    out
}

/// The message with one thing that an attacker, or a bug, may put somewhere inside; the lengths
/// around it are right.
pub(crate) fn hostile_form(message: &'static Message, bytes: &[u8], random: &mut Rng) -> Vec<u8> {
    let fields: Vec<RawField> = Fields::new(bytes, 0..bytes.len()).collect();
    let Some(raw) = random.choice(&fields) else {
        return unknown(random);
    };
    let value = &bytes[raw.value.clone()];
    let planted = match message.field(raw.number) {
        Some(Field { kind: Kind::Message(inner), .. })
            if raw.wire_type == LEN && !value.is_empty() && random.u8(0..8) > 0 =>
        {
            with_length(raw.number, &hostile_form(inner, value, random), random)
        }
        known => hostile_field(known, raw, bytes, random),
    };
    [&bytes[..raw.whole.start], &planted, &bytes[raw.whole.end..]].concat()
}

fn hostile_field(
    known: Option<&'static Field>,
    raw: &RawField,
    bytes: &[u8],
    random: &mut Rng,
) -> Vec<u8> {
    let (whole, value) = (&bytes[raw.whole.clone()], &bytes[raw.value.clone()]);
    match (random.u8(0..9), known.map(|field| field.kind)) {
        (0..3, Some(Kind::String)) => with_length(raw.number, &ill_text(value, random), random),
        (0..3, Some(Kind::Id(_) | Kind::ProfileId)) => {
            with_length(raw.number, &vec![7; random.usize(0..33)], random)
        }
        (0..3, Some(Kind::Message(inner))) if inner.name == "AnyValue" => {
            with_length(raw.number, &nested(random.usize(40..120)), random)
        }
        (3, _) => [whole, whole].concat(),
        (4, _) => group(raw.number, whole, random),
        (5, _) => padded(raw, value, random),
        (6, _) => with_tag(random.u64(..) >> random.u32(20..64), raw, value),
        (7, _) => with_length(raw.number, &value[..value.len() - value.len().min(1)], random),
        (8, _) => [whole, &unknown(random)].concat(),
        _ => other_wire_type(raw.number, random),
    }
}

/// Text with a few bytes that are not, at an edge or at the border of a block.
fn ill_text(text: &[u8], random: &mut Rng) -> Vec<u8> {
    const ILL: [&[u8]; 8] = [
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ];
    let mut text = text.to_vec();
    text.resize(random.usize(0..80).max(text.len()), b'a');
    let block = random.usize(0..=text.len()) / 16 * 16;
    let at = match random.u8(0..5) {
        0 => 0,
        1 => text.len(),
        2 => block,
        3 => block.saturating_sub(1),
        _ => random.usize(0..=text.len()),
    };
    let ill = random.choice(&ILL).expect("not empty");
    text.splice(at..at, ill.iter().copied());
    text
}

/// An `AnyValue` of arrays inside one another.
pub(crate) fn nested(arrays: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..arrays {
        let mut array = Vec::new();
        wire::put_bytes(&mut array, 1, &value);
        value.clear();
        wire::put_bytes(&mut value, 5, &array);
    }
    value
}

/// A group around the field, with or without its end, inside others or not.
fn group(number: u32, whole: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let number = if random.bool() { number } else { 99 };
    let groups = random.usize(1..4);
    (0..groups).for_each(|_| wire::put_tag(&mut out, number, 3));
    out.extend_from_slice(whole);
    (random.usize(0..3) / 2..groups).for_each(|_| wire::put_tag(&mut out, number, 4));
    out
}

/// The field with a longer varint than its tag, length or number needs, up to one byte too long.
fn padded(raw: &RawField, value: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let key = u64::from(raw.number) << 3 | u64::from(raw.wire_type);
    let padded_tag = random.bool();
    put_padded(&mut out, key, if padded_tag { random.usize(0..12) } else { 0 });
    match raw.wire_type {
        LEN => {
            put_padded(&mut out, value.len() as u64, random.usize(0..12));
            out.extend_from_slice(value);
        }
        VARINT => put_padded(&mut out, wire::varint_of(value), random.usize(0..12)),
        _ => out.extend_from_slice(value),
    }
    out
}

/// `number` in `bytes` bytes, or as many as it needs.
fn put_padded(out: &mut Vec<u8>, number: u64, bytes: usize) {
    wire::put_varint(out, number);
    let padding = bytes.saturating_sub(wire::varint_bytes(number));
    if padding > 0 {
        *out.last_mut().expect("a varint has a byte") |= 0x80;
        out.resize(out.len() + padding - 1, 0x80);
        out.push(0);
    }
}

/// The field's value behind another tag: other numbers, other wire types, too large ones.
fn with_tag(key: u64, raw: &RawField, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(&mut out, key);
    if raw.wire_type == LEN && !matches!((key & 7) as u8, I64 | I32) {
        wire::put_varint(&mut out, value.len() as u64);
    }
    out.extend_from_slice(value);
    out
}

/// `faults`: how many may still be put in.
fn form(message: &'static Message, bytes: &[u8], random: &mut Rng, faults: &mut u32) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for raw in Fields::new(bytes, 0..bytes.len()) {
        fields.extend(field(message, bytes, raw, random, faults));
    }
    while random.u8(0..4) == 0 {
        fields.push(unknown(random));
    }
    // Only fields of different numbers may change places: the order of the same one has a meaning,
    // and so has that of a oneof, of which prost writes one member.
    for _ in 0..fields.len() {
        let at = random.usize(0..fields.len().max(2) - 1);
        if at + 1 < fields.len() && number(&fields[at]) != number(&fields[at + 1]) {
            fields.swap(at, at + 1);
        }
    }
    fields.concat()
}

fn field(
    message: &'static Message,
    bytes: &[u8],
    raw: RawField,
    random: &mut Rng,
    faults: &mut u32,
) -> Vec<Vec<u8>> {
    let value = &bytes[raw.value.clone()];
    if *faults > 0 && random.u8(0..20) == 0 {
        *faults -= 1;
        if raw.wire_type != LEN || random.u8(0..4) == 0 {
            return vec![other_wire_type(raw.number, random)];
        }
        let mut value = value.to_vec();
        damage(&mut value, random);
        return vec![with_length(raw.number, &value, random)];
    }
    let Some(known) = message.field(raw.number) else {
        return vec![bytes[raw.whole].to_vec()];
    };
    match known.kind {
        Kind::Message(inner) => {
            let value = form(inner, value, random, faults);
            match known.repeated || random.bool() {
                true => vec![with_length(raw.number, &value, random)],
                false => parts(&value, random)
                    .into_iter()
                    .map(|part| with_length(raw.number, &value[part], random))
                    .collect(),
            }
        }
        kind if raw.wire_type == LEN && kind.wire_type() != LEN => {
            if random.bool() {
                return vec![with_length(raw.number, value, random)];
            }
            unpacked(raw.number, kind.wire_type(), value)
        }
        _ if raw.wire_type == LEN => vec![with_length(raw.number, value, random)],
        _ => vec![bytes[raw.whole].to_vec()],
    }
}

/// A message cut at one of its field borders: two parts that merge to the whole.
fn parts(message: &[u8], random: &mut Rng) -> Vec<Range<usize>> {
    let ends: Vec<_> = Fields::new(message, 0..message.len()).map(|raw| raw.whole.end).collect();
    let cut = random.choice(ends).unwrap_or(0);
    vec![0..cut, cut..message.len()]
}

fn unpacked(number: u32, wire_type: u8, run: &[u8]) -> Vec<Vec<u8>> {
    let mut at = 0;
    let mut all = Vec::new();
    while at < run.len() {
        let value = wire::value(run, &mut at, wire_type).expect("prost packs what can be read");
        let mut out = Vec::new();
        wire::put_tag(&mut out, number, wire_type);
        out.extend_from_slice(&run[value]);
        all.push(out);
    }
    all
}

fn with_length(number: u32, value: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_tag(&mut out, number, LEN);
    wire::put_varint(&mut out, value.len() as u64);
    if random.u8(0..8) == 0 {
        *out.last_mut().expect("a length was written") |= 0x80;
        out.push(0);
    }
    out.extend_from_slice(value);
    out
}

fn unknown(random: &mut Rng) -> Vec<u8> {
    let number = *random.choice(&[17, 1000, 1 << 20, (1 << 29) - 1]).expect("not empty");
    let mut out = Vec::new();
    match random.bool() {
        true => wire::put_bytes(&mut out, number, b"\xff unknown"),
        false => {
            wire::put_tag(&mut out, number, VARINT);
            wire::put_varint(&mut out, random.u64(..));
        }
    }
    out
}

/// A field in a wire type that is not its own, with well-formed bytes, or in that of a group.
fn other_wire_type(number: u32, random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let wire_type = random.u8(0..6);
    wire::put_tag(&mut out, number, wire_type);
    match wire_type {
        1 => out.extend_from_slice(&[0; 8]),
        5 => out.extend_from_slice(&[0; 4]),
        3 => wire::put_tag(&mut out, number, 4),
        4 => {}
        _ => out.push(0),
    }
    out
}

fn number(field: &[u8]) -> u64 {
    wire::varint_of(field) >> 3
}

/// Some bytes changed, cut out, put in or copied elsewhere.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
        let at = random.usize(0..bytes.len());
        match random.u8(0..6) {
            0 => bytes[at] ^= 1 << random.u8(0..8),
            1 => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).expect("not empty"),
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, random.u8(..)),
            _ => {
                let end = (at + random.usize(0..20)).min(bytes.len());
                let run = bytes[at..end].to_vec();
                let to = random.usize(0..=bytes.len());
                bytes.splice(to..to, run);
            }
        }
    }
}
