//! The shape of the flow: to the first that takes it, in shares, as a copy, by tenant; and what is
//! refused for good, kept.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, RECEIVERS, SERVICE};
use forebay_tests::items;
use forebay_tests::sink::{Reply, Sink, any_port, closed_port, http_exporter, own_port};
use forebay_tests::wire::{Answer, Http1, path_of};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use serde_json::Value;
use tonic::Code;

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
/// One receiver core, so that turns are one count.
const ONE_CORE: &str = "cores: {receivers: \"0\"}";

/// A whole configuration: pipelines as the inside of a block, and what else there is.
fn start(pipelines: &[&str], rest: &str) -> Process {
    let pipelines: String = pipelines.iter().map(|line| format!("    {line}\n")).collect();
    Process::start(&format!("{RECEIVERS}{SERVICE}  pipelines:\n{pipelines}{rest}"))
}

fn post(client: &mut Http1, signal: Signal, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers = [&[PROTO], headers].concat();
    client.post(path_of(signal), &headers, body)
}

/// Sends items until their request is taken.
fn post_until_taken(client: &mut Http1, signal: Signal, first: i64, n: i64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = post(client, signal, &[], &items::proto(signal, first, n));
        match answer.status {
            200 => return,
            503 => assert!(Instant::now() < deadline, "never taken: {}", answer.text()),
            _ => panic!("{}: {}", answer.status, answer.text()),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn route<'l>(ledger: &'l Value, exporter: &str) -> &'l Value {
    let routes = ledger["routes"].as_array().expect("routes");
    let is_it = |route: &&Value| route["exporter"] == exporter;
    routes.iter().find(is_it).unwrap_or_else(|| panic!("no route to {exporter}: {ledger:#}"))
}

fn refused_requests(ledger: &Value, reason: &str) -> u64 {
    let doors = ledger["receivers"].as_array().expect("receivers");
    doors.iter().filter_map(|door| door["refused_requests"][reason].as_u64()).sum()
}

fn numbers(sink: &Sink, signal: Signal) -> BTreeSet<i64> {
    sink.numbers(signal).into_keys().collect()
}

#[test]
fn a_second_level_takes_over_while_the_first_is_away_and_gives_way_when_it_is_back() {
    let (address, far) = (own_port(), Sink::start());
    let near = Sink::on_both(any_port(), address, |_| Reply::Ok);
    let address = near.http;
    let rest = format!(
        "exporters:\n  otlp_http/near: {}\n  otlp_http/far: {}\n\
         connectors: {{failover: {{priority_levels: [[traces/near], [traces/far]]}}}}\n",
        near.http_exporter(),
        far.http_exporter()
    );
    let pipelines = [
        "traces: {receivers: [otlp], exporters: [failover]}",
        "traces/near: {receivers: [failover], exporters: [otlp_http/near]}",
        "traces/far: {receivers: [failover], exporters: [otlp_http/far]}",
    ];
    let forebay = start(&pipelines, &rest);
    let mut client = Http1::connect(forebay.http_address());
    for first in (0..100).step_by(10) {
        post_until_taken(&mut client, Signal::Traces, first, 10);
    }
    near.wait_for(Signal::Traces, 100);
    assert_eq!(far.requests(), 0, "the first level has all of it");
    near.stop();
    let mut next = 100;
    let deadline = Instant::now() + PATIENCE;
    while numbers(&far, Signal::Traces).len() < 100 {
        assert!(Instant::now() < deadline, "{:#}", forebay.ledger());
        post_until_taken(&mut client, Signal::Traces, next, 10);
        next += 10;
        std::thread::sleep(Duration::from_millis(5));
    }
    let away_until = next;
    let near = Sink::on_both(any_port(), address, |_| Reply::Ok);
    while numbers(&near, Signal::Traces).range(away_until..).count() < 100 {
        assert!(Instant::now() < deadline, "{:#}", forebay.ledger());
        post_until_taken(&mut client, Signal::Traces, next, 10);
        next += 10;
        std::thread::sleep(Duration::from_millis(20));
    }
    let end = forebay.stop();
    let (near, far) = (numbers(&near, Signal::Traces), numbers(&far, Signal::Traces));
    let missing: Vec<i64> = (100..next).filter(|n| !near.contains(n) && !far.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(end.ledger["delivered_items"], next);
    assert_eq!(end.ledger["dropped_items"], 0);
    let passed = &route(&end.ledger, "otlp_http/near")["passed_on_items"]["failover"];
    assert!(passed.as_u64().is_some_and(|items| items >= 100), "{:#}", end.ledger);
}

#[test]
fn a_first_level_that_asks_everybody_to_come_later_leaves_all_to_the_second() {
    for code in [Code::Unavailable, Code::ResourceExhausted] {
        let later = Some(Duration::from_secs(1));
        let (near, far) = (Sink::scripted(move |_| Reply::Fail(code, later)), Sink::start());
        for (kind, near_block, far_block) in [
            ("otlp_http", near.http_exporter(), far.http_exporter()),
            ("otlp_grpc", near.grpc_exporter(), far.grpc_exporter()),
        ] {
            let rest = format!(
                "exporters:\n  {kind}/near: {near_block}\n  {kind}/far: {far_block}\n\
                 connectors: {{failover: {{priority_levels: [[logs/near], [logs/far]]}}}}\n"
            );
            let near_line =
                format!("logs/near: {{receivers: [failover], exporters: [{kind}/near]}}");
            let far_line = format!("logs/far: {{receivers: [failover], exporters: [{kind}/far]}}");
            let door = "logs: {receivers: [otlp], exporters: [failover]}";
            let forebay = start(&[door, &near_line, &far_line], &rest);
            let mut client = Http1::connect(forebay.http_address());
            let first = far.counts(Signal::Logs).0 as i64;
            // For longer than the pause lasts: the first level is asked again and again.
            let until = Instant::now() + Duration::from_millis(2500);
            let mut next = first;
            while Instant::now() < until {
                let body = items::proto(Signal::Logs, next, 10);
                let answer = post(&mut client, Signal::Logs, &[], &body);
                assert_eq!(answer.status, 200, "{kind} {code:?}: {}", answer.text());
                next += 10;
                std::thread::sleep(Duration::from_millis(2));
            }
            far.wait_for(Signal::Logs, next);
            let end = forebay.stop();
            assert_eq!(end.ledger["delivered_items"], next - first, "{kind} {code:?}");
            assert_eq!(refused_requests(&end.ledger, "queue_full"), 0, "{kind} {code:?}");
        }
        assert!(near.requests() > 0 && near.counts(Signal::Logs).0 == 0, "{code:?}");
    }
}

#[test]
fn a_shift_by_batches_keeps_its_shares_and_one_by_trace_keeps_traces_together() {
    for (by, told_twice) in [("batch", false), ("traceID", true)] {
        let (old, new) = (Sink::start(), Sink::start());
        let rest = format!(
            "exporters:\n  otlp_http/old: {}\n  otlp_http/new: {}\n\
             connectors: {{shift: {{shares: {{traces/old: 90, traces/new: 10}}, by: {by}}}}}\n\
             engine: {{{ONE_CORE}}}\n",
            old.http_exporter(),
            new.http_exporter()
        );
        let pipelines = [
            "traces: {receivers: [otlp], exporters: [shift]}",
            "traces/old: {receivers: [shift], exporters: [otlp_http/old]}",
            "traces/new: {receivers: [shift], exporters: [otlp_http/new]}",
        ];
        let forebay = start(&pipelines, &rest);
        let mut client = Http1::connect(forebay.http_address());
        let times = if told_twice { 2 } else { 1 };
        for _ in 0..times {
            for first in (0..2000).step_by(10) {
                post_until_taken(&mut client, Signal::Traces, first, 10);
            }
        }
        let end = forebay.stop();
        assert_eq!(end.ledger["delivered_items"], 2000 * times);
        let (old, new) = (old.numbers(Signal::Traces), new.numbers(Signal::Traces));
        assert_eq!(old.len() + new.len(), 2000, "each item, and so each trace, in one place");
        match told_twice {
            false => assert_eq!(new.len(), 200, "ten batches of a hundred, to the batch"),
            true => assert!((120..280).contains(&new.len()), "{} of 2000 traces", new.len()),
        }
        let passed = &route(&end.ledger, "otlp_http/old")["passed_on_items"]["shift"];
        assert_eq!(*passed, new.len() as u64 * times);
    }
}

#[test]
fn a_mirror_that_is_down_costs_nothing_but_its_copies() {
    let sink = Sink::start();
    let rest = format!(
        "exporters:\n  otlp_http/main: {}\n  otlp_http/trial:\n    endpoint: \"http://{}\"\n    \
         sending_queue: {{queue_size: 1, num_consumers: 1}}\n\
         connectors: {{mirror: {{pipelines: [logs/trial], percent: 50}}}}\n\
         engine: {{{ONE_CORE}, acks: {{default: delivered, timeout: 20s}}, drain_timeout: 1s}}\n",
        sink.http_exporter(),
        closed_port()
    );
    let pipelines = [
        "logs: {receivers: [otlp], exporters: [otlp_http/main, mirror]}",
        "logs/trial: {receivers: [mirror], exporters: [otlp_http/trial]}",
    ];
    let forebay = start(&pipelines, &rest);
    let mut client = Http1::connect(forebay.http_address());
    for first in (0..1000).step_by(10) {
        let answer = post(&mut client, Signal::Logs, &[], &items::proto(Signal::Logs, first, 10));
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
    }
    sink.wait_for(Signal::Logs, 1000);
    let end = forebay.stop();
    assert_eq!(route(&end.ledger, "otlp_http/main")["delivered_items"], 1000);
    let trial = route(&end.ledger, "otlp_http/trial");
    assert_eq!(trial["accepted_items"], 500, "half of the batches");
    let full = trial["dropped_items"]["mirror_full"].as_u64().expect("a full queue");
    let late = trial["dropped_items"]["shutdown"].as_u64().unwrap_or(0);
    assert_eq!(full + late, 500, "{trial:#}");
    let said = end.logs.iter().any(|line| {
        line["msg"].as_str().is_some_and(|text| text.contains("A mirror's queue is full"))
    });
    assert!(said, "{:#?}", end.logs);
}

/// Its `drain_timeout` is far longer than any test waits for the end.
#[test]
fn a_mirror_that_is_down_does_not_hold_up_the_end_and_its_copies_are_counted() {
    let sink = Sink::start();
    let rest = format!(
        "exporters:\n  otlp_http/main: {}\n  otlp_http/trial: {}\n\
         connectors: {{mirror: {{pipelines: [logs/trial]}}}}\n\
         engine: {{acks: {{default: delivered, timeout: 20s}}, drain_timeout: 10m}}\n",
        sink.http_exporter(),
        http_exporter(closed_port())
    );
    let pipelines = [
        "logs: {receivers: [otlp], exporters: [otlp_http/main, mirror]}",
        "logs/trial: {receivers: [mirror], exporters: [otlp_http/trial]}",
    ];
    let forebay = start(&pipelines, &rest);
    let mut client = Http1::connect(forebay.http_address());
    for first in (0..100).step_by(10) {
        post_until_taken(&mut client, Signal::Logs, first, 10);
    }
    let end = forebay.stop();
    assert_eq!(route(&end.ledger, "otlp_http/main")["delivered_items"], 100);
    let trial = route(&end.ledger, "otlp_http/trial");
    assert_eq!(trial["accepted_items"], 100);
    assert_eq!(trial["dropped_items"]["shutdown"], 100, "{trial:#}");
    let said = end.logs.iter().find(|line| {
        line["msg"].as_str().is_some_and(|text| text.contains("do not hold up the end"))
    });
    assert_eq!(said.map(|line| &line["items"]), Some(&100.into()), "{:#?}", end.logs);
}

/// That who is found in time gets what waits for it is the lanes' own test.
#[test]
fn a_first_level_that_nobody_is_found_for_has_its_time_and_then_the_second_takes_over() {
    let far = Sink::start();
    let rest = format!(
        "exporters:\n  otlp_http/near: {{discovery: {{file: {{path: /nowhere/at/all}}}}, \
         tls: {{insecure: true}}}}\n  otlp_http/far: {}\n\
         connectors: {{failover: {{priority_levels: [[logs/near], [logs/far]]}}}}\n",
        far.http_exporter()
    );
    let pipelines = [
        "logs: {receivers: [otlp], exporters: [failover]}",
        "logs/near: {receivers: [failover], exporters: [otlp_http/near]}",
        "logs/far: {receivers: [failover], exporters: [otlp_http/far]}",
    ];
    let begun = Instant::now();
    let forebay = start(&pipelines, &rest);
    let mut client = Http1::connect(forebay.http_address());
    for first in (0..100).step_by(10) {
        post_until_taken(&mut client, Signal::Logs, first, 10);
    }
    far.wait_for(Signal::Logs, 1);
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?} were enough", begun.elapsed());
    assert_eq!(forebay.health().0, 200, "items need one level, and there is one");
    far.wait_for(Signal::Logs, 100);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 100);
    let passed = &route(&end.ledger, "otlp_http/near")["passed_on_items"]["failover"];
    assert_eq!(*passed, 100, "{:#}", end.ledger);
}

/// Items from `first` on, of resources with an attribute `env` each.
fn of_envs(first: i64, envs: &[&str]) -> Vec<u8> {
    let mut request = ExportTraceServiceRequest::default();
    for (index, env) in envs.iter().enumerate() {
        let mut one = items::traces(first + index as i64 * 10, 10);
        let value = AnyValue { value: Some(Any::StringValue((*env).to_owned())) };
        let env = KeyValue { key: "env".to_owned(), value: Some(value), ..KeyValue::default() };
        let resource = one.resource_spans[0].resource.as_mut().expect("a resource");
        resource.attributes.push(env);
        request.resource_spans.append(&mut one.resource_spans);
    }
    request.encode_to_vec()
}

#[test]
fn requests_are_routed_by_header_and_resources_by_attribute_and_the_rest_is_told_of() {
    let (acme, prod) = (Sink::start(), Sink::start());
    let rest = format!(
        "exporters:\n  otlp_http/acme: {}\n  otlp_http/prod: {}\n\
         connectors:\n  routing:\n    table:\n      \
         - {{context: request, condition: 'request[\"x-tenant\"] == \"acme\"', \
         pipelines: [traces/acme]}}\n      \
         - {{condition: 'attributes[\"env\"] == \"prod\"', pipelines: [traces/prod]}}\n\
         engine: {{acks: {{default: delivered}}}}\n",
        acme.http_exporter(),
        prod.http_exporter()
    );
    let pipelines = [
        "traces: {receivers: [otlp], exporters: [routing]}",
        "traces/acme: {receivers: [routing], exporters: [otlp_http/acme]}",
        "traces/prod: {receivers: [routing], exporters: [otlp_http/prod]}",
    ];
    let mut forebay = start(&pipelines, &rest);
    let mut client = Http1::connect(forebay.http_address());
    let tenant = [("x-tenant", "acme")];
    let answer = post(&mut client, Signal::Traces, &tenant, &of_envs(0, &["prod", "test"]));
    assert_eq!(answer.status, 200);
    assert_eq!(numbers(&acme, Signal::Traces), (0..20).collect());
    let body = of_envs(100, &["prod", "test", "prod"]);
    assert_eq!(post(&mut client, Signal::Traces, &[("x-tenant", "b")], &body).status, 200);
    assert_eq!(numbers(&prod, Signal::Traces), (100..110).chain(120..130).collect());
    forebay.wait_for_log("Items were in no row of a routing, and are dropped");
    let end = forebay.stop();
    assert_eq!(
        (&end.ledger["unrouted_items"], &end.ledger["dropped_items"]),
        (&10.into(), &10.into())
    );
    assert_eq!(end.ledger["accepted_items"], 50);
    assert_eq!(end.ledger["delivered_items"], 40);
    assert_eq!(numbers(&acme, Signal::Traces).len(), 20);
}

#[test]
fn what_is_refused_for_good_is_kept_with_the_reason_and_its_client_is_told() {
    let sink = Sink::scripted(|_| Reply::Fail(Code::InvalidArgument, None));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dead.jsonl");
    let exporter = sink.http_exporter();
    let exporter = exporter.strip_suffix('}').expect("a flow map");
    let rest = format!(
        "exporters:\n  otlp_http: {exporter}, dead_letter: file/dead}}\n  file/dead: {{path: {}}}\n\
         engine: {{acks: {{default: delivered}}}}\n",
        path.display()
    );
    let forebay = start(&["logs: {receivers: [otlp], exporters: [otlp_http]}"], &rest);
    let mut client = Http1::connect(forebay.http_address());
    let answer = post(&mut client, Signal::Logs, &[], &items::proto(Signal::Logs, 0, 10));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let remark = answer.text();
    assert!(remark.contains("otlp_http refused 10 items for good"), "{remark}");
    assert!(remark.contains("kept at file/dead"), "{remark}");
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 10);
    assert_eq!(end.ledger["dropped_items"], 0);
    let refuser = route(&end.ledger, "otlp_http");
    assert_eq!(refuser["passed_on_items"]["dead_letter"], 10, "{:#}", end.ledger);
    assert_eq!(route(&end.ledger, "file/dead")["taken_over_items"], 10);
    let line = std::fs::read_to_string(&path).expect("the file is there");
    let letter: Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
    let attributes = &letter["resourceLogs"][0]["resource"]["attributes"];
    let value = |name: &str| {
        let key = format!("forebay.dead_letter.{name}");
        let is_it = |attribute: &&Value| attribute["key"] == *key;
        let found = attributes.as_array().expect("attributes").iter().find(is_it);
        found.unwrap_or_else(|| panic!("no {key} in {attributes:#}"))["value"].clone()
    };
    assert_eq!(value("destination")["stringValue"], "otlp_http");
    assert_eq!(value("reason")["stringValue"], "refused_by_destination");
    assert_eq!(value("code")["intValue"], "3");
    assert!(value("message")["stringValue"].as_str().is_some_and(|text| text.contains("400")));
}

/// Receivers that fit a small memory budget.
fn small(config: &str) -> String {
    let limit = "http: {endpoint: 127.0.0.1:0, max_request_body_size: 1048576";
    let grpc = "grpc: {endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 1";
    config
        .replace("http: {endpoint: 127.0.0.1:0", limit)
        .replace("grpc: {endpoint: 127.0.0.1:0", grpc)
}

#[test]
fn a_dead_destination_takes_no_more_than_its_share_and_stops_no_other_pipeline() {
    let sink = Sink::start();
    let config = format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], exporters: [otlp_http/dead]}}
    traces: {{receivers: [otlp], exporters: [otlp_http/alive]}}
exporters: {{otlp_http/dead: {}, otlp_http/alive: {}}}
engine: {{{ONE_CORE}, memory: {{budget_bytes: 4MiB}}, drain_timeout: 1s}}
",
        http_exporter(closed_port()),
        sink.http_exporter()
    );
    let forebay = Process::start(&small(&config));
    let mut client = Http1::connect(forebay.http_address());
    let body = items::proto(Signal::Logs, 0, 500);
    let (mut taken, mut refused, mut traces) = (0, 0, 0);
    let deadline = Instant::now() + PATIENCE;
    while refused < 50 {
        assert!(Instant::now() < deadline, "the dead one took {taken} bytes");
        let answer = post(&mut client, Signal::Logs, &[], &body);
        match answer.status {
            200 => taken += body.len(),
            503 => refused += 1,
            status => panic!("{status}"),
        }
        assert_eq!(answer.header("retry-after").is_some(), answer.status == 503);
        let body = items::proto(Signal::Traces, traces, 5);
        let answer = post(&mut client, Signal::Traces, &[], &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        traces += 5;
    }
    assert!(taken < (2 << 20) + 2 * body.len(), "{taken} bytes are more than half");
    sink.wait_for(Signal::Traces, traces);
    let ledger = forebay.ledger();
    let reasons = ["queue_full", "destinations_refuse"].map(|r| refused_requests(&ledger, r));
    assert_eq!(reasons.iter().sum::<u64>(), refused, "{ledger:#}");
    assert_eq!(refused_requests(&ledger, "memory_budget"), 0);
    forebay.stop();
}

#[test]
fn low_priority_is_shed_first_and_high_priority_last() {
    let sink = Sink::scripted(|_| Reply::Never);
    let config = format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    logs: {{receivers: [otlp], exporters: [otlp_http]}}
exporters: {{otlp_http: {{endpoint: \"http://{}\", timeout: 60s}}}}
engine:
  {ONE_CORE}
  memory: {{budget_bytes: 4MiB}}
  drain_timeout: 1s
  priorities: {{tenant: {{header: x-tenant, high: [gold], low: [lead]}}}}
",
        sink.http
    );
    let forebay = Process::start(&small(&config));
    let mut client = Http1::connect(forebay.http_address());
    let body = items::proto(Signal::Logs, 0, 200);
    let mut fill = |tenant: &str| {
        let mut taken = 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{tenant} is never refused");
            let answer = post(&mut client, Signal::Logs, &[("x-tenant", tenant)], &body);
            match answer.status {
                200 => taken += body.len(),
                503 => return taken,
                status => panic!("{status}: {}", answer.text()),
            }
        }
    };
    let budget = 4 << 20;
    let (low, normal, high) = (fill("lead"), fill("anybody"), fill("gold"));
    let is_about = |bytes: usize, percent: usize| {
        let expected = budget * percent / 100;
        let slack = budget / 30;
        assert!(bytes < expected + slack && bytes + slack > expected, "{bytes} of {expected}");
    };
    is_about(low, 70);
    is_about(low + normal, 90);
    is_about(low + normal + high, 100);
    let ledger = forebay.ledger();
    let count = |reason| refused_requests(&ledger, reason);
    assert_eq!((count("shed_low"), count("shed_normal"), count("memory_budget")), (1, 1, 1));
    forebay.stop();
}
