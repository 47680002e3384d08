//! `grpc.health.v1.Health/Check`, the asking side: its one request and its one answer.
//!
//! Sans I/O. A server that has no such service is there all the same: it says UNIMPLEMENTED.

use bytes::Bytes;
use forebay_codec::compress::Decompressor;
use forebay_codec::wire;
use forebay_net::grpc::{code, frame, unframe};
use forebay_net::http2::client::Answer;
use http::HeaderMap;

use crate::checkup::Finding;
use crate::verdict::{FailureKind, Verdict, of_grpc};

pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

const SERVICE: u32 = 1;
const STATUS: u32 = 1;
const SERVING: u64 = 1;

/// The headers of other requests, less what is for compressed messages: some servers refuse a
/// compression that they do not know even where it is not used.
pub(super) fn headers(of_exports: &HeaderMap) -> HeaderMap {
    let mut headers = of_exports.clone();
    headers.remove("grpc-encoding");
    headers.remove("grpc-accept-encoding");
    headers
}

/// A message that asks for `service`; empty: for the server as a whole.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        wire::put_bytes(&mut message, SERVICE, service.as_bytes());
    }
    frame(&message)
}

pub(super) fn finding(answer: &Answer, service: &str, decompressor: &mut Decompressor) -> Finding {
    let Answer { status, headers, body, trailers } = answer;
    let of_trailers = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    if of_trailers.or_else(|| headers.get("grpc-status")).is_some_and(|status| status == "0") {
        return match status_of(body) {
            Some(SERVING) => Finding::Serving,
            Some(_) => Finding::trouble(FailureKind::Unavailable, "it says that it is not serving"),
            None => {
                Finding::trouble(FailureKind::Garbage, "its answer is none of the health protocol")
            }
        };
    }
    match of_grpc(*status, headers, body, trailers.as_ref(), decompressor) {
        Verdict::Failed(failure) => match failure.code {
            Some(code::UNIMPLEMENTED) => Finding::NoHealthService,
            Some(code::NOT_FOUND) => {
                let said = failure.message;
                let why = format!("it knows no service \"{service}\": {said}");
                Finding::trouble(failure.kind, why)
            }
            _ => Finding::trouble(failure.kind, failure.message),
        },
        Verdict::Delivered { .. } => {
            Finding::trouble(FailureKind::Garbage, "an answer without a status")
        }
    }
}

/// `HealthCheckResponse.status`, 0 if it is left out.
fn status_of(body: &[u8]) -> Option<u64> {
    let (is_compressed, message) = unframe(Bytes::copy_from_slice(body)).ok()?;
    if is_compressed {
        return None;
    }
    let (mut at, mut status) = (0, 0);
    while at < message.len() {
        let (number, wire_type) = wire::tag(&message, &mut at).ok()?;
        let value = wire::value(&message, &mut at, wire_type).ok()?;
        if (number, wire_type) == (STATUS, 0) {
            status = wire::varint_of(&message[value]);
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn answer(status: &'static str, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(status));
        Answer { status: StatusCode::OK, headers, body: body.to_vec(), trailers: None }
    }

    fn found(answer: &Answer) -> Finding {
        finding(answer, "a", &mut Decompressor::new())
    }

    #[test]
    fn only_serving_is_serving_and_a_server_without_the_service_is_there() {
        assert_eq!(found(&answer("0", b"\0\0\0\0\x02\x08\x01")), Finding::Serving);
        for body in
            [&b"\0\0\0\0\0"[..], b"\0\0\0\0\x02\x08\x02", b"\0\0\0\0\x02\x08\x03", b"", b"\0"]
        {
            assert!(matches!(found(&answer("0", body)), Finding::Trouble(_)), "{body:?}");
        }
        assert_eq!(found(&answer("12", b"")), Finding::NoHealthService);
        assert!(matches!(found(&answer("5", b"")), Finding::Trouble(_)));
        assert!(matches!(found(&answer("14", b"")), Finding::Trouble(_)));
    }

    #[test]
    fn the_request_names_the_service_or_nothing() {
        assert_eq!(&request("")[..], b"\0\0\0\0\0");
        assert_eq!(&request("otlp")[..], b"\0\0\0\0\x06\x0a\x04otlp");
    }
}
