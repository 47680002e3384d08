//! Small pieces of text: values, attributes, times, durations, colours.

use serde_json::Value;

/// Longer values are cut in the one-line views; `detailed` shows everything.
const VALUE_CHARS_MAX: usize = 200;

#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) colours: bool,
}

impl Style {
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.colours && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// The elements of an array member, none if it is absent.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn string<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

/// A 64-bit number that OTLP JSON writes as a string, or a plain one.
pub(super) fn number(value: &Value, name: &str) -> Option<u64> {
    let value = value.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// `{key=value, key=value}`, or nothing at all without attributes.
pub(super) fn attributes(list: &[Value], without: &str) -> String {
    let pairs: Vec<String> = list
        .iter()
        .filter(|pair| string(pair, "key") != without)
        .map(|pair| format!("{}={}", clean(string(pair, "key")), any(pair.get("value"))))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(", ")) }
}

pub(super) fn attribute(list: &[Value], key: &str) -> Option<String> {
    let pair = list.iter().find(|pair| string(pair, "key") == key)?;
    Some(any(pair.get("value")))
}

/// An `AnyValue` on one line.
pub(super) fn any(value: Option<&Value>) -> String {
    let Some((kind, value)) = value.and_then(Value::as_object).and_then(|any| any.iter().next())
    else {
        return "(empty)".to_owned();
    };
    match kind.as_str() {
        "stringValue" => clip(&clean(value.as_str().unwrap_or(""))),
        "arrayValue" => {
            let values: Vec<_> = list(value, "values").iter().map(|v| any(Some(v))).collect();
            clip(&format!("[{}]", values.join(", ")))
        }
        "kvlistValue" => clip(&match attributes(list(value, "values"), "").as_str() {
            "" => "{}".to_owned(),
            pairs => pairs.to_owned(),
        }),
        "bytesValue" => clip(&format!("base64:{}", value.as_str().unwrap_or(""))),
        _ => bare(value),
    }
}

/// A JSON scalar without quotes.
pub(super) fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), clean)
}

/// Nothing a sender wrote may steer the terminal or break the line.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The time of day, in UTC, to the microsecond.
pub(super) fn time_of_day(unix_nanos: u64) -> String {
    let seconds = unix_nanos / 1_000_000_000;
    let micros = unix_nanos % 1_000_000_000 / 1000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Three digits that matter and a unit: `1.24 ms`.
pub(super) fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..=999 => return format!("{nanos} ns"),
        1000..=999_999 => (nanos as f64 / 1e3, "us"),
        1_000_000..=999_999_999 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {unit}")
}

/// `1 span`, `2 spans`.
pub(super) fn count(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// What is there, two spaces apart.
pub(super) fn columns(columns: &[String]) -> String {
    let there: Vec<&str> =
        columns.iter().map(String::as_str).filter(|column| !column.is_empty()).collect();
    there.join("  ")
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
