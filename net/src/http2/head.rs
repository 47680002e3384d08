//! A request's head, put together from its fields: which must come, which must not come together.
//!
//! RFC 9113, 8.2 and 8.3: each pseudo-header once, before all others; a method, a scheme and a path
//! for all but CONNECT. What is wrong is said at the end, for the block must be read to its end.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Method};

use super::hpack::field::{Field, Name, Value};
use crate::fields::Fields;
use crate::request::{Head, Protocol};

/// What a block came to.
pub(crate) enum Block {
    Request(Head),
    /// Longer than it may be: the fields behind its end were not kept.
    TooLarge,
    /// A tunnel is asked for.
    Connect,
    Malformed(&'static str),
}

pub(crate) struct HeadBuilder {
    bytes_left: usize,
    is_too_large: bool,
    malformed: Option<&'static str>,
    method: Option<Method>,
    path: Option<Arc<str>>,
    has_scheme: bool,
    authority: Option<HeaderValue>,
    /// A header came: no pseudo-header may follow.
    has_headers: bool,
    has_host: bool,
    content_length: Option<u64>,
    headers: Fields,
}

impl HeadBuilder {
    pub(crate) fn new(bytes_max: usize) -> HeadBuilder {
        HeadBuilder {
            bytes_left: bytes_max,
            is_too_large: false,
            malformed: None,
            method: None,
            path: None,
            has_scheme: false,
            authority: None,
            has_headers: false,
            has_host: false,
            content_length: None,
            headers: Fields::new(),
        }
    }

    /// Takes the next field, which counts `bytes` of the list.
    pub(crate) fn take(&mut self, field: &Field, bytes: usize) {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => self.bytes_left = left,
            None => self.is_too_large = true,
        }
        if self.is_too_large || self.malformed.is_some() {
            return;
        }
        self.malformed = match (&field.name, &field.value) {
            (_, Value::Bad(reason)) => Some(reason),
            (Name::Header(name), value) => {
                self.has_headers = true;
                self.has_host |= name == HOST;
                let value = match value {
                    Value::Length(..) if self.content_length.is_some() => {
                        self.malformed = Some("a second content-length");
                        return;
                    }
                    Value::Length(length, value) => {
                        self.content_length = Some(*length);
                        value
                    }
                    Value::Text(value) => value,
                    _ => return,
                };
                self.headers.push(name.clone(), value.clone());
                None
            }
            (name, value) => self.take_pseudo(name, value),
        };
    }

    fn take_pseudo(&mut self, name: &Name, value: &Value) -> Option<&'static str> {
        let is_second = match (name, value) {
            (Name::Method, Value::Method(method)) => self.method.replace(method.clone()).is_some(),
            (Name::Path, Value::Path(path)) => self.path.replace(path.clone()).is_some(),
            (Name::Scheme, _) => std::mem::replace(&mut self.has_scheme, true),
            (_, Value::Text(authority)) => self.authority.replace(authority.clone()).is_some(),
            _ => false,
        };
        match (is_second, self.has_headers) {
            (true, _) => Some("a pseudo-header twice"),
            (_, true) => Some("a pseudo-header behind a header"),
            _ => None,
        }
    }

    pub(crate) fn request(self, listener: u16, protocol: Protocol) -> Block {
        if let Some(reason) = self.malformed {
            return Block::Malformed(reason);
        }
        if self.is_too_large {
            return Block::TooLarge;
        }
        if self.names_two_hosts() {
            return Block::Malformed("the host is not the authority");
        }
        if protocol == Protocol::Http3 && self.names_no_host() {
            return Block::Malformed("no authority and no host, or an empty one");
        }
        let Some(method) = self.method else {
            return Block::Malformed("no method");
        };
        match (method == Method::CONNECT, self.path, self.has_scheme) {
            (true, None, false) if self.authority.is_some() => Block::Connect,
            (true, ..) => Block::Malformed("a CONNECT has an authority, no scheme and no path"),
            (false, Some(path), true) => Block::Request(Head {
                listener,
                protocol,
                method,
                path,
                headers: self.headers,
                content_length: self.content_length,
                peer: None,
            }),
            _ => Block::Malformed("no scheme or no path"),
        }
    }

    /// RFC 9113, 8.3.1: a proxy before us must not be able to take one for the other.
    fn names_two_hosts(&self) -> bool {
        let Some(authority) = self.authority.as_ref().filter(|_| self.has_host) else {
            return false;
        };
        let is_other =
            |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
        self.headers.get_all(&HOST).any(is_other)
    }

    /// RFC 9114, 4.3.1: one of the two has to be there, and to say something.
    fn names_no_host(&self) -> bool {
        let mut names = self.headers.get_all(&HOST).chain(&self.authority).peekable();
        names.peek().is_none() || names.any(HeaderValue::is_empty)
    }

    /// What is wrong with a block that ends a body: trailers have no pseudo-headers.
    pub(crate) fn trailers(self) -> Option<&'static str> {
        let has_pseudo = self.method.is_some()
            || self.path.is_some()
            || self.has_scheme
            || self.authority.is_some();
        self.malformed.or(has_pseudo.then_some("a pseudo-header in trailers"))
    }
}

/// Whether the body's length is what the head said.
pub(crate) fn fits(head: &Head, body_bytes: usize) -> bool {
    head.content_length.is_none_or(|length| length == body_bytes as u64)
}
