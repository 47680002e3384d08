//! `tls` of Consul and etcd, for discovery and for registration: who is reached through TLS, and
//! what is refused.

use super::tls::pair;
use super::*;
use crate::config::plan::TlsOut;

/// Both ways to use a registry: to be told who is there, and to be there.
#[derive(Clone, Copy, Debug)]
enum Use {
    Discovery,
    Registration,
}

fn load(of: Use, registry: &str) -> Result<Loaded, Vec<Problem>> {
    match of {
        Use::Discovery => load_over(&format!(
            "exporters: {{otlp_grpc: {{tls: {{insecure: true}}, discovery: {{{registry}}}}}}}\n\
             service: {{pipelines: {{traces: {{exporters: [otlp_grpc]}}}}}}"
        )),
        Use::Registration => {
            load_over(&format!("engine: {{registration: {{address: 'me:1', {registry}}}}}"))
        }
    }
}

/// What a registry's keys come to; `None`: cleartext.
#[track_caller]
fn way(of: Use, registry: &str) -> Option<TlsOut> {
    let plan = loaded(load(of, registry)).plan;
    assert!(plan.tls_out.iter().all(Option::is_none), "the exporter's own is another matter");
    match of {
        Use::Discovery => plan.source_tls[0].clone(),
        Use::Registration => plan.engine.registration_tls,
    }
}

fn consul(agent: &str, tls: &str) -> String {
    format!("consul: {{service: c, agent: '{agent}', {tls}}}")
}

fn etcd(endpoints: &str, tls: &str) -> String {
    format!("etcd: {{endpoints: [{endpoints}], prefix: /c/, {tls}}}")
}

fn ca() -> String {
    format!("ca_pem: {}", pair().0)
}

#[test]
fn the_scheme_says_whether_there_is_tls_and_without_one_the_block_does() {
    let tls = format!("tls: {{{}}}", ca());
    for of in [Use::Discovery, Use::Registration] {
        for registry in [
            consul("https://a:1", &tls),
            consul("https://a", &tls),
            consul("a:1", &tls),
            consul("https://a:1", "tls: {insecure_skip_verify: true}"),
            etcd("'https://a:1', 'https://b'", &tls),
            etcd("'a:1', b", &tls),
        ] {
            let tls = way(of, &registry).unwrap_or_else(|| panic!("{of:?} {registry}"));
            assert_eq!((tls.protocol, tls.server_name), ("http/1.1", None));
        }
        for registry in [
            consul("a", ""),
            consul("http://a:1", ""),
            consul("a:1", "tls: {insecure: true}"),
            etcd("'http://a:1', b", ""),
        ] {
            assert_eq!(way(of, &registry), None, "{of:?} {registry}");
        }
        let named = format!("tls: {{{}, server_name_override: x, reload_interval: 5m}}", ca());
        let tls = way(of, &etcd("'https://a'", &named)).expect("TLS");
        assert_eq!((tls.server_name.as_deref(), tls.reload_interval.as_secs()), (Some("x"), 300));
    }
}

#[test]
fn without_a_port_https_is_where_consul_has_it() {
    let tls = format!("tls: {{{}}}", ca());
    let made = loaded(load(Use::Registration, &consul("https://a", &tls)));
    let registration = format!("{:?}", made.plan.engine.registration);
    assert!(registration.contains("8501"), "{registration}");
}

#[test]
fn who_wants_tls_of_a_registry_gets_it_or_hears_why_not() {
    let (ca, (chain, key)) = (ca(), pair());
    for of in [Use::Discovery, Use::Registration] {
        for (registry, expected) in [
            (etcd("'https://a', 'http://b'", &format!("tls: {{{ca}}}")), "others in cleartext"),
            (consul("http://a", &format!("tls: {{{ca}}}")), "ca_pem has no effect & https://"),
            (consul("a", "tls: {ca_file: ''}"), "consul.tls.ca_file is empty"),
            (consul("a", "tls: {ca_file: /no/such}"), "consul.tls can't be used: ca_file /no/such"),
            (
                etcd("'https://a'", &format!("tls: {{{ca}, cert_pem: {chain}}}")),
                "etcd.tls.key_file is missing",
            ),
        ] {
            let problems = load(of, &registry).map(|_| ()).expect_err("a mistake");
            check(&problems, &[expected]);
        }
        let own = format!("tls: {{{ca}, cert_pem: {chain}, key_pem: {key}}}");
        let made = loaded(load(of, &etcd("'https://a'", &own)));
        for text in [format!("{:?}", made.plan), made.printable] {
            assert!(!text.contains("PRIVATE KEY"), "{text}");
        }
    }
}

#[test]
fn a_block_that_lost_its_value_is_no_cleartext() {
    let discovery = "exporters:\n  otlp_grpc:\n    tls: {insecure: true}\n    discovery:\n      \
                     consul:\n        service: c\n        tls: VALUE\n\
                     service: {pipelines: {traces: {exporters: [otlp_grpc]}}}";
    let registration =
        "engine:\n  registration:\n    address: 'me:1'\n    consul:\n      tls: VALUE\n";
    for value in ["", "null", "${env:EMPTY}", "${env:NOTHING}"] {
        for yaml in [discovery, registration] {
            // Where the system has no CA it is a mistake, and else it is TLS.
            match load_over(&yaml.replace("VALUE", value)).map(|made| made.plan) {
                Ok(plan) => {
                    let of_source = plan.source_tls.iter().flatten().next();
                    let tls = of_source.or(plan.engine.registration_tls.as_ref());
                    assert!(tls.is_some_and(|tls| tls.verifies), "{yaml} with {value:?}");
                }
                Err(problems) => check(&problems, &["the system has no CA"]),
            }
        }
    }
}
