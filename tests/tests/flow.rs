//! The first flow: every signal, transport, encoding and compression in; every item out.

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::signal::Signal;
use forebay_tests::forebay::{Process, config};
use forebay_tests::items;
use forebay_tests::recorder::Recorder;
use forebay_tests::sink::Sink;
use forebay_tests::wire::{self, Http1, Http2, frame, method_of, path_of};
use http::Method;

const STABLE: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

fn compressed(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    let chain = [Bytes::copy_from_slice(body)];
    Compressor::new().compress(encoding, None, &chain).expect("it can be compressed")
}

fn forward_to(sink: &Sink) -> Process {
    let exporters = format!("exporters:\n  otlp_grpc: {}\n", sink.grpc_exporter());
    Process::start(&config("[otlp_grpc]", &exporters))
}

#[test]
fn s1_every_signal_arrives_over_http_in_both_encodings_and_every_compression() {
    let sink = Sink::start();
    let forebay = forward_to(&sink);
    let encodings =
        ["identity", "gzip", "zstd", "deflate", "zlib", "snappy", "x-snappy-framed", "lz4"];
    let mut connection = Http1::connect(forebay.http_address());
    let mut first = 0;
    for signal in STABLE {
        first = 0;
        for name in encodings {
            for (content_type, body) in [
                ("application/x-protobuf", items::proto(signal, first, 10)),
                ("application/json", items::json(signal, first + 10, 10)),
            ] {
                let encoding = Encoding::from_http(name).expect("a name of OTLP's");
                let body = match encoding {
                    Encoding::Identity => body,
                    encoding => compressed(encoding, &body),
                };
                let headers = [("content-type", content_type), ("content-encoding", name)];
                let answer = connection.post(path_of(signal), &headers, &body);
                assert_eq!(answer.status, 200, "{signal} {name}: {}", answer.text());
                assert_eq!(answer.header("content-type"), Some(content_type));
            }
            first += 20;
        }
    }
    for signal in STABLE {
        sink.wait_for(signal, first);
    }
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 3 * first);
}

#[tokio::test]
async fn s1_g1_every_signal_arrives_over_grpc_under_every_compression() {
    let sink = Sink::start();
    let forebay = forward_to(&sink);
    let connection = Http2::connect(forebay.grpc.expect("a port")).await;
    let mut first = 0;
    for signal in STABLE {
        first = 0;
        for name in ["identity", "gzip", "zstd", "snappy", "deflate"] {
            let message = items::proto(signal, first, 25);
            let body = match Encoding::from_grpc(name).expect("a name of gRPC's") {
                Encoding::Identity => frame(0, &message),
                encoding => frame(1, &compressed(encoding, &message)),
            };
            let headers = [("content-type", "application/grpc"), ("grpc-encoding", name)];
            let call = connection.request(Method::POST, method_of(signal), &headers, body);
            let answer = call.await.expect("an answer");
            assert_eq!(answer.grpc_status(), Some(0), "{signal} {name}: {answer:?}");
            first += 25;
        }
    }
    for signal in STABLE {
        sink.wait_for(signal, first);
    }
    forebay.stop();
}

#[tokio::test]
async fn h2_http_2_with_prior_knowledge_serves_otlp_http_too() {
    let sink = Sink::start();
    let forebay = forward_to(&sink);
    let connection = Http2::connect(forebay.http_address()).await;
    let headers = [("content-type", "application/json")];
    let body = Bytes::from(items::json(Signal::Logs, 0, 30));
    let call = connection.request(Method::POST, "/v1/logs", &headers, body);
    let answer = call.await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
    sink.wait_for(Signal::Logs, 30);
    forebay.stop();
}

#[tokio::test]
async fn d2_without_a_rewrite_the_bytes_pass_as_they_came_unknown_fields_included() {
    let recorder = Recorder::start();
    let exporters = format!("exporters:\n  otlp_http: {}\n", recorder.exporter());
    let forebay = Process::start(&config("[otlp_http]", &exporters));
    // Two requests' worth of groups, and fields that no version of OTLP knows: number 1000 as a
    // varint behind each request, and an over-long varint that a re-encoder would shorten.
    let unknown = [0xc0, 0x3e, 0x85, 0x80, 0x00];
    for signal in STABLE {
        let mut body = items::proto(signal, 0, 7);
        body.extend(unknown);
        body.extend(items::proto(signal, 7, 3));
        body.extend(unknown);
        let headers = [("content-type", "application/x-protobuf")];
        let answer = wire::post(forebay.http_address(), path_of(signal), &headers, &body);
        assert_eq!(answer.status, 200, "{signal}: {}", answer.text());
        assert_eq!(recorder.next(), (path_of(signal).to_owned(), body.clone()), "over HTTP");
        let grpc = Http2::connect(forebay.grpc.expect("a port")).await;
        let answer = grpc.export(signal, &body).await.expect("an answer");
        assert_eq!(answer.grpc_status(), Some(0), "{signal}: {answer:?}");
        assert_eq!(recorder.next(), (path_of(signal).to_owned(), body), "over gRPC");
    }
    forebay.stop();
}

#[test]
fn a_body_of_many_megabytes_arrives_whole_and_in_batches_that_a_collector_takes() {
    let sink = Sink::start();
    let forebay = forward_to(&sink);
    let items_count = 60_000;
    let body = items::proto(Signal::Traces, 0, items_count);
    assert!(body.len() > 4 << 20, "{} bytes", body.len());
    let headers = [("content-type", "application/x-protobuf")];
    let answer = wire::post(forebay.http_address(), "/v1/traces", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    sink.wait_for(Signal::Traces, items_count);
    assert!(sink.sizes().len() > 1, "split into batches below 4 MB");
    forebay.stop();
}

#[test]
fn exporters_of_one_pipeline_never_wait_for_each_other() {
    let (stuck, free) = (Sink::scripted(|_| forebay_tests::sink::Reply::Never), Sink::start());
    let exporters = format!(
        "exporters:\n  otlp_grpc/stuck: {}\n  otlp_http/free: {}\nengine: {{drain_timeout: 1s}}\n",
        stuck.grpc_exporter(),
        free.http_exporter()
    );
    let forebay = Process::start(&config("[otlp_grpc/stuck, otlp_http/free]", &exporters));
    let headers = [("content-type", "application/x-protobuf")];
    let mut connection = Http1::connect(forebay.http_address());
    for first in (0..1000).step_by(50) {
        let body = items::proto(Signal::Logs, first, 50);
        assert_eq!(connection.post("/v1/logs", &headers, &body).status, 200);
    }
    free.wait_for(Signal::Logs, 1000);
    forebay.wait_for_ledger("the free one's", |ledger| ledger["delivered_items"] == 1000);
    let end = forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 1000);
    assert_eq!(end.ledger["dropped_items"], 1000, "the stuck one's, counted at the end");
}
