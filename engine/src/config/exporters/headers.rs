//! `headers` of an exporter: a map of names to values, or the Collector's list of
//! `{name, value}`.
//!
//! Never says a value: they are credentials more often than not.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::problem::{Place, Problem, Report};
use crate::config::section::Section;
use crate::config::tree::{Node, Value};

/// Made by the protocol itself: a second one would break it.
const RESERVED: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

pub(crate) fn read(section: &Section<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(node) = section.given("headers") else {
        return headers;
    };
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                add(&mut headers, &entry.key, &entry.place, &entry.node, section.report);
            }
        }
        Value::List(items) => {
            items.iter().for_each(|item| add_pair(&mut headers, item, section.report));
        }
        _ => section.fault("headers", "must be a map of names to values"),
    }
    headers
}

fn add_pair(headers: &mut HeaderMap, item: &Node, report: &Report) {
    let part = |key: &str| item.entries().iter().find(|entry| entry.key == key);
    let name = part("name").and_then(|entry| match &entry.node.value {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    });
    match (name, part("value"), item.entries().len()) {
        (Some(name), Some(value), 2) => add(headers, name, &value.place, &value.node, report),
        _ => report.add(
            Problem::error(&item.place, "a header in a list needs a name and a value")
                .hint("as in - {name: x-tenant, value: edge}; or write a map, x-tenant: edge"),
        ),
    }
}

fn add(headers: &mut HeaderMap, name: &str, place: &Place, node: &Node, report: &Report) {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        report.add(Problem::error(place, format!("\"{name}\" is no header name")));
        return;
    };
    if RESERVED.contains(&parsed.as_str()) {
        let what = format!("the header \"{name}\" is forebay's own to set");
        let hint = "remove it; endpoint, compression, authority and user_agent have keys";
        report.add(Problem::error(place, what).hint(hint));
        return;
    }
    let text = match &node.value {
        Value::Scalar { text, .. } => text.as_str(),
        Value::Null => "",
        _ => {
            let what = format!("the header \"{name}\" must have a single value");
            report.add(Problem::error(place, what));
            return;
        }
    };
    match HeaderValue::from_str(text) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        Err(_) => report.add(
            Problem::error(place, format!("the value of the header \"{name}\" can't be sent"))
                .why("it has line breaks or other control characters")
                .hint("a variable read from a file often ends with a newline: cut it off"),
        ),
    }
}
