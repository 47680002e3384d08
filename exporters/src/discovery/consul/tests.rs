//! Consul's answers, cut down to what is read, and the paths that ask for them.

use super::*;

const ENTRIES: &str = r#"[
 {"Node": {"Node": "n1", "Address": "10.0.0.1"},
  "Service": {"ID": "c-1", "Service": "c", "Address": "", "Port": 4317,
    "Meta": {"zone": "a", "version": "1"}, "Weights": {"Passing": 5, "Warning": 1}},
  "Checks": [{"Status": "passing"}, {"Status": "passing"}]},
 {"Node": {"Address": "10.0.0.1"},
  "Service": {"ID": "c-2", "Address": "fd00::2", "Port": 4317, "Meta": null,
    "Weights": {"Passing": 5, "Warning": 2}},
  "Checks": [{"Status": "passing"}, {"Status": "warning"}]},
 {"Node": {"Address": "10.0.0.1"}, "Service": {"ID": "c-3", "Address": "ill", "Port": 4317},
  "Checks": [{"Status": "critical"}]},
 {"Node": {"Address": "10.0.0.1"}, "Service": {"ID": "c-4", "Address": "none", "Port": 0}}
]"#;

#[test]
fn who_is_ill_is_left_out_and_who_is_warned_weighs_what_it_asked_for() {
    let answer = answer(serde_json::from_str(ENTRIES).expect("entries"));
    let seen: Vec<(&str, u32)> = answer.endpoints.iter().map(|e| (e.address(), e.weight)).collect();
    assert_eq!(seen, [("10.0.0.1:4317", 5), ("[fd00::2]:4317", 2)]);
    assert_eq!(answer.endpoints[0].zone.as_deref(), Some("a"));
    assert_eq!(answer.endpoints[0].attributes["version"], "1");
    assert_eq!(answer.notes, ["instance c-4: port 0 is no port"]);
}

#[test]
fn names_can_not_escape_from_the_path() {
    let agent = Address::parse("http://127.0.0.1:8500", PORT_DEFAULT).expect("an address");
    let mut consul = Consul::of(agent, "a/../b?x");
    consul.tags = vec!["x&y".to_owned()];
    consul.datacenter = Some("é".to_owned());
    let source = ConsulSource::new(consul, PACE);
    let rest = "tag=x%26y&dc=%C3%A9&stale";
    assert_eq!(source.path(0), format!("/v1/health/service/a%2F..%2Fb%3Fx?{rest}"));
    let path = source.path(7);
    assert_eq!(path, format!("/v1/health/service/a%2F..%2Fb%3Fx?index=7&wait=60s&{rest}"));
}

#[test]
fn a_token_is_shown_nowhere() {
    let agent = Address::parse("127.0.0.1", PORT_DEFAULT).expect("an address");
    let mut consul = Consul::of(agent, "c");
    consul.token = Some(Secret::new("s3cret"));
    assert!(!format!("{consul:?}").contains("s3cret"));
    let said = scrubbed(consul.token.as_ref(), "token s3cret is not known");
    assert_eq!(said, "token [redacted] is not known");
    let with_password = Address::parse("http://user:s3cret@host:1", PORT_DEFAULT);
    let said = with_password.expect_err("a password in a URL");
    assert!(!said.contains("s3cret"), "{said}");
    assert!(Address::parse("ftp://host:1", PORT_DEFAULT).is_err());
    for (text, scheme, shown) in [
        ("host", None, "host:8500"),
        ("http://host:1", Some(Scheme::Http), "host:1"),
        ("https://[::1]:1", Some(Scheme::Https), "https://[::1]:1"),
    ] {
        let address = Address::parse(text, PORT_DEFAULT).expect("an address");
        assert_eq!((address.scheme(), address.to_string().as_str()), (scheme, shown));
    }
}
