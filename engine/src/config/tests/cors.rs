//! The `cors` block of `http` and `http3`: what it comes to, and what is refused.

use http::HeaderValue;

use super::tls::pair;
use super::*;

fn http_with(cors: &str) -> String {
    format!("receivers: {{otlp: {{protocols: {{http: {{cors: {cors}}}}}}}}}")
}

#[test]
fn a_block_is_taken_for_the_protocol_that_has_it() {
    let (chain, key) = pair();
    let cors = "{allowed_origins: ['https://*.shop.example'], allowed_headers: ['*'], \
                exposed_headers: [Retry-After], max_age: 7200}";
    let yaml = format!(
        "receivers: {{otlp: {{protocols: {{http: {{}}, http3: {{cors: {cors}, \
         tls: {{cert_pem: {chain}, key_pem: {key}}}}}}}}}}}"
    );
    let made = loaded(load_over(&yaml));
    check(&made.warnings, &[]);
    let listeners = &made.plan.listeners;
    let cors = |is_quic| {
        let listener = listeners.iter().find(|listener| listener.is_quic == is_quic);
        let http = listener.and_then(|listener| listener.http.as_ref());
        http.is_some_and(|http| http.cors.is_some())
    };
    // The gRPC listener of the rest has the same port as none of them.
    assert_eq!((cors(false), cors(true)), (false, true), "{listeners:?}");
}

#[test]
fn origins_are_a_list_or_one_and_nothing_else_is_needed() {
    for origins in ["'*'", "['*']", "https://a.example", "[https://a.example, 'http://b:*']"] {
        let made = loaded(load_over(&http_with(&format!("{{allowed_origins: {origins}}}"))));
        check(&made.warnings, &[]);
        let mut https = made.plan.listeners.iter().filter_map(|listener| listener.http.as_ref());
        let cors = https.find_map(|http| http.cors.clone()).expect("rules");
        let page = HeaderValue::from_static("https://a.example");
        assert!(cors.allow(&page).is_some(), "{origins}");
    }
}

#[test]
fn a_block_that_allows_nobody_is_warned_of() {
    for (cors, expected) in [
        ("{}", "http.cors allows no origin, and so has no effect & allowed_origins"),
        ("{allowed_origins: []}", "allows no origin"),
        ("{allowed_headers: [x-a]}", "allows no origin"),
    ] {
        let made = loaded(load_over(&http_with(cors)));
        check(&made.warnings, &[expected]);
    }
    check(&loaded(load_over(&http_with("null"))).warnings, &[]);
}

#[test]
fn what_no_browser_could_use_is_refused_where_it_stands() {
    for (cors, expected) in [
        ("allowed_origins: [shop.example]", "allowed_origins must hold origins with their scheme"),
        ("allowed_origins: ['https://a.example/']", "without a path"),
        ("allowed_origins: ['https://*.*.example']", "at most one *"),
        ("allowed_origins: ['*'], allowed_headers: ['a b']", "allowed_headers must hold names"),
        ("allowed_origins: ['*'], exposed_headers: ['*']", "exposed_headers must name each"),
        ("allowed_origins: ['*'], max_age: 1h", "max_age must be a whole number"),
        ("allowed_origins: ['*'], max_age: 99999999999", "max_age must be at most"),
        ("allowed_origins: ['*'], allow_credentials: true", "unknown key"),
    ] {
        let problems = load_over(&http_with(&format!("{{{cors}}}"))).map(|_| ());
        check(&problems.expect_err("a mistake"), &[expected]);
    }
}
