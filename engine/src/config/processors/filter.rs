//! `filter`: conditions for what is dropped, in a part of the Collector's OTTL.

use forebay_codec::edit::{Condition, Context};
use forebay_codec::signal::Signal;

use crate::config::keys::{Table, block, refused, value};
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::values;

const OLD_FORM: &str = "write it as a condition, such as attributes[\"key\"] == \"value\"";
const OF_RESOURCE: &str = "write resource.attributes[\"key\"] in a condition of the items: with its last item a resource \
     goes, too";
const CONDITIONS: &str = "conditions";

pub(crate) const FILTER: Table = Table {
    path: "processors.filter[/name]",
    keys: &[
        value(
            "error_mode",
            "propagate, ignore or silent",
            "propagate",
            "Taken: no condition that forebay takes can fail.",
        ),
        block("traces", "Which spans are dropped."),
        block("metrics", "Which metrics and data points are dropped."),
        block("logs", "Which log records are dropped."),
        value("trace_conditions", CONDITIONS, "[]", "The newer form of `traces.span`."),
        value(
            "metric_conditions",
            CONDITIONS,
            "[]",
            "The newer form of both; conditions with datapoint.attributes drop data points.",
        ),
        value("log_conditions", CONDITIONS, "[]", "The newer form of `logs.log_record`."),
        refused("spans", OLD_FORM),
        refused("profiles", "profiles pass whole: remove it"),
        refused("profile_conditions", "profiles pass whole: remove it"),
    ],
};

pub(crate) const TRACES: Table = Table {
    path: "processors.filter[/name].traces",
    keys: &[
        value("span", CONDITIONS, "[]", "A span is dropped if one of them is true of it."),
        refused("spanevent", "span events pass with their spans: remove it"),
        refused("resource", OF_RESOURCE),
    ],
};

pub(crate) const METRICS: Table = Table {
    path: "processors.filter[/name].metrics",
    keys: &[
        value("metric", CONDITIONS, "[]", "A metric is dropped if one of them is true of it."),
        value(
            "datapoint",
            CONDITIONS,
            "[]",
            "A data point is dropped if one of them is true of it; a metric, with its last one.",
        ),
        refused("resource", OF_RESOURCE),
        refused("include", OLD_FORM),
        refused("exclude", OLD_FORM),
        refused("regexp", OLD_FORM),
    ],
};

pub(crate) const LOGS: Table = Table {
    path: "processors.filter[/name].logs",
    keys: &[
        value("log_record", CONDITIONS, "[]", "A record is dropped if one of them is true of it."),
        refused("resource", OF_RESOURCE),
        refused("include", OLD_FORM),
        refused("exclude", OLD_FORM),
    ],
};

/// The conditions, each with the signal that it is for.
pub(super) fn conditions(section: &Section<'_>) -> Vec<(Signal, Condition)> {
    const MODES: &[(&str, ())] = &[("propagate", ()), ("ignore", ()), ("silent", ())];
    section.value("error_mode", values::choice(MODES));
    let mut all = Vec::new();
    let traces = section.block("traces", &TRACES);
    let metrics = section.block("metrics", &METRICS);
    let logs = section.block("logs", &LOGS);
    for (section, name, signal, contexts) in [
        (&traces, "span", Signal::Traces, &[Context::Span][..]),
        (section, "trace_conditions", Signal::Traces, &[Context::Span]),
        (&metrics, "metric", Signal::Metrics, &[Context::Metric]),
        (&metrics, "datapoint", Signal::Metrics, &[Context::DataPoint]),
        (section, "metric_conditions", Signal::Metrics, &[Context::Metric, Context::DataPoint]),
        (&logs, "log_record", Signal::Logs, &[Context::LogRecord]),
        (section, "log_conditions", Signal::Logs, &[Context::LogRecord]),
    ] {
        let read = read(section, name, contexts);
        all.extend(read.into_iter().map(|condition| (signal, condition)));
    }
    if all.is_empty() {
        let what = format!("{} has no condition, and drops nothing", section.path);
        section.report.add(
            Problem::warning(&section.place, what)
                .hint("add one, such as traces: {span: ['attributes[\"http.route\"] == \"/\"']}"),
        );
    }
    all
}

/// Each condition in the first of the contexts in which it means something.
fn read(section: &Section<'_>, name: &str, contexts: &[Context]) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (text, place) in section.texts(name) {
        let tried = contexts.iter().map(|context| Condition::parse(text, *context));
        let mut errors = Vec::new();
        match tried.filter_map(|tried| tried.map_err(|error| errors.push(error)).ok()).next() {
            Some(condition) => conditions.push(condition),
            // Where it got furthest, it says most.
            None => {
                let error = errors.into_iter().max_by_key(|error| error.column);
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                let what =
                    format!("{} is no condition that forebay can read", section.key_path(name));
                section.report.add(Problem::error(place, what).why(error).hint(
                    "forebay takes comparisons, and, or, not, parentheses and IsMatch; leave what \
                     needs more of OTTL to a Collector behind it",
                ));
            }
        }
    }
    conditions
}
