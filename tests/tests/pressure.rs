//! What is cheap for a client must not be dear for forebay: open requests, tiny ones, bodies that
//! grow, descriptors that run out.

use std::net::TcpStream;
use std::time::Instant;

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, RECEIVERS, SERVICE, config};
use forebay_tests::frames::{END_HEADERS, Frames, HEADERS, block, bytes_of};
use forebay_tests::items;
use forebay_tests::scene::Scene;
use forebay_tests::sink::Sink;
use forebay_tests::wire::{self, Http2, frame, method_of};
use http::Method;

const MIB: u64 = 1 << 20;

#[test]
fn open_http_2_requests_are_charged_to_the_budget_and_keep_little_of_their_heads() {
    const CONNECTIONS: usize = 8;
    let scene = Scene::start();
    let before = scene.forebay.resident_bytes();
    let mut head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/traces"),
        ("content-type", "application/x-protobuf"),
    ]);
    // Indexed fields of one byte each: `date`, without a value.
    head.extend([0xa1; 400]);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Frames::connect(scene.forebay.http_address());
        let flood: Vec<u8> =
            (0..256).flat_map(|n| bytes_of(HEADERS, END_HEADERS, 2 * n + 1, &head)).collect();
        assert!(client.send_all(&flood));
        connections.push(client);
    }
    let open = (CONNECTIONS * 256) as f64;
    let deadline = Instant::now() + PATIENCE;
    while scene.forebay.metric("forebay_receiver_core_memory_taken_bytes", &[]) < open * 1024.0 {
        assert!(Instant::now() < deadline, "{}", scene.forebay.metrics());
    }
    let grown = scene.forebay.resident_bytes() - before;
    assert!(grown < 40 * MIB, "{open} open requests cost {} MiB", grown / MIB);
    drop(connections);
    while scene.forebay.metric("forebay_receiver_core_memory_taken_bytes", &[]) > 64e3 {
        assert!(Instant::now() < deadline, "{}", scene.forebay.metrics());
    }
    scene.end();
}

#[tokio::test]
async fn tiny_requests_are_charged_for_their_place_and_not_only_for_their_bytes() {
    let sink = Sink::scripted(|_| forebay_tests::sink::Reply::Never);
    let forebay = Process::start(&format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
processors: {{batch: {{send_batch_size: 100000000, timeout: 1h}}}}
exporters: {{otlp_grpc: {}}}
engine: {{drain_timeout: 1s}}
",
        sink.grpc_exporter()
    ));
    let client = Http2::connect(forebay.grpc.expect("a port")).await;
    // One resource, one scope, one span without a field: six bytes.
    let tiny = [0x0a, 0x04, 0x12, 0x02, 0x12, 0x00];
    for _ in 0..500 {
        let answer = client.export(Signal::Traces, &tiny).await.expect("an answer");
        assert_eq!(answer.grpc_status(), Some(0));
    }
    let deadline = Instant::now() + PATIENCE;
    while forebay.metric("forebay_receiver_core_memory_taken_bytes", &[]) < 500.0 * 128.0 {
        assert!(Instant::now() < deadline, "{}", forebay.metrics());
    }
    forebay.stop();
}

#[tokio::test]
async fn h4_g3_json_that_grows_past_the_limit_is_too_large_and_not_come_again() {
    let engine = "engine: {memory: {budget_bytes: 8MiB}}\n";
    let yaml = config("[nop]", &format!("exporters: {{nop: }}\n{engine}"))
        .replace("http: {endpoint: 127.0.0.1:0}", HTTP_4_MIB)
        .replace("grpc: {endpoint: 127.0.0.1:0}", GRPC_4_MIB);
    let forebay = Process::start(&yaml);
    // Two bytes of JSON become eight of protobuf.
    let counts = vec!["1"; 1_000_000].join(",");
    let body = format!(
        "{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{\"histogram\":{{\
         \"dataPoints\":[{{\"bucketCounts\":[{counts}]}}]}}}}]}}]}}]}}"
    );
    assert!(body.len() < 4 << 20);
    let headers = [("content-type", "application/json")];
    let answer = wire::post(forebay.http_address(), "/v1/metrics", &headers, body.as_bytes());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None);
    let too_large = Bytes::from(vec![0; (4 << 20) + 1]);
    let client = Http2::connect(forebay.grpc.expect("a port")).await;
    let headers = [("content-type", "application/grpc")];
    let call =
        client.request(Method::POST, method_of(Signal::Metrics), &headers, frame(0, &too_large));
    let answer = call.await.expect("an answer");
    assert_eq!(answer.grpc_status(), Some(8), "{answer:?}");
    forebay.stop();
}

const HTTP_4_MIB: &str = "http: {endpoint: 127.0.0.1:0, max_request_body_size: 4194304}";
const GRPC_4_MIB: &str = "grpc: {endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 4}";

#[test]
fn a_standard_error_that_nobody_reads_costs_log_lines_and_nothing_else() {
    let yaml = config("[nop]", "exporters: {nop: }\n")
        .replace("encoding: json", "encoding: json, level: debug");
    let forebay = Process::start(&yaml);
    let deaf = forebay.pause_reading();
    let mut client = wire::Http1::connect(forebay.http_address());
    let headers = [("content-type", "application/x-protobuf")];
    // Each of them is a line at this level: more than a pipe and the queue before it hold.
    let mut sent = 0;
    while forebay.metric("forebay_dropped_log_lines", &[]) == 0.0 {
        for _ in 0..1_000 {
            let answer = client.post("/v1/traces", &headers, &[0xff]);
            assert_eq!(answer.status, 400);
            sent += 1;
        }
        assert!(sent < 100_000, "no line was ever dropped: are there any?");
    }
    let body = items::proto(Signal::Traces, 0, 1);
    assert_eq!(client.post("/v1/traces", &headers, &body).status, 200);
    drop(deaf);
    forebay.stop();
}

#[test]
fn every_listener_accepts_again_once_descriptors_are_free_again() {
    let yaml = config("[nop]", "exporters: {nop: }\n");
    let mut forebay = Process::start_with_files(&yaml, 80);
    let (grpc, http) = (forebay.grpc.expect("a port"), forebay.http_address());
    let held: Vec<TcpStream> = [grpc, http]
        .into_iter()
        .cycle()
        .take(200)
        .map(|address| TcpStream::connect(address).expect("the kernel queues it"))
        .collect();
    // Not asked of the metrics page: that needs a descriptor too.
    forebay.wait_for("Accepting failed", |line| {
        line["msg"].as_str().is_some_and(|message| message.starts_with("Accepting failed"))
    });
    drop(held);
    let headers = [("content-type", "application/x-protobuf")];
    for round in 0..6 {
        // Fresh connections, to each port: neither is deaf.
        let body = items::proto(Signal::Traces, round, 1);
        assert_eq!(wire::post(http, "/v1/traces", &headers, &body).status, 200);
        let mut client = Frames::connect(grpc);
        assert!(client.next_frame().is_some(), "the gRPC port answers");
    }
    assert!(forebay.metric("forebay_receiver_core_accept_errors", &[]) >= 2.0);
    forebay.stop();
}
