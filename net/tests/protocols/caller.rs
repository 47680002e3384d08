//! What the tests of the client core call with.

use std::io::IoSlice;
use std::rc::Rc;

use forebay_net::http2::client::{Client, Event, Output, RequestHead, Settings};
use http::{HeaderMap, HeaderValue, Uri};

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS as SETTINGS_FRAME, frame};

pub(crate) const SETTINGS: Settings = Settings {
    answer_bytes_max: 100_000,
    reads: |name| name.as_str().starts_with("grpc-"),
    keepalive: None,
};

pub(crate) fn uri(nth: usize) -> Uri {
    format!("http://collector.example:4317/service.v1/Export{nth}").try_into().expect("a URI")
}

/// Some that are the same for all, one that is not, and one that no table may hold.
pub(crate) fn headers(nth: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("x-long", HeaderValue::from_str(&"l".repeat(nth * 1_500)).expect("text"));
    let mut secret = HeaderValue::from_static("a secret");
    secret.set_sensitive(true);
    headers.insert("authorization", secret);
    headers.append("x-twice", HeaderValue::from_static("one"));
    headers.append("x-twice", HeaderValue::from_static("two"));
    headers
}

pub(crate) fn head(nth: usize) -> Rc<RequestHead> {
    Rc::new(RequestHead::post(&uri(nth), &headers(nth)))
}

/// Sends up to `bytes_max` of an output.
pub(crate) fn take(output: &mut Output, bytes_max: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 8];
    let count = output.slices(&mut slices);
    let shown: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
    let mut sent = shown.concat();
    sent.truncate(bytes_max);
    output.advance(sent.len());
    sent
}

/// Everything that a client has to send.
pub(crate) fn drain(client: &mut Client) -> Vec<u8> {
    let (mut output, mut sent) = (Output::new(), Vec::new());
    loop {
        client.poll_output(&mut output, usize::MAX);
        if output.is_empty() {
            return sent;
        }
        sent.extend(take(&mut output, usize::MAX));
    }
}

/// As the standard names it.
pub(crate) fn name(code: h2::Reason) -> &'static str {
    match code {
        h2::Reason::REFUSED_STREAM => "REFUSED_STREAM",
        h2::Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
        h2::Reason::CANCEL => "CANCEL",
        other => panic!("{other:?} is not used here"),
    }
}

/// A client past its handshake, with nothing left to send.
pub(crate) fn open() -> Client {
    let mut client = Client::new(SETTINGS, 0);
    client.handle_input(&settings(&[]), 0);
    assert!(!drain(&mut client).is_empty(), "our settings");
    client
}

/// A frame of settings: number and value of each.
pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS_FRAME, 0, 0, &payload)
}

/// A whole answer: status 200, a body, and trailers.
pub(crate) fn answered(stream: u32) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, b"\x88");
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x00\x0bgrpc-status\x010");
    [head, frame(DATA, 0, stream, b"ok"), trailers].concat()
}

pub(crate) fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.poll_event()).collect()
}
