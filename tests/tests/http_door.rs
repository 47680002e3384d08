//! OTLP/HTTP as a client meets it: paths, content types, encodings, and what a refusal looks like.

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_codec::status::{PartialSuccess, Status};
use forebay_tests::forebay::{Process, RECEIVERS, SERVICE, config};
use forebay_tests::items;
use forebay_tests::recorder::Recorder;
use forebay_tests::scene::{FIRST, Scene};
use forebay_tests::sink::{Reply, Sink, closed_port};
use forebay_tests::wire::{self, Answer, Http1, Http2, path_of};
use http::Method;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::profiles::v1development as profiles;
use prost::Message;

const STABLE: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];
const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Anything with a method, over HTTP/1.1.
fn request(http: &mut Http1, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    http.send((head + "content-length: 0\r\n\r\n").as_bytes());
    http.read_answer().expect("an answer")
}

/// Sends what it takes to a recorder, byte for byte, in all four signals.
fn record_to(recorder: &Recorder) -> Process {
    let mut pipelines = String::from("  pipelines:\n");
    for signal in Signal::ALL {
        pipelines +=
            &format!("    {}: {{receivers: [otlp], exporters: [otlp_http]}}\n", signal.name());
    }
    let exporters = format!("exporters:\n  otlp_http: {}\n", recorder.exporter());
    Process::start(&format!("{RECEIVERS}{SERVICE}{pipelines}{exporters}"))
}

#[test]
fn h1_a_signal_has_the_path_that_is_configured_and_no_other() {
    let scene = Scene::with("", |config| {
        let configured = "http: {endpoint: 127.0.0.1:0, traces_url_path: /custom/spans}";
        config.replace("http: {endpoint: 127.0.0.1:0}", configured)
    });
    let mut http = Http1::connect(scene.forebay.http_address());
    let body = items::proto(Signal::Traces, FIRST, 3);
    assert_eq!(http.post("/custom/spans", &[PROTO], &body).status, 200);
    let with_query = http.post("/custom/spans?tenant=a", &[PROTO], &body);
    assert_eq!(with_query.status, 200, "a query is not part of a path");
    for path in ["/v1/traces", "/custom/spans/", "/CUSTOM/SPANS", "/", "/v1/profiles", "*"] {
        let answer = http.post(path, &[PROTO], &body);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.refusal().code, 12, "{path}");
    }
    scene.wait_for_ended("unserved", 6);
    scene.end();
}

#[test]
fn h1_a_path_is_the_one_before_the_query_whatever_the_query_holds() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let metrics = items::proto(Signal::Metrics, FIRST, 3);
    let answer = http.post("/v1/metrics?from=http://test/v1/nothing", &[PROTO], &metrics);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = http.post("http://test/v1/metrics?x=/v1/nothing", &[PROTO], &metrics);
    assert_eq!(answer.status, 200, "an absolute target: {}", answer.text());
    scene.end();
}

#[test]
fn h2_the_answer_has_the_content_type_of_the_request_in_success_and_refusal() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let (proto, json) =
        (items::proto(Signal::Metrics, FIRST, 2), items::json(Signal::Metrics, FIRST, 2));
    for (sent, body, expected) in [
        ("application/x-protobuf", &proto, "application/x-protobuf"),
        ("application/protobuf", &proto, "application/x-protobuf"),
        ("application/json", &json, "application/json"),
        ("APPLICATION/JSON; charset=utf-8", &json, "application/json"),
    ] {
        let answer = http.post("/v1/metrics", &[("content-type", sent)], body);
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(expected), "{sent}");
        let answer = http.post("/v1/metrics", &[("content-type", sent)], b"\xff");
        assert_eq!(answer.status, 400, "{sent}");
        assert_eq!(answer.header("content-type"), Some(expected), "{sent}");
        answer.refusal();
    }
    scene.wait_for_ended("invalid", 4);
    scene.end();
}

#[tokio::test]
async fn h3_one_port_serves_grpc_and_http_by_content_type() {
    let sink = Sink::start();
    // Both protocols must name the same, on an address that nobody else uses.
    let address = closed_port();
    let exporters = format!("exporters:\n  otlp_grpc: {}\n", sink.grpc_exporter());
    let shared = config("[otlp_grpc]", &exporters)
        .replace("grpc: {endpoint: 127.0.0.1:0}", &format!("grpc: {{endpoint: \"{address}\"}}"))
        .replace("http: {endpoint: 127.0.0.1:0}", &format!("http: {{endpoint: \"{address}\"}}"));
    let forebay = Process::start(&shared);
    assert_eq!((forebay.grpc, forebay.http), (Some(address), Some(address)));
    let connection = Http2::connect(address).await;
    let call = connection.export(Signal::Logs, &items::proto(Signal::Logs, 0, 10)).await;
    assert_eq!(call.expect("an answer").grpc_status(), Some(0));
    let body = Bytes::from(items::proto(Signal::Logs, 10, 10));
    let post = connection.request(Method::POST, "/v1/logs", &[PROTO], body).await;
    assert_eq!(post.expect("an answer").status, 200, "OTLP/HTTP beside gRPC, one connection");
    let json = items::json(Signal::Logs, 20, 10);
    assert_eq!(wire::post(address, "/v1/logs", &[JSON], &json).status, 200);
    sink.wait_for(Signal::Logs, 30);
    forebay.stop();
}

#[test]
fn h5_what_does_not_decode_is_a_400_that_says_where() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let bodies: [((&str, &str), &[u8]); 5] = [
        (PROTO, b"\x0a\x05\x0a"),
        (PROTO, b"not protobuf"),
        (JSON, b"{\"resourceSpans\": 7}"),
        (JSON, b"{\"resourceSpans\": ["),
        (JSON, b""),
    ];
    for (content_type, body) in bodies {
        let answer = http.post("/v1/traces", &[content_type], body);
        assert_eq!(answer.status, 400, "{}", body.escape_ascii());
        let status = answer.refusal();
        assert_eq!(status.code, 3, "{status:?}");
        assert!(status.bad_request.is_some(), "details hold BadRequest: {status:?}");
        assert_eq!(status.retry_delay, None, "never again: {status:?}");
    }
    scene.wait_for_ended("invalid", 5);
    scene.end();
}

type Headers = &'static [(&'static str, &'static str)];

/// Requests that HTTP itself refuses: method, path, headers, then status and gRPC code.
const REFUSED: [(&str, &str, Headers, u16, u32); 11] = [
    ("GET", "/v1/traces", &[JSON], 405, 12),
    ("PUT", "/v1/logs", &[PROTO], 405, 12),
    ("DELETE", "/v1/metrics", &[PROTO], 405, 12),
    ("OPTIONS", "/v1/traces", &[], 405, 12),
    ("PATCH", "/v1/traces", &[("content-type", "text/plain")], 405, 12),
    ("POST", "/v2/traces", &[PROTO], 404, 12),
    ("POST", "/v1/traces", &[("content-type", "text/plain")], 415, 3),
    ("POST", "/v1/traces", &[], 415, 3),
    ("POST", "/v1/traces", &[PROTO, ("content-encoding", "br")], 415, 3),
    ("POST", "/v1/traces", &[JSON, ("content-encoding", "gzip, zstd")], 415, 3),
    ("POST", "/v1/traces", &[("content-type", "application/grpc")], 415, 3),
];

#[test]
fn h6_h9_paths_methods_and_types_are_refused_as_http_1_says_with_a_status() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    for (method, path, headers, status, code) in REFUSED {
        let answer = request(&mut http, method, path, headers);
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
        assert_eq!(answer.refusal().code, code, "{method} {path} {headers:?}");
        let allow = (status == 405).then_some("POST");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        if headers.contains(&PROTO) {
            assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        }
    }
    scene.wait_for_ended("unserved", REFUSED.len() as u64);
    scene.end();
}

#[tokio::test]
async fn h6_h9_paths_methods_and_types_are_refused_over_http_2_too() {
    let scene = Scene::start();
    let http = Http2::connect(scene.forebay.http_address()).await;
    for (method, path, headers, status, code) in REFUSED {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = http.request(method.clone(), path, headers, Bytes::new()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
        assert_eq!(answer.refusal().code, code, "{method} {path} {headers:?}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    scene.wait_for_ended("unserved", REFUSED.len() as u64);
    scene.end();
}

#[tokio::test]
async fn h9_an_answer_to_head_has_no_body_and_the_next_one_is_read_right() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    http.send(b"HEAD /v1/traces HTTP/1.1\r\nhost: test\r\n\r\n");
    http.send(b"GET /v1/nothing HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut http.stream, &mut all).expect("it ends");
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, rest) = text.split_once("\r\n\r\n").expect("a whole head");
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: POST"), "{text}");
    assert!(rest.starts_with("HTTP/1.1 404 "), "nothing between the answers: {text}");
    let http = Http2::connect(scene.forebay.http_address()).await;
    let answer = http.request(Method::HEAD, "/v1/traces", &[], Bytes::new()).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (405, 0));
    scene.end();
}

#[test]
fn h9_what_may_be_left_out_of_a_body_is_still_a_whole_request() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let body = items::proto(Signal::Metrics, FIRST, 9);
    let mut chunked = b"POST /v1/metrics HTTP/1.1\r\nhost: test\r\n\
                        content-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for piece in body.chunks(7) {
        chunked.extend(format!("{:x};ext=1\r\n", piece.len()).bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\nx-checksum: none\r\n\r\n");
    http.send(&chunked);
    let answer = http.read_answer().expect("an answer");
    assert_eq!(answer.status, 200, "chunks, extensions and trailers: {}", answer.text());
    http.send(b"\r\n");
    assert_eq!(http.post("/v1/metrics", &[PROTO], &body).status, 200, "after an empty line");
    scene.end();
}

#[test]
fn h9_a_client_of_http_1_0_is_answered_and_its_connection_closed() {
    let scene = Scene::start();
    let body = items::json(Signal::Metrics, FIRST, 4);
    let head = |version: &str, connection: &str| {
        let mut request = format!(
            "POST /v1/metrics {version}\r\nhost: test\r\ncontent-type: application/json\r\n\
             {connection}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(&body);
        request
    };
    for (version, connection, stays) in [
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "connection: keep-alive\r\n", true),
        ("HTTP/1.1", "connection: close\r\n", false),
        ("HTTP/1.1", "connection: x, CLOSE\r\n", false),
        ("HTTP/1.1", "", true),
    ] {
        let mut http = Http1::connect(scene.forebay.http_address());
        http.send(&head(version, connection));
        let answer = http.read_answer().expect("an answer");
        assert_eq!(answer.status, 200, "{version} {connection}");
        if stays {
            http.send(&head("HTTP/1.1", ""));
            let answer = http.read_answer().expect("a second answer");
            assert_eq!(answer.status, 200, "{version} {connection}");
        } else {
            assert_eq!(answer.header("connection"), Some("close"), "{version} {connection}");
            assert!(http.is_closed(), "{version} {connection}");
        }
    }
    scene.end();
}

#[test]
fn h9_pipelined_requests_are_answered_in_their_order() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let mut requests = Vec::new();
    for number in 0..200 {
        let body = items::proto(Signal::Metrics, FIRST + number, 1);
        let path = if number % 5 == 3 { "/v1/nothing" } else { "/v1/metrics" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        requests.extend(head.bytes());
        requests.extend(body);
    }
    http.send(&requests);
    for number in 0..200 {
        let expected = if number % 5 == 3 { 404 } else { 200 };
        let answer = http.read_answer().expect("an answer to each");
        assert_eq!(answer.status, expected, "the answer to {number}");
    }
    scene.end();
}

#[test]
fn h9_a_client_that_expects_100_continue_gets_it_before_its_body_is_taken() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let body = items::proto(Signal::Metrics, FIRST, 4);
    let head = |path: &str, bytes: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
             expect: 100-continue\r\ncontent-length: {bytes}\r\n\r\n"
        )
    };
    http.send(head("/v1/metrics", body.len()).as_bytes());
    assert_eq!(http.read_one().expect("go on").status, 100);
    http.send(&body);
    assert_eq!(http.read_one().expect("an answer").status, 200);
    for (path, bytes, status) in [("/v1/nothing", 10, 404), ("/v1/metrics", 1 << 30, 413)] {
        let mut http = Http1::connect(scene.forebay.http_address());
        http.send(head(path, bytes).as_bytes());
        let answer = http.read_one().expect("a refusal before the body");
        assert_eq!(answer.status, status, "{}", answer.text());
        answer.refusal();
        assert_eq!(answer.header("connection"), Some("close"), "where a body ends is unknown");
        assert!(http.is_closed());
    }
    scene.end();
}

#[test]
fn h8_an_answer_is_readable_by_who_accepts_gzip() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let body = items::json(Signal::Metrics, FIRST, 4);
    let answer = http.post("/v1/metrics", &[JSON, ("accept-encoding", "gzip")], &body);
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    assert_eq!(answer.header("content-encoding"), None, "it may be gzip, and then says so");
    scene.end();
}

#[test]
fn s2_s3_an_empty_request_is_a_full_success_and_reaches_no_destination() {
    let recorder = Recorder::start();
    let forebay = record_to(&recorder);
    let mut http = Http1::connect(forebay.http_address());
    for signal in Signal::ALL {
        let answer = http.post(path_of(signal), &[PROTO], b"");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b""[..]), "{signal}");
        let answer = http.post(path_of(signal), &[JSON], b"{}");
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"), "{signal}");
    }
    // S8: envelopes without an item are as empty.
    let empty = [0x0a, 0x02, 0x12, 0x00];
    assert_eq!(http.post("/v1/traces", &[PROTO], &empty).status, 200);
    let body = items::proto(Signal::Logs, 0, 1);
    assert_eq!(http.post("/v1/logs", &[PROTO], &body).status, 200);
    assert_eq!(recorder.next(), ("/v1/logs".to_owned(), body), "the first that holds an item");
    let end = forebay.stop();
    assert_eq!(end.ledger["received_items"], 1);
}

#[test]
fn s4_s5_a_partial_success_reaches_the_client_that_waits_for_delivery() {
    let sink = Sink::scripted(|_| Reply::Partial(2));
    let exporters = format!(
        "exporters:\n  otlp_grpc: {}\nengine: {{acks: {{default: delivered}}}}\n",
        sink.grpc_exporter()
    );
    let forebay = Process::start(&config("[otlp_grpc]", &exporters));
    let mut http = Http1::connect(forebay.http_address());
    for (signal, member) in
        STABLE.into_iter().zip(["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"])
    {
        let answer = http.post(path_of(signal), &[JSON], &items::json(signal, 0, 5));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(json["partialSuccess"][member], "2", "{json}");
        let answer = http.post(path_of(signal), &[PROTO], &items::proto(signal, 10, 5));
        let partial = PartialSuccess::response_from_proto(&answer.body).expect("a response");
        assert_eq!(partial.rejected, 2);
        assert!(!partial.message.is_empty(), "it says who rejected them");
    }
    let end = forebay.stop();
    assert_eq!(end.ledger["dropped_items"], 12);
    assert_eq!(end.ledger["delivered_items"], 18);
}

#[test]
fn s7_no_answer_grows_with_what_the_client_sent() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let long = "x".repeat(8 << 10);
    let path = format!("/{long}");
    let member = format!("{{\"resourceSpans\": [{{\"{}\": tru}}]}}", "y".repeat(1 << 20));
    let name = format!("{{\"resourceSpans\": [{{\"scopeSpans\": \"{}\"}}]}}", "z".repeat(1 << 20));
    let content_type = format!("text/{long}");
    let answers = [
        http.post(&path, &[JSON], b"{}"),
        http.post("/v1/traces", &[JSON], member.as_bytes()),
        http.post("/v1/traces", &[JSON], name.as_bytes()),
        http.post("/v1/traces", &[("content-type", &content_type)], b"{}"),
        http.post("/v1/traces", &[JSON, ("content-encoding", &long)], b"{}"),
        request(&mut http, &"M".repeat(4 << 10), "/v1/traces", &[JSON]),
    ];
    for answer in answers {
        assert!(answer.status >= 400);
        assert!(answer.body.len() < 2048, "{} bytes: {}", answer.body.len(), answer.text());
        answer.refusal();
    }
    scene.end();
}

fn logs_with(value: Option<Value>) -> ExportLogsServiceRequest {
    let mut request = items::logs(0, 1);
    let attribute =
        KeyValue { key: String::new(), value: Some(AnyValue { value }), ..KeyValue::default() };
    request.resource_logs[0].scope_logs[0].log_records[0].attributes.push(attribute);
    request
}

#[test]
fn s9_s10_unknown_fields_and_every_kind_of_value_pass_byte_for_byte() {
    let recorder = Recorder::start();
    let forebay = record_to(&recorder);
    let mut http = Http1::connect(forebay.http_address());
    let nested = Value::ArrayValue(ArrayValue {
        values: vec![AnyValue {
            value: Some(Value::KvlistValue(KeyValueList { values: vec![KeyValue::default()] })),
        }],
    });
    let mut bodies: Vec<Vec<u8>> = [
        None,
        Some(Value::StringValue(String::new())),
        Some(Value::BytesValue(vec![255, 0])),
        Some(nested),
    ]
    .into_iter()
    .map(|value| logs_with(value).encode_to_vec())
    .collect();
    // Field 2000, a varint and a text: from a newer peer.
    let mut unknown = items::proto(Signal::Logs, 0, 1);
    unknown.extend([0x80, 0x7d, 0x07, 0x82, 0x7d, 0x02, b'h', b'i']);
    bodies.push(unknown);
    for body in bodies {
        let answer = http.post("/v1/logs", &[PROTO], &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(recorder.next().1, body);
    }
    forebay.stop();
}

#[test]
fn s11_string_table_indices_outside_profiles_are_taken_with_a_warning() {
    let scene = Scene::start();
    let mut http = Http1::connect(scene.forebay.http_address());
    let mut request = items::traces(FIRST, 1);
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    span.attributes.push(KeyValue { key_strindex: 7, ..KeyValue::default() });
    let answer = http.post("/v1/traces", &[PROTO], &request.encode_to_vec());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let end = scene.end();
    let warns = |line: &&serde_json::Value| {
        line["level"].as_str().is_some_and(|level| level.eq_ignore_ascii_case("warn"))
            && line.to_string().contains("strindex")
    };
    assert_eq!(end.logs.iter().filter(warns).count(), 1, "{:#?}", end.logs);
}

#[test]
fn s12_a_request_with_invalid_utf8_poisons_nobody_it_would_have_been_batched_with() {
    let batched = "processors: {batch: {timeout: 100ms, send_batch_size: 100000}}\n";
    let scene = Scene::with("", |config| {
        config.replace("receivers: [otlp],", "receivers: [otlp], processors: [batch],") + batched
    });
    let mut http = Http1::connect(scene.forebay.http_address());
    let mut bad = items::proto(Signal::Logs, FIRST, 1);
    let at = bad.windows(4).position(|bytes| bytes == b"line").expect("the record's body");
    bad[at] = 0xff;
    for _ in 0..20 {
        let answer = http.post("/v1/logs", &[PROTO], &bad);
        assert_eq!(answer.status, 400);
        assert!(answer.refusal().message.contains("UTF-8"), "{:?}", answer.refusal());
    }
    scene.wait_for_ended("invalid", 20);
    scene.end();
}

/// Two profiles with two samples each, and a dictionary for the request.
fn profiles_request() -> ExportProfilesServiceRequest {
    let sample = |stack_index| profiles::Sample { stack_index, ..profiles::Sample::default() };
    let profile = profiles::Profile {
        profile_id: vec![1; 16],
        samples: vec![sample(0), sample(1)],
        ..profiles::Profile::default()
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![profiles::ResourceProfiles {
            scope_profiles: vec![profiles::ScopeProfiles {
                profiles: vec![profile.clone(), profile],
                ..profiles::ScopeProfiles::default()
            }],
            ..profiles::ResourceProfiles::default()
        }],
        dictionary: Some(profiles::ProfilesDictionary {
            string_table: vec![String::new(), "main".to_owned()],
            ..profiles::ProfilesDictionary::default()
        }),
    }
}

#[tokio::test]
async fn r1_r2_profiles_pass_whole_over_both_transports_and_count_as_samples() {
    let recorder = Recorder::start();
    let forebay = record_to(&recorder);
    let body = profiles_request().encode_to_vec();
    let path = path_of(Signal::Profiles);
    let mut http = Http1::connect(forebay.http_address());
    let answer = http.post(path, &[PROTO], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(recorder.next(), (path.to_owned(), body.clone()));
    let grpc = Http2::connect(forebay.grpc.expect("a port")).await;
    let answer = grpc.export(Signal::Profiles, &body).await.expect("an answer");
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    assert_eq!(recorder.next(), (path.to_owned(), body.clone()));
    let mut json = Vec::new();
    forebay_codec::json::proto_to_json(&body, Signal::Profiles, &mut json).expect("valid");
    assert_eq!(http.post(path, &[JSON], &json).status, 200);
    let arrived = ExportProfilesServiceRequest::decode(&*recorder.next().1).expect("a request");
    assert_eq!(arrived, profiles_request(), "through JSON the message is the same");
    for transport in ["http", "grpc"] {
        let name = "otelcol_receiver_accepted_profile_samples";
        let label = format!("transport=\"{transport}\"");
        let expected = if transport == "http" { 8.0 } else { 4.0 };
        assert_eq!(forebay.metric(name, &[&label]), expected, "{transport}");
    }
    forebay.stop();
}

#[test]
fn h6_every_refusal_reads_as_a_status_for_other_peoples_code_too() {
    let scene = Scene::start();
    let answer = wire::post(scene.forebay.http_address(), "/v1/traces", &[PROTO], b"\xff");
    // google.rpc.Status, field by field, by prost.
    #[derive(Clone, PartialEq, Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(bytes = "vec", repeated, tag = "3")]
        details: Vec<Vec<u8>>,
    }
    let status = RpcStatus::decode(&*answer.body).expect("prost reads it");
    let ours = Status::from_proto(&answer.body).expect("we read it");
    assert_eq!((status.code, &status.message), (3, &ours.message));
    assert_eq!(status.details.len(), 1);
    scene.end();
}
