//! The rows: every message of OTLP's four signals, field by field.
//!
//! `one` is a singular field, `many` a repeated one, `either` a member of the message's `oneof`.
//! In the order of the .proto files: requests, traces, metrics, logs, profiles, common, enums.

use super::{Kind, Message, Shape, Tally, either, many, one};

// Requests

pub(super) static EXPORT_TRACE_SERVICE_REQUEST: Message = Message::new(
    "ExportTraceServiceRequest",
    &[many(1, "resource_spans", Kind::Message(&RESOURCE_SPANS))],
);

pub(super) static EXPORT_METRICS_SERVICE_REQUEST: Message = Message::new(
    "ExportMetricsServiceRequest",
    &[many(1, "resource_metrics", Kind::Message(&RESOURCE_METRICS))],
);

pub(super) static EXPORT_LOGS_SERVICE_REQUEST: Message = Message::new(
    "ExportLogsServiceRequest",
    &[many(1, "resource_logs", Kind::Message(&RESOURCE_LOGS))],
);

pub(super) static EXPORT_PROFILES_SERVICE_REQUEST: Message = Message::new(
    "ExportProfilesServiceRequest",
    &[
        many(1, "resource_profiles", Kind::Message(&RESOURCE_PROFILES)),
        one(2, "dictionary", Kind::Message(&PROFILES_DICTIONARY)),
    ],
);

// Traces

static RESOURCE_SPANS: Message = Message::new(
    "ResourceSpans",
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scope_spans", Kind::Message(&SCOPE_SPANS)),
        one(3, "schema_url", Kind::String),
    ],
);

static SCOPE_SPANS: Message = Message::new(
    "ScopeSpans",
    &[
        one(1, "scope", Kind::Message(&INSTRUMENTATION_SCOPE)),
        many(2, "spans", Kind::Message(&SPAN)),
        one(3, "schema_url", Kind::String),
    ],
);

static SPAN_EVENT: Message = Message::new(
    "Span.Event",
    &[
        one(1, "time_unix_nano", Kind::Fixed64),
        one(2, "name", Kind::String),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "dropped_attributes_count", Kind::Uint32),
    ],
)
.shaped(Shape::Event);

static SPAN_LINK: Message = Message::new(
    "Span.Link",
    &[
        one(1, "trace_id", Kind::Id(16)),
        one(2, "span_id", Kind::Id(8)),
        one(3, "trace_state", Kind::String),
        many(4, "attributes", Kind::Message(&KEY_VALUE)),
        one(5, "dropped_attributes_count", Kind::Uint32),
        one(6, "flags", Kind::Fixed32),
    ],
)
.shaped(Shape::Link);

static SPAN: Message = Message::new(
    "Span",
    &[
        one(1, "trace_id", Kind::Id(16)),
        one(2, "span_id", Kind::Id(8)),
        one(3, "trace_state", Kind::String),
        one(4, "parent_span_id", Kind::Id(8)),
        one(5, "name", Kind::String),
        one(6, "kind", Kind::Enum(&SPAN_KINDS)),
        one(7, "start_time_unix_nano", Kind::Fixed64),
        one(8, "end_time_unix_nano", Kind::Fixed64),
        many(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(10, "dropped_attributes_count", Kind::Uint32),
        many(11, "events", Kind::Message(&SPAN_EVENT)),
        one(12, "dropped_events_count", Kind::Uint32),
        many(13, "links", Kind::Message(&SPAN_LINK)),
        one(14, "dropped_links_count", Kind::Uint32),
        one(15, "status", Kind::Message(&STATUS)),
        one(16, "flags", Kind::Fixed32),
    ],
)
.counted(Tally::Item)
.shaped(Shape::Span);

static STATUS: Message = Message::new(
    "Status",
    &[one(2, "message", Kind::String), one(3, "code", Kind::Enum(&STATUS_CODES))],
)
.shaped(Shape::Status);

// Metrics

static RESOURCE_METRICS: Message = Message::new(
    "ResourceMetrics",
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scope_metrics", Kind::Message(&SCOPE_METRICS)),
        one(3, "schema_url", Kind::String),
    ],
);

static SCOPE_METRICS: Message = Message::new(
    "ScopeMetrics",
    &[
        one(1, "scope", Kind::Message(&INSTRUMENTATION_SCOPE)),
        many(2, "metrics", Kind::Message(&METRIC)),
        one(3, "schema_url", Kind::String),
    ],
);

static METRIC: Message = Message::new(
    "Metric",
    &[
        one(1, "name", Kind::String),
        one(2, "description", Kind::String),
        one(3, "unit", Kind::String),
        either(5, "gauge", Kind::Message(&GAUGE)),
        either(7, "sum", Kind::Message(&SUM)),
        either(9, "histogram", Kind::Message(&HISTOGRAM)),
        either(10, "exponential_histogram", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        either(11, "summary", Kind::Message(&SUMMARY)),
        many(12, "metadata", Kind::Message(&KEY_VALUE)),
    ],
)
.shaped(Shape::Metric);

static GAUGE: Message =
    Message::new("Gauge", &[many(1, "data_points", Kind::Message(&NUMBER_DATA_POINT))]);

static SUM: Message = Message::new(
    "Sum",
    &[
        many(1, "data_points", Kind::Message(&NUMBER_DATA_POINT)),
        one(2, "aggregation_temporality", Kind::Enum(&TEMPORALITIES)),
        one(3, "is_monotonic", Kind::Bool),
    ],
);

static HISTOGRAM: Message = Message::new(
    "Histogram",
    &[
        many(1, "data_points", Kind::Message(&HISTOGRAM_DATA_POINT)),
        one(2, "aggregation_temporality", Kind::Enum(&TEMPORALITIES)),
    ],
);

static EXPONENTIAL_HISTOGRAM: Message = Message::new(
    "ExponentialHistogram",
    &[
        many(1, "data_points", Kind::Message(&EXPONENTIAL_HISTOGRAM_DATA_POINT)),
        one(2, "aggregation_temporality", Kind::Enum(&TEMPORALITIES)),
    ],
);

static SUMMARY: Message =
    Message::new("Summary", &[many(1, "data_points", Kind::Message(&SUMMARY_DATA_POINT))]);

static NUMBER_DATA_POINT: Message = Message::new(
    "NumberDataPoint",
    &[
        one(2, "start_time_unix_nano", Kind::Fixed64),
        one(3, "time_unix_nano", Kind::Fixed64),
        either(4, "as_double", Kind::Double),
        many(5, "exemplars", Kind::Message(&EXEMPLAR)),
        either(6, "as_int", Kind::Sfixed64),
        many(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(8, "flags", Kind::Uint32),
    ],
)
.counted(Tally::Item)
.shaped(Shape::NumberDataPoint);

static HISTOGRAM_DATA_POINT: Message = Message::new(
    "HistogramDataPoint",
    &[
        one(2, "start_time_unix_nano", Kind::Fixed64),
        one(3, "time_unix_nano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        many(6, "bucket_counts", Kind::Fixed64),
        many(7, "explicit_bounds", Kind::Double),
        many(8, "exemplars", Kind::Message(&EXEMPLAR)),
        many(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(10, "flags", Kind::Uint32),
        one(11, "min", Kind::Double),
        one(12, "max", Kind::Double),
    ],
)
.counted(Tally::Item)
.shaped(Shape::HistogramDataPoint);

static BUCKETS: Message = Message::new(
    "ExponentialHistogramDataPoint.Buckets",
    &[one(1, "offset", Kind::Sint32), many(2, "bucket_counts", Kind::Uint64)],
);

static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message::new(
    "ExponentialHistogramDataPoint",
    &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "start_time_unix_nano", Kind::Fixed64),
        one(3, "time_unix_nano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        one(6, "scale", Kind::Sint32),
        one(7, "zero_count", Kind::Fixed64),
        one(8, "positive", Kind::Message(&BUCKETS)),
        one(9, "negative", Kind::Message(&BUCKETS)),
        one(10, "flags", Kind::Uint32),
        many(11, "exemplars", Kind::Message(&EXEMPLAR)),
        one(12, "min", Kind::Double),
        one(13, "max", Kind::Double),
        one(14, "zero_threshold", Kind::Double),
    ],
)
.counted(Tally::Item)
.shaped(Shape::ExponentialHistogramDataPoint);

static VALUE_AT_QUANTILE: Message = Message::new(
    "SummaryDataPoint.ValueAtQuantile",
    &[one(1, "quantile", Kind::Double), one(2, "value", Kind::Double)],
);

static SUMMARY_DATA_POINT: Message = Message::new(
    "SummaryDataPoint",
    &[
        one(2, "start_time_unix_nano", Kind::Fixed64),
        one(3, "time_unix_nano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        many(6, "quantile_values", Kind::Message(&VALUE_AT_QUANTILE)),
        many(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(8, "flags", Kind::Uint32),
    ],
)
.counted(Tally::Item)
.shaped(Shape::SummaryDataPoint);

static EXEMPLAR: Message = Message::new(
    "Exemplar",
    &[
        one(2, "time_unix_nano", Kind::Fixed64),
        either(3, "as_double", Kind::Double),
        one(4, "span_id", Kind::Id(8)),
        one(5, "trace_id", Kind::Id(16)),
        either(6, "as_int", Kind::Sfixed64),
        many(7, "filtered_attributes", Kind::Message(&KEY_VALUE)),
    ],
)
.shaped(Shape::Exemplar);

// Logs

static RESOURCE_LOGS: Message = Message::new(
    "ResourceLogs",
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scope_logs", Kind::Message(&SCOPE_LOGS)),
        one(3, "schema_url", Kind::String),
    ],
);

static SCOPE_LOGS: Message = Message::new(
    "ScopeLogs",
    &[
        one(1, "scope", Kind::Message(&INSTRUMENTATION_SCOPE)),
        many(2, "log_records", Kind::Message(&LOG_RECORD)),
        one(3, "schema_url", Kind::String),
    ],
);

static LOG_RECORD: Message = Message::new(
    "LogRecord",
    &[
        one(1, "time_unix_nano", Kind::Fixed64),
        one(2, "severity_number", Kind::Enum(&SEVERITIES)),
        one(3, "severity_text", Kind::String),
        one(5, "body", Kind::Message(&ANY_VALUE)),
        many(6, "attributes", Kind::Message(&KEY_VALUE)),
        one(7, "dropped_attributes_count", Kind::Uint32),
        one(8, "flags", Kind::Fixed32),
        one(9, "trace_id", Kind::Id(16)),
        one(10, "span_id", Kind::Id(8)),
        one(11, "observed_time_unix_nano", Kind::Fixed64),
        one(12, "event_name", Kind::String),
    ],
)
.counted(Tally::Item)
.shaped(Shape::LogRecord);

// Profiles (v1development)

static PROFILES_DICTIONARY: Message = Message::new(
    "ProfilesDictionary",
    &[
        many(1, "mapping_table", Kind::Message(&MAPPING)),
        many(2, "location_table", Kind::Message(&LOCATION)),
        many(3, "function_table", Kind::Message(&FUNCTION)),
        many(4, "link_table", Kind::Message(&PROFILE_LINK)),
        many(5, "string_table", Kind::String),
        many(6, "attribute_table", Kind::Message(&KEY_VALUE_AND_UNIT)),
        many(7, "stack_table", Kind::Message(&STACK)),
    ],
);

static RESOURCE_PROFILES: Message = Message::new(
    "ResourceProfiles",
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scope_profiles", Kind::Message(&SCOPE_PROFILES)),
        one(3, "schema_url", Kind::String),
    ],
);

static SCOPE_PROFILES: Message = Message::new(
    "ScopeProfiles",
    &[
        one(1, "scope", Kind::Message(&INSTRUMENTATION_SCOPE)),
        many(2, "profiles", Kind::Message(&PROFILE)),
        one(3, "schema_url", Kind::String),
    ],
);

static PROFILE: Message = Message::new(
    "Profile",
    &[
        one(1, "sample_type", Kind::Message(&VALUE_TYPE)),
        many(2, "samples", Kind::Message(&SAMPLE)),
        one(3, "time_unix_nano", Kind::Fixed64),
        one(4, "duration_nano", Kind::Uint64),
        one(5, "period_type", Kind::Message(&VALUE_TYPE)),
        one(6, "period", Kind::Int64),
        one(7, "profile_id", Kind::ProfileId),
        one(8, "dropped_attributes_count", Kind::Uint32),
        one(9, "original_payload_format", Kind::String),
        one(10, "original_payload", Kind::Bytes),
        many(11, "attribute_indices", Kind::Int32),
    ],
)
.counted(Tally::Profile);

static PROFILE_LINK: Message =
    Message::new("Link", &[one(1, "trace_id", Kind::Id(16)), one(2, "span_id", Kind::Id(8))]);

static VALUE_TYPE: Message = Message::new(
    "ValueType",
    &[one(1, "type_strindex", Kind::Int32), one(2, "unit_strindex", Kind::Int32)],
);

static SAMPLE: Message = Message::new(
    "Sample",
    &[
        one(1, "stack_index", Kind::Int32),
        many(2, "attribute_indices", Kind::Int32),
        one(3, "link_index", Kind::Int32),
        many(4, "values", Kind::Int64),
        many(5, "timestamps_unix_nano", Kind::Fixed64),
    ],
)
.counted(Tally::Item);

static MAPPING: Message = Message::new(
    "Mapping",
    &[
        one(1, "memory_start", Kind::Uint64),
        one(2, "memory_limit", Kind::Uint64),
        one(3, "file_offset", Kind::Uint64),
        one(4, "filename_strindex", Kind::Int32),
        many(5, "attribute_indices", Kind::Int32),
    ],
);

static STACK: Message = Message::new("Stack", &[many(1, "location_indices", Kind::Int32)]);

static LOCATION: Message = Message::new(
    "Location",
    &[
        one(1, "mapping_index", Kind::Int32),
        one(2, "address", Kind::Uint64),
        many(3, "lines", Kind::Message(&LINE)),
        many(4, "attribute_indices", Kind::Int32),
    ],
);

static LINE: Message = Message::new(
    "Line",
    &[
        one(1, "function_index", Kind::Int32),
        one(2, "line", Kind::Int64),
        one(3, "column", Kind::Int64),
    ],
);

static FUNCTION: Message = Message::new(
    "Function",
    &[
        one(1, "name_strindex", Kind::Int32),
        one(2, "system_name_strindex", Kind::Int32),
        one(3, "filename_strindex", Kind::Int32),
        one(4, "start_line", Kind::Int64),
    ],
);

static KEY_VALUE_AND_UNIT: Message = Message::new(
    "KeyValueAndUnit",
    &[
        one(1, "key_strindex", Kind::Int32),
        one(2, "value", Kind::Message(&ANY_VALUE)),
        one(3, "unit_strindex", Kind::Int32),
    ],
);

// Common

static RESOURCE: Message = Message::new(
    "Resource",
    &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "dropped_attributes_count", Kind::Uint32),
        many(3, "entity_refs", Kind::Message(&ENTITY_REF)),
    ],
)
.shaped(Shape::Resource);

static ANY_VALUE: Message = Message::new(
    "AnyValue",
    &[
        either(1, "string_value", Kind::String),
        either(2, "bool_value", Kind::Bool),
        either(3, "int_value", Kind::Int64),
        either(4, "double_value", Kind::Double),
        either(5, "array_value", Kind::Message(&ARRAY_VALUE)),
        either(6, "kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
        either(7, "bytes_value", Kind::Bytes),
        either(8, "string_value_strindex", Kind::Strindex),
    ],
);

static ARRAY_VALUE: Message =
    Message::new("ArrayValue", &[many(1, "values", Kind::Message(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message =
    Message::new("KeyValueList", &[many(1, "values", Kind::Message(&KEY_VALUE))]);

static KEY_VALUE: Message = Message::new(
    "KeyValue",
    &[
        one(1, "key", Kind::String),
        one(2, "value", Kind::Message(&ANY_VALUE)),
        one(3, "key_strindex", Kind::Strindex),
    ],
)
.shaped(Shape::KeyValue);

static INSTRUMENTATION_SCOPE: Message = Message::new(
    "InstrumentationScope",
    &[
        one(1, "name", Kind::String),
        one(2, "version", Kind::String),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "dropped_attributes_count", Kind::Uint32),
    ],
)
.shaped(Shape::Scope);

static ENTITY_REF: Message = Message::new(
    "EntityRef",
    &[
        one(1, "schema_url", Kind::String),
        one(2, "type", Kind::String),
        many(3, "id_keys", Kind::String),
        many(4, "description_keys", Kind::String),
    ],
);

// Enums

static SPAN_KINDS: [(&str, i32); 6] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
];

static STATUS_CODES: [(&str, i32); 3] =
    [("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)];

static TEMPORALITIES: [(&str, i32); 3] = [
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
];

static SEVERITIES: [(&str, i32); 25] = [
    ("SEVERITY_NUMBER_UNSPECIFIED", 0),
    ("SEVERITY_NUMBER_TRACE", 1),
    ("SEVERITY_NUMBER_TRACE2", 2),
    ("SEVERITY_NUMBER_TRACE3", 3),
    ("SEVERITY_NUMBER_TRACE4", 4),
    ("SEVERITY_NUMBER_DEBUG", 5),
    ("SEVERITY_NUMBER_DEBUG2", 6),
    ("SEVERITY_NUMBER_DEBUG3", 7),
    ("SEVERITY_NUMBER_DEBUG4", 8),
    ("SEVERITY_NUMBER_INFO", 9),
    ("SEVERITY_NUMBER_INFO2", 10),
    ("SEVERITY_NUMBER_INFO3", 11),
    ("SEVERITY_NUMBER_INFO4", 12),
    ("SEVERITY_NUMBER_WARN", 13),
    ("SEVERITY_NUMBER_WARN2", 14),
    ("SEVERITY_NUMBER_WARN3", 15),
    ("SEVERITY_NUMBER_WARN4", 16),
    ("SEVERITY_NUMBER_ERROR", 17),
    ("SEVERITY_NUMBER_ERROR2", 18),
    ("SEVERITY_NUMBER_ERROR3", 19),
    ("SEVERITY_NUMBER_ERROR4", 20),
    ("SEVERITY_NUMBER_FATAL", 21),
    ("SEVERITY_NUMBER_FATAL2", 22),
    ("SEVERITY_NUMBER_FATAL3", 23),
    ("SEVERITY_NUMBER_FATAL4", 24),
];
