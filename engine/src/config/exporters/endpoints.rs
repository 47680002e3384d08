//! `endpoint`, `endpoints` and `discovery`: who a network destination's endpoints are.
//!
//! Always: exactly one way to find them counts, and a second one is a mistake that is reported.
//! No text of an endpoint is repeated where it may hold a password.

use forebay_exporters::discovery::dns::Dns;
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::discovery::keeper::Pace;
use forebay_exporters::discovery::{Discovery, Endpoint, endpoint};
use http::uri::Authority;

use super::discovery;
use crate::config::keys::{Table, value};
use crate::config::plan::TlsOut;
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::tree::{Node, Value};
use crate::config::values;

pub(crate) const ENDPOINT: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].endpoints[]",
    keys: &[
        value("endpoint", "as the one `endpoint`", "", "Required."),
        value(
            "weight",
            "share",
            "1",
            "Relative to the others', up to 1,000,000. 0: only if no other can be used.",
        ),
    ],
};

/// Where a destination's endpoints come from.
pub(crate) struct Found {
    pub(crate) discovery: Discovery,
    pub(crate) pace: Pace,
    /// What requests call the peer, where what is found are addresses of one name.
    pub(crate) name: Option<String>,
    /// How the source itself is reached; `None`: in cleartext, or it is no server.
    pub(crate) source_tls: Option<TlsOut>,
}

/// One text that says where to send.
pub(crate) enum Target {
    /// `host:port`.
    At(String),
    Named(Dns),
}

impl Found {
    pub(crate) fn by(discovery: Discovery) -> Found {
        let name = match &discovery {
            Discovery::Dns(dns) => Some(name_of(dns)),
            _ => None,
        };
        Found { pace: discovery.pace(), discovery, name, source_tls: None }
    }

    pub(crate) fn at(address: &str) -> Option<Found> {
        let list = Static::of([address], None).ok()?;
        Some(Found::by(Discovery::Static(list)))
    }

    /// Whether the source may say that one endpoint shall have more than another.
    pub(crate) fn may_weigh(&self) -> bool {
        match &self.discovery {
            Discovery::Static(list) => list.endpoints.iter().any(|endpoint| endpoint.weight != 1),
            Discovery::Dns(_) => false,
            _ => true,
        }
    }
}

/// The one of `keys` that is given. More than one are reported, and `None` is given then, too.
pub(crate) fn the_one<'k>(section: &Section<'_>, keys: &[&'k str]) -> Option<&'k str> {
    let given: Vec<&str> =
        keys.iter().copied().filter(|key| section.given(key).is_some()).collect();
    if let [first, second, ..] = given[..] {
        let fault = format!(
            "stands beside {first}, and only one of them can say who the endpoints are: remove one"
        );
        section.fault(second, &fault);
        return None;
    }
    given.first().copied()
}

/// `endpoints`: a list of texts, or of maps with weights. `parse` reads a text to `host:port`.
pub(crate) fn list(
    section: &Section<'_>,
    name: &str,
    parse: &dyn Fn(&str) -> Result<String, String>,
) -> Option<Static> {
    let items: &[Node] = match &section.given(name)?.value {
        Value::List(items) => items,
        _ => {
            section.fault(name, "must be a list, such as [a:4317, b:4317]");
            return None;
        }
    };
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{}[{index}]", section.key_path(name));
        let made = match &item.value {
            Value::Scalar { text, .. } => made(text, 1, parse).map_err(|fault| {
                let what = format!("{path} {fault}");
                section.report.add(Problem::error(&item.place, what));
            }),
            _ => weighed(&Section::open(item, &item.place, path, &ENDPOINT, section.report), parse),
        };
        let Ok(endpoint) = made else {
            continue;
        };
        if endpoints.iter().any(|other| other.address() == endpoint.address()) {
            let what = format!("{} names {endpoint} twice", section.key_path(name));
            section.report.add(Problem::error(&item.place, what).hint("remove one"));
        }
        endpoints.push(endpoint);
    }
    if items.is_empty() {
        section.fault(name, "is empty: name at least one");
    } else if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        section.fault(name, "have weight 0 all: one at least must have more");
    }
    (!endpoints.is_empty()).then_some(Static { endpoints })
}

/// `discovery`, whose addresses have no scheme.
pub(crate) fn discovered(section: &Section<'_>, port_default: u16) -> Option<Found> {
    discovery::read(&section.block("discovery", &discovery::DISCOVERY), port_default)
}

/// `host:port` from a text; no texts in messages where they may hold a password.
pub(crate) fn authority(text: &str) -> Option<Authority> {
    text.parse::<Authority>()
        .ok()
        .filter(|authority| !authority.as_str().contains('@'))
        .filter(|authority| Endpoint::parse(authority.as_str(), Some(1)).is_ok())
}

fn weighed(
    section: &Section<'_>,
    parse: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Endpoint, ()> {
    let weight = section.count("weight", 0..=endpoint::WEIGHT_MAX.into());
    let weight = u32::try_from(weight).expect("the range is that of a weight");
    if section.given("endpoint").is_none() {
        section.fault("endpoint", "is missing: where shall the telemetry go?");
    }
    let read = section.read("endpoint", |text| made(text, weight, parse));
    read.ok_or(())
}

fn made(
    text: &str,
    weight: u32,
    parse: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Endpoint, String> {
    if text.contains('@') {
        return Err("must be host:port; credentials belong into headers.authorization".to_owned());
    }
    let address = parse(text)?;
    let endpoint = Endpoint::parse(&address, None).map_err(|fault| format!("is wrong: {fault}"))?;
    Ok(endpoint.weighing(weight))
}

/// As an `:authority` names it: without the dot that says that a name is complete.
fn name_of(dns: &Dns) -> String {
    let host = dns.host.trim_end_matches('.');
    match host.contains(':') {
        true => format!("[{host}]:{}", dns.port),
        false => format!("{host}:{}", dns.port),
    }
}

/// Whether a text is a name with possibly many addresses, and no address itself.
pub(crate) fn is_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_err() && bare != "localhost"
}

/// A port for `values`' readers.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match values::count(text).ok().and_then(|port| u16::try_from(port).ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err(format!("must be a port from 1 to 65535; this is \"{text}\"")),
    }
}
