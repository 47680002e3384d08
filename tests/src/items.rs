//! Requests with items that can be told apart: each carries its own number.
//!
//! `n` items numbered from `first`; the number is the `n` attribute of each span, log record and
//! data point, so that [`numbers_of`] finds in any request what it holds.

use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub fn traces(first: i64, n: i64) -> ExportTraceServiceRequest {
    let span = |number: i64| Span {
        trace_id: u128::from(number as u64 + 1).to_be_bytes().to_vec(),
        span_id: (number as u64 + 1).to_be_bytes().to_vec(),
        name: format!("GET /{number}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_100_000_000,
        attributes: vec![number_of(number)],
        ..Span::default()
    };
    let spans = (first..first + n).map(span).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

pub fn logs(first: i64, n: i64) -> ExportLogsServiceRequest {
    let record = |number: i64| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(format!("line {number}"))) }),
        attributes: vec![number_of(number)],
        ..LogRecord::default()
    };
    let log_records = (first..first + n).map(record).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource()),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

pub fn metrics(first: i64, n: i64) -> ExportMetricsServiceRequest {
    let point = |number: i64| NumberDataPoint {
        time_unix_nano: 1_700_000_000_000_000_000,
        attributes: vec![number_of(number)],
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "queue.depth".to_owned(),
        data: Some(Data::Gauge(Gauge { data_points: (first..first + n).map(point).collect() })),
        ..Metric::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics: vec![metric],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// A request of `signal` in protobuf. Profiles have no such items.
pub fn proto(signal: Signal, first: i64, n: i64) -> Vec<u8> {
    match signal {
        Signal::Traces => traces(first, n).encode_to_vec(),
        Signal::Metrics => metrics(first, n).encode_to_vec(),
        Signal::Logs => logs(first, n).encode_to_vec(),
        Signal::Profiles => panic!("profiles carry no numbered items"),
    }
}

/// The same in OTLP/JSON.
pub fn json(signal: Signal, first: i64, n: i64) -> Vec<u8> {
    let mut text = Vec::new();
    forebay_codec::json::proto_to_json(&proto(signal, first, n), signal, &mut text)
        .expect("prost writes valid requests");
    text
}

/// The numbers of all items of a request, in its order.
pub fn numbers_of(signal: Signal, request: &[u8]) -> Vec<i64> {
    let mut numbers = Vec::new();
    let mut take = |attributes: &[KeyValue]| numbers.extend(attributes.iter().filter_map(number));
    match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(request).expect("a valid request");
            let resources = request.resource_spans.iter();
            resources
                .flat_map(|resource| &resource.scope_spans)
                .flat_map(|scope| &scope.spans)
                .for_each(|span| take(&span.attributes));
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(request).expect("a valid request");
            let resources = request.resource_logs.iter();
            resources
                .flat_map(|resource| &resource.scope_logs)
                .flat_map(|scope| &scope.log_records)
                .for_each(|record| take(&record.attributes));
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(request).expect("a valid request");
            let resources = request.resource_metrics.iter();
            let metrics =
                resources.flat_map(|resource| &resource.scope_metrics).flat_map(|s| &s.metrics);
            for metric in metrics {
                if let Some(Data::Gauge(gauge)) = &metric.data {
                    gauge.data_points.iter().for_each(|point| take(&point.attributes));
                }
            }
        }
        Signal::Profiles => {}
    }
    numbers
}

fn number_of(number: i64) -> KeyValue {
    attribute("n", Value::IntValue(number))
}

fn number(attribute: &KeyValue) -> Option<i64> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) if attribute.key == "n" => Some(*number),
        _ => None,
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource() -> Resource {
    let name = attribute("service.name", Value::StringValue("checkout".to_owned()));
    Resource { attributes: vec![name], ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "tests".to_owned(), ..InstrumentationScope::default() }
}
