//! What other encoders, and attackers, do to a request.

use std::ops::Range;

use fastrand::Rng;
use forebay_codec::schema::{Kind, LEN, Message, VARINT};
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
    let known = message.field(raw.number).expect("prost writes no field that the table lacks");
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
