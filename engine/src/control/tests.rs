//! What the control plane says of delivery, from outside: `/delivery` and health.

use std::time::Duration;

use forebay_exporters::breaker::Outcome;
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::discovery::{Discovery, Watcher};
use serde_json::Value;

use super::*;
use crate::config::{self, Source};

pub(super) const METRICS_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

/// One destination of each kind, with two that have a fleet.
pub(super) const FLEETS: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}}
processors:
  filter:
    traces: {span: ['name == \"a\"']}
    metrics: {metric: ['name == \"a\"']}
    logs: {log_record: ['severity_number < 9']}
exporters:
  otlp_grpc:
    endpoints: ['a:1', 'b:1', 'c:1']
    tls: {insecure: true}
    # Longer than a test lasts.
    circuit_breaker: {recovery_timeout: 30s}
  otlp_http: {discovery: {file: {path: /nowhere}}, tls: {insecure: true}}
  debug: {}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [filter], exporters: [otlp_grpc, otlp_http, debug]}
    metrics: {receivers: [otlp], processors: [filter], exporters: [otlp_grpc]}
    logs: {receivers: [otlp], processors: [filter], exporters: [otlp_grpc]}
";

/// What the control plane would look at, with one core of each kind and nothing running.
pub(super) fn view(yaml: &str) -> View {
    let source = Source::Text { name: "test".to_owned(), text: yaml.to_owned() };
    let loaded = config::load(&[source], &[]).unwrap_or_else(|problems| panic!("{problems:?}"));
    let plan = Arc::new(loaded.plan);
    let clusters = discover::clusters(&plan);
    let lane = |index: usize| Lane::new(index as u16, &plan.queue(index, 1, 1));
    View {
        ledger: Arc::new(Ledger::new(&plan, 1)),
        shards: vec![Arc::default()],
        receiver_cores: vec![0],
        lanes: (0..clusters.len()).map(|index| vec![Arc::new(lane(index))]).collect(),
        exporter_cores: vec![1],
        discovered: clusters.iter().map(|_| Arc::default()).collect(),
        clusters,
        phase: Arc::default(),
        tls: Arc::new(crate::tls::Doors::open(&plan).expect("no listener has TLS")),
        epoch: Instant::now(),
        plan,
    }
}

/// The destination of this name on the page.
fn shown<'p>(page: &'p Value, name: &str) -> &'p Value {
    let all = page["destinations"].as_array().expect("a list");
    all.iter().find(|one| one["name"] == name).expect("it is configured")
}

#[test]
fn the_page_of_delivery_shows_the_endpoint_that_is_shut_off_first_and_why() {
    let view = view(FLEETS);
    let (now, mut rng) = (Instant::now(), fastrand::Rng::with_seed(1));
    let snapshot = view.clusters[0].endpoints().snapshot();
    let broken = snapshot.endpoints().iter().find(|e| e.address() == "c:1").expect("a member");
    for _ in 0..5 {
        let call = broken.admit(now).expect("its breaker is closed");
        call.end(now + Duration::from_millis(2), Outcome::Failure, &mut rng);
    }
    let page: Value =
        serde_json::from_str(&delivery::to_json(&view).to_string()).expect("it is JSON");
    let fleet = shown(&page, "otlp_grpc");
    assert_eq!((&fleet["members"], &fleet["broken"]), (&3.into(), &1.into()), "{fleet:#}");
    let first = &fleet["endpoints"][0];
    assert_eq!((&first["address"], &first["state"]), (&"c:1".into(), &"open".into()), "{fleet:#}");
    assert!(first["retry_in_seconds"].as_f64().is_some_and(|seconds| seconds > 0.5), "{first}");
    assert_eq!(fleet["endpoints"][2]["state"], "closed");
    let told = serde_json::json!([{"to": "open", "cause": "failures_in_a_row", "count": 1}]);
    assert_eq!(fleet["transitions"], told);
    assert_eq!(fleet["refuses_for_seconds"], Value::Null);
    assert_eq!(fleet["lanes"][0]["core"], 1);
    assert_eq!(shown(&page, "debug")["endpoints"][0]["address"], "debug");
}

#[test]
fn until_the_first_set_is_there_health_and_the_page_say_why() {
    let view = view(FLEETS);
    view.shards[0].turned_at.store(1, std::sync::atomic::Ordering::Relaxed);
    let reason = health::health(&view).expect_err("nobody is known of otlp_http");
    assert!(reason.contains("no endpoint of otlp_http is known yet"), "{reason}");
    let file = view.plan.destinations[1].backends.discovery.clone();
    view.discovered[1].note(Instant::now(), Watcher::new(file).status());
    let reason = health::health(&view).expect_err("nobody is known of otlp_http");
    assert!(reason.contains("/nowhere has not answered yet"), "{reason}");
    let page = delivery::to_json(&view);
    let discovery = &shown(&page, "otlp_http")["discovery"];
    assert_eq!((&discovery["generation"], &discovery["age_seconds"]), (&0.into(), &Value::Null));
    assert!(shown(&page, "otlp_http")["refuses_for_seconds"].as_f64() > Some(0.0));

    let found = Static::of(["d:1"], None).expect("an address");
    view.clusters[1].apply(Instant::now(), &found.endpoints);
    let reason = health::health(&view).expect_err("no route is open");
    assert!(reason.contains("no route is open"), "{reason}");
}

/// Destinations that nobody has found yet, each in a way of its own.
const UNFOUND: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}}
exporters:
  otlp_http/main: {endpoint: 'http://a:1'}
  otlp_http/trial:
    {discovery: {file: {path: /nowhere}}, tls: {insecure: true}, dead_letter: otlp_http/letters}
  otlp_http/letters: {discovery: {file: {path: /nowhere}}, tls: {insecure: true}}
  otlp_http/first: {discovery: {file: {path: /nowhere}}, tls: {insecure: true}}
  otlp_http/second: {discovery: {file: {path: /nowhere}}, tls: {insecure: true}}
connectors:
  mirror: {pipelines: [traces/trial]}
  failover: {priority_levels: [[logs/first], [logs/second]]}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_http/main, mirror]}
    traces/trial: {receivers: [mirror], exporters: [otlp_http/trial]}
    logs: {receivers: [otlp], exporters: [failover]}
    logs/first: {receivers: [failover], exporters: [otlp_http/first]}
    logs/second: {receivers: [failover], exporters: [otlp_http/second]}
";

#[test]
fn health_waits_for_those_alone_that_items_need() {
    let view = view(UNFOUND);
    view.shards[0].turned_at.store(1, std::sync::atomic::Ordering::Relaxed);
    let index = |name: &str| {
        let name = format!("otlp_http/{name}");
        view.plan.destinations.iter().position(|one| one.name == name).expect("it is configured")
    };
    let needed = |name: &str| {
        let page = delivery::to_json(&view);
        shown(&page, &format!("otlp_http/{name}"))["needed"].as_bool().expect("it is said")
    };
    let names = ["main", "trial", "letters", "first", "second"];
    assert_eq!(names.map(needed), [true, false, false, true, true]);

    let reason = health::health(&view).expect_err("no level of the failover is known");
    assert!(reason.contains("no endpoint of otlp_http/first is known yet"), "{reason}");
    let found = Static::of(["d:1"], None).expect("an address");
    view.clusters[index("second")].apply(Instant::now(), &found.endpoints);
    let reason = health::health(&view).expect_err("no core turns here");
    assert!(reason.contains("no route is open"), "nothing is needed of a mirror: {reason}");
    // It is seen all the same.
    let page = delivery::to_json(&view);
    assert_eq!(shown(&page, "otlp_http/trial")["members"], 0);
    let metrics = metrics::render(&view);
    let row = metrics.lines().find(|line| {
        line.starts_with("forebay_destination_endpoints{") && line.contains("otlp_http/trial")
    });
    assert!(row.is_some_and(|row| row.ends_with(" 0")), "{row:?}");
}

#[test]
fn a_fleet_of_any_size_makes_a_page_of_bounded_size() {
    let view = view(FLEETS);
    let many: Vec<String> = (0..3_000).map(|number| format!("host-{number}:1")).collect();
    let list = Static::of(many.iter().map(String::as_str), None).expect("addresses");
    view.clusters[1].apply(Instant::now(), &list.endpoints);
    let page = delivery::to_json(&view);
    let fleet = shown(&page, "otlp_http");
    let shown = fleet["endpoints"].as_array().expect("a list").len();
    assert_eq!(shown, delivery::ENDPOINTS_SHOWN_MAX);
    assert_eq!(fleet["endpoints_left_out"], 3_000 - shown);
    let rows = metrics::render(&view).lines().filter(|line| line.contains("\"host-")).count();
    assert_eq!(rows, 5 * 100, "five families of a hundred endpoints");
}

/// Every name on the page, each once.
fn names(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                found.insert(name.clone());
                names(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

#[test]
fn every_name_on_the_page_of_delivery_is_explained() {
    let view = view(FLEETS);
    let discovery = Discovery::Static(Static::of(["a:1"], None).expect("an address"));
    view.discovered[1].note(Instant::now(), Watcher::new(discovery).status());
    let mut found = std::collections::BTreeSet::new();
    names(&delivery::to_json(&view), &mut found);
    let page = std::fs::read_to_string(METRICS_PAGE).expect("the page is there");
    let missing: Vec<&String> =
        found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(found.len() > 30 && missing.is_empty(), "docs/metrics.md is silent on {missing:?}");
}
