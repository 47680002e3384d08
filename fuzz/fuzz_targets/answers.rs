//! Any bytes as a peer's answer: read or not, and written again as the same answer.
#![no_main]

use forebay_codec::signal::Signal;
use forebay_codec::status::{PartialSuccess, Status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(status) = Status::from_proto(input) {
        assert_eq!(Status::from_proto(&status.to_proto()), Some(status));
    }
    if let Some(status) = Status::from_json(input) {
        assert_eq!(Status::from_json(&status.to_json()), Some(status));
    }
    if let Some(answer) = PartialSuccess::response_from_proto(input) {
        assert_eq!(PartialSuccess::response_from_proto(&answer.to_response_proto()), Some(answer));
    }
    if let Some(answer) = PartialSuccess::response_from_json(input) {
        let json = answer.to_response_json(Signal::Traces);
        assert_eq!(PartialSuccess::response_from_json(&json), Some(answer));
    }
});
