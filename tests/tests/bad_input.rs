//! Clients that send what they should not: each is told so, is counted, and the bystander on the
//! same core (see [`forebay_tests::scene`]) does not notice.

use std::io::Write;

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::signal::Signal;
use forebay_tests::dice::Dice;
use forebay_tests::frames::{self, Frames};
use forebay_tests::items;
use forebay_tests::scene::{FIRST, Scene};
use forebay_tests::wire::{Http1, Http2, frame, method_of};
use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const HURRIED: &str =
    "limits: {header_timeout: 300ms, body_timeout: 300ms, idle_timeout: 20s, write_timeout: 1s}";
const MIB: u64 = 1 << 20;

fn grpc_of(scene: &Scene) -> std::net::SocketAddr {
    scene.forebay.grpc.expect("a gRPC listener")
}

/// What the process has grown by since it had `before` resident bytes.
fn grown(scene: &Scene, before: u64) -> u64 {
    scene.forebay.resident_bytes().saturating_sub(before)
}

#[test]
fn d1_a_request_cut_anywhere_gets_the_verdict_of_prost() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let proto = items::proto(Signal::Traces, FIRST, 3);
    let json = items::json(Signal::Traces, FIRST, 3);
    let mut refused = 0;
    for end in 1..proto.len() {
        let cut = &proto[..end];
        let expected = match ExportTraceServiceRequest::decode(cut) {
            Ok(_) => 200,
            Err(_) => 400,
        };
        let answer = http.post("/v1/traces", &[PROTO], cut);
        assert_eq!(answer.status, expected, "cut at {end}: {}", answer.text());
        refused += u64::from(expected == 400);
    }
    for end in (0..json.len()).step_by(7) {
        let answer = http.post("/v1/traces", &[JSON], &json[..end]);
        assert_eq!(answer.status, 400, "cut at {end}");
        answer.refusal();
        refused += 1;
    }
    scene.wait_for_ended("invalid", refused);
    scene.end();
}

/// An `AnyValue` of arrays in arrays, inside a log record. Built from its end.
fn nested_logs(depth: usize) -> Vec<u8> {
    let mut reversed = Vec::new();
    let mut wrap = |tag: u8| {
        let mut header = vec![tag];
        prost::encode_length_delimiter(reversed.len(), &mut header).expect("room in a Vec");
        reversed.extend(header.iter().rev());
    };
    for _ in 0..depth {
        // `AnyValue.array_value` (5) of `ArrayValue.values` (1).
        wrap(0x0a);
        wrap(0x2a);
    }
    // `LogRecord.body` (5), then records (2), scopes (2) and resources (1).
    for tag in [0x2a, 0x12, 0x12, 0x0a] {
        wrap(tag);
    }
    reversed.reverse();
    reversed
}

#[tokio::test]
async fn d1_bytes_that_no_decoder_may_take_are_refused_on_both_transports() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let grpc = Http2::connect(grpc_of(&scene)).await;
    let mut bodies: Vec<(&str, Vec<u8>)> = vec![
        ("a varint of eleven bytes", [&[0x80; 10][..], &[1]].concat()),
        ("a length of 2^63", [&[0x0a][..], &[0x80; 9], &[1]].concat()),
        ("a length beyond the end", vec![0x0a, 0x7f, 0x00]),
        ("field 0", vec![0x02, 0x00]),
        ("a group", vec![0x0b, 0x0c]),
        ("wire type 7", vec![0x0f, 0x00]),
        ("a number where a message belongs", vec![0x08, 0x01]),
        ("a fixed64 where a message belongs", vec![0x09, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("invalid UTF-8", vec![0x0a, 0x05, 0x12, 0x03, 0x1a, 0x01, 0xff]),
        ("100,000 levels", nested_logs(100_000)),
        ("1,000 levels", nested_logs(1000)),
    ];
    let mut dice = Dice::new(0x5eed);
    for _ in 0..20 {
        bodies.push(("noise", (0..300).map(|_| dice.below(256) as u8 | 0x80).collect()));
    }
    let count = 2 * bodies.len() as u64;
    for (what, body) in bodies {
        let answer = http.post("/v1/logs", &[PROTO], &body);
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.refusal().code, 3, "{what}");
        let answer = grpc.export(Signal::Logs, &body).await.expect("an answer");
        assert_eq!(answer.grpc_status(), Some(3), "{what}: {answer:?}");
    }
    scene.wait_for_ended("invalid", count);
    scene.end();
}

#[tokio::test]
async fn s6_h4_g3_a_bomb_under_any_compression_costs_no_more_than_the_limit() {
    let scene = Scene::with("", |config| {
        config
            .replace(
                "http: {endpoint: 127.0.0.1:0}",
                "http: {endpoint: 127.0.0.1:0, max_request_body_size: 4MiB}",
            )
            .replace(
                "grpc: {endpoint: 127.0.0.1:0}",
                "grpc: {endpoint: 127.0.0.1:0, max_recv_msg_size_mib: 4}",
            )
    });
    let mut http = Http1::connect(scene.forebay.http_address());
    let grpc = Http2::connect(grpc_of(&scene)).await;
    let zeros = [Bytes::from(vec![0; 48 << 20])];
    let mut compressor = Compressor::new();
    let before = scene.forebay.resident_bytes();
    let mut count = 0;
    for name in ["gzip", "zstd", "deflate", "zlib", "snappy", "x-snappy-framed", "lz4"] {
        let encoding = Encoding::from_http(name).expect("a name of OTLP's");
        let bomb = compressor.compress(encoding, None, &zeros).expect("it can be compressed");
        for content_type in [PROTO, JSON] {
            let answer =
                http.post("/v1/traces", &[content_type, ("content-encoding", name)], &bomb);
            assert_eq!(answer.status, 413, "{name}: {}", answer.text());
            let status = answer.refusal();
            assert_eq!((status.code, status.retry_delay), (8, None), "{name}");
            assert_eq!(answer.header("retry-after"), None, "{name}");
            count += 1;
        }
        assert!(grown(&scene, before) < 48 * MIB, "{name}: {} more", grown(&scene, before));
    }
    for name in ["gzip", "zstd", "deflate", "snappy"] {
        let encoding = Encoding::from_grpc(name).expect("a name of gRPC's");
        let bomb = compressor.compress(encoding, None, &zeros).expect("it can be compressed");
        let headers = [("content-type", "application/grpc"), ("grpc-encoding", name)];
        let path = method_of(Signal::Traces);
        let answer = grpc.request(Method::POST, path, &headers, frame(1, &bomb)).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.grpc_status(), Some(8), "{name}: {answer:?}");
        assert_eq!(answer.details(), None, "{name}: no RetryInfo");
        count += 1;
        assert!(grown(&scene, before) < 48 * MIB, "{name}: {} more", grown(&scene, before));
    }
    scene.wait_for_ended("too_large", count);
    scene.end();
}

#[test]
fn a10_compressed_bytes_that_lie_or_break_off_are_refused() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let before = scene.forebay.resident_bytes();
    let body = [Bytes::from(items::proto(Signal::Traces, FIRST, 50))];
    let mut count = 0;
    for name in ["gzip", "zstd", "deflate", "snappy", "x-snappy-framed", "lz4"] {
        let encoding = Encoding::from_http(name).expect("a name of OTLP's");
        let whole = Compressor::new().compress(encoding, None, &body).expect("compressed");
        let cut = &whole[..whole.len() / 2];
        let mut tailed = whole.clone();
        tailed.extend(b"tail");
        for (what, bytes) in [("cut", cut), ("with a tail", &tailed), ("none", b"plain text")] {
            let answer = http.post("/v1/traces", &[PROTO, ("content-encoding", name)], bytes);
            assert_eq!(answer.status, 400, "{name}, {what}: {}", answer.text());
            answer.refusal();
            count += 1;
        }
    }
    // A snappy block that says it holds 4 GiB, and a zstd frame with a window of 2 GiB.
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x41];
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, 0x41];
    for (name, bytes) in [("snappy", &snappy[..]), ("zstd", &zstd[..])] {
        let answer = http.post("/v1/traces", &[PROTO, ("content-encoding", name)], bytes);
        assert!(matches!(answer.status, 400 | 413), "{name}: {}", answer.text());
        answer.refusal();
    }
    // A gzip trailer may claim any length: one buffer of the limit (64 MiB), but no more.
    assert!(grown(&scene, before) < 96 * MIB, "{} more", grown(&scene, before));
    assert!(scene.ended("invalid") >= count);
    scene.end();
}

#[test]
fn a13_a_request_that_two_parsers_could_read_differently_is_refused_and_the_connection_ends() {
    let scene = Scene::start();
    let smuggled = "POST /v1/nothing HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    let framings = [
        ("content-length and transfer-encoding", "content-length: 4\r\ntransfer-encoding: chunked"),
        ("the same the other way round", "transfer-encoding: chunked\r\ncontent-length: 4"),
        ("two lengths", "content-length: 0\r\ncontent-length: 4"),
        ("two equal lengths", "content-length: 0\r\ncontent-length: 0"),
        ("a list of lengths", "content-length: 0, 0"),
        ("a signed length", "content-length: +0"),
        ("a hex length", "content-length: 0x0"),
        ("a length beyond 64 bits", "content-length: 18446744073709551616"),
        ("xchunked", "transfer-encoding: xchunked"),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        ("identity and chunked", "transfer-encoding: identity, chunked"),
        ("a vertical tab", "transfer-encoding: \u{b}chunked"),
        ("a space before the colon", "transfer-encoding : chunked"),
        ("obs-fold", "x-a: b\r\n transfer-encoding: chunked"),
        ("a bare LF", "x-a: b\ntransfer-encoding: chunked"),
        ("a bare CR", "x-a: b\rtransfer-encoding: chunked"),
        ("a NUL", "x-a: \0"),
        ("two hosts", "host: other"),
    ];
    for (what, framing) in framings {
        let mut http = Http1::connect(scene.forebay.http_address());
        http.send(
            format!(
                "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\
                 \r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}"
            )
            .as_bytes(),
        );
        let answer = http.read_answer().unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        answer.refusal();
        assert!(http.is_closed(), "{what}: nothing behind it is taken for a request");
    }
    let request_lines = [
        "POST /v1/traces\r\n\r\n",
        "POST  /v1/traces HTTP/1.1\r\n\r\n",
        "POST /v1/traces HTTP/1.1 \r\n\r\n",
        "POST v1/traces HTTP/1.1\r\nhost: test\r\n\r\n",
        "CONNECT test:80 HTTP/1.1\r\nhost: test\r\n\r\n",
        "POST /v1/traces HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    ];
    for request in request_lines {
        let mut http = Http1::connect(scene.forebay.http_address());
        http.send(request.as_bytes());
        let answer = http.read_answer().unwrap_or_else(|| panic!("{request:?}: no answer"));
        assert_eq!(answer.status, 400, "{request:?}: {}", answer.text());
        answer.refusal();
        assert!(http.is_closed(), "{request:?}");
    }
    let mut http = Http1::connect(scene.forebay.http_address());
    http.send(b"POST /v1/traces HTTP/3.0\r\nhost: test\r\n\r\n");
    assert_eq!(http.read_answer().expect("an answer").status, 505);
    scene.wait_for_ended("malformed", framings.len() as u64 + request_lines.len() as u64 + 1);
    assert_eq!(scene.ended("unserved"), 0, "nothing smuggled was served");
    scene.end();
}

#[test]
fn a13_a_chunk_that_two_parsers_could_read_differently_is_refused_in_the_requests_encoding() {
    let scene = Scene::start();
    let bodies = [
        ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
        ("too much data", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "fffffffffffffffff\r\nhello"),
        ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("an endless extension", &format!("5;{}\r\nhello\r\n", "x".repeat(1000))),
        ("endless trailers", &format!("0\r\n{}", "x: y\r\n".repeat(1000))),
    ];
    for (content_type, header) in [("application/x-protobuf", PROTO), ("application/json", JSON)] {
        for (what, body) in bodies {
            let mut http = Http1::connect(scene.forebay.http_address());
            http.send(
                format!(
                    "POST /v1/traces HTTP/1.1\r\nhost: test\r\n{}: {}\r\n\
                     transfer-encoding: chunked\r\n\r\n{body}",
                    header.0, header.1
                )
                .as_bytes(),
            );
            let answer = http.read_answer().unwrap_or_else(|| panic!("{what}: no answer"));
            assert_eq!(answer.status, 400, "{what}: {}", answer.text());
            assert_eq!(answer.header("content-type"), Some(content_type), "{what}: H6");
            assert_eq!(answer.header("connection"), Some("close"), "{what}");
            answer.refusal();
            assert!(http.is_closed(), "{what}");
        }
    }
    scene.wait_for_ended("malformed", 2 * bodies.len() as u64);
    scene.end();
}

#[test]
fn a14_a_flood_of_header_bytes_is_a_431_and_the_connection_ends() {
    let scene = Scene::start();
    let before = scene.forebay.resident_bytes();
    let floods = [
        format!("x-large: {}\r\n", "v".repeat(1 << 20)),
        "x: y\r\n".repeat(10_000),
        "x: y\r\n".repeat(200),
        format!("{}: v\r\n", "n".repeat(20_000)),
    ];
    for flood in &floods {
        let mut http = Http1::connect(scene.forebay.http_address());
        // The peer may have answered and closed before all of it is sent.
        let head = format!("POST /v1/traces HTTP/1.1\r\nhost: test\r\n{flood}\r\n");
        let _ = http.stream.write_all(head.as_bytes());
        let answer = http.read_answer().expect("an answer");
        assert_eq!(answer.status, 431, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        answer.refusal();
        assert!(http.is_closed());
    }
    let mut http = Http1::connect(scene.forebay.http_address());
    let _ = http.stream.write_all(format!("GET /{}", "p".repeat(1 << 20)).as_bytes());
    assert_eq!(http.read_answer().expect("an answer").status, 431, "an endless path");
    scene.wait_for_ended("malformed", floods.len() as u64 + 1);
    assert!(grown(&scene, before) < 32 * MIB, "{} more", grown(&scene, before));
    scene.end();
}

#[tokio::test]
async fn a1_a_header_or_body_that_stalls_is_a_408_and_holds_up_nobody() {
    let scene = Scene::with_engine(HURRIED);
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n";
    let large = format!("{head}content-length: 5000000\r\n\r\n{}", "x".repeat(1_000_000));
    for (what, sent, content_type) in [
        ("a header", head.to_owned(), "application/json"),
        ("a body", format!("{head}content-length: 9\r\n\r\n123"), "application/x-protobuf"),
        (
            "chunks",
            format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhel"),
            "application/x-protobuf",
        ),
        ("a long body", large, "application/x-protobuf"),
    ] {
        let mut http = Http1::connect(scene.forebay.http_address());
        http.send(sent.as_bytes());
        let answer = http.read_answer().unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer.status, 408, "{what}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(content_type), "{what}");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        answer.refusal();
        assert!(http.is_closed(), "{what}");
    }
    // A byte now and then does not extend a header's time.
    let mut http = Http1::connect(scene.forebay.http_address());
    let mut dripping = http.stream.try_clone().expect("a second handle");
    let drip = std::thread::spawn(move || {
        for byte in b"POST /v1/traces HTTP/1.1\r\nhost: a-name-that-takes-its-time".iter().cycle() {
            if dripping.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    assert_eq!(http.read_answer().expect("an answer").status, 408);
    drop(http);
    drip.join().expect("the connection ended");
    // A gRPC call whose message stalls; the connection's other calls go on.
    let mut peer = Frames::connect(grpc_of(&scene));
    let path = method_of(Signal::Traces);
    assert!(peer.send(frames::HEADERS, frames::END_HEADERS, 1, &frames::call(path)));
    assert!(peer.send(frames::DATA, 0, 1, &[0, 0, 0, 0, 9, 1]));
    let answer = peer.wait_for(frames::HEADERS, 1).expect("an answer");
    assert!(answer.flags & frames::END_STREAM != 0, "trailers-only");
    // In one write, so that this call can't stall however slow we are.
    let head = frames::bytes_of(frames::HEADERS, frames::END_HEADERS, 3, &frames::call(path));
    let body = frames::bytes_of(frames::DATA, frames::END_STREAM, 3, &[0; 5]);
    assert!(peer.send_all(&[head, body].concat()));
    assert_eq!(peer.wait_for(frames::DATA, 3).expect("an answer").payload, [0; 5]);
    // A preface that never ends.
    let mut silent = Http1::connect(grpc_of(&scene));
    silent.send(b"PRI * HTTP/2.0\r\n");
    while silent.read_one().is_some() {}
    scene.wait_for_ended("malformed", 6);
    for (protocol, stalled) in [("http1", 3.0), ("http2", 1.0)] {
        let labels = [&*format!("protocol=\"{protocol}\""), "kind=\"stalled\""];
        let counted = scene.forebay.metric("forebay_receiver_late_bodies", &labels);
        assert!(counted >= stalled, "{protocol}: {counted}");
    }
    scene.end();
}

#[test]
fn a_client_that_sends_no_more_is_still_answered() {
    let scene = Scene::start();
    let body = items::proto(Signal::Metrics, 0, 3);
    let mut http = Http1::connect(scene.forebay.http_address());
    let head = format!(
        "POST /v1/metrics HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    http.send(&[&request[..], &request, &request].concat());
    http.finish();
    for _ in 0..3 {
        assert_eq!(http.read_answer().expect("an answer to each").status, 200);
    }
    assert!(http.is_closed());
    let mut peer = Frames::connect(grpc_of(&scene));
    let path = method_of(Signal::Metrics);
    assert!(peer.send(frames::HEADERS, frames::END_HEADERS, 1, &frames::call(path)));
    assert!(peer.send(frames::DATA, frames::END_STREAM, 1, &frame(0, &body)));
    peer.finish();
    assert_eq!(peer.wait_for(frames::DATA, 1).expect("an answer").payload, [0; 5]);
    assert_eq!(scene.ended("abandoned"), 0);
    scene.sink.wait_for(Signal::Metrics, 3);
    scene.end();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_request_is_counted() {
    let scene = Scene::start();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n";
    let unfinished = [
        head.to_owned(),
        format!("{head}content-length: 100\r\n\r\nsome"),
        format!("{head}content-length: 5000000\r\n\r\n{}", "x".repeat(500_000)),
        format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ];
    for (count, sent) in unfinished.iter().enumerate() {
        let mut http = Http1::connect(scene.forebay.http_address());
        http.send(sent.as_bytes());
        http.finish();
        assert!(http.is_closed(), "there is nothing to answer");
        scene.wait_for_ended("abandoned", count as u64 + 1);
    }
    let mut peer = Frames::connect(grpc_of(&scene));
    let path = method_of(Signal::Traces);
    assert!(peer.send(frames::HEADERS, frames::END_HEADERS, 1, &frames::call(path)));
    assert!(peer.send(frames::DATA, 0, 1, &[0, 0, 0, 1, 0, 7]));
    peer.finish();
    scene.wait_for_ended("abandoned", unfinished.len() as u64 + 1);
    let taken = || scene.forebay.metric("forebay_receiver_core_memory_taken_bytes", &[]);
    let deadline = std::time::Instant::now() + forebay_tests::forebay::PATIENCE;
    while taken() >= 100_000.0 {
        // A core shows its gauges with a little delay.
        assert!(std::time::Instant::now() < deadline, "it is not given back: {}", taken());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    scene.end();
}

#[test]
fn noise_on_either_port_is_refused_or_cut_off() {
    let scene = Scene::with_engine(HURRIED);
    let seed = 0x00f0_5eed;
    println!("seed {seed:#x}");
    let mut dice = Dice::new(seed);
    for round in 0..60 {
        let address = if round % 2 == 0 { grpc_of(&scene) } else { scene.forebay.http_address() };
        let mut http = Http1::connect(address);
        let mut noise: Vec<u8> = (0..dice.below(3000)).map(|_| dice.below(256) as u8).collect();
        if round % 3 == 0 {
            noise.splice(..0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied());
        }
        if round % 3 == 1 {
            noise.splice(..0, b"POST /v1/traces HTTP/1.1\r\nhost: t\r\n".iter().copied());
        }
        let _ = http.stream.write_all(&noise);
        http.stream.set_read_timeout(Some(forebay_tests::forebay::PATIENCE)).expect("set");
        let mut answer = Vec::new();
        // A reset is as good an end as any.
        let ended = std::io::Read::read_to_end(&mut http.stream, &mut answer);
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "round {round} of seed {seed:#x}: the connection stays open");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "round {round} of seed {seed:#x}");
    }
    scene.end();
}
