//! JSON against prost, and against the JSON that the OpenTelemetry crate writes with serde.

use fastrand::Rng;
use forebay_codec::check::check;
use forebay_codec::json::{JsonReason, json_to_proto, proto_to_json};
use forebay_codec::signal::Signal;

use crate::decoded::Decoded;
use crate::mangle;
use crate::verdict::case;

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
