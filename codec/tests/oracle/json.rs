//! JSON against prost, and against the JSON that the OpenTelemetry crate writes with serde.

use forebay_codec::check::check;
use forebay_codec::json::{json_to_proto, proto_to_json};
use forebay_codec::signal::Signal;

use crate::decoded::Decoded;
use crate::verdict::case;

#[test]
fn j1_to_j6_a_request_survives_the_way_to_json_and_back() {
    for seed in 0..3_000 {
        let (signal, bytes) = case(seed);
        let mut json = Vec::new();
        proto_to_json(&bytes, signal, &mut json).unwrap();
        let again = json_to_proto(signal, &json).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
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
        let read = json_to_proto(signal, &theirs).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let read = Decoded::from_proto(signal, &read).unwrap();
        assert_eq!(read, before, "seed {seed}, theirs");
        theirs_compared += 1;

        let mut ours = Vec::new();
        proto_to_json(&bytes, signal, &mut ours).unwrap();
        let read = Decoded::from_json(signal, &ours);
        if let Ok(read) = read { assert_eq!(read, before, "seed {seed}, ours"); ours_compared += 1; } else { eprintln!("{} {}", read.unwrap_err(), String::from_utf8_lossy(&ours)); }
    }
    panic!("{theirs_compared} {ours_compared}");
}
