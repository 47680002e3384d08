//! What an answer means for the batch: delivered, again, or never.
//!
//! Sans I/O: the wall clock (for an HTTP-date) is an argument. Always: only an answer that was
//! read to its end and understood counts as delivered, and only codes that OTLP 1.11 calls
//! permanent end a batch. Everything that cannot be understood is tried again.

use std::error::Error;
use std::time::{Duration, SystemTime};

use forebay_codec::compress::{DecompressError, Decompressor, Encoding};
use forebay_codec::status::{PartialSuccess, Status};
use forebay_net::grpc::code;
use forebay_net::tls::fault::Fault;
use http::{HeaderMap, StatusCode, header};

mod grpc;
#[cfg(test)]
mod tests;

pub use grpc::{of_grpc, of_grpc_reset};

/// Largest answer that is read, also after decompression (OTLP 1.11, client limits).
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Of an error's body this much is read, for the log.
pub const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// Of a peer's text this much is repeated in a log line.
const TEXT_CHARS_MAX: usize = 512;

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `rejected` items (profiles for the profiles signal) were refused by a partial success;
    /// `warning` is what the destination had to say, often empty.
    Delivered {
        rejected: u64,
        warning: String,
    },
    Failed(Failure),
}

/// Why an attempt failed and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// The gRPC code, or the one that stands for the HTTP status.
    pub code: Option<u32>,
    /// The HTTP status of an answer to OTLP/HTTP.
    pub status: Option<u16>,
    pub message: String,
    pub remedy: Remedy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Send the same bytes again, not before `delay` if the destination named one.
    Retry { delay: Option<Duration> },
    /// Smaller requests may pass.
    Shrink,
    /// It will never be taken.
    Drop,
}

/// Labels of failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection: name not found, refused, unreachable.
    Connect,
    /// There is a connection, but the peers do not trust or understand each other.
    Tls,
    /// The connection broke before an answer was complete.
    Disconnected,
    /// No answer within the timeout.
    Timeout,
    /// The destination said: not now.
    Unavailable,
    /// What came is no answer that OTLP knows.
    Garbage,
    /// The destination said: never.
    Refused,
    /// The destination said: too large.
    TooLarge,
    /// A file could not be written.
    Write,
    /// A defect of forebay's own.
    Internal,
}

impl FailureKind {
    pub const ALL: [FailureKind; 10] = [
        FailureKind::Connect,
        FailureKind::Tls,
        FailureKind::Disconnected,
        FailureKind::Timeout,
        FailureKind::Unavailable,
        FailureKind::Garbage,
        FailureKind::Refused,
        FailureKind::TooLarge,
        FailureKind::Write,
        FailureKind::Internal,
    ];

    /// [`FailureKind::Tls`] if that is what failed in `error`.
    pub(crate) fn of_line(error: &(dyn Error + 'static), otherwise: FailureKind) -> FailureKind {
        match Fault::is_in(error) {
            true => FailureKind::Tls,
            false => otherwise,
        }
    }

    pub fn index(self) -> usize {
        self as usize
    }

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Connect => "connect",
            FailureKind::Tls => "tls",
            FailureKind::Disconnected => "disconnected",
            FailureKind::Timeout => "timeout",
            FailureKind::Unavailable => "unavailable",
            FailureKind::Garbage => "garbage",
            FailureKind::Refused => "refused",
            FailureKind::TooLarge => "too_large",
            FailureKind::Write => "write",
            FailureKind::Internal => "internal",
        }
    }
}

/// A failure that the same bytes may survive.
pub fn again(kind: FailureKind, message: impl Into<String>) -> Verdict {
    let code = match kind {
        FailureKind::Timeout => Some(code::DEADLINE_EXCEEDED),
        _ => Some(code::UNAVAILABLE),
    };
    let remedy = Remedy::Retry { delay: None };
    Verdict::Failed(Failure { kind, code, status: None, message: message.into(), remedy })
}

/// The answer is over [`ANSWER_BYTES_MAX`]: permanent by OTLP 1.11.
pub fn answer_too_large() -> Verdict {
    Verdict::Failed(Failure {
        kind: FailureKind::Refused,
        code: Some(code::RESOURCE_EXHAUSTED),
        status: None,
        message: format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"),
        remedy: Remedy::Drop,
    })
}

/// Reads an OTLP/HTTP answer. `body` holds at most [`ANSWER_BYTES_MAX`] of a success and
/// [`ERROR_BODY_BYTES_MAX`] of anything else.
///
/// OTLP 1.11 "OTLP/HTTP Response": success is 2xx with an Export response in the body; 429, 502,
/// 503 and 504 are retryable, everything else is not. A success in a foreign content type comes
/// from something that is no OTLP server (a login page, a proxy) and is tried again.
pub fn of_http(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
    decompressor: &mut Decompressor,
) -> Verdict {
    let encoding = match text(headers, header::CONTENT_ENCODING.as_str()) {
        None => Some(Encoding::Identity),
        Some(name) => Encoding::from_http(name),
    };
    let plain = match encoding {
        None => Err("its Content-Encoding is unknown".to_owned()),
        Some(encoding) => match decompress(decompressor, encoding, body) {
            Err(DecompressError::TooLarge { .. }) if status.is_success() => {
                return answer_too_large();
            }
            other => other.map_err(|error| format!("its body does not decompress: {error:?}")),
        },
    };
    if status.is_success() {
        http_success(headers, plain)
    } else {
        http_error(status, headers, plain, now)
    }
}

fn http_success(headers: &HeaderMap, body: Result<Vec<u8>, String>) -> Verdict {
    let body = match body {
        Ok(body) => body,
        Err(why) => return garbage(format!("answered 2xx, but {why}")),
    };
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or("");
    let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let answer = match media.as_str() {
        "application/x-protobuf" => PartialSuccess::response_from_proto(&body),
        "application/json" => PartialSuccess::response_from_json(&body),
        // Nothing said in no particular form: the empty message, which is full success.
        "" if body.is_empty() => return delivered(PartialSuccess::default()),
        "" => PartialSuccess::response_from_proto(&body),
        _ => {
            let excerpt = clip(&String::from_utf8_lossy(&body));
            let message = format!("answered 2xx with content type {media}: {excerpt}");
            return garbage(format!("{message}; is this an OTLP endpoint?"));
        }
    };
    match answer {
        Some(partial) => delivered(partial),
        None => garbage("answered 2xx with a body that is no export response".to_owned()),
    }
}

fn http_error(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Vec<u8>, String>,
    now: SystemTime,
) -> Verdict {
    let said = body.map_or_else(|why| why, |body| error_text(headers, &body));
    let message = match said.is_empty() {
        true => format!("HTTP {status}"),
        false => format!("HTTP {status}: {said}"),
    };
    let (kind, remedy) = match status.as_u16() {
        429 | 502 | 503 | 504 => {
            let delay = retry_after(headers, now);
            (FailureKind::Unavailable, Remedy::Retry { delay })
        }
        413 => (FailureKind::TooLarge, Remedy::Shrink),
        _ => (FailureKind::Refused, Remedy::Drop),
    };
    let code = Some(code_of_http(status));
    Verdict::Failed(Failure { kind, code, status: Some(status.as_u16()), message, remedy })
}

/// The table of OTLP/HTTP status codes as gRPC codes that the Collector uses for its exporters.
fn code_of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => code::INVALID_ARGUMENT,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        413 | 429 => code::RESOURCE_EXHAUSTED,
        502..=504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

/// RFC 9110 section 10.2.3: delta-seconds or an HTTP-date. A date in the past means now.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER.as_str())?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "very long", which the backoff bounds anyway.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// What an error's body says: the message of a `Status`, or the body itself if it is text.
fn error_text(headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or("");
    let status = if content_type.starts_with("application/x-protobuf") {
        Status::from_proto(body)
    } else if content_type.starts_with("application/json") {
        Status::from_json(body)
    } else {
        None
    };
    match status {
        Some(status) => said(&status),
        None => std::str::from_utf8(body).map(clip).unwrap_or_default(),
    }
}

fn said(status: &Status) -> String {
    match &status.bad_request {
        Some(detail) if *detail != status.message => {
            clip(&format!("{} ({detail})", status.message))
        }
        _ => clip(&status.message),
    }
}

fn delivered(partial: PartialSuccess) -> Verdict {
    Verdict::Delivered { rejected: partial.rejected, warning: clip(&partial.message) }
}

fn garbage(message: String) -> Verdict {
    again(FailureKind::Garbage, message)
}

fn decompress(
    decompressor: &mut Decompressor,
    encoding: Encoding,
    body: &[u8],
) -> Result<Vec<u8>, DecompressError> {
    if encoding == Encoding::Identity || body.is_empty() {
        return Ok(body.to_vec());
    }
    decompressor.decompress(encoding, body, ANSWER_BYTES_MAX)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// One line of at most [`TEXT_CHARS_MAX`] characters: a peer's text never floods or forges a log.
fn clip(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut clipped: String = text.trim().chars().take(TEXT_CHARS_MAX).map(printable).collect();
    if text.trim().chars().nth(TEXT_CHARS_MAX).is_some() {
        clipped.push('…');
    }
    clipped
}
