//! `load_balancing`, the Collector's exporter that sends what belongs together to one endpoint: an
//! `otlp_grpc` destination with consistent hashing, in other words.

use forebay_exporters::balance::Strategy;
use forebay_exporters::destination::{Backends, Kind};
use forebay_exporters::discovery::Discovery;

use super::discovery::{NO_CLOUD_MAP, NO_K8S};
use super::endpoints::{self, Found};
use super::otlp::fleet;
use super::tls::Ways;
use super::{Made, balancing, discovery, otlp};
use crate::config::keys::{Table, block, ignored, refused, value};
use crate::config::problem::Problem;
use crate::config::section::Section;

pub(crate) const LOAD_BALANCING: Table = Table {
    path: "exporters.load_balancing[/name]",
    keys: &[
        block("resolver", "Required. Who the endpoints are: `static` or `dns`."),
        block("protocol", "Required. How they are reached."),
        value(
            "routing_key",
            "traceID, service, metric, resource or attributes",
            "",
            "What goes to one endpoint together. None, and for signals that have no such key: the \
             trace for traces and logs, the service for metrics.",
        ),
        value(
            "routing_attributes",
            "list of one name",
            "[]",
            "The attribute that `resource` and `attributes` go by.",
        ),
        value("timeout", "duration", "", "For one attempt. None: `protocol.otlp`'s."),
        block("retry_on_failure", "As for `otlp_grpc`. None: `protocol.otlp`'s."),
        block("sending_queue", "As for `otlp_grpc`. None: `protocol.otlp`'s."),
    ],
};

pub(crate) const RESOLVER: Table = Table {
    path: "exporters.load_balancing[/name].resolver",
    keys: &[
        block("static", "A list."),
        block("dns", "All addresses of a name."),
        refused("k8s", NO_K8S),
        refused("aws_cloud_map", NO_CLOUD_MAP),
    ],
};

pub(crate) const STATIC: Table = Table {
    path: "exporters.load_balancing[/name].resolver.static",
    keys: &[value("hostnames", "list of host[:port]", "", "Required. Without a port: 4317.")],
};

pub(crate) const DNS: Table = Table {
    path: "exporters.load_balancing[/name].resolver.dns",
    keys: &[
        value("hostname", "host", "", "Required. Requests name it as their host, too."),
        value("port", "port", "4317", "Of each address."),
        value("interval", "duration", "5s", "Asked anew after this long, or sooner by its TTL."),
        ignored("timeout", "a question is repeated after 2s and given up after 15s"),
    ],
};

pub(crate) const PROTOCOL: Table = Table {
    path: "exporters.load_balancing[/name].protocol",
    keys: &[block(
        "otlp",
        "Required. The keys of `otlp_grpc`, less those that say who the endpoints are and how the \
         load is spread.",
    )],
};

/// OTLP's gRPC port, for hosts that name none.
const PORT_DEFAULT: u16 = 4317;

pub(crate) fn read(section: &Section<'_>) -> Option<Made> {
    let resolver = section.block("resolver", &RESOLVER);
    let protocol = section.block("protocol", &PROTOCOL);
    let found = found(section, &resolver);
    if protocol.entry("otlp").is_none() {
        let problem = Problem::error(&protocol.place, format!("{}.otlp is missing", protocol.path))
            .why("it says how the endpoints are reached")
            .hint("write protocol: {otlp: {}} for TLS, {otlp: {tls: {insecure: true}}} without");
        section.report.add(problem);
    }
    let otlp = protocol.block("otlp", &otlp::GRPC);
    for key in ["endpoints", "discovery", "balancing", "balancer_name"] {
        if otlp.given(key).is_some() {
            let what = format!("{} has no place here", otlp.key_path(key));
            let hint = format!("{} says who the endpoints are: remove it", resolver.path);
            section.report.add(Problem::error(otlp.place_of(key), what).hint(hint));
        }
    }
    if otlp.given("endpoint").is_some() {
        let what = format!("{} has no effect", otlp.key_path("endpoint"));
        let why = format!("{} says who the endpoints are", resolver.path);
        section.report.add(Problem::warning(otlp.place_of("endpoint"), what).why(why));
    }
    let ways = Ways::of(&otlp);
    if protocol.entry("otlp").is_some() {
        ways.note(None);
    }
    let name = ways.authority().or_else(|| found.as_ref()?.name.clone());
    let mut settings = otlp::grpc_settings(&otlp, name);
    if let Some(timeout) = section.read("timeout", otlp::attempt) {
        settings.timeout = timeout;
    }
    let routing_key = Some(balancing::routing_key(section));
    let backends = found.map(|found| fleet::guarded(&otlp, found, settings.timeout, true));
    let backends = backends.map(|backends| Backends {
        strategy: Strategy::ConsistentHashing,
        routing_key,
        ..backends
    });
    let [queue, retry] = ["sending_queue", "retry_on_failure"]
        .map(|key| if section.given(key).is_some() { section } else { &otlp });
    for key in ["sending_queue", "retry_on_failure"] {
        if section.given(key).is_some() && otlp.given(key).is_some() {
            let what = format!("{} has no effect", otlp.key_path(key));
            let why = format!("{} is what counts", section.key_path(key));
            section.report.add(Problem::warning(otlp.place_of(key), what).why(why));
        }
    }
    let tls = ways.settled("h2", settings.authority.as_deref());
    let kind = Kind::OtlpGrpc(settings);
    let made = otlp::remote(&otlp, queue, retry, kind, backends, Vec::new());
    Some(Made { tls, ..made? })
}

fn found(section: &Section<'_>, resolver: &Section<'_>) -> Option<Found> {
    match endpoints::the_one(resolver, &["static", "dns"]) {
        Some("static") => fixed(&resolver.block("static", &STATIC)),
        Some(_) => {
            let dns = resolver.block("dns", &DNS);
            let interval = discovery::interval(&dns);
            let found = Found::by(Discovery::Dns(discovery::host(&dns, PORT_DEFAULT)?));
            Some(Found { pace: discovery::paced(found.pace, interval), ..found })
        }
        None => {
            let is_other = ["k8s", "aws_cloud_map", "static", "dns"]
                .iter()
                .any(|kind| resolver.given(kind).is_some());
            if !is_other {
                section
                    .fault("resolver", "is missing: name static or dns, who knows the endpoints");
            }
            None
        }
    }
}

fn fixed(section: &Section<'_>) -> Option<Found> {
    if section.given("hostnames").is_none() {
        section.fault("hostnames", "is missing: name at least one");
    }
    let with_port = |text: &str| {
        let endpoint = forebay_exporters::discovery::Endpoint::parse(text, Some(PORT_DEFAULT));
        endpoint.map(|e| e.address().to_owned()).map_err(|fault| format!("is wrong: {fault}"))
    };
    let list = endpoints::list(section, "hostnames", &with_port)?;
    Some(Found::by(Discovery::Static(list)))
}
