//! Fleets that change while forebay runs: found in a file, weighed anew, left with work waiting,
//! forgotten by their source; and forebay itself in a registry.
//!
//! Items are numbered, so that each one that is missing or came twice is seen; the ledger is
//! checked at each end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, RECEIVERS, SERVICE, config, get};
use forebay_tests::items;
use forebay_tests::recorder::Recorder;
use forebay_tests::sink::{Reply, Sink, any_port, own_port};
use forebay_tests::wire::{Http1, path_of};
use serde_json::Value;
use tempfile::TempDir;

const FOUND: &str = "Discovery has found the destination's endpoints.";
const CHANGED: &str =
    "The destination's endpoints have changed. What waits goes to those that are left.";
const FAILS: &str = "Discovery fails.";
const WORKS_AGAIN: &str = "Discovery works again.";

/// A list of endpoints in a file, as discovery reads it.
struct List {
    folder: TempDir,
}

impl List {
    /// The file is not there yet.
    fn new() -> List {
        List { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("endpoints")
    }

    /// Renames a new list into place.
    fn write(&self, text: &str) {
        let beside = self.folder.path().join("new");
        std::fs::write(&beside, text).expect("it can be written");
        std::fs::rename(&beside, self.path()).expect("it can be renamed");
    }

    /// Each sink with its weight.
    fn weigh(&self, sinks: &[(&Sink, u32)]) {
        let line = |(sink, weight): &(&Sink, u32)| format!("{} weight={weight}\n", sink.grpc);
        self.write(&sinks.iter().map(line).collect::<String>());
    }

    /// The whole configuration of a forebay that follows this list. `keys`: more of the exporter.
    fn followed(&self, keys: &str) -> String {
        let path = self.path().display().to_string();
        let exporter = format!(
            "{{discovery: {{file: {{path: \"{path}\"}}}}, tls: {{insecure: true}}, \
             retry_on_failure: {{initial_interval: 20ms, max_interval: 100ms}}, {keys}}}"
        );
        config("[otlp_grpc]", &format!("exporters:\n  otlp_grpc: {exporter}\n"))
    }
}

/// `requests` of one item each, numbered on from `first`, all acknowledged.
fn send(forebay: &Process, first: i64, requests: i64) {
    let mut connection = Http1::connect(forebay.http_address());
    let headers = [("content-type", "application/x-protobuf")];
    for number in first..first + requests {
        let body = items::proto(Signal::Logs, number, 1);
        let answer = connection.post(path_of(Signal::Logs), &headers, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// The only destination on the page of delivery.
fn delivery(forebay: &Process) -> Value {
    let (status, body) = get(forebay.metrics.expect("a metrics address"), "/delivery");
    assert_eq!(status, 200, "{body}");
    let mut page = serde_json::from_str::<Value>(&body).expect("JSON");
    page["destinations"][0].take()
}

fn wait_until(what: &str, mut is_it: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_it() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The weights on the page, by address.
fn wait_for_weights(forebay: &Process, weights: &[(&Sink, u32)]) {
    wait_until("the weights", || {
        let page = delivery(forebay);
        let endpoints = page["endpoints"].as_array().expect("a list");
        weights.iter().all(|(sink, weight)| {
            let address = sink.grpc.to_string();
            let is_it = |e: &Value| e["address"] == *address && e["weight"] == *weight;
            endpoints.iter().any(is_it)
        })
    });
}

fn taken(sink: &Sink) -> usize {
    sink.numbers(Signal::Logs).len()
}

#[test]
fn what_comes_before_the_first_endpoint_waits_for_it_and_health_says_so() {
    let (list, sink) = (List::new(), Sink::start());
    let mut forebay = Process::start(&list.followed(""));
    send(&forebay, 0, 20);
    let trouble = forebay.wait_for_log(FAILS);
    assert_eq!(trouble["level"], "warn", "{trouble}");
    for field in ["destination", "source", "error", "cost", "hint"] {
        assert!(trouble[field].as_str().is_some_and(|text| !text.is_empty()), "{trouble}");
    }
    let (status, body) = forebay.health();
    assert_eq!(status, 503);
    assert!(body.contains("no endpoint of otlp_grpc is known yet"), "{body}");
    let page = delivery(&forebay);
    assert!(page["discovery"]["failing"].is_string(), "{page:#}");
    assert_eq!(forebay.metric("forebay_destination_refusing", &[]), 1.0);
    assert_eq!(sink.requests(), 0);

    list.write(&format!("{}\n", sink.grpc));
    let line = forebay.wait_for_log(FOUND);
    assert_eq!((&line["endpoints"], &line["destination"]), (&1.into(), &"otlp_grpc".into()));
    sink.wait_for(Signal::Logs, 20);
    wait_until("health", || forebay.health().0 == 200);
    assert_eq!(forebay.metric("forebay_discovery_generation", &[]), 1.0);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 20);
    assert_eq!(sink.counts(Signal::Logs), (20, 1, 1));
}

#[test]
fn weights_that_change_at_run_time_move_the_load() {
    let (list, sinks) = (List::new(), [Sink::start(), Sink::start(), Sink::start()]);
    let [first, second, third] = &sinks;
    let weights = [(first, 6), (second, 3), (third, 1)];
    list.weigh(&weights);
    // One request under way at a time: who has many under way is passed over, whatever he weighs.
    let acks = "engine: {acks: {default: delivered}}\n";
    let forebay = Process::start(&(list.followed("") + acks));
    wait_for_weights(&forebay, &weights);
    let all = || [taken(first), taken(second), taken(third)];
    send(&forebay, 0, 300);
    wait_until("the first 300", || all().iter().sum::<usize>() == 300);
    let before = all();
    let is_share = |count: usize, percent: usize| count.abs_diff(3 * percent) <= 45;
    let told = format!("{before:?} of 300, wanted 60:30:10");
    assert!(
        is_share(before[0], 60) && is_share(before[1], 30) && is_share(before[2], 10),
        "{told}"
    );

    let weights = [(first, 1), (second, 3), (third, 6)];
    list.weigh(&weights);
    wait_for_weights(&forebay, &weights);
    send(&forebay, 300, 300);
    wait_until("the next 300", || all().iter().sum::<usize>() == 600);
    let after: Vec<usize> = all().iter().zip(before).map(|(now, before)| now - before).collect();
    let told = format!("{after:?} of 300, wanted 10:30:60");
    assert!(is_share(after[0], 10) && is_share(after[1], 30) && is_share(after[2], 60), "{told}");
    assert_eq!(forebay.metric("forebay_discovery_generation", &[]), 2.0);
    assert_eq!(forebay.stop().ledger["delivered_items"], 600);
}

#[test]
fn what_waits_for_an_endpoint_that_leaves_goes_to_the_others() {
    // It answers nothing: what it was sent hangs, and the rest fills the queue.
    let (list, hanging) = (List::new(), Sink::scripted(|_| Reply::Never));
    list.weigh(&[(&hanging, 1)]);
    let mut forebay = Process::start(&list.followed("timeout: 2s"));
    send(&forebay, 0, 200);
    wait_until("requests at the one that hangs", || hanging.requests() >= 10);
    assert!(forebay.metric("otelcol_exporter_queue_size", &[]) > 100.0);

    let heir = Sink::start();
    list.weigh(&[(&heir, 1)]);
    heir.wait_for(Signal::Logs, 200);
    let line = forebay.wait_for_log(CHANGED);
    for count in ["joined", "left", "endpoints"] {
        assert_eq!(line[count], 1, "{line}");
    }
    wait_until("the endpoint that left is gone", || {
        delivery(&forebay)["endpoints"].as_array().is_some_and(|endpoints| endpoints.len() == 1)
    });
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 200);
    assert_eq!(heir.counts(Signal::Logs), (200, 1, 1), "each once");
}

#[test]
fn a_source_that_fails_takes_no_endpoint_away() {
    let (list, sink) = (List::new(), Sink::start());
    list.weigh(&[(&sink, 1)]);
    let mut forebay = Process::start(&list.followed(""));
    send(&forebay, 0, 10);
    sink.wait_for(Signal::Logs, 10);
    list.write("# nobody\n");
    let line = forebay.wait_for_log(FAILS);
    assert!(line["cost"].as_str().is_some_and(|cost| cost.contains("stays in use")), "{line}");
    send(&forebay, 10, 10);
    sink.wait_for(Signal::Logs, 20);
    assert_eq!(forebay.health().0, 200, "one good set is enough");
    assert_eq!(forebay.metric("forebay_destination_endpoints", &[]), 1.0);
    list.weigh(&[(&sink, 1)]);
    forebay.wait_for_log(WORKS_AGAIN);
    assert_eq!(forebay.stop().ledger["delivered_items"], 20);
}

#[test]
fn an_endpoint_that_dies_is_seen_from_outside_and_comes_back() {
    let (stays, dies) = (Sink::start(), Sink::on(own_port(), |_| Reply::Ok));
    let address = dies.grpc;
    let exporter = format!(
        "{{endpoints: [\"{}\", \"{address}\"], tls: {{insecure: true}}, retry_on_failure: \
         {{initial_interval: 20ms, max_interval: 100ms}}, circuit_breaker: {{failure_threshold: 2, \
         recovery_timeout: 300ms, success_threshold: 1}}}}",
        stays.grpc
    );
    let exporters = format!("exporters:\n  otlp_grpc: {exporter}\n");
    let forebay = Process::start(&config("[otlp_grpc]", &exporters));
    dies.stop();
    let label = format!("address=\"{address}\"");
    let state = || forebay.metric("forebay_endpoint_state", &[&label]);
    let mut sent = 0;
    wait_until("its breaker is open", || {
        send(&forebay, sent, 5);
        sent += 5;
        state() == 2.0
    });
    let opened = || {
        let counts = forebay.metrics();
        let lines = counts.lines().filter(|line| line.starts_with("forebay_breaker_transitions{"));
        let opened = lines.filter(|line| line.contains("to=\"open\""));
        opened.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    assert!(opened() >= 1, "{}", forebay.metrics());
    let page = delivery(&forebay);
    assert_eq!((&page["members"], &page["discovery"]), (&2.into(), &Value::Null), "{page:#}");
    let shown = &page["endpoints"][0];
    assert_eq!(shown["address"], address.to_string(), "what is not closed comes first: {page:#}");

    let back = Sink::on(address, |_| Reply::Ok);
    wait_until("its breaker is closed", || {
        send(&forebay, sent, 5);
        sent += 5;
        state() == 0.0
    });
    let total = sent as usize;
    wait_until("all of them", || {
        let mut all = stays.numbers(Signal::Logs);
        all.extend(back.numbers(Signal::Logs));
        all.len() == total
    });
    assert_eq!(forebay.stop().ledger["delivered_items"], sent);
}

#[test]
fn forebay_enters_a_registry_when_it_is_ready_and_leaves_it_first() {
    let (agent, sink) = (Recorder::start(), Sink::start());
    let rest = format!(
        "exporters:\n  otlp_grpc: {}\nengine:\n  registration:\n    address: me.example:4317\n    \
         ttl: 3s\n    attributes: {{zone: a}}\n    consul: {{agent: \"{}\", service: gate}}\n",
        sink.grpc_exporter(),
        agent.address
    );
    let mut forebay = Process::start(&config("[otlp_grpc]", &rest));
    let (path, body) = agent.next();
    assert!(path.starts_with("/v1/agent/service/register"), "{path}");
    let entry: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&entry["Name"], &entry["Port"]), (&"gate".into(), &4317.into()), "{entry}");
    assert_eq!((&entry["Meta"]["zone"], &entry["Check"]["TTL"]), (&"a".into(), &"3000ms".into()));
    forebay.wait_for_log("Entered into the registry.");
    // Its health follows: at the start a core may not have turned yet.
    let is_passing = |body: &[u8]| {
        serde_json::from_slice::<Value>(body).is_ok_and(|said| said["Status"] == "passing")
    };
    wait_until("a sign of good health", || {
        let (path, body) = agent.next();
        assert_eq!(path, "/v1/agent/check/update/service%3Agate-me.example%3A4317");
        is_passing(&body)
    });
    let end = forebay.stop();
    let leaving =
        std::iter::from_fn(|| Some(agent.next())).find(|(path, _)| !path.contains("check"));
    let (path, _) = leaving.expect("it says good-bye");
    assert_eq!(path, "/v1/agent/service/deregister/gate-me.example%3A4317");
    let place = |message: &str| end.logs.iter().position(|line| line["msg"] == message);
    let (left, stopping) = (place("Taken out of the registry."), place("Starting shutdown..."));
    assert!(left.is_some() && left < stopping, "{:#?}", end.logs);
}

#[test]
fn the_collectors_load_balancing_configuration_runs() {
    let sinks = [Sink::start(), Sink::on(any_port(), |_| Reply::Ok)];
    let hosts: Vec<String> = sinks.iter().map(|sink| format!("\"{}\"", sink.grpc)).collect();
    let yaml = format!(
        "{RECEIVERS}{SERVICE}  pipelines:\n    traces: {{receivers: [otlp], exporters: \
         [loadbalancing]}}\nexporters:\n  loadbalancing:\n    routing_key: traceID\n    protocol: \
         {{otlp: {{tls: {{insecure: true}}, timeout: 1s}}}}\n    resolver: {{static: \
         {{hostnames: [{}]}}}}\n",
        hosts.join(", ")
    );
    let forebay = Process::start(&yaml);
    let mut connection = Http1::connect(forebay.http_address());
    let headers = [("content-type", "application/x-protobuf")];
    for request in 0..50 {
        let body = items::proto(Signal::Traces, request * 4, 4);
        assert_eq!(connection.post("/v1/traces", &headers, &body).status, 200);
    }
    wait_until("200 spans", || {
        let counts = sinks.iter().map(|sink| sink.numbers(Signal::Traces).len());
        counts.sum::<usize>() == 200
    });
    let page = delivery(&forebay);
    assert_eq!(page["strategy"], "consistent_hashing", "{page:#}");
    assert_eq!(forebay.stop().ledger["delivered_items"], 200);
}
