//! A metric as text: its name once, then a line per data point.

use serde_json::Value;

use super::text::{Style, attributes, bare, clean, columns, list, string};

const KINDS: [(&str, &str); 5] = [
    ("gauge", "gauge"),
    ("sum", "sum"),
    ("histogram", "histogram"),
    ("exponentialHistogram", "exponential histogram"),
    ("summary", "summary"),
];

/// How many data points a metric has.
pub(super) fn points(metric: &Value) -> usize {
    kind(metric).map_or(0, |(_, _, data)| list(data, "dataPoints").len())
}

/// One data point on the metric's own line, several below it.
pub(super) fn metric(metric: &Value, style: Style, out: &mut String) {
    let (field, kind, data) = kind(metric).unwrap_or(("", "(no data)", &Value::Null));
    let unit = clean(string(metric, "unit"));
    let described = columns(&[style.bold(&clean(string(metric, "name"))), nature(kind, data)]);
    let points = list(data, "dataPoints");
    if let [point] = points {
        let line = columns(&[described, value(field, point, &unit), about(point)]);
        out.push_str(&format!("    {line}\n"));
        return;
    }
    out.push_str(&format!("    {described}\n"));
    for point in points {
        let line = columns(&[value(field, point, &unit), about(point)]);
        out.push_str(&format!("      {line}\n"));
    }
}

fn kind(metric: &Value) -> Option<(&'static str, &'static str, &Value)> {
    KINDS.iter().find_map(|(field, name)| Some((*field, *name, metric.get(field)?)))
}

/// `sum (delta, monotonic)`
fn nature(kind: &str, data: &Value) -> String {
    let mut nature = Vec::new();
    match data.get("aggregationTemporality").and_then(Value::as_u64) {
        Some(1) => nature.push("delta"),
        Some(2) => nature.push("cumulative"),
        _ => {}
    }
    if data.get("isMonotonic").and_then(Value::as_bool) == Some(true) {
        nature.push("monotonic");
    }
    if nature.is_empty() { kind.to_owned() } else { format!("{kind} ({})", nature.join(", ")) }
}

fn value(field: &str, point: &Value, unit: &str) -> String {
    let named = |name: &str| Some(format!("{name}={}", bare(point.get(name)?)));
    match field {
        "gauge" | "sum" => {
            let value = point.get("asInt").or_else(|| point.get("asDouble"));
            let value = value.map_or_else(|| "(no value)".to_owned(), bare);
            format!("= {value} {unit}").trim_end().to_owned()
        }
        _ => {
            let mut parts: Vec<String> =
                ["count", "sum", "min", "max"].iter().filter_map(|name| named(name)).collect();
            parts.extend(list(point, "quantileValues").iter().map(|at| {
                let member = |name| at.get(name).map_or_else(|| "0".to_owned(), bare);
                format!("q{}={}", member("quantile"), member("value"))
            }));
            if !unit.is_empty() {
                parts.push(format!("({unit})"));
            }
            parts.join(" ")
        }
    }
}

fn about(point: &Value) -> String {
    attributes(list(point, "attributes"), "")
}
