//! `tls` of an exporter over the network: whether there is TLS, whom it trusts, and what it shows.
//!
//! An endpoint's scheme says whether it is reached through TLS; where it has none `insecure` does.
//! All endpoints of an exporter are reached alike. Files are read here once, so that a
//! configuration that can reach nobody is refused at the start. No problem shows a key.

use std::cell::Cell;
use std::net::Ipv6Addr;

use http::uri::Authority;

use crate::config::keys::{Key, Role, Table, only, refused, value};
use crate::config::plan::TlsOut;
use crate::config::problem::{Place, Problem};
use crate::config::receivers::tls::{own_pem, pair, reload_interval, versions};
use crate::config::section::Section;
use crate::config::values;
use crate::tls;

const OWN_CHOICE: &str = "forebay offers what rustls holds to be safe: remove it";

const KEYS: &[Key] = &[
    value(
        "insecure",
        "true or false",
        "false",
        "true: cleartext, where endpoints have no scheme and no CA is given. `http://` is \
         cleartext and `https://` is TLS whatever this says. (Collector: gRPC to `http://` is TLS \
         where this is false; forebay warns.)",
    ),
    value(
        "insecure_skip_verify",
        "true or false",
        "false",
        "true: whoever answers is taken for the destination, whatever CAs are given; warned of at \
         each start.",
    ),
    value(
        "server_name_override",
        "host",
        "",
        "What the destination's certificate must be for, and gRPC's `:authority` where `authority` \
         is not set. None: what requests name as their host \
         where that is one name for all endpoints, else each endpoint's host.",
    ),
    value(
        "ca_file",
        "path",
        "",
        "PEM: the CAs to trust. Absent: the system's. Empty is a mistake.",
    ),
    value("ca_pem", "PEM", "", "Instead of `ca_file`: the text itself."),
    value("include_system_ca_certs_pool", "true or false", "false", "The system's CAs as well."),
    value("cert_file", "path", "", "PEM: this client's certificate, then its chain (mutual TLS)."),
    value("cert_pem", "PEM", "", "Instead of `cert_file`: the text itself."),
    value("key_file", "path", "", "PEM: the certificate's key."),
    value("key_pem", "PEM", "", "Instead of `key_file`: the text itself, best as `${env:NAME}`."),
    value("min_version", "1.2 or 1.3", "1.2", "The oldest TLS."),
    value("max_version", "1.2 or 1.3", "1.3", "The newest TLS."),
    value(
        "reload_interval",
        "duration",
        "1m",
        "How often the files are looked at; also at SIGHUP. New connections get what is new, \
         others go on. 0: at SIGHUP alone. (Collector: never)",
    ),
    only("include_insecure_cipher_suites", "false", "forebay has no insecure cipher suite"),
    refused("cipher_suites", OWN_CHOICE),
    refused("curve_preferences", OWN_CHOICE),
    refused("tpm", "keep the key in a file"),
];

pub(crate) const TLS: Table =
    Table { path: "exporters.<otlp_grpc|otlp_http>[/name].tls", keys: KEYS };

/// Keys that nobody sets who wants cleartext.
const WANT_TLS: [&str; 6] = ["ca_file", "ca_pem", "cert_file", "cert_pem", "key_file", "key_pem"];

/// Keys that say who is trusted, and that there is TLS.
const CAS: [&str; 2] = ["ca_file", "ca_pem"];

/// Keys of the exporter that name endpoints with their schemes.
const FLEET: [&str; 2] = ["endpoint", "endpoints"];

/// How one endpoint is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Cleartext,
    Tls,
}

/// The `tls` block, and how the endpoints are reached that were read so far.
pub(crate) struct Ways<'a> {
    section: Section<'a>,
    /// The exporter's own.
    place: Place,
    is_insecure: bool,
    /// Without a scheme.
    otherwise: Way,
    cleartext: Cell<bool>,
    tls: Cell<bool>,
}

impl<'a> Ways<'a> {
    pub(crate) fn of(exporter: &Section<'a>) -> Ways<'a> {
        let place = FLEET.iter().find(|key| exporter.entry(key).is_some());
        let place = place.map_or(&exporter.place, |key| exporter.place_of(key)).clone();
        Ways::from(exporter, place)
    }

    /// To a registry: without a scheme it is reached as it always was, in cleartext, unless the
    /// block stands there, with or without anything in it.
    pub(crate) fn to_registry(registry: &Section<'a>) -> Ways<'a> {
        let ways = Ways::from(registry, registry.place.clone());
        match registry.entry("tls") {
            Some(_) => ways,
            None => Ways { otherwise: Way::Cleartext, ..ways },
        }
    }

    fn from(exporter: &Section<'a>, place: Place) -> Ways<'a> {
        let section = exporter.block("tls", &TLS);
        let is_insecure = section.flag("insecure");
        // A variable that lost its value must widen nobody's trust, nor turn TLS off.
        let has_ca = CAS.iter().any(|key| section.entry(key).is_some());
        for key in CAS.iter().filter(|key| section.is_empty(key)) {
            section.fault(key, "is empty: set it, or remove the key to trust the system's CAs");
        }
        if is_insecure && has_ca {
            let what = format!("{} has no effect", section.key_path("insecure"));
            let why = "a CA is given, and so there is TLS, as in the Collector";
            section.report.add(Problem::warning(section.place_of("insecure"), what).why(why));
        }
        let otherwise = if is_insecure && !has_ca { Way::Cleartext } else { Way::Tls };
        let (cleartext, tls) = (Cell::new(false), Cell::new(false));
        Ways { section, place, is_insecure, otherwise, cleartext, tls }
    }

    /// What `server_name_override` makes of `:authority`, as gRPC has it: nothing in cleartext.
    pub(crate) fn authority(&self) -> Option<String> {
        let name = self.section.read("server_name_override", values::text)?;
        let bracketed = match name.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => name,
        };
        let is_host = bracketed.parse::<Authority>().is_ok_and(|host| host.as_str() == host.host());
        (self.tls.get() && is_host).then_some(bracketed)
    }

    /// Of one endpoint, or of all that are found; `None`: it has no scheme.
    pub(crate) fn note(&self, way: Option<Way>) {
        match way.unwrap_or(self.otherwise) {
            Way::Cleartext => self.cleartext.set(true),
            Way::Tls => self.tls.set(true),
        }
    }

    /// What all of them come to; `None`: cleartext. `protocol`: what is spoken, by its ALPN name.
    /// `name`: what requests call every endpoint, with or without a port.
    pub(crate) fn settled(self, protocol: &'static str, name: Option<&str>) -> Option<TlsOut> {
        match (self.cleartext.get(), self.tls.get()) {
            (true, true) => {
                let path = self.section.path.trim_end_matches(".tls");
                let what = format!("{path} has endpoints with TLS and others in cleartext");
                let problem = Problem::error(&self.section.place, what)
                    .why("its certificates and keys are for all of them")
                    .hint("write the same scheme for all, or make two exporters of it");
                self.section.report.add(problem);
                None
            }
            (true, false) => {
                self.warn_of_scheme(protocol);
                self.refuse_what_cleartext_lacks();
                None
            }
            (false, true) => self.secured(protocol, name),
            // What is wrong with the endpoints is reported already.
            (false, false) => None,
        }
    }

    /// Whoever comes from a Collector had TLS there.
    fn warn_of_scheme(&self, protocol: &str) {
        if protocol != "h2" || self.is_insecure {
            return;
        }
        let path = self.section.path.trim_end_matches(".tls");
        let what = format!("{path} sends in cleartext, for its endpoint begins with http://");
        let problem = Problem::warning(&self.place, what)
            .why("a Collector speaks TLS to it unless tls.insecure is true")
            .hint("write https:// for TLS, or add tls.insecure: true if cleartext is meant");
        self.section.report.add(problem);
    }

    /// A key that is set and does nothing may be taken for protection.
    fn refuse_what_cleartext_lacks(&self) {
        for key in KEYS.iter().filter(|key| key.name != "insecure" && key.role != Role::Only) {
            let section = &self.section;
            if section.given(key.name).is_none() {
                continue;
            }
            let what = format!("{} has no effect", section.key_path(key.name));
            let why = "the destination is reached in cleartext";
            section.report.add(match WANT_TLS.contains(&key.name) {
                true => Problem::error(section.place_of(key.name), what)
                    .why(why)
                    .hint("write https:// before the endpoint, or remove the key"),
                false => Problem::warning(section.place_of(key.name), what).why(why),
            });
        }
    }

    fn secured(self, protocol: &'static str, name: Option<&str>) -> Option<TlsOut> {
        let section = &self.section;
        let ca = own_pem(section, "ca_file", "ca_pem", false);
        let has_own = WANT_TLS[2..].iter().any(|key| section.given(key).is_some());
        let own = if has_own { Some(pair(section)?) } else { None };
        let verifies = !section.flag("insecure_skip_verify");
        let with_system = section.flag("include_system_ca_certs_pool");
        if !verifies {
            warn_of_needless_cas(section);
        }
        let given = section.read("server_name_override", values::text);
        let (version_min, version_max) = versions(section);
        let tls = TlsOut {
            trusts_system: verifies && (ca.is_none() || with_system),
            ca,
            own,
            verifies,
            server_name: given.filter(|name| !name.is_empty()).or_else(|| host_of(name?)),
            version_min,
            version_max,
            reload_interval: reload_interval(section),
            protocol,
        };
        // Whom the others are tried with is not known while these are empty.
        let is_known = !CAS.iter().any(|key| section.is_empty(key));
        if let Err(why) = if is_known { tls::load_out(&tls).map(drop) } else { Ok(()) } {
            let what = format!("{} can't be used: {why}", section.path);
            section.report.add(
                Problem::error(&section.place, what)
                    .why("without it nothing could be sent")
                    .hint("for cleartext write http:// before the endpoint, or tls.insecure: true"),
            );
        }
        Some(tls)
    }
}

/// Who names CAs may think that they are asked.
fn warn_of_needless_cas(section: &Section<'_>) {
    let keys = CAS.iter().chain(&["include_system_ca_certs_pool"]);
    for key in keys.filter(|key| section.given(key).is_some() && !section.is_empty(key)) {
        let what = format!("{} has no effect", section.key_path(key));
        let problem = Problem::warning(section.place_of(key), what)
            .why("insecure_skip_verify is true, and so any certificate is taken")
            .hint("remove insecure_skip_verify to have the destination prove who it is");
        section.report.add(problem);
    }
}

fn host_of(name: &str) -> Option<String> {
    Some(name.parse::<Authority>().ok()?.host().to_owned())
}
