//! `docs/metrics.md` lists what the metrics page has: its table is written from a page.
//!
//! With `FOREBAY_WRITE_DOCS=1` the table is written anew.

use std::fs;
use std::time::Instant;

use forebay_exporters::discovery::Watcher;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    generate_simple_self_signed,
};

use super::*;
use crate::control::tests::{FLEETS, METRICS_PAGE, view};
use crate::ledger::Transport;

const HEADING: &str = "## Every metric\n";

/// [`FLEETS`] with TLS, HTTP/3 and a routing.
fn everything() -> String {
    let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let file = |name: &str, text: String| {
        let path = std::env::temp_dir().join(format!("forebay-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    };
    let cert = file("metrics-cert.pem", made.cert.pem());
    let key = file("metrics-key.pem", made.signing_key.serialize_pem());
    let (authority, list) = mutual();
    let (ca, crl) = (file("metrics-ca.pem", authority), file("metrics-crl.pem", list));
    let clients = format!("client_ca_file: '{ca}', client_crl_file: '{crl}'");
    let tls = format!("{{cert_file: '{cert}', key_file: '{key}', {clients}}}");
    let http = format!("http: {{endpoint: '127.0.0.1:0', tls: {tls}}}");
    let http3 = format!("http3: {{endpoint: '127.0.0.1:0', tls: {tls}}}");
    let grpc = "grpc: {endpoint: '127.0.0.1:0'}";
    let logs = "logs: {receivers: [otlp], processors: [filter], exporters: [otlp_grpc]}";
    let routed = "logs: {receivers: [otlp], processors: [filter], exporters: [routing]}
    logs/others: {receivers: [routing], exporters: [otlp_grpc]}
connectors: {routing: {default_pipelines: [logs/others], table: [{context: resource, \
        condition: 'attributes[\"k\"] == \"v\"', pipelines: [logs/others]}]}}";
    assert!(FLEETS.contains(grpc) && FLEETS.contains(logs));
    let cleartext = "/nowhere}}, tls: {insecure: true}";
    assert!(FLEETS.contains(cleartext));
    let own = format!("cert_file: '{cert}', key_file: '{key}'");
    let secured = format!("/nowhere}}}}, tls: {{insecure_skip_verify: true, {own}}}");
    FLEETS
        .replace(grpc, &format!("{grpc}, {http}, {http3}"))
        .replace(logs, routed)
        .replace(cleartext, &secured)
}

/// A CA's certificate and its list of revoked ones, which is empty.
fn mutual() -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("keys can be made");
    let authority = CertifiedIssuer::self_signed(params, key).expect("it can be signed");
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2099, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&authority).expect("it can be signed");
    (authority.pem(), list.pem().expect("PEM"))
}

/// A row for each family of a page on which each has a sample.
fn rows() -> String {
    let view = view(&everything());
    for signal in Signal::ALL {
        let door = view.ledger.shards[0].door(0, Transport::Grpc, signal);
        door.received_items.add(1);
        door.requests[0].add(1);
        door.refused_requests[0].add(1);
    }
    let discovery = view.plan.destinations[1].backends.discovery.clone();
    view.discovered[1].note(Instant::now(), Watcher::new(discovery).status());
    let found = forebay_exporters::discovery::fixed::Static::of(["d:1"], None);
    view.clusters[1].apply(Instant::now(), &found.expect("an address").endpoints);
    let page = render(&view);
    let mut rows = String::from("| name | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for family in page.split("# HELP ").skip(1) {
        let (head, samples) = family.split_once('\n').expect("a line of help");
        let (name, help) = head.split_once(' ').expect("a name and a text");
        let (kind, samples) = samples.split_once('\n').expect("a line with the kind");
        let kind = kind.rsplit(' ').next().expect("a word");
        let sample = samples.lines().next();
        let sample = sample.unwrap_or_else(|| panic!("{name} has no sample, so no labels"));
        let labels: Vec<String> = labels(sample).map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        rows.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    rows
}

/// The names of a sample's labels; their values hold no quotes here.
fn labels(sample: &str) -> impl Iterator<Item = &str> {
    let within = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
    let within = within.map_or("", |(within, _)| within);
    within.split("\",").filter_map(|label| Some(label.split_once('=')?.0))
}

#[test]
fn the_page_of_metrics_lists_every_family_with_its_labels_and_no_other() {
    let read = || fs::read_to_string(METRICS_PAGE).expect("the page is part of the repository");
    let page = read();
    let (prose, _) = page.split_once(HEADING).expect("the heading is there");
    let wanted = format!("{prose}{HEADING}\n{}", rows());
    if std::env::var_os("FOREBAY_WRITE_DOCS").is_some() {
        fs::write(METRICS_PAGE, &wanted).expect("the page can be written");
    }
    assert!(read() == wanted, "docs/metrics.md is not as the page has it: write it anew");
    assert!(wanted.contains("| `forebay_endpoint_state` | gauge | `exporter`, `address` |"));
}
