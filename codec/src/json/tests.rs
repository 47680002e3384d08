//! Row by row of OTLP's JSON rules; `tests/oracle/json.rs` compares with serde and prost at random.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::*;
use crate::check::check;
use crate::wire;

mod examples;

fn span_json(span: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#)
}

fn span(json: &str) -> Result<Span, JsonError> {
    let proto = json_to_proto(Signal::Traces, span_json(json).as_bytes(), usize::MAX)?;
    check(Signal::Traces, Bytes::from(proto.clone())).unwrap();
    let mut request = ExportTraceServiceRequest::decode(&*proto).unwrap();
    Ok(request.resource_spans[0].scope_spans[0].spans.remove(0))
}

fn point(json: &str) -> Result<NumberDataPoint, JsonError> {
    let metric = format!(r#"{{"gauge":{{"dataPoints":[{json}]}}}}"#);
    let json = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#);
    let proto = json_to_proto(Signal::Metrics, json.as_bytes(), usize::MAX)?;
    let mut request = ExportMetricsServiceRequest::decode(&*proto).unwrap();
    let metric = request.resource_metrics[0].scope_metrics[0].metrics.remove(0);
    let Some(Data::Gauge(mut gauge)) = metric.data else { panic!("not a gauge") };
    Ok(gauge.data_points.remove(0))
}

fn body(json: &str) -> Result<AnyValue, JsonError> {
    let json =
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{json}}}]}}]}}]}}"#);
    let proto = json_to_proto(Signal::Logs, json.as_bytes(), usize::MAX)?;
    let mut request = ExportLogsServiceRequest::decode(&*proto).unwrap();
    Ok(request.resource_logs[0].scope_logs[0].log_records.remove(0).body.unwrap_or_default())
}

fn reason<T: std::fmt::Debug>(result: Result<T, JsonError>) -> JsonReason {
    result.unwrap_err().reason
}

/// What `proto_to_json` makes of a request.
fn written(signal: Signal, proto: &[u8]) -> serde_json::Value {
    let mut out = Vec::new();
    proto_to_json(proto, signal, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn j1_trace_ids_are_hex_in_any_case() {
    let read = span(
        r#"{"traceId":"5B8EFFF798038103d269b633813fc60c","spanId":"EEE19B7EC3C1B174",
            "parentSpanId":""}"#,
    )
    .unwrap();
    assert_eq!(read.trace_id, 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128.to_be_bytes());
    assert_eq!(read.span_id, 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes());
    assert!(read.parent_span_id.is_empty());
}

#[test]
fn j1_ids_of_the_wrong_length_or_alphabet_are_refused_by_name() {
    let error = span(r#"{"traceId":"5b8e"}"#).unwrap_err();
    assert_eq!(error.reason, JsonReason::WrongIdLength { found_digits: 4, expected: 16 });
    assert_eq!(error.path, "resourceSpans.scopeSpans.spans.traceId");
    assert_eq!(reason(span(r#"{"spanId":"eee19b7ec3c1b17g"}"#)), JsonReason::NotHex);
    assert_eq!(reason(span(r#"{"spanId":7}"#)), JsonReason::Expected("a string"));
}

#[test]
fn j1_ids_are_written_as_lower_case_hex_and_other_bytes_as_base64() {
    let json = span_json(
        r#"{"spanId":"EEE19B7EC3C1B174","attributes":[{"key":"k","value":{"bytesValue":"-_8"}}]}"#,
    );
    let proto = json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).unwrap();
    let json = written(Signal::Traces, &proto);
    let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["spanId"], "eee19b7ec3c1b174");
    assert_eq!(span["attributes"][0]["value"]["bytesValue"], "+/8=");
}

#[test]
fn j1_profile_ids_are_base64_and_profile_links_hex() {
    let json = r#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[
        {"profileId":"AAECAwQFBgcICQoLDA0ODw=="}]}]}],
        "dictionary":{"linkTable":[{"spanId":"eee19b7ec3c1b174"}]}}"#;
    let proto = json_to_proto(Signal::Profiles, json.as_bytes(), usize::MAX).unwrap();
    let again = written(Signal::Profiles, &proto);
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(json).unwrap());
    let short = json.replace("AAECAwQFBgcICQoLDA0ODw==", "AAEC");
    let refused = json_to_proto(Signal::Profiles, short.as_bytes(), usize::MAX);
    assert_eq!(reason(refused), JsonReason::Expected("base64 of 16 bytes or none"));
}

#[test]
fn j2_enums_are_read_as_numbers_and_names_and_written_as_numbers() {
    for kind in ["3", "\"3\"", "3.0", "\"SPAN_KIND_CLIENT\""] {
        let json = format!(r#"{{"kind":{kind}}}"#);
        let expected = if kind == "\"3\"" { Err(JsonReason::UnknownEnumName) } else { Ok(3) };
        assert_eq!(span(&json).map(|s| s.kind).map_err(|e| e.reason), expected, "{kind}");
    }
    assert_eq!(span(r#"{"kind":77}"#).unwrap().kind, 77);
    let status = span(r#"{"status":{"code":"STATUS_CODE_ERROR"}}"#).unwrap().status.unwrap();
    assert_eq!(status.code, 2);
    let proto =
        json_to_proto(Signal::Traces, span_json(r#"{"kind":3}"#).as_bytes(), usize::MAX).unwrap();
    let span = &written(Signal::Traces, &proto)["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["kind"], 3);
}

#[test]
fn j3_unknown_fields_are_skipped_at_every_depth_whatever_they_hold() {
    let odd = r#"{"a":[1,-2.5e3,{"b":{},"c":[]},[[]],"x\"]}",null,true],"":{"d":false}}"#;
    let json = format!(
        r#"{{"x":{odd},"resourceSpans":[{{"y":{odd},"scopeSpans":[{{"spans":[
            {{"z":{odd},"name":"n","attributes":[{{"key":"k","w":[{odd}],
            "value":{{"newValue":{odd},"intValue":1}}}}]}}],"v":[]}}]}}]}}"#
    );
    let proto = json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).unwrap();
    let request = ExportTraceServiceRequest::decode(&*proto).unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "n");
    let value = span.attributes[0].value.as_ref().unwrap();
    assert_eq!(value.value, Some(Value::IntValue(1)));
}

#[test]
fn j3_an_unknown_field_is_still_json() {
    for odd in ["{]", "[}", "{\"a\"}", "[1,]", "{,}", "nul", "[1 2]", "{\"a\":1,}", "\"\\x\""] {
        let json = span_json(&format!(r#"{{"x":{odd}}}"#));
        assert!(json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).is_err(), "{odd}");
    }
}

#[test]
fn j4_snake_case_is_read_and_camel_case_written() {
    let read = span(r#"{"start_time_unix_nano":"5","dropped_links_count":2}"#).unwrap();
    assert_eq!((read.start_time_unix_nano, read.dropped_links_count), (5, 2));
    let json = r#"{"resource_logs":[{"scope_logs":[{"log_records":[{"severity_number":9}]}]}]}"#;
    let proto = json_to_proto(Signal::Logs, json.as_bytes(), usize::MAX).unwrap();
    let json = written(Signal::Logs, &proto);
    assert_eq!(json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["severityNumber"], 9);
}

#[test]
fn j5_64_bit_integers_are_read_as_strings_and_numbers_and_written_as_strings() {
    for (text, expected) in
        [("1544712660000000000", 1_544_712_660_000_000_000), ("18446744073709551615", u64::MAX)]
    {
        for json in [text.to_owned(), format!("\"{text}\"")] {
            let read = span(&format!(r#"{{"startTimeUnixNano":{json}}}"#)).unwrap();
            assert_eq!(read.start_time_unix_nano, expected);
        }
    }
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":7,
        "body":{"intValue":-9223372036854775808}}]}]}]}"#;
    let proto = json_to_proto(Signal::Logs, json.as_bytes(), usize::MAX).unwrap();
    let record = &written(Signal::Logs, &proto)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["timeUnixNano"], "7");
    assert_eq!(record["body"]["intValue"], "-9223372036854775808");
}

#[test]
fn j5_integers_out_of_range_are_refused() {
    for json in [
        r#"{"startTimeUnixNano":-1}"#,
        r#"{"startTimeUnixNano":18446744073709551616}"#,
        r#"{"startTimeUnixNano":0.5}"#,
        r#"{"droppedLinksCount":4294967296}"#,
        r#"{"kind":2147483648}"#,
        r#"{"flags":-1}"#,
    ] {
        let refused = reason(span(json));
        assert!(matches!(refused, JsonReason::OutOfRange { .. }), "{json}: {refused:?}");
    }
    for json in [r#"{"flags":""}"#, r#"{"flags":" 1"}"#, r#"{"flags":"0x1"}"#] {
        assert_eq!(reason(span(json)), JsonReason::Expected("an integer"), "{json}");
    }
}

#[test]
fn j6_doubles_are_read_in_every_form_and_written_so_that_they_come_back() {
    let forms = [
        ("1.5", 1.5),
        ("\"1.5\"", 1.5),
        ("-1e-7", -1e-7),
        ("3", 3.0),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
    ];
    for (json, expected) in forms {
        let read = point(&format!(r#"{{"asDouble":{json}}}"#)).unwrap();
        assert_eq!(read.value, Some(Number::AsDouble(expected)), "{json}");
    }
    let Some(Number::AsDouble(nan)) = point(r#"{"asDouble":"NaN"}"#).unwrap().value else {
        panic!("no double")
    };
    assert!(nan.is_nan());
    for json in ["NaN", "\"nan\"", "1e999", "\"\"", "true", "1.", "+1"] {
        assert!(point(&format!(r#"{{"asDouble":{json}}}"#)).is_err(), "{json}");
    }
}

#[test]
fn j6_null_is_unset_and_in_an_array_of_messages_an_empty_one() {
    let read = span(r#"{"name":null,"status":null,"attributes":null,"kind":null}"#).unwrap();
    assert_eq!(read, Span::default());
    let read = body(r#"{"arrayValue":{"values":[null,{"stringValue":null},{}]}}"#).unwrap();
    let Some(Value::ArrayValue(array)) = read.value else { panic!("not an array") };
    assert_eq!(array.values, vec![AnyValue::default(); 3]);
    assert!(span(r#"{"attributes":[{"key":null}]}"#).is_ok());
}

#[test]
fn j6_base64_is_read_in_both_alphabets_with_and_without_padding() {
    for text in ["+/8=", "-_8=", "+/8", "-_8", "+\\/8="] {
        let read = body(&format!(r#"{{"bytesValue":"{text}"}}"#)).unwrap();
        assert_eq!(read.value, Some(Value::BytesValue(vec![0xfb, 0xff])), "{text}");
    }
    assert_eq!(reason(body(r#"{"bytesValue":"a"}"#)), JsonReason::NotBase64);
}

#[test]
fn the_same_key_again_means_what_it_means_in_protobuf() {
    let read = span(
        r#"{"name":"a","name":"b","kind":2,"kind":0,"attributes":[{"key":"x"}],
            "attributes":[{"key":"y"}],"status":{"code":2},"status":{"message":"m"}}"#,
    )
    .unwrap();
    assert_eq!((read.name.as_str(), read.kind), ("b", 0));
    let keys: Vec<_> = read.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["x", "y"]);
    let status = read.status.unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "m"));
    let read = body(r#"{"intValue":1,"stringValue":"last"}"#).unwrap();
    assert_eq!(read.value, Some(Value::StringValue("last".into())));
}

#[test]
fn strings_are_unescaped_and_half_characters_refused_with_their_place() {
    let read = span(r#"{"name":"\"\\\/\b\f\n\r\té☂\ud83d\ude00x"}"#).unwrap();
    assert_eq!(read.name, "\"\\/\u{8}\u{c}\n\r\té☂😀x");
    let cases = [
        (r"\ud83d", JsonReason::LoneSurrogate),
        (r"\ude00", JsonReason::LoneSurrogate),
        (r"\ud83d\u0041", JsonReason::LoneSurrogate),
        (r"\ud83dx", JsonReason::LoneSurrogate),
        (r"\u12g4", JsonReason::UnknownEscape),
        (r"\x41", JsonReason::UnknownEscape),
        ("\n", JsonReason::ControlCharacter),
    ];
    for (text, expected) in cases {
        let json = span_json(&format!(r#"{{"name":"ok{text}"}}"#));
        let error = json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).unwrap_err();
        assert_eq!(error.reason, expected, "{text}");
        assert_eq!(error.offset, json.find("ok").unwrap() + 2, "{text}");
    }
}

#[test]
fn s12_invalid_utf8_is_refused_with_its_place() {
    let mut json = span_json(r#"{"name":"?"}"#).into_bytes();
    let at = json.iter().position(|&byte| byte == b'?').unwrap();
    json[at] = 0xff;
    let error = json_to_proto(Signal::Traces, &json, usize::MAX).unwrap_err();
    assert_eq!((error.offset, error.reason), (at, JsonReason::NotUtf8));
}

#[test]
fn s2_an_empty_request_is_an_empty_object_and_nothing_less() {
    for json in ["{}", " {} \n", "\u{feff}{}", r#"{"resourceSpans":[]}"#] {
        assert_eq!(
            json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX),
            Ok(Vec::new()),
            "{json}"
        );
    }
    for json in ["", "  ", "\u{feff}"] {
        assert_eq!(
            reason(json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX)),
            JsonReason::Empty
        );
    }
    for json in ["null", "[]", "1", "\"{}\"", "{} {}", "{}x", "{", "}"] {
        assert!(json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).is_err(), "{json}");
    }
}

#[test]
fn s11_string_table_indices_outside_profiles_are_not_written() {
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"s"},
        "attributes":[{"keyStrindex":4,"value":{"stringValueStrindex":5}}]}]}]}]}"#;
    let proto = json_to_proto(Signal::Logs, json.as_bytes(), usize::MAX).unwrap();
    let checked = check(Signal::Logs, proto.clone().into()).unwrap();
    assert!(checked.warnings().strindex_outside_profiles);
    let record = &written(Signal::Logs, &proto)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["attributes"][0], serde_json::json!({"value": {}}));
    assert_eq!(record["body"]["stringValue"], "s");
}

#[test]
fn an_error_tells_line_column_and_path() {
    let json = "{\n \"resourceSpans\": [\n  {\"scopeSpans\": 7}\n ]\n}";
    let error = json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).unwrap_err();
    assert_eq!((error.line, error.column), (3, 18));
    let text = "at byte 39 (line 3, column 18), resourceSpans.scopeSpans: expected an array";
    assert_eq!(error.to_string(), text);
}

#[test]
fn every_prefix_of_a_request_is_refused_as_truncated_or_worse() {
    let json = span_json(
        r#"{"name":"a\u00e9","kind":3,"traceId":"5b8efff798038103d269b633813fc60c",
            "x":[{"y":-1.5e3}],"attributes":[{"key":"k","value":{"boolValue":true}}]}"#,
    );
    for cut in 0..json.len() {
        let refused = json_to_proto(Signal::Traces, &json.as_bytes()[..cut], usize::MAX);
        assert!(refused.is_err(), "cut at {cut}");
    }
    assert!(json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).is_ok());
}

#[test]
fn d1_nesting_is_bounded_and_never_costs_stack() {
    let nest = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels);
        body(&format!("{open}{}", "]}}".repeat(levels)))
    };
    assert!(nest(10).is_ok());
    assert_eq!(reason(nest(1_000_000)), JsonReason::TooDeep);
    let unknown =
        |levels: usize| span(&format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels)));
    assert!(unknown(128).is_ok());
    assert_eq!(reason(unknown(129)), JsonReason::TooDeep);
    assert_eq!(reason(unknown(1_000_000)), JsonReason::TooDeep);
}

#[test]
fn d1_numbers_that_grow_are_refused_where_they_pass_the_bound() {
    let open = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[
        {"bucketCounts":["#;
    let json = format!("{open}{}1]}}]}}}}]}}]}}]}}", "1,".repeat(5_000_000 / 2));
    let bytes_max = 1 << 20;
    let error = json_to_proto(Signal::Metrics, json.as_bytes(), bytes_max).unwrap_err();
    assert_eq!(error.reason, JsonReason::TooLarge { bytes_max });
    // Each count is eight bytes: this many are enough, and of the rest nothing was read.
    let read = open.len() + 2 * (bytes_max / 8);
    assert!(error.offset <= read, "stopped only at {}, expected {read}", error.offset);
    let path = "resourceMetrics.scopeMetrics.metrics.histogram.dataPoints.bucketCounts";
    assert_eq!(error.path, path);
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
}

#[test]
fn a_request_passes_at_its_own_size_and_at_nothing_less() {
    let values = [
        r#"{"name":"a long name with an escape \u00e9"}"#.to_owned(),
        r#"{"traceId":"5b8efff798038103d269b633813fc60c","kind":3}"#.to_owned(),
        r#"{"attributes":[{"key":"k","value":{"bytesValue":"AAECAwQFBgcICQoLDA0ODw=="}}]}"#.into(),
        r#"{"attributes":[{"key":"k","value":{"arrayValue":{"values":[null,{},null]}}}]}"#.into(),
        format!(r#"{{"events":[{}{{}}]}}"#, r#"{"timeUnixNano":"1","name":""},"#.repeat(20)),
    ];
    for json in values.map(|span| span_json(&span)) {
        let bytes = json_to_proto(Signal::Traces, json.as_bytes(), usize::MAX).unwrap().len();
        assert!(json_to_proto(Signal::Traces, json.as_bytes(), bytes).is_ok(), "{json}");
        for bytes_max in 0..bytes {
            let refused = json_to_proto(Signal::Traces, json.as_bytes(), bytes_max);
            assert_eq!(reason(refused), JsonReason::TooLarge { bytes_max }, "{json}");
        }
    }
    assert_eq!(json_to_proto(Signal::Traces, b"{}", 0), Ok(Vec::new()));
}

#[test]
fn what_would_not_pass_check_is_not_written() {
    let mut out = b"before".to_vec();
    assert!(proto_to_json(b"\x0a\x05", Signal::Logs, &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn a_field_that_comes_back_after_another_is_written_in_one_place() {
    let field = |number, value: &[u8]| {
        let mut out = Vec::new();
        wire::put_bytes(&mut out, number, value);
        out
    };
    let key = |key: &[u8]| field(3, &field(1, key));
    let scope = |content: &[u8]| field(1, &field(2, &field(1, content)));
    let apart = scope(&[key(b"a"), field(1, b"n"), key(b"b")].concat());
    let together = scope(&[field(1, b"n"), key(b"a"), key(b"b")].concat());
    let twice = scope(&[field(1, b"m"), key(b"a"), field(1, b"n"), key(b"b")].concat());
    let expected = written(Signal::Traces, &together);
    assert_eq!(written(Signal::Traces, &apart), expected);
    assert_eq!(written(Signal::Traces, &twice), expected);
    let in_wire_order =
        |bytes: &[u8]| write::request_in_wire_order(Signal::Traces, bytes, &mut Vec::new());
    assert!(in_wire_order(&together).is_some());
    assert!(in_wire_order(&apart).is_none());
    assert!(in_wire_order(&twice).is_none());
}

#[test]
fn both_ways_of_writing_write_the_same() {
    for (signal, json) in examples::ALL {
        let proto = json_to_proto(signal, json.as_bytes(), usize::MAX).unwrap();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        assert!(write::request_in_wire_order(signal, &proto, &mut one).is_some());
        write::request_by_field(signal, &proto, &mut other);
        let [one, other] =
            [one, other].map(|json| serde_json::from_slice::<serde_json::Value>(&json).unwrap());
        assert_eq!(one, other);
    }
}

#[test]
fn requests_as_the_specification_shows_them_come_back_as_they_were() {
    for (signal, json) in examples::ALL {
        let proto = json_to_proto(signal, json.as_bytes(), usize::MAX).unwrap();
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        // The examples have upper case ids and bare integers in some places.
        let again = written(signal, &proto).to_string().to_lowercase();
        assert_eq!(again, read.to_string().to_lowercase());
    }
}

#[test]
fn a_writer_that_changes_the_order_of_its_keys_is_read_all_the_same() {
    let keys = [r#""name":"n""#, r#""kind":3"#, r#""flags":1"#, r#""traceState":"s""#];
    let mut random = fastrand::Rng::with_seed(1);
    let spans: Vec<String> = (0..200)
        .map(|_| {
            let mut keys = keys;
            random.shuffle(&mut keys);
            format!("{{{}}}", keys[..random.usize(0..=keys.len())].join(","))
        })
        .collect();
    let all = span_json(&spans.join(","));
    let proto = json_to_proto(Signal::Traces, all.as_bytes(), usize::MAX).unwrap();
    let request = ExportTraceServiceRequest::decode(&*proto).unwrap();
    let read = &request.resource_spans[0].scope_spans[0].spans;
    for (read, alone) in read.iter().zip(&spans) {
        assert_eq!(Ok(read), span(alone).as_ref(), "{alone}");
    }
    assert_eq!(read.len(), spans.len());
}

#[test]
fn numbers_of_any_length_are_read_or_refused_and_never_wrapped() {
    for digits in (1..60).chain([1_000, 100_000]) {
        for digit in ["1", "9"] {
            let text = digit.repeat(digits);
            let expected = text.parse::<u64>().ok();
            for json in [text.clone(), format!("\"{text}\""), format!("{text}.0")] {
                let read = span(&format!(r#"{{"startTimeUnixNano":{json}}}"#));
                assert_eq!(read.map(|span| span.start_time_unix_nano).ok(), expected, "{json}");
            }
            let double = point(&format!(r#"{{"asDouble":-0.{text}}}"#)).unwrap().value;
            let expected = format!("-0.{text}").parse().map(Number::AsDouble).ok();
            assert_eq!(double, expected, "{text}");
        }
    }
}

#[test]
fn j6_doubles_are_the_nearest_ones_however_they_are_written() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        let decimals = random.usize(0..20);
        let number = random.u64(..) >> random.u32(0..64);
        let text = format!(
            "{}{number:0width$}",
            if random.bool() { "-" } else { "" },
            width = decimals + 1
        );
        let (whole, part) = text.split_at(text.len() - decimals);
        // Zeros in front are not JSON.
        let whole = if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") };
        let expected: f64 = whole.parse().unwrap();
        let json = format!(r#"{{"asDouble":{whole}}}"#);
        let Some(Number::AsDouble(read)) = point(&json).unwrap().value else { panic!("{json}") };
        assert_eq!(read.to_bits(), expected.to_bits(), "{json}");
    }
}
