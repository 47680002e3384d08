//! `extensions` and `service`, less the pipelines: health, metrics, logs.

use std::net::SocketAddr;

use super::keys::{Table, block, ignored, only, refused, value};
use super::plan::{LogFormat, Telemetry};
use super::problem::{Place, Problem, Report, nearest};
use super::section::{Component, Section};
use super::tree::{Node, Value};
use super::values;

pub(crate) const EXTENSION_KINDS: [&str; 3] = ["health_check", "pprof", "zpages"];

pub(crate) const HEALTH_CHECK: Table = Table {
    path: "extensions.health_check[/name]",
    keys: &[
        value(
            "endpoint",
            "host:port",
            "localhost:13133",
            "Where to answer: 200 while each core \
            turns, each destination has endpoints and a route is open, else 503.",
        ),
        only("path", "/", "the answer is at `/`"),
        ignored("check_collector_pipeline", "routes are always part of the answer"),
        ignored("response_body", "the body says what is wrong"),
        refused("tls", "it answers in cleartext: remove it"),
        refused("auth", "remove it; keep the address on localhost or in the pod"),
        refused("cors", "remove it"),
    ],
};

pub(crate) const SERVICE: Table = Table {
    path: "service",
    keys: &[
        value(
            "extensions",
            "list of names",
            "[]",
            "Which extensions run. `pprof` and `zpages` \
            are taken, and nothing runs for them.",
        ),
        block("pipelines", "By name: `<traces|metrics|logs|profiles>[/name]`. At least one."),
        block("telemetry", "What forebay says of itself."),
    ],
};

pub(crate) const TELEMETRY: Table = Table {
    path: "service.telemetry",
    keys: &[
        block("metrics", "Prometheus metrics."),
        block("logs", "Logs, on standard error."),
        ignored("traces", "forebay does not trace itself yet"),
        ignored("resource", "attributes of forebay's own telemetry are fixed"),
    ],
};

pub(crate) const METRICS: Table = Table {
    path: "service.telemetry.metrics",
    keys: &[
        value(
            "level",
            "none, basic, normal or detailed",
            "normal",
            "none: no metrics. The others \
            are all the same here.",
        ),
        value(
            "address",
            "host:port",
            "",
            "The Collector's old short form for one Prometheus \
            reader.",
        ),
        block("readers", "A list of one reader; absent: 127.0.0.1:8888; empty: no metrics."),
        ignored("views", "each metric is shown as it is"),
    ],
};

pub(crate) const READER: Table = Table {
    path: "service.telemetry.metrics.readers[]",
    keys: &[
        block("pull", "The only kind of reader."),
        refused("periodic", "pushing metrics is not supported yet: scrape a pull reader"),
    ],
};

pub(crate) const PULL: Table = Table {
    path: "service.telemetry.metrics.readers[].pull",
    keys: &[block("exporter", "What it shows.")],
};

pub(crate) const PULL_EXPORTER: Table = Table {
    path: "service.telemetry.metrics.readers[].pull.exporter",
    keys: &[block("prometheus", "Prometheus text at `/metrics`.")],
};

pub(crate) const PROMETHEUS: Table = Table {
    path: "service.telemetry.metrics.readers[].pull.exporter.prometheus",
    keys: &[
        value("host", "host", "127.0.0.1", "Where to answer."),
        value("port", "port", "8888", "The same; 0 is any free port."),
        ignored("without_scope_info", "names are those of a Collector's default reader"),
        ignored("without_type_suffix", "names are those of a Collector's default reader"),
        ignored("without_units", "names are those of a Collector's default reader"),
        ignored("with_resource_constant_labels", "there are no resource labels"),
    ],
};

pub(crate) const LOGS: Table = Table {
    path: "service.telemetry.logs",
    keys: &[
        value("level", "debug, info, warn or error", "info", "The least that is logged."),
        value("encoding", "console or json", "console", "The form of a line."),
        ignored("development", "there is one way to log"),
        ignored("disable_caller", "lines have no caller"),
        ignored("disable_stacktrace", "lines have no stack traces"),
        ignored("sampling", "repeated lines are held back by their sources"),
        ignored("output_paths", "logs go to standard error"),
        ignored("error_output_paths", "logs go to standard error"),
        ignored("initial_fields", "lines have no fields in common"),
        ignored("processors", "logs go to standard error only"),
    ],
};

/// The address of `health_check`, with its place, if `service.extensions` names it.
pub(crate) fn health(
    components: &[Component<'_>],
    service: &Section<'_>,
    report: &Report,
) -> Option<(SocketAddr, Place)> {
    let enabled = service.texts("extensions");
    let mut health: Option<(SocketAddr, Place)> = None;
    for component in components {
        let on = enabled.iter().any(|(id, _)| *id == component.id);
        match component.kind {
            "health_check" => {
                let path = component.path.as_str();
                let section =
                    Section::open(component.node, component.place, path, &HEALTH_CHECK, report);
                let address = section.value("endpoint", values::listen_address);
                if on && health.is_some() {
                    let what = "a second health_check is not supported";
                    report.add(Problem::error(component.place, what).hint("enable one of them"));
                } else if on {
                    health = Some((address, section.place_of("endpoint").clone()));
                }
            }
            "pprof" | "zpages" => {
                let what = format!("{} has no effect in forebay", component.path);
                let why = "it shows what the Go runtime knows; forebay is not written in Go";
                report.add(Problem::warning(component.place, what).why(why));
                continue;
            }
            _ => {
                report.add(component.unknown("extension", &EXTENSION_KINDS));
                continue;
            }
        }
        if !on {
            let what = format!("the extension \"{}\" is not used", component.id);
            let hint = "name it in service.extensions, or remove it";
            report.add(Problem::warning(component.place, what).hint(hint));
        }
    }
    for (id, place) in enabled {
        if !components.iter().any(|component| component.id == id) {
            let what = format!("service.extensions names \"{id}\", which is not configured");
            let known = components.iter().map(|component| component.id);
            report.add(Problem::error(place, what).hint(match nearest(id, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("add \"{id}:\" under \"extensions:\""),
            }));
        }
    }
    health
}

/// `service.telemetry`, and where the metrics' address stands.
pub(crate) fn telemetry(service: &Section<'_>) -> (Telemetry, Place) {
    let section = service.block("telemetry", &TELEMETRY);
    let metrics = section.block("metrics", &METRICS);
    let logs = section.block("logs", &LOGS);
    const LEVELS: &[(&str, bool)] =
        &[("none", false), ("basic", true), ("normal", true), ("detailed", true)];
    const FORMATS: &[(&str, LogFormat)] =
        &[("console", LogFormat::Console), ("json", LogFormat::Json)];
    let shown = metrics.value("level", values::choice(LEVELS));
    let (address, place) = metrics_address(&metrics);
    let telemetry = Telemetry {
        metrics: (shown && !without_readers(&metrics)).then_some(address),
        log_level: logs.value("level", log_level),
        log_format: logs.value("encoding", values::choice(FORMATS)),
    };
    (telemetry, place)
}

fn without_readers(metrics: &Section<'_>) -> bool {
    let readers = metrics.given("readers").map(|node| &node.value);
    matches!(readers, Some(Value::List(readers)) if readers.is_empty())
}

/// The reader's address, or else the short form's, or else the default.
fn metrics_address(metrics: &Section<'_>) -> (SocketAddr, Place) {
    let short = metrics.read("address", values::listen_address);
    let none = Node { place: metrics.place.clone(), value: Value::Null };
    let readers = match metrics.given("readers").map(|node| &node.value) {
        Some(Value::List(readers)) => readers.as_slice(),
        Some(_) => {
            metrics.fault("readers", "must be a list");
            &[]
        }
        None => &[],
    };
    if readers.len() > 1 {
        metrics.fault("readers", "has more than one reader, and forebay has one");
    }
    let path = metrics.key_path("readers[0]");
    let reader = readers.first().unwrap_or(&none);
    let reader = Section::open(reader, &reader.place, path, &READER, metrics.report);
    let exporter = reader.block("pull", &PULL).block("exporter", &PULL_EXPORTER);
    let prometheus = exporter.block("prometheus", &PROMETHEUS);
    let port = prometheus.count("port", 0..=u16::MAX.into());
    let address = prometheus.value("host", |host| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        values::listen_address(&format!("{host}:{port}"))
    });
    match short {
        Some(short) if readers.is_empty() => (short, metrics.place_of("address").clone()),
        _ => (address, prometheus.place_of("port").clone()),
    }
}

/// Upper case is taken, too, as in the Collector; levels above `error` log errors.
fn log_level(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        level @ ("debug" | "info" | "warn" | "error") => Ok(level.to_owned()),
        "dpanic" | "panic" | "fatal" => Ok("error".to_owned()),
        _ => Err(format!("must be one of debug, info, warn, error; this is \"{text}\"")),
    }
}
