//! OTLP/JSON as clients really write it, from the socket to what a destination is sent.

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{Process, config};
use forebay_tests::recorder::Recorder;
use forebay_tests::scene::Scene;
use forebay_tests::wire::{Http1, path_of};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// JSON in, protobuf out.
struct Way {
    forebay: Process,
    recorder: Recorder,
    http: Http1,
}

impl Way {
    fn open() -> Way {
        let recorder = Recorder::start();
        let exporters = format!("exporters:\n  otlp_http: {}\n", recorder.exporter());
        let forebay = Process::start(&config("[otlp_http]", &exporters));
        let http = Http1::connect(forebay.http_address());
        Way { forebay, recorder, http }
    }

    /// What the destination is sent for a body that is taken.
    fn send<M: Message + Default>(&mut self, signal: Signal, body: &str) -> M {
        let answer = self.http.post(path_of(signal), &JSON, body.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"), "{body}");
        M::decode(&*self.recorder.next().1).expect("prost reads it")
    }

    fn send_span(&mut self, span: &serde_json::Value) -> Span {
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
        self.only_span(&body.to_string())
    }

    fn only_span(&mut self, body: &str) -> Span {
        let mut request: ExportTraceServiceRequest = self.send(Signal::Traces, body);
        request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
    }

    /// The refusal of a body that is not taken.
    fn refused(&mut self, signal: Signal, body: &[u8]) -> String {
        let answer = self.http.post(path_of(signal), &JSON, body);
        assert_eq!(answer.status, 400, "{}: {}", body.escape_ascii(), answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let status = answer.refusal();
        assert_eq!(status.code, 3);
        status.message
    }
}

#[test]
fn j1_ids_are_hex_in_any_case_and_other_bytes_base64() {
    let mut way = Way::open();
    let span = way.send_span(&json!({
        "traceId": "5B8EFFF798038103d269b633813fc60c",
        "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "eee19b7ec3c1b173",
        "links": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b175"}],
        "attributes": [{"key": "b", "value": {"bytesValue": "/+7d"}}],
    }));
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(&span.trace_id), "5b8efff798038103d269b633813fc60c");
    assert_eq!(hex(&span.span_id), "eee19b7ec3c1b174");
    assert_eq!(hex(&span.parent_span_id), "eee19b7ec3c1b173");
    assert_eq!(hex(&span.links[0].span_id), "eee19b7ec3c1b175");
    let value = span.attributes[0].value.clone().and_then(|value| value.value);
    assert_eq!(value, Some(Value::BytesValue(vec![0xff, 0xee, 0xdd])));
    for bad in ["W47/95gDgQPSabYzgT/GDA==", "xyz", "5b8efff798038103d269b633813fc60"] {
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": bad}]}]}]});
        let said = way.refused(Signal::Traces, body.to_string().as_bytes());
        assert!(said.contains("traceId"), "it names the field: {said}");
    }
    way.forebay.stop();
}

#[test]
fn j2_j4_enum_names_and_snake_case_are_read_as_the_collector_reads_them() {
    let mut way = Way::open();
    let strict = way.send_span(&json!({"kind": 3, "startTimeUnixNano": "7", "name": "a"}));
    let lax =
        way.send_span(&json!({"kind": "SPAN_KIND_CLIENT", "start_time_unix_nano": 7, "name": "a"}));
    assert_eq!((strict.kind, strict.start_time_unix_nano), (3, 7));
    assert_eq!(lax, strict);
    way.forebay.stop();
}

#[test]
fn j3_unknown_fields_are_ignored_at_every_depth() {
    let mut way = Way::open();
    let span = way.only_span(
        r#"{"newer": [1, {"a": null}], "resourceSpans": [{"newer": {"x": [[]]}, "scopeSpans":
           [{"newer": -1e3, "spans": [{"newer": "\u00e9", "name": "kept", "attributes":
           [{"key": "k", "newer": true, "value": {"stringValue": "v", "newer": {}}}]}]}]}]}"#,
    );
    assert_eq!((span.name.as_str(), span.attributes.len()), ("kept", 1));
    way.forebay.stop();
}

#[test]
fn j5_64_bit_integers_are_read_as_strings_and_as_numbers_without_loss() {
    let mut way = Way::open();
    let nanos = i64::MAX as u64;
    for body in [
        json!({"startTimeUnixNano": nanos.to_string(), "attributes":
               [{"key": "n", "value": {"intValue": i64::MIN.to_string()}}]}),
        json!({"startTimeUnixNano": nanos, "attributes":
               [{"key": "n", "value": {"intValue": i64::MIN}}]}),
    ] {
        let span = way.send_span(&body);
        assert_eq!(span.start_time_unix_nano, nanos);
        let value = span.attributes[0].value.clone().and_then(|value| value.value);
        assert_eq!(value, Some(Value::IntValue(i64::MIN)));
    }
    let beyond = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":
                    "18446744073709551616"}]}]}]}"#;
    way.refused(Signal::Traces, beyond.as_bytes());
    way.forebay.stop();
}

#[test]
fn j6_doubles_nulls_and_base64_are_read_in_every_form_of_proto3_json() {
    let mut way = Way::open();
    let point = |value: serde_json::Value| json!({"asDouble": value});
    let body = json!({"resourceMetrics": [{"resource": null, "scopeMetrics": [{"metrics": [{
        "name": "m", "description": null, "gauge": {"dataPoints": [
            point(json!(1.5)), point(json!("1.5")), point(json!("NaN")), point(json!("Infinity")),
            point(json!("-Infinity"))]}}]}]}]});
    let mut request: ExportMetricsServiceRequest = way.send(Signal::Metrics, &body.to_string());
    let metric = request.resource_metrics.remove(0).scope_metrics.remove(0).metrics.remove(0);
    let Some(Data::Gauge(gauge)) = metric.data else { panic!("a gauge: {metric:?}") };
    let values: Vec<f64> = gauge
        .data_points
        .iter()
        .map(|point| match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            other => panic!("a double: {other:?}"),
        })
        .collect();
    assert_eq!((values[0], values[1]), (1.5, 1.5));
    assert!(values[2].is_nan());
    assert_eq!((values[3], values[4]), (f64::INFINITY, f64::NEG_INFINITY));
    for text in ["-_8=", "+/8=", "-_8", "+/8"] {
        let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords":
                          [{"body": {"bytesValue": text}}]}]}]});
        let mut request: ExportLogsServiceRequest = way.send(Signal::Logs, &body.to_string());
        let record = request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0);
        let value = record.body.and_then(|body| body.value);
        assert_eq!(value, Some(Value::BytesValue(vec![0xfb, 0xff])), "{text}");
    }
    way.forebay.stop();
}

#[test]
fn a_first_try_with_curl_works() {
    let mut way = Way::open();
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"curl"}]}]}]}"#;
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("accept", "*/*")];
    let answer = way.http.post("/v1/traces", &headers, body.as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    way.recorder.next();
    let answer = way.http.post("/v1/traces", &headers, b"key=value");
    assert_eq!(answer.status, 415, "what it says it is: {}", answer.text());
    answer.refusal();
    let by_a_page = [headers[0], ("origin", "http://elsewhere.example")];
    let answer = way.http.post("/v1/traces", &by_a_page, body.as_bytes());
    assert_eq!(answer.status, 415, "no page may send without asking first: {}", answer.text());
    way.forebay.stop();
}

#[test]
fn what_is_not_json_or_not_otlp_is_refused_and_costs_no_stack() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let nested = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{}{{}}{}}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(50_000),
        "]}}".repeat(50_000),
    );
    let bodies: Vec<Vec<u8>> = vec![
        b"\xef\xbb\xbf".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{} {}".to_vec(),
        b"{\"resourceLogs\": [{}],}".to_vec(),
        b"{'resourceLogs': []}".to_vec(),
        b"{\"resourceLogs\": {}}".to_vec(),
        b"{\"resourceLogs\": [{\"scopeLogs\": [{\"logRecords\": [7]}]}]}".to_vec(),
        b"{\"a\": \"\\ud800\"}".to_vec(),
        b"{\"a\": \"\xff\"}".to_vec(),
        b"{\"a\": \"\x01\"}".to_vec(),
        b"{\"a\": 01}".to_vec(),
        b"{\"a\": NaN}".to_vec(),
        deep("[", "]").into_bytes(),
        deep("{\"a\":", "}").into_bytes(),
        format!("{{\"x\": {}}}", deep("[", "]")).into_bytes(),
        nested.into_bytes(),
    ];
    let count = bodies.len() as u64;
    for body in bodies {
        let answer = http.post("/v1/logs", &JSON, &body);
        let shown = body[..body.len().min(60)].escape_ascii().to_string();
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert_eq!(answer.refusal().code, 3, "{shown}");
    }
    scene.wait_for_ended("invalid", count);
    scene.end();
}
