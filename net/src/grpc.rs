//! gRPC's framing over HTTP/2: the length-prefixed message, and the status that ends a call.
//!
//! Source: gRPC over HTTP2 (PROTOCOL-HTTP2), its `grpc-timeout`, percent-encoding of
//! `grpc-message`, and base64 of `-bin` headers (padding taken, never sent).

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::fields::Fields;
use crate::request::Answer;

/// A flag and a length stand before each message.
pub const PREFIX_BYTES: usize = 5;

/// The codes of gRPC that forebay says or hears.
pub mod code {
    pub const OK: u32 = 0;
    pub const CANCELLED: u32 = 1;
    pub const UNKNOWN: u32 = 2;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const NOT_FOUND: u32 = 5;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const ABORTED: u32 = 10;
    pub const OUT_OF_RANGE: u32 = 11;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const INTERNAL: u32 = 13;
    pub const UNAVAILABLE: u32 = 14;
    pub const DATA_LOSS: u32 = 15;
    pub const UNAUTHENTICATED: u32 = 16;
}

/// Why a body is not one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than its prefix says, or without a whole prefix.
    Truncated,
    /// More than one message in a unary call.
    MoreThanOne,
    /// The flag is neither 0 nor 1.
    BadFlag(u8),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::Truncated => {
                f.write_str("the gRPC message is shorter than its prefix says")
            }
            FrameError::MoreThanOne => {
                f.write_str("a unary gRPC call carries one message, this one has more bytes")
            }
            FrameError::BadFlag(flag) => {
                write!(f, "the gRPC message's flag is {flag}, neither 0 nor 1")
            }
        }
    }
}

/// Takes the single message of a unary call apart: whether it is compressed, and its bytes.
pub fn unframe(mut body: Bytes) -> Result<(bool, Bytes), FrameError> {
    let Some((prefix, rest)) = body.split_at_checked(PREFIX_BYTES) else {
        return Err(FrameError::Truncated);
    };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    match (prefix[0], rest.len().cmp(&length)) {
        (flag @ 2.., _) => Err(FrameError::BadFlag(flag)),
        (_, std::cmp::Ordering::Less) => Err(FrameError::Truncated),
        (_, std::cmp::Ordering::Greater) => Err(FrameError::MoreThanOne),
        (flag, std::cmp::Ordering::Equal) => {
            // In place: a second handle would cost memory of its own.
            body.advance(PREFIX_BYTES);
            Ok((flag == 1, body))
        }
    }
}

/// Puts the prefix before a message that is not compressed.
pub fn frame(message: &[u8]) -> Bytes {
    if message.is_empty() {
        // As most answers are.
        return Bytes::from_static(&[0; PREFIX_BYTES]);
    }
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The answer to a call that succeeded with `message`.
pub fn ok(message: &[u8]) -> Answer {
    Answer {
        status: StatusCode::OK,
        headers: Fields::from([(http::header::CONTENT_TYPE, CONTENT_TYPE)]),
        body: frame(message),
        trailers: Fields::from([(GRPC_STATUS, HeaderValue::from_static("0"))]),
    }
}

/// One of the messages that a streamed call is answered with.
pub fn message(message: &[u8]) -> Answer {
    Answer { trailers: Fields::new(), ..ok(message) }
}

/// The end of a streamed call that succeeded, whether or not anything was said before.
pub fn finished() -> Answer {
    let headers = Fields::from([
        (http::header::CONTENT_TYPE, CONTENT_TYPE),
        (GRPC_STATUS, HeaderValue::from(0)),
    ]);
    Answer { status: StatusCode::OK, headers, body: Bytes::new(), trailers: Fields::new() }
}

/// The trailers-only answer to a call that failed. `details` is a `google.rpc.Status`, encoded.
pub fn failed(code: u32, message: &str, details: Option<&[u8]>) -> Answer {
    let mut headers = Fields::from([
        (http::header::CONTENT_TYPE, CONTENT_TYPE),
        (GRPC_STATUS, HeaderValue::from(code)),
        (GRPC_MESSAGE, percent_encode(message)),
    ]);
    if let Some(details) = details {
        headers.push(GRPC_DETAILS, base64_unpadded(details));
    }
    Answer { status: StatusCode::OK, headers, body: Bytes::new(), trailers: Fields::new() }
}

/// `grpc-timeout`: at most eight digits and a unit. `None` for anything else.
pub fn timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn percent_encode(message: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string can't fail"),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII is a header value")
}

fn base64_unpadded(bytes: &[u8]) -> HeaderValue {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let wide = group.iter().fold(0u32, |wide, byte| (wide << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(ALPHABET[(wide >> (18 - 6 * place)) as usize & 63]);
        }
    }
    HeaderValue::try_from(text).expect("base64 is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_framed_comes_back_whole() {
        for length in [0usize, 1, 5, 70_000] {
            let message = vec![7u8; length];
            let (compressed, back) = unframe(frame(&message)).unwrap();
            assert!(!compressed);
            assert_eq!(back, message);
        }
    }

    #[test]
    fn a_body_that_is_not_one_message_is_told_apart() {
        let check = |body: &'static [u8], expected| {
            assert_eq!(unframe(Bytes::from_static(body)), Err(expected));
        };
        check(b"", FrameError::Truncated);
        check(b"\0\0\0\0", FrameError::Truncated);
        check(b"\0\0\0\0\x02a", FrameError::Truncated);
        check(b"\0\xff\xff\xff\xffa", FrameError::Truncated);
        check(b"\0\0\0\0\x01ab", FrameError::MoreThanOne);
        check(b"\x02\0\0\0\x01a", FrameError::BadFlag(2));
    }

    #[test]
    fn a_grpc_timeout_has_at_most_eight_digits_and_a_unit() {
        assert_eq!(timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "10", "100000000S", "-1S", "1x", "1.5S", "é"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_status_message_travels_percent_encoded_and_details_unpadded() {
        let answer = failed(3, "50% of \u{e9}\n", Some(b"\x08\x03"));
        let value = |name: HeaderName| {
            let found = answer.headers.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap()
        };
        assert_eq!(value(GRPC_MESSAGE), "50%25 of %C3%A9%0A");
        assert_eq!(value(GRPC_DETAILS), "CAM");
        assert_eq!(value(GRPC_STATUS), "3");
    }
}
