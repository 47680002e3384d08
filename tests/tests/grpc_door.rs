//! OTLP/gRPC as a client meets it: framing, statuses and their details, and many calls at once.

use bytes::{Bytes, BytesMut};
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::signal::Signal;
use forebay_tests::frames::{self, Frames};
use forebay_tests::items;
use forebay_tests::scene::{FIRST, Scene};
use forebay_tests::wire::{self, Http2, Http2Answer, frame, method_of};
use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::codec::CompressionEncoding;

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const OVER_A_MIB: &str = "grpc: {endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 1}";

async fn connect(scene: &Scene) -> Http2 {
    Http2::connect(scene.forebay.grpc.expect("a gRPC listener")).await
}

/// A call for traces with any body.
async fn call(grpc: &Http2, headers: &[(&str, &str)], body: Bytes) -> Http2Answer {
    let path = method_of(Signal::Traces);
    grpc.request(Method::POST, path, headers, body).await.expect("an answer")
}

fn compressed(encoding: Encoding, message: &[u8]) -> Vec<u8> {
    let chain = [Bytes::copy_from_slice(message)];
    Compressor::new().compress(encoding, None, &chain).expect("it can be compressed")
}

#[tokio::test]
async fn g1_s3_other_peoples_client_is_served_and_reads_a_full_success() {
    let scene = Scene::start();
    let mut client = TraceServiceClient::connect(scene.forebay.grpc_url()).await.expect("served");
    let plain = client.export(items::traces(FIRST, 10)).await.expect("taken").into_inner();
    assert_eq!(plain.partial_success, None);
    let mut client = client
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let gzipped = client.export(items::traces(FIRST + 10, 10)).await.expect("taken");
    assert_eq!(gzipped.into_inner().partial_success, None);
    let empty = client.export(items::traces(0, 0)).await.expect("S2: taken").into_inner();
    assert_eq!(empty.partial_success, None);
    let end = scene.end();
    assert!(end.ledger["delivered_items"].as_u64() >= Some(20));
}

#[tokio::test]
async fn s3_a_full_success_is_an_empty_message_and_its_status_a_trailer() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    // Without `te: trailers`, which gRPC asks for and proxies drop.
    let answer = call(&grpc, &[GRPC], frame(0, &items::proto(Signal::Traces, FIRST, 1))).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &[0; 5][..]));
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert!(!answer.headers.contains_key("grpc-status"), "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/grpc");
    let answer = call(&grpc, &[GRPC], frame(0, b"")).await;
    assert_eq!(answer.grpc_status(), Some(0), "S2: an empty request: {answer:?}");
    scene.end();
}

#[tokio::test]
async fn g2_many_calls_share_a_connection() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..400 {
        let grpc = grpc.clone();
        calls.spawn(async move {
            let message = items::proto(Signal::Metrics, number * 10, 10);
            grpc.export(Signal::Metrics, &message).await.expect("an answer").grpc_status()
        });
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|status| *status == Some(0)), "{answers:?}");
    scene.sink.wait_for(Signal::Metrics, 4000);
    scene.end();
}

#[tokio::test]
async fn g3_an_over_limit_message_is_resource_exhausted_and_never_to_be_sent_again() {
    let scene =
        Scene::with("", |config| config.replace("grpc: {endpoint: 127.0.0.1:0}", OVER_A_MIB));
    let grpc = connect(&scene).await;
    let message = vec![0x5a; (1 << 20) + 1];
    for encoding in ["identity", "gzip", "zstd", "snappy", "deflate"] {
        let body = match Encoding::from_grpc(encoding).expect("a name of gRPC's") {
            Encoding::Identity => frame(0, &message),
            known => frame(1, &compressed(known, &message)),
        };
        let answer = call(&grpc, &[GRPC, ("grpc-encoding", encoding)], body).await;
        assert_eq!(answer.grpc_status(), Some(8), "{encoding}: {answer:?}");
        assert_eq!(answer.grpc_header("grpc-status-details-bin"), None, "no RetryInfo");
        assert_eq!(answer.grpc_header("grpc-retry-pushback-ms"), None, "no pushback");
        let said = answer.grpc_header("grpc-message").expect("a message");
        assert!(said.contains("1048576"), "it names the limit: {said}");
    }
    scene.wait_for_ended("too_large", 5);
    scene.end();
}

#[tokio::test]
async fn g4_h5_an_invalid_message_is_invalid_argument_with_bad_request() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    let answer = call(&grpc, &[GRPC], frame(0, b"\x0a\xff")).await;
    assert_eq!(answer.grpc_status(), Some(3), "{answer:?}");
    let details = answer.details().expect("details");
    assert_eq!(details.code, 3);
    assert_eq!(Some(details.message), details.bad_request, "where it is broken");
    assert_eq!(details.retry_delay, None);
    scene.wait_for_ended("invalid", 1);
    scene.end();
}

#[tokio::test]
async fn g6_unknown_methods_and_encodings_are_unimplemented_in_trailers_alone() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    let message = frame(0, &items::proto(Signal::Traces, FIRST, 1));
    for path in [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
        "/opentelemetry.proto.collector.trace.v2.TraceService/Export",
        "/grpc.health.v1.Health/Chek",
        "/v1/traces",
        "/",
        // No pipeline takes profiles here.
        method_of(Signal::Profiles),
    ] {
        let answer = grpc.request(Method::POST, path, &[GRPC], message.clone()).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.grpc_status()), (200, Some(12)), "{path}");
        assert!(answer.headers.contains_key("grpc-status"), "trailers-only: {answer:?}");
        assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{answer:?}");
    }
    let answer = call(&grpc, &[GRPC, ("grpc-encoding", "50%")], message.clone()).await;
    assert_eq!(answer.grpc_status(), Some(12), "{answer:?}");
    let taken = answer.grpc_header("grpc-accept-encoding").expect("what is taken");
    assert!(taken.split(',').any(|name| name == "gzip"), "{taken}");
    let said = answer.grpc_header("grpc-message").expect("a message");
    assert!(said.contains("50%25"), "percent-encoded: {said}");
    scene.wait_for_ended("unserved", 7);
    scene.end();
}

#[tokio::test]
async fn h9_what_is_not_grpc_gets_a_415_on_the_grpc_port() {
    let scene = Scene::start();
    let address = scene.forebay.grpc.expect("a gRPC listener");
    let grpc = connect(&scene).await;
    let message = items::proto(Signal::Traces, FIRST, 1);
    for content_type in ["application/x-protobuf", "application/json", "text/plain"] {
        let headers = [("content-type", content_type)];
        let answer = call(&grpc, &headers, Bytes::from(message.clone())).await;
        assert_eq!(answer.status, 415, "{content_type}: {answer:?}");
        assert_eq!(answer.grpc_status(), None, "{content_type}");
        let expected = match content_type {
            "application/x-protobuf" => "application/x-protobuf",
            _ => "application/json",
        };
        assert_eq!(answer.headers["content-type"], expected, "H6: the request's encoding");
        assert!(answer.refusal().message.contains("4318"), "a hint: {:?}", answer.refusal());
    }
    // gRPC needs HTTP/2.
    let answer = wire::post(address, method_of(Signal::Traces), &[GRPC], &message);
    assert_eq!(answer.status, 415, "{}", answer.text());
    answer.refusal();
    scene.wait_for_ended("unserved", 4);
    scene.end();
}

#[tokio::test]
async fn a_body_that_is_not_one_whole_message_is_refused_as_grpc_says() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    let message = items::proto(Signal::Traces, FIRST, 1);
    let lie = |length: u32| {
        let mut body = BytesMut::from(&frame(0, &message)[..]);
        body[1..5].copy_from_slice(&length.to_be_bytes());
        body.freeze()
    };
    let length = message.len() as u32;
    let two = [frame(0, &message), frame(0, &message)].concat();
    let before = scene.forebay.resident_bytes();
    for (what, body) in [
        ("no message", Bytes::new()),
        ("half a prefix", Bytes::from_static(&[0, 0, 0])),
        ("a prefix alone", Bytes::from_static(&[0, 0, 0, 0, 9])),
        ("a prefix that is too long by one", lie(length + 1)),
        ("a prefix that is too short by one", lie(length - 1)),
        ("a prefix of 4 GiB", lie(u32::MAX)),
        ("two messages", Bytes::from(two)),
        ("flag 1 without grpc-encoding", frame(1, &message)),
        ("flag 2", frame(2, &message)),
        ("flag 255", frame(255, &message)),
    ] {
        let answer = call(&grpc, &[GRPC], body).await;
        assert_eq!((answer.status, answer.grpc_status()), (200, Some(13)), "{what}: {answer:?}");
        assert!(!answer.grpc_header("grpc-message").expect("a message").is_empty(), "{what}");
    }
    let grown = scene.forebay.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "a prefix alone allocates nothing: {grown} bytes more");
    let encoding = ("grpc-encoding", "gzip");
    let answer = call(&grpc, &[GRPC, encoding], frame(0, &message)).await;
    assert_eq!(answer.grpc_status(), Some(0), "flag 0 is not compressed, whatever the encoding");
    let answer = call(&grpc, &[GRPC, encoding], frame(1, &message)).await;
    assert_eq!(answer.grpc_status(), Some(3), "not gzip: {answer:?}");
    scene.wait_for_ended("invalid", 11);
    scene.end();
}

#[test]
fn a_message_arrives_whole_however_its_frames_are_cut_and_padded() {
    let scene = Scene::start();
    let body = frame(0, &items::proto(Signal::Metrics, 0, 3));
    let path = method_of(Signal::Metrics);
    for (number, piece) in [1, 2, 3, 5, 64].into_iter().enumerate() {
        let stream = 2 * number as u32 + 1;
        let mut peer = Frames::connect(scene.forebay.grpc.expect("a gRPC listener"));
        assert!(peer.send(frames::HEADERS, frames::END_HEADERS, stream, &frames::call(path)));
        for bytes in body.chunks(piece) {
            // One byte that says how much padding follows the data.
            let padded = [&[7], bytes, &[0; 7]].concat();
            assert!(peer.send(frames::DATA, frames::PADDED, stream, &padded));
        }
        assert!(peer.send(frames::DATA, frames::END_STREAM, stream, &[]));
        let answer = peer.wait_for(frames::DATA, stream).expect("an answer");
        assert_eq!(answer.payload, [0; 5], "in pieces of {piece}");
    }
    scene.sink.wait_for(Signal::Metrics, 3);
    scene.end();
}

#[tokio::test]
async fn a_grpc_timeout_is_taken_and_a_malformed_one_harms_nobody() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    let body = frame(0, &items::proto(Signal::Traces, FIRST, 1));
    for timeout in ["10S", "99999999H", "500m", "1M", "250000u", "100000000n"] {
        let answer = call(&grpc, &[GRPC, ("grpc-timeout", timeout)], body.clone()).await;
        assert_eq!(answer.grpc_status(), Some(0), "{timeout}: {answer:?}");
    }
    for timeout in ["", "S", "-1S", "100000000000000000000S", "1x", "1.5S"] {
        let answer = call(&grpc, &[GRPC, ("grpc-timeout", timeout)], body.clone()).await;
        let status = answer.grpc_status().expect("a status");
        assert!(matches!(status, 0 | 3 | 13), "{timeout}: {answer:?}");
    }
    scene.end();
}

#[tokio::test]
async fn a_call_that_is_refused_while_its_message_still_comes_costs_the_others_nothing() {
    let scene = Scene::start();
    let grpc = connect(&scene).await;
    let large = frame(0, &vec![0; 900_000]);
    let (path, unknown) = (method_of(Signal::Traces), "/unknown.Service/Method");
    // Each is refused at its header: most of the message is under way by then.
    for round in 0..40 {
        let refused = grpc.request(Method::POST, unknown, &[GRPC], large.clone());
        let small = frame(0, &items::proto(Signal::Traces, FIRST + round, 1));
        let taken = grpc.request(Method::POST, path, &[GRPC], small);
        let (refused, taken) = tokio::join!(refused, taken);
        let refused = refused.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(refused.grpc_status(), Some(12), "round {round}");
        let taken = taken.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(taken.grpc_status(), Some(0), "round {round}");
    }
    scene.wait_for_ended("unserved", 40);
    scene.end();
}
