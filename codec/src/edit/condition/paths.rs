//! What a condition may speak of, and where it lies in a request.

use std::ops::Range;

use crate::wire::Fields;

use super::{Above, Context, Path, Type};

pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
pub(super) const SCOPE_ATTRIBUTES: u32 = 3;
/// Of a span.
pub(super) const STATUS: u32 = 15;

/// The path with this name, the context's own name at its beginning removed. With `key`, it was
/// written with one in brackets.
pub(super) fn path(name: &str, key: Option<&str>, context: Context) -> Option<Path> {
    let own = match context {
        Context::Span => "span.",
        Context::LogRecord => "log.",
        Context::Metric => "metric.",
        Context::DataPoint => "datapoint.",
    };
    let scope = || name.strip_prefix("instrumentation_scope.").or(name.strip_prefix("scope."));
    if let Some(key) = key {
        let key = key.as_bytes().into();
        return match name.strip_prefix(own).unwrap_or(name) {
            "resource.attributes" => above(Above::ResourceAttribute(key)),
            _ if scope() == Some("attributes") => above(Above::ScopeAttribute(key)),
            "attributes" if context != Context::Metric => Some(Path::Attribute(key)),
            _ => None,
        };
    }
    if let Some(name) = scope() {
        return match name {
            "name" => above(Above::ScopeText(1)),
            "version" => above(Above::ScopeText(2)),
            _ => None,
        };
    }
    let item = |number, kind| Some(Path::Field(number, kind));
    match (context, name.strip_prefix(own).unwrap_or(name)) {
        (Context::Span, "trace_id") => item(1, Type::Id(16)),
        (Context::Span, "trace_id.string") => item(1, Type::IdText),
        (Context::Span, "span_id") => item(2, Type::Id(8)),
        (Context::Span, "span_id.string") => item(2, Type::IdText),
        (Context::Span, "parent_span_id") => item(4, Type::Id(8)),
        (Context::Span, "parent_span_id.string") => item(4, Type::IdText),
        (Context::Span, "name") => item(5, Type::Text),
        (Context::Span, "kind") => item(6, Type::Enum),
        (Context::Span, "status.code") => Some(Path::Status(3, Type::Enum)),
        (Context::Span, "status.message") => Some(Path::Status(2, Type::Text)),
        (Context::LogRecord, "severity_number") => item(2, Type::Enum),
        (Context::LogRecord, "severity_text") => item(3, Type::Text),
        (Context::LogRecord, "body") => item(5, Type::AnyValue),
        (Context::LogRecord, "trace_id") => item(9, Type::Id(16)),
        (Context::LogRecord, "trace_id.string") => item(9, Type::IdText),
        (Context::LogRecord, "span_id") => item(10, Type::Id(8)),
        (Context::LogRecord, "span_id.string") => item(10, Type::IdText),
        (Context::LogRecord, "event_name") => item(12, Type::Text),
        (Context::Metric, name) => of_metric(name),
        (Context::DataPoint, name) => of_metric(name.strip_prefix("metric.")?),
        _ => None,
    }
}

fn above(above: Above) -> Option<Path> {
    Some(Path::Above(above, 0))
}

fn of_metric(name: &str) -> Option<Path> {
    match name {
        "name" => above(Above::MetricText(1)),
        "description" => above(Above::MetricText(2)),
        "unit" => above(Above::MetricText(3)),
        "type" => above(Above::MetricType),
        _ => None,
    }
}

/// What may be written in this context, for an error.
pub(super) fn known(context: Context) -> &'static str {
    match context {
        Context::Span => {
            "attributes[\"key\"], name, kind, status.code, status.message, trace_id, span_id, \
             parent_span_id (these also with .string), resource.attributes[\"key\"], \
             instrumentation_scope.name, .version and .attributes[\"key\"]"
        }
        Context::LogRecord => {
            "attributes[\"key\"], body, severity_number, severity_text, event_name, trace_id, \
             span_id (these also with .string), resource.attributes[\"key\"], \
             instrumentation_scope.name, .version and .attributes[\"key\"]"
        }
        Context::Metric => {
            "name, type, unit, description (also as metric.name ...), \
             resource.attributes[\"key\"], instrumentation_scope.name, .version and \
             .attributes[\"key\"]"
        }
        Context::DataPoint => {
            "attributes[\"key\"], metric.name, metric.type, metric.unit, metric.description, \
             resource.attributes[\"key\"], instrumentation_scope.name, .version and \
             .attributes[\"key\"]"
        }
    }
}

/// The number that an enum's name stands for.
pub(super) fn enumeration(name: &str, context: Context) -> Option<i64> {
    let position = |names: &[&str], rest: &str| names.iter().position(|name| *name == rest);
    let number = match context {
        Context::Span => match name.strip_prefix("SPAN_KIND_") {
            Some(kind) => position(&SPAN_KINDS, kind)?,
            None => position(&STATUS_CODES, name.strip_prefix("STATUS_CODE_")?)?,
        },
        Context::LogRecord => {
            let severity = name.strip_prefix("SEVERITY_NUMBER_")?;
            if severity == "UNSPECIFIED" {
                return Some(0);
            }
            let word = severity.trim_end_matches(|letter: char| letter.is_ascii_digit());
            let within = match &severity[word.len()..] {
                "" => 0,
                "2" => 1,
                "3" => 2,
                "4" => 3,
                _ => return None,
            };
            1 + position(&SEVERITIES, word)? * 4 + within
        }
        Context::Metric | Context::DataPoint => {
            position(&METRIC_TYPES, name.strip_prefix("METRIC_DATA_TYPE_")?)?
        }
    };
    i64::try_from(number).ok()
}

const SPAN_KINDS: [&str; 6] =
    ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const STATUS_CODES: [&str; 3] = ["UNSET", "OK", "ERROR"];
const SEVERITIES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
/// In the Collector's own order, which is not that of the wire.
const METRIC_TYPES: [&str; 6] =
    ["NONE", "GAUGE", "SUM", "HISTOGRAM", "EXPONENTIAL_HISTOGRAM", "SUMMARY"];
const METRIC_DATA: [u32; 5] = [5, 7, 9, 10, 11];

/// The metric's type as the Collector numbers it; of several on the wire, the last one counts.
pub(super) fn metric_type(bytes: &[u8], metric: &[Range<usize>]) -> i64 {
    let fields = metric.iter().flat_map(|part| Fields::new(bytes, part.clone()));
    let kinds =
        fields.filter_map(|field| METRIC_DATA.iter().position(|number| *number == field.number));
    kinds.last().map_or(0, |place| place as i64 + 1)
}
