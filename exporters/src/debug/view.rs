//! One request as text: a line per batch, a line per item, or every field.
//!
//! Reads OTLP JSON that the codec wrote, so it may trust names and shapes but not values.

use forebay_codec::signal::Signal;
use serde_json::Value;

use super::metrics;
use super::text::{
    Style, any, attribute, attributes, clean, columns, count, duration, list, number, string,
    time_of_day,
};

/// Names of the nested lists and of one item, by signal.
struct Shape {
    resources: &'static str,
    scopes: &'static str,
    items: &'static str,
    item: &'static str,
}

/// One line for the batch.
pub(super) fn basic(signal: Signal, items: u64, request: &Value, style: Style, out: &mut String) {
    let shape = shape(signal);
    let groups = list(request, shape.resources);
    let resources = count(groups.len() as u64, "resource");
    let mut line =
        format!("{}: {} from {resources}", style.bold(signal.name()), count(items, shape.item));
    if signal == Signal::Metrics {
        let scopes = groups.iter().flat_map(|group| list(group, shape.scopes));
        let metrics: usize = scopes.map(|scope| list(scope, shape.items).len()).sum();
        line = format!("{line} in {}", count(metrics as u64, "metric"));
    }
    out.push_str(&line);
    out.push('\n');
}

/// A heading per resource, a line per scope, a line per item.
pub(super) fn normal(signal: Signal, items: u64, request: &Value, style: Style, out: &mut String) {
    let shape = shape(signal);
    let groups = list(request, shape.resources);
    if groups.is_empty() {
        out.push_str(&format!("{}: {}\n", style.bold(signal.name()), count(items, shape.item)));
    }
    for group in groups {
        heading(signal, &shape, group, style, out);
        for scope_group in list(group, shape.scopes) {
            let scope = scope_group.get("scope").unwrap_or(&Value::Null);
            let name = clean(string(scope, "name"));
            let version = clean(string(scope, "version"));
            let attributes = attributes(list(scope, "attributes"), "");
            let line = columns(&[name, version, attributes]);
            if !line.is_empty() {
                out.push_str(&format!("  {}\n", style.dim(&line)));
            }
            for item in list(scope_group, shape.items) {
                match signal {
                    Signal::Traces => span(item, style, out),
                    Signal::Logs => log(item, style, out),
                    Signal::Metrics => metrics::metric(item, style, out),
                    Signal::Profiles => profile(item, style, out),
                }
            }
        }
    }
}

/// The whole request, indented.
pub(super) fn detailed(
    signal: Signal,
    items: u64,
    request: &Value,
    style: Style,
    out: &mut String,
) {
    basic(signal, items, request, style, out);
    // `clean` is not needed: JSON escapes control characters by itself.
    out.push_str(&format!("{request:#}\n"));
}

fn shape(signal: Signal) -> Shape {
    let (resources, scopes, items, item) = match signal {
        Signal::Traces => ("resourceSpans", "scopeSpans", "spans", "span"),
        Signal::Metrics => ("resourceMetrics", "scopeMetrics", "metrics", "data point"),
        Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords", "log record"),
        Signal::Profiles => ("resourceProfiles", "scopeProfiles", "profiles", "profile"),
    };
    Shape { resources, scopes, items, item }
}

/// `traces  checkout  2 spans  {host.name=web-1}`
fn heading(signal: Signal, shape: &Shape, group: &Value, style: Style, out: &mut String) {
    let items = list(group, shape.scopes).iter().flat_map(|scope| list(scope, shape.items));
    let items: usize = match signal {
        Signal::Metrics => items.map(metrics::points).sum(),
        _ => items.count(),
    };
    let resource = group.get("resource").unwrap_or(&Value::Null);
    let described = list(resource, "attributes");
    let service = attribute(described, "service.name");
    let service = service.unwrap_or_else(|| "(no service.name)".to_owned());
    let line = columns(&[
        style.bold(signal.name()),
        style.cyan(&service),
        count(items as u64, shape.item),
        style.dim(&attributes(described, "service.name")),
    ]);
    out.push_str(&format!("{line}\n"));
}

fn span(span: &Value, style: Style, out: &mut String) {
    let start = number(span, "startTimeUnixNano").unwrap_or(0);
    let end = number(span, "endTimeUnixNano").unwrap_or(0);
    let kind = ["", "internal", "server", "client", "producer", "consumer"];
    let kind =
        number(span, "kind").and_then(|kind| kind.try_into().ok()).and_then(|k: usize| kind.get(k));
    let status = span.get("status").unwrap_or(&Value::Null);
    let message = clean(string(status, "message"));
    let status = match (number(status, "code"), message.is_empty()) {
        (Some(1), _) => "ok".to_owned(),
        (Some(2), true) => style.red("error"),
        (Some(2), false) => style.red(&format!("error: {message}")),
        _ => message,
    };
    let line = columns(&[
        style.dim(&time_of_day(start)),
        style.bold(&named(string(span, "name"))),
        kind.unwrap_or(&"").to_string(),
        duration(end.saturating_sub(start)),
        status,
        attributes(list(span, "attributes"), ""),
        style.dim(&ids(span)),
    ]);
    out.push_str(&format!("    {line}\n"));
    for event in list(span, "events") {
        let at = number(event, "timeUnixNano").unwrap_or(start);
        let line = columns(&[
            style.dim(&format!("+{}", duration(at.saturating_sub(start)))),
            named(string(event, "name")),
            attributes(list(event, "attributes"), ""),
        ]);
        out.push_str(&format!("      event  {line}\n"));
    }
    for link in list(span, "links") {
        let line = columns(&[style.dim(&ids(link)), attributes(list(link, "attributes"), "")]);
        out.push_str(&format!("      link   {line}\n"));
    }
}

fn log(record: &Value, style: Style, out: &mut String) {
    let time = number(record, "timeUnixNano").filter(|time| *time > 0);
    let time = time.or_else(|| number(record, "observedTimeUnixNano")).unwrap_or(0);
    let severity = number(record, "severityNumber").unwrap_or(0);
    let text = match string(record, "severityText") {
        "" => severity_name(severity).to_owned(),
        text => clean(text),
    };
    let line = columns(&[
        style.dim(&time_of_day(time)),
        if severity >= 17 { style.red(&text) } else { text },
        clean(string(record, "eventName")),
        record.get("body").map(|body| style.bold(&any(Some(body)))).unwrap_or_default(),
        attributes(list(record, "attributes"), ""),
        style.dim(&ids(record)),
    ]);
    out.push_str(&format!("    {line}\n"));
}

fn profile(profile: &Value, style: Style, out: &mut String) {
    let samples = list(profile, "samples").len().max(list(profile, "sample").len());
    let line = columns(&[
        style.dim(&time_of_day(number(profile, "timeUnixNano").unwrap_or(0))),
        style.bold(&clean(string(profile, "profileId"))),
        count(samples as u64, "sample"),
        number(profile, "durationNano").map(duration).unwrap_or_default(),
    ]);
    out.push_str(&format!("    {line}\n"));
}

fn ids(item: &Value) -> String {
    let ids = [("trace", "traceId"), ("span", "spanId"), ("parent", "parentSpanId")];
    let there = ids.iter().filter(|(_, field)| !string(item, field).is_empty());
    let ids: Vec<_> =
        there.map(|(name, field)| format!("{name}={}", string(item, field))).collect();
    ids.join(" ")
}

fn named(name: &str) -> String {
    if name.is_empty() { "(no name)".to_owned() } else { clean(name) }
}

/// The short names of the log data model, four numbers each.
fn severity_name(number: u64) -> &'static str {
    match number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        21..=24 => "FATAL",
        _ => "",
    }
}
