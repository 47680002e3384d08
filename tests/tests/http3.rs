//! OTLP over HTTP/3 as a client meets it, against a running process: what is taken, what is
//! refused and how, clients that move, and an orderly end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::signal::Signal;
use forebay_tests::dice::Dice;
use forebay_tests::forebay::{End, PATIENCE, Process, SERVICE, config, program};
use forebay_tests::http3::Http3;
use forebay_tests::items;
use forebay_tests::papers::{Authority, Files};
use forebay_tests::sink::{Gate, Sink};
use forebay_tests::wire::{Http1, Http2, path_of};
use http::Method;
use rustix::process::Signal as Sent;
use tokio::task::JoinSet;

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const STABLE: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];
const TWO_CORES: &str = "cores: {receivers: \"0,1\"}";

fn compressed(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    let chain = [Bytes::copy_from_slice(body)];
    Compressor::new().compress(encoding, None, &chain).expect("it can be compressed")
}

/// Method, path, headers, body, and the status of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

/// What differs between the processes.
#[derive(Clone, Copy)]
struct Terms<'a> {
    endpoint: &'a str,
    is_mutual: bool,
    /// More keys of that block, and of that of HTTP over TCP.
    http3: &'a str,
    /// The inside of that block.
    engine: &'a str,
    exporter: &'a str,
}

const USUAL: Terms<'static> = Terms {
    endpoint: "127.0.0.1:0",
    is_mutual: false,
    http3: "",
    engine: "",
    exporter: "otlp_grpc",
};

/// A process that takes OTLP over HTTP/3 and sends it to a sink.
struct Stage {
    authority: Authority,
    files: Files,
    sink: Sink,
    forebay: Process,
}

impl Stage {
    fn set(terms: Terms<'_>) -> Stage {
        Stage::before(Sink::start(), terms)
    }

    fn before(sink: Sink, terms: Terms<'_>) -> Stage {
        let Terms { endpoint, is_mutual, http3, engine, exporter } = terms;
        let authority = Authority::new("ours");
        let files = Files::new(&authority.issue(|_| {}));
        files.write("ca.pem", &authority.pem());
        let mutual = format!(", client_ca_file: {}", files.path("ca.pem").display());
        let tls = files.block(if is_mutual { &mutual } else { "" });
        let to_sink = sink.grpc_exporter();
        let mut pipelines = String::new();
        for signal in STABLE {
            let name = signal.name();
            pipelines += &format!("    {name}: {{receivers: [otlp], exporters: [{exporter}]}}\n");
        }
        let forebay = Process::start(&format!(
            "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0}}
      http: {{endpoint: 127.0.0.1:0{http3}}}
      http3: {{endpoint: {endpoint}, tls: {tls}{http3}}}
extensions:
  health_check: {{endpoint: 127.0.0.1:0}}
exporters: {{nop: {{}}, otlp_grpc: {to_sink}}}
{SERVICE}  pipelines:
{pipelines}engine: {{{engine}}}
"
        ));
        Stage { authority, files, sink, forebay }
    }

    async fn connect(&self) -> Http3 {
        let address = self.forebay.http3.expect("an HTTP/3 listener");
        Http3::connect(address, &self.authority, None).await.expect("a handshake")
    }

    fn quic(&self, name: &str) -> u64 {
        self.sum(&format!("forebay_receiver_quic_{name}{{"))
    }

    /// Of all cores.
    fn sum(&self, start: &str) -> u64 {
        let page = self.forebay.metrics();
        let counts = page.lines().filter(|line| line.starts_with(start));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Counters are shown with a little delay.
    fn wait_for(&self, name: &str, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.quic(name) < count {
            let page = self.forebay.metrics();
            assert!(Instant::now() < deadline, "never {count} {name}:\n{page}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it; so many items were taken, and no more, and all have arrived.
    async fn end(self, items: i64) -> End {
        self.forebay.signal(Sent::TERM);
        self.ended(items).await
    }

    /// As [`Stage::end`], of one that has its signal: a second one would end it at once.
    async fn ended(self, items: i64) -> End {
        // Clients go on meanwhile.
        let end = tokio::task::spawn_blocking(|| self.forebay.wait()).await.expect("it ends");
        assert_eq!(end.ledger["received_items"], items, "{:#}", end.ledger);
        assert_eq!(end.ledger["delivered_items"], items, "{:#}", end.ledger);
        end
    }
}

#[tokio::test]
async fn every_signal_is_taken_as_protobuf_and_json_with_and_without_compression() {
    let stage = Stage::set(USUAL);
    let client = stage.connect().await;
    let mut first = 0;
    for signal in STABLE {
        let path = path_of(signal);
        for name in ["identity", "gzip", "zstd", "deflate", "snappy"] {
            let bodies = [
                (PROTO, items::proto(signal, first, 10)),
                (JSON, items::json(signal, first + 10, 10)),
            ];
            for (form, body) in bodies {
                let encoding = Encoding::from_http(name).expect("a name of OTLP's");
                let body = match encoding {
                    Encoding::Identity => body,
                    encoding => compressed(encoding, &body),
                };
                let headers = [form, ("content-encoding", name)];
                let answer = client.post(path, &headers, &body).await;
                assert_eq!(answer.status, 200, "{signal} {headers:?}: {}", answer.text());
                assert_eq!(answer.header("content-type"), Some(form.1));
            }
            first += 20;
        }
        stage.sink.wait_until("all of it", |sink| sink.numbers(signal).len() == 100);
    }
    let name = "otelcol_receiver_accepted_log_records";
    assert_eq!(stage.forebay.metric(name, &["transport=\"http\""]), 100.0);
    stage.end(300).await;
}

#[tokio::test]
async fn what_is_not_taken_is_refused_as_over_http_1_and_the_connection_goes_on() {
    let http3 = ", max_request_body_size: 65536, logs_url_path: /custom/logs";
    let stage = Stage::set(Terms { http3, ..USUAL });
    let client = stage.connect().await;
    let body = items::proto(Signal::Logs, 0, 5);
    let long = vec![b'a'; 300_000];
    let cases: [Case; 8] = [
        ("POST", "/custom/logs", &[("content-type", "text/plain")], &body, 415),
        ("POST", "/custom/logs", &[], &body, 415),
        ("POST", "/custom/logs", &[PROTO, ("content-encoding", "br")], &body, 415),
        ("POST", "/custom/logs", &[("content-type", "application/grpc")], &body, 415),
        ("POST", "/v1/logs", &[PROTO], &body, 404),
        ("GET", "/custom/logs", &[PROTO], b"", 405),
        ("POST", "/custom/logs", &[PROTO], &long, 413),
        ("POST", "/custom/logs", &[PROTO], b"\xff", 400),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = client.request(method, path, headers, body).await.expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
        assert!(!answer.refusal().message.is_empty());
    }
    assert_eq!(client.post("/custom/logs?a=b", &[PROTO], &body).await.status, 200);
    stage.wait_for("connections_accepted", 1);
    stage.end(5).await;
}

#[tokio::test]
async fn many_connections_with_many_requests_in_flight_each_get_their_own_answers() {
    const CONNECTIONS: i64 = 16;
    const REQUESTS: i64 = 50;
    let stage = Stage::set(Terms { engine: TWO_CORES, ..USUAL });
    let mut calls = JoinSet::new();
    for number in 0..CONNECTIONS {
        let client = Arc::new(stage.connect().await);
        for request in 0..REQUESTS {
            let client = client.clone();
            calls.spawn(async move {
                // Every third is refused, and must be the one that hears of it.
                let first = (number * REQUESTS + request) * 20;
                let body = items::proto(Signal::Logs, first, 20);
                let path = if request % 3 == 0 { "/nowhere" } else { "/v1/logs" };
                let answer = client.post(path, &[PROTO], &body).await;
                assert_eq!(answer.status == 200, request % 3 != 0, "{}", answer.text());
            });
        }
    }
    while let Some(call) = calls.join_next().await {
        call.expect("it is answered as it should be");
    }
    let taken = CONNECTIONS * (0..REQUESTS).filter(|request| request % 3 != 0).count() as i64 * 20;
    stage.wait_for("handshakes", CONNECTIONS as u64);
    stage.sink.wait_until("all of it", |sink| sink.numbers(Signal::Logs).len() as i64 == taken);
    assert!(stage.sink.numbers(Signal::Logs).values().all(|times| *times == 1));
    stage.end(taken).await;
}

#[tokio::test]
async fn one_busy_connection_is_decoded_by_all_cores_and_each_request_is_answered() {
    let stage = Stage::set(Terms { engine: TWO_CORES, exporter: "nop", ..USUAL });
    let client = Arc::new(stage.connect().await);
    let (mut calls, mut sent) = (JoinSet::new(), 0);
    let body = Arc::new(compressed(Encoding::Gzip, &items::proto(Signal::Logs, 0, 3_000)));
    let deadline = Instant::now() + PATIENCE;
    while stage.sum("forebay_receiver_core_requests_taken{") < 20 {
        assert!(Instant::now() < deadline, "no core helped the other");
        for _ in 0..32 {
            let (client, body) = (client.clone(), body.clone());
            let headers = [PROTO, ("content-encoding", "gzip")];
            calls.spawn(async move { client.post("/v1/logs", &headers, &body).await.status });
            sent += 3_000;
        }
        while let Some(status) = calls.join_next().await {
            assert_eq!(status.expect("it is answered"), 200);
        }
    }
    stage.end(sent).await;
}

#[tokio::test]
async fn a_client_that_moves_from_address_to_address_is_served_on_and_loses_nothing() {
    let stage = Stage::set(Terms { engine: TWO_CORES, ..USUAL });
    let client = stage.connect().await;
    let mut sent = 0;
    for _ in 0..10 {
        for _ in 0..5 {
            let body = items::proto(Signal::Logs, sent, 10);
            assert_eq!(client.post("/v1/logs", &[PROTO], &body).await.status, 200);
            sent += 10;
        }
        client.move_away();
    }
    let body = items::proto(Signal::Logs, sent, 10);
    assert_eq!(client.post("/v1/logs", &[PROTO], &body).await.status, 200);
    stage.wait_for("migrations", 10);
    assert_eq!(stage.quic("connections_accepted"), 1, "it is one connection all the while");
    stage.end(sent + 10).await;
}

#[tokio::test]
async fn at_sigterm_every_answered_item_is_delivered_and_connections_end_well() {
    let engine = format!("{TWO_CORES}, drain_timeout: 25s");
    let stage = Stage::set(Terms { engine: &engine, ..USUAL });
    let (client, idle) = (stage.connect().await, stage.connect().await);
    let sending = tokio::spawn(async move {
        let mut answered = 0;
        loop {
            let body = items::proto(Signal::Logs, answered, 10);
            match client.request("POST", "/v1/logs", &[PROTO], &body).await {
                Ok(answer) if answer.status == 200 => answered += 10,
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{}", answer.text());
                    return (answered, client);
                }
                // It heard that the server goes, or its request was never looked at.
                Err(_) => return (answered, client),
            }
        }
    });
    let some = async {
        while stage.sink.numbers(Signal::Logs).len() < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, some).await.expect("items arrive");
    stage.forebay.signal(Sent::TERM);
    let (answered, client) = sending.await.expect("it stops by itself");
    for client in [client, idle] {
        let end = client.end().await;
        assert!(end.is_h3_no_error(), "{end:?}");
    }
    let end = stage.forebay.wait();
    assert!(end.took < Duration::from_secs(10), "{:?}, which is not at once", end.took);
    let arrived = stage.sink.numbers(Signal::Logs);
    let missing: Vec<i64> = (0..answered).filter(|n| !arrived.contains_key(n)).collect();
    assert!(missing.is_empty(), "answered, and lost: {missing:?}");
    assert_eq!(end.ledger["delivered_items"], arrived.len(), "{:#}", end.ledger);
}

#[tokio::test]
async fn at_sigterm_nobody_waits_for_the_rest_of_a_body() {
    let stage = Stage::set(Terms { engine: "drain_timeout: 25s", ..USUAL });
    let client = stage.connect().await;
    let body = items::proto(Signal::Logs, 0, 10);
    assert_eq!(client.post("/v1/logs", &[PROTO], &body).await.status, 200);
    let _taken = client.begin("/v1/logs", &[PROTO], &body[..9]).await;
    let _refused = client.begin("/nowhere", &[PROTO], &body[..9]).await;
    assert_eq!(client.post("/v1/logs", &[PROTO], &body).await.status, 200);
    let end = stage.end(20).await;
    assert!(end.took < Duration::from_secs(10), "{:?}", end.took);
}

#[tokio::test]
async fn a_client_that_is_gone_when_its_answer_comes_does_not_hold_up_the_end() {
    let gate = Gate::default();
    let engine = "acks: {default: delivered}, drain_timeout: 25s";
    let stage = Stage::before(Sink::scripted(gate.script()), Terms { engine, ..USUAL });
    let client = stage.connect().await;
    let body = items::proto(Signal::Logs, 0, 10);
    let headers = [PROTO];
    let tried = async {
        while stage.sink.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = client.request("POST", "/v1/logs", &headers, &body) => panic!("{answer:?}"),
        () = tokio::time::sleep(PATIENCE) => panic!("nothing arrives"),
        () = tried => {}
    }
    gate.open();
    // Nobody drives the client from here on: no acknowledgement, no word.
    let end = stage.forebay.stop();
    assert!(end.took < Duration::from_secs(10), "{:?}", end.took);
    assert_eq!(end.ledger["delivered_items"], 10, "{:#}", end.ledger);
}

#[tokio::test]
async fn on_all_addresses_an_answer_comes_from_the_one_that_was_asked_on_every_rung() {
    let cases = [("0.0.0.0:0", "auto"), ("'[::]:0'", "multishot"), ("'[::]:0'", "oneshot")];
    for (endpoint, rung) in cases {
        let engine = format!("{TWO_CORES}, ring: {{rung: {rung}}}");
        let stage = Stage::set(Terms { endpoint, engine: &engine, ..USUAL });
        let port = stage.forebay.http3.expect("an HTTP/3 listener").port();
        for (nth, last) in (2..6).enumerate() {
            let address = (Ipv4Addr::new(127, 0, 0, last), port).into();
            let client = Http3::connect(address, &stage.authority, None).await;
            let body = items::proto(Signal::Logs, nth as i64 * 10, 10);
            let answer = client.expect("a handshake").post("/v1/logs", &[PROTO], &body).await;
            assert_eq!(answer.status, 200, "{endpoint}, {rung}: {address}");
        }
        stage.end(40).await;
    }
}

#[tokio::test]
async fn with_client_cas_only_clients_with_a_certificate_of_theirs_come_in() {
    let stage = Stage::set(Terms { is_mutual: true, ..USUAL });
    let address = stage.forebay.http3.expect("an HTTP/3 listener");
    let (good, stranger) = (stage.authority.numbered(1), Authority::new("theirs").issue(|_| {}));
    let client = Http3::connect(address, &stage.authority, Some(&good)).await.expect("let in");
    let body = items::proto(Signal::Logs, 0, 10);
    assert_eq!(client.post("/v1/logs", &[PROTO], &body).await.status, 200);
    for paper in [None, Some(&stranger)] {
        if let Ok(client) = Http3::connect(address, &stage.authority, paper).await {
            let answer = client.request("POST", "/v1/logs", &[PROTO], &body).await;
            assert!(answer.is_err(), "{answer:?}");
        }
    }
    stage.wait_for("handshakes_failed", 2);
    for reason in ["bad_certificate", "unknown_ca"] {
        let name = format!("forebay_receiver_quic_handshake_failures{{reason=\"{reason}\"");
        assert_eq!(stage.sum(&name), 1, "{reason}");
    }
    stage.end(10).await;
}

#[test]
fn a_port_that_is_taken_is_named_with_what_it_costs_and_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let files = Files::new(&Authority::new("ours").issue(|_| {}));
    let http = "http: {endpoint: 127.0.0.1:0}";
    let http3 = format!("http3: {{endpoint: '{address}', tls: {}}}", files.block(""));
    let text = config("[nop]", "exporters: {nop: {}}\n").replace(http, &http3);
    files.write("forebay.yaml", &text);
    let mut command = Command::new(program());
    let output = command.arg("--config").arg(files.path("forebay.yaml")).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    for part in [&*address, "(UDP)", "cost: forebay does not start", "hint: "] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
}

#[tokio::test]
async fn new_certificates_are_for_new_connections_and_the_others_go_on() {
    let mut stage = Stage::set(USUAL);
    let old = stage.connect().await;
    let body = items::proto(Signal::Logs, 0, 5);
    assert_eq!(old.post("/v1/logs", &[PROTO], &body).await.status, 200);
    let next = Authority::new("next");
    stage.files.show(&next.issue(|_| {}));
    stage.forebay.signal(Sent::HUP);
    stage.forebay.wait_for_log("Reloaded TLS certificates: new connections get them");
    let address = stage.forebay.http3.expect("an HTTP/3 listener");
    assert!(Http3::connect(address, &stage.authority, None).await.is_err());
    let new = Http3::connect(address, &next, None).await.expect("a handshake");
    for (first, client) in [(5, &old), (10, &new)] {
        let body = items::proto(Signal::Logs, first, 5);
        assert_eq!(client.post("/v1/logs", &[PROTO], &body).await.status, 200);
    }
    stage.wait_for("handshakes", 2);
    stage.wait_for("handshakes_failed", 1);
    stage.end(15).await;
}

#[tokio::test]
async fn answers_over_tcp_name_http_3_where_the_same_receiver_has_it() {
    let stage = Stage::set(USUAL);
    let port = stage.forebay.http3.expect("an HTTP/3 listener").port();
    let expected = format!("h3=\":{port}\"; ma=86400");
    let body = items::proto(Signal::Logs, 0, 5);
    let http2 = Http2::connect(stage.forebay.http_address()).await;
    // Taken, and refused from the head alone.
    for (path, status) in [("/v1/logs", 200), ("/v1/nothing", 404)] {
        let answer = Http1::connect(stage.forebay.http_address()).post(path, &[PROTO], &body);
        assert_eq!((answer.status, answer.header("alt-svc")), (status, Some(&*expected)));
        let sent = Bytes::copy_from_slice(&body);
        let answer = http2.request(Method::POST, path, &[PROTO], sent).await.expect("an answer");
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.get("alt-svc").expect("it is named"), &expected);
    }
    let mut http1 = Http1::connect(stage.forebay.http_address());
    http1.send(b"POST /v1/logs\r\n\r\n");
    let answer = http1.read_answer().expect("an answer");
    assert_eq!((answer.status, answer.header("alt-svc")), (400, Some(&*expected)));
    stage.end(10).await;
}

#[tokio::test]
async fn a_process_that_goes_names_no_other_way_to_come() {
    let gate = Gate::default();
    let engine = "acks: {default: delivered}, drain_timeout: 25s";
    let mut stage = Stage::before(Sink::scripted(gate.script()), Terms { engine, ..USUAL });
    let mut http = Http1::connect(stage.forebay.http_address());
    let body = items::proto(Signal::Logs, 0, 5);
    let length = body.len();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {length}\r\n\r\n"
    );
    http.send(&[head.as_bytes(), &body].concat());
    stage.sink.wait_until("the request has come", |sink| sink.requests() >= 1);
    stage.forebay.signal(Sent::TERM);
    stage.forebay.wait_for_log("Starting shutdown...");
    // An answer of a core that has heard of it: the port is closed by the same turn.
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(stage.forebay.http_address()).is_ok() {
        assert!(Instant::now() < deadline, "the port is never closed");
    }
    gate.open();
    let answer = http.read_answer().expect("an answer");
    assert_eq!((answer.status, answer.header("alt-svc")), (200, None));
    stage.ended(5).await;
}

/// A request of anybody's, and what of it a client of each protocol can say.
#[derive(Clone, Debug)]
struct Draw {
    method: &'static str,
    path: &'static str,
    content_type: Option<&'static str>,
    encoding: Option<&'static str>,
    body: usize,
}

/// Status, headers but those of the connection, and body.
type Told = (u16, Vec<(String, String)>, Vec<u8>);

/// What a client is told, without what belongs to the connection.
fn told(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Told {
    const OF_THE_CONNECTION: [&str; 4] = ["connection", "date", "content-length", "alt-svc"];
    let is_told = |(name, _): &(String, String)| !OF_THE_CONNECTION.contains(&&**name);
    let mut headers: Vec<_> = headers.into_iter().filter(is_told).collect();
    headers.sort();
    (status, headers, body)
}

fn over_http1(address: SocketAddr, draw: &Draw, headers: &[(&str, &str)], body: &[u8]) -> Told {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", draw.method, draw.path);
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    let mut http = Http1::connect(address);
    http.send(&[head.as_bytes(), body].concat());
    let answer = http.read_answer().expect("an answer");
    told(answer.status, answer.headers, answer.body)
}

async fn over_http2(client: &Http2, draw: &Draw, headers: &[(&str, &str)], body: &[u8]) -> Told {
    let method = draw.method.parse().expect("a method");
    let body = Bytes::copy_from_slice(body);
    let answer = client.request(method, draw.path, headers, body).await.expect("an answer");
    let text = |value: &http::HeaderValue| value.to_str().expect("ASCII").to_owned();
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    told(answer.status, headers.collect(), answer.body)
}

#[tokio::test]
async fn an_answer_is_the_same_over_http_1_http_2_and_http_3() {
    const METHODS: [&str; 5] = ["POST", "GET", "OPTIONS", "PUT", "DELETE"];
    const PATHS: [&str; 6] = ["/v1/logs", "/v1/logs?a=b", "/v1/traces", "/", "/v1/logs/", "/V1/x"];
    const TYPES: [Option<&str>; 8] = [
        Some("application/x-protobuf"),
        Some("application/json; charset=utf-8"),
        Some("APPLICATION/JSON"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
        Some("application/grpc"),
        Some("application/grpc-web"),
        None,
    ];
    const ENCODINGS: [Option<&str>; 6] =
        [None, Some("identity"), Some("gzip"), Some("br"), Some("gzip, gzip"), Some("GZIP")];
    const ROUNDS: u64 = 250;
    let terms = Terms {
        http3: ", max_request_body_size: 65536",
        engine: "invalid_utf8: refuse_item",
        exporter: "nop",
        ..USUAL
    };
    let stage = Stage::set(terms);
    let http3 = stage.connect().await;
    let http2 = Http2::connect(stage.forebay.http_address()).await;
    let proto = items::proto(Signal::Logs, 0, 10);
    let bodies = [
        proto.clone(),
        with_a_cut_text(),
        items::json(Signal::Logs, 0, 10),
        compressed(Encoding::Gzip, &proto),
        Vec::new(),
        b"\xff{".to_vec(),
        vec![b'a'; 70_000],
        compressed(Encoding::Gzip, &vec![b'a'; 1 << 20]),
    ];
    let mut statuses = BTreeMap::<u16, u64>::new();
    for seed in 1..=ROUNDS {
        let mut dice = Dice::new(seed * 0x9e37_79b9);
        // Most of it is as it should be: else all would end at the first fault.
        let mut one_of = |count: usize| match dice.one_in(3) {
            true => dice.below(count as u64) as usize,
            false => 0,
        };
        let (method, path) = (METHODS[one_of(METHODS.len())], PATHS[one_of(PATHS.len())]);
        let (content_type, encoding) = (TYPES[one_of(TYPES.len())], ENCODINGS[one_of(6)]);
        let draw = Draw { method, path, content_type, encoding, body: one_of(bodies.len()) };
        let content_type = draw.content_type.map(|value| ("content-type", value));
        let encoding = draw.encoding.map(|value| ("content-encoding", value));
        let headers: Vec<_> = content_type.into_iter().chain(encoding).collect();
        let body = &bodies[draw.body];
        let first = over_http1(stage.forebay.http_address(), &draw, &headers, body);
        let second = over_http2(&http2, &draw, &headers, body).await;
        let third = http3.request(draw.method, draw.path, &headers, body).await;
        let third = third.unwrap_or_else(|error| panic!("seed {seed}: {draw:?}: {error}"));
        let third = told(third.status, third.headers, third.body);
        assert_eq!(first, second, "seed {seed}: {draw:?}: HTTP/1.1 and HTTP/2");
        assert_eq!(first, third, "seed {seed}: {draw:?}: HTTP/1.1 and HTTP/3");
        *statuses.entry(first.0).or_default() += 1;
    }
    for status in [200, 400, 404, 405, 413, 415] {
        assert!(statuses.contains_key(&status), "never {status}: {statuses:?}");
    }
    let end = tokio::task::spawn_blocking(|| stage.forebay.stop()).await.expect("it ends");
    assert_eq!(end.ledger["delivered_items"], end.ledger["accepted_items"], "{:#}", end.ledger);
}

/// Ten log records, of which one has text that is not UTF-8.
fn with_a_cut_text() -> Vec<u8> {
    let mut bytes = items::proto(Signal::Logs, 0, 10);
    let at = bytes.windows(4).position(|text| text == b"line").expect("a record's text");
    bytes[at] = 0xff;
    bytes
}
