//! Reads a request's head and decides, once and strictly, how long its body is. RFC 9112 2 to 6.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::request::{Head, Protocol};

const HEADERS_MAX: usize = 100;

pub(super) enum Parsed {
    Partial,
    Malformed {
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
            return Parsed::Malformed {
                status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                reason: "only HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here",
            };
        }
        Err(_) => return malformed("the request line or a header is malformed"),
    };
    let is_1_1 = request.version == Some(1);
    match complete(&request, listener, is_1_1) {
        Ok(framed) => Parsed::Complete {
            head: Box::new(framed.head),
            bytes,
            chunked: framed.chunked,
            keep_alive: framed.keep_alive,
            expects_continue: framed.expects_continue,
        },
        Err(reason) => malformed(reason),
    }
}

fn too_large() -> Parsed {
    Parsed::Malformed {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        reason: "the request's header is larger than engine.limits.header_bytes_max allows",
    }
}

fn malformed(reason: &'static str) -> Parsed {
    Parsed::Malformed { status: StatusCode::BAD_REQUEST, reason }
}

struct Framed {
    head: Head,
    chunked: bool,
    keep_alive: bool,
    expects_continue: bool,
}

fn complete(
    request: &httparse::Request<'_, '_>,
    listener: u16,
    is_1_1: bool,
) -> Result<Framed, &'static str> {
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
    if is_1_1 && headers.get_all(HOST).iter().count() != 1 {
        return Err("an HTTP/1.1 request carries exactly one Host header");
    }
    let chunked = is_chunked(&headers, is_1_1)?;
    let content_length = content_length(&headers)?;
    if chunked && content_length.is_some() {
        return Err("a request carries Content-Length or Transfer-Encoding, not both");
    }
    let path = path_of(request.path.unwrap_or_default())?;
    Ok(Framed {
        keep_alive: keeps_alive(&headers, is_1_1),
        expects_continue: is_1_1
            && headers
                .get(EXPECT)
                .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")),
        chunked,
        head: Head { listener, protocol: Protocol::Http1, method, path, headers, content_length },
    })
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
