//! `tls` of a receiver's protocol: what the server shows, and whom it lets in.
//!
//! Files are read here once, so that a configuration that can't serve is refused before anything
//! listens. No problem shows a key.

use std::path::PathBuf;
use std::time::Duration;

use forebay_net::tls::settings::Version;

use crate::config::keys::{Key, Table, block, ignored, only, refused, value};
use crate::config::plan::{Pem, PemPair, Tls};
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tree::{Node, Value};
use crate::config::values;
use crate::tls;

const NO_ROOTS: &str = "a server verifies its clients by `client_ca_file`";

const KEYS: &[Key] = &[
    value("cert_file", "path", "", "PEM: the server's certificate, then its chain."),
    value("cert_pem", "PEM", "", "Instead of `cert_file`: the text itself."),
    value("key_file", "path", "", "PEM: the certificate's key."),
    value(
        "key_pem",
        "PEM",
        "",
        "Instead of `key_file`: the text itself, best as \
                `${env:NAME}`.",
    ),
    block(
        "certificates",
        "Further certificates, a list: a client gets the one for the \
                name that it asks for (SNI), by the certificate's DNS names, else the one above.",
    ),
    value(
        "client_ca_file",
        "path",
        "",
        "PEM. Set: clients need a certificate of one of \
                these CAs (mutual TLS), at each connection: no session is resumed. Empty is a \
                mistake.",
    ),
    value(
        "client_crl_file",
        "path",
        "",
        "PEM: revocation lists of those CAs, one of \
                each: a client whose CA has none is refused. Empty is a mistake.",
    ),
    value("min_version", "1.2 or 1.3", "1.2", "The oldest TLS."),
    value("max_version", "1.2 or 1.3", "1.3", "The newest TLS."),
    value(
        "cipher_suites",
        "list of names",
        "[]",
        "IANA's names, as Go has them. None: \
                all that forebay has. Those of TLS 1.3 are limited only if one is named.",
    ),
    value(
        "curve_preferences",
        "list of names",
        "[]",
        "X25519, P256, P384, \
                X25519MLKEM768, SecP256r1MLKEM768. None: all but the last.",
    ),
    value(
        "reload_interval",
        "duration",
        "1m",
        "How often the files are looked at; also \
                at SIGHUP. New connections get what is new, others go on. 0: at SIGHUP alone. \
                (Collector: never)",
    ),
    only("include_insecure_cipher_suites", "false", "forebay has no insecure cipher suite"),
    ignored("client_ca_file_reload", "CAs are reloaded with all other files"),
    ignored("ca_file", NO_ROOTS),
    ignored("ca_pem", NO_ROOTS),
    ignored("include_system_ca_certs_pool", NO_ROOTS),
    refused("tpm", "keep the key in a file, or end TLS in front of forebay"),
];

pub(crate) const GRPC_TLS: Table =
    Table { path: "receivers.otlp[/name].protocols.grpc.tls", keys: KEYS };

pub(crate) const HTTP_TLS: Table =
    Table { path: "receivers.otlp[/name].protocols.http.tls", keys: KEYS };

pub(crate) const HTTP3_TLS: Table =
    Table { path: "receivers.otlp[/name].protocols.http3.tls", keys: KEYS };

pub(crate) const CERTIFICATE: Table = Table {
    path: "receivers.otlp[/name].protocols.<grpc|http|http3>.tls.certificates[]",
    keys: &[
        value("cert_file", "path", "", "As above."),
        value("cert_pem", "PEM", "", "As above."),
        value("key_file", "path", "", "As above."),
        value("key_pem", "PEM", "", "As above."),
    ],
};

const VERSIONS: &[(&str, Version)] = &[
    ("1.2", Version::Tls12),
    ("1.3", Version::Tls13),
    // What the Collector takes for "not set".
    ("", Version::Tls12),
];

/// `None`: the protocol is spoken in cleartext. `is_quic`: it is HTTP/3.
pub(super) fn read(protocol: &Section<'_>, table: &'static Table, is_quic: bool) -> Option<Tls> {
    if protocol.is_empty("tls") && !is_quic {
        // A variable that lost its value must not turn TLS off.
        protocol.fault("tls", "is empty: fill it, or remove the key to take cleartext");
        return None;
    }
    protocol.given("tls")?;
    let section = protocol.block("tls", table);
    let own = pair(&section)?;
    let path = |name| file_name(&section, name).map(PathBuf::from);
    let (version_min, version_max) = versions(&section);
    let tls = Tls {
        certificates: [vec![own], further(&section)].concat(),
        client_ca_file: path("client_ca_file"),
        client_crl_file: path("client_crl_file"),
        version_min,
        version_max,
        cipher_suites: names(&section, "cipher_suites"),
        curves: names(&section, "curve_preferences"),
        reload_interval: reload_interval(&section),
    };
    match tls::load(&tls, is_quic) {
        Ok(terms) => terms.never_shown.iter().for_each(|name| warn_of_nameless(&section, name)),
        Err(why) => {
            let hint = "check the files: PEM, readable for forebay, the key the certificate's own";
            let what = format!("{} can't be used: {why}", section.path);
            let problem = Problem::error(&section.place, what);
            section.report.add(problem.why("without it no client could connect").hint(hint));
        }
    }
    Some(tls)
}

/// The oldest and the newest.
pub(crate) fn versions(section: &Section<'_>) -> (Version, Version) {
    let min = section.value("min_version", version);
    let max = section.value("max_version", |text| match text {
        "" => Ok(Version::Tls13),
        text => version(text),
    });
    (min, max)
}

pub(crate) fn reload_interval(section: &Section<'_>) -> Duration {
    let interval = section.duration("reload_interval");
    if !interval.is_zero() && interval < Duration::from_secs(1) {
        section.fault("reload_interval", "must be 0 or at least 1s");
    }
    interval
}

fn warn_of_nameless(section: &Section<'_>, name: &str) {
    let what = format!("{}: no client ever gets {name}", section.key_path("certificates"));
    section.report.add(
        Problem::warning(section.place_of("certificates"), what)
            .why("clients choose by DNS names (SNI), and it has none")
            .hint("issue it with a DNS name (subjectAltName), or remove it"),
    );
}

/// Empty is no way to say that clients need no certificate: a variable may have lost its value.
fn file_name(section: &Section<'_>, name: &str) -> Option<String> {
    if section.is_empty(name) {
        section.fault(name, "is empty: name the file, or remove the key");
        return None;
    }
    section.read(name, |text| match values::is_content(text) {
        true => {
            Err("holds a file's content, not its path: write it to a file and name that".into())
        }
        false => Ok(text.to_owned()),
    })
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "1.0" | "1.1" => Err(format!("must be 1.2 or 1.3: {text} is not safe any more")),
        text => values::choice(VERSIONS)(text),
    }
}

fn names(section: &Section<'_>, name: &str) -> Vec<String> {
    match section.given(name) {
        Some(_) => section.texts(name).into_iter().map(|(text, _)| text.to_owned()).collect(),
        None => Vec::new(),
    }
}

fn further(section: &Section<'_>) -> Vec<PemPair> {
    let list: &[Node] = match section.given("certificates").map(|node| &node.value) {
        Some(Value::List(list)) => list,
        Some(_) => {
            section.fault("certificates", "must be a list of certificates");
            &[]
        }
        None => &[],
    };
    let one = |(index, node): (usize, &Node)| {
        let path = format!("{}[{index}]", section.key_path("certificates"));
        pair(&Section::open(node, &node.place, path, &CERTIFICATE, section.report))
    };
    list.iter().enumerate().filter_map(one).collect()
}

/// A certificate and its key, each from a file or written out.
pub(crate) fn pair(section: &Section<'_>) -> Option<PemPair> {
    let chain = own_pem(section, "cert_file", "cert_pem", true);
    let key = own_pem(section, "key_file", "key_pem", true);
    Some(PemPair { chain: chain?, key: key? })
}

/// A text from a file, or written out. To do both is a mistake, and to do neither if it is needed.
pub(crate) fn own_pem(
    section: &Section<'_>,
    file: &str,
    pem: &str,
    is_needed: bool,
) -> Option<Pem> {
    let text = |name| section.read(name, values::text).filter(|text| !text.is_empty());
    match (text(file), text(pem)) {
        (Some(path), None) if values::is_content(&path) => {
            let fault = match path.contains([' ', '\n', '\r']) {
                true => format!("holds PEM text, not a path: use {pem}"),
                false => format!("holds base64, not a path: decode it to PEM and use {pem}"),
            };
            section.fault(file, &fault);
        }
        (Some(path), None) => return Some(Pem::File(path.into())),
        (None, Some(text)) => return Some(Pem::Text(text)),
        (Some(_), Some(_)) => {
            section.fault(pem, &format!("is given as well as {file}: remove one"))
        }
        (None, None) if is_needed => {
            section.fault(file, &format!("is missing: set it, or {pem}"));
        }
        (None, None) => {}
    }
    None
}
