//! The answers of OTLP: `google.rpc.Status` with its details, and partial success.
//!
//! Written and read by hand, in protobuf and in JSON, because they are small and because a peer's
//! answer must be readable even where it is odd: unknown details and fields are skipped, text that
//! is not UTF-8 is mended, only bytes that are no message at all give `None`.
//! Source: google/rpc/status.proto and error_details.proto; OTLP 1.11, "Failures" and "Partial
//! Success".
//!
//! Never decides anything: which code means "again" is the engine's and the exporters' business.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::schema::LEN;
use crate::signal::Signal;
use crate::wire::{self, Fields, RawField};

/// A `google.rpc.Status`: why a request failed, and when to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A gRPC code, 0 to 16. Peers that speak HTTP may leave it 0.
    pub code: u32,
    /// For people.
    pub message: String,
    /// `google.rpc.RetryInfo`: come back after this long.
    pub retry_delay: Option<Duration>,
    /// The description of `google.rpc.BadRequest`'s first field violation.
    pub bad_request: Option<String>,
}

impl Status {
    pub fn to_proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_number(&mut out, 1, u64::from(self.code));
        if !self.message.is_empty() {
            wire::put_bytes(&mut out, 2, self.message.as_bytes());
        }
        if let Some(delay) = self.retry_delay {
            wire::put_bytes(&mut out, 3, &any(RETRY_INFO, &retry_info(delay)));
        }
        if let Some(description) = &self.bad_request {
            wire::put_bytes(&mut out, 3, &any(BAD_REQUEST, &bad_request(description)));
        }
        out
    }

    /// `{}` when nothing is set.
    pub fn to_json(&self) -> Vec<u8> {
        let mut status = Map::new();
        if self.code != 0 {
            status.insert("code".into(), self.code.into());
        }
        if !self.message.is_empty() {
            status.insert("message".into(), self.message.as_str().into());
        }
        let mut details = Vec::new();
        if let Some(delay) = self.retry_delay {
            details.push(json!({"@type": RETRY_INFO, "retryDelay": seconds_text(delay)}));
        }
        if let Some(description) = &self.bad_request {
            let violations = [json!({"description": description})];
            details.push(json!({"@type": BAD_REQUEST, "fieldViolations": violations}));
        }
        if !details.is_empty() {
            status.insert("details".into(), details.into());
        }
        Value::Object(status).to_string().into_bytes()
    }

    /// `None`: the bytes are no protobuf message. Zero bytes are the default status.
    pub fn from_proto(bytes: &[u8]) -> Option<Status> {
        let mut status = Status::default();
        for field in fields(bytes)? {
            let value = &bytes[field.value.clone()];
            match (field.number, field.wire_type) {
                (1, 0) => status.code = wire::varint_of(value) as u32,
                (2, LEN) => status.message = text(value),
                (3, LEN) => status.take_detail(value)?,
                _ => {}
            }
        }
        Some(status)
    }

    /// `None`: the bytes are no JSON object.
    pub fn from_json(json: &[u8]) -> Option<Status> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let object = value.as_object()?;
        let mut status = Status {
            code: object.get("code").and_then(Value::as_u64).unwrap_or_default() as u32,
            message: text_at(&value, "/message"),
            ..Status::default()
        };
        for detail in object.get("details").and_then(Value::as_array).into_iter().flatten() {
            status.take_json_detail(detail);
        }
        Some(status)
    }

    fn take_detail(&mut self, any: &[u8]) -> Option<()> {
        let (mut type_url, mut value) = ("", &any[..0]);
        for field in fields(any)? {
            match (field.number, field.wire_type) {
                (1, LEN) => type_url = std::str::from_utf8(&any[field.value]).unwrap_or_default(),
                (2, LEN) => value = &any[field.value],
                _ => {}
            }
        }
        match short_name(type_url) {
            "google.rpc.RetryInfo" => self.retry_delay = Some(retry_delay(value)?),
            "google.rpc.BadRequest" => self.bad_request = Some(violation(value)?),
            _ => {}
        }
        Some(())
    }

    fn take_json_detail(&mut self, detail: &Value) {
        match short_name(&text_at(detail, "/@type")) {
            "google.rpc.RetryInfo" => {
                self.retry_delay = Some(duration_of_text(&text_at(detail, "/retryDelay")));
            }
            "google.rpc.BadRequest" => {
                self.bad_request = Some(text_at(detail, "/fieldViolations/0/description"));
            }
            _ => {}
        }
    }
}

/// What a peer says about a request that it took: an `Export*ServiceResponse`. Nothing rejected and
/// no message is full success (OTLP 1.11: an empty partial success equals an unset one).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// Spans, data points, log records, or profiles (whole ones, not samples).
    pub rejected: u64,
    pub message: String,
}

impl PartialSuccess {
    pub fn is_full_success(&self) -> bool {
        self.rejected == 0 && self.message.is_empty()
    }

    /// Reads a response; the same for every signal. `None`: the bytes are no protobuf message.
    pub fn response_from_proto(bytes: &[u8]) -> Option<PartialSuccess> {
        let mut out = PartialSuccess::default();
        for response_field in fields(bytes)? {
            if (response_field.number, response_field.wire_type) != (1, LEN) {
                continue;
            }
            let partial = &bytes[response_field.value];
            for field in fields(partial)? {
                let value = &partial[field.value.clone()];
                match (field.number, field.wire_type) {
                    (1, 0) => out.rejected = not_negative(wire::varint_of(value) as i64),
                    (2, LEN) => out.message = text(value),
                    _ => {}
                }
            }
        }
        Some(out)
    }

    /// Reads a response in JSON; the same for every signal. `None`: the bytes are no JSON object.
    pub fn response_from_json(json: &[u8]) -> Option<PartialSuccess> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let object = value.as_object()?;
        let Some(partial) = object.get("partialSuccess").filter(|partial| !partial.is_null())
        else {
            return Some(PartialSuccess::default());
        };
        let rejected = Signal::ALL.iter().find_map(|&s| partial.get(rejected_json_name(s)));
        Some(PartialSuccess {
            rejected: not_negative(rejected.and_then(int64).unwrap_or_default()),
            message: text_at(partial, "/errorMessage"),
        })
    }

    /// Zero bytes for full success.
    pub fn to_response_proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_full_success() {
            return out;
        }
        let mut partial = Vec::new();
        wire::put_number(&mut partial, 1, self.rejected);
        if !self.message.is_empty() {
            wire::put_bytes(&mut partial, 2, self.message.as_bytes());
        }
        wire::put_bytes(&mut out, 1, &partial);
        out
    }

    /// `{}` for full success.
    pub fn to_response_json(&self, signal: Signal) -> Vec<u8> {
        if self.is_full_success() {
            return b"{}".to_vec();
        }
        let mut partial = Map::new();
        if self.rejected != 0 {
            partial.insert(rejected_json_name(signal).into(), self.rejected.to_string().into());
        }
        if !self.message.is_empty() {
            partial.insert("errorMessage".into(), self.message.as_str().into());
        }
        json!({ "partialSuccess": partial }).to_string().into_bytes()
    }
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

fn rejected_json_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
        Signal::Profiles => "rejectedProfiles",
    }
}

/// All fields of a message, or `None` if one is malformed.
fn fields(bytes: &[u8]) -> Option<Vec<RawField>> {
    let all: Vec<_> = Fields::new(bytes, 0..bytes.len()).collect();
    let end = all.last().map_or(0, |field| field.whole.end);
    (end == bytes.len()).then_some(all)
}

fn any(type_url: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, type_url.as_bytes());
    wire::put_bytes(&mut out, 2, value);
    out
}

fn retry_info(delay: Duration) -> Vec<u8> {
    let mut duration = Vec::new();
    wire::put_number(&mut duration, 1, delay.as_secs());
    wire::put_number(&mut duration, 2, u64::from(delay.subsec_nanos()));
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, &duration);
    out
}

fn retry_delay(retry_info: &[u8]) -> Option<Duration> {
    let mut delay = Duration::ZERO;
    for field in fields(retry_info)?.iter().filter(|f| (f.number, f.wire_type) == (1, LEN)) {
        let duration = &retry_info[field.value.clone()];
        for part in fields(duration)?.iter().filter(|f| f.wire_type == 0) {
            let number = not_negative(wire::varint_of(&duration[part.value.clone()]) as i64);
            delay = match part.number {
                1 => Duration::new(number, delay.subsec_nanos()),
                2 => Duration::new(delay.as_secs(), number.min(999_999_999) as u32),
                _ => delay,
            };
        }
    }
    Some(delay)
}

fn bad_request(description: &str) -> Vec<u8> {
    let mut violation = Vec::new();
    wire::put_bytes(&mut violation, 2, description.as_bytes());
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, &violation);
    out
}

fn violation(bad_request: &[u8]) -> Option<String> {
    let first = fields(bad_request)?.into_iter().find(|f| (f.number, f.wire_type) == (1, LEN));
    let Some(first) = first else {
        return Some(String::new());
    };
    let violation = &bad_request[first.value];
    let description = fields(violation)?.into_iter().rfind(|f| (f.number, f.wire_type) == (2, LEN));
    Some(description.map(|field| text(&violation[field.value])).unwrap_or_default())
}

/// The JSON form of `google.protobuf.Duration`: seconds with up to nine decimals and an `s`.
fn seconds_text(delay: Duration) -> String {
    match delay.subsec_nanos() {
        0 => format!("{}s", delay.as_secs()),
        nanos => {
            let decimals = format!("{nanos:09}");
            format!("{}.{}s", delay.as_secs(), decimals.trim_end_matches('0'))
        }
    }
}

/// Zero for anything that is not a duration: come back, no matter when.
fn duration_of_text(text: &str) -> Duration {
    let seconds = text.strip_suffix('s').unwrap_or_default();
    let (whole, decimals) = seconds.split_once('.').unwrap_or((seconds, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 9 {
        return Duration::ZERO;
    }
    let nanos = format!("{decimals:0<9}").parse().unwrap_or_default();
    Duration::new(whole.parse().unwrap_or_default(), nanos)
}

fn short_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text_at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn int64(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn not_negative(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests;
