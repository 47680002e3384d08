//! Verdicts by table: each code, each status, and what is no answer at all.

use http::HeaderValue;

use super::*;

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn http(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Verdict {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let status = StatusCode::from_u16(status).unwrap();
    of_http(status, &map(headers), body, now, &mut Decompressor::new())
}

fn grpc(trailers: &[(&'static str, &str)], body: &[u8]) -> Verdict {
    let headers = map(&[("content-type", "application/grpc")]);
    let trailers = map(trailers);
    of_grpc(StatusCode::OK, &headers, body, Some(&trailers), &mut Decompressor::new())
}

fn grpc_alone(status: u16, headers: &[(&'static str, &str)]) -> Verdict {
    let status = StatusCode::from_u16(status).unwrap();
    of_grpc(status, &map(headers), &[], None, &mut Decompressor::new())
}

fn failure(verdict: Verdict) -> Failure {
    match verdict {
        Verdict::Failed(failure) => failure,
        delivered => panic!("{delivered:?}"),
    }
}

const NOTHING: Verdict = Verdict::Delivered { rejected: 0, warning: String::new() };
const AGAIN: Remedy = Remedy::Retry { delay: None };

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

fn details(code: u32, retry_delay: Option<Duration>) -> String {
    let status = Status { code, message: "busy".to_owned(), retry_delay, bad_request: None };
    base64(&status.to_proto())
}

#[test]
fn c3_each_grpc_code_is_retried_or_dropped_as_the_table_says() {
    for code in 1..=20_u32 {
        let expected = match code {
            1 | 4 | 10 | 11 | 14 | 15 => AGAIN,
            8 => Remedy::Shrink,
            _ => Remedy::Drop,
        };
        let failure = failure(grpc(&[("grpc-status", &code.to_string())], &[]));
        assert_eq!((failure.remedy, failure.code), (expected, Some(code)), "code {code}");
    }
}

#[test]
fn c3_resource_exhausted_is_retried_only_with_retry_info() {
    let delay = Some(Duration::from_millis(1500));
    let with = details(8, delay);
    let verdict = grpc(&[("grpc-status", "8"), ("grpc-status-details-bin", &with)], &[]);
    assert_eq!(failure(verdict).remedy, Remedy::Retry { delay });
    let without = details(8, None);
    let verdict = grpc(&[("grpc-status", "8"), ("grpc-status-details-bin", &without)], &[]);
    assert_eq!(failure(verdict).remedy, Remedy::Shrink);
}

#[test]
fn c3_a_trailers_only_answer_counts_and_its_message_is_decoded() {
    let verdict = grpc_alone(
        200,
        &[
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-message", "come%20back"),
        ],
    );
    let failure = failure(verdict);
    assert_eq!(failure.remedy, AGAIN);
    assert_eq!(failure.message, "UNAVAILABLE: come back");
}

#[test]
fn c3_a_peer_without_grpc_is_judged_by_its_http_status() {
    let cases = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14)];
    for (status, code) in cases.into_iter().chain([(504, 14), (500, 2), (302, 2)]) {
        let failure = failure(grpc_alone(status, &[("content-type", "text/html")]));
        let expected = if code == 14 { AGAIN } else { Remedy::Drop };
        assert_eq!((failure.code, failure.remedy), (Some(code), expected), "HTTP {status}");
    }
}

#[test]
fn c4_only_429_502_503_and_504_are_retried() {
    for status in (300..=599).filter(|status| *status != 413) {
        let expected = match status {
            429 | 502 | 503 | 504 => AGAIN,
            _ => Remedy::Drop,
        };
        assert_eq!(failure(http(status, &[], b"")).remedy, expected, "HTTP {status}");
    }
    assert_eq!(failure(http(413, &[], b"")).remedy, Remedy::Shrink);
}

#[test]
fn c5_retry_after_is_read_as_seconds_and_as_a_date() {
    let cases = [
        ("7", Some(7)),
        ("0", Some(0)),
        ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
        ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
        ("99999999999999999999", Some(u64::from(u32::MAX))),
        ("soon", None),
        ("-1", None),
        ("", None),
    ];
    for (value, seconds) in cases {
        let delay = seconds.map(Duration::from_secs);
        let failure = failure(http(503, &[("retry-after", value)], b""));
        assert_eq!(failure.remedy, Remedy::Retry { delay }, "Retry-After: {value}");
    }
}

#[test]
fn c6_a_partial_success_is_delivered_with_its_rejects() {
    let partial = PartialSuccess { rejected: 3, message: "too old".to_owned() };
    let expected = Verdict::Delivered { rejected: 3, warning: "too old".to_owned() };
    let proto = partial.to_response_proto();
    assert_eq!(http(200, &[("content-type", "application/x-protobuf")], &proto), expected);
    let framed = [&[0, 0, 0, 0, proto.len() as u8], proto.as_slice()].concat();
    assert_eq!(grpc(&[("grpc-status", "0")], &framed), expected);
    let json = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#;
    assert_eq!(http(200, &[("content-type", "application/json; charset=utf-8")], json), expected);
}

#[test]
fn full_success_is_the_empty_message_in_any_of_its_forms() {
    assert_eq!(http(200, &[("content-type", "application/x-protobuf")], b""), NOTHING);
    assert_eq!(http(200, &[("content-type", "application/json")], b"{}"), NOTHING);
    assert_eq!(http(200, &[], b""), NOTHING);
    assert_eq!(http(204, &[], b""), NOTHING);
    assert_eq!(grpc(&[("grpc-status", "0")], &[0; 5]), NOTHING);
}

#[test]
fn what_is_no_answer_is_never_taken_for_one() {
    let garbage = [
        http(200, &[("content-type", "text/html")], b"<html>please log in</html>"),
        http(200, &[("content-type", "application/x-protobuf")], b"\xff\xff\xff"),
        http(200, &[("content-type", "application/json")], b"{\"partialSuccess\":"),
        http(200, &[("content-encoding", "br")], b"x"),
        http(200, &[("content-encoding", "gzip")], b"not gzip"),
        grpc(&[("grpc-status", "0")], &[]),
        grpc(&[("grpc-status", "0")], &[0, 0, 0, 0, 9, 1]),
        grpc(&[("grpc-status", "0")], &[1, 0, 0, 0, 1, 1]),
        grpc(&[("grpc-status", "0")], &[0, 0, 0, 0, 2, 0xff, 0xff]),
        grpc(&[("grpc-status", "fine")], &[]),
        grpc(&[], &[0; 5]),
        grpc_alone(200, &[("content-type", "text/html")]),
    ];
    for (case, verdict) in garbage.into_iter().enumerate() {
        let failure = failure(verdict);
        let got = (failure.kind, failure.remedy);
        assert_eq!(got, (FailureKind::Garbage, AGAIN), "case {case}: {}", failure.message);
    }
}

#[test]
fn the_text_of_an_error_is_read_from_its_status_and_cut_to_one_line() {
    let status = Status { message: "bad\nspan".to_owned(), ..status() };
    let proto = http(400, &[("content-type", "application/x-protobuf")], &status.to_proto());
    assert_eq!(failure(proto).message, "HTTP 400 Bad Request: bad span");
    let json = http(400, &[("content-type", "application/json")], &status.to_json());
    assert_eq!(failure(json).message, "HTTP 400 Bad Request: bad span");
    let text = http(500, &[("content-type", "text/plain")], "x".repeat(5000).as_bytes());
    assert!(failure(text).message.chars().count() < 600);
}

fn status() -> Status {
    Status { code: 3, message: String::new(), retry_delay: None, bad_request: None }
}
