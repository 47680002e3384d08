//! What the verdict says, case by case; `tests/oracle/verdict.rs` compares it with prost at random.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;

use super::*;

mod strides;

/// A field of wire type 2 around what `parts` hold.
fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, &parts.concat());
    out
}

/// A trace request with one span of these fields.
fn span(fields: &[&[u8]]) -> Vec<u8> {
    field(1, &[&field(2, &[&field(2, fields)])])
}

fn verdict_on(signal: Signal, bytes: Vec<u8>) -> Result<Checked, WireError> {
    check(signal, Bytes::from(bytes))
}

fn refused(fields: &[&[u8]]) -> WireError {
    verdict_on(Signal::Traces, span(fields)).unwrap_err()
}

#[test]
fn s2_zero_bytes_are_an_empty_request_of_every_signal() {
    for signal in Signal::ALL {
        let checked = verdict_on(signal, Vec::new()).unwrap();
        assert_eq!(checked.counts(), Counts::default());
        assert_eq!(checked.signal(), signal);
    }
}

#[test]
fn an_error_tells_the_offset_the_path_and_the_reason() {
    let error = refused(&[&field(5, &[b"ab\xffc"])]);
    assert_eq!(error.offset, 2 + 2 + 2 + 2 + 2);
    assert_eq!(error.path, "resource_spans.scope_spans.spans.name");
    let text = "at byte 10, resource_spans.scope_spans.spans.name: string is not UTF-8";
    assert_eq!(error.to_string(), text);
    let error = verdict_on(Signal::Logs, vec![0x00]).unwrap_err();
    assert_eq!(error.to_string(), "at byte 0, the request: field number is 0");
}

#[test]
fn s12_strings_must_be_utf8_wherever_they_stand() {
    let bad: &[u8] = b"\xed\xa0\x80"; // Half of a surrogate pair.
    let value = field(2, &[&field(1, &[bad])]);
    let places = [
        field(5, &[bad]),
        field(3, &[bad]),
        field(9, &[&field(1, &[bad])]),
        field(9, &[&value]),
        field(11, &[&field(2, &[bad])]),
        field(13, &[&field(3, &[bad])]),
        field(15, &[&field(2, &[bad])]),
    ];
    for place in places {
        assert_eq!(refused(&[&place]).reason, Reason::InvalidUtf8, "{place:x?}");
    }
    // Bytes are not strings, and unknown fields are nothing yet.
    let bytes_value = field(9, &[&field(2, &[&field(7, &[bad])])]);
    assert!(verdict_on(Signal::Traces, span(&[&bytes_value, &field(99, &[bad])])).is_ok());
}

#[test]
fn ids_have_their_length_or_none() {
    for (number, expected) in [(1, 16), (2, 8), (4, 8)] {
        for found in [0, 1, 7, 8, 9, 15, 16, 17, 32] {
            let bytes = span(&[&field(number, &[&vec![7; found]])]);
            let verdict = verdict_on(Signal::Traces, bytes).map_err(|error| error.reason);
            match found == 0 || found == expected {
                true => assert!(verdict.is_ok(), "field {number} of {found} bytes"),
                false => {
                    let reason = Reason::WrongIdLength { found, expected };
                    assert_eq!(verdict.unwrap_err(), reason);
                }
            }
        }
    }
}

#[test]
fn d1_known_fields_have_their_wire_type() {
    let reason = refused(&[&[5 << 3, 1]]).reason;
    assert_eq!(reason, Reason::WrongWireType { found: 0, expected: 2 });
    // `flags` is singular, so it cannot be packed.
    let reason = refused(&[&field(16, &[&[0; 4]])]).reason;
    assert_eq!(reason, Reason::WrongWireType { found: 2, expected: 5 });
}

#[test]
fn d1_packed_and_single_numbers_are_both_legal() {
    let point = |field_bytes: &[u8]| {
        let histogram = field(9, &[&field(1, &[field_bytes])]);
        let bytes = field(1, &[&field(2, &[&field(2, &[&histogram])])]);
        verdict_on(Signal::Metrics, bytes).map(|checked| checked.counts().items)
    };
    assert_eq!(point(&field(6, &[&[1; 16]])), Ok(1));
    assert_eq!(point(&[&[6 << 3 | 1][..], &[1; 8]].concat()), Ok(1));
    let reason = point(&field(6, &[&[1; 15]])).unwrap_err().reason;
    assert_eq!(reason, Reason::WrongPackedLength { found: 15, width: 8 });
}

#[test]
fn d1_groups_are_refused_in_known_and_unknown_fields() {
    for number in [5u8, 15] {
        let group = [number << 3 | 3, number << 3 | 4];
        let error = refused(&[&group]);
        assert_eq!(error.reason, Reason::GroupWireType);
        assert_eq!(error.path, "resource_spans.scope_spans.spans");
    }
    assert!(refused(&[&[5 << 3 | 4]]).reason == Reason::GroupWireType);
    assert_eq!(refused(&[&[5 << 3 | 7]]).reason, Reason::UnknownWireType { found: 7 });
}

#[test]
fn d1_a_length_ends_with_its_message_not_with_the_request() {
    // The span's name claims the bytes of the field behind the span.
    let mut bytes = span(&[&[5 << 3 | 2, 3, b'a']]);
    bytes.extend_from_slice(&field(1, &[]));
    let error = verdict_on(Signal::Traces, bytes).unwrap_err();
    assert_eq!(error.reason, Reason::LengthOverflow);
    let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let error = verdict_on(Signal::Traces, huge.to_vec()).unwrap_err();
    assert_eq!((error.reason, error.offset), (Reason::LengthOverflow, 1));
}

#[test]
fn s9_unknown_fields_pass_at_every_depth_when_they_are_well_formed() {
    let unknown = [field(200, &[b"\xff"]), vec![0xf9, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let attribute = field(9, &[&unknown, &field(2, &[&unknown])]);
    let bytes = [unknown.clone(), span(&[&unknown, &attribute])].concat();
    let checked = verdict_on(Signal::Traces, bytes.clone()).unwrap();
    assert_eq!(checked.counts().items, 1);
    assert_eq!(checked.bytes(), &bytes, "d2: the bytes stay as they came");
    assert!(refused(&[&unknown[..unknown.len() - 1]]).reason == Reason::Truncated);
}

#[test]
fn d1_singular_messages_may_come_in_parts_and_fields_in_any_order() {
    let parts = [field(15, &[&[3 << 3, 1]]), field(5, &[b"n"]), field(15, &[&field(2, &[b"m"])])];
    let bytes = span(&[&parts.concat()]);
    let request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
    let status = request.resource_spans[0].scope_spans[0].spans[0].status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (1, "m"));
    assert!(verdict_on(Signal::Traces, bytes).is_ok());
}

#[test]
fn d1_of_two_kinds_of_data_the_points_of_the_last_count() {
    let data = |number, points: usize| field(number, &[&field(1, &[]).repeat(points)]);
    let request = |data: &[Vec<u8>]| {
        field(1, &[&field(2, &[&field(2, &[&data.concat()]), &field(2, &[&field(5, &[])])])])
    };
    let cases = [
        (vec![data(5, 2)], 2),
        (vec![data(5, 2), data(5, 3)], 5),
        (vec![data(5, 2), data(7, 3)], 3),
        (vec![data(5, 2), data(7, 3), field(1, &[b"name"]), data(5, 1)], 1),
    ];
    for (data, expected) in cases {
        let bytes = request(&data);
        let oracle = ExportMetricsServiceRequest::decode(&*bytes).unwrap();
        let points = match &oracle.resource_metrics[0].scope_metrics[0].metrics[0].data {
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Sum(sum)) => sum.data_points.len(),
            other => panic!("{other:?}"),
        };
        let checked = verdict_on(Signal::Metrics, bytes).unwrap();
        assert_eq!((checked.counts().items, points), (expected, expected as usize));
    }
}

#[test]
fn s10_values_may_be_empty_nested_or_bytes() {
    let values = [field(2, &[]), field(2, &[&field(5, &[&field(1, &[]), &field(1, &[])])])];
    for value in values {
        assert!(verdict_on(Signal::Traces, span(&[&field(9, &[&value])])).is_ok());
    }
}

/// A log record whose body is this many arrays inside one another.
fn nested_arrays(arrays: usize) -> Vec<u8> {
    // Built from the inside out, backwards, so that a million levels take linear time.
    let mut reversed: Vec<u8> = Vec::new();
    let mut around = |tag: u8| {
        let mut head = vec![tag];
        wire::put_varint(&mut head, reversed.len() as u64);
        reversed.extend(head.iter().rev());
    };
    for _ in 0..arrays {
        around(1 << 3 | 2);
        around(5 << 3 | 2);
    }
    for tag in [5 << 3 | 2, 2 << 3 | 2, 2 << 3 | 2, 1 << 3 | 2] {
        around(tag);
    }
    reversed.reverse();
    reversed
}

#[test]
fn d1_nesting_is_bounded_and_never_costs_stack() {
    // Groups, scope, record and body are four levels, and each array is two.
    let arrays_max = (DEPTH_MAX - 4) / 2;
    assert!(verdict_on(Signal::Logs, nested_arrays(arrays_max)).is_ok());
    let error = verdict_on(Signal::Logs, nested_arrays(arrays_max + 1)).unwrap_err();
    assert_eq!(error.reason, Reason::TooDeep);
    assert!(error.path.starts_with("resource_logs.scope_logs.log_records.body.array_value"));
    let error = verdict_on(Signal::Logs, nested_arrays(1_000_000)).unwrap_err();
    assert_eq!(error.reason, Reason::TooDeep);
}

#[test]
fn s11_string_table_indices_outside_profiles_are_a_warning() {
    let by_key = span(&[&field(9, &[&[3 << 3, 1]])]);
    let by_value = span(&[&field(9, &[&field(2, &[&[8 << 3, 1]])])]);
    for bytes in [by_key, by_value] {
        let checked = verdict_on(Signal::Traces, bytes).unwrap();
        assert!(checked.warnings().strindex_outside_profiles);
    }
    let resource = field(1, &[&field(1, &[&field(1, &[&[3 << 3, 1]])])]);
    let checked = verdict_on(Signal::Profiles, resource).unwrap();
    assert!(!checked.warnings().strindex_outside_profiles);
}

#[test]
fn r2_profiles_and_their_samples_are_both_counted() {
    let profile = field(2, &[&field(2, &[]), &field(2, &[])]);
    let bytes = field(1, &[&field(2, &[&profile, &profile, &field(2, &[])])]);
    let counts = verdict_on(Signal::Profiles, bytes).unwrap().counts();
    assert_eq!(counts, Counts { items: 4, profiles: 3 });
}

#[test]
fn d1_bytes_behind_the_last_field_are_not_ignored() {
    let mut bytes = span(&[]);
    bytes.push(0x0a);
    let error = verdict_on(Signal::Traces, bytes).unwrap_err();
    assert_eq!((error.reason, error.offset), (Reason::Truncated, 7));
}
