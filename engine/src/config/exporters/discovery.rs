//! `discovery` of a network destination: the source that knows its endpoints.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forebay_exporters::discovery::consul::{self, Consul};
use forebay_exporters::discovery::dns::{Dns, DnsSrv, Families};
use forebay_exporters::discovery::etcd::{self, Etcd, User};
use forebay_exporters::discovery::file::{File, Format};
use forebay_exporters::discovery::keeper::Pace;
use forebay_exporters::discovery::secret::Secret;
use forebay_exporters::discovery::{Discovery, Endpoint};

use super::endpoints::{self, Found};
use super::tls::{Way, Ways};
use crate::config::keys::{Table, block, ignored, refused, value};
use crate::config::plan::TlsOut;
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::values;

/// What is spoken with registries, by its ALPN name.
const REGISTRY_PROTOCOL: &str = "http/1.1";

pub(crate) const NO_K8S: &str = "set dns with the name of a headless service: it has an address for \
     each ready pod, and forebay follows them";
pub(crate) const NO_CLOUD_MAP: &str = "set dns with the name that Cloud Map keeps in Route 53; it \
     has an address for each healthy instance";

/// Of a registry's `tls`.
pub(crate) const SECURED: &str = "Whom to trust, and what to show, where the scheme is `https`, or \
     there is none: an exporter's `tls` block with all of its keys.";

pub(crate) const DISCOVERY: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery",
    keys: &[
        value(
            "interval",
            "duration",
            "",
            "Asked at the latest after this long, though nothing changed. None: 30s for a file, \
             5m for names (sooner if their TTL says so), 1m for Consul and etcd.",
        ),
        block("static", "A list: the same as `endpoints`."),
        block("file", "A list in a file, read again when it changes."),
        block("dns", "All addresses of a name, asked again as their TTL says."),
        block("dns_srv", "All targets of a service, with their weights and priorities."),
        block("consul", "The healthy instances of a service."),
        block("etcd", "The keys below a prefix."),
        refused("k8s", NO_K8S),
        refused("aws_cloud_map", NO_CLOUD_MAP),
    ],
};

pub(crate) const STATIC: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery.static",
    keys: &[value("endpoints", "list of host:port", "", "Required; each may have a weight.")],
};

pub(crate) const FILE: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery.file",
    keys: &[
        value(
            "path",
            "path",
            "",
            "Required. `host:port` and any `name=value` in a line (`weight=2`, `zone=a`), or \
             Prometheus' `file_sd` as JSON or YAML. Write a new file beside it and rename it.",
        ),
        value("format", "auto, plain, json or yaml", "auto", "`auto`: by the file's name."),
        value("port", "port", "", "For those that name none. None: they are left out."),
    ],
};

pub(crate) const DNS: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery.dns",
    keys: &[
        value("hostname", "host", "", "Required. Requests name it as their host, too."),
        value("port", "port", "", "Of each address. None: 4317, or 4318 for `otlp_http`."),
        value("server", "address", "", "Who is asked. None: as /etc/resolv.conf says."),
        value("families", "both, ipv4 or ipv6", "both", "Which addresses are wanted."),
        ignored("timeout", "a question is repeated after 2s and given up after 15s"),
    ],
};

pub(crate) const DNS_SRV: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery.dns_srv",
    keys: &[
        value("service", "name", "", "Required: `_otlp-grpc._tcp.collectors.svc.cluster.local`."),
        value("server", "address", "", "Who is asked. None: as /etc/resolv.conf says."),
        value("families", "both, ipv4 or ipv6", "both", "Which addresses are wanted."),
    ],
};

pub(crate) const CONSUL: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery.consul",
    keys: &[
        value(
            "agent",
            "host:port",
            "127.0.0.1:8500",
            "The local agent; `https://` for TLS, there with 8501 where no port is given.",
        ),
        value("service", "name", "", "Required."),
        value("tags", "list of texts", "[]", "An instance must have all of them."),
        value("datacenter", "name", "", "None: the agent's own."),
        value("token", "text", "", "Sent as `X-Consul-Token`; never shown or logged."),
        block("tls", SECURED),
        value("stale", "true or false", "true", "Any server may answer, and not the leader alone."),
    ],
};

pub(crate) const ETCD: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].discovery.etcd",
    keys: &[
        value(
            "endpoints",
            "list of host:port",
            "",
            "Required: members of the cluster, with `https://` for TLS. Where one fails, the next \
             is asked.",
        ),
        value("prefix", "text", "", "Required: `/services/collector/`, with its last slash."),
        value("port", "port", "", "For values that name none. None: they are left out."),
        value("username", "text", "", "None: nobody logs in."),
        value("password", "text", "", "Never shown or logged."),
        block("tls", SECURED),
    ],
};

/// `None`: what is wrong has been reported.
pub(crate) fn read(section: &Section<'_>, port_default: u16) -> Option<Found> {
    const KINDS: [&str; 6] = ["static", "file", "dns", "dns_srv", "consul", "etcd"];
    let interval = interval(section);
    let Some(kind) = endpoints::the_one(section, &KINDS) else {
        if KINDS.iter().all(|kind| section.given(kind).is_none()) {
            let what = format!("{} has no source", section.path);
            let hint = format!("name one of {}", KINDS.join(", "));
            section.report.add(Problem::error(&section.place, what).hint(hint));
        }
        return None;
    };
    let found = match kind {
        "static" => fixed(&section.block(kind, &STATIC)).map(Found::by),
        "file" => file(&section.block(kind, &FILE)).map(Found::by),
        "dns" => dns(&section.block(kind, &DNS), port_default).map(Found::by),
        "dns_srv" => dns_srv(&section.block(kind, &DNS_SRV)).map(Found::by),
        "consul" => consul(&section.block(kind, &CONSUL)),
        _ => etcd(&section.block(kind, &ETCD)),
    }?;
    Some(Found { pace: paced(found.pace, interval), ..found })
}

/// A pace that asks again after `interval` at the latest.
pub(crate) fn paced(pace: Pace, interval: Option<Duration>) -> Pace {
    match interval {
        None => pace,
        Some(interval) => {
            Pace { interval_min: pace.interval_min.min(interval), interval_max: interval, ..pace }
        }
    }
}

pub(crate) fn interval(section: &Section<'_>) -> Option<Duration> {
    const LEAST: Duration = Duration::from_millis(100);
    section.read("interval", |text| match values::duration(text)? {
        interval if interval >= LEAST => Ok(interval),
        _ => Err("must be 100ms at least".to_owned()),
    })
}

/// `hostname` and `port`, as the Collector's `resolver.dns` has them, too.
pub(crate) fn host(section: &Section<'_>, port_default: u16) -> Option<Dns> {
    let port = section.read("port", endpoints::port).unwrap_or(port_default);
    let host = required(section, "hostname", "whose addresses are the endpoints?")?;
    match is_host(&host) {
        Ok(()) => Some(Dns::of(host, port)),
        Err(fault) => {
            section.fault("hostname", &fault);
            None
        }
    }
}

/// Reports a key that is missing.
pub(crate) fn required(section: &Section<'_>, name: &str, question: &str) -> Option<String> {
    if section.given(name).is_none() {
        section.fault(name, &format!("is missing: {question}"));
        return None;
    }
    section.read(name, |text| match text.trim() {
        "" => Err(format!("is empty: {question}")),
        text => Ok(text.to_owned()),
    })
}

fn fixed(section: &Section<'_>) -> Option<Discovery> {
    required_list(section, "endpoints");
    endpoints::list(section, "endpoints", &|text| Ok(text.to_owned())).map(Discovery::Static)
}

fn file(section: &Section<'_>) -> Option<Discovery> {
    const FORMATS: &[(&str, Format)] = &[
        ("auto", Format::Auto),
        ("plain", Format::Plain),
        ("json", Format::Json),
        ("yaml", Format::Yaml),
    ];
    let format = section.value("format", values::choice(FORMATS));
    let port_default = section.read("port", endpoints::port);
    let path = required(section, "path", "which file has the list?")?;
    Some(Discovery::File(File { path: path.into(), format, port_default }))
}

fn dns(section: &Section<'_>, port_default: u16) -> Option<Discovery> {
    let (server, families) = (server(section), families(section));
    let dns = host(section, port_default)?;
    Some(Discovery::Dns(Dns { server, families, ..dns }))
}

fn dns_srv(section: &Section<'_>) -> Option<Discovery> {
    let (server, families) = (server(section), families(section));
    let service = required(section, "service", "which service's targets are the endpoints?")?;
    Some(Discovery::DnsSrv(DnsSrv { service, server, families }))
}

fn consul(section: &Section<'_>) -> Option<Found> {
    let (agent, tls) = consul_agent(section);
    let tags = section.texts("tags").into_iter().map(|(tag, _)| tag.to_owned()).collect();
    let datacenter = section.read("datacenter", values::text);
    let (token, stale) = (secret(section, "token"), section.flag("stale"));
    let service = required(section, "service", "which service's instances are the endpoints?")?;
    let consul = Consul { agent, service, tags, datacenter, token, stale };
    Some(Found { source_tls: tls, ..Found::by(Discovery::Consul(consul)) })
}

fn etcd(section: &Section<'_>) -> Option<Found> {
    let port_default = section.read("port", endpoints::port);
    let (members, user, tls) = etcd_server(section);
    let prefix = required(section, "prefix", "below which keys are the endpoints?")?;
    let members = Some(members).filter(|members| !members.is_empty())?;
    let etcd = Etcd { members, prefix, port_default, user };
    Some(Found { source_tls: tls, ..Found::by(Discovery::Etcd(etcd)) })
}

/// The local agent, and how it is reached; `None`: in cleartext.
pub(crate) fn consul_agent(section: &Section<'_>) -> (consul::Address, Option<TlsOut>) {
    let agent = section.value("agent", |text| {
        let port_default = match text.starts_with("https://") {
            true => consul::PORT_TLS_DEFAULT,
            false => consul::PORT_DEFAULT,
        };
        let agent = consul::Address::parse(text, port_default);
        agent.map_err(|fault| format!("is wrong: {fault}"))
    });
    let ways = Ways::to_registry(section);
    ways.note(way(agent.scheme()));
    (agent, ways.settled(REGISTRY_PROTOCOL, None))
}

/// Members of an etcd cluster, who logs in there, and how they are reached; `None`: in cleartext.
pub(crate) fn etcd_server(
    section: &Section<'_>,
) -> (Vec<etcd::Address>, Option<User>, Option<TlsOut>) {
    required_list(section, "endpoints");
    let ways = Ways::to_registry(section);
    let mut members = Vec::new();
    for (text, _) in section.texts("endpoints") {
        match etcd::Address::parse(text, etcd::PORT_DEFAULT) {
            Ok(member) => {
                ways.note(way(member.scheme()));
                members.push(member);
            }
            Err(fault) => {
                section.fault("endpoints", &format!("has a member that is none: {fault}"))
            }
        }
    }
    let name = section.read("username", values::text);
    let password = secret(section, "password");
    if name.is_some() != password.is_some() {
        let key = if name.is_some() { "password" } else { "username" };
        section.fault(key, "is missing: one of username and password is of no use");
    }
    let user = name.zip(password).map(|(name, password)| User { name, password });
    (members, user, ways.settled(REGISTRY_PROTOCOL, None))
}

fn way(scheme: Option<etcd::Scheme>) -> Option<Way> {
    scheme.map(|scheme| match scheme {
        etcd::Scheme::Http => Way::Cleartext,
        etcd::Scheme::Https => Way::Tls,
    })
}

pub(crate) fn secret(section: &Section<'_>, name: &str) -> Option<Secret> {
    section.read(name, |text| Ok(Secret::new(text)))
}

fn required_list(section: &Section<'_>, name: &str) {
    if section.given(name).is_none() {
        section.fault(name, "is missing: name at least one");
    }
}

fn server(section: &Section<'_>) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    section.read("server", |text| {
        let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let with_port = text.parse::<SocketAddr>().ok();
        with_port
            .or(bare.ok().map(|ip| SocketAddr::new(ip, PORT)))
            .ok_or_else(|| format!("must be the IP address of a name server; this is \"{text}\""))
    })
}

fn families(section: &Section<'_>) -> Families {
    const FAMILIES: &[(&str, Families)] =
        &[("both", Families::Both), ("ipv4", Families::V4), ("ipv6", Families::V6)];
    section.value("families", values::choice(FAMILIES))
}

fn is_host(text: &str) -> Result<(), String> {
    let whole = text.trim_end_matches('.');
    let is_alone = !whole.contains(['/', ':']) || whole.parse::<IpAddr>().is_ok();
    match is_alone && Endpoint::parse(whole, Some(1)).is_ok() {
        true => Ok(()),
        false => Err(format!("must be a host's name without a port; this is \"{text}\"")),
    }
}
