//! The receivers do the same on every rung of the kernel's ladder: what each of them can't use,
//! it does without.

use forebay_codec::signal::Signal;
use forebay_tests::items;
use forebay_tests::scene::Scene;
use forebay_tests::wire::{Http1, Http2};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");

/// More than 5 MB in 50 points, which a debug build reads in reasonable time.
fn large(first: i64) -> Vec<u8> {
    let mut request = items::metrics(first, 50);
    let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::Gauge(gauge)) = &mut metric.data else { panic!("a gauge: {metric:?}") };
    for point in &mut gauge.data_points {
        let value = Some(AnyValue { value: Some(Value::StringValue("x".repeat(110_000))) });
        let key = "padding".to_owned();
        point.attributes.push(KeyValue { key, value, ..KeyValue::default() });
    }
    let body = request.encode_to_vec();
    assert!(body.len() > 5_000_000, "{} bytes", body.len());
    body
}

/// Small and large bodies over HTTP/1.1, calls, a client that sends no more, and the end.
async fn serve_on(rung: &str, runs: &[&str]) {
    let scene = Scene::with_engine(&format!("ring: {{rung: {rung}}}, drain_timeout: 30s"));
    let mut http = Http1::connect(scene.forebay.http_address());
    let mut first = 0;
    for _ in 0..50 {
        let body = items::proto(Signal::Metrics, first, 10);
        assert_eq!(http.post("/v1/metrics", &[PROTO], &body).status, 200);
        first += 10;
    }
    for _ in 0..3 {
        assert_eq!(http.post("/v1/metrics", &[PROTO], &large(first)).status, 200);
        first += 50;
    }
    let grpc = Http2::connect(scene.forebay.grpc.expect("a gRPC listener")).await;
    for message in [
        items::proto(Signal::Metrics, first, 50),
        large(first + 50),
        items::proto(Signal::Metrics, first + 100, 50),
    ] {
        let answer = grpc.export(Signal::Metrics, &message).await.expect("an answer");
        assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
        first += 50;
    }
    let body = items::proto(Signal::Metrics, first, 1000);
    let head = format!(
        "POST /v1/metrics HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut half_closed = Http1::connect(scene.forebay.http_address());
    half_closed.send(&[head.as_bytes(), &body].concat());
    half_closed.finish();
    assert_eq!(half_closed.read_answer().expect("an answer").status, 200);
    assert!(half_closed.is_closed());
    first += 1000;
    let mut left = Http1::connect(scene.forebay.http_address());
    left.send(&[head.as_bytes(), &body[..body.len() / 2]].concat());
    left.finish();
    scene.wait_for_ended("abandoned", 1);
    // Taken, and not yet delivered when the end begins.
    assert_eq!(http.post("/v1/metrics", &[PROTO], &body).status, 200);
    let (end, sink) = scene.end_and_keep_sink();
    assert!(sink.missing(Signal::Metrics, first).is_empty(), "all arrived before the end");
    let ready = end.logs.iter().find(|line| line.get("ring").is_some()).expect("a line says");
    let ring = ready["ring"].as_str().expect("a name");
    assert!(runs.contains(&ring), "{rung} runs {ring}");
}

/// Whichever this kernel carries.
#[tokio::test]
async fn auto_takes_the_highest_rung_that_the_kernel_has() {
    serve_on("auto", &["deferred", "cooperative", "oneshot"]).await;
}

#[tokio::test]
async fn multishot_does_without_deferred_task_work() {
    serve_on("multishot", &["cooperative", "oneshot"]).await;
}

#[tokio::test]
async fn oneshot_does_with_one_operation_at_a_time() {
    serve_on("oneshot", &["oneshot"]).await;
}
