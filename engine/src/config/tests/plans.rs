//! What a configuration comes to.

use std::time::Duration;

use forebay_exporters::destination::{Algorithm, Destination, Kind};
use forebay_exporters::discovery::Discovery;
use forebay_tuning::cores::Placement;

use super::*;
use crate::config::plan::{Ack, Batch};
use crate::config::{embedded, print, problem::Report, tree};

const GATEWAY: &str = "\
receivers:
  otlp: {protocols: {grpc: , http: }}
exporters:
  otlp: {endpoint: 'http://a:4317', compression: zstd, headers: {X-Tenant: edge}}
  otlphttp/b: {endpoint: 'http://b/base/', logs_endpoint: 'http://c/in'}
service:
  pipelines:
    traces/x: {receivers: [otlp], exporters: [otlp]}
    logs: {receivers: [otlp], exporters: [otlphttp/b, otlp]}
";

#[test]
fn the_embedded_default_is_proper_and_without_warnings() {
    let made = loaded(load_in(&|_| None, &[embedded()], &[]));
    check(&made.warnings, &[]);
    let addresses: Vec<String> =
        made.plan.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:4317", "127.0.0.1:4318"]);
    assert_eq!(made.plan.pipelines.len(), 4);
    assert_eq!(made.plan.health.map(|a| a.to_string()), Some("127.0.0.1:13133".into()));
    assert_eq!(made.plan.telemetry.metrics.map(|a| a.to_string()), Some("127.0.0.1:8888".into()));
}

#[test]
fn connections_live_as_long_as_their_receiver_says_or_else_as_the_engine_says() {
    let lifetimes = |grpc: &str, engine: &str| {
        let yaml = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{{grpc}}}, http: {{}}}}}}}}\n\
             engine: {{limits: {{{engine}}}}}"
        );
        let plan = loaded(load_over(&yaml)).plan;
        plan.listeners
            .iter()
            .map(|l| [l.lifetime.idle_timeout, l.lifetime.age_max, l.lifetime.age_grace])
            .map(|lifetime| lifetime.map(|duration| duration.as_secs()))
            .collect::<Vec<_>>()
    };
    assert_eq!(lifetimes("", ""), [[900, 1800, 0]; 2]);
    let limits = "idle_timeout: 1m, connection_age_max: 0";
    assert_eq!(lifetimes("keepalive: ", limits), [[60, 0, 0]; 2]);
    let parameters = "max_connection_idle: 0s, max_connection_age: 5m, \
                      max_connection_age_grace: 7s";
    let grpc = format!("keepalive: {{server_parameters: {{{parameters}}}}}");
    assert_eq!(lifetimes(&grpc, limits), [[0, 300, 7], [60, 0, 0]]);
}

#[test]
fn metrics_have_an_address_unless_they_are_off() {
    let metrics = |yaml: &str| {
        let yaml = format!("service: {{telemetry: {{metrics: {{level: basic, {yaml}}}}}}}");
        loaded(load_over(&yaml)).plan.telemetry.metrics.map(|address| address.to_string())
    };
    let reader = |keys: &str| metrics(&format!("readers: [{{pull: {{exporter: {{{keys}}}}}}}]"));
    assert_eq!(metrics(""), Some("127.0.0.1:8888".into()));
    assert_eq!(metrics("readers: []"), None);
    assert_eq!(metrics("address: ':9'"), Some("0.0.0.0:9".into()));
    assert_eq!(reader("prometheus: {host: '::1', port: 7}"), Some("[::1]:7".into()));
    assert_eq!(reader("prometheus: {host: localhost}"), Some("127.0.0.1:8888".into()));
    assert_eq!(loaded(load_over("")).plan.telemetry.metrics, None);
}

#[test]
fn the_collectors_short_forms_and_old_names_are_taken() {
    let plan = loaded(load_text(GATEWAY)).plan;
    assert_eq!(plan.pipelines[0].name, "traces/x");
    assert_eq!(plan.pipelines[1].destinations, [1, 0]);
    let Kind::OtlpGrpc(grpc) = &plan.destinations[0].kind else { panic!("otlp is otlp_grpc") };
    assert_eq!(only_address(&plan.destinations[0]), "a:4317");
    assert_eq!(grpc.compression.algorithm, Algorithm::Zstd);
    assert!(grpc.headers["x-tenant"].is_sensitive());
    let Kind::OtlpHttp(http) = &plan.destinations[1].kind else { panic!("otlphttp is otlp_http") };
    let urls: Vec<String> = http.urls.iter().map(ToString::to_string).collect();
    assert_eq!(
        urls,
        [
            "http://b/base/v1/traces",
            "http://b/base/v1/metrics",
            "http://c/in",
            "http://b/base/v1development/profiles",
        ]
    );
    assert_eq!(plan.destinations[0].retry.max_elapsed_time, None);
}

#[test]
fn one_receivers_protocols_on_one_address_are_one_listener() {
    let plan = loaded(load_over(
        "receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:4317'}, \
         http: {endpoint: '127.0.0.1:4317'}}}}",
    ))
    .plan;
    assert_eq!(plan.listeners.len(), 1);
    assert!(plan.listeners[0].grpc.is_some() && plan.listeners[0].http.is_some());
}

#[test]
fn unused_receivers_and_destinations_are_not_in_the_plan_and_indices_fit() {
    let plan = loaded(load_text(
        "receivers: {otlp/a: {protocols: {grpc: {endpoint: 'localhost:1'}}}, \
         otlp/b: {protocols: {http: {endpoint: 'localhost:2'}}}}\n\
         exporters: {nop: , debug: }\n\
         service: {pipelines: {logs: {receivers: [otlp/b], exporters: [debug]}}}",
    ))
    .plan;
    assert_eq!(plan.listeners.len(), 1);
    assert_eq!(plan.listeners[0].receiver_name, "otlp/b");
    assert_eq!(plan.pipelines[0].receivers, [plan.listeners[0].receiver]);
    assert_eq!(plan.destinations.len(), 1);
    assert_eq!(plan.destinations[usize::from(plan.pipelines[0].destinations[0])].name, "debug");
}

#[test]
fn batches_are_as_processor_or_exporter_say_and_else_each_request_by_itself() {
    let batch = |yaml: &str| loaded(load_over(yaml)).plan.pipelines[0].batch;
    let processor = |kind: &str, keys: &str| {
        batch(&format!(
            "processors: {{{kind}: {{{keys}}}}}\n\
             service: {{pipelines: {{traces: {{processors: [{kind}]}}}}}}"
        ))
    };
    let exporter = |keys: &str| {
        batch(&format!(
            "exporters: {{otlp_grpc: {{endpoint: 'http://a:1', \
             sending_queue: {{batch: {keys}}}}}}}\n\
             service: {{pipelines: {{traces: {{exporters: [otlp_grpc, debug]}}}}}}"
        ))
    };
    let none = Batch {
        items_min: 0,
        items_max: 0,
        bytes_min: 0,
        bytes_max: 4_000_000,
        flush_timeout: Duration::ZERO,
    };
    let defaults = Batch { items_min: 8192, flush_timeout: Duration::from_millis(200), ..none };
    assert_eq!(batch(""), none);
    assert_eq!(processor("batch", ""), defaults);
    assert_eq!(processor("queue_batch", ""), defaults);
    assert_eq!(exporter("{}"), defaults);
    assert_eq!(exporter(""), none);
    assert_eq!(
        processor("batch", "timeout: 0s, send_batch_size: 5, send_batch_max_size: 9"),
        Batch { items_max: 9, ..none }
    );
    assert_eq!(processor("queue_batch", "batch: {min_size: 0}"), none);
    assert_eq!(
        exporter("{sizer: bytes, min_size: 1000, max_size: 2000, flush_timeout: 1s}"),
        Batch { bytes_min: 1000, bytes_max: 2000, flush_timeout: Duration::from_secs(1), ..none }
    );
    assert_eq!(
        batch("engine: {limits: {batch_bytes_max: 1MiB}}"),
        Batch { bytes_max: 1 << 20, ..none }
    );
}

#[test]
fn acks_come_from_the_pipeline_the_exporters_or_the_default() {
    let ack = |engine: &str, queue: &str| {
        loaded(load_over(&format!(
            "exporters: {{otlp_grpc: {{endpoint: 'http://a:1', sending_queue: {{{queue}}}}}}}\n\
             service: {{pipelines: {{traces: {{exporters: [otlp_grpc, debug]}}}}}}\n\
             engine: {{acks: {{{engine}}}}}"
        )))
        .plan
        .pipelines[0]
            .ack
    };
    assert_eq!(ack("", ""), Ack::Accepted);
    assert_eq!(ack("default: delivered", ""), Ack::Delivered);
    assert_eq!(ack("default: delivered, pipelines: {traces: accepted}", ""), Ack::Accepted);
    assert_eq!(ack("pipelines: {traces: delivered}", ""), Ack::Delivered);
    assert_eq!(ack("", "wait_for_result: true"), Ack::Delivered);
}

#[test]
fn cores_are_lists_in_either_form_and_exporters_share_where_they_have_none() {
    let cores =
        |yaml: &str| loaded(load_over(&format!("engine: {{cores: {yaml}}}"))).plan.engine.cores;
    assert_eq!(cores("auto"), Placement::Auto);
    assert_eq!(
        cores("{receivers: '0-2,5', exporters: [6, 7], control: 8}"),
        Placement::Explicit {
            receivers: vec![0, 1, 2, 5],
            exporters: vec![6, 7],
            control: Some(8)
        }
    );
    assert_eq!(
        cores("{receivers: 3}"),
        Placement::Explicit { receivers: vec![3], exporters: vec![3], control: None }
    );
}

#[test]
fn variables_are_expanded_once_and_typed_where_they_stand_alone() {
    let grpc = |keys: &str| {
        let yaml = format!(
            "exporters:\n  otlp_grpc:\n    endpoint: ${{ENDPOINT}}\n{keys}\n\
             service: {{pipelines: {{traces: {{exporters: [otlp_grpc]}}}}}}"
        );
        load_over(&yaml).map(|made| match made.plan.destinations[0].kind.clone() {
            Kind::OtlpGrpc(grpc) => (grpc, only_address(&made.plan.destinations[0])),
            kind => panic!("{kind:?}"),
        })
    };
    let (made, address) = grpc(
        "    timeout: ${env:NONE:-7}s\n    connections: ${env:NONE:-${env:SIZE}}\n    \
         authority: ${env:EMPTY}\n    \
         headers: {a: 'x-$$-${env:TOKEN}-$', b: \"${env:DOLLAR}\", c: '${NONE:-}'}",
    )
    .expect("proper");
    assert_eq!(address, "collector:4317");
    assert_eq!((made.timeout, made.connections), (Duration::from_secs(7), 77));
    assert_eq!(made.authority, None);
    assert_eq!(made.headers["a"], "x-$-s3cret-$");
    assert_eq!(made.headers["b"], "${env:TOKEN}");
    assert_eq!(made.headers["c"], "");
    let (made, _) = grpc("    headers: ${env:HEADERS}").expect("a map in a variable");
    assert_eq!(made.headers["x-b"], "2");
    let problems = grpc("    headers: \"${env:HEADERS}\"").expect_err("quoted, it is a text");
    check(&problems, &["c.yaml:4:14: exporters.otlp_grpc.headers must be a map"]);
}

#[test]
fn variables_that_are_not_set_and_references_that_are_none_are_refused() {
    for (reference, expected) in [
        ("${env:NONE}", "the environment variable NONE is not set & ${env:NONE:-default}"),
        ("${NONE}", "the environment variable NONE is not set"),
        ("${file:/etc/passwd}", "references to \"file:\" are not supported"),
        ("${env:1A}", "\"1A\" is no name"),
        ("${env:A", "does not close it"),
        (&"${A:-".repeat(20), "does not close it"),
        (&format!("{}{}", "${A:-".repeat(20), "}".repeat(20)), "nested deeper"),
    ] {
        let yaml = format!("exporters: {{debug: {{verbosity: '{reference}'}}}}");
        let problems = load_over(&yaml).map(|_| ()).expect_err("no proper reference");
        check(&problems[..1], &[expected]);
    }
}

#[test]
fn later_sources_and_sets_win_maps_merge_and_lists_are_replaced() {
    let sources = [
        text("a", AROUND),
        text("b", "exporters: {nop: }\nservice: {pipelines: {traces: {exporters: [nop]}}}"),
        Source::parse("yaml:engine::limits::requests_max: 7").expect("a proper source"),
    ];
    let sets = ["engine.limits.requests_max=9", "engine::drain_timeout=${env:SIZE}s"];
    let made = loaded(load_in(&environment, &sources, &sets.map(str::to_owned)));
    assert_eq!(made.plan.engine.limits.requests_max, 9);
    assert_eq!(made.plan.engine.drain_timeout, Duration::from_secs(77));
    let names: Vec<&str> = made.plan.destinations.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["nop"]);
    let bad = load_in(&environment, &sources, &["engine.ring.entries=1000".to_owned()]);
    check(
        &bad.map(|_| ()).expect_err("no power of two"),
        &["error: --set engine.ring.entries: engine.ring.entries must be a power of two"],
    );
    let bad = load_in(&environment, &sources, &["engine.ring".to_owned(), "a..b=1".to_owned()]);
    check(
        &bad.map(|_| ()).expect_err("no settings"),
        &["form key=value", "--set a..b: & empty part"],
    );
}

#[test]
fn the_printed_configuration_reads_back_to_the_same_tree_and_shows_no_secret() {
    let yaml = "exporters:\n  otlp_grpc:\n    endpoint: http://a:1\n    \
                headers: {authorization: Bearer s3cret, name: s3cret}\n  \
                otlp_http/2:\n    endpoint: http://b\n    \
                headers: [{name: x-key, value: s3cret}]\n    user_agent: 'a: \"b\" # $${c}\\'\n\
                service: {pipelines: {traces: {exporters: [otlp_grpc, otlp_http/2]}}}";
    let first = loaded(load_over(yaml)).printable;
    assert!(!first.contains("s3cret"), "{first}");
    assert!(first.contains("name: x-key"), "{first}");
    assert_eq!(loaded(load_text(&first)).printable, first);
}

#[test]
fn every_text_survives_printing() {
    let awkward = [
        "",
        "null",
        "~",
        "true",
        "01",
        "1e3",
        "a: b",
        "a #b",
        "- a",
        "[x",
        "{x",
        "&a",
        "*a",
        "!t",
        "%p",
        "@a",
        "`a`",
        "'q'",
        "\"q\"",
        "a\nb",
        "a\tb",
        " a ",
        "\u{7}",
        "é€😀",
        "x:",
        "...",
        "---",
        "?",
        "|",
        ">",
        "$",
        "a,b",
    ];
    let item = |text: &&str| tree::Node {
        place: super::super::Place::whole(&"test".into()),
        value: tree::Value::Scalar { text: (*text).to_owned(), plain: false },
    };
    let list = awkward.iter().map(item).collect();
    let place = super::super::Place::whole(&"test".into());
    let list = tree::Node { place: place.clone(), value: tree::Value::List(list) };
    let entry = tree::Entry { key: "a".into(), place: place.clone(), node: list };
    let root = tree::Node { place, value: tree::Value::Map(vec![entry]) };
    let printed = print::print(&root);
    let report = Report::default();
    let read = tree::read(&printed, &"printed".into(), &report).expect("what is printed is YAML");
    let tree::Value::List(items) = &read.entries()[0].node.value else { panic!("{printed}") };
    let texts: Vec<String> = items
        .iter()
        .map(|item| match &item.value {
            tree::Value::Scalar { text, .. } => text.replace("$$", "$"),
            value => panic!("{value:?} in {printed}"),
        })
        .collect();
    assert_eq!(texts, awkward);
}

#[test]
fn processors_of_a_pipeline_are_in_its_order_and_those_that_do_nothing_are_left_out() {
    let yaml = "processors:\n  \
        attributes/b: {actions: [{key: a, action: HASH}, {key: b, value: 1.5, action: upsert}]}\n  \
        attributes/a: {actions: [{key: c, from_attribute: a, action: insert}]}\n  \
        resource: {attributes: [{key: d, value: \"true\", action: update}]}\n  \
        filter/x: {logs: {log_record: 'severity_number < 9'}, metric_conditions: \
        ['metric.name == \"a\"', 'datapoint.attributes[\"b\"] != nil']}\n  \
        probabilistic_sampler: {sampling_percentage: 12.5}\n  \
        batch: {}\n  memory_limiter: {limit_mib: 5}\nservice:\n  pipelines:\n    \
        traces: {processors: [memory_limiter, filter/x, attributes/b, batch, attributes/a]}\n    \
        metrics: {receivers: [otlp], processors: [filter/x, resource], exporters: [debug]}\n    \
        logs: {receivers: [otlp], processors: [probabilistic_sampler, filter/x], \
        exporters: [debug]}\n    \
        profiles: {receivers: [otlp], processors: [filter/x], exporters: [debug]}\n";
    let plan = loaded(load_over(yaml)).plan;
    let names = |pipeline: &str| -> Vec<String> {
        let pipeline = plan.pipelines.iter().find(|p| p.name == pipeline).expect("configured");
        assert!(pipeline.processors.iter().all(|p| p.editor.signal() == pipeline.signal));
        pipeline.processors.iter().map(|processor| processor.name.clone()).collect()
    };
    assert_eq!(names("traces"), ["attributes/b", "attributes/a"]);
    assert_eq!(names("metrics"), ["filter/x", "resource"]);
    assert_eq!(names("logs"), ["probabilistic_sampler", "filter/x"]);
    assert_eq!(names("profiles"), Vec::<String>::new());
}

#[test]
fn provided_buffers_follow_the_memory_budget_unless_they_are_counted() {
    let buffers = |engine: &str| loaded(load_over(engine)).plan.engine.ring.buffers;
    assert_eq!(buffers(""), 64, "4 MiB of 128");
    assert_eq!(buffers("engine: {memory: {budget_bytes: 1GiB}}"), 512);
    assert_eq!(buffers("engine: {memory: {budget_bytes: 64GiB}}"), 4096);
    assert_eq!(buffers("engine: {memory: {budget_bytes: 257MiB}}"), 128);
    assert_eq!(buffers("engine: {memory: {budget_bytes: 65MiB}}"), 64, "never fewer");
    assert_eq!(buffers("engine: {ring: {buffer_bytes: 16KiB}}"), 256);
    assert_eq!(buffers("engine: {ring: {buffers: 32}}"), 32);
}

fn only_address(destination: &Destination) -> String {
    match &destination.backends.discovery {
        Discovery::Static(list) if list.endpoints.len() == 1 => {
            list.endpoints[0].address().to_owned()
        }
        other => panic!("{other:?}"),
    }
}
