//! What of the Fetch standard depends on us: who is named, and what browsers are told before.

use std::sync::Arc;

use http::header::ALLOW;

use super::*;
use crate::request::Protocol;

fn cors(origins: &[&str]) -> Cors {
    let read = |text: &&str| Pattern::read(text).expect("a proper origin");
    Cors::new(origins.iter().map(read).collect())
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a proper value")
}

fn allows(rules: &Cors, origin: &str) -> Option<String> {
    let allowed = rules.allow(&value(origin));
    allowed.map(|value| value.to_str().expect("ASCII").to_owned())
}

fn head(method: Method, headers: &[(HeaderName, &str)]) -> Head {
    Head {
        listener: 0,
        protocol: Protocol::Http1,
        method,
        path: Arc::from("/v1/traces"),
        headers: headers.iter().map(|(name, text)| (name.clone(), value(text))).collect(),
        content_length: None,
        peer: None,
    }
}

/// What `headers` say, by name.
fn said<'a>(headers: &'a Fields, name: &'a HeaderName) -> Vec<&'a str> {
    headers.get_all(name).map(|value| value.to_str().expect("ASCII")).collect()
}

const SHOP: &str = "https://shop.example";

#[test]
fn an_origin_is_allowed_whole_or_around_one_star() {
    let table: [(&str, &[&str], &[&str]); 6] = [
        (
            SHOP,
            &[SHOP, "HTTPS://Shop.Example"],
            &[
                "https://shop.example.evil",
                "https://shop.exampl",
                "http://shop.example",
                "https://shop.example:444",
                "null",
                "",
            ],
        ),
        (
            "https://*.shop.example",
            &["https://a.shop.example", "https://a.b.shop.example"],
            &[
                "https://shop.example",
                "https://ashop.example",
                "http://a.shop.example",
                "https://a.shop.example.evil",
            ],
        ),
        ("http://localhost:*", &["http://localhost:8080"], &["http://localhost", "http://local"]),
        // What begins and ends with the same letters has to be long enough for both.
        ("ab*ba", &["abba", "abxba"], &["aba", "ab", "a", ""]),
        ("null", &["null"], &[SHOP]),
        ("https://SHOP.example", &[SHOP], &[]),
    ];
    for (pattern, fitting, others) in table {
        let rules = cors(&["https://other.example", pattern]);
        for origin in fitting {
            assert_eq!(allows(&rules, origin).as_deref(), Some(*origin), "{pattern} {origin}");
        }
        for origin in others {
            assert_eq!(allows(&rules, origin), None, "{pattern} {origin}");
        }
    }
    assert_eq!(allows(&cors(&[SHOP, "*"]), "https://any.example").as_deref(), Some("*"));
    assert_eq!(allows(&cors(&[]), SHOP), None);
}

#[test]
fn an_origin_that_no_browser_sends_is_a_mistake() {
    let faults = [
        ("", "must hold origins such as"),
        ("https://a b", "must hold origins such as"),
        ("https://shop.example/", "without a path"),
        ("https://*.example.com/x", "without a path"),
        ("shop.example", "with their scheme"),
        ("https://", "with a host"),
        ("https://shop.example:443", "browsers omit it"),
        ("HTTP://*.example:80", "browsers omit it"),
        ("https://*.*.example", "at most one *"),
    ];
    for (text, expected) in faults {
        let fault = Pattern::read(text).expect_err(text);
        assert!(fault.contains(expected), "{text}: {fault}");
    }
}

#[test]
fn a_browser_that_asks_first_hears_what_a_page_may_do() {
    let asked = [
        (ORIGIN, SHOP),
        (ACCESS_CONTROL_REQUEST_METHOD, "POST"),
        (ACCESS_CONTROL_REQUEST_HEADERS, "content-type,x-tenant"),
    ];
    let names = [HeaderName::from_static("x-tenant"), HeaderName::from_static("accept")];
    let rules = cors(&[SHOP]).allow_headers(&names).remember_for(7200);
    let answer = rules.preflight(&head(Method::OPTIONS, &asked)).expect("a preflight");
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let expected = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, SHOP),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        (ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, x-requested-with, x-tenant"),
        (ACCESS_CONTROL_MAX_AGE, "7200"),
        (VARY, "origin, access-control-request-method, access-control-request-headers"),
    ];
    for (name, text) in &expected {
        assert_eq!(said(&answer.headers, name), [*text], "{name}");
    }
    assert_eq!(answer.headers.len(), expected.len());

    let rules = cors(&["*"]).allow_all_headers();
    let answer = rules.preflight(&head(Method::OPTIONS, &asked)).expect("a preflight");
    let headers = &answer.headers;
    assert_eq!(said(headers, &ACCESS_CONTROL_ALLOW_ORIGIN), ["*"]);
    assert_eq!(said(headers, &ACCESS_CONTROL_ALLOW_HEADERS), ["content-type,x-tenant"]);
    assert!(said(headers, &ACCESS_CONTROL_ALLOW_CREDENTIALS).is_empty(), "never for all");
}

#[test]
fn a_page_without_a_name_gets_no_credentials() {
    for (origin, credentials) in [("null", &[][..]), (SHOP, &["true"][..])] {
        let rules = cors(&["null", SHOP]);
        let mut headers = Fields::new();
        rules.put(rules.allow(&value(origin)), &mut headers);
        assert_eq!(said(&headers, &ACCESS_CONTROL_ALLOW_ORIGIN), [origin]);
        assert_eq!(said(&headers, &ACCESS_CONTROL_ALLOW_CREDENTIALS), credentials);
    }
    // Behind the scheme's own port of another scheme is a port like any other.
    let other = "https://a.example:80";
    assert_eq!(allows(&cors(&[other]), other).as_deref(), Some(other));
}

#[test]
fn whoever_is_not_allowed_is_answered_and_named_nowhere() {
    let asked = [(ORIGIN, "https://evil.example"), (ACCESS_CONTROL_REQUEST_METHOD, "POST")];
    let rules = cors(&[SHOP]);
    let answer = rules.preflight(&head(Method::OPTIONS, &asked)).expect("a preflight");
    let names: Vec<&HeaderName> = answer.headers.iter().map(|(name, _)| name).collect();
    assert_eq!((answer.status, names), (StatusCode::NO_CONTENT, vec![&VARY]));
    let mut headers = Fields::new();
    rules.put(rules.allow(&value("https://evil.example")), &mut headers);
    assert_eq!(headers, Fields::from([(VARY, value("origin"))]));
}

#[test]
fn other_requests_are_not_taken_for_a_browser_s_question() {
    let (method, origin) = ((ACCESS_CONTROL_REQUEST_METHOD, "POST"), (ORIGIN, SHOP));
    let rules = cors(&["*"]);
    for (verb, headers) in [
        (Method::POST, vec![origin.clone(), method.clone()]),
        (Method::OPTIONS, vec![origin]),
        (Method::OPTIONS, vec![method]),
        (Method::OPTIONS, vec![]),
    ] {
        assert!(rules.preflight(&head(verb.clone(), &headers)).is_none(), "{verb} {headers:?}");
    }
}

#[test]
fn an_answer_keeps_its_own_headers_and_exposes_what_is_listed() {
    let rules = cors(&[SHOP]).expose_headers(&[http::header::RETRY_AFTER, ALLOW]);
    let mut headers = Fields::from([(ALLOW, value("POST"))]);
    rules.put(rules.allow(&value(SHOP)), &mut headers);
    assert_eq!(said(&headers, &ALLOW), ["POST"]);
    assert_eq!(said(&headers, &ACCESS_CONTROL_ALLOW_ORIGIN), [SHOP]);
    assert_eq!(said(&headers, &ACCESS_CONTROL_EXPOSE_HEADERS), ["retry-after, allow"]);
    assert_eq!(said(&headers, &VARY), ["origin"]);
    assert!(said(&headers, &ACCESS_CONTROL_ALLOW_METHODS).is_empty(), "only when asked before");
}
