//! Reads a request's head and decides, once and strictly, how long its body is. RFC 9112 2 to 6.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::request::{Head, Protocol};

const HEADERS_MAX: usize = 100;

pub(super) enum Parsed {
    Partial,
    Malformed {
        /// As much of the head as could be read: all of it, or nothing.
        head: Option<Box<Head>>,
        status: StatusCode,
        reason: &'static str,
    },
    Complete {
        head: Box<Head>,
        /// Length of the head in the input.
        bytes: usize,
        chunked: bool,
        keep_alive: bool,
        expects_continue: bool,
    },
}

/// Reads the head at the start of `input`, at most `bytes_max` long.
pub(super) fn parse(input: &[u8], listener: u16, bytes_max: usize) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let bytes = match request.parse(input) {
        Ok(httparse::Status::Complete(bytes)) if bytes > bytes_max => return too_large(),
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() > bytes_max => return too_large(),
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return too_large(),
        Err(httparse::Error::Version) => {
            let reason = "only HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here";
            return malformed(StatusCode::HTTP_VERSION_NOT_SUPPORTED, reason);
        }
        Err(_) => return bad("the request line or a header is malformed"),
    };
    if has_bare_line_feed(&input[..bytes]) {
        return bad("a line of the header does not end in CRLF");
    }
    let head = match read(&request, listener) {
        Ok(head) => Box::new(head),
        Err(reason) => return bad(reason),
    };
    let is_1_1 = request.version == Some(1);
    match framing(&head.headers, is_1_1) {
        Ok((chunked, content_length)) => Parsed::Complete {
            bytes,
            chunked,
            keep_alive: keeps_alive(&head.headers, is_1_1),
            expects_continue: is_1_1 && expects_continue(&head.headers),
            head: Box::new(Head { content_length, ..*head }),
        },
        Err(reason) => {
            Parsed::Malformed { head: Some(head), status: StatusCode::BAD_REQUEST, reason }
        }
    }
}

fn too_large() -> Parsed {
    let reason = "the request's header is larger than engine.limits.header_bytes_max allows, or \
                  has more than 100 fields";
    malformed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
}

fn bad(reason: &'static str) -> Parsed {
    malformed(StatusCode::BAD_REQUEST, reason)
}

fn malformed(status: StatusCode, reason: &'static str) -> Parsed {
    Parsed::Malformed { head: None, status, reason }
}

/// httparse takes a lone LF for the end of a line, as RFC 9112 2.2 allows; a proxy before us may
/// take it for a part of the line.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let line_ends = head.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    line_ends.map(|(at, _)| at).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// Everything but the length of the body.
fn read(request: &httparse::Request<'_, '_>, listener: u16) -> Result<Head, &'static str> {
    let method = request.method.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| "the method is malformed")?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| "a header's name is malformed")?;
        let value =
            HeaderValue::from_bytes(header.value).map_err(|_| "a header's value is malformed")?;
        headers.append(name, value);
    }
    let path = path_of(request.path.unwrap_or_default())?;
    let (protocol, content_length) = (Protocol::Http1, None);
    Ok(Head { listener, protocol, method, path, headers, content_length })
}

/// Whether the body comes in chunks, or else how long it is.
fn framing(headers: &HeaderMap, is_1_1: bool) -> Result<(bool, Option<u64>), &'static str> {
    if is_1_1 && headers.get_all(HOST).iter().count() != 1 {
        return Err("an HTTP/1.1 request carries exactly one Host header");
    }
    let chunked = is_chunked(headers, is_1_1)?;
    let content_length = content_length(headers)?;
    if chunked && content_length.is_some() {
        return Err("a request carries Content-Length or Transfer-Encoding, not both");
    }
    Ok((chunked, content_length))
}

fn expects_continue(headers: &HeaderMap) -> bool {
    let value = headers.get(EXPECT).map(HeaderValue::as_bytes);
    value.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

fn is_chunked(headers: &HeaderMap, is_1_1: bool) -> Result<bool, &'static str> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if is_1_1 && value.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(true)
        }
        _ => Err("the only Transfer-Encoding taken is chunked, once, in HTTP/1.1"),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    const BAD: &str = "Content-Length is not one decimal number";
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !plain || values.next().is_some() {
        return Err(BAD);
    }
    let length = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(BAD)
}

fn keeps_alive(headers: &HeaderMap, is_1_1: bool) -> bool {
    let says = |token: &str| {
        headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(token))
    };
    if is_1_1 { !says("close") } else { says("keep-alive") && !says("close") }
}

/// The path of an origin-form or absolute-form target, without its query.
fn path_of(target: &str) -> Result<String, &'static str> {
    let target = match target.split_once("://") {
        // A query may hold an address, too.
        _ if target.starts_with('/') => target,
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    if !target.starts_with('/') && target != "*" {
        return Err("the request target is not a path");
    }
    Ok(target.split(['?', '#']).next().unwrap_or_default().to_owned())
}
