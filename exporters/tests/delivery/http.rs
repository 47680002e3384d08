//! `otlp_http` against a hyper server, and against peers that misbehave.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_codec::compress::{Decompressor, Encoding as Wire};
use forebay_codec::status::Status as WireStatus;
use forebay_exporters::batch::{DropReason, Outcome};
use forebay_exporters::destination::{Algorithm, Compression, Encoding, Kind, OtlpHttp, Queue};
use forebay_exporters::verdict::FailureKind;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::http_peer::{HttpPeer, Reply, ok, response};
use crate::rig::{
    Rig, batch, delivered, destination, drop_reason, http_headers, http_to, names, until,
};

fn rig(settings: OtlpHttp) -> Rig {
    Rig::new(vec![destination(Kind::OtlpHttp(settings))])
}

#[test]
fn a_batch_arrives_whole_at_a_real_server() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let shared = Arc::clone(&got);
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let got = Arc::clone(&shared);
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                let got = Arc::clone(&got);
                async move { Ok::<_, Infallible>(take(request, &got).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(serving.await) });
        }
    });
    let rig = rig(OtlpHttp { headers: http_headers(&[("x-tenant", "a")]), ..http_to(address) });
    for seq in 0..30 {
        rig.offer(0, batch(seq, &[&format!("{seq} one"), &format!("{seq} two")]));
    }
    assert!(rig.ends(30).values().all(|outcome| *outcome == delivered()));
    rig.finish();
    let mut got = got.lock().unwrap().clone();
    got.sort();
    let mut sent: Vec<_> =
        (0..30).flat_map(|seq| [format!("{seq} one"), format!("{seq} two")]).collect();
    sent.sort();
    assert_eq!(got, sent);
}

async fn take(
    request: http::Request<hyper::body::Incoming>,
    got: &Mutex<Vec<String>>,
) -> http::Response<Full<bytes::Bytes>> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert_eq!(request.headers()["x-tenant"], "a");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    got.lock().unwrap().extend(names(&request));
    http::Response::builder()
        .header("content-type", "application/x-protobuf")
        .body(Full::default())
        .unwrap()
}

#[test]
fn every_content_encoding_decodes_to_what_was_sent() {
    let cases = [
        (Algorithm::None, None, Wire::Identity),
        (Algorithm::Gzip, Some("gzip"), Wire::Gzip),
        (Algorithm::Zstd, Some("zstd"), Wire::Zstd),
        (Algorithm::Snappy, Some("snappy"), Wire::Snappy),
        (Algorithm::Zlib, Some("zlib"), Wire::Zlib),
        (Algorithm::Deflate, Some("deflate"), Wire::Zlib),
        (Algorithm::Lz4, Some("lz4"), Wire::Lz4),
    ];
    for (algorithm, name, wire) in cases {
        let peer = HttpPeer::start(|_, _| Reply::Send(ok()));
        let compression = Compression { algorithm, level: None };
        let rig = rig(OtlpHttp { compression, ..http_to(peer.address) });
        let sent = batch(1, &["one", "two", "three"]);
        let plain = sent.chain.concat();
        rig.offer(0, sent);
        assert_eq!(rig.ends(1)[&(0, 1)], delivered(), "{algorithm:?}");
        rig.finish();
        let request = peer.got().remove(0);
        assert_eq!(request.header("content-encoding"), name);
        let body = match wire {
            Wire::Identity => request.body.clone(),
            wire => Decompressor::new().decompress(wire, &request.body, 1 << 20).unwrap(),
        };
        assert_eq!(body, plain, "{algorithm:?}");
        assert_eq!(request.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(request.header("host"), Some(peer.address.to_string().as_str()));
    }
}

#[test]
fn json_is_sent_as_json() {
    let json = || response("200 OK", "Content-Type: application/json\r\n", b"{}");
    let peer = HttpPeer::start(move |_, _| Reply::Send(json()));
    let rig = rig(OtlpHttp { encoding: Encoding::Json, ..http_to(peer.address) });
    rig.offer(0, batch(1, &["one", "two"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    rig.finish();
    let request = peer.got().remove(0);
    assert_eq!(request.header("content-type"), Some("application/json"));
    let request: ExportTraceServiceRequest = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(names(&request), ["one", "two"]);
}

#[test]
fn c2_an_answer_over_4_mib_is_permanent() {
    let body = vec![b' '; (4 << 20) + 1];
    let header = "Content-Type: application/json\r\n";
    let peer = HttpPeer::start(move |_, _| Reply::Send(response("200 OK", header, &body)));
    let rig = rig(http_to(peer.address));
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(drop_reason(&rig.ends(1)[&(0, 1)]), Some(DropReason::Refused));
    rig.finish();
    assert_eq!(peer.got().len(), 1);
}

#[test]
fn c4_429_502_503_and_504_are_sent_again_and_a_400_is_not() {
    let statuses = ["429 Slow", "502 Bad", "503 Busy", "504 Late"];
    let peer = HttpPeer::start(move |count, _| {
        Reply::Send(match statuses.get(count) {
            Some(status) => response(status, "", b"later"),
            None if count == 4 => ok(),
            None => {
                let message = "no such field".to_owned();
                let status = WireStatus { code: 3, message, retry_delay: None, bad_request: None };
                let header = "Content-Type: application/x-protobuf\r\n";
                response("400 Bad Request", header, &status.to_proto())
            }
        })
    });
    let rig = rig(http_to(peer.address));
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    rig.offer(0, batch(2, &["two"]));
    let ends = rig.ends(1);
    let Outcome::Dropped { reason, code, message } = &ends[&(0, 2)] else { panic!("{ends:?}") };
    assert_eq!((*reason, *code), (DropReason::Refused, Some(3)));
    assert_eq!(message, "HTTP 400 Bad Request: no such field");
    rig.finish();
    assert_eq!(peer.got().len(), 6);
}

#[test]
fn c5_retry_after_is_waited_first() {
    let header = "Retry-After: 1\r\n";
    let peer = HttpPeer::start(move |count, _| match count {
        0 => Reply::Send(response("503 Busy", header, b"")),
        _ => Reply::Send(ok()),
    });
    let rig = rig(http_to(peer.address));
    let began = std::time::Instant::now();
    rig.offer(0, batch(1, &["one"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    rig.finish();
}

#[test]
fn c7_and_c13_a_lost_answer_means_the_same_bytes_again_and_one_delivery() {
    // The peer took the first request and closed without a word: a duplicate by design.
    let peer = HttpPeer::start(|count, _| match count {
        0 => Reply::Close,
        1 => Reply::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Len".to_vec()),
        2 => Reply::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec()),
        _ => Reply::Send(ok()),
    });
    let mut destination = destination(Kind::OtlpHttp(http_to(peer.address)));
    // One made for warmth would count as used after a second.
    destination.backends.pool.warm = false;
    let rig = Rig::new(vec![destination]);
    rig.offer(0, batch(1, &["one", "two"]));
    assert_eq!(rig.ends(1)[&(0, 1)], delivered());
    let stats = rig.finish().remove(0);
    assert_eq!(stats.failed_attempts[FailureKind::Disconnected.index()], 3);
    let bodies: Vec<_> = peer.got().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[test]
fn c11_connections_are_kept_and_used_again() {
    let peer = HttpPeer::start(|_, _| Reply::Send(ok()));
    let mut destination = destination(Kind::OtlpHttp(http_to(peer.address)));
    destination.queue = Queue { consumers: 1, batches_max: 100, bytes_max: None };
    // A connection made for warmth would be another.
    destination.backends.pool.warm = false;
    let rig = Rig::new(vec![destination]);
    for seq in 0..20 {
        rig.offer(0, batch(seq, &["one"]));
        rig.ends(1);
    }
    rig.finish();
    assert!(peer.got().iter().all(|request| request.connection == 0));
}

#[test]
fn a_kept_connection_that_closed_meanwhile_costs_no_failed_attempt() {
    let peer = HttpPeer::start(|_, _| Reply::SendAndClose(ok()));
    let rig = rig(http_to(peer.address));
    for seq in 0..20 {
        rig.offer(0, batch(seq, &["one"]));
        assert_eq!(rig.ends(1)[&(0, seq)], delivered());
    }
    let stats = rig.finish().remove(0);
    assert_eq!(stats.failed_attempts.iter().sum::<u64>(), 0, "{stats:?}");
}

/// It answers once it has seen the first bytes, and reads nothing more.
#[test]
fn a_peer_that_answers_before_it_has_read_the_body_holds_no_sender() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            // Who gave up meanwhile comes again.
            let answered = stream.read_exact(&mut [0; 16]).and_then(|()| stream.write_all(&ok()));
            if answered.is_ok() {
                held.push(stream);
            }
        }
    });
    let mut destination = destination(Kind::OtlpHttp(OtlpHttp {
        timeout: Duration::from_secs(2),
        connections: 1,
        ..http_to(address)
    }));
    destination.queue = Queue { consumers: 1, batches_max: 100, bytes_max: None };
    destination.backends.pool.warm = false;
    let rig = Rig::new(vec![destination]);
    // More than the buffers of both ends take.
    let long = "long ".repeat(6 << 20);
    for seq in 0..3 {
        rig.offer(0, batch(seq, &[&long]));
        assert_eq!(rig.ends(1)[&(0, seq)], delivered());
    }
    until("the end of those let go", || rig.snapshot(0).connections_open == 1);
    let stats = rig.finish().remove(0);
    // A busy machine may be late with an answer, which costs an attempt more.
    let late: u64 = stats.failed_attempts.iter().sum();
    assert_eq!(stats.attempts, 3 + late, "{stats:?}");
    assert!((3..=3 + late).contains(&stats.connections_made), "{stats:?}");
}

#[test]
fn what_is_no_answer_never_takes_a_batch() {
    let html = response("200 OK", "Content-Type: text/html\r\n", b"<html>log in</html>");
    let proto = "Content-Type: application/x-protobuf\r\n";
    let cases = [
        ("a login page", html, FailureKind::Garbage),
        ("no protobuf", response("200 OK", proto, b"\xff\xff"), FailureKind::Garbage),
        ("no HTTP", b"\x16\x03\x01 certainly not\r\n\r\n".to_vec(), FailureKind::Garbage),
        ("silence", Vec::new(), FailureKind::Timeout),
    ];
    for (case, bytes, kind) in cases {
        let peer = HttpPeer::start(move |count, _| match (count, bytes.is_empty()) {
            (0, true) => Reply::Hang,
            (0, false) => Reply::Send(bytes.clone()),
            _ => Reply::Send(ok()),
        });
        let waits = kind == FailureKind::Timeout;
        let timeout = Duration::from_secs(if waits { 1 } else { 20 });
        let rig = rig(OtlpHttp { timeout, ..http_to(peer.address) });
        rig.offer(0, batch(1, &["one"]));
        assert_eq!(rig.ends(1)[&(0, 1)], delivered(), "{case}");
        let stats = rig.finish().remove(0);
        let failed: u64 = stats.failed_attempts.iter().sum();
        assert!(stats.failed_attempts[kind.index()] >= 1, "{case}: {stats:?}");
        assert_eq!(stats.attempts, 1 + failed, "{case}");
        // On a busy machine the good answer may be late, too.
        assert!(failed == 1 || waits, "{case}: {stats:?}");
    }
}

#[test]
fn c10_no_more_requests_are_in_flight_than_there_are_connections() {
    let peer = HttpPeer::start(|_, _| Reply::Hang);
    let rig = rig(OtlpHttp { connections: 2, ..http_to(peer.address) });
    for seq in 0..10 {
        rig.offer(0, batch(seq, &["one"]));
    }
    // All four consumers are at it, and two of them hold a connection.
    until("two requests", || peer.got().len() == 2);
    until("four attempts", || rig.snapshot(0).in_flight_requests == 4);
    let (_, ends) = rig.abandon();
    assert_eq!(ends.len(), 10);
    assert_eq!(peer.got().len(), 2);
}

#[test]
fn c11_an_idle_connection_is_closed_after_the_idle_timeout() {
    let peer = HttpPeer::start(|_, _| Reply::Send(ok()));
    let idle_timeout = Duration::from_millis(50);
    let rig = rig(OtlpHttp { idle_timeout, ..http_to(peer.address) });
    rig.offer(0, batch(1, &["one"]));
    rig.ends(1);
    until("the connection's end", || peer.closed() >= 1);
    rig.offer(0, batch(2, &["two"]));
    assert_eq!(rig.ends(1)[&(0, 2)], delivered());
    rig.finish();
}
