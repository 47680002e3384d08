//! `check` and prost agree on what is OTLP and on how much of it there is.

use fastrand::Rng;
use forebay_codec::check::{Reason, check};
use forebay_codec::schema;
use forebay_codec::signal::Signal;

use crate::decoded::Decoded;
use crate::{generate, mangle};

/// A request that prost wrote, in its own or another legal form.
pub(crate) fn case(seed: u64) -> (Signal, Vec<u8>) {
    let (signal, bytes) = plain_case(seed);
    let mut random = Rng::with_seed(seed.rotate_left(32));
    match random.bool() {
        true => (signal, bytes),
        false => (signal, mangle::legal_form(schema::request(signal), &bytes, &mut random)),
    }
}

fn plain_case(seed: u64) -> (Signal, Vec<u8>) {
    let mut random = Rng::with_seed(seed);
    let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
    (signal, generate::request(signal, &mut random).to_proto())
}

#[test]
fn d1_every_legal_form_passes_with_the_counts_that_prost_decodes() {
    for seed in 0..3_000 {
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
    let (mut passed, mut refused, mut stricter) = (0, 0, 0);
    for seed in 0..25_000 {
        let (signal, bytes) = broken_case(seed);
        let prost = Decoded::from_proto(signal, &bytes);
        match (check(signal, bytes.into()), prost) {
            (Ok(checked), Ok(decoded)) => {
                assert_eq!(checked.counts(), decoded.counts(), "seed {seed}");
                passed += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (Err(error), Ok(_)) => {
                let on_purpose =
                    matches!(error.reason, Reason::WrongIdLength { .. } | Reason::GroupWireType);
                assert!(on_purpose, "seed {seed}, {signal}: refused what prost takes: {error}");
                stricter += 1;
            }
            (Ok(_), Err(why)) => panic!("seed {seed}, {signal}: passed what prost refuses: {why}"),
        }
    }
    let all = passed > 1_000 && refused > 1_000 && stricter > 100;
    assert!(all, "the damage is too even: {passed} passed, {refused} refused, {stricter} by us");
}

/// A request with broken bytes anywhere, or with right lengths around a wrong value.
fn broken_case(seed: u64) -> (Signal, Vec<u8>) {
    let (signal, mut bytes) = case(seed);
    let mut random = Rng::with_seed(!seed);
    if random.bool() {
        mangle::damage(&mut bytes, &mut random);
        return (signal, bytes);
    }
    let (signal, bytes) = plain_case(seed);
    (signal, mangle::illegal_form(schema::request(signal), &bytes, &mut random))
}

#[test]
fn d1_bytes_at_random_never_pass_what_prost_refuses() {
    for seed in 0..20_000 {
        let mut random = Rng::with_seed(seed);
        let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
        let mut bytes: Vec<u8> = (0..random.usize(0..24)).map(|_| random.u8(0..24)).collect();
        if random.bool() {
            bytes.insert(0, bytes.len() as u8);
            bytes.insert(0, 0x0a);
        }
        let prost = Decoded::from_proto(signal, &bytes);
        if let Ok(checked) = check(signal, bytes.clone().into()) {
            let decoded = prost.unwrap_or_else(|why| panic!("seed {seed}, {bytes:?}: {why}"));
            assert_eq!(checked.counts(), decoded.counts(), "seed {seed}");
        }
    }
}

#[test]
fn d1_a_request_cut_at_any_byte_gets_the_verdict_of_prost() {
    for seed in 0..40 {
        let (signal, bytes) = case(seed);
        for cut in 0..bytes.len().min(3_000) {
            let passed = check(signal, bytes[..cut].to_vec().into());
            let prost = Decoded::from_proto(signal, &bytes[..cut]);
            assert_eq!(passed.is_ok(), prost.is_ok(), "seed {seed} cut at {cut}: {passed:?}");
        }
    }
}
