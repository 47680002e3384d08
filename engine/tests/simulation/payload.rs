//! Requests of OTLP whose every item says whose it is.

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::signal::Signal;

const MARK: &[u8] = b"#item-";
const DIGITS: usize = 6;

/// Which item of which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ItemId {
    pub(crate) request: u64,
    pub(crate) nth: u64,
}

/// A request in protobuf with `items` spans or log records, each with `padding` bytes more; the
/// first may hold what is not UTF-8.
pub(crate) fn proto(
    signal: Signal,
    request: u64,
    items: u64,
    padding: usize,
    is_spoilt: bool,
) -> Vec<u8> {
    let mut scope = Vec::new();
    for nth in 0..items {
        let mut text = text(request, nth, padding).into_bytes();
        if is_spoilt && nth == 0 {
            text.push(0xff);
        }
        let mut item = Vec::new();
        match signal {
            Signal::Traces => put(5, &text, &mut item),
            _ => {
                let mut value = Vec::new();
                put(1, &text, &mut value);
                put(5, &value, &mut item);
            }
        }
        put(2, &item, &mut scope);
    }
    let (mut resource, mut whole) = (Vec::new(), Vec::new());
    put(2, &scope, &mut resource);
    put(1, &resource, &mut whole);
    whole
}

/// The same in JSON.
pub(crate) fn json(signal: Signal, request: u64, items: u64, padding: usize) -> Vec<u8> {
    let item = |nth| {
        let text = text(request, nth, padding);
        match signal {
            Signal::Traces => format!(r#"{{"name":"{text}"}}"#),
            _ => format!(r#"{{"body":{{"stringValue":"{text}"}}}}"#),
        }
    };
    let items = (0..items).map(item).collect::<Vec<_>>().join(",");
    let whole = match signal {
        Signal::Traces => {
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{items}]}}]}}]}}"#)
        }
        _ => format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{items}]}}]}}]}}"#),
    };
    whole.into_bytes()
}

pub(crate) fn gzip(compressor: &mut Compressor, bytes: Vec<u8>) -> Vec<u8> {
    let compressed = compressor.compress(Encoding::Gzip, None, &[Bytes::from(bytes)]);
    compressed.expect("bytes in memory can be compressed")
}

/// A gRPC message.
pub(crate) fn framed(message: &[u8], is_compressed: bool) -> Vec<u8> {
    let mut framed = vec![u8::from(is_compressed)];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// The items of a batch.
pub(crate) fn items_in(batch: &[u8]) -> Vec<ItemId> {
    let number = |at: usize| {
        let digits = std::str::from_utf8(&batch[at..at + DIGITS]).expect("digits");
        digits.parse().expect("a number")
    };
    let is_mark = |at: &usize| batch[*at] == MARK[0] && batch[*at..].starts_with(MARK);
    (0..batch.len())
        .filter(is_mark)
        .map(|at| at + MARK.len())
        .map(|at| ItemId { request: number(at), nth: number(at + DIGITS + 1) })
        .collect()
}

fn text(request: u64, nth: u64, padding: usize) -> String {
    let mark = std::str::from_utf8(MARK).expect("the mark is ASCII");
    format!("{mark}{request:0DIGITS$}-{nth:0DIGITS$}{}", ".".repeat(padding))
}

fn put(number: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut length = content.len();
    while length >= 128 {
        out.push(length as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
}
