//! Answers survive the trip in both encodings, match what prost reads, and tolerate odd peers.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use super::*;

fn statuses() -> Vec<Status> {
    let mut all = vec![Status::default()];
    for retry_delay in [None, Some(Duration::ZERO), Some(Duration::new(90, 50_000_000))] {
        for bad_request in [None, Some(String::new()), Some("at byte 7: \"no\" ☂".to_owned())] {
            let message = "queue full".to_owned();
            all.push(Status { code: 14, message, retry_delay, bad_request });
        }
    }
    all
}

#[test]
fn h6_a_status_comes_back_from_protobuf_and_from_json() {
    for status in statuses() {
        assert_eq!(Status::from_proto(&status.to_proto()).as_ref(), Some(&status));
        assert_eq!(Status::from_json(&status.to_json()).as_ref(), Some(&status));
    }
}

/// The messages as google/rpc/status.proto declares them, for prost to read.
#[derive(Clone, PartialEq, prost::Message)]
struct OracleStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<OracleAny>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OracleAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OracleRetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<OracleDuration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OracleDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[test]
fn g5_prost_reads_our_retry_info() {
    let status = Status {
        code: 14,
        message: "busy".into(),
        retry_delay: Some(Duration::new(2, 5)),
        bad_request: Some("x".into()),
    };
    let oracle = OracleStatus::decode(&*status.to_proto()).unwrap();
    assert_eq!((oracle.code, oracle.message.as_str()), (14, "busy"));
    assert_eq!(oracle.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let retry_info = OracleRetryInfo::decode(&*oracle.details[0].value).unwrap();
    assert_eq!(retry_info.retry_delay, Some(OracleDuration { seconds: 2, nanos: 5 }));
    assert_eq!(oracle.details[1].type_url, "type.googleapis.com/google.rpc.BadRequest");
}

#[test]
fn h6_json_details_carry_their_type() {
    let status = Status { retry_delay: Some(Duration::from_millis(1500)), ..Status::default() };
    let json: Value = serde_json::from_slice(&status.to_json()).unwrap();
    assert_eq!(json["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(json["details"][0]["retryDelay"], "1.5s");
}

#[test]
fn s3_full_success_is_zero_bytes_or_an_empty_object() {
    let full = PartialSuccess::default();
    assert!(full.to_response_proto().is_empty());
    assert_eq!(full.to_response_json(Signal::Logs), b"{}");
    assert_eq!(PartialSuccess::response_from_proto(b""), Some(full.clone()));
    assert_eq!(PartialSuccess::response_from_json(b"{}"), Some(full.clone()));
    let null = br#"{"partialSuccess":null}"#;
    assert_eq!(PartialSuccess::response_from_json(null), Some(full));
}

#[test]
fn s4_partial_success_comes_back_for_each_signal_and_prost_reads_it() {
    for signal in Signal::ALL {
        for (rejected, message) in [(5, "two are odd"), (0, "a warning"), (7, "")] {
            let partial = PartialSuccess { rejected, message: message.into() };
            let json = partial.to_response_json(signal);
            let proto = partial.to_response_proto();
            assert_eq!(PartialSuccess::response_from_json(&json).as_ref(), Some(&partial));
            assert_eq!(PartialSuccess::response_from_proto(&proto).as_ref(), Some(&partial));
            let oracle = ExportTraceServiceResponse::decode(&*proto).unwrap();
            let oracle = oracle.partial_success.unwrap();
            assert_eq!(oracle.rejected_spans, rejected as i64);
            assert_eq!(oracle.error_message, message);
        }
    }
}

#[test]
fn s5_an_empty_partial_success_equals_an_unset_one() {
    let read = PartialSuccess::response_from_proto(&[0x0a, 0x00]).unwrap();
    assert!(read.is_full_success());
    let read = PartialSuccess::response_from_json(br#"{"partialSuccess":{}}"#).unwrap();
    assert!(read.is_full_success());
}

#[test]
fn answers_of_odd_peers_are_read_as_far_as_they_go() {
    let number = br#"{"partialSuccess":{"rejectedSpans":3}}"#;
    assert_eq!(PartialSuccess::response_from_json(number).unwrap().rejected, 3);
    let mut negative = Vec::new();
    wire::put_number(&mut negative, 1, -1i64 as u64);
    let mut response = Vec::new();
    wire::put_bytes(&mut response, 1, &negative);
    assert_eq!(PartialSuccess::response_from_proto(&response).unwrap().rejected, 0);
    let odd = br#"{"code":"x","details":[1,{"@type":"other"},{"@type":"a/google.rpc.RetryInfo"}]}"#;
    assert_eq!(Status::from_json(odd).unwrap().retry_delay, Some(Duration::ZERO));
    assert_eq!(Status::from_proto(&[0x12, 1, 0xff]).unwrap().message, "\u{fffd}");
}

#[test]
fn bytes_that_are_no_message_are_none() {
    for bytes in [&b"<html>"[..], b"\x0a\x05ab", b"\x0a\x02\x08"] {
        assert_eq!(PartialSuccess::response_from_proto(bytes), None, "{bytes:?}");
    }
    assert_eq!(Status::from_proto(b"\x1a\x03\x12\x05a"), None);
    for json in [&b""[..], b"[]", b"<html>", b"{\"a\":"] {
        assert_eq!(Status::from_json(json), None);
        assert_eq!(PartialSuccess::response_from_json(json), None);
    }
}

#[test]
fn a_retry_delay_in_text_is_read_with_up_to_nine_decimals() {
    let cases = [
        ("1.5s", Duration::from_millis(1500)),
        ("0.000000001s", Duration::from_nanos(1)),
        ("3600s", Duration::from_secs(3600)),
        ("-1s", Duration::ZERO),
        ("soon", Duration::ZERO),
        ("1", Duration::ZERO),
    ];
    for (text, expected) in cases {
        assert_eq!(duration_of_text(text), expected, "{text}");
    }
}
