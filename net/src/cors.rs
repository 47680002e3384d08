//! Cross-origin requests: whose pages may read our answers, and what their browsers are told. The
//! CORS protocol of the Fetch standard, with the rules that a Collector's `cors` block has.
//!
//! Sans-I/O: heads in, header fields out. All that is always the same is put together once, so an
//! answer costs no more than its fields.
//!
//! Always
//! - Who may read is the browser's to enforce: nothing is refused here, and a request of an origin
//!   that is not allowed is served as any other.
//! - Whoever is named in an answer was allowed; credentials are for those that are named, never for
//!   `*`, nor for `null`, which is no one's name.
//! - Answers say that they depend on `Origin`, so that no cache gives one page another's.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::fields::Fields;
use crate::request::{Answer, Head};

/// What a page may always send: an export needs its content type, and older scripts name the last.
const ALWAYS_ALLOWED: [&str; 3] = ["accept", "content-type", "x-requested-with"];
const ANY: &str = "*";

/// The headers that have to be read of a request ([`crate::request::Door::read_names`]).
pub const READ_NAMES: [HeaderName; 3] =
    [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS];

/// One listener's rules.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Origins,
    /// `None`: whatever a page asks for.
    allowed_headers: Option<HeaderValue>,
    exposed_headers: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    Some(Vec<Pattern>),
}

/// An origin, or those that begin and end alike.
#[derive(Clone, Debug)]
pub struct Pattern {
    before: String,
    /// Behind the `*`, if there is one.
    after: Option<String>,
}

impl Cors {
    /// Allows these origins, and all if one of them is `*`.
    pub fn new(origins: Vec<Pattern>) -> Cors {
        let is_any = origins.iter().any(Pattern::is_any);
        let origins = if is_any { Origins::Any } else { Origins::Some(origins) };
        let allowed_headers = Some(list(ALWAYS_ALLOWED.into_iter()));
        Cors { origins, allowed_headers, exposed_headers: None, max_age: None }
    }

    /// Headers that a page may send beyond those that every page may.
    #[must_use]
    pub fn allow_headers(mut self, names: &[HeaderName]) -> Cors {
        let own = names.iter().map(HeaderName::as_str);
        let own = own.filter(|name| !ALWAYS_ALLOWED.contains(name));
        self.allowed_headers = Some(list(ALWAYS_ALLOWED.into_iter().chain(own)));
        self
    }

    /// A page may send any header.
    #[must_use]
    pub fn allow_all_headers(mut self) -> Cors {
        self.allowed_headers = None;
        self
    }

    /// Headers of an answer that a page may read beyond those that every page may.
    #[must_use]
    pub fn expose_headers(mut self, names: &[HeaderName]) -> Cors {
        let is_given = !names.is_empty();
        self.exposed_headers = is_given.then(|| list(names.iter().map(HeaderName::as_str)));
        self
    }

    /// For how long a browser may remember what it was told before a request.
    #[must_use]
    pub fn remember_for(mut self, seconds: u64) -> Cors {
        self.max_age = Some(HeaderValue::from(seconds));
        self
    }

    /// How an answer names the origin of its request, if that may read it.
    pub fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static(ANY)),
            Origins::Some(patterns) => {
                let is_allowed = patterns.iter().any(|pattern| pattern.fits(origin.as_bytes()));
                is_allowed.then(|| origin.clone())
            }
        }
    }

    /// The answer to a browser that asks what a page may do before it lets it; `None`: the request
    /// is another.
    pub fn preflight(&self, head: &Head) -> Option<Answer> {
        let asks = head.method == Method::OPTIONS
            && head.headers.get(&ACCESS_CONTROL_REQUEST_METHOD).is_some();
        let origin = head.headers.get(&ORIGIN).filter(|_| asks)?;
        let mut headers = Fields::new();
        if let Some(allowed) = self.allow(origin) {
            put_origin(allowed, &mut headers);
            let methods = HeaderValue::from_static("POST");
            headers.push(ACCESS_CONTROL_ALLOW_METHODS, methods);
            let asked_for = head.headers.get(&ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(names) = self.allowed_headers.as_ref().or(asked_for) {
                headers.push(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            if let Some(max_age) = &self.max_age {
                headers.push(ACCESS_CONTROL_MAX_AGE, max_age.clone());
            }
        }
        let depends = "origin, access-control-request-method, access-control-request-headers";
        headers.push(VARY, HeaderValue::from_static(depends));
        let (body, trailers) = (Bytes::new(), Fields::new());
        Some(Answer { status: StatusCode::NO_CONTENT, headers, body, trailers })
    }

    /// Adds to the headers of any other answer what a browser has to read there. `allowed`: what
    /// [`Cors::allow`] said of the request's origin, if it had one.
    pub fn put(&self, allowed: Option<HeaderValue>, headers: &mut Fields) {
        if let Some(allowed) = allowed {
            put_origin(allowed, headers);
            if let Some(names) = &self.exposed_headers {
                headers.push(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
            }
        }
        headers.push(VARY, HeaderValue::from_static("origin"));
    }
}

impl Pattern {
    /// `https://shop.example`, or with one `*` for anything in its place.
    ///
    /// # Errors
    /// What is wrong, to go on after the name of the key.
    pub fn read(text: &str) -> Result<Pattern, String> {
        let fault = |why: &str| Err(format!("{why}; this is \"{text}\""));
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.is_empty() {
            return fault("must hold origins such as https://shop.example");
        }
        let (before, after) = match text.split_once('*') {
            Some((_, after)) if after.contains('*') => {
                return fault("must have at most one * in an origin");
            }
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        let host = text.split_once("://").map(|(_, host)| host);
        if host.is_some_and(|host| host.contains('/')) {
            return fault("must hold origins without a path, for browsers name none");
        }
        if host == Some("") {
            return fault("must hold origins with a host, such as https://shop.example");
        }
        if has_default_port(text) {
            return fault(
                "must hold origins without their scheme's own port, for browsers omit it",
            );
        }
        if host.is_none() && after.is_none() && text != "null" {
            return fault("must hold origins with their scheme, such as https://shop.example");
        }
        Ok(Pattern { before: before.to_owned(), after: after.map(str::to_owned) })
    }

    fn is_any(&self) -> bool {
        self.before.is_empty() && self.after.as_ref().is_some_and(String::is_empty)
    }

    fn fits(&self, origin: &[u8]) -> bool {
        let before = self.before.as_bytes();
        let Some(after) = self.after.as_ref().map(String::as_bytes) else {
            return origin.eq_ignore_ascii_case(before);
        };
        let Some((start, rest)) = origin.split_at_checked(before.len()) else {
            return false;
        };
        let end = rest.len().checked_sub(after.len()).map(|at| &rest[at..]);
        start.eq_ignore_ascii_case(before) && end.is_some_and(|e| e.eq_ignore_ascii_case(after))
    }
}

fn has_default_port(origin: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    [("https://", ":443"), ("http://", ":80")]
        .iter()
        .any(|(scheme, port)| origin.starts_with(scheme) && origin.ends_with(port))
}

fn put_origin(allowed: HeaderValue, headers: &mut Fields) {
    // No browser takes credentials for `*`; and any page can be `null`, in a sandboxed frame.
    let is_named = allowed != ANY && !allowed.as_bytes().eq_ignore_ascii_case(b"null");
    headers.push(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if is_named {
        headers.push(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    let names: Vec<&str> = names.collect();
    HeaderValue::try_from(names.join(", ")).expect("names of headers are printable ASCII")
}

#[cfg(test)]
mod tests;
