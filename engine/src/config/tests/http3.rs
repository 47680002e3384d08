//! The `http3` block of a receiver: what it comes to, and what is refused.

use forebay_codec::signal::Signal;

use super::tls::pair;
use super::*;

fn tls() -> String {
    let (chain, key) = pair();
    format!("cert_pem: {chain}, key_pem: {key}")
}

/// `protocols` beside the gRPC that is there.
fn load_with(protocols: &str) -> Result<Loaded, Vec<Problem>> {
    load_over(&format!("receivers: {{otlp: {{protocols: {{{protocols}}}}}}}"))
}

#[track_caller]
fn refuses(protocols: &str, expected: &[&str]) {
    check(&load_with(protocols).map(|_| ()).expect_err("a mistake"), expected);
}

#[test]
fn http_3_comes_behind_what_listens_on_tcp_and_may_have_its_port() {
    let made = loaded(load_with(&format!(
        "http3: {{endpoint: 'localhost:4319', tls: {{{}}}, max_request_body_size: 1MiB, \
         logs_url_path: l, compression_algorithms: [gzip]}}, http: {{endpoint: 'localhost:4319'}}",
        tls()
    )));
    check(&made.warnings, &[]);
    let [grpc, http, quic] = &made.plan.listeners[..] else {
        panic!("{:#?}", made.plan.listeners);
    };
    assert!(grpc.grpc.is_some() && http.http.is_some() && !grpc.is_quic && !http.is_quic);
    assert_eq!(quic.address, http.address);
    assert!(quic.is_quic && quic.grpc.is_none() && quic.tls.is_some());
    let over_quic = quic.http.as_ref().expect("it speaks HTTP");
    assert_eq!(over_quic.request_bytes_max, 1 << 20);
    assert_eq!(over_quic.paths[Signal::Logs.index()], "/l");
    assert_eq!(over_quic.encodings, ["gzip"]);
}

#[test]
fn without_tls_or_with_one_that_is_too_old_it_is_refused() {
    let expected = ["http3 has no tls block & never spoken in cleartext & openssl req -x509"];
    refuses("http3: {}", &expected);
    refuses("http3: {tls: null}", &expected);
    let old = format!("http3: {{tls: {{{}, max_version: '1.2'}}}}", tls());
    refuses(&old, &["http3.tls can't be used: HTTP/3 needs TLS 1.3, and max_version is 1.2"]);
    let suites = "[TLS_AES_256_GCM_SHA384]";
    let narrow = format!("http3: {{tls: {{{}, cipher_suites: {suites}}}}}", tls());
    refuses(&narrow, &["http3.tls can't be used: & TLS_AES_128_GCM_SHA256"]);
}

#[test]
fn what_http_3_can_not_do_is_said() {
    for (more, expected) in [
        ("transport: tcp", "http3.transport & HTTP/3 is spoken over UDP alone"),
        ("auth: {}", "http3.auth is not supported"),
        ("keep_alives_enabled: true", "unknown key & keep_alives_enabled"),
    ] {
        refuses(&format!("http3: {{tls: {{{}}}, {more}}}", tls()), &[expected]);
    }
}

#[test]
fn only_one_receiver_has_it() {
    let http3 = |port| format!("{{endpoint: 'localhost:{port}', tls: {{{}}}}}", tls());
    let yaml = format!(
        "receivers:
  otlp: {{protocols: {{http3: {}}}}}
  otlp/other: {{protocols: {{http3: {}}}}}
service: {{pipelines: {{traces: {{receivers: [otlp, otlp/other], exporters: [debug]}}}}}}
",
        http3(1),
        http3(2)
    );
    let problems = load_over(&yaml).map(|_| ()).expect_err("two of them");
    check(&problems, &["two receivers take HTTP/3, and one is supported & receivers.otlp takes"]);
}
