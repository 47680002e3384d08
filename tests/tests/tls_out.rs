//! TLS from one forebay to the next: who is believed, who is not, and what changes while both run.
//!
//! Items are numbered, so that each one that is missing or came twice is seen; the ledgers of both
//! are checked at each end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{End, PATIENCE, Process, SERVICE, config, get};
use forebay_tests::items;
use forebay_tests::papers::{Authority, Files};
use forebay_tests::sink::Sink;
use forebay_tests::wire::{Http1, path_of, post};
use rcgen::SanType;
use rustix::process::Signal as Sent;
use serde_json::Value;

const WILL_RETRY: &str = "Exporting failed. Will retry the request after interval.";
const UNVERIFIED: &str = "TLS without verification: insecure_skip_verify is true, so any \
                          certificate is taken for the destination's";
const QUICK: &str = "retry_on_failure: {initial_interval: 20ms, max_interval: 100ms}, \
                     circuit_breaker: {recovery_timeout: 50ms, recovery_timeout_max: 200ms}";

#[derive(Clone, Copy, Debug)]
enum Speech {
    Grpc,
    Http,
}

const SPEECHES: [Speech; 2] = [Speech::Grpc, Speech::Http];

impl Speech {
    fn id(self) -> &'static str {
        match self {
            Speech::Grpc => "otlp_grpc",
            Speech::Http => "otlp_http",
        }
    }

    fn of(self, hop: &Process) -> SocketAddr {
        match self {
            Speech::Grpc => hop.grpc.expect("a gRPC listener"),
            Speech::Http => hop.http_address(),
        }
    }
}

/// The next hop: with this `tls` block on both its ports, and a sink behind it.
fn next_hop(tls: &str, sink: &Sink) -> Process {
    next_hop_with(&format!(", tls: {tls}"), sink)
}

/// The same with these keys of both its ports.
fn next_hop_with(keys: &str, sink: &Sink) -> Process {
    Process::start(&format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0{keys}}}
      http: {{endpoint: 127.0.0.1:0{keys}}}
extensions:
  health_check: {{endpoint: 127.0.0.1:0}}
exporters: {{otlp_grpc: {}}}
{SERVICE}  pipelines:
    logs: {{receivers: [otlp], exporters: [otlp_grpc]}}
",
        sink.grpc_exporter()
    ))
}

/// Ends it once it has heard that all it was given arrived: its drain is short.
fn end_of(forebay: Process, items: i64) -> End {
    forebay.wait_for_ledger("all delivered", |ledger| ledger["delivered_items"] == items);
    forebay.stop()
}

/// A forebay before it, that calls it by `host` with this `tls` block.
fn before(speech: Speech, hop: &Process, host: &str, tls: &str) -> Process {
    before_with(speech, hop, host, tls, "")
}

/// The same with more keys of the exporter.
fn before_with(speech: Speech, hop: &Process, host: &str, tls: &str, keys: &str) -> Process {
    let (id, port) = (speech.id(), speech.of(hop).port());
    let exporter = format!("{{endpoint: 'https://{host}:{port}', tls: {tls}, {QUICK}{keys}}}");
    let engine = "engine: {drain_timeout: 200ms}\n";
    Process::start(&config(
        &format!("[{id}]"),
        &format!("exporters:\n  {id}: {exporter}\n{engine}"),
    ))
}

/// `requests` of one item each, numbered on from `first`, all acknowledged.
fn send(forebay: &Process, first: i64, requests: i64) {
    let mut connection = Http1::connect(forebay.http_address());
    let headers = [("content-type", "application/x-protobuf")];
    for number in first..first + requests {
        let body = items::proto(Signal::Logs, number, 1);
        let answer = connection.post(path_of(Signal::Logs), &headers, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn wait_for(what: &str, is_it: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_it() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn failed(forebay: &Process, kind: &str) -> f64 {
    forebay.metric("forebay_exporter_failed_attempts", &[&format!("kind=\"{kind}\"")])
}

fn reloads(forebay: &Process, name: &str, labels: &[&str]) -> f64 {
    let labels = [labels, &["result=\"ok\""]].concat();
    forebay.metric(name, &labels)
}

/// The first retry's line, which says that TLS it is, and what that means.
fn told_of_tls(forebay: &mut Process) -> String {
    let line = forebay.wait_for_log(WILL_RETRY);
    assert_eq!((&line["kind"], &line["level"]), (&"tls".into(), &"warn".into()), "{line}");
    for field in ["destination", "error", "cost", "hint"] {
        assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {line}");
    }
    line["error"].as_str().unwrap_or_default().to_owned()
}

fn trusting(files: &Files, more: &str) -> String {
    format!("{{ca_file: {}{more}}}", files.path("ca.pem").display())
}

/// Of a server's certificate that is signed, with its authority's in a file beside.
fn signed(authority: &Authority) -> Files {
    let files = Files::new(&authority.issue(|params| {
        let ip = SanType::IpAddress([127, 0, 0, 1].into());
        params.subject_alt_names.push(ip);
    }));
    files.write("ca.pem", &authority.pem());
    files
}

#[test]
fn a_hop_with_a_certificate_of_a_trusted_ca_is_believed_by_its_name_its_address_or_another_name() {
    let authority = Authority::new("ours");
    let (files, sink) = (signed(&authority), Sink::start());
    let hop = next_hop(&files.block(""), &sink);
    let mut first = 0;
    for speech in SPEECHES {
        for (host, more) in [
            ("localhost", ""),
            ("127.0.0.1", ""),
            ("127.0.0.1", ", server_name_override: localhost, min_version: '1.3'"),
            ("localhost", ", max_version: '1.2'"),
        ] {
            let forebay = before(speech, &hop, host, &trusting(&files, more));
            send(&forebay, first, 20);
            first += 20;
            sink.wait_for(Signal::Logs, first);
            assert_eq!(failed(&forebay, "tls"), 0.0);
            let unverified = forebay.metric("forebay_exporter_tls_unverified", &[]);
            assert_eq!(unverified, 0.0, "{speech:?} {host}{more}");
            let end = end_of(forebay, 20);
            assert_eq!(end.ledger["delivered_items"], 20, "{:#}", end.ledger);
        }
    }
    assert_eq!(hop.stop().ledger["received_items"], first);
    assert_eq!(sink.numbers(Signal::Logs).len() as i64, first);
}

#[test]
fn the_system_cas_are_believed_where_no_other_is_named() {
    let authority = Authority::new("ours");
    let (files, sink) = (signed(&authority), Sink::start());
    let hop = next_hop(&files.block(""), &sink);
    let exporter = format!("{{endpoint: 'localhost:{}', {QUICK}}}", Speech::Grpc.of(&hop).port());
    let yaml = config("[otlp_grpc]", &format!("exporters:\n  otlp_grpc: {exporter}\n"));
    let bundle = files.path("ca.pem").display().to_string();
    let forebay = Process::start_with(&yaml, &[("SSL_CERT_FILE", &bundle)]);
    send(&forebay, 0, 10);
    sink.wait_for(Signal::Logs, 10);
    forebay.stop();
    hop.stop();
}

#[test]
fn a_store_of_cas_that_is_being_rewritten_is_not_believed_in_part() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (files, sink) = (signed(&ours), Sink::start());
    let hop = next_hop(&files.block(""), &sink);
    let whole = [ours.pem(), other.pem()].concat();
    files.write("store.pem", &whole);
    let port = Speech::Grpc.of(&hop).port();
    let tls = "tls: {reload_interval: 1s}, pool: {age_max: 100ms}";
    let exporter = format!("{{endpoint: 'localhost:{port}', {tls}, {QUICK}}}");
    let yaml = config("[otlp_grpc]", &format!("exporters:\n  otlp_grpc: {exporter}\n"));
    let store = files.path("store.pem").display().to_string();
    let mut forebay = Process::start_with(&yaml, &[("SSL_CERT_FILE", &store)]);
    send(&forebay, 0, 10);
    files.write("store.pem", &other.pem());
    let told = forebay.wait_for("that it is in part", |line| {
        line["msg"].as_str().is_some_and(|text| text.starts_with("The system's store of CAs lacks"))
    });
    assert_eq!(told["missing"], 1, "{told}");
    files.write("store.pem", &whole);
    send(&forebay, 10, 10);
    sink.wait_for(Signal::Logs, 20);
    forebay.stop();
    hop.stop();
}

#[test]
fn a_hop_that_wants_a_certificate_gets_it_and_without_one_nothing_goes_to_it() {
    let authority = Authority::new("ours");
    let (files, sink) = (signed(&authority), Sink::start());
    let client_ca = format!(", client_ca_file: {}", files.path("ca.pem").display());
    let hop = next_hop(&files.block(&client_ca), &sink);
    let paper = authority.numbered(7);
    files.write("client.pem", &paper.pem);
    files.write("client.key", &paper.key_pem);
    let own = format!(
        ", cert_file: {}, key_file: {}",
        files.path("client.pem").display(),
        files.path("client.key").display()
    );
    for (index, speech) in SPEECHES.into_iter().enumerate() {
        let first = index as i64 * 20;
        let forebay = before(speech, &hop, "localhost", &trusting(&files, &own));
        send(&forebay, first, 20);
        sink.wait_for(Signal::Logs, first + 20);
        let not_after = forebay.metric("forebay_exporter_tls_certificate_not_after_seconds", &[]);
        assert!(not_after > 0.0);
        assert_eq!(end_of(forebay, 20).ledger["delivered_items"], 20);

        for version in ["1.2", "1.3"] {
            let more = format!(", max_version: '{version}'");
            let tls = trusting(&files, &more);
            let plain = ", compression: none";
            let mut nobody = before_with(speech, &hop, "localhost", &tls, plain);
            // More than sockets take: the refusal comes while it is being sent.
            let body = items::proto(Signal::Logs, 1_000, 60_000);
            let headers = [("content-type", "application/x-protobuf")];
            assert_eq!(post(nobody.http_address(), "/v1/logs", &headers, &body).status, 200);
            let why = told_of_tls(&mut nobody);
            assert!(why.contains("certificate"), "{speech:?}, TLS {version}: {why}");
            wait_for("it is counted", || failed(&nobody, "tls") >= 1.0);
            assert_eq!(nobody.stop().ledger["delivered_items"], 0);
        }
    }
    assert_eq!(hop.stop().ledger["received_items"], 40);
}

#[test]
fn a_hop_that_can_not_be_believed_gets_nothing_and_the_log_says_why_and_what_to_do() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let (files, sink) = (signed(&authority), Sink::start());
    files.write("stranger.pem", &stranger.pem());
    let hop = next_hop(&files.block(""), &sink);
    let plain = next_hop_with("", &sink);
    let own = trusting(&files, "");
    let other_name = trusting(&files, ", server_name_override: gateway.example");
    let other_ca = format!("{{ca_file: {}}}", files.path("stranger.pem").display());
    for speech in SPEECHES {
        for (hop, tls, words) in [
            (&hop, &other_name, ["not for \"gateway.example\"", "server_name_override"]),
            (&hop, &other_ca, ["no CA that is trusted here", "tls.ca_file"]),
            (&plain, &own, ["speak TLS on this port", "port"]),
        ] {
            let mut forebay = before(speech, hop, "localhost", tls);
            send(&forebay, 0, 3);
            let why = told_of_tls(&mut forebay);
            for word in words {
                assert!(why.contains(word), "{speech:?}: {why}");
            }
            wait_for("it is counted", || failed(&forebay, "tls") >= 2.0);
            assert_eq!(forebay.ledger()["in_flight_items"], 3, "they are kept");
            let end = forebay.stop();
            assert_eq!(end.ledger["delivered_items"], 0, "{:#}", end.ledger);
        }
    }
    for hop in [hop, plain] {
        assert_eq!(hop.stop().ledger["received_items"], 0);
    }
    assert!(sink.numbers(Signal::Logs).is_empty());
}

#[test]
fn endpoints_that_are_found_prove_each_to_be_who_it_is_when_they_are_called_and_when_looked_at() {
    let authority = Authority::new("ours");
    let (both, only_name) = (signed(&authority), Files::new(&authority.issue(|_| {})));
    for probe in ["connect", "grpc"] {
        let (sink, other) = (Sink::start(), Sink::start());
        let good = next_hop(&both.block(""), &sink);
        let wrong = next_hop(&only_name.block(""), &other);
        let address = |hop: &Process| format!("127.0.0.1:{}", Speech::Grpc.of(hop).port());
        both.write("list", &format!("{}\n{}\n", address(&good), address(&wrong)));
        let exporter = format!(
            "{{discovery: {{file: {{path: {}}}}}, tls: {}, {QUICK}, health_check: {{probe: \
             {probe}, interval: 100ms}}}}",
            both.path("list").display(),
            trusting(&both, "")
        );
        let rest = format!("exporters:\n  otlp_grpc: {exporter}\n");
        let mut forebay = Process::start(&config("[otlp_grpc]", &rest));
        let trouble = |hop: &Process| -> Option<Value> {
            let (_, body) = get(forebay.metrics.expect("a metrics address"), "/delivery");
            let page = serde_json::from_str::<Value>(&body).expect("JSON");
            let all = page["destinations"][0]["endpoints"].as_array().expect("a list").clone();
            let one = all.into_iter().find(|endpoint| endpoint["address"] == address(hop));
            one?.get("check").map(|check| check["trouble"].clone())
        };
        wait_for("the one is found well", || trouble(&good) == Some(Value::Null));
        wait_for("the other is not", || {
            let told = trouble(&wrong);
            told.is_some_and(|told| told.to_string().contains("not for \\\"127.0.0.1\\\""))
        });
        send(&forebay, 0, 40);
        sink.wait_for(Signal::Logs, 40);
        assert!(other.numbers(Signal::Logs).is_empty(), "{probe}");
        let line = forebay.wait_for_log("No TLS with an endpoint. Will try it again.");
        assert_eq!(line["endpoint"], address(&wrong), "{probe}: {line}");
        assert_eq!(end_of(forebay, 40).ledger["delivered_items"], 40);
        good.stop();
        wrong.stop();
    }
}

#[test]
fn an_expired_certificate_holds_everything_until_it_is_renewed_and_then_all_of_it_arrives_once() {
    let authority = Authority::new("ours");
    for speech in SPEECHES {
        let sink = Sink::start();
        let files = Files::new(&authority.expired());
        files.write("ca.pem", &authority.pem());
        let hop = next_hop(&files.block(""), &sink);
        let mut forebay = before(speech, &hop, "localhost", &trusting(&files, ""));
        send(&forebay, 0, 50);
        let why = told_of_tls(&mut forebay);
        assert!(why.contains("has expired: renew it there"), "{why}");
        wait_for("it is counted", || failed(&forebay, "tls") >= 2.0);
        assert_eq!(forebay.ledger()["in_flight_items"], 50, "they are kept");
        files.show(&authority.issue(|_| {}));
        hop.signal(Sent::HUP);
        sink.wait_for(Signal::Logs, 50);
        send(&forebay, 50, 10);
        sink.wait_for(Signal::Logs, 60);
        forebay.wait_for_log("Exporting works again.");
        let end = end_of(forebay, 60);
        assert_eq!(end.ledger["delivered_items"], 60, "{:#}", end.ledger);
        assert_eq!(hop.stop().ledger["received_items"], 60);
        assert!(sink.numbers(Signal::Logs).values().all(|times| *times == 1), "{speech:?}");
    }
}

#[test]
fn a_ca_file_that_is_mended_is_taken_up_without_a_restart_and_a_broken_one_changes_nothing() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let (files, sink) = (signed(&authority), Sink::start());
    let hop = next_hop(&files.block(""), &sink);
    files.write("ca.pem", &stranger.pem());
    let mut forebay = before(Speech::Grpc, &hop, "localhost", &trusting(&files, ""));
    send(&forebay, 0, 20);
    told_of_tls(&mut forebay);
    files.write("ca.pem", "not a certificate");
    forebay.signal(Sent::HUP);
    let said = forebay.wait_for("a complaint", |line| {
        line["msg"].as_str().is_some_and(|text| text.starts_with("New TLS files can't be used"))
    });
    assert_eq!(said["exporter"], "otlp_grpc", "{said}");
    assert!(said["why"].as_str().is_some_and(|why| why.contains("no CERTIFICATE")), "{said}");
    let name = "forebay_exporter_tls_reloads";
    assert_eq!(forebay.metric(name, &["result=\"failed\""]), 1.0);
    files.write("ca.pem", &authority.pem());
    forebay.signal(Sent::HUP);
    sink.wait_for(Signal::Logs, 20);
    assert_eq!(reloads(&forebay, name, &[]), 1.0);
    assert_eq!(end_of(forebay, 20).ledger["delivered_items"], 20);
    assert_eq!(hop.stop().ledger["received_items"], 20);
}

#[test]
fn who_asks_for_it_believes_anybody_and_is_warned_at_each_start_and_reload() {
    let stranger = Authority::new("theirs");
    let sink = Sink::start();
    let files = Files::new(&stranger.expired());
    let hop = next_hop(&files.block(""), &sink);
    let own = stranger.issue(|_| {});
    files.write("client.pem", &own.pem);
    files.write("client.key", &own.key_pem);
    let tls = format!(
        "{{insecure_skip_verify: true, cert_file: {}, key_file: {}}}",
        files.path("client.pem").display(),
        files.path("client.key").display()
    );
    for (index, speech) in SPEECHES.into_iter().enumerate() {
        let first = index as i64 * 10;
        let mut forebay = before(speech, &hop, "127.0.0.1", &tls);
        let line = forebay.wait_for_log(UNVERIFIED);
        assert_eq!((&line["level"], &line["exporter"]), (&"warn".into(), &speech.id().into()));
        assert!(line["cost"].is_string() && line["hint"].is_string(), "{line}");
        assert_eq!(forebay.metric("forebay_exporter_tls_unverified", &[]), 1.0);
        send(&forebay, first, 10);
        sink.wait_for(Signal::Logs, first + 10);
        let next = stranger.issue(|_| {});
        files.write("client.key", &next.key_pem);
        files.write("client.pem", &next.pem);
        forebay.signal(Sent::HUP);
        let warned = std::cell::Cell::new(0);
        forebay.wait_for("a second warning", |line| {
            warned.set(warned.get() + usize::from(line["msg"] == UNVERIFIED));
            warned.get() == 2
        });
        assert!(reloads(&forebay, "forebay_exporter_tls_reloads", &[]) >= 1.0);
        forebay.stop();
    }
    hop.stop();
}

#[test]
fn a_clients_certificate_is_renewed_under_load_and_nothing_fails_even_when_the_old_one_is_revoked()
{
    let authority = Authority::new("ours");
    for speech in SPEECHES {
        let (files, sink) = (signed(&authority), Sink::start());
        files.write("crl.pem", &authority.revoke(&[99]));
        let client_ca = format!(
            ", client_ca_file: {}, client_crl_file: {}",
            files.path("ca.pem").display(),
            files.path("crl.pem").display()
        );
        let hop = next_hop(&files.block(&client_ca), &sink);
        let show = |serial: u64| {
            let paper = authority.numbered(serial);
            files.write("client.pem", &(paper.pem + &paper.key_pem));
        };
        show(1);
        let both = files.path("client.pem").display().to_string();
        let own = format!(", cert_file: {both}, key_file: {both}");
        let young = ", pool: {age_max: 100ms}";
        let tls = trusting(&files, &own);
        let forebay = before_with(speech, &hop, "localhost", &tls, young);
        let made = || forebay.metric("forebay_exporter_connections_made", &[]);
        let mut sent = 0;
        let mut load_until = |what: &str, is_it: &dyn Fn() -> bool| {
            let deadline = Instant::now() + PATIENCE;
            while !is_it() {
                assert!(Instant::now() < deadline, "never: {what}");
                send(&forebay, sent, 5);
                sent += 5;
                // No faster than a slow machine: a full queue would turn the client away.
                sink.wait_until("most has come", |sink| {
                    sink.numbers(Signal::Logs).len() as i64 + 200 >= sent
                });
            }
        };
        load_until("connections come and go", &|| made() >= 3.0);
        show(2);
        forebay.signal(Sent::HUP);
        let name = "forebay_exporter_tls_reloads";
        load_until("the new one is in use", &|| reloads(&forebay, name, &[]) == 1.0);
        // Who dialled with the old one may not have been accepted yet. There are no more of these
        // at once than connections, and they are accepted in their order.
        let before = made();
        load_until("who dialled with the old one is in", &|| made() >= before + 10.0);
        files.write("crl.pem", &authority.revoke(&[1]));
        hop.signal(Sent::HUP);
        let name = "forebay_receiver_tls_reloads";
        load_until("the old one is revoked", &|| reloads(&hop, name, &["\"http\""]) == 1.0);
        let before = made();
        load_until("connections come and go", &|| made() >= before + 3.0);
        sink.wait_for(Signal::Logs, sent);
        for kind in ["tls", "connect", "disconnected"] {
            assert_eq!(failed(&forebay, kind), 0.0, "{speech:?} {kind}\n{}", forebay.metrics());
        }
        assert_eq!(end_of(forebay, sent).ledger["delivered_items"], sent);
        assert_eq!(hop.stop().ledger["received_items"], sent);
        assert!(sink.numbers(Signal::Logs).values().all(|times| *times == 1), "{speech:?}");
    }
}
