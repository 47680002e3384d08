//! What may stand in the file: Prometheus' `file_sd` as JSON or YAML, or a line per endpoint.
//!
//! Sans I/O. Always: an entry that is no use is named in a note and the others are used; a text
//! that is not the format it should be is an error as a whole.

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

use super::File;
use crate::discovery::endpoint::{Endpoint, shortened};

const DEPTH_MAX: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By the file's name: `.json`, `.yaml` or `.yml`, anything else is a plain list.
    #[default]
    Auto,
    /// `[{"targets": ["host:port"], "labels": {"zone": "a"}}]`, or `["host:port"]`.
    Json,
    /// The same as YAML.
    Yaml,
    /// `host:port`, then any number of `name=value`; `#` begins a comment.
    Plain,
}

/// Endpoints, and what was wrong with other entries.
type Parsed = (Vec<Endpoint>, Vec<String>);

pub(super) fn parse(text: &str, file: &File) -> Result<Parsed, String> {
    let groups = match chosen(file.format, &file.path) {
        Format::Json => serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?,
        Format::Yaml => yaml(text)?,
        Format::Plain | Format::Auto => return Ok(plain(text, file.port_default)),
    };
    from_groups(&groups, file.port_default)
}

fn chosen(format: Format, path: &Path) -> Format {
    match (format, path.extension().and_then(|extension| extension.to_str())) {
        (Format::Auto, Some("json")) => Format::Json,
        (Format::Auto, Some("yaml" | "yml")) => Format::Yaml,
        (Format::Auto, _) => Format::Plain,
        (named, _) => named,
    }
}

fn plain(text: &str, port_default: Option<u16>) -> Parsed {
    let (mut endpoints, mut notes) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_whitespace();
        let Some(address) = words.next() else {
            continue;
        };
        let labels = words.map(|word| word.split_once('=').unwrap_or((word, "")));
        match described(address, port_default, labels) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(why) => notes.push(format!("line {}: {why}", at + 1)),
        }
    }
    (endpoints, notes)
}

fn from_groups(groups: &Value, port_default: Option<u16>) -> Result<Parsed, String> {
    const WANTED: &str = "it must be a list of {targets, labels} or of host:port";
    let (mut endpoints, mut notes) = (Vec::new(), Vec::new());
    let none = Map::new();
    for group in groups.as_array().ok_or(WANTED)? {
        let (targets, labels) = match group {
            Value::String(_) => (std::slice::from_ref(group), &none),
            Value::Object(group) => {
                let targets = group.get("targets").and_then(Value::as_array).ok_or(WANTED)?;
                let labels = group.get("labels").and_then(Value::as_object);
                (targets.as_slice(), labels.unwrap_or(&none))
            }
            _ => return Err(WANTED.to_owned()),
        };
        for target in targets {
            // Labels are texts; numbers and truth values are what YAML makes of some.
            let texts: Vec<(&str, String)> = labels
                .iter()
                .map(|(name, value)| match value {
                    Value::String(text) => (name.as_str(), text.clone()),
                    other => (name.as_str(), other.to_string()),
                })
                .collect();
            let labels = texts.iter().map(|(name, value)| (*name, value.as_str()));
            let address = target.as_str().ok_or("a target must be a text");
            let endpoint = address.map_err(str::to_owned);
            match endpoint.and_then(|address| described(address, port_default, labels)) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(why) => notes.push(why),
            }
        }
    }
    Ok((endpoints, notes))
}

fn described<'a>(
    address: &str,
    port_default: Option<u16>,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Endpoint, String> {
    let endpoint = Endpoint::parse(address, port_default);
    let mut endpoint = endpoint.map_err(|error| error.to_string())?;
    for (name, value) in labels {
        let no_number = || format!("{name} of {address} is \"{}\", no number", shortened(value));
        match name {
            "weight" => endpoint = endpoint.weighing(value.parse().map_err(|_| no_number())?),
            "priority" => endpoint.priority = value.parse().map_err(|_| no_number())?,
            _ => endpoint.describe(name, value),
        }
    }
    Ok(endpoint)
}

/// One document, as JSON has it. Without aliases: a list of endpoints needs none, and they are how
/// a small file becomes a large tree.
fn yaml(text: &str) -> Result<Value, String> {
    enum Open {
        List(Vec<Value>),
        Map(Map<String, Value>, Option<String>),
    }
    let (mut open, mut root): (Vec<Open>, Option<Value>) = (Vec::new(), None);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|fault| format!("no YAML: {}", fault.info()))?;
        let line = span.start.line();
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                if is_null { Value::Null } else { Value::String(text.into_owned()) }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH_MAX => {
                return Err(format!("line {line}: nested deeper than {DEPTH_MAX} levels"));
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => return Err(format!("line {line}: something ends that has not begun")),
            },
            Event::Alias(_) => return Err(format!("line {line}: aliases are not supported")),
            Event::DocumentStart(_) if root.is_some() => {
                return Err(format!("line {line}: a second document begins"));
            }
            _ => continue,
        };
        match (open.last_mut(), value) {
            (None, value) => root = Some(value),
            (Some(Open::List(list)), value) => list.push(value),
            (Some(Open::Map(map, key @ Some(_))), value) => {
                map.insert(key.take().unwrap_or_default(), value);
            }
            (Some(Open::Map(_, key)), Value::String(text)) => *key = Some(text),
            (Some(Open::Map(..)), _) => return Err(format!("line {line}: a key must be a text")),
        }
    }
    Ok(root.unwrap_or(Value::Array(Vec::new())))
}

#[cfg(test)]
mod tests;
