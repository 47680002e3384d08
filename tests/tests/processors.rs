//! Processors: what goes out is what they leave of what came in, and the rest is accounted for.

use std::collections::BTreeSet;

use forebay_codec::json::json_to_proto;
use forebay_codec::signal::Signal;
use forebay_tests::forebay::{Process, RECEIVERS, SERVICE};
use forebay_tests::items;
use forebay_tests::sink::{Gate, Reply, Sink};
use forebay_tests::wire::{Http1, path_of};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use serde_json::Value;

const PROTO: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

/// Starts these processors, exporters and pipelines, with `rest` at the top level.
fn start(processors: &str, exporters: &str, pipelines: &str, rest: &str) -> Process {
    Process::start(&format!(
        "{RECEIVERS}processors:\n{processors}exporters:\n{exporters}{SERVICE}  pipelines:\n\
         {pipelines}{rest}"
    ))
}

fn post(forebay: &Process, signal: Signal, body: &[u8]) -> u16 {
    Http1::connect(forebay.http_address()).post(path_of(signal), &PROTO, body).status
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn value_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

/// What one processor of the ledger says: (incoming, filtered).
fn processor(ledger: &Value, name: &str) -> (u64, u64) {
    let rows = ledger["processors"].as_array().expect("processors");
    let row = rows.iter().find(|row| row["processor"] == name).expect("it is configured");
    let number = |key: &str| row[key].as_u64().expect("a number");
    (number("incoming_items"), number("filtered_items"))
}

#[test]
fn attributes_are_deleted_set_and_hashed_and_filtered_spans_do_not_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.json");
    let forebay = start(
        "  attributes/drop_pii:\n    actions:\n      \
         - {key: card, action: delete}\n      - {key: user, action: hash}\n  \
         resource:\n    attributes: [{key: region, value: eu, action: upsert}]\n  \
         filter/small:\n    traces: {span: ['attributes[\"n\"] < 10 or name == \"GET /42\"']}\n  \
         batch: {timeout: 20ms}\n",
        &format!("  file: {{path: {}}}\n", path.display()),
        "    traces:\n      receivers: [otlp]\n      exporters: [file]\n      \
         processors: [attributes/drop_pii, resource, filter/small, batch]\n",
        "",
    );
    let mut request = items::traces(0, 50);
    for span in &mut request.resource_spans[0].scope_spans[0].spans {
        span.attributes.extend([text("card", "4111"), text("user", "one"), text("kept", "yes")]);
    }
    assert_eq!(post(&forebay, Signal::Traces, &request.encode_to_vec()), 200);
    forebay.wait_for_ledger("all settled", |l| l["delivered_items"] == 39);
    for (name, labels, expected) in [
        ("otelcol_processor_incoming_items", "processor=\"attributes/drop_pii\"", 50.0),
        ("otelcol_processor_outgoing_items", "processor=\"attributes/drop_pii\"", 50.0),
        ("otelcol_processor_incoming_items", "processor=\"filter/small\"", 50.0),
        ("otelcol_processor_outgoing_items", "processor=\"filter/small\"", 39.0),
        ("otelcol_processor_filter_spans_filtered", "processor=\"filter/small\"", 11.0),
        ("forebay_ledger_filtered_items", "pipeline=\"traces\",processor=\"filter/small\"", 11.0),
    ] {
        assert_eq!(forebay.metric(name, &[labels]), expected, "{name} {labels}");
    }
    let end = forebay.stop();
    assert_eq!(processor(&end.ledger, "filter/small"), (50, 11));
    assert_eq!(
        (&end.ledger["filtered_items"], &end.ledger["dropped_items"]),
        (&11.into(), &0.into())
    );

    let mut numbers = Vec::new();
    // The published SHA-256 of "one".
    let digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed".to_owned();
    for line in std::fs::read_to_string(&path).expect("the file is there").lines() {
        let bytes = json_to_proto(Signal::Traces, line.as_bytes(), usize::MAX).expect("OTLP JSON");
        numbers.extend(items::numbers_of(Signal::Traces, &bytes));
        let request = ExportTraceServiceRequest::decode(&bytes[..]).expect("protobuf");
        for group in request.resource_spans {
            let resource = group.resource.expect("a resource").attributes;
            assert_eq!(value_of(&resource, "region"), Some(&Any::StringValue("eu".to_owned())));
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let value = |key| value_of(&span.attributes, key);
                assert_eq!(value("card"), None);
                assert_eq!(value("user"), Some(&Any::StringValue(digest.clone())));
                assert_eq!(value("kept"), Some(&Any::StringValue("yes".to_owned())));
            }
        }
    }
    assert_eq!(numbers, (10..50).filter(|number| *number != 42).collect::<Vec<i64>>());
}

#[test]
fn a_request_of_which_all_is_filtered_is_answered_ok_and_holds_nothing() {
    let sink = Sink::scripted(|_| Reply::Never);
    let forebay = start(
        "  filter:\n    log_conditions: ['log.severity_number < SEVERITY_NUMBER_WARN']\n    \
         metrics: {metric: ['IsMatch(name, \"^queue[.]\")']}\n",
        &format!("  otlp_grpc: {}\n", sink.grpc_exporter()),
        "    logs: {receivers: [otlp], processors: [filter], exporters: [otlp_grpc]}\n    \
         metrics: {receivers: [otlp], processors: [filter], exporters: [otlp_grpc]}\n",
        "engine: {acks: {default: delivered}}\n",
    );
    for signal in [Signal::Logs, Signal::Metrics] {
        // Nothing is delivered, so an answer that waited for delivery would not come.
        assert_eq!(post(&forebay, signal, &items::proto(signal, 0, 20)), 200);
    }
    let memory = "forebay_receiver_core_memory_taken_bytes";
    forebay.wait_for_ledger("both", |ledger| ledger["filtered_items"] == 40);
    let end_of_turn = std::time::Instant::now();
    while forebay.metric(memory, &[]) > 0.0 {
        assert!(end_of_turn.elapsed() < forebay_tests::forebay::PATIENCE, "bytes stay reserved");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let end = forebay.stop();
    assert_eq!((end.ledger["accepted_items"].clone(), sink.requests()), (40.into(), 0));
}

#[test]
fn pipelines_of_one_signal_leave_each_other_what_they_filter_and_sample_alike() {
    let sinks = [(); 4].map(|()| Sink::start());
    let exporters: String = (sinks.iter().enumerate())
        .map(|(index, sink)| format!("  otlp_grpc/{index}: {}\n", sink.grpc_exporter()))
        .collect();
    let forebay = start(
        "  probabilistic_sampler/half: {sampling_percentage: 50, mode: hash_seed}\n  \
         probabilistic_sampler/tenth: {sampling_percentage: 10, mode: hash_seed}\n",
        &exporters,
        "    traces/all: {receivers: [otlp], exporters: [otlp_grpc/0]}\n    \
         traces/half: {receivers: [otlp], processors: [probabilistic_sampler/half], \
         exporters: [otlp_grpc/1]}\n    \
         traces/tenth: {receivers: [otlp], processors: [probabilistic_sampler/tenth], \
         exporters: [otlp_grpc/2]}\n    \
         traces/again: {receivers: [otlp], exporters: [otlp_grpc/3]}\n",
        "engine: {acks: {default: delivered}}\n",
    );
    for request in 0..20 {
        let body = items::proto(Signal::Traces, request * 50, 50);
        assert_eq!(post(&forebay, Signal::Traces, &body), 200);
    }
    // They are there before the answer.
    let arrived = sinks
        .each_ref()
        .map(|sink| -> BTreeSet<i64> { sink.numbers(Signal::Traces).into_keys().collect() });
    assert_eq!((arrived[0].len(), arrived[3].len()), (1_000, 1_000));
    assert!((420..580).contains(&arrived[1].len()), "half: {}", arrived[1].len());
    assert!((50..160).contains(&arrived[2].len()), "a tenth: {}", arrived[2].len());
    assert!(arrived[2].is_subset(&arrived[1]), "what a tenth keeps, a half keeps");
    let end = forebay.stop();
    let kept = |name, kept: usize| {
        assert_eq!(processor(&end.ledger, name), (1_000, 1_000 - kept as u64));
    };
    kept("probabilistic_sampler/half", arrived[1].len());
    kept("probabilistic_sampler/tenth", arrived[2].len());
}

#[test]
fn what_grows_beyond_the_memory_budget_is_refused_and_leaves_no_trace() {
    let (gate, signal) = (Gate::default(), Signal::Traces);
    let sink = Sink::scripted(gate.script());
    let filler = "x".repeat(10_000);
    let limits = RECEIVERS
        .replace(
            "{endpoint: 127.0.0.1:0}\n      http",
            "{endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 1}\n      http",
        )
        .replace(
            "http: {endpoint: 127.0.0.1:0}",
            "http: {endpoint: 127.0.0.1:0, max_request_body_size: 1MiB}",
        );
    let forebay = Process::start(&format!(
        "{limits}processors:\n  attributes: {{actions: [{{key: filler, value: {filler}, \
         action: insert}}]}}\nexporters:\n  otlp_grpc: {}\n{SERVICE}  pipelines:\n    \
         traces: {{receivers: [otlp], processors: [attributes], exporters: [otlp_grpc]}}\n\
         engine: {{memory: {{budget_bytes: 1MiB}}, cores: {{receivers: 0, exporters: 0}}}}\n",
        sink.grpc_exporter()
    ));
    let send = |first, n| post(&forebay, signal, &items::proto(signal, first, n));
    assert_eq!(send(0, 200), 413, "2 MB never fit into 1 MiB");
    assert_eq!(send(1_000, 60), 200);
    assert_eq!(send(2_000, 60), 503, "600 kB do not fit beside 600 kB, for now");
    let ledger = forebay.wait_for_ledger("the first", |ledger| ledger["in_flight_items"] == 60);
    assert_eq!((&ledger["refused_items"], &ledger["accepted_items"]), (&260.into(), &60.into()));
    assert_eq!(processor(&ledger, "attributes"), (60, 0), "what was refused left no trace");
    gate.open();
    sink.wait_until("the items", |sink| sink.counts(signal).0 == 60);
    forebay.wait_for_ledger("nothing in flight", |ledger| ledger["in_flight_items"] == 0);
    assert_eq!(send(3_000, 60), 200, "the bytes were given back");
    forebay.stop();
}
