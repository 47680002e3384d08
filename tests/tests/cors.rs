//! Browsers against a running process: what a page of another origin is told, the same over
//! HTTP/1.1, HTTP/2 and HTTP/3, whether the answer comes late or is a refusal of the head alone.

use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, RECEIVERS, SERVICE, config};
use forebay_tests::http3::Http3;
use forebay_tests::items;
use forebay_tests::papers::{Authority, Files};
use forebay_tests::sink::{Gate, Sink, closed_port};
use forebay_tests::wire::{Http1, Http2, frame, method_of};
use http::Method;

type Headers<'a> = &'a [(&'a str, &'a str)];

const SHOP: (&str, &str) = ("origin", "https://shop.example");
const OTHER: (&str, &str) = ("origin", "https://other.example");
const ASKS: (&str, &str) = ("access-control-request-method", "POST");
const ASKS_FOR: (&str, &str) = ("access-control-request-headers", "content-type,x-tenant");
const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const BODY_BYTES_MAX: usize = 4096;
const CORS: &str = "{allowed_origins: ['https://*.example.net', 'https://shop.example'], \
                    allowed_headers: [X-Tenant], exposed_headers: [Retry-After], max_age: 600}";

/// What a page sees of an answer: its status, and the headers that do not depend on the protocol.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Seen {
    fn new(status: u16, headers: impl Iterator<Item = (String, String)>) -> Seen {
        let framing = ["date", "content-length", "connection", "alt-svc"];
        let mut headers: Vec<_> = headers.filter(|(name, _)| !framing.contains(&&**name)).collect();
        for (_, value) in headers.iter_mut().filter(|(name, _)| name == "retry-after") {
            // No two clients get the same.
            "some".clone_into(value);
        }
        headers.sort();
        Seen { status, headers }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is a page of `origin` that may read it.
    fn is_for(&self, origin: (&str, &str)) -> bool {
        self.header("access-control-allow-origin") == Some(origin.1)
            && self.header("access-control-allow-credentials") == Some("true")
            && self.header("vary").is_some_and(|names| names.starts_with("origin"))
    }

    fn says_nothing_of_cors(&self) -> bool {
        !self.headers.iter().any(|(name, _)| name.starts_with("access-control"))
    }
}

/// One client of each protocol.
struct Clients {
    forebay: Process,
    http2: Http2,
    http3: Http3,
}

impl Clients {
    async fn meet(cors: &str, engine: &str, sink: &Sink) -> Clients {
        let authority = Authority::new("ours");
        let files = Files::new(&authority.issue(|_| {}));
        let (tls, exporter) = (files.block(""), sink.grpc_exporter());
        let more = format!("max_request_body_size: {BODY_BYTES_MAX}{cors}");
        let forebay = Process::start(&format!(
            "receivers:
  otlp:
    protocols:
      http: {{endpoint: 127.0.0.1:0, {more}}}
      http3: {{endpoint: 127.0.0.1:0, tls: {tls}, {more}}}
extensions:
  health_check: {{endpoint: 127.0.0.1:0}}
exporters: {{otlp_grpc: {exporter}}}
{SERVICE}  pipelines:
    logs: {{receivers: [otlp], exporters: [otlp_grpc]}}
engine: {{{engine}}}
"
        ));
        let http2 = Http2::connect(forebay.http_address()).await;
        let address = forebay.http3.expect("an HTTP/3 listener");
        let http3 = Http3::connect(address, &authority, None).await.expect("a handshake");
        Clients { forebay, http2, http3 }
    }

    /// What all three see; they have to see the same.
    async fn see(&self, method: &str, path: &str, headers: Headers<'_>, body: &[u8]) -> Seen {
        let first = over_http1(&self.forebay, method, path, headers, body);
        let verb: Method = method.parse().expect("a method");
        let second = self.http2.request(verb, path, headers, Bytes::copy_from_slice(body));
        let second = second.await.expect("an answer over HTTP/2");
        let text = |value: &http::HeaderValue| value.to_str().expect("ASCII").to_owned();
        let named = second.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        let second = Seen::new(second.status, named);
        let third = self.http3.request(method, path, headers, body);
        let third = tokio::time::timeout(PATIENCE, third).await.expect("in time");
        let third = third.expect("an answer over HTTP/3");
        let third = Seen::new(third.status, third.headers.into_iter());
        assert_eq!(first, second, "HTTP/1.1 and HTTP/2: {method} {path} {headers:?}");
        assert_eq!(first, third, "HTTP/1.1 and HTTP/3: {method} {path} {headers:?}");
        first
    }
}

fn over_http1(
    forebay: &Process,
    method: &str,
    path: &str,
    headers: Headers<'_>,
    body: &[u8],
) -> Seen {
    let mut client = Http1::connect(forebay.http_address());
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), body].concat());
    let answer = client.read_answer().expect("an answer over HTTP/1.1");
    // RFC 9110, 8.6.
    assert_eq!(answer.header("content-length").is_none(), answer.status == 204, "{answer:?}");
    Seen::new(answer.status, answer.headers.into_iter())
}

#[tokio::test]
async fn every_answer_to_a_page_says_the_same_over_every_protocol() {
    let sink = Sink::start();
    // So that every answer to what is taken comes late.
    let engine = "acks: {default: delivered}";
    let clients = Clients::meet(&format!(", cors: {CORS}"), engine, &sink).await;
    let logs = items::proto(Signal::Logs, 0, 1);
    let long = vec![0; BODY_BYTES_MAX + 1];
    let json = ("content-type", "application/json");
    let text = ("content-type", "text/plain");
    let table: [(&str, &str, Headers<'_>, &[u8], u16); 11] = [
        ("OPTIONS", "/v1/logs", &[ASKS, ASKS_FOR], b"", 204),
        ("OPTIONS", "/v1/nothing", &[ASKS], b"", 204),
        ("OPTIONS", "/v1/logs", &[], b"", 405),
        ("POST", "/v1/logs", &[PROTO], &logs, 200),
        ("POST", "/v1/logs", &[PROTO], b"", 200),
        ("POST", "/v1/logs", &[json], b"{]", 400),
        ("POST", "/v1/logs", &[PROTO], b"broken", 400),
        ("POST", "/v1/nothing", &[PROTO], &logs, 404),
        ("GET", "/v1/logs", &[], b"", 405),
        ("POST", "/v1/logs", &[PROTO], &long, 413),
        ("POST", "/v1/logs", &[text], b"text", 415),
    ];
    for (method, path, headers, body, status) in table {
        let with = |origin| [headers, &[origin]].concat();
        let shop = clients.see(method, path, &with(SHOP), body).await;
        assert_eq!(shop.status, status, "{method} {path} {shop:?}");
        assert!(shop.is_for(SHOP), "{method} {path} {shop:?}");
        let is_preflight = status == 204;
        assert_eq!(shop.header("access-control-max-age"), is_preflight.then_some("600"));
        assert_eq!(shop.header("access-control-allow-methods"), is_preflight.then_some("POST"));
        let sent = "accept, content-type, x-requested-with, x-tenant";
        assert_eq!(shop.header("access-control-allow-headers"), is_preflight.then_some(sent));
        let read = shop.header("access-control-expose-headers");
        assert_eq!(read, (!is_preflight).then_some("retry-after"));
        let wild = ("origin", "https://a.example.net");
        assert!(clients.see(method, path, &with(wild), body).await.is_for(wild), "{method} {path}");
        let other = clients.see(method, path, &with(OTHER), body).await;
        assert_eq!(other.status, status, "{method} {path} {other:?}");
        assert!(other.says_nothing_of_cors(), "{method} {path} {other:?}");
        let none = clients.see(method, path, headers, body).await;
        // Without an origin nobody asks for a page.
        assert_eq!(none.status, if is_preflight { none.status } else { status });
        assert!(none.says_nothing_of_cors(), "{method} {path} {none:?}");
    }
    let preflights = |result: &str| {
        let label = format!("result=\"{result}\"");
        clients.forebay.metric("forebay_receiver_cors_preflights", &[&label])
    };
    // Over each protocol two rows are such, for two pages that are allowed and one that is not.
    let deadline = Instant::now() + PATIENCE;
    while preflights("allowed") < 12.0 || preflights("refused") < 6.0 {
        assert!(Instant::now() < deadline, "{}", clients.forebay.metrics());
        std::thread::sleep(Duration::from_millis(20));
    }
    let end = clients.forebay.stop();
    // Of each protocol four clients, one item each.
    assert_eq!(end.ledger["delivered_items"], 12, "{:#}", end.ledger);
}

#[tokio::test]
async fn a_page_sees_that_it_should_come_back_later_and_the_answer_that_came_late() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let engine = "acks: {default: delivered}, limits: {requests_max: 1}, cores: {receivers: \"0\"}";
    let clients = Clients::meet(&format!(", cors: {CORS}"), engine, &sink).await;
    let logs = items::proto(Signal::Logs, 0, 1);
    let http2 = clients.http2.clone();
    let body = Bytes::copy_from_slice(&logs);
    let late =
        tokio::spawn(
            async move { http2.request(Method::POST, "/v1/logs", &[PROTO, SHOP], body).await },
        );
    while sink.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = clients.see("POST", "/v1/logs", &[PROTO, SHOP], &logs).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("some")));
    assert!(refused.is_for(SHOP), "{refused:?}");
    assert_eq!(refused.header("access-control-expose-headers"), Some("retry-after"));
    gate.open();
    let late = late.await.expect("no panic").expect("an answer");
    assert_eq!(late.status, 200);
    assert_eq!(late.headers.get("access-control-allow-origin").expect("one"), SHOP.1);
    let end = clients.forebay.stop();
    assert_eq!(end.ledger["delivered_items"], 1, "{:#}", end.ledger);
}

#[tokio::test]
async fn without_the_block_no_answer_speaks_of_pages_and_none_is_asked() {
    let sink = Sink::start();
    let clients = Clients::meet("", "", &sink).await;
    let logs = items::proto(Signal::Logs, 0, 1);
    let asked = clients.see("OPTIONS", "/v1/logs", &[SHOP, ASKS], b"").await;
    assert_eq!((asked.status, asked.header("allow")), (405, Some("POST")));
    let taken = clients.see("POST", "/v1/logs", &[PROTO, SHOP], &logs).await;
    assert_eq!(taken.status, 200);
    for seen in [asked, taken] {
        assert!(seen.says_nothing_of_cors() && seen.header("vary").is_none(), "{seen:?}");
    }
    clients.forebay.stop();
}

#[tokio::test]
async fn a_shared_port_tells_pages_and_leaves_grpc_alone() {
    let receivers = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: ADDRESS}
      http: {endpoint: ADDRESS, cors: {allowed_origins: ['*']}}
extensions:
  health_check: {endpoint: 127.0.0.1:0}
";
    let receivers = receivers.replace("ADDRESS", &closed_port().to_string());
    let whole = config("[nop]", "exporters: {nop: {}}\n");
    let forebay = Process::start(&whole.replace(RECEIVERS, &receivers));
    let http2 = Http2::connect(forebay.http_address()).await;
    let logs = items::proto(Signal::Logs, 0, 1);
    let call = [("content-type", "application/grpc"), ("te", "trailers"), SHOP];
    for (path, code) in [(method_of(Signal::Logs), 0), ("/no.such.Service/Method", 12)] {
        let answer = http2.request(Method::POST, path, &call, frame(0, &logs)).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.grpc_status(), Some(code), "{answer:?}");
        assert!(!answer.headers.contains_key("vary"), "{answer:?}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
    }
    let page = over_http1(&forebay, "POST", "/v1/logs", &[PROTO, SHOP], &logs);
    assert_eq!(page.header("access-control-allow-origin"), Some("*"));
    assert_eq!(page.header("access-control-allow-credentials"), None, "never for all");
    assert_eq!(page.header("vary"), Some("origin"));
    forebay.stop();
}
