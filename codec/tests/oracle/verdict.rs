//! `check` and prost agree on what is OTLP and on how much of it there is.
//!
//! An optimised build asks both of more than a million requests; any other of a few ten thousand.

use fastrand::Rng;
use forebay_codec::check::{DEPTH_MAX, check};
use forebay_codec::schema;
use forebay_codec::signal::Signal;
use forebay_codec::wire;

use crate::agreement::{Rule, Verdict, agreement};
use crate::decoded::Decoded;
use crate::{canonical, generate, mangle};

/// A request that prost wrote, in its own or another legal form.
pub(crate) fn case(seed: u64) -> (Signal, Vec<u8>) {
    let (signal, bytes) = plain_case(seed);
    let mut random = Rng::with_seed(seed.rotate_left(32));
    let message = schema::request(signal);
    let bytes = match random.u8(0..4) {
        0 => bytes,
        1 => mangle::ordered(message, &bytes, |number| !number),
        _ => mangle::legal_form(message, &bytes, &mut random),
    };
    (signal, bytes)
}

fn plain_case(seed: u64) -> (Signal, Vec<u8>) {
    let mut random = Rng::with_seed(seed);
    let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
    (signal, generate::request(signal, &mut random).to_proto())
}

#[test]
fn d1_every_legal_form_passes_with_the_counts_that_prost_decodes() {
    for seed in 0..of_build(100_000, 2_000) {
        let (signal, bytes) = case(seed);
        let decoded = Decoded::from_proto(signal, &bytes);
        let decoded = decoded.unwrap_or_else(|why| panic!("seed {seed} is not legal: {why}"));
        match check(signal, bytes.into()) {
            Ok(checked) => assert_eq!(checked.counts(), decoded.counts(), "seed {seed}"),
            Err(error) => panic!("seed {seed}, {signal}: {error}"),
        }
    }
}

#[test]
fn d1_damaged_requests_get_the_verdict_of_prost() {
    let mut tally = Tally::default();
    for seed in 0..of_build(50_000, 600) {
        let (signal, bytes) = case(seed);
        let mut random = Rng::with_seed(!seed);
        for round in 0..20 {
            let broken = broken_form(signal, &bytes, &mut random);
            tally.add(agreement(signal, &broken), &|| format!("seed {seed}, round {round}"));
        }
    }
    tally.is_balanced();
}

/// Broken bytes anywhere, or right lengths around a wrong value.
fn broken_form(signal: Signal, bytes: &[u8], random: &mut Rng) -> Vec<u8> {
    let message = schema::request(signal);
    match random.u8(0..4) {
        0 => {
            let mut bytes = bytes.to_vec();
            mangle::damage(&mut bytes, random);
            bytes
        }
        1 => mangle::illegal_form(message, bytes, random),
        _ => mangle::hostile_form(message, bytes, random),
    }
}

#[test]
fn d1_every_byte_of_a_request_as_sdks_write_it_counts() {
    let mut tally = Tally::default();
    // Coprime to 256, so that all values of a byte come up over the request.
    let stride = of_build(1, 61);
    for signal in Signal::ALL {
        for (form, request) in canonical::requests(signal).into_iter().enumerate() {
            assert_eq!(agreement(signal, &request), Ok(Verdict::Passed));
            let mut bytes = request.clone();
            for at in 0..request.len() {
                for value in (at % stride..256).step_by(stride) {
                    bytes[at] = value as u8;
                    let note = || format!("{signal}, form {form}, byte {at} set to {value:#x}");
                    tally.add(agreement(signal, &bytes), &note);
                }
                bytes[at] = request[at];
            }
        }
    }
    assert!(tally.passed > 1_000 && tally.refused > 1_000, "{tally:?}");
}

#[test]
fn d1_bytes_at_random_get_the_verdict_of_prost() {
    let mut tally = Tally::default();
    for seed in 0..of_build(300_000, 20_000) {
        let mut random = Rng::with_seed(seed);
        let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
        let mut bytes: Vec<u8> = (0..random.usize(0..24)).map(|_| random.u8(0..24)).collect();
        if random.bool() {
            bytes.insert(0, bytes.len() as u8);
            bytes.insert(0, 0x0a);
        }
        tally.add(agreement(signal, &bytes), &|| format!("seed {seed}, {bytes:?}"));
    }
    assert!(tally.passed > 100 && tally.refused > 1_000, "{tally:?}");
}

#[test]
fn d1_a_request_cut_at_any_byte_gets_the_verdict_of_prost() {
    let mut tally = Tally::default();
    for seed in 0..of_build(400, 20) {
        let (signal, bytes) = case(seed);
        for cut in 0..bytes.len().min(2_000) {
            tally.add(agreement(signal, &bytes[..cut]), &|| format!("seed {seed}, cut at {cut}"));
        }
    }
    assert!(tally.passed > 10 && tally.refused > 1_000, "{tally:?}");
}

#[test]
fn d1_each_wanted_difference_has_its_rule() {
    let in_span = |field: &[u8]| {
        let mut bytes = field.to_vec();
        for number in [2, 2, 1] {
            let mut around = Vec::new();
            wire::put_bytes(&mut around, number, &bytes);
            bytes = around;
        }
        agreement(Signal::Traces, &bytes)
    };
    let id_of = |bytes: u8| [vec![0x0a, bytes], vec![1; bytes as usize]].concat();
    assert_eq!(in_span(&id_of(16)), Ok(Verdict::Passed));
    assert_eq!(in_span(&id_of(0)), Ok(Verdict::Passed));
    assert_eq!(in_span(&id_of(15)), Ok(Verdict::Stricter(Rule::IdLength)));
    // Field 99: a group with nothing in it.
    assert_eq!(in_span(&[0x9b, 6, 0x9c, 6]), Ok(Verdict::Stricter(Rule::Groups)));
    // The request holds a resource group, a scope group, a span, an attribute and its value; each
    // array adds itself and its element.
    let deep = |arrays: usize| {
        let mut attribute = Vec::new();
        wire::put_bytes(&mut attribute, 2, &mangle::nested(arrays));
        let mut field = Vec::new();
        wire::put_bytes(&mut field, 9, &attribute);
        in_span(&field)
    };
    let most = (DEPTH_MAX - 5) / 2;
    assert_eq!(deep(most), Ok(Verdict::Passed));
    assert_eq!(deep(most + 1), Ok(Verdict::Stricter(Rule::Depth)));
    assert_eq!(deep(60), Ok(Verdict::Refused));
}

/// How often which verdict was given.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    refused: u64,
    ids: u64,
    groups: u64,
    depth: u64,
}

impl Tally {
    fn add(&mut self, verdict: Result<Verdict, String>, note: &dyn Fn() -> String) {
        match verdict {
            Ok(Verdict::Passed) => self.passed += 1,
            Ok(Verdict::Refused) => self.refused += 1,
            Ok(Verdict::Stricter(Rule::IdLength)) => self.ids += 1,
            Ok(Verdict::Stricter(Rule::Groups)) => self.groups += 1,
            Ok(Verdict::Stricter(Rule::Depth)) => self.depth += 1,
            Err(difference) => panic!("{}: {difference}", note()),
        }
    }

    /// Damage that always does the same tests little.
    fn is_balanced(&self) {
        let Tally { passed, refused, ids, groups, depth } = *self;
        let all = passed + refused + ids + groups + depth;
        let enough = passed > all / 10 && refused > all / 10;
        assert!(enough && ids > all / 1_000 && groups > all / 1_000 && depth > 0, "{self:?}");
    }
}

/// How often an optimised build does a thing, and how often one that is not.
fn of_build<N>(optimised: N, other: N) -> N {
    if cfg!(debug_assertions) { other } else { optimised }
}
