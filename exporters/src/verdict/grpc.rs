//! What a gRPC answer means: status in trailers or headers, details, message.
//!
//! Sans I/O. Codes are judged as OTLP 1.11 "OTLP/gRPC Response" lists them; an answer without
//! a gRPC status is judged by its HTTP status as the gRPC specification maps it.

use forebay_codec::compress::{DecompressError, Decompressor, Encoding};
use forebay_codec::status::{PartialSuccess, Status};
use http::{HeaderMap, StatusCode};

use super::{
    Failure, FailureKind, Remedy, Verdict, again, answer_too_large, clip, code, decompress,
    delivered, garbage, said, text,
};

const PREFIX_BYTES: usize = 5;

/// Reads a unary answer: `headers` as they came, `body` as DATA (prefix included), and the
/// trailers if there were any. A status in the headers is a trailers-only answer.
pub fn of_grpc(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    trailers: Option<&HeaderMap>,
    decompressor: &mut Decompressor,
) -> Verdict {
    let content_type = text(headers, "content-type").unwrap_or("");
    if status != StatusCode::OK || !content_type.starts_with("application/grpc") {
        return of_plain_http(status, headers, content_type);
    }
    let ending = match trailers.filter(|trailers| trailers.contains_key("grpc-status")) {
        Some(trailers) => trailers,
        None => headers,
    };
    let Some(code) = text(ending, "grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        return garbage("the answer ended without a grpc-status".to_owned());
    };
    if code == 0 { of_message(headers, body, decompressor) } else { of_code(code, ending) }
}

/// A stream that was reset before its answer was complete. REFUSED_STREAM and a going-away server
/// were not processed, the others may have been: both are sent again (OTLP accepts duplicates).
pub fn of_grpc_reset(why: impl std::fmt::Display) -> Verdict {
    again(FailureKind::Disconnected, format!("the request ended without an answer: {why}"))
}

fn of_message(headers: &HeaderMap, body: &[u8], decompressor: &mut Decompressor) -> Verdict {
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return garbage("the answer says OK but holds no message".to_owned());
    };
    let [flag, length @ ..] = *prefix;
    if u32::from_be_bytes(length) as usize != message.len() || flag > 1 {
        return garbage("the answer says OK but its message is not framed as gRPC".to_owned());
    }
    let encoding = match (flag, text(headers, "grpc-encoding")) {
        (0, _) => Some(Encoding::Identity),
        (_, Some(name)) => Encoding::from_grpc(name),
        (_, None) => None,
    };
    let Some(encoding) = encoding else {
        return garbage("the answer is compressed in a way that was not announced".to_owned());
    };
    let partial = match decompress(decompressor, encoding, message) {
        Ok(message) => PartialSuccess::response_from_proto(&message),
        Err(DecompressError::TooLarge { .. }) => return answer_too_large(),
        Err(error) => return garbage(format!("the answer does not decompress: {error:?}")),
    };
    match partial {
        Some(partial) => delivered(partial),
        None => garbage("the answer says OK but is no export response".to_owned()),
    }
}

fn of_code(code: u32, ending: &HeaderMap) -> Verdict {
    let details = ending
        .get("grpc-status-details-bin")
        .and_then(|value| decode_base64(value.as_bytes()))
        .and_then(|bytes| Status::from_proto(&bytes));
    let delay = details.as_ref().and_then(|status| status.retry_delay);
    let message = match text(ending, "grpc-message") {
        Some(message) => clip(&decode_percent(message)),
        None => details.as_ref().map(said).unwrap_or_default(),
    };
    let (kind, remedy) = match code {
        code::CANCELLED
        | code::DEADLINE_EXCEEDED
        | code::ABORTED
        | code::OUT_OF_RANGE
        | code::UNAVAILABLE
        | code::DATA_LOSS => (FailureKind::Unavailable, Remedy::Retry { delay }),
        // With a delay it is overload that passes, without one it is a limit that stays.
        code::RESOURCE_EXHAUSTED if delay.is_some() => {
            (FailureKind::Unavailable, Remedy::Retry { delay })
        }
        code::RESOURCE_EXHAUSTED => (FailureKind::TooLarge, Remedy::Shrink),
        _ => (FailureKind::Refused, Remedy::Drop),
    };
    let message = match message.is_empty() {
        true => name(code).to_owned(),
        false => format!("{}: {message}", name(code)),
    };
    Verdict::Failed(Failure { kind, code: Some(code), status: None, message, remedy })
}

/// The gRPC specification's "HTTP to gRPC Status Code Mapping", for a peer that speaks no gRPC.
fn of_plain_http(status: StatusCode, headers: &HeaderMap, content_type: &str) -> Verdict {
    // Proxies answer errors on behalf of a gRPC server with a status in their plain headers.
    if let Some(code) = text(headers, "grpc-status").and_then(|code| code.parse::<u32>().ok())
        && code != 0
    {
        return of_code(code, headers);
    }
    let code = match status.as_u16() {
        200 => {
            let kind = if content_type.is_empty() { "no content type" } else { content_type };
            return garbage(format!("answered with {}; is this a gRPC endpoint?", clip(kind)));
        }
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502..=504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    };
    let message = format!("HTTP {status} instead of a gRPC answer");
    let (kind, remedy) = match code {
        code::UNAVAILABLE => (FailureKind::Unavailable, Remedy::Retry { delay: None }),
        _ => (FailureKind::Refused, Remedy::Drop),
    };
    Verdict::Failed(Failure { kind, code: Some(code), status: None, message, remedy })
}

fn name(code: u32) -> &'static str {
    match code {
        code::CANCELLED => "CANCELLED",
        code::INVALID_ARGUMENT => "INVALID_ARGUMENT",
        code::DEADLINE_EXCEEDED => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        code::PERMISSION_DENIED => "PERMISSION_DENIED",
        code::RESOURCE_EXHAUSTED => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        code::ABORTED => "ABORTED",
        code::OUT_OF_RANGE => "OUT_OF_RANGE",
        code::UNIMPLEMENTED => "UNIMPLEMENTED",
        code::INTERNAL => "INTERNAL",
        code::UNAVAILABLE => "UNAVAILABLE",
        code::DATA_LOSS => "DATA_LOSS",
        code::UNAUTHENTICATED => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// `grpc-message` is percent-encoded UTF-8; what does not decode is shown as it came.
fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escape) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Standard base64, padded or not, as gRPC asks receivers of `-bin` headers to accept.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = text.len() - text.iter().rev().take_while(|byte| **byte == b'=').count();
    let mut decoded = Vec::with_capacity(unpadded * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in &text[..unpadded] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    (unpadded % 4 != 1).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_padded_and_unpadded() {
        for (text, bytes) in [("", ""), ("Zg", "f"), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo")]
        {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode_base64(b"Z"), None);
        assert_eq!(decode_base64(b"Zm9*"), None);
    }

    #[test]
    fn percent_encoding_is_undone_and_broken_escapes_stay() {
        assert_eq!(decode_percent("queue%20full%21"), "queue full!");
        assert_eq!(decode_percent("50% of %zz %2"), "50% of %zz %2");
        assert_eq!(decode_percent("%E2%9C%93"), "✓");
        assert_eq!(decode_percent("é%41"), "éA");
    }
}
