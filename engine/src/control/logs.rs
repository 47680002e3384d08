//! Logs on standard error, in the Collector's two forms: console (tab-separated) and JSON.
//!
//! A thread of its own writes them, so that no core ever waits for whoever reads standard error.
//! If nobody does, lines are dropped and counted, and items are not.
//!
//! Neither form ever holds a header's value or an item's content: what is logged is chosen where it
//! is logged, and nothing there has such a thing at hand.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::plan::{LogFormat, Telemetry};

/// So many lines wait for the thread that writes them; more are dropped.
const WAITING_LINES_MAX: usize = 8_192;

static DROPPED_LINES: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped because nobody read standard error fast enough.
pub fn dropped_lines() -> usize {
    DROPPED_LINES.get().map_or(0, ErrorCounter::dropped_lines)
}

static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Sets the process's logger. Called once, before any other thread starts.
pub fn start(telemetry: &Telemetry) {
    let level = telemetry.log_level.parse().unwrap_or(LevelFilter::INFO);
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES_MAX)
        .thread_name("logs")
        .finish(std::io::stderr());
    let _ = DROPPED_LINES.set(writer.error_counter());
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(writer);
    let outcome = match telemetry.log_format {
        LogFormat::Json => builder.event_format(Json).try_init(),
        LogFormat::Console => {
            let color = std::io::stderr().is_terminal();
            builder.event_format(Console { color }).try_init()
        }
    };
    // Fails only where a logger stands already, as in a test: then that one stays.
    drop(outcome);
}

/// Writes what still waits, for a second at most. Nothing is logged after it.
pub fn finish() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Tab-separated: time, level, message, and the fields as one JSON object.
struct Console {
    color: bool,
}

impl<S, N> FormatEvent<S, N> for Console
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let fields = Fields::of(event);
        let level = level_name(event.metadata().level());
        let time = timestamp(SystemTime::now());
        match (self.color, event.metadata().level()) {
            (true, &Level::ERROR) => write!(writer, "{time}\t\x1b[31m{level}\x1b[0m")?,
            (true, &Level::WARN) => write!(writer, "{time}\t\x1b[33m{level}\x1b[0m")?,
            _ => write!(writer, "{time}\t{level}")?,
        }
        write!(writer, "\t{}", fields.message)?;
        if !fields.others.is_empty() {
            write!(writer, "\t{}", serde_json::Value::Object(fields.others))?;
        }
        writeln!(writer)
    }
}

/// One JSON object a line, with the Collector's keys.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let fields = Fields::of(event);
        let mut line = serde_json::Map::new();
        line.insert("level".into(), level_name(event.metadata().level()).into());
        line.insert("ts".into(), timestamp(SystemTime::now()).to_string().into());
        line.insert("caller".into(), event.metadata().target().into());
        line.insert("msg".into(), fields.message.into());
        line.extend(fields.others);
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn of(event: &Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
    }

    /// The event's own text comes first; a field that is called `message` as well, as in the
    /// Collector's line about a partial success, is a field like any other.
    fn put_text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" if self.message.is_empty() => self.message.push_str(text),
            _ => self.put(field, text.into()),
        }
    }

    fn put(&mut self, field: &Field, value: serde_json::Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.put_text(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

fn level_name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(time)
}
