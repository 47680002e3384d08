//! The requests that the micro-benchmarks work on: made from a seed, of the sizes that SDKs send.
//!
//! Ids, times and values differ from item to item, as they do in life; names and keys repeat.

use fastrand::Rng;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// 2026-01-01, in nanoseconds since 1970.
const START_NS: u64 = 1_767_225_600_000_000_000;
const BUCKETS: usize = 12;

/// Spans of about 390 bytes with 8 attributes.
pub(crate) fn traces(seed: u64, spans: usize) -> Traces {
    let mut random = Rng::with_seed(seed);
    let spans = (0..spans).map(|_| span(&mut random)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..Default::default() }];
    let group = ResourceSpans { resource: Some(resource()), scope_spans, ..Default::default() };
    Traces { resource_spans: vec![group] }
}

/// Log records of about 250 bytes.
pub(crate) fn logs(seed: u64, records: usize) -> Logs {
    let mut random = Rng::with_seed(seed);
    let log_records = (0..records).map(|_| record(&mut random)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..Default::default() }];
    let group = ResourceLogs { resource: Some(resource()), scope_logs, ..Default::default() };
    Logs { resource_logs: vec![group] }
}

/// Metrics with one histogram point each.
pub(crate) fn histograms(seed: u64, metrics: usize) -> Metrics {
    let mut random = Rng::with_seed(seed);
    let metrics = (0..metrics).map(|at| histogram(&mut random, at)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
    let group = ResourceMetrics { resource: Some(resource()), scope_metrics, ..Default::default() };
    Metrics { resource_metrics: vec![group] }
}

fn span(random: &mut Rng) -> Span {
    let start = START_NS + random.u64(0..60_000_000_000);
    let customer = format!("c-{:08x}-{:06x}", random.u32(..), random.u32(..1 << 24));
    Span {
        trace_id: id(random, 16),
        span_id: id(random, 8),
        parent_span_id: id(random, 8),
        name: "POST /api/checkout/{cart}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.u64(50_000..900_000_000),
        attributes: vec![
            text("http.request.method", "POST"),
            text("url.path", &format!("/api/checkout/{:06}", random.u32(..1_000_000))),
            whole("http.response.status_code", if random.u8(..) < 5 { 503 } else { 200 }),
            text("server.address", "checkout.shop.svc.cluster.local"),
            text("customer.id", &customer),
            real("cart.value", f64::from(random.u32(100..90_000)) / 100.0),
            text("cloud.availability_zone", "eu-central-1b"),
            whole("thread.id", random.i64(1..64)),
        ],
        status: Some(Status { message: String::new(), code: 1 }),
        flags: 0x101,
        ..Default::default()
    }
}

fn record(random: &mut Rng) -> LogRecord {
    let time_unix_nano = START_NS + random.u64(0..60_000_000_000);
    let (order, millis) = (random.u32(..), random.u32(1..4_000));
    let body = format!(
        "order {order:08x} accepted after {millis} ms: 3 items, payment pending, ships today"
    );
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: time_unix_nano + random.u64(1_000..1_000_000),
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: vec![
            text("code.function.name", "shop.orders.Service.accept"),
            text("order.id", &format!("{order:08x}")),
            whole("thread.id", random.i64(1..64)),
        ],
        trace_id: id(random, 16),
        span_id: id(random, 8),
        flags: 1,
        ..Default::default()
    }
}

fn histogram(random: &mut Rng, at: usize) -> Metric {
    let bucket_counts: Vec<u64> = (0..=BUCKETS).map(|_| random.u64(0..5_000)).collect();
    let point = HistogramDataPoint {
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", &format!("/api/items/{{id}}/{at}")),
            whole("http.response.status_code", 200),
        ],
        start_time_unix_nano: START_NS,
        time_unix_nano: START_NS + 60_000_000_000,
        count: bucket_counts.iter().sum(),
        sum: Some(f64::from(random.u32(..)) / 64.0),
        bucket_counts,
        explicit_bounds: (0..BUCKETS).map(|bound| 0.005 * 2f64.powi(bound as i32)).collect(),
        min: Some(0.001),
        max: Some(7.5),
        ..Default::default()
    };
    let histogram = Histogram { data_points: vec![point], aggregation_temporality: 2 };
    Metric {
        name: "http.server.request.duration".to_owned(),
        description: "Duration of HTTP server requests".to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::Histogram(histogram)),
        ..Default::default()
    }
}

fn resource() -> Resource {
    let attributes = vec![
        text("service.name", "checkout"),
        text("service.version", "4.17.2"),
        text("host.name", "node-0042"),
        text("k8s.pod.name", "checkout-7d9f8b6c5d-x2x7q"),
        text("telemetry.sdk.language", "java"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.version", "1.55.0"),
    ];
    Resource { attributes, ..Default::default() }
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("shop.instrumentation".to_owned(), "1.9.0".to_owned());
    InstrumentationScope { name, version, ..Default::default() }
}

fn id(random: &mut Rng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn whole(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn real(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}
