//! The `tls` block of a receiver: what it comes to, and what is refused.

use rcgen::generate_simple_self_signed;

use super::*;
use crate::config::plan::Pem;

/// A certificate and its key, as YAML texts.
pub(super) fn pair() -> (String, String) {
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).expect("it can be made");
    let quoted = |text: String| serde_json::to_string(&text).expect("JSON is YAML");
    (quoted(made.cert.pem()), quoted(made.signing_key.serialize_pem()))
}

fn grpc_with(tls: &str) -> String {
    format!("receivers: {{otlp: {{protocols: {{grpc: {{tls: {tls}}}}}}}}}")
}

#[track_caller]
fn refuses(tls: &str, expected: &[&str]) {
    let problems = load_over(&grpc_with(tls)).map(|_| ()).expect_err("it can't serve");
    check(&problems, expected);
}

#[test]
fn a_block_with_texts_is_taken_and_no_output_shows_its_keys() {
    let ((chain, key), (other_chain, other_key)) = (pair(), pair());
    let tls = format!(
        "{{cert_pem: {chain}, key_pem: {key}, min_version: '1.3', reload_interval: 5m, \
         certificates: [{{cert_pem: {other_chain}, key_pem: {other_key}}}]}}"
    );
    let made = loaded(load_over(&grpc_with(&tls)));
    check(&made.warnings, &[]);
    let taken = made.plan.listeners[0].tls.clone().expect("TLS");
    assert_eq!(taken.certificates.len(), 2);
    assert_eq!(taken.reload_interval.as_secs(), 300);
    assert!(matches!(&taken.certificates[1].key, Pem::Text(text) if text.contains("PRIVATE")));
    for text in [format!("{:?}", made.plan), made.printable] {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}

#[test]
fn a_block_without_a_certificate_is_a_mistake() {
    refuses("{}", &["tls.cert_file is missing: set it, or cert_pem", "tls.key_file is missing"]);
}

#[test]
fn a_shared_port_has_one_tls() {
    let (chain, key) = pair();
    let tls = format!("{{cert_pem: {chain}, key_pem: {key}}}");
    let shared = |http: &str| {
        let grpc = format!("{{endpoint: 'localhost:4317', tls: {tls}}}");
        let http = format!("{{endpoint: 'localhost:4317'{http}}}");
        load_over(&format!("receivers: {{otlp: {{protocols: {{grpc: {grpc}, http: {http}}}}}}}"))
    };
    assert_eq!(loaded(shared(&format!(", tls: {tls}"))).plan.listeners.len(), 1);
    let problems = shared("").map(|_| ()).expect_err("one of them would be ignored");
    check(&problems, &["share a port, not their TLS & the same tls block"]);
}

#[test]
fn what_can_not_serve_is_refused_with_the_reason_and_without_the_key() {
    let ((chain, key), (_, other_key)) = (pair(), pair());
    let own = format!("cert_pem: {chain}, key_pem: {key}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (tls, expected) in [
        (
            "cert_file: /not/there.pem, key_file: /not/there.key",
            "cert_file /not/there.pem: No such",
        ),
        (&format!("cert_pem: {chain}, key_pem: {other_key}"), "key is not the certificate's"),
        (&format!("{own}, client_ca_file: /not/there"), "client_ca_file /not/there: No such"),
        (&format!("{own}, client_crl_file: {file}"), "without client_ca_file revokes nothing"),
        (&format!("{own}, client_ca_file: /dev/zero"), "/dev/zero: not a regular file"),
        (&format!("{own}, min_version: '1.1'"), "must be 1.2 or 1.3: 1.1 is not safe"),
        (&format!("{own}, min_version: '1.3', max_version: '1.2'"), "higher than max_version"),
        (&format!("{own}, cipher_suites: [RC4]"), "unknown cipher suite \"RC4\"; known are TLS_"),
        (&format!("{own}, curve_preferences: [P521]"), "unknown curve \"P521\"; known are X25519"),
        (&format!("{own}, cert_file: a"), "cert_pem is given as well as cert_file"),
        (&format!("{own}, certificates: {{}}"), "must be a list of certificates"),
        (&format!("{own}, reload_interval: 10ms"), "must be 0 or at least 1s"),
        (&format!("{own}, tpm: {{enabled: true}}"), "tls.tpm is not supported"),
        (&format!("{own}, client_ca_file: ''"), "client_ca_file is empty: name the file, or"),
        (&format!("{own}, client_crl_file: ''"), "client_crl_file is empty: name the file, or"),
        (&format!("{own}, include_insecure_cipher_suites: true"), "can only be false"),
    ] {
        let problems =
            load_over(&grpc_with(&format!("{{{tls}}}"))).map(|_| ()).expect_err("a mistake");
        let texts = texts(&problems).join("\n");
        assert!(texts.contains(expected), "{expected}: {texts}");
        assert!(!texts.contains("PRIVATE KEY"), "{texts}");
    }
}

#[test]
fn a_file_of_cas_or_revocations_that_lost_its_name_is_a_mistake_and_not_an_open_door() {
    let (chain, key) = pair();
    for value in ["${env:EMPTY}", "\"${env:EMPTY}\"", "${env:NOTHING}", "null", "", "''"] {
        for name in ["client_ca_file", "client_crl_file"] {
            // References stand in no braces without quotes.
            let yaml = format!(
                "receivers:\n  otlp:\n    protocols:\n      grpc:\n        tls:\n          \
                 cert_pem: {chain}\n          key_pem: {key}\n          {name}: {value}\n"
            );
            let problems = load_over(&yaml).map(|_| ()).expect_err("it is a mistake");
            check(&problems, &[&format!("tls.{name} is empty: name the file, or remove the key")]);
        }
    }
}

/// As base64 of it, for a reader that knows nothing of how forebay reads it.
fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| (bits << 8) | u32::from(*three.get(at).unwrap_or(&0)));
        let digit = move |at: usize| DIGITS[(bits >> (18 - 6 * at)) as usize & 63] as char;
        (0..=three.len()).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

#[test]
fn a_key_in_base64_is_shown_neither_by_a_message_nor_by_the_printed_configuration() {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    for kind in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(kind).expect("a key");
        let of_pem = encoded(key.serialize_pem().as_bytes());
        for text in [of_pem, encoded(key.serialized_der())] {
            for yaml in [
                grpc_with(&format!("{{cert_file: a, key_file: {text}}}")),
                grpc_with(&format!("{{cert_file: {text}, key_file: b, min_version: {text}}}")),
                grpc_with(&format!("{{reload_interval: {text}, client_ca_file: {text}}}")),
                format!("receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{text}'}}}}}}}}"),
                format!(
                    "exporters: {{otlp_grpc: {{compression: {text}, tls: {{ca_file: {text}}}}}}}\n\
                         service: {{pipelines: {{traces: {{exporters: [otlp_grpc]}}}}}}"
                ),
            ] {
                let problems = load_over(&yaml).map(|_| ()).expect_err("a mistake");
                let texts = texts(&problems).join("\n");
                assert!(!texts.contains(&text[8..24]), "{yaml}: {texts}");
            }
            for name in ["key_file", "anything"] {
                let report = super::super::problem::Report::default();
                let yaml = format!("{name}: {text}\nb: 1");
                let node = super::super::tree::read(&yaml, &"c.yaml".into(), &report);
                let printed = super::super::print::print(&node.expect("YAML"));
                assert_eq!(printed, format!("{name}: \"[REDACTED]\"\nb: 1\n"));
            }
        }
    }
}

#[test]
fn a_key_whose_newlines_were_lost_is_refused_with_the_reason_and_not_shown() {
    let (chain, key) = pair();
    let folded = key.replace("\\n", " ");
    let tls = format!("{{cert_pem: {chain}, key_pem: {folded}}}");
    let problems = load_over(&grpc_with(&tls)).map(|_| ()).expect_err("no key");
    let texts = texts(&problems).join("\n");
    assert!(texts.contains("were its newlines turned into spaces"), "{texts}");
    let secret = key.split("\\n").nth(1).expect("a line of the key");
    let decimals = format!("{:?}", &secret.as_bytes()[..8]);
    assert!(!texts.contains(&secret[..8]), "{texts}");
    assert!(!texts.contains(decimals.trim_matches(['[', ']'])), "{texts}");
}

#[test]
fn what_the_collector_has_and_does_nothing_here_is_warned_of() {
    let (chain, key) = pair();
    let tls = format!(
        "{{cert_pem: {chain}, key_pem: {key}, client_ca_file_reload: true, ca_file: a, \
         include_system_ca_certs_pool: true}}"
    );
    let made = loaded(load_over(&grpc_with(&tls)));
    check(&made.warnings, &["client_ca_file_reload", "ca_file", "include_system_ca_certs_pool"]);
}

#[test]
fn a_key_in_the_place_of_a_path_is_refused_and_shown_nowhere() {
    let (chain, key) = pair();
    let lines: Vec<&str> = key.trim_matches('"').split("\\n").collect();
    let bare = format!("\"{}\"", lines[1..lines.len() - 2].join("\\n"));
    let folded = key.replace("\\n", " ");
    for (what, text) in [("PEM", &key), ("folded", &folded), ("without its frame", &bare)] {
        for (tls, expected) in [
            (
                format!("cert_pem: {chain}, key_file: {text}"),
                "tls.key_file holds PEM text, not a path: use key_pem",
            ),
            (
                format!("cert_file: {text}, key_pem: {key}"),
                "tls.cert_file holds PEM text, not a path: use cert_pem",
            ),
            (
                format!("cert_pem: {chain}, key_pem: {key}, client_ca_file: {text}"),
                "tls.client_ca_file holds a file's content, not its path",
            ),
            (
                format!(
                    "cert_pem: {chain}, key_pem: {key}, certificates: [{{cert_pem: {chain}, \
                     key_file: {text}}}]"
                ),
                "certificates[0].key_file holds PEM text",
            ),
        ] {
            if what == "without its frame" && text.lines().count() < 2 && !text.contains("\\n") {
                continue;
            }
            let yaml = grpc_with(&format!("{{{tls}}}"));
            let problems = load_over(&yaml).map(|_| ()).expect_err("no path");
            check(&problems, &[expected]);
            shows_none_of(&key, &texts(&problems).join("\n"));
        }
    }
}

#[test]
fn a_key_is_shown_neither_by_a_message_nor_by_the_printed_configuration_wherever_it_stands() {
    let (_, key) = pair();
    for yaml in [
        grpc_with(&format!("{{min_version: {key}}}")),
        grpc_with(&format!("{{reload_interval: {key}, cert_file: a, key_file: {key}}}")),
        format!("receivers: {{otlp: {{protocols: {{grpc: {{endpoint: {key}}}}}}}}}"),
        format!("exporters: {{otlp_grpc: {{endpoint: {key}, compression: {key}}}}}"),
    ] {
        let problems = load_over(&yaml).map(|_| ()).expect_err("a mistake");
        shows_none_of(&key, &texts(&problems).join("\n"));
    }
    let node = |yaml: &str| {
        let report = super::super::problem::Report::default();
        super::super::tree::read(yaml, &"c.yaml".into(), &report).expect("YAML")
    };
    for name in ["key_file", "cert_file", "endpoint", "anything"] {
        let printed = super::super::print::print(&node(&format!("a: {{{name}: {key}, b: 1}}")));
        assert!(printed.contains("[REDACTED]") && printed.contains("b: 1"), "{printed}");
        shows_none_of(&key, &printed);
    }
}

/// No piece of a key, in whatever way its newlines are written.
#[track_caller]
fn shows_none_of(key: &str, text: &str) {
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    for line in key.trim_matches('"').split("\\n").filter(|line| line.len() >= 8) {
        assert!(!text.contains(&line[..8]) || line.starts_with("-----"), "{text}");
    }
}

#[test]
fn a_certificate_that_no_client_can_ask_for_is_warned_of() {
    let ((chain, key), quoted) = (pair(), |text: String| serde_json::to_string(&text).unwrap());
    let made = generate_simple_self_signed(vec!["192.0.2.1".to_owned()]).expect("it can be made");
    let (other, other_key) = (quoted(made.cert.pem()), quoted(made.signing_key.serialize_pem()));
    let tls = format!(
        "{{cert_pem: {chain}, key_pem: {key}, include_insecure_cipher_suites: false, \
         certificates: [{{cert_pem: {other}, key_pem: {other_key}}}]}}"
    );
    let made = loaded(load_over(&grpc_with(&tls)));
    let expected =
        "certificates: no client ever gets certificates[0].cert_pem & by DNS names (SNI)";
    check(&made.warnings, &[expected]);
}

#[test]
fn a_tls_block_that_lost_its_value_is_a_mistake_and_no_cleartext() {
    for value in ["", "null", "~", "''", "${env:EMPTY}", "\"${env:EMPTY}\"", "${env:NOTHING}"] {
        for protocol in ["grpc", "http"] {
            let yaml = format!(
                "receivers:\n  otlp:\n    protocols:\n      {protocol}:\n        tls: {value}\n"
            );
            let problems = load_over(&yaml).map(|_| ()).expect_err("a mistake");
            let expected = format!("protocols.{protocol}.tls is empty & remove the key");
            check(&problems, &[&expected]);
        }
    }
    let without = "receivers: {otlp: {protocols: {grpc: {}, http: {}}}}";
    assert!(loaded(load_over(without)).plan.listeners.iter().all(|door| door.tls.is_none()));
}
