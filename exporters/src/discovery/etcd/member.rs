//! What a key's value says about an endpoint, and what ours says.
//!
//! Sans I/O.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::discovery::endpoint::{Endpoint, shortened};
use crate::discovery::registrar::{Health, State};

#[derive(Deserialize)]
struct Member {
    #[serde(alias = "Addr", alias = "addr")]
    address: String,
    #[serde(default, alias = "Metadata", alias = "metadata")]
    attributes: Option<Value>,
    /// Everything else, as if it stood among the attributes.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `None`: there is one, and it wants nothing.
pub(super) fn parse(value: &[u8], port_default: Option<u16>) -> Result<Option<Endpoint>, String> {
    let text = std::str::from_utf8(value).map_err(|_| "the value is no text".to_owned())?.trim();
    let address =
        |text: &str| Endpoint::parse(text, port_default).map_err(|error| error.to_string());
    if !text.starts_with('{') {
        return address(text).map(Some);
    }
    let member: Member = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut endpoint = address(&member.address)?;
    let mut attributes = member.rest;
    // The Go resolver's: whether the entry is added or taken away.
    attributes.remove("Op");
    if let Some(Value::Object(nested)) = member.attributes {
        attributes.extend(nested);
    }
    for (name, value) in attributes {
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let no_number = || format!("{name} is \"{}\", no number", shortened(&text));
        match name.as_str() {
            "health" if text == State::Critical.word() => return Ok(None),
            "weight" => endpoint = endpoint.weighing(text.parse().map_err(|_| no_number())?),
            "priority" => endpoint.priority = text.parse().map_err(|_| no_number())?,
            _ => endpoint.describe(&name, &text),
        }
    }
    Ok(Some(endpoint))
}

/// Our own entry, in the form that etcd's Go resolver reads.
pub(super) fn entry(
    address: &str,
    attributes: &BTreeMap<String, String>,
    health: &Health,
) -> String {
    let mut metadata: Map<String, Value> =
        attributes.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    metadata.insert("health".to_owned(), health.state.word().into());
    if !health.note.is_empty() {
        metadata.insert("health_note".to_owned(), health.note.clone().into());
    }
    json!({"Op": 0, "Addr": address, "Metadata": metadata}).to_string()
}

#[cfg(test)]
mod tests;
