//! Where a request goes, read from its head alone: which signal, in which form, in which dress.
//!
//! Sources: OTLP 1.11 (paths, content types), gRPC over HTTP2 (content type, encodings), RFC 9110
//! (405 with Allow, 415).

use std::borrow::Cow;

use forebay_codec::compress::Encoding;
use forebay_codec::signal::Signal;
use forebay_net::fields::Fields;
use forebay_net::grpc::code;
use forebay_net::request::{Head, Protocol};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use http::{HeaderName, Method, StatusCode};

use super::GRPC_ENCODING;
use super::answers::{Form, Problem, Shape};
use crate::config::plan::Listener;
use crate::ledger::Transport;
use crate::services::Method as ServiceMethod;

const GRPC_PATHS: [&str; 4] = [
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
];

/// A request's way through the engine. Packs into the tag that travels with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub listener: u16,
    pub transport: Transport,
    pub signal: Signal,
    pub form: Form,
    /// `grpc-encoding` or `Content-Encoding`.
    pub encoding: Encoding,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the pipelines.
    Signal(Route),
    /// To what is served beside OTLP.
    Service(ServiceMethod),
}

const ENCODINGS: [Encoding; 7] = [
    Encoding::Identity,
    Encoding::Gzip,
    Encoding::Zlib,
    Encoding::Zstd,
    Encoding::Snappy,
    Encoding::SnappyFramed,
    Encoding::Lz4,
];

impl Route {
    pub fn shape(&self) -> Shape {
        Shape { transport: self.transport, form: self.form }
    }

    pub fn pack(&self) -> u32 {
        let encoding = ENCODINGS.iter().position(|e| *e == self.encoding).unwrap_or(0) as u32;
        u32::from(self.listener) << 16
            | (self.transport as u32) << 8
            | (self.signal as u32) << 6
            | (self.form as u32) << 4
            | encoding
    }

    pub fn unpack(tag: u32) -> Route {
        Route {
            listener: (tag >> 16) as u16,
            transport: Transport::ALL[(tag >> 8) as usize & 1],
            signal: Signal::ALL[(tag >> 6) as usize & 3],
            form: Form::ALL[(tag >> 4) as usize & 3],
            encoding: ENCODINGS[tag as usize & 15],
        }
    }
}

/// Reads `head`. `serves`: whether a pipeline takes this signal from this listener's receiver.
pub fn route(
    head: &Head,
    listener: &Listener,
    serves: impl Fn(Signal) -> bool,
) -> Result<Way, Problem> {
    let content_type = media_type(&head.headers);
    let content_type = &*content_type;
    match (is_grpc(content_type), &listener.grpc, &listener.http) {
        (true, Some(_), _) if head.protocol == Protocol::Http2 => grpc(head, content_type, serves),
        (true, _, _) => Err(not_here(
            "gRPC is not spoken here: it takes HTTP/2, and usually has port 4317",
            content_type,
        )),
        (false, _, Some(http)) => http_route(head, http, content_type, serves).map(Way::Signal),
        (false, _, None) => Err(not_here(
            "this port takes OTLP over gRPC: the content type must be application/grpc. OTLP over \
             HTTP usually has port 4318",
            content_type,
        )),
    }
}

/// The wrong protocol for this port.
fn not_here(message: &str, content_type: &str) -> Problem {
    let form = Form::of(content_type).unwrap_or(Form::Json);
    Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, message, form)
}

fn is_grpc(content_type: &str) -> bool {
    content_type
        .strip_prefix("application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

fn grpc(head: &Head, content_type: &str, serves: impl Fn(Signal) -> bool) -> Result<Way, Problem> {
    let problem = |code, message: String| Err(Problem::grpc(code, message));
    if head.method != Method::POST {
        return problem(code::INTERNAL, format!("a gRPC call is a POST, not a {}", method(head)));
    }
    if !matches!(content_type, "application/grpc" | "application/grpc+proto") {
        return problem(code::INTERNAL, format!("{} is not protobuf", shown(content_type)));
    }
    let signal = GRPC_PATHS.iter().position(|path| *path == &*head.path);
    let Some(signal) = signal.map(|index| Signal::ALL[index]) else {
        return match ServiceMethod::at(&head.path) {
            Some(method) => Ok(Way::Service(method)),
            None => problem(code::UNIMPLEMENTED, format!("unknown method {}", shown(&head.path))),
        };
    };
    if !serves(signal) {
        return problem(
            code::UNIMPLEMENTED,
            format!("no pipeline takes {signal} from this receiver"),
        );
    }
    let name = header(&head.headers, &GRPC_ENCODING).unwrap_or("identity");
    let Some(encoding) = Encoding::from_grpc(name) else {
        let message = format!("grpc-encoding {} is not supported", shown(name));
        let mut problem = Problem::grpc(code::UNIMPLEMENTED, message);
        problem.header = Some(("grpc-accept-encoding", "gzip,zstd,snappy,deflate,identity"));
        return Err(problem);
    };
    let (listener, transport) = (head.listener, Transport::Grpc);
    Ok(Way::Signal(Route { listener, transport, signal, form: Form::Proto, encoding }))
}

fn http_route(
    head: &Head,
    http: &crate::config::plan::Http,
    content_type: &str,
    serves: impl Fn(Signal) -> bool,
) -> Result<Route, Problem> {
    // The refusal's form follows the request's as far as it is known.
    let form = Form::of(content_type).filter(|form| {
        // A browser sends a form from any page without asking first: curl alone may say so.
        *form != Form::Urlencoded || head.headers.get(&ORIGIN).is_none()
    });
    let answer_form = form.unwrap_or(Form::Json);
    let problem = |status, code, message: String| Problem::http(status, code, message, answer_form);
    let signal = http.paths.iter().position(|path| **path == *head.path);
    let Some(signal) = signal.map(|index| Signal::ALL[index]).filter(|signal| serves(*signal))
    else {
        let message = format!("nothing is served at {}", shown(&head.path));
        return Err(problem(StatusCode::NOT_FOUND, code::UNIMPLEMENTED, message));
    };
    if head.method != Method::POST {
        let message = format!("{} takes POST, not {}", shown(&head.path), method(head));
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut problem = problem(status, code::UNIMPLEMENTED, message);
        problem.header = Some(("allow", "POST"));
        return Err(problem);
    }
    let unsupported = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let Some(form) = form else {
        let message = format!(
            "the content type is {}: use application/x-protobuf or application/json",
            if content_type.is_empty() { "missing" } else { shown(content_type) },
        );
        return Err(problem(unsupported, code::INVALID_ARGUMENT, message));
    };
    let name = content_encoding(&head.headers);
    let taken = |name: &&str| {
        let listed = |known: &String| known.eq_ignore_ascii_case(name);
        matches!(*name, "" | "identity" | "none") || http.encodings.iter().any(listed)
    };
    let encoding = name.as_deref().filter(taken).and_then(Encoding::from_http);
    let Some(encoding) = encoding else {
        let message =
            format!("Content-Encoding {} is not supported", shown(&name.unwrap_or_default()));
        let mut problem = problem(unsupported, code::INVALID_ARGUMENT, message);
        problem.header =
            Some(("accept-encoding", "gzip, zstd, deflate, zlib, snappy, lz4, identity"));
        return Err(problem);
    };
    Ok(Route { listener: head.listener, transport: Transport::Http, signal, form, encoding })
}

/// The media type without parameters, in lower case.
pub(super) fn media_type(headers: &Fields) -> Cow<'_, str> {
    let value = headers.get(&CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    in_lower_case(value.split(';').next().unwrap_or("").trim())
}

/// One coding; several, or several headers, are none that we know.
fn content_encoding(headers: &Fields) -> Option<Cow<'_, str>> {
    let mut values = headers.get_all(&CONTENT_ENCODING);
    match (values.next(), values.next()) {
        (None, _) => Some(Cow::Borrowed("")),
        (Some(value), None) => Some(in_lower_case(value.to_str().unwrap_or("?").trim())),
        _ => None,
    }
}

/// As nearly everybody writes it.
fn in_lower_case(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

fn header<'a>(headers: &'a Fields, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn method(head: &Head) -> &str {
    shown(head.method.as_str())
}

/// A client's text, short enough for an answer.
fn shown(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= 120).last();
    match end {
        Some(end) if text.len() > 120 => &text[..end],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_its_service_s_export_as_its_path() {
        for (path, service) in GRPC_PATHS.iter().zip(crate::services::OTLP_SERVICES) {
            assert_eq!(*path, format!("/{service}/Export"));
        }
    }

    #[test]
    fn a_route_survives_the_tag_that_carries_it() {
        for listener in [0, 7, u16::MAX] {
            for transport in Transport::ALL {
                for signal in Signal::ALL {
                    for form in Form::ALL {
                        for encoding in ENCODINGS {
                            let route = Route { listener, transport, signal, form, encoding };
                            assert_eq!(Route::unpack(route.pack()), route);
                            assert_eq!(ServiceMethod::unpack(route.pack()), None);
                        }
                    }
                }
            }
        }
    }
}
