//! Requests as SDKs really write them, small enough to change each of their bytes in turn.
//!
//! What takes a shortcut for these shapes must see every byte all the same.

use forebay_codec::schema;
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::profiles::v1development::{
    Link, Profile, ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link as SpanLink};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::decoded::Decoded;
use crate::mangle;

/// Fields in ascending order, as most encoders write them, and in descending order, as those do
/// that fill their buffer from the back.
pub(crate) fn requests(signal: Signal) -> [Vec<u8>; 2] {
    let request = match signal {
        Signal::Traces => Decoded::Traces(traces()),
        Signal::Metrics => Decoded::Metrics(metrics()),
        Signal::Logs => Decoded::Logs(logs()),
        Signal::Profiles => Decoded::Profiles(profiles()),
    };
    // prost writes by the order of the .proto file, which is not always that of the numbers.
    let ascending = mangle::ordered(schema::request(signal), &request.to_proto(), |number| number);
    let descending = mangle::ordered(schema::request(signal), &ascending, |number| !number);
    [ascending, descending]
}

fn traces() -> ExportTraceServiceRequest {
    let span = |at: u8| Span {
        trace_id: vec![at; 16],
        span_id: vec![at; 8],
        parent_span_id: if at == 1 { Vec::new() } else { vec![1; 8] },
        name: "GET /api/items/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_767_225_600_000_000_000,
        end_time_unix_nano: 1_767_225_600_120_000_000,
        attributes: vec![
            text("http.request.method", "GET"),
            number("http.response.status_code", 200),
            attribute("cart.value", Value::DoubleValue(12.5)),
            attribute("cached", Value::BoolValue(true)),
        ],
        events: vec![Event {
            time_unix_nano: 1_767_225_600_000_000_001,
            name: "exception".to_owned(),
            attributes: vec![text("exception.type", "E")],
            ..Default::default()
        }],
        links: vec![SpanLink {
            trace_id: vec![9; 16],
            span_id: vec![9; 8],
            flags: 0x101,
            ..Default::default()
        }],
        status: Some(Status { message: "late".to_owned(), code: 2 }),
        flags: 0x101,
        ..Default::default()
    };
    let spans = (1..=3).map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, schema_url: url() }];
    let group = ResourceSpans { resource: Some(resource()), scope_spans, schema_url: url() };
    ExportTraceServiceRequest { resource_spans: vec![group] }
}

fn logs() -> ExportLogsServiceRequest {
    let record = |at: u8| LogRecord {
        time_unix_nano: 1_767_225_600_000_000_000,
        observed_time_unix_nano: 1_767_225_600_000_000_500,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue("order accepted".to_owned())) }),
        attributes: vec![
            text("code.function.name", "shop.accept"),
            attribute("tags", Value::ArrayValue(array(&["a", "bc"]))),
            attribute("raw", Value::BytesValue(vec![0xff, 0])),
        ],
        flags: 1,
        trace_id: vec![at; 16],
        span_id: vec![at; 8],
        event_name: "accepted".to_owned(),
        ..Default::default()
    };
    let log_records = (1..=3).map(record).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, schema_url: url() }];
    let group = ResourceLogs { resource: Some(resource()), scope_logs, schema_url: url() };
    ExportLogsServiceRequest { resource_logs: vec![group] }
}

fn metrics() -> ExportMetricsServiceRequest {
    let time_unix_nano = 1_767_225_600_000_000_000;
    let exemplar = Exemplar {
        time_unix_nano,
        span_id: vec![7; 8],
        trace_id: vec![7; 16],
        value: Some(exemplar::Value::AsDouble(0.25)),
        ..Default::default()
    };
    let histogram = Data::Histogram(Histogram {
        data_points: vec![HistogramDataPoint {
            attributes: vec![text("http.route", "/items")],
            start_time_unix_nano: time_unix_nano,
            time_unix_nano,
            count: 6,
            sum: Some(3.5),
            bucket_counts: vec![1, 2, 3],
            explicit_bounds: vec![0.5, 1.0],
            exemplars: vec![exemplar],
            min: Some(0.1),
            max: Some(2.0),
            ..Default::default()
        }],
        aggregation_temporality: 2,
    });
    let point = |value| NumberDataPoint {
        attributes: vec![text("state", "idle")],
        time_unix_nano,
        value: Some(value),
        ..Default::default()
    };
    let sum = Data::Sum(Sum {
        data_points: vec![
            point(number_data_point::Value::AsInt(-4)),
            point(number_data_point::Value::AsDouble(4.5)),
        ],
        aggregation_temporality: 2,
        is_monotonic: true,
    });
    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        description: "what it is".to_owned(),
        unit: "s".to_owned(),
        data: Some(data),
        ..Default::default()
    };
    let metrics = vec![metric("http.server.request.duration", histogram), metric("pool", sum)];
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: url() }];
    let group = ResourceMetrics { resource: Some(resource()), scope_metrics, schema_url: url() };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }
}

fn profiles() -> ExportProfilesServiceRequest {
    let sample = Sample {
        stack_index: 1,
        attribute_indices: vec![1, 200],
        link_index: 1,
        values: vec![1, -1],
        timestamps_unix_nano: vec![1_767_225_600_000_000_000],
    };
    let profile = Profile {
        sample_type: Some(ValueType { type_strindex: 1, unit_strindex: 2 }),
        samples: vec![sample.clone(), sample],
        time_unix_nano: 1_767_225_600_000_000_000,
        duration_nano: 1_000,
        period: 10,
        profile_id: vec![3; 16],
        attribute_indices: vec![1],
        ..Default::default()
    };
    let dictionary = ProfilesDictionary {
        string_table: ["", "cpu", "nanoseconds"].map(str::to_owned).to_vec(),
        link_table: vec![Link::default(), Link { trace_id: vec![4; 16], span_id: vec![4; 8] }],
        stack_table: vec![Stack { location_indices: vec![1, 2, 3] }],
        ..Default::default()
    };
    let scope_profiles =
        vec![ScopeProfiles { scope: Some(scope()), profiles: vec![profile], schema_url: url() }];
    let group = ResourceProfiles { resource: Some(resource()), scope_profiles, schema_url: url() };
    ExportProfilesServiceRequest { resource_profiles: vec![group], dictionary: Some(dictionary) }
}

fn resource() -> Resource {
    let attributes = vec![text("service.name", "checkout"), text("host.name", "node-0042")];
    Resource { attributes, ..Default::default() }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("shop".to_owned(), "1.9.0".to_owned());
    InstrumentationScope { name, version, ..Default::default() }
}

fn url() -> String {
    "https://schema.example/1".to_owned()
}

fn array(values: &[&str]) -> ArrayValue {
    let value = |value: &&str| AnyValue { value: Some(Value::StringValue((*value).to_owned())) };
    ArrayValue { values: values.iter().map(value).collect() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}
