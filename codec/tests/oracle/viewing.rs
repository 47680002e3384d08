//! What a view shows is what prost decodes.

use forebay_codec::check::check;
use forebay_codec::signal::Signal;
use forebay_codec::split::split;
use forebay_codec::view::{self, Attributes, DataKind, Group, ScopeGroup, Value};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::decoded::Decoded;
use crate::verdict::case;

#[test]
fn views_show_what_prost_decodes_in_every_legal_form() {
    let mut values = 0;
    for seed in 0..3_000 {
        let (signal, bytes) = case(seed);
        let whole = Decoded::from_proto(signal, &bytes).unwrap();
        let checked = check(signal, bytes.into()).unwrap();
        let note = format!("seed {seed}, {signal}");
        values += compared(&whole, view::groups(&checked), &note);
    }
    assert!(values > 10_000, "only {values} attributes: the test tests little");
}

#[test]
fn views_see_through_the_parts_of_a_chain() {
    for seed in 0..1_000 {
        let (signal, bytes) = case(seed);
        for chain in split(check(signal, bytes.into()).unwrap(), 3, 0) {
            let whole = Decoded::from_proto(signal, &chain.parts.concat()).unwrap();
            compared(&whole, view::chain_groups(&chain), &format!("seed {seed}, {signal}"));
        }
    }
}

/// Compares everything that a view can show; returns how many attributes there were.
fn compared<'a>(whole: &Decoded, groups: impl Iterator<Item = Group<'a>>, note: &str) -> usize {
    let mut seen = 0;
    macro_rules! each {
        ($groups:expr, $scopes:ident, $item:expr) => {{
            let mut views = groups;
            for group in $groups {
                let view = views.next().unwrap_or_else(|| panic!("{note}: a group is missing"));
                assert_eq!(view.schema_url(), group.schema_url, "{note}");
                seen += resource(group.resource.as_ref(), view, note);
                let mut scopes = view.scopes();
                for decoded in &group.$scopes {
                    let view = scopes.next().unwrap_or_else(|| panic!("{note}: a scope too few"));
                    assert_eq!(view.schema_url(), decoded.schema_url, "{note}");
                    seen += scope(decoded.scope.as_ref(), view, note);
                    seen += $item(decoded, view);
                }
                assert!(scopes.next().is_none(), "{note}: a scope too many");
            }
            assert!(views.next().is_none(), "{note}: a group too many");
        }};
    }
    match whole {
        Decoded::Traces(request) => {
            each!(&request.resource_spans, scope_spans, |decoded, view| spans(decoded, view, note))
        }
        Decoded::Logs(request) => {
            each!(&request.resource_logs, scope_logs, |decoded, view| logs(decoded, view, note))
        }
        Decoded::Metrics(request) => {
            each!(&request.resource_metrics, scope_metrics, |decoded, view| metrics(
                decoded, view, note
            ))
        }
        // Their attributes may be indices into a table, which a view does not resolve.
        Decoded::Profiles(request) => assert_eq!(groups.count(), request.resource_profiles.len()),
    }
    seen
}

fn resource(decoded: Option<&Resource>, view: Group<'_>, note: &str) -> usize {
    let decoded = decoded.cloned().unwrap_or_default();
    let view = view.resource();
    assert_eq!(view.dropped_attributes_count(), decoded.dropped_attributes_count, "{note}");
    attributes(&decoded.attributes, view.attributes(), note)
}

fn scope(decoded: Option<&InstrumentationScope>, view: ScopeGroup<'_>, note: &str) -> usize {
    let decoded = decoded.cloned().unwrap_or_default();
    let view = view.scope();
    assert_eq!((view.name(), view.version()), (&*decoded.name, &*decoded.version), "{note}");
    attributes(&decoded.attributes, view.attributes(), note)
}

fn spans(
    decoded: &opentelemetry_proto::tonic::trace::v1::ScopeSpans,
    view: ScopeGroup<'_>,
    note: &str,
) -> usize {
    let views: Vec<_> = view.spans().collect();
    assert_eq!(views.len(), decoded.spans.len(), "{note}");
    assert_eq!((view.metrics().count(), view.log_records().count()), (0, 0), "{note}");
    let mut seen = 0;
    for (span, view) in decoded.spans.iter().zip(views) {
        assert_eq!(view.trace_id(), span.trace_id, "{note}");
        assert_eq!(view.span_id(), span.span_id, "{note}");
        assert_eq!(view.parent_span_id(), span.parent_span_id, "{note}");
        assert_eq!((view.name(), view.kind()), (&*span.name, span.kind), "{note}");
        let times = (view.start_time_unix_nano(), view.end_time_unix_nano());
        assert_eq!(times, (span.start_time_unix_nano, span.end_time_unix_nano), "{note}");
        let status = span.status.clone().unwrap_or_default();
        assert_eq!(view.status_code(), status.code, "{note}");
        assert_eq!(view.status_message(), status.message, "{note}");
        seen += attributes(&span.attributes, view.attributes(), note);
    }
    seen
}

fn logs(
    decoded: &opentelemetry_proto::tonic::logs::v1::ScopeLogs,
    view: ScopeGroup<'_>,
    note: &str,
) -> usize {
    let views: Vec<_> = view.log_records().collect();
    assert_eq!(views.len(), decoded.log_records.len(), "{note}");
    let mut seen = 0;
    for (record, view) in decoded.log_records.iter().zip(views) {
        assert_eq!(view.trace_id(), record.trace_id, "{note}");
        assert_eq!(view.span_id(), record.span_id, "{note}");
        assert_eq!(view.severity_number(), record.severity_number, "{note}");
        assert_eq!(view.severity_text(), record.severity_text, "{note}");
        assert_eq!(view.event_name(), record.event_name, "{note}");
        let times = (view.time_unix_nano(), view.observed_time_unix_nano());
        assert_eq!(times, (record.time_unix_nano, record.observed_time_unix_nano), "{note}");
        same(record.body.as_ref(), view.body(), note);
        seen += attributes(&record.attributes, view.attributes(), note);
    }
    seen
}

fn metrics(
    decoded: &opentelemetry_proto::tonic::metrics::v1::ScopeMetrics,
    view: ScopeGroup<'_>,
    note: &str,
) -> usize {
    let views: Vec<_> = view.metrics().collect();
    assert_eq!(views.len(), decoded.metrics.len(), "{note}");
    let mut seen = 0;
    for (metric, view) in decoded.metrics.iter().zip(views) {
        assert_eq!((view.name(), view.unit()), (&*metric.name, &*metric.unit), "{note}");
        assert_eq!(view.description(), metric.description, "{note}");
        seen += attributes(&metric.metadata, view.metadata(), note);
        macro_rules! points {
            ($data:expr, $kind:ident) => {{
                assert_eq!(view.kind(), Some(DataKind::$kind), "{note}");
                let views: Vec<_> = view.points().collect();
                assert_eq!(views.len(), $data.data_points.len(), "{note}");
                for (point, view) in $data.data_points.iter().zip(views) {
                    assert_eq!(view.time_unix_nano(), point.time_unix_nano, "{note}");
                    assert_eq!(view.start_time_unix_nano(), point.start_time_unix_nano, "{note}");
                    seen += attributes(&point.attributes, view.attributes(), note);
                }
            }};
        }
        match &metric.data {
            None => assert_eq!((view.kind(), view.points().count()), (None, 0), "{note}"),
            Some(Data::Gauge(data)) => points!(data, Gauge),
            Some(Data::Sum(data)) => points!(data, Sum),
            Some(Data::Histogram(data)) => points!(data, Histogram),
            Some(Data::ExponentialHistogram(data)) => points!(data, ExponentialHistogram),
            Some(Data::Summary(data)) => points!(data, Summary),
        }
    }
    seen
}

fn attributes(decoded: &[KeyValue], view: Attributes<'_>, note: &str) -> usize {
    let views: Vec<_> = view.iter().collect();
    assert_eq!(views.len(), decoded.len(), "{note}");
    for (pair, (key, value)) in decoded.iter().zip(views) {
        assert_eq!(key, pair.key, "{note}");
        same(pair.value.as_ref(), value, note);
        // A key that is there twice is looked up as the first.
        let first = decoded.iter().find(|first| first.key == pair.key).expect(note);
        same(first.value.as_ref(), view.value(key).expect("the key is there"), note);
    }
    assert!(view.value("no such key").is_none(), "{note}");
    decoded.len()
}

fn same(decoded: Option<&AnyValue>, view: Value<'_>, note: &str) {
    match (decoded.and_then(|value| value.value.as_ref()), view) {
        (None | Some(AnyOf::StringValueStrindex(_)), Value::Empty) => {}
        (Some(AnyOf::StringValue(text)), Value::String(view)) => assert_eq!(view, text, "{note}"),
        (Some(AnyOf::BoolValue(bool)), Value::Bool(view)) => assert_eq!(view, *bool, "{note}"),
        (Some(AnyOf::IntValue(number)), Value::Int(view)) => assert_eq!(view, *number, "{note}"),
        (Some(AnyOf::DoubleValue(number)), Value::Double(view)) => {
            assert_eq!(view.to_bits(), number.to_bits(), "{note}");
        }
        (Some(AnyOf::BytesValue(bytes)), Value::Bytes(view)) => assert_eq!(view, bytes, "{note}"),
        (Some(AnyOf::ArrayValue(array)), Value::Array(view)) => {
            let views: Vec<_> = view.iter().collect();
            assert_eq!(views.len(), array.values.len(), "{note}");
            for (value, view) in array.values.iter().zip(views) {
                same(Some(value), view, note);
            }
        }
        (Some(AnyOf::KvlistValue(list)), Value::Map(view)) => {
            attributes(&list.values, view, note);
        }
        (decoded, view) => panic!("{note}: {decoded:?} is shown as {view:?}"),
    }
}

#[test]
fn of_a_oneof_given_several_times_the_parts_of_the_last_member_count_as_prost_merges_them() {
    use fastrand::Rng;
    use forebay_codec::wire;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
    use prost::Message;

    for seed in 0..3_000 {
        let mut random = Rng::with_seed(seed);
        // A body of some members in any order, each an array, a map, a number or a text.
        let mut body = Vec::new();
        for _ in 0..random.usize(0..6) {
            let mut inner = Vec::new();
            wire::put_number(&mut inner, 3, random.u64(1..100));
            let mut list = Vec::new();
            wire::put_bytes(&mut list, 1, &inner);
            match random.u8(0..4) {
                0 => wire::put_bytes(&mut body, 1, b"text"),
                1 => body.extend(inner),
                2 => wire::put_bytes(&mut body, 5, &list),
                _ => wire::put_bytes(&mut body, 6, &[]),
            }
        }
        // The body itself in one part or in two.
        let ends: Vec<_> = wire::Fields::new(&body, 0..body.len()).map(|f| f.whole.end).collect();
        let cut = random.choice(ends).unwrap_or(0);
        let mut record = Vec::new();
        wire::put_bytes(&mut record, 5, &body[..cut]);
        wire::put_bytes(&mut record, 5, &body[cut..]);
        let mut bytes = record;
        for number in [2, 2, 1] {
            let mut around = Vec::new();
            wire::put_bytes(&mut around, number, &bytes);
            bytes = around;
        }
        let decoded = Logs::decode(&bytes[..]).unwrap();
        let checked = check(Signal::Logs, bytes.into()).unwrap();
        compared(&Decoded::Logs(decoded), view::groups(&checked), &format!("seed {seed}"));
    }
}
