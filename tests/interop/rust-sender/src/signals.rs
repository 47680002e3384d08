//! What is sent: `count` items of each signal, in every shape that the SDK can make.

use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{
    Event, Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Array, Context, InstrumentationScope, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogBatchConfig, BatchLogProcessor};
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream,
};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};

use crate::ledger::Ledger;
use crate::tee::Tee;
use crate::{Options, exporters};

const FLUSH_DELAY: Duration = Duration::from_millis(50);

pub fn send_traces(options: &Options, ledger: &Ledger) {
    let tee = Tee {
        via: exporters::spans(options, &options.via),
        twin: exporters::spans(options, &options.twin),
        ledger: ledger.clone(),
    };
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(options.count * 2 + 64)
        .with_max_export_batch_size(options.batch)
        .with_scheduled_delay(FLUSH_DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(tee).with_batch_config(batch).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_span_processor(processor)
        .build();
    let tracers = [
        provider.tracer_with_scope(scope("interop.sluices", Some("0.7.0"))),
        provider.tracer_with_scope(scope("interop.drains", None)),
    ];
    for number in 0..options.count {
        one_span(&tracers[number % 2], ledger.take("traces"), number);
    }
    provider.force_flush().expect("the SDK flushes its spans");
    provider.shutdown().expect("the SDK ends its tracing");
}

fn one_span(tracer: &opentelemetry_sdk::trace::SdkTracer, id: String, number: usize) {
    let kinds = [
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    let start = instant(number);
    let mut attributes = scalars(number);
    attributes.push(KeyValue::new("interop.id", id));
    let mut builder = tracer
        .span_builder(format!("Spüle Becken {} 🏞", number % 5))
        .with_kind(kinds[number % kinds.len()].clone())
        .with_start_time(start)
        .with_attributes(attributes);
    if number.is_multiple_of(5) {
        let why = vec![KeyValue::new("why", "Überlauf")];
        builder = builder.with_links(vec![Link::new(remote(), why, 0)]);
    }
    if number.is_multiple_of(2) {
        let level = vec![KeyValue::new("level", number as f64 / 7.0)];
        let at = start + Duration::from_nanos(10);
        builder = builder.with_events(vec![Event::new("gespült", at, level, 0)]);
    }
    let parent = match number % 3 {
        0 => Context::new().with_remote_span_context(remote()),
        _ => Context::new(),
    };
    let mut span = tracer.build_with_context(builder, &parent);
    match number % 4 {
        1 => span.set_status(Status::error("verstopft: 詰まり")),
        2 => span.set_status(Status::Ok),
        _ => {}
    }
    span.end_with_timestamp(start + Duration::from_nanos(1_000 + number as u64));
}

pub fn send_metrics(options: &Options, ledger: &Ledger) {
    let tee = Tee {
        via: exporters::metrics(options, &options.via),
        twin: exporters::metrics(options, &options.twin),
        ledger: ledger.clone(),
    };
    let reader = PeriodicReader::builder(tee).with_interval(Duration::from_secs(3600)).build();
    let provider = SdkMeterProvider::builder()
        .with_resource(resource())
        .with_reader(reader)
        .with_view(exponential_for("sluice.force"))
        .build();
    let meter = provider.meter_with_scope(scope("interop.meters", Some("2.0")));
    let flushes = meter
        .u64_counter("sluice.flushes")
        .with_unit("1")
        .with_description("how often a basin was flushed")
        .build();
    let balance = meter.i64_up_down_counter("basin.balance").build();
    let spent = meter.f64_counter("energy.spent").with_unit("kW.h").build();
    let duration = meter.f64_histogram("flush.duration").with_unit("s").build();
    let force = meter.f64_histogram("sluice.force").with_unit("N").build();
    let level = meter.f64_gauge("basin.level").with_description("Füllstand").build();
    for number in 0..options.count {
        let about = [
            KeyValue::new("interop.id", ledger.take("metrics")),
            KeyValue::new("number", number as i64),
        ];
        let value = ((number * 37) % 1000) as f64 / 8.0;
        match number % 6 {
            0 => flushes.add(number as u64, &about),
            1 => balance.add(-(number as i64), &about),
            2 => spent.add(value, &about),
            3 => duration.record(value, &about),
            4 => force.record(value, &about),
            _ => level.record(-value, &about),
        }
    }
    provider.force_flush().expect("the SDK flushes its metrics");
    provider.shutdown().expect("the SDK ends its metrics");
}

fn exponential_for(name: &'static str) -> impl Fn(&Instrument) -> Option<Stream> {
    move |instrument| {
        (instrument.name() == name).then(|| {
            Stream::builder()
                .with_aggregation(Aggregation::Base2ExponentialHistogram {
                    max_size: 40,
                    max_scale: 10,
                    record_min_max: true,
                })
                .build()
                .expect("a valid stream")
        })
    }
}

pub fn send_logs(options: &Options, ledger: &Ledger) {
    let tee = Tee {
        via: exporters::logs(options, &options.via),
        twin: exporters::logs(options, &options.twin),
        ledger: ledger.clone(),
    };
    let batch = LogBatchConfig::default()
        .with_max_queue_size(options.count + 64)
        .with_max_export_batch_size(options.batch)
        .with_scheduled_delay(FLUSH_DELAY)
        .build();
    let processor = BatchLogProcessor::builder(tee).with_batch_config(batch).build();
    let provider = SdkLoggerProvider::builder()
        .with_resource(resource())
        .with_log_processor(processor)
        .build();
    let logger = provider.logger_with_scope(scope("interop.logs", Some("1.0")));
    let severities = [Severity::Trace, Severity::Debug2, Severity::Info, Severity::Fatal4];
    for number in 0..options.count {
        let severity = severities[number % severities.len()];
        let mut record = logger.create_log_record();
        record.set_timestamp(instant(number));
        record.set_observed_timestamp(instant(number + 5));
        record.set_severity_number(severity);
        record.set_severity_text(severity.name());
        record.set_body(body(number));
        record.add_attribute("interop.id", ledger.take("logs"));
        record.add_attribute("real", number as f64 * 0.1);
        record.add_attribute("map", nested(number));
        if number.is_multiple_of(2) {
            record.set_trace_context(TraceId::from(0xABCDEF), SpanId::from(0x123), None);
        }
        if number.is_multiple_of(3) {
            record.set_event_name("basin.event");
        }
        logger.emit(record);
    }
    provider.force_flush().expect("the SDK flushes its logs");
    provider.shutdown().expect("the SDK ends its logs");
}

fn body(number: usize) -> AnyValue {
    match number % 6 {
        0 => AnyValue::from(format!("Becken {number} läuft über 🌊")),
        1 => nested(number),
        2 => AnyValue::from_iter(["a", "", "ß"]),
        3 => AnyValue::Bytes(Box::new(vec![0, 255, 16])),
        4 => AnyValue::Int(i64::MIN + number as i64),
        _ => AnyValue::Double(number as f64 / 7.0),
    }
}

fn nested(number: usize) -> AnyValue {
    let leaf = AnyValue::from_iter([(Key::new("leaf"), AnyValue::from("ä"))]);
    AnyValue::from_iter([
        (Key::new("n"), AnyValue::Int(number as i64)),
        (Key::new("list"), AnyValue::from_iter([leaf, AnyValue::Boolean(true)])),
    ])
}

fn scalars(number: usize) -> Vec<KeyValue> {
    let texts: Vec<StringValue> = vec!["a".into(), "".into(), "ß".into()];
    vec![
        KeyValue::new("text", format!("Zeile {number}\t\"quoted\" \\ / \u{2028}")),
        KeyValue::new("empty", ""),
        KeyValue::new("int.min", i64::MIN),
        KeyValue::new("int.max", i64::MAX),
        KeyValue::new("real", number as f64 * 0.1),
        KeyValue::new("tiny", 5e-324),
        KeyValue::new("yes", number.is_multiple_of(2)),
        KeyValue::new("texts", Value::Array(Array::String(texts))),
        KeyValue::new("reals", Value::Array(Array::F64(vec![0.5, -1e300]))),
        KeyValue::new("long", "x".repeat(number % 400)),
    ]
}

fn resource() -> Resource {
    Resource::builder()
        .with_service_name("becken-spülung")
        .with_attribute(KeyValue::new("interop.cores", 2))
        .with_attribute(KeyValue::new("interop.load", 0.5))
        .build()
}

fn scope(name: &'static str, version: Option<&'static str>) -> InstrumentationScope {
    let builder = InstrumentationScope::builder(name)
        .with_attributes([KeyValue::new("bank", "rechts"), KeyValue::new("lanes", 3)]);
    match version {
        Some(version) => builder
            .with_version(version)
            .with_schema_url("https://opentelemetry.io/schemas/1.30.0")
            .build(),
        None => builder.build(),
    }
}

fn remote() -> SpanContext {
    let state = TraceState::from_key_value([("becken", "voll"), ("forebay", "3")]);
    SpanContext::new(
        TraceId::from(0x5B8E_FFF7_9803_8103_D269_B633_813F_C60C),
        SpanId::from(0xEEE1_9B7E_C3C1_B174),
        TraceFlags::SAMPLED,
        true,
        state.expect("both entries are valid"),
    )
}

fn instant(number: usize) -> SystemTime {
    let nanos = 1_790_000_000_123_456_789 + number as u64 * 1_000_003;
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
