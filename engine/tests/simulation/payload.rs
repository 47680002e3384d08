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
/// first may hold what is not UTF-8. From the item `red_from` on they are of a red team.
pub(crate) fn proto(
    signal: Signal,
    request: u64,
    items: u64,
    padding: usize,
    is_spoilt: bool,
    red_from: u64,
) -> Vec<u8> {
    let mut whole = Vec::new();
    for (is_red, numbers) in [(false, 0..red_from.min(items)), (true, red_from..items)] {
        if numbers.is_empty() {
            continue;
        }
        let (mut scope, mut group) = (Vec::new(), Vec::new());
        for nth in numbers {
            let mut text = text(request, nth, padding).into_bytes();
            if is_spoilt && nth == 0 {
                text.push(0xff);
            }
            put(2, &item(signal, request ^ nth << 32, &text), &mut scope);
        }
        if is_red {
            put(1, &team(b"red"), &mut group);
        }
        put(2, &scope, &mut group);
        put(1, &group, &mut whole);
    }
    whole
}

fn item(signal: Signal, trace: u64, text: &[u8]) -> Vec<u8> {
    let mut item = Vec::new();
    match signal {
        Signal::Traces => {
            put(1, &u128::from(trace + 1).to_be_bytes(), &mut item);
            put(5, text, &mut item);
        }
        _ => {
            let mut value = Vec::new();
            put(1, text, &mut value);
            put(5, &value, &mut item);
        }
    }
    item
}

/// A resource with the attribute `team`.
fn team(name: &[u8]) -> Vec<u8> {
    let (mut value, mut pair, mut resource) = (Vec::new(), Vec::new(), Vec::new());
    put(1, name, &mut value);
    put(1, b"team", &mut pair);
    put(2, &value, &mut pair);
    put(1, &pair, &mut resource);
    resource
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

/// The items of a batch. A client that babbles within a body may spoil an item's number, and be
/// taken all the same if its bytes happen to fall into a text: such an item is of request 0.
pub(crate) fn items_in(batch: &[u8]) -> Vec<ItemId> {
    let number = |at: usize| {
        let digits = batch.get(at..at + DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
    };
    let is_mark = |at: &usize| batch[*at] == MARK[0] && batch[*at..].starts_with(MARK);
    let item = |at: usize| match (number(at), number(at + DIGITS + 1)) {
        (Some(request), Some(nth)) => ItemId { request, nth },
        _ => ItemId { request: 0, nth: 0 },
    };
    (0..batch.len()).filter(is_mark).map(|at| item(at + MARK.len())).collect()
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
