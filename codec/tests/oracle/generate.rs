//! Requests at random, every field of every message of all four signals.

use fastrand::Rng;
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary,
    ResourceProfiles, Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link as SpanLink};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::decoded::Decoded;

pub(crate) fn request(signal: Signal, random: &mut Rng) -> Decoded {
    // Indices into a string table mean something in profiles alone.
    let mut make = Make { random, strindex: signal == Signal::Profiles };
    match signal {
        Signal::Traces => Decoded::Traces(make.traces()),
        Signal::Metrics => Decoded::Metrics(make.metrics()),
        Signal::Logs => Decoded::Logs(make.logs()),
        Signal::Profiles => Decoded::Profiles(make.profiles()),
    }
}

struct Make<'a> {
    random: &'a mut Rng,
    strindex: bool,
}

impl Make<'_> {
    fn traces(&mut self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest {
            resource_spans: self.some(4, |make| ResourceSpans {
                resource: make.maybe(Self::resource),
                scope_spans: make.some(4, |make| ScopeSpans {
                    scope: make.maybe(Self::scope),
                    spans: make.some(8, Self::span),
                    schema_url: make.text(),
                }),
                schema_url: make.text(),
            }),
        }
    }

    fn span(&mut self) -> Span {
        Span {
            trace_id: self.id(16),
            span_id: self.id(8),
            trace_state: self.text(),
            parent_span_id: self.id(8),
            flags: self.u32(),
            name: self.text(),
            kind: self.random.i32(0..6),
            start_time_unix_nano: self.u64(),
            end_time_unix_nano: self.u64(),
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
            events: self.some(3, |make| Event {
                time_unix_nano: make.u64(),
                name: make.text(),
                attributes: make.attributes(),
                dropped_attributes_count: make.u32(),
            }),
            dropped_events_count: self.u32(),
            links: self.some(2, |make| SpanLink {
                trace_id: make.id(16),
                span_id: make.id(8),
                trace_state: make.text(),
                attributes: make.attributes(),
                dropped_attributes_count: make.u32(),
                flags: make.u32(),
            }),
            dropped_links_count: self.u32(),
            status: self.maybe(|make| Status { message: make.text(), code: make.random.i32(0..3) }),
        }
    }

    fn logs(&mut self) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest {
            resource_logs: self.some(4, |make| ResourceLogs {
                resource: make.maybe(Self::resource),
                scope_logs: make.some(4, |make| ScopeLogs {
                    scope: make.maybe(Self::scope),
                    log_records: make.some(8, |make| LogRecord {
                        time_unix_nano: make.u64(),
                        observed_time_unix_nano: make.u64(),
                        severity_number: make.random.i32(0..25),
                        severity_text: make.text(),
                        body: make.maybe(|make| make.any(0)),
                        attributes: make.attributes(),
                        dropped_attributes_count: make.u32(),
                        flags: make.u32(),
                        trace_id: make.id(16),
                        span_id: make.id(8),
                        event_name: make.text(),
                    }),
                    schema_url: make.text(),
                }),
                schema_url: make.text(),
            }),
        }
    }

    fn metrics(&mut self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest {
            resource_metrics: self.some(4, |make| ResourceMetrics {
                resource: make.maybe(Self::resource),
                scope_metrics: make.some(5, |make| ScopeMetrics {
                    scope: make.maybe(Self::scope),
                    metrics: make.some(5, |make| Metric {
                        name: make.text(),
                        description: make.text(),
                        unit: make.text(),
                        metadata: make.attributes(),
                        data: make.maybe(Self::data),
                    }),
                    schema_url: make.text(),
                }),
                schema_url: make.text(),
            }),
        }
    }

    fn data(&mut self) -> Data {
        let aggregation_temporality = self.random.i32(0..3);
        match self.random.u8(0..5) {
            0 => Data::Gauge(Gauge { data_points: self.some(5, Self::number_point) }),
            1 => Data::Sum(Sum {
                data_points: self.some(5, Self::number_point),
                aggregation_temporality,
                is_monotonic: self.random.bool(),
            }),
            2 => Data::Histogram(Histogram {
                data_points: self.some(5, Self::histogram_point),
                aggregation_temporality,
            }),
            3 => Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.some(5, Self::exponential_point),
                aggregation_temporality,
            }),
            _ => Data::Summary(Summary { data_points: self.some(5, Self::summary_point) }),
        }
    }

    fn number_point(&mut self) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            exemplars: self.some(2, Self::exemplar),
            flags: self.u32(),
            value: self.maybe(|make| match make.random.bool() {
                true => number_data_point::Value::AsDouble(make.double()),
                false => number_data_point::Value::AsInt(make.u64() as i64),
            }),
        }
    }

    fn histogram_point(&mut self) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.maybe(Self::double),
            bucket_counts: self.some(5, Self::u64),
            explicit_bounds: self.some(5, Self::double),
            exemplars: self.some(2, Self::exemplar),
            flags: self.u32(),
            min: self.maybe(Self::double),
            max: self.maybe(Self::double),
        }
    }

    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.maybe(Self::double),
            scale: self.u32() as i32,
            zero_count: self.u64(),
            positive: self.maybe(Self::buckets),
            negative: self.maybe(Self::buckets),
            flags: self.u32(),
            exemplars: self.some(2, Self::exemplar),
            min: self.maybe(Self::double),
            max: self.maybe(Self::double),
            zero_threshold: self.double(),
        }
    }

    fn buckets(&mut self) -> Buckets {
        Buckets { offset: self.u32() as i32, bucket_counts: self.some(6, Self::u64) }
    }

    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.double(),
            quantile_values: self
                .some(3, |make| ValueAtQuantile { quantile: make.double(), value: make.double() }),
            flags: self.u32(),
        }
    }

    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            filtered_attributes: self.attributes(),
            time_unix_nano: self.u64(),
            span_id: self.id(8),
            trace_id: self.id(16),
            value: self.maybe(|make| match make.random.bool() {
                true => exemplar::Value::AsDouble(make.double()),
                false => exemplar::Value::AsInt(make.u64() as i64),
            }),
        }
    }

    fn profiles(&mut self) -> ExportProfilesServiceRequest {
        ExportProfilesServiceRequest {
            resource_profiles: self.some(2, |make| ResourceProfiles {
                resource: make.maybe(Self::resource),
                scope_profiles: make.some(2, |make| ScopeProfiles {
                    scope: make.maybe(Self::scope),
                    profiles: make.some(3, Self::profile),
                    schema_url: make.text(),
                }),
                schema_url: make.text(),
            }),
            dictionary: self.maybe(Self::dictionary),
        }
    }

    fn profile(&mut self) -> Profile {
        Profile {
            sample_type: self.maybe(Self::value_type),
            samples: self.some(4, |make| Sample {
                stack_index: make.index(),
                attribute_indices: make.some(3, Self::index),
                link_index: make.index(),
                values: make.some(3, |make| make.u64() as i64),
                timestamps_unix_nano: make.some(3, Self::u64),
            }),
            time_unix_nano: self.u64(),
            duration_nano: self.u64(),
            period_type: self.maybe(Self::value_type),
            period: self.u64() as i64,
            profile_id: self.id(16),
            dropped_attributes_count: self.u32(),
            original_payload_format: self.text(),
            original_payload: self.bytes(),
            attribute_indices: self.some(3, Self::index),
        }
    }

    fn dictionary(&mut self) -> ProfilesDictionary {
        ProfilesDictionary {
            mapping_table: self.some(2, |make| Mapping {
                memory_start: make.u64(),
                memory_limit: make.u64(),
                file_offset: make.u64(),
                filename_strindex: make.index(),
                attribute_indices: make.some(3, Self::index),
            }),
            location_table: self.some(2, |make| Location {
                mapping_index: make.index(),
                address: make.u64(),
                lines: make.some(2, |make| Line {
                    function_index: make.index(),
                    line: make.u64() as i64,
                    column: make.u64() as i64,
                }),
                attribute_indices: make.some(3, Self::index),
            }),
            function_table: self.some(2, |make| Function {
                name_strindex: make.index(),
                system_name_strindex: make.index(),
                filename_strindex: make.index(),
                start_line: make.u64() as i64,
            }),
            link_table: self.some(2, |make| Link { trace_id: make.id(16), span_id: make.id(8) }),
            string_table: self.some(4, Self::text),
            attribute_table: self.some(2, |make| KeyValueAndUnit {
                key_strindex: make.index(),
                value: make.maybe(|make| make.any(0)),
                unit_strindex: make.index(),
            }),
            stack_table: self.some(2, |make| Stack { location_indices: make.some(4, Self::index) }),
        }
    }

    fn value_type(&mut self) -> ValueType {
        ValueType { type_strindex: self.index(), unit_strindex: self.index() }
    }

    fn resource(&mut self) -> Resource {
        Resource {
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
            entity_refs: self.some(2, |make| EntityRef {
                schema_url: make.text(),
                r#type: make.text(),
                id_keys: make.some(3, Self::text),
                description_keys: make.some(3, Self::text),
            }),
        }
    }

    fn scope(&mut self) -> InstrumentationScope {
        InstrumentationScope {
            name: self.text(),
            version: self.text(),
            attributes: self.attributes(),
            dropped_attributes_count: self.u32(),
        }
    }

    fn attributes(&mut self) -> Vec<KeyValue> {
        self.some(3, |make| make.key_value(0))
    }

    fn key_value(&mut self, depth: u32) -> KeyValue {
        KeyValue {
            key: self.text(),
            value: self.maybe(|make| make.any(depth)),
            key_strindex: if self.strindex { self.index() } else { 0 },
        }
    }

    fn any(&mut self, depth: u32) -> AnyValue {
        let value = match self.random.u8(0..if depth < 4 { 9 } else { 6 }) {
            0 => Some(Value::BoolValue(self.random.bool())),
            1 => Some(Value::IntValue(self.u64() as i64)),
            2 => Some(Value::DoubleValue(self.double())),
            3 => Some(Value::BytesValue(self.bytes())),
            4 if self.strindex => Some(Value::StringValueStrindex(self.index())),
            5 => None,
            6 => Some(Value::ArrayValue(ArrayValue {
                values: self.some(3, |make| make.any(depth + 1)),
            })),
            7 => Some(Value::KvlistValue(KeyValueList {
                values: self.some(3, |make| make.key_value(depth + 1)),
            })),
            _ => Some(Value::StringValue(self.text())),
        };
        AnyValue { value }
    }

    fn some<T>(&mut self, below: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.random.usize(0..below)).map(|_| make(self)).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.random.u8(0..4) > 0).then(|| make(self))
    }

    fn text(&mut self) -> String {
        match self.random.u8(0..8) {
            0 => String::new(),
            1 => "é☂😀\"\\\n\u{0}\u{7f}/".to_owned(),
            2 => "x".repeat(self.random.usize(100..300)),
            _ => self.some(12, |make| make.random.alphanumeric()).into_iter().collect(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.some(9, |make| make.random.u8(..))
    }

    fn id(&mut self, bytes: usize) -> Vec<u8> {
        let empty = self.random.u8(0..4) == 0;
        (0..if empty { 0 } else { bytes }).map(|_| self.random.u8(..)).collect()
    }

    fn index(&mut self) -> i32 {
        self.random.i32(-1..300)
    }

    fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    /// Any magnitude equally likely.
    fn u64(&mut self) -> u64 {
        self.random.u64(..) >> self.random.u32(0..64)
    }

    fn double(&mut self) -> f64 {
        match self.random.u8(0..8) {
            0 => 0.0,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => f64::from_bits(self.random.u64(..) & !(1 << 62)),
            _ => self.random.f64() * 1000.0,
        }
    }
}
