//! TLS at the front door of a running process: who comes in, who does not, and what changes while
//! it runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, SERVICE};
use forebay_tests::items;
use forebay_tests::papers::{Authority, Files, Paper, dial, post};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use rustix::process::Signal as Sent;
use rustls::HandshakeKind;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

const FAILURES: &str = "forebay_receiver_tls_handshake_failures";

/// gRPC and HTTP with the same `tls` block, into nothing.
fn config(tls: &str, engine: &str) -> String {
    format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0, tls: {tls}}}
      http: {{endpoint: 127.0.0.1:0, tls: {tls}}}
extensions:
  health_check: {{endpoint: 127.0.0.1:0}}
exporters: {{nop: {{}}}}
{SERVICE}  pipelines:
    traces: {{receivers: [otlp], exporters: [nop]}}
engine: {{{engine}}}
"
    )
}

fn failures(forebay: &Process, reason: &str) -> f64 {
    forebay.metric(FAILURES, &[&format!("reason=\"{reason}\"")])
}

/// Counters are shown with a little delay.
fn wait_for(what: &str, is_it: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_it() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One request on a connection of its own.
fn visit(forebay: &Process, client: &Arc<rustls::ClientConfig>) -> std::io::Result<u16> {
    let mut stream = dial(forebay.http_address(), client);
    post(&mut stream, "/v1/traces", &items::proto(Signal::Traces, 1, 1))
}

async fn tonic(
    forebay: &Process,
    tls: ClientTlsConfig,
) -> Result<TraceServiceClient<Channel>, Box<dyn std::error::Error>> {
    let url = forebay.grpc_url().replace("http://", "https://");
    let channel = Channel::from_shared(url)?.tls_config(tls.domain_name("localhost"))?;
    Ok(TraceServiceClient::new(channel.connect().await?))
}

#[tokio::test]
async fn grpc_and_http_clients_that_others_wrote_are_served_through_tls() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.issue(|_| {}));
    let forebay = Process::start(&config(&files.block(""), ""));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let mut client = tonic(&forebay, tls).await.expect("a connection");
    for first in 0..20 {
        let request = items::traces(first * 100, 100);
        assert_eq!(client.export(request).await.expect("taken").into_inner().partial_success, None);
    }
    let long = items::proto(Signal::Traces, 10_000, 3_000);
    let mut stream = dial(forebay.http_address(), &authority.client(None));
    assert_eq!(post(&mut stream, "/v1/traces", &long).expect("an answer"), 200);
    assert_eq!(post(&mut stream, "/v1/traces", b"\xff").expect("an answer"), 400);
    wait_for("both are counted", || {
        forebay.metric("forebay_receiver_tls_handshakes", &["result=\"ok\""]) == 2.0
    });
    let end = forebay.stop();
    assert_eq!(end.ledger["received_items"], 5_000, "{:#}", end.ledger);
}

#[tokio::test]
async fn with_client_cas_only_clients_with_a_good_certificate_come_in() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let files = Files::new(&authority.issue(|_| {}));
    files.write("ca.pem", &authority.pem());
    files.write("crl.pem", &authority.revoke(&[2]));
    let mutual = format!(
        ", client_ca_file: {}, client_crl_file: {}",
        files.path("ca.pem").display(),
        files.path("crl.pem").display()
    );
    let forebay = Process::start(&config(&files.block(&mutual), ""));
    let good = authority.numbered(1);
    assert_eq!(visit(&forebay, &authority.client(Some(&good))).expect("an answer"), 200);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .identity(Identity::from_pem(&good.pem, &good.key_pem));
    let mut client = tonic(&forebay, tls).await.expect("a connection");
    client.export(items::traces(1, 1)).await.expect("taken");
    let refused: [(Option<Paper>, &str); 4] = [
        (None, "bad_certificate"),
        (Some(authority.numbered(2)), "revoked"),
        (Some(authority.expired()), "expired"),
        (Some(stranger.issue(|_| {})), "unknown_ca"),
    ];
    for (paper, reason) in &refused {
        let client = authority.client(paper.as_ref());
        assert!(visit(&forebay, &client).is_err(), "{reason}");
        wait_for(reason, || failures(&forebay, reason) == 1.0);
    }
    // From now on the first one is revoked as well, and there is nothing that it could resume.
    let resuming = authority.client(Some(&good));
    assert_eq!(visit(&forebay, &resuming).expect("an answer"), 200);
    files.write("crl.pem", &authority.revoke(&[1, 2]));
    forebay.signal(Sent::HUP);
    wait_for("the list is in force", || {
        forebay.metric("forebay_receiver_tls_reloads", &["protocols=\"http\"", "ok"]) == 1.0
    });
    assert!(visit(&forebay, &resuming).is_err());
    assert_eq!(forebay.stop().ledger["received_items"], 3);
}

#[test]
fn a_session_resumes_on_whichever_core_its_next_connection_meets() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.issue(|_| {}));
    let two_cores = "cores: {receivers: '0,1'}";
    let forebay = Process::start(&config(&files.block(""), two_cores));
    let client = authority.client(None);
    const VISITS: usize = 40;
    let took_none =
        |core: &str| forebay.metric("forebay_receiver_core_connections_accepted", &[core]) == 0.0;
    let (deadline, mut visits) = (Instant::now() + PATIENCE, 0);
    // A core that others keep busy gives its connections away for a while.
    while visits < VISITS || ["core=\"0\"", "core=\"1\""].iter().any(|core| took_none(core)) {
        assert!(Instant::now() < deadline, "a core took none of {visits}");
        let mut stream = dial(forebay.http_address(), &client);
        let body = items::proto(Signal::Traces, 1, 1);
        assert_eq!(post(&mut stream, "/v1/traces", &body).expect("an answer"), 200);
        let kind = if visits == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
        assert_eq!(stream.conn.handshake_kind(), Some(kind), "visit {visits}");
        visits += 1;
    }
    wait_for("all are counted", || {
        forebay.metric("forebay_receiver_tls_handshakes_resumed", &[]) == (visits - 1) as f64
    });
    forebay.stop();
}

#[test]
fn certificates_change_under_load_without_a_failed_request_and_broken_ones_change_nothing() {
    let authority = Authority::new("ours");
    let papers = [authority.issue(|_| {}), authority.issue(|_| {})];
    let files = Files::new(&papers[0]);
    let mut forebay = Process::start(&config(&files.block(", reload_interval: 1s"), ""));
    let (client, over) = (authority.client(None), AtomicBool::new(false));
    let (address, taken) = (forebay.http_address(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let load = |stays: bool| {
            let mut stream = dial(address, &client);
            while !over.load(Ordering::Relaxed) {
                let body = items::proto(Signal::Traces, 1, 1);
                let status = post(&mut stream, "/v1/traces", &body);
                assert_eq!(status.expect("no request fails"), 200);
                taken.fetch_add(1, Ordering::Relaxed);
                if !stays {
                    stream = dial(address, &client);
                }
            }
        };
        scope.spawn(move || load(true));
        scope.spawn(move || load(false));
        let shown = || {
            let client = authority.client(None);
            let mut stream = dial(address, &client);
            let body = items::proto(Signal::Traces, 1, 1);
            post(&mut stream, "/v1/traces", &body).expect("an answer");
            taken.fetch_add(1, Ordering::Relaxed);
            stream.conn.peer_certificates().expect("a certificate")[0].clone()
        };
        assert_eq!(shown(), papers[0].der);
        files.show(&papers[1]);
        wait_for("the new one is shown by itself", || shown() == papers[1].der);
        files.write("server.key", &papers[0].key_pem);
        let said = forebay.wait_for("a complaint", |line| {
            line["msg"].as_str().is_some_and(|text| text.starts_with("New TLS files can't be used"))
        });
        let why = said["why"].as_str().expect("a reason");
        assert!(why.contains("the key is not the certificate's"), "{why}");
        assert_eq!(shown(), papers[1].der);
        files.show(&papers[0]);
        forebay.signal(Sent::HUP);
        wait_for("the first one is shown again", || shown() == papers[0].der);
        over.store(true, Ordering::Relaxed);
    });
    let labels = ["protocols=\"http\"", "result=\"failed\""];
    assert!(forebay.metric("forebay_receiver_tls_reloads", &labels) >= 1.0);
    let end = forebay.stop();
    assert_eq!(end.ledger["received_items"], taken.load(Ordering::Relaxed));
}

#[test]
fn a_certificate_that_expires_soon_is_warned_of_and_shown_in_the_metrics() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.expired());
    let mut forebay = Process::start(&config(&files.block(""), ""));
    let said = forebay.wait_for("a warning", |line| {
        line["msg"].as_str().is_some_and(|text| text.starts_with("A TLS certificate expires soon"))
    });
    assert!(said["certificate"].as_str().is_some_and(|name| name.ends_with("server.pem")));
    let name = "forebay_receiver_tls_certificate_not_after_seconds";
    assert_eq!(forebay.metric(name, &["protocols=\"grpc\""]), 1_577_836_800.0);
    forebay.stop();
}

#[test]
fn a_revocation_list_that_is_out_of_date_is_warned_of_and_obeyed_all_the_same() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.issue(|_| {}));
    files.write("ca.pem", &authority.pem());
    files.write("crl.pem", &authority.revoke_until(&[2], 2025));
    let (ca, crl) = (files.path("ca.pem"), files.path("crl.pem"));
    let lists = format!(", client_ca_file: {}, client_crl_file: {}", ca.display(), crl.display());
    let mut forebay = Process::start(&config(&files.block(&lists), ""));
    let said = forebay.wait_for("a warning", |line| {
        let text = line["msg"].as_str();
        text.is_some_and(|text| text.starts_with("A list of revoked certificates is out of date"))
    });
    assert!(said["issuer"].as_str().is_some_and(|name| name.contains("CN=ours")), "{said}");
    let name = "forebay_receiver_tls_revocation_list_next_update_seconds";
    assert_eq!(forebay.metric(name, &["protocols=\"grpc\""]), 1_735_689_600.0);
    let (good, revoked) = (authority.numbered(1), authority.numbered(2));
    assert_eq!(visit(&forebay, &authority.client(Some(&good))).expect("it is let in"), 200);
    assert!(visit(&forebay, &authority.client(Some(&revoked))).is_err());
    forebay.stop();
}

#[test]
fn who_takes_one_port_for_the_other_is_told_counted_and_said_once() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.issue(|_| {}));
    let config = config(&files.block(""), "").replace(
        &format!("http: {{endpoint: 127.0.0.1:0, tls: {}}}", files.block("")),
        "http: {endpoint: 127.0.0.1:0}",
    );
    let mut forebay = Process::start(&config);
    for _ in 0..3 {
        let mut stream = TcpStream::connect(forebay.grpc.expect("gRPC")).expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("it reads");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("an orderly end");
        assert!(heard.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{heard}");
        assert!(visit(&forebay, &authority.client(None)).is_err());
    }
    wait_for("all are counted", || {
        let misdirected = forebay.metric("forebay_receiver_tls_on_cleartext_port", &[]);
        failures(&forebay, "plaintext") == 3.0 && misdirected == 3.0
    });
    for start in ["A client began TLS on a port", "A client came without TLS"] {
        let is_it = |line: &serde_json::Value| {
            line["msg"].as_str().is_some_and(|text| text.starts_with(start))
        };
        forebay.wait_for(start, is_it);
    }
    let end = forebay.stop();
    let said = |line: &&serde_json::Value| {
        line["msg"].as_str().is_some_and(|text| text.starts_with("A client "))
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(end.logs.iter().filter(said).count() <= 2 * cores, "{:#?}", end.logs);
}

#[test]
fn a_flood_of_handshakes_that_never_end_is_bounded_and_lets_others_in_again() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.issue(|_| {}));
    let engine = "cores: {receivers: '0'}, limits: {handshakes_max: 8, handshake_timeout: 3s}";
    let forebay = Process::start(&config(&files.block(""), engine));
    let before = forebay.anonymous_bytes();
    let flood: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = TcpStream::connect(forebay.http_address()).expect("it listens");
            // The head of a hello of 16 KiB, of which no more comes.
            stream.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc]).expect("it reads");
            stream
        })
        .collect();
    wait_for("most are sent away", || failures(&forebay, "too_many") >= 400.0);
    assert!(forebay.metric("forebay_receiver_tls_handshakes_pending", &[]) <= 8.0);
    wait_for("the others' time is over", || {
        failures(&forebay, "too_many") + failures(&forebay, "timeout") == 500.0
    });
    assert!(failures(&forebay, "timeout") >= 8.0);
    let grown = forebay.anonymous_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for nothing");
    assert_eq!(visit(&forebay, &authority.client(None)).expect("there is room"), 200);
    drop(flood);
    forebay.stop();
}

#[test]
fn a_client_that_breaks_tls_after_its_handshake_is_ended_and_counted() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.issue(|_| {}));
    let forebay = Process::start(&config(&files.block(""), ""));
    let mut stream = dial(forebay.http_address(), &authority.client(None));
    let body = items::proto(Signal::Traces, 1, 1);
    assert_eq!(post(&mut stream, "/v1/traces", &body).expect("an answer"), 200);
    // A record that no key has sealed.
    stream.sock.write_all(&[&[0x17, 3, 3, 0, 40][..], &[9; 40]].concat()).expect("it reads");
    assert!(post(&mut stream, "/v1/traces", &body).is_err());
    wait_for("it is counted", || forebay.metric("forebay_receiver_tls_broken", &[]) == 1.0);
    assert_eq!(failures(&forebay, "other"), 0.0, "its handshake was in order");
    assert_eq!(forebay.stop().ledger["received_items"], 1);
}
