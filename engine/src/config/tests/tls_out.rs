//! The `tls` block of an exporter: who gets TLS, whom it trusts, and what is refused.

use super::tls::pair;
use super::*;
use crate::config::plan::{Pem, TlsOut};
use forebay_exporters::destination::Kind;

/// An exporter that is used beside another on this machine.
fn exporter(kind: &str, keys: &str) -> Result<Loaded, Vec<Problem>> {
    let used = format!("service: {{pipelines: {{traces: {{exporters: [{kind}, debug]}}}}}}");
    load_over(&format!("exporters: {{{kind}: {{{keys}}}}}\n{used}"))
}

fn place(made: &Loaded, name: &str) -> usize {
    let place = made.plan.destinations.iter().position(|destination| destination.name == name);
    place.expect("it is used")
}

/// What it comes to; `None`: cleartext.
#[track_caller]
fn way(kind: &str, keys: &str) -> Option<TlsOut> {
    let made = loaded(exporter(kind, keys));
    let says_why = kind == "otlp_grpc" && keys.contains("http://") && !keys.contains("insecure");
    let expected: &[&str] = &["sends in cleartext & a Collector speaks TLS & write https://"];
    check(&made.warnings, &expected[..usize::from(says_why)]);
    made.plan.tls_out[place(&made, kind)].clone()
}

#[track_caller]
fn refuses(kind: &str, keys: &str, expected: &[&str]) {
    check(&exporter(kind, keys).map(|_| ()).expect_err("a mistake"), expected);
}

fn ca() -> String {
    format!("ca_pem: {}", pair().0)
}

#[test]
fn the_scheme_says_whether_there_is_tls_and_without_one_insecure_does() {
    let ca = ca();
    let grpc = [
        ("endpoint: 'a:1'", true),
        ("endpoint: 'https://a:1'", true),
        ("endpoint: 'dns:///a:1'", true),
        ("endpoint: 'passthrough:///a:1'", true),
        ("endpoints: ['https://a:1', 'https://b:1']", true),
        ("discovery: {dns: {hostname: a}}", true),
        ("endpoint: 'http://a:1'", false),
        ("endpoints: ['http://a:1', 'http://b:1']", false),
    ];
    for (keys, is_tls) in grpc {
        let tls = if is_tls { format!("{keys}, tls: {{{ca}}}") } else { keys.to_owned() };
        let made = way("otlp_grpc", &tls);
        assert_eq!(made.is_some(), is_tls, "{keys}");
        assert!(made.is_none_or(|tls| tls.protocol == "h2"));
        let insecure = way("otlp_grpc", &format!("{keys}, tls: {{insecure: true}}"));
        assert_eq!(insecure.is_some(), keys.contains("https:"), "{keys}, insecure");
    }
    let http = [
        ("endpoint: 'https://a'", true),
        ("traces_endpoint: 'https://a/x'", true),
        ("endpoints: ['https://a:1', 'https://b']", true),
        ("discovery: {dns: {hostname: a}}", true),
        ("endpoint: 'https://a', discovery: {dns: {hostname: b}}", true),
        ("endpoint: 'http://a', discovery: {dns: {hostname: b}}", false),
        ("endpoint: 'http://a'", false),
    ];
    for (keys, is_tls) in http {
        let tls = if is_tls { format!("{keys}, tls: {{{ca}}}") } else { keys.to_owned() };
        let made = way("otlp_http", &tls);
        assert_eq!(made.is_some(), is_tls, "{keys}");
        assert!(made.is_none_or(|tls| tls.protocol == "http/1.1"));
    }
    let alike = format!("endpoints: ['a:1', 'https://b:1'], tls: {{{ca}}}");
    assert!(way("otlp_grpc", &alike).is_some());
    let found = "discovery: {dns: {hostname: a}}, tls: {insecure: true}";
    assert_eq!(way("otlp_http", found), None);
    let fixed = "resolver: {static: {hostnames: [a]}}";
    let balanced =
        |tls: &str| way("load_balancing", &format!("{fixed}, protocol: {{otlp: {tls}}}"));
    assert!(balanced(&format!("{{tls: {{{ca}}}}}")).is_some());
    assert_eq!(balanced("{tls: {insecure: true}}"), None);
}

#[test]
fn a_url_with_https_and_no_port_is_at_443() {
    let made =
        loaded(exporter("otlp_http", &format!("endpoint: 'https://a/x', tls: {{{}}}", ca())));
    let found =
        format!("{:?}", made.plan.destinations[place(&made, "otlp_http")].backends.discovery);
    assert!(found.contains("a:443"), "{found}");
}

#[test]
fn what_a_certificate_must_be_for_is_one_name_only_where_endpoints_share_one() {
    let ca = ca();
    let name = |kind: &str, keys: &str, tls: &str| {
        let made = way(kind, &format!("{keys}, tls: {{{ca}{tls}}}"));
        made.expect("TLS").server_name
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(name("otlp_grpc", "endpoint: 'a:1'", ""), None);
    assert_eq!(name("otlp_grpc", "endpoints: ['a:1', 'b:1']", ""), None);
    assert_eq!(name("otlp_grpc", "endpoint: 'dns:///a.example:1'", ""), named("a.example"));
    assert_eq!(name("otlp_grpc", "endpoint: 'a:1', authority: 'b:9'", ""), named("b"));
    assert_eq!(name("otlp_grpc", "endpoint: 'a:1'", ", server_name_override: c"), named("c"));
    let both = ", server_name_override: c";
    assert_eq!(name("otlp_grpc", "endpoint: 'dns:///a.example:1'", both), named("c"));
    assert_eq!(name("otlp_http", "endpoint: 'https://a'", ""), None);
    assert_eq!(name("otlp_http", "endpoints: ['https://a', 'https://b']", ""), None);
    let front = "endpoint: 'https://front/x', endpoints: ['https://10.0.0.1', 'https://10.0.0.2']";
    assert_eq!(name("otlp_http", front, ""), named("front"));
    assert_eq!(
        name("otlp_http", "discovery: {dns: {hostname: a.example}}", ""),
        named("a.example")
    );
    refuses(
        "otlp_grpc",
        &format!("endpoint: 'a:1', tls: {{{ca}, server_name_override: 'a b'}}"),
        &["otlp_grpc.tls can't be used: no certificate can be for the host \"a b\""],
    );
}

#[test]
fn a_name_that_overrides_is_what_grpc_calls_the_peer_where_nothing_else_is() {
    let authority = |kind: &str, keys: &str| {
        let made = loaded(exporter(kind, keys));
        match &made.plan.destinations[place(&made, kind)].kind {
            Kind::OtlpGrpc(settings) => settings.authority.clone(),
            kind => panic!("{kind:?}"),
        }
    };
    let override_with = |name: &str| format!("tls: {{{}, server_name_override: '{name}'}}", ca());
    let named = |name: &str| Some(name.to_owned());
    let (at, dns) = ("endpoint: 'a:1', ", "endpoint: 'dns:///a.example:1', ");
    for endpoint in [at, dns, "discovery: {file: {path: /a}}, "] {
        let keys = format!("{endpoint}{}", override_with("c.example"));
        assert_eq!(authority("otlp_grpc", &keys), named("c.example"), "{endpoint}");
        let both = format!("authority: 'b:9', {keys}");
        assert_eq!(authority("otlp_grpc", &both), named("b:9"), "{endpoint}");
    }
    let v6 = format!("{at}{}", override_with("::1"));
    assert_eq!(authority("otlp_grpc", &v6), named("[::1]"));
    assert_eq!(authority("otlp_grpc", &format!("{at}{}", override_with(""))), None);
    let balanced = format!(
        "resolver: {{static: {{hostnames: [a]}}}}, protocol: {{otlp: {{{}}}}}",
        override_with("c.example")
    );
    assert_eq!(authority("load_balancing", &balanced), named("c.example"));
    let cleartext = "tls: {insecure: true, server_name_override: c}";
    assert_eq!(authority("otlp_grpc", &format!("{at}{cleartext}")), None);
}

#[test]
fn a_ca_that_lost_its_value_is_a_mistake_and_neither_the_systems_cas_nor_cleartext() {
    for value in ["${env:EMPTY}", "\"${env:EMPTY}\"", "${env:NOTHING}", "null", "", "''"] {
        for key in ["ca_file", "ca_pem"] {
            for more in ["", "insecure: true", "insecure_skip_verify: true", "reload_interval: 0"] {
                let yaml = format!(
                    "exporters:\n  otlp_grpc:\n    endpoint: 'a:1'\n    tls:\n      {key}: \
                     {value}\n      {more}\n\
                     service: {{pipelines: {{traces: {{exporters: [otlp_grpc]}}}}}}"
                );
                let problems = load_over(&yaml).map(|_| ()).expect_err("a mistake");
                check(&problems, &[&format!("tls.{key} is empty & remove the key")]);
            }
        }
    }
}

#[test]
fn the_system_is_trusted_only_where_nobody_else_is_or_both_are_asked_for() {
    let (chain, key) = pair();
    let own = format!("cert_pem: {chain}, key_pem: {key}");
    let tls =
        |keys: &str| way("otlp_grpc", &format!("endpoint: 'a:1', tls: {{{keys}}}")).expect("TLS");
    let trusted = tls(&format!("{}, {own}, min_version: '1.3', reload_interval: 5m", ca()));
    assert!(trusted.verifies && !trusted.trusts_system && trusted.own.is_some());
    assert!(matches!(trusted.ca, Some(Pem::Text(_))));
    assert_eq!(trusted.reload_interval.as_secs(), 300);
    let anybody = tls("insecure_skip_verify: true");
    assert!(!anybody.verifies && !anybody.trusts_system && anybody.own.is_none());
    let made = loaded(exporter("otlp_grpc", &format!("endpoint: 'a:1', tls: {{{}, {own}}}", ca())));
    for text in [format!("{:?}", made.plan), made.printable] {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}

#[test]
fn what_can_reach_nobody_is_refused_with_the_reason_and_without_the_key() {
    let ((chain, key), (_, other_key)) = (pair(), pair());
    let ca = ca();
    for (tls, expected) in [
        ("ca_file: /not/there.pem", "ca_file /not/there.pem: No such"),
        ("ca_file: /dev/zero", "/dev/zero: not a regular file"),
        ("ca_file: '', insecure_skip_verify: true", "tls.ca_file is empty: set it, or remove"),
        (&format!("{ca}, ca_file: a"), "ca_pem is given as well as ca_file"),
        (&format!("{ca}, cert_pem: {chain}"), "tls.key_file is missing: set it, or key_pem"),
        (&format!("{ca}, key_pem: {key}"), "tls.cert_file is missing: set it, or cert_pem"),
        (&format!("{ca}, cert_pem: {chain}, key_pem: {other_key}"), "key is not the certificate's"),
        (&format!("ca_pem: {key}"), "ca_pem: no CERTIFICATE in it"),
        (&format!("{ca}, min_version: '1.3', max_version: '1.2'"), "higher than max_version"),
        (&format!("{ca}, reload_interval: 10ms"), "must be 0 or at least 1s"),
        (
            &format!("{ca}, cipher_suites: [TLS_AES_128_GCM_SHA256]"),
            "cipher_suites is not supported",
        ),
        (&format!("{ca}, curve_preferences: [X25519]"), "curve_preferences is not supported"),
        (&format!("{ca}, tpm: {{enabled: true}}"), "tls.tpm is not supported"),
        (&format!("{ca}, ca_flie: a"), "did you mean \"ca_file\"?"),
    ] {
        let keys = format!("endpoint: 'a:1', tls: {{{tls}}}");
        let problems = exporter("otlp_grpc", &keys).map(|_| ()).expect_err("a mistake");
        let texts = texts(&problems).join("\n");
        assert!(texts.contains(expected), "{expected}: {texts}");
        assert!(!texts.contains("PRIVATE KEY"), "{texts}");
    }
}

#[test]
fn cas_that_nobody_asks_are_warned_of_and_what_receivers_take_is_taken() {
    let keys = format!(
        "endpoint: 'a:1', tls: {{insecure_skip_verify: true, {}, include_system_ca_certs_pool: \
         true, include_insecure_cipher_suites: false}}",
        ca()
    );
    let made = loaded(exporter("otlp_grpc", &keys));
    let expected = "has no effect & any certificate is taken & remove insecure_skip_verify";
    let expected =
        ["ca_pem", "include_system_ca_certs_pool"].map(|key| format!("{key} {expected}"));
    check(&made.warnings, &expected.each_ref().map(String::as_str));
    let cleartext = "endpoint: 'a:1', tls: {insecure: true, include_insecure_cipher_suites: false}";
    check(&loaded(exporter("otlp_grpc", cleartext)).warnings, &[]);
}

#[test]
fn some_endpoints_with_tls_and_some_without_are_a_mistake() {
    let mixed = "endpoints: ['http://a:1', 'https://b:1'], tls: {insecure_skip_verify: true}";
    let expected = ["has endpoints with TLS and others in cleartext & make two exporters"];
    refuses("otlp_grpc", mixed, &expected);
    refuses("otlp_http", mixed, &expected);
    let signals = "traces_endpoint: 'http://a', logs_endpoint: 'https://b'";
    refuses("otlp_http", signals, &expected);
}

#[test]
fn who_wants_tls_does_not_get_cleartext_in_silence() {
    let lacks = "otlp_grpc.tls.ca_file has no effect & cleartext & https://";
    refuses("otlp_grpc", "endpoint: 'http://a:1', tls: {ca_file: /a}", &[lacks]);
    let keys = "endpoint: 'a:1', tls: {insecure: true, cert_file: /a, key_file: /b}";
    refuses("otlp_grpc", keys, &["tls.cert_file has no effect", "tls.key_file has no effect"]);
    let keys = "endpoint: 'http://a:1', tls: {insecure_skip_verify: true, min_version: '1.3'}";
    let made = loaded(exporter("otlp_http", keys));
    check(&made.warnings, &["insecure_skip_verify has no effect", "min_version has no effect"]);
    // As the Collector has it: a CA speaks for TLS.
    let keys = format!("endpoint: 'a:1', tls: {{insecure: true, {}}}", ca());
    let made = loaded(exporter("otlp_grpc", &keys));
    check(&made.warnings, &["tls.insecure has no effect & a CA is given"]);
    assert!(made.plan.tls_out[place(&made, "otlp_grpc")].is_some());
}
