//! JSON against prost, and against the JSON that the OpenTelemetry crate writes with serde.

use fastrand::Rng;
use forebay_codec::check::check;
use forebay_codec::json::{JsonReason, json_to_proto, proto_to_json};
use forebay_codec::schema;
use forebay_codec::signal::Signal;

use crate::decoded::Decoded;
use crate::verdict::case;
use crate::{generate, mangle};

mod respell;

#[test]
fn j1_to_j6_a_request_survives_the_way_to_json_and_back() {
    for seed in 0..3_000 {
        let (signal, bytes) = case(seed);
        let mut json = Vec::new();
        proto_to_json(&bytes, signal, &mut json).unwrap();
        let again = json_to_proto(signal, &json, usize::MAX)
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let at_the_limit = json_to_proto(signal, &json, again.len());
        assert_eq!(at_the_limit.as_ref(), Ok(&again), "seed {seed}");
        if let Some(bytes_max) = again.len().checked_sub(1) {
            let refused = json_to_proto(signal, &json, bytes_max).map_err(|error| error.reason);
            assert_eq!(refused, Err(JsonReason::TooLarge { bytes_max }), "seed {seed}");
        }
        let again_checked = check(signal, again.clone().into());
        assert!(again_checked.is_ok(), "seed {seed}: {again_checked:?}");
        let before = Decoded::from_proto(signal, &bytes).unwrap();
        let after = Decoded::from_proto(signal, &again).unwrap();
        let json = String::from_utf8_lossy(&json);
        assert_eq!(before.to_proto(), after.to_proto(), "seed {seed}, {json}");
    }
}

#[test]
fn j1_to_j5_json_of_the_opentelemetry_crate_is_read_and_ours_is_read_by_it() {
    let (mut theirs_compared, mut ours_compared) = (0, 0);
    for seed in 0..1_000 {
        let (signal, bytes) = case(seed);
        let before = Decoded::from_proto(signal, &bytes).unwrap();
        let theirs = before.to_json();
        // The crate writes infinities as null and ids in profiles as arrays of numbers; what it
        // cannot read back itself is no measure for us.
        let readable = Decoded::from_json(signal, &theirs).is_ok_and(|again| again == before);
        if !readable || signal == Signal::Profiles {
            continue;
        }
        let read = json_to_proto(signal, &theirs, usize::MAX)
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let read = Decoded::from_proto(signal, &read).unwrap();
        assert_eq!(read, before, "seed {seed}, theirs");
        theirs_compared += 1;

        let mut ours = Vec::new();
        proto_to_json(&bytes, signal, &mut ours).unwrap();
        match Decoded::from_json(signal, &ours) {
            Ok(read) => {
                assert_eq!(read, before, "seed {seed}, ours");
                ours_compared += 1;
            }
            // The crate misses some fields that are left out because they are empty.
            Err(why) => assert!(why.to_string().contains("missing field"), "seed {seed}: {why}"),
        }
    }
    let enough = theirs_compared > 100 && ours_compared > 50;
    assert!(enough, "compared only {theirs_compared} of theirs and {ours_compared} of ours");
}

#[test]
fn damaged_json_is_refused_where_serde_refuses_it_and_what_passes_is_valid_protobuf() {
    let (mut passed, mut refused) = (0, 0);
    for seed in 0..4_000 {
        let (signal, bytes) = case(seed);
        let mut json = Vec::new();
        proto_to_json(&bytes, signal, &mut json).unwrap();
        mangle::damage(&mut json, &mut Rng::with_seed(!seed));
        match json_to_proto(signal, &json, usize::MAX) {
            Ok(proto) => {
                let verdict = check(signal, proto.into());
                assert!(verdict.is_ok(), "seed {seed}: {verdict:?}");
                // Serde also refuses numbers beyond a double in fields that we skip.
                if let Err(why) = serde_json::from_slice::<serde_json::Value>(&json) {
                    let text = String::from_utf8_lossy(&json);
                    let in_range = !why.to_string().contains("number out of range");
                    assert!(!in_range, "seed {seed}: passed what serde refuses, {why}: {text}");
                }
                passed += 1;
            }
            Err(error) => {
                assert!(error.offset <= json.len(), "seed {seed}: {error}");
                refused += 1;
            }
        }
    }
    assert!(passed > 100 && refused > 1_000, "{passed} passed, {refused} refused");
}

#[test]
fn j1_to_j6_a_request_means_the_same_in_every_spelling() {
    for seed in 0..2_000 {
        let mut random = Rng::with_seed(seed);
        let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
        let before = generate::request(signal, &mut random).to_proto();
        let json = respell::respelled(schema::request(signal), &before, &mut random);
        let after = json_to_proto(signal, json.as_bytes(), usize::MAX)
            .unwrap_or_else(|why| panic!("seed {seed}: {why}: {json}"));
        let after = Decoded::from_proto(signal, &after).unwrap();
        assert_eq!(after.to_proto(), before, "seed {seed}: {json}");
    }
}

#[test]
fn d1_json_cut_at_any_byte_is_refused_at_or_before_the_cut() {
    for seed in 0..30 {
        let mut random = Rng::with_seed(seed);
        let signal = Signal::ALL[random.usize(0..Signal::ALL.len())];
        let request = generate::request(signal, &mut random).to_proto();
        let json = respell::respelled(schema::request(signal), &request, &mut random);
        for cut in 0..json.len().min(2_000) {
            let refused = json_to_proto(signal, &json.as_bytes()[..cut], usize::MAX);
            let error = refused.err().unwrap_or_else(|| panic!("seed {seed}: passed at {cut}"));
            assert!(error.offset <= cut, "seed {seed} cut at {cut}: {error}");
        }
    }
}

#[test]
fn damaged_json_that_serde_reads_into_the_same_types_means_the_same_to_us() {
    let (mut same, mut on_purpose) = (0, 0);
    for seed in 0..4_000 {
        let (signal, bytes) = case(seed);
        let before = Decoded::from_proto(signal, &bytes).unwrap();
        let mut json = before.to_json();
        // As above: what the crate cannot read back is no measure.
        let readable = Decoded::from_json(signal, &json).is_ok_and(|again| again == before);
        if !readable || signal == Signal::Profiles {
            continue;
        }
        mangle::damage(&mut json, &mut Rng::with_seed(!seed));
        let Ok(theirs) = Decoded::from_json(signal, &json) else {
            continue;
        };
        match json_to_proto(signal, &json, usize::MAX) {
            Ok(ours) => {
                let ours = Decoded::from_proto(signal, &ours).unwrap();
                let text = String::from_utf8_lossy(&json);
                assert_eq!(ours.to_proto(), theirs.to_proto(), "seed {seed}: {text}");
                same += 1;
            }
            Err(error) => {
                let text = String::from_utf8_lossy(&json);
                // Serde takes an id of any length, and does not look into what it skips.
                let wanted =
                    matches!(error.reason, JsonReason::WrongIdLength { .. } | JsonReason::NotUtf8);
                assert!(wanted, "seed {seed}: {error}: {text}");
                on_purpose += 1;
            }
        }
    }
    assert!(same > 100 && on_purpose > 0, "{same} the same, {on_purpose} refused on purpose");
}
