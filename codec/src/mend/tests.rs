//! Requests that prost wrote, with texts broken on purpose, mended and compared with the same
//! change on prost's types.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, span::Event};
use prost::Message as _;

use super::*;

/// Stands where three bad bytes will be; its own three occur nowhere else.
const MARK: char = '\u{e000}';

fn broken(request: &impl prost::Message) -> Bytes {
    let mut bytes = request.encode_to_vec();
    let mark = MARK.to_string();
    while let Some(at) = memchr::memmem::find(&bytes, mark.as_bytes()) {
        bytes[at..at + 3].copy_from_slice(b"\xff\xfe\xfd");
    }
    bytes.into()
}

/// Text with a mark in it, one time in `rarely`.
fn text(dice: &mut fastrand::Rng, rarely: u32) -> String {
    let mut text: String = (0..dice.usize(2..30)).map(|_| dice.lowercase()).collect();
    if dice.u32(0..rarely) == 0 {
        let at = dice.usize(0..=text.len());
        text.insert(at, MARK);
    }
    text
}

fn attributes(dice: &mut fastrand::Rng, rarely: u32) -> Vec<KeyValue> {
    let pair = |dice: &mut fastrand::Rng| {
        let value = Some(AnyValue { value: Some(Value::StringValue(text(dice, rarely))) });
        KeyValue { key: text(dice, rarely), value, ..Default::default() }
    };
    (0..dice.usize(0..4)).map(|_| pair(dice)).collect()
}

fn traces(dice: &mut fastrand::Rng) -> Traces {
    let span = |dice: &mut fastrand::Rng| Span {
        name: text(dice, 8),
        attributes: attributes(dice, 20),
        events: vec![Event { name: text(dice, 20), ..Default::default() }],
        ..Default::default()
    };
    let scope = |dice: &mut fastrand::Rng| ScopeSpans {
        scope: Some(InstrumentationScope { name: text(dice, 20), ..Default::default() }),
        spans: (0..dice.usize(2..6)).map(|_| span(dice)).collect(),
        schema_url: text(dice, 40),
    };
    let group = |dice: &mut fastrand::Rng| ResourceSpans {
        resource: Some(Resource { attributes: attributes(dice, 40), ..Default::default() }),
        scope_spans: (0..dice.usize(2..4)).map(|_| scope(dice)).collect(),
        schema_url: text(dice, 40),
    };
    Traces { resource_spans: (0..dice.usize(2..4)).map(|_| group(dice)).collect() }
}

fn fault(outcome: Result<Mended, Unmendable>) -> WireError {
    match outcome {
        Err(Unmendable::Malformed(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn is_marked(part: &impl std::fmt::Debug) -> bool {
    format!("{part:?}").contains("\\u{e000}")
}

/// What is left when each bad text takes along the smallest part that can go.
fn without_marked(mut request: Traces) -> Traces {
    request.resource_spans.retain(|group| !is_marked(&group.resource) && sound(&group.schema_url));
    for group in &mut request.resource_spans {
        group.scope_spans.retain(|scope| !is_marked(&scope.scope) && sound(&scope.schema_url));
        group.scope_spans.iter_mut().for_each(|scope| scope.spans.retain(|s| !is_marked(s)));
    }
    request
}

fn sound(text: &str) -> bool {
    !text.contains(MARK)
}

fn spans(request: &Traces) -> u64 {
    let scopes = request.resource_spans.iter().flat_map(|group| &group.scope_spans);
    scopes.map(|scope| scope.spans.len() as u64).sum()
}

#[test]
fn s12_every_policy_does_to_bytes_what_it_would_do_to_decoded_requests() {
    let (mut mended, mut refused) = (0, 0);
    for seed in 0..2_000 {
        let request = traces(&mut fastrand::Rng::with_seed(seed));
        let bytes = broken(&request);
        let with = |policy| check_or_mend(Signal::Traces, bytes.clone(), policy, usize::MAX);
        if !is_marked(&request) {
            let untouched = with(InvalidUtf8::RefuseItem).unwrap();
            assert_eq!(untouched.checked.bytes(), &bytes, "seed {seed}");
            continue;
        }
        assert_eq!(fault(with(InvalidUtf8::RefuseRequest)).reason, Reason::InvalidUtf8);

        let replaced = with(InvalidUtf8::Replace).unwrap();
        let decoded = Traces::decode(replaced.checked.bytes().as_ref()).unwrap();
        let expected = format!("{request:?}").replace("\\u{e000}", "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(format!("{decoded:?}"), expected, "seed {seed}");
        assert_eq!(replaced.items_refused, 0);
        assert!(replaced.texts_replaced > 0);
        mended += replaced.texts_replaced;

        let left = with(InvalidUtf8::RefuseItem).unwrap();
        let decoded = Traces::decode(left.checked.bytes().as_ref()).unwrap();
        let all = spans(&request);
        assert_eq!(decoded, without_marked(request), "seed {seed}");
        assert_eq!(left.items_refused, all - spans(&decoded), "seed {seed}");
        refused += left.items_refused;
    }
    assert!(mended > 1_000 && refused > 1_000, "{mended} {refused}");
}

#[test]
fn s12_a_bad_name_of_a_metric_takes_its_points_along_and_no_others() {
    let point = NumberDataPoint::default;
    let metric = |name: &str, points: usize| Metric {
        name: name.to_owned(),
        data: Some(Data::Gauge(Gauge { data_points: vec![point(); points] })),
        ..Default::default()
    };
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![metric("good", 3), metric("b\u{e000}d", 4)],
        ..Default::default()
    }];
    let request =
        Metrics { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] };
    let bytes = broken(&request);
    let left = check_or_mend(Signal::Metrics, bytes, InvalidUtf8::RefuseItem, usize::MAX).unwrap();
    assert_eq!((left.items_refused, left.checked.counts().items), (4, 3));
    assert_eq!(left.parts_refused, 1);
}

#[test]
fn what_is_left_out_without_any_item_is_told_too() {
    // A resource group with a bad schema URL and nothing else.
    let bytes = Bytes::from_static(&[0x0a, 0x03, 0x1a, 0x01, 0xff]);
    let left = check_or_mend(Signal::Logs, bytes, InvalidUtf8::RefuseItem, 100).unwrap();
    assert_eq!((left.items_refused, left.parts_refused), (0, 1));
    assert!(left.checked.bytes().is_empty());
}

#[test]
fn what_replacing_makes_too_large_is_refused_at_the_very_byte() {
    // One schema URL of 100 bad bytes: 300 bytes when replaced, and 5 around them.
    let group = [&[0x1a, 100][..], &[0xff; 100]].concat();
    let bytes = Bytes::from([&[0x0a, 102][..], &group].concat());
    let with =
        |bytes_max| check_or_mend(Signal::Logs, bytes.clone(), InvalidUtf8::Replace, bytes_max);
    let length = with(306).unwrap().checked.bytes().len();
    assert_eq!(length, 306);
    assert_eq!(with(305).unwrap_err(), Unmendable::TooLarge { bytes_max: 305 });
}

#[test]
fn lengths_stay_minimal_whatever_grows_or_shrinks() {
    for padding in 100..140 {
        let text = [&vec![b'x'; padding][..], &[0xff; 3]].concat();
        let mut group = Vec::new();
        wire::put_bytes(&mut group, 3, &text);
        let mut bytes = Vec::new();
        wire::put_bytes(&mut bytes, 1, &group);
        let replaced =
            check_or_mend(Signal::Logs, bytes.into(), InvalidUtf8::Replace, usize::MAX).unwrap();
        let text = String::from_utf8_lossy(&text);
        let (mut group, mut expected) = (Vec::new(), Vec::new());
        wire::put_bytes(&mut group, 3, text.as_bytes());
        wire::put_bytes(&mut expected, 1, &group);
        assert_eq!(replaced.checked.bytes(), &expected);
    }
}

#[test]
fn r1_profiles_with_bad_text_are_refused_whole_or_have_it_replaced() {
    // A dictionary with a string table of two texts, the second of them bad.
    let dictionary = [0x12, 0x07, 0x2a, 0x01, b'a', 0x2a, 0x02, b'b', 0xff];
    let bytes = Bytes::copy_from_slice(&dictionary);
    let with = |policy| check_or_mend(Signal::Profiles, bytes.clone(), policy, usize::MAX);
    assert_eq!(fault(with(InvalidUtf8::RefuseItem)).reason, Reason::InvalidUtf8);
    assert_eq!(with(InvalidUtf8::Replace).unwrap().texts_replaced, 1);
}

#[test]
fn another_fault_behind_bad_text_is_told_and_nothing_is_mended() {
    // A group with a bad schema URL, and then a group that ends too early.
    let bytes = Bytes::from_static(&[0x0a, 0x03, 0x1a, 0x01, 0xff, 0x0a, 0x05, 0x00]);
    for policy in [InvalidUtf8::RefuseItem, InvalidUtf8::Replace] {
        let error = fault(check_or_mend(Signal::Logs, bytes.clone(), policy, usize::MAX));
        assert_eq!((error.offset, error.reason), (6, Reason::LengthOverflow));
    }
}
