//! Reads a request's head and decides, once and strictly, how long its body is. RFC 9112 2 to 6.

use std::mem::MaybeUninit;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::fields::Fields;
use crate::request::{Head, Protocol};

const HEADERS_MAX: usize = 100;

/// A head that can be relied on.
pub(super) struct Complete {
    pub(super) head: Head,
    /// Length of the head in the input.
    pub(super) bytes: usize,
    pub(super) chunked: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// A head that is none, or that can't be relied on.
pub(super) struct Malformed {
    /// As much of the head as could be read: all of it, or nothing.
    pub(super) head: Option<Box<Head>>,
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

/// Reads the head at the start of `input`, at most `bytes_max` long; `None`: its end has not come.
/// Of the fields that say nothing about framing it keeps those in `read_names`.
pub(super) fn parse(
    input: &[u8],
    listener: u16,
    bytes_max: usize,
    read_names: Option<&[HeaderName]>,
) -> Result<Option<Complete>, Malformed> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let bytes = match request.parse_with_uninit_headers(input, &mut headers) {
        Ok(httparse::Status::Complete(bytes)) if bytes > bytes_max => return Err(too_large()),
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() > bytes_max => return Err(too_large()),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(httparse::Error::Version) => {
            let reason = "only HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here";
            return Err(malformed(StatusCode::HTTP_VERSION_NOT_SUPPORTED, reason));
        }
        Err(_) => return Err(bad("the request line or a header is malformed")),
    };
    if has_bare_line_feed(&input[..bytes]) {
        return Err(bad("a line of the header does not end in CRLF"));
    }
    let is_1_1 = request.version == Some(1);
    let (mut head, framing) = read(&request, listener, read_names).map_err(bad)?;
    match framing.body(is_1_1) {
        Ok((chunked, content_length)) => {
            head.content_length = content_length;
            let keep_alive = framing.keeps_alive(is_1_1);
            let expects_continue = is_1_1 && framing.expects_continue;
            Ok(Some(Complete { head, bytes, chunked, keep_alive, expects_continue }))
        }
        Err(reason) => {
            Err(Malformed { head: Some(Box::new(head)), status: StatusCode::BAD_REQUEST, reason })
        }
    }
}

fn too_large() -> Malformed {
    let reason = "the request's header is larger than engine.limits.header_bytes_max allows, or \
                  has more than 100 fields";
    malformed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
}

fn bad(reason: &'static str) -> Malformed {
    malformed(StatusCode::BAD_REQUEST, reason)
}

fn malformed(status: StatusCode, reason: &'static str) -> Malformed {
    Malformed { head: None, status, reason }
}

/// httparse takes a lone LF for the end of a line, as RFC 9112 2.2 allows; a proxy before us may
/// take it for a part of the line.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// Everything but the length of the body, and what the fields say about that.
fn read<'a>(
    request: &httparse::Request<'_, 'a>,
    listener: u16,
    read_names: Option<&[HeaderName]>,
) -> Result<(Head, Framing<'a>), &'static str> {
    let method = request.method.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| "the method is malformed")?;
    let (mut headers, mut framing) = (Fields::new(), Framing::default());
    for header in request.headers.iter() {
        framing.take(header.name, header.value);
        let Some(name) = name_if_read(header.name, read_names)? else {
            continue;
        };
        let value =
            HeaderValue::from_bytes(header.value).map_err(|_| "a header's value is malformed")?;
        headers.push(name, value);
    }
    let path = path_of(request.path.unwrap_or_default())?;
    let (protocol, content_length) = (Protocol::Http1, None);
    let head = Head { listener, protocol, method, path, headers, content_length, peer: None };
    Ok((head, framing))
}

/// The name of a field that is kept. httparse takes tokens alone for names, and for values what
/// `HeaderValue` takes, so that one that is not kept is well-formed all the same.
fn name_if_read(
    name: &str,
    read_names: Option<&[HeaderName]>,
) -> Result<Option<HeaderName>, &'static str> {
    match read_names {
        Some(names) => {
            Ok(names.iter().find(|known| known.as_str().eq_ignore_ascii_case(name)).cloned())
        }
        None => HeaderName::from_bytes(name.as_bytes())
            .map(Some)
            .map_err(|_| "a header's name is malformed"),
    }
}

/// What a head says about where its body ends, and about what comes behind it.
#[derive(Default)]
struct Framing<'a> {
    hosts: u32,
    transfer_encodings: u32,
    /// Of the first one.
    is_chunked: bool,
    content_lengths: u32,
    content_length: &'a [u8],
    says_close: bool,
    says_keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Framing<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => self.hosts += 1,
            6 if is("expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if is("connection") => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.says_close |= option.eq_ignore_ascii_case(b"close");
                    self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => {
                self.content_lengths += 1;
                self.content_length = value;
            }
            17 if is("transfer-encoding") => {
                self.transfer_encodings += 1;
                self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
    }

    /// Whether the body comes in chunks, or else how long it is.
    fn body(&self, is_1_1: bool) -> Result<(bool, Option<u64>), &'static str> {
        if is_1_1 && self.hosts != 1 {
            return Err("an HTTP/1.1 request carries exactly one Host header");
        }
        let chunked = match self.transfer_encodings {
            0 => false,
            1 if is_1_1 && self.is_chunked => true,
            _ => return Err("the only Transfer-Encoding taken is chunked, once, in HTTP/1.1"),
        };
        let content_length = self.content_length()?;
        if chunked && content_length.is_some() {
            return Err("a request carries Content-Length or Transfer-Encoding, not both");
        }
        Ok((chunked, content_length))
    }

    fn content_length(&self) -> Result<Option<u64>, &'static str> {
        const BAD: &str = "Content-Length is not one decimal number";
        if self.content_lengths == 0 {
            return Ok(None);
        }
        let digits = self.content_length;
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if !plain || self.content_lengths > 1 {
            return Err(BAD);
        }
        let length = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        length.map(Some).ok_or(BAD)
    }

    fn keeps_alive(&self, is_1_1: bool) -> bool {
        !self.says_close && (is_1_1 || self.says_keep_alive)
    }
}

/// The path of an origin-form or absolute-form target, without its query.
fn path_of(target: &str) -> Result<Arc<str>, &'static str> {
    let target = match target.split_once("://") {
        // A query may hold an address, too.
        _ if target.starts_with('/') => target,
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    if !target.starts_with('/') && target != "*" {
        return Err("the request target is not a path");
    }
    Ok(target.split(['?', '#']).next().unwrap_or_default().into())
}
