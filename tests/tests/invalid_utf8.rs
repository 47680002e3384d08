//! Text that is not UTF-8 among text that is: what each policy takes, what it tells, and that the
//! bad bytes reach no destination.

use forebay_codec::signal::Signal;
use forebay_codec::status::PartialSuccess;
use forebay_tests::items;
use forebay_tests::scene::{FIRST, Scene};
use forebay_tests::wire::{Http1, Http2};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");

/// Ten log records, of which the fourth has an attribute cut in the middle of a character.
fn logs_with_a_cut_text() -> Vec<u8> {
    let mut request = items::logs(FIRST, 10);
    let value = Some(AnyValue { value: Some(Value::StringValue("caf\u{e9}".to_owned())) });
    let attribute = KeyValue { key: "place".to_owned(), value, ..KeyValue::default() };
    let records = &mut request.resource_logs[0].scope_logs[0].log_records;
    records[3].attributes.push(attribute);
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(5).position(|text| text == "caf\u{e9}".as_bytes());
    bytes[at.expect("the text") + 4] = b'!';
    bytes
}

#[test]
fn s12_by_default_the_request_is_refused_whole() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let answer = http.post("/v1/logs", &[PROTO], &logs_with_a_cut_text());
    assert_eq!(answer.status, 400);
    assert!(answer.refusal().message.contains("string is not UTF-8"), "{}", answer.text());
    scene.wait_for_ended("invalid", 1);
    let (_, sink) = scene.end_and_keep_sink();
    assert!(!sink.numbers(Signal::Logs).contains_key(&FIRST));
}

#[test]
fn s4_with_refuse_item_the_others_arrive_and_the_client_hears_how_many_did_not() {
    let scene = Scene::with_engine("invalid_utf8: refuse_item");
    let mut http = Http1::connect(scene.forebay.http_address());
    let answer = http.post("/v1/logs", &[PROTO], &logs_with_a_cut_text());
    assert_eq!(answer.status, 200);
    let partial = PartialSuccess::response_from_proto(&answer.body).expect("a response");
    assert_eq!(partial.rejected, 1);
    assert!(partial.message.contains("not UTF-8"), "{}", partial.message);
    let metrics = scene.forebay.metrics();
    let refused = metrics.lines().any(|line| {
        line.starts_with("forebay_ledger_refused_items")
            && line.contains("reason=\"invalid_utf8\"")
            && line.contains("signal=\"logs\"")
            && line.ends_with(" 1")
    });
    assert!(refused, "{metrics}");
    let (_, sink) = scene.end_and_keep_sink();
    let numbers = sink.numbers(Signal::Logs);
    let came: Vec<i64> = (FIRST..FIRST + 10).filter(|n| numbers.contains_key(n)).collect();
    let expected: Vec<i64> = (FIRST..FIRST + 10).filter(|n| *n != FIRST + 3).collect();
    assert_eq!(came, expected);
}

#[tokio::test]
async fn s4_with_delivered_acks_the_refused_items_are_told_when_the_others_have_arrived() {
    let scene = Scene::with_engine("invalid_utf8: refuse_item, acks: {default: delivered}");
    let grpc = Http2::connect(scene.forebay.grpc.expect("a gRPC listener")).await;
    let answer = grpc.export(Signal::Logs, &logs_with_a_cut_text()).await.expect("an answer");
    assert_eq!(answer.grpc_status(), Some(0));
    let partial = PartialSuccess::response_from_proto(&answer.body[5..]).expect("a response");
    assert_eq!(partial.rejected, 1);
    let (_, sink) = scene.end_and_keep_sink();
    assert!(sink.numbers(Signal::Logs).contains_key(&(FIRST + 9)));
}

#[test]
fn s12_with_replace_all_items_arrive_and_the_texts_are_counted() {
    let scene = Scene::with_engine("invalid_utf8: replace");
    let mut http = Http1::connect(scene.forebay.http_address());
    let answer = http.post("/v1/logs", &[PROTO], &logs_with_a_cut_text());
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let metrics = scene.forebay.metrics();
    let replaced = metrics.lines().any(|line| {
        line.starts_with("forebay_replaced_texts")
            && line.contains("signal=\"logs\"")
            && line.ends_with(" 1")
    });
    assert!(replaced, "{metrics}");
    let (_, sink) = scene.end_and_keep_sink();
    let numbers = sink.numbers(Signal::Logs);
    assert!((FIRST..FIRST + 10).all(|number| numbers.contains_key(&number)));
}

#[test]
fn s12_where_nothing_is_left_the_answer_is_still_a_partial_success() {
    let scene = Scene::with_engine("invalid_utf8: refuse_item");
    let mut request = items::logs(FIRST, 2);
    request.resource_logs[0].schema_url = "caf\u{e9}".to_owned();
    let mut bytes = request.encode_to_vec();
    *bytes.last_mut().expect("the text comes last") = b'!';
    let mut http = Http1::connect(scene.forebay.http_address());
    let answer = http.post("/v1/logs", &[PROTO], &bytes);
    let partial = PartialSuccess::response_from_proto(&answer.body).expect("a response");
    assert_eq!((answer.status, partial.rejected), (200, 2));
    scene.end();
}
