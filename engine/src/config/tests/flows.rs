//! Connectors, dead letters and priorities: what they come to, and what is wrong with them.

use http::HeaderName;

use super::*;
use crate::config::plan::{Condition, Output, Plan, Priority, ShiftBy};

/// Exporters `nop/a` to `nop/e`, two over the network, and what a case adds; its pipelines stand
/// as they are.
fn load_flow(pipelines: &str, rest: &str) -> Result<Plan, Vec<String>> {
    let yaml = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 'localhost:0'}}}}}}}}\n\
         exporters: {{nop/a: , nop/b: , nop/c: , nop/d: , nop/e: , \
         otlp_grpc/x: {{endpoint: 'http://x:1', dead_letter: nop/e}}, \
         otlp_grpc/y: {{endpoint: 'http://y:1'}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n{pipelines}{rest}"
    );
    match load_text(&yaml) {
        Ok(loaded) => Ok(loaded.plan),
        Err(problems) => Err(texts(&problems)),
    }
}

#[track_caller]
fn refuses(pipelines: &str, rest: &str, expected: &[&str]) {
    let texts = load_flow(pipelines, rest).map(|_| ()).expect_err("it is wrong");
    let fits = texts.len() == expected.len()
        && expected
            .iter()
            .zip(&texts)
            .all(|(parts, text)| parts.split(" & ").all(|part| text.contains(part)));
    assert!(fits, "expected {expected:#?}\ngot:\n{}", texts.join("\n"));
}

fn names(plan: &Plan, destinations: &[u16]) -> Vec<String> {
    destinations.iter().map(|d| plan.destinations[usize::from(*d)].name.clone()).collect()
}

const BEHIND: &str = "    traces/b: {receivers: [c], exporters: [nop/b]}
    traces/c: {receivers: [c], exporters: [otlp_grpc/x]}
";

/// [`BEHIND`] a connector of this kind and name.
fn behind(connector: &str) -> String {
    BEHIND.replace("[c]", &format!("[{connector}]"))
}

#[test]
fn what_stands_behind_a_failover_shift_or_mirror_becomes_an_output() {
    let first = "    traces: {receivers: [otlp], exporters: [nop/a, NAME]}\n";
    let made = |name: &str, settings: &str| {
        let pipelines = first.replace("NAME", name) + &behind(name);
        let plan = load_flow(&pipelines, &format!("connectors: {{{name}: {settings}}}\n"));
        plan.unwrap_or_else(|problems| panic!("{}", problems.join("\n")))
    };
    let plan = made("failover", "{priority_levels: [[traces/b], [traces/c]]}");
    assert_eq!(plan.pipelines.len(), 1);
    let pipeline = &plan.pipelines[0];
    assert_eq!(names(&plan, &pipeline.destinations), ["nop/a", "nop/b", "otlp_grpc/x", "nop/e"]);
    assert_eq!(pipeline.outputs, [Output::One(0), Output::Failover(vec![1, 3])]);
    let x = &plan.destinations[3];
    assert!(x.fails_over && x.keeps_refused && plan.destinations[1].fails_over);
    assert!(!plan.destinations[0].fails_over);
    assert_eq!(plan.dead_letters, [None, None, None, Some(2)].map(|l: Option<u16>| l));
    let plan = made("shift", "{shares: {traces/b: 90, traces/c: 10}, by: traceID}");
    let shares = vec![(1, 90), (3, 10)];
    assert_eq!(plan.pipelines[0].outputs[1], Output::Shift { shares, by: ShiftBy::TraceId });
    assert!(plan.destinations.iter().all(|destination| !destination.fails_over));
    let plan = made("mirror", "{pipelines: [traces/b, traces/c], percent: 5}");
    let copy = |destination| Output::Mirror { destination, percent: 5 };
    assert_eq!(plan.pipelines[0].outputs[1..], [copy(1), copy(3)]);
}

#[test]
fn what_stands_behind_a_routing_stays_a_pipeline() {
    let plan = load_flow(
        "    logs/in: {receivers: [otlp], exporters: [routing/r]}
    logs/a: {receivers: [routing/r], processors: [attributes], exporters: [nop/a]}
    logs/b: {receivers: [routing/r, otlp], exporters: [shift]}
    logs/c: {receivers: [shift], exporters: [nop/c]}
",
        "processors: {attributes: {actions: [{key: k, action: delete}]}}
connectors:
  shift: {shares: {logs/c: 1}}
  routing/r:
    table:
      - {context: request, condition: 'request[\"X-Tenant\"] == \"t\"', pipelines: [logs/a, logs/b]}
      - {condition: 'attributes[\"k\"] == \"v\"', pipelines: [logs/b]}
    default_pipelines: [logs/a]
engine:
  priorities: {pipelines: {logs/a: high}, tenant: {low: [x]}}
",
    );
    let plan = plan.unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    let pipelines: Vec<&str> = plan.pipelines.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(pipelines, ["logs/in", "logs/a", "logs/b"]);
    let first = &plan.pipelines[0];
    assert!(first.outputs.is_empty() && first.destinations.is_empty());
    let routing = &first.routings[0];
    let header = HeaderName::from_static("x-tenant");
    assert_eq!(routing.rows[0].condition, Condition::Header(header.clone(), "t".to_owned()));
    assert_eq!(routing.rows[0].pipelines, [1, 2]);
    assert_eq!(routing.rows[1].condition, Condition::Attribute("k".to_owned(), "v".to_owned()));
    assert_eq!(routing.otherwise, [1]);
    assert_eq!(plan.pipelines[1].receivers, Vec::<u16>::new());
    assert_eq!(plan.pipelines[1].priority, Priority::High);
    assert_eq!(plan.pipelines[2].receivers, [0]);
    let tenants = Some((header, vec![("x".to_owned(), Priority::Low)]));
    assert_eq!(plan.engine.priorities.tenants, tenants);
}

#[test]
fn what_is_said_of_a_pipeline_without_batches_is_warned_of() {
    let yaml = "receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:0'}}}}
exporters: {nop: }
connectors: {routing: {table: [{condition: 'attributes[\"k\"] == \"v\"', pipelines: [logs/b]}]}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [otlp], exporters: [routing]}
    logs/b: {receivers: [routing], exporters: [nop]}
engine: {acks: {pipelines: {logs: delivered, logs/b: delivered}}}
";
    let loaded = loaded(load_text(yaml));
    check(&loaded.warnings, &["names a pipeline without batches & behind a routing"]);
    assert_eq!(loaded.warnings[0].place.line, 9);
}

#[test]
fn circles_depth_and_what_does_not_fit_are_told_with_a_hint() {
    let first = "    traces: {receivers: [otlp], exporters: [failover]}\n";
    let levels = "connectors: {failover: {priority_levels: [[traces/b], [traces/c]]}}\n";
    let with = |behind: &str| format!("{first}{behind}");
    refuses(
        &with("    traces/b: {receivers: [failover], exporters: [failover]}\n"),
        "connectors: {failover: {priority_levels: [[traces/b]]}}\n",
        &["leads from pipeline \"traces/b\" back to itself: a circle"],
    );
    refuses(
        &with(
            "    traces/b: {receivers: [failover], exporters: [mirror]}
    traces/c: {receivers: [mirror], exporters: [nop/a]}\n",
        ),
        "connectors: {failover: {priority_levels: [[traces/b]]}, \
         mirror: {pipelines: [traces/c]}}\n",
        &[
            "pipeline \"traces/b\" leads to mirrors only & add the exporter",
            "leads over pipeline \"traces/b\" to connectors.mirror & only a routing",
            "leads to pipeline \"traces/b\", which has 0 exporters",
        ],
    );
    refuses(
        &with(
            &behind("failover")
                .replace("exporters: [nop/b]", "processors: [batch], exporters: [nop/b]"),
        ),
        &format!("processors: {{batch: }}\n{levels}"),
        &["which has processors & put them into the pipeline before"],
    );
    refuses(
        &with(&behind("otlp")),
        levels,
        &[
            "leads to pipeline \"traces/b\", which does not receive from it & add \"failover\"",
            "leads to pipeline \"traces/c\", which does not receive from it",
        ],
    );
    refuses(
        &with(
            &(behind("failover") + "    traces/d: {receivers: [failover], exporters: [nop/d]}\n"),
        ),
        levels,
        &["is a receiver of pipeline \"traces/d\", and does not lead there"],
    );
    refuses(
        &with(&behind("failover").replace("nop/b", "otlp_grpc/x")),
        levels,
        &["pipeline \"traces\" leads to one exporter twice"],
    );
    refuses(
        &with(&behind("failover").replace("traces/c", "logs/c")),
        &levels.replace("traces/c", "logs/c"),
        &["leads from traces to \"logs/c\" & pipelines of one signal"],
    );
    refuses(
        &with(&behind("failover")),
        &levels.replace("traces/c", "traces/z"),
        &[
            "is a receiver of pipeline \"traces/c\", and does not lead there",
            "names \"traces/z\", which is no pipeline",
        ],
    );
    refuses(
        "    traces: {receivers: [failover], exporters: [nop/a]}\n",
        "connectors: {failover: {priority_levels: [[traces]]}}\n",
        &["connectors.failover is fed by no pipeline"],
    );
}

#[test]
fn faulty_settings_of_connectors_and_priorities_are_named() {
    let first = "    logs: {receivers: [otlp], exporters: [routing]}
    logs/b: {receivers: [routing], exporters: [nop/b]}\n";
    let row = |row: &str| {
        format!("connectors: {{routing: {{table: [{{{row}, pipelines: [logs/b]}}]}}}}\n")
    };
    for (text, expected) in [
        ("condition: 'attributes[\"k\"] != \"v\"'", "must be of the form attributes[\"key\"]"),
        ("condition: 'attributes[\"k\"] == \"\"'", "must ask for a value that is not empty"),
        ("context: request, condition: 'attributes[\"k\"] == \"v\"'", "request[\"header\"] =="),
        ("context: span, condition: 'attributes[\"k\"] == \"v\"'", "one of request, resource"),
        ("statement: route()", "is not supported & write its condition"),
    ] {
        refuses(first, &row(text), &[expected]);
    }
    let shift = "    logs: {receivers: [otlp], exporters: [shift]}
    logs/b: {receivers: [shift], exporters: [nop/b]}\n";
    refuses(
        shift,
        "connectors: {shift: {shares: {logs/b: 0}}}\n",
        &["must hold weights from 1 to 1000000"],
    );
    let plain = "    logs: {receivers: [otlp], exporters: [otlp_grpc/x]}\n";
    refuses(
        plain,
        "engine: {priorities: {pipelines: {logs: urgent, log: low}, \
         tenant: {high: [a], low: [a]}}}\n",
        &[
            "engine.priorities.pipelines.logs must be one of low, normal, high",
            "engine.priorities.pipelines names \"log\", which is no pipeline",
            "engine.priorities.tenant names \"a\" twice",
        ],
    );
}

#[test]
fn what_would_double_items_or_send_all_of_them_one_way_is_refused() {
    let first = "    traces: {receivers: [otlp], exporters: [mirror, nop/a]}\n";
    let pipelines = format!("{first}{}", behind("mirror"));
    refuses(
        &pipelines,
        "connectors: {mirror: {pipelines: [traces/b, traces/b, traces/c]}}\n",
        &["connectors.mirror.pipelines names \"traces/b\" twice & remove one"],
    );
    let routed = "    logs: {receivers: [otlp], exporters: [routing]}
    logs/b: {receivers: [routing], exporters: [nop/b]}\n";
    refuses(
        routed,
        "connectors: {routing: {default_pipelines: [logs/b, logs/b], table: [{context: resource, \
         condition: 'attributes[\"k\"] == \"v\"', pipelines: [logs/b]}]}}\n",
        &["connectors.routing.default_pipelines names \"logs/b\" twice"],
    );
    let shifted = "    metrics: {receivers: [otlp], exporters: [shift]}
    metrics/b: {receivers: [shift], exporters: [nop/b]}
    metrics/c: {receivers: [shift], exporters: [nop/c]}\n";
    refuses(
        shifted,
        "connectors: {shift: {shares: {metrics/b: 9, metrics/c: 1}, by: traceID}}\n",
        &["pipeline \"metrics\" is shifted by traceID & metrics have no trace & leave out `by`"],
    );
}

#[test]
fn a_dead_letter_of_a_signal_without_a_url_is_refused_as_any_other() {
    let pipeline = "    traces: {receivers: [otlp], exporters: [otlp_grpc/z]}\n";
    let keep = "otlp_http/keep: {logs_endpoint: 'http://k:1/v1/logs'}";
    let letters = "otlp_grpc/z: {endpoint: 'http://z:1', dead_letter: otlp_http/keep}";
    let more = format!("exporters: {{{letters}, {keep}}}\n");
    let first = LETTERS.replace("    logs:", "    traces:").replace("{logs:", "{traces:");
    let sources = [text("a.yaml", &first), text("b.yaml", &more)];
    let problems = load_in(&environment, &sources, &[]).map(|_| ()).expect_err("it is wrong");
    check(&problems, &["exporters.otlp_http/keep has no URL for traces"]);
    assert!(load_flow(&pipeline.replace("otlp_grpc/z", "otlp_grpc/y"), "").is_ok());
}

const LETTERS: &str = "\
receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:0'}}}}
exporters: {nop/e: , otlp_grpc/x: {endpoint: 'http://x:1', dead_letter: nop/e}}
service: {pipelines: {logs: {receivers: [otlp], exporters: [otlp_grpc/z]}}}
";

#[test]
fn dead_letters_lead_to_another_exporter_that_has_none_of_its_own() {
    let pipeline = "    logs: {receivers: [otlp], exporters: [otlp_grpc/y]}\n";
    for (name, expected) in [
        ("otlp_grpc/z", "which is itself"),
        ("otlp_grpc/x", "which has a dead_letter of its own"),
        ("nop/z", "which is not configured"),
    ] {
        let rest = format!(
            "exporters: {{otlp_grpc/z: {{endpoint: 'http://z:1', dead_letter: {name}}}}}\n"
        );
        let sources = [text("a.yaml", LETTERS), text("b.yaml", &rest)];
        let problems = load_in(&environment, &sources, &[]).map(|_| ()).expect_err("it is wrong");
        check(&problems, &[expected]);
    }
    let plan = load_flow(pipeline, "").expect("no letters are needed");
    assert_eq!((plan.destinations.len(), plan.dead_letters.len()), (1, 1), "nop/e is not in use");
}

#[test]
fn where_several_destinations_are_remote_each_may_hold_half_of_the_memory() {
    let one = "    logs: {receivers: [otlp], exporters: [otlp_grpc/y, nop/a]}\n";
    let plan = load_flow(one, "").expect("it is proper");
    assert!(!plan.has_quotas());
    assert_eq!(plan.queue(0, 2, 4).bytes_max, None);
    let two = "    logs: {receivers: [otlp], exporters: [otlp_grpc/y, otlp_grpc/x]}\n";
    let plan = load_flow(two, "engine: {memory: {budget_bytes: 256MiB}}\n").expect("it is proper");
    assert_eq!(plan.queue(0, 2, 4).bytes_max, Some(64 << 20), "half of 512 MiB, in four lanes");
}
