//! `engine.registration`: forebay makes itself known, so that others discover it.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_exporters::discovery::Endpoint;
use forebay_exporters::discovery::registrar::Registration;
use forebay_exporters::discovery::{consul, etcd};

use super::exporters::discovery::{SECURED, consul_agent, etcd_server, required, secret};
use super::exporters::endpoints::the_one;
use super::keys::{Table, block, value};
use super::plan::TlsOut;
use super::problem::Problem;
use super::section::Section;
use super::tree::Value;
use super::values;

pub(crate) const REGISTRATION: Table = Table {
    path: "engine.registration",
    keys: &[
        value("address", "host:port", "", "Required: what others connect to."),
        value("attributes", "map of texts", "{}", "Of this instance, such as `zone`."),
        value(
            "ttl",
            "duration",
            "15s",
            "Without a sign of life for so long, others take this process for gone. In whole \
             seconds.",
        ),
        block("consul", "An instance of a service, in the local agent's book."),
        block("etcd", "A key with a lease."),
    ],
};

pub(crate) const CONSUL: Table = Table {
    path: "engine.registration.consul",
    keys: &[
        value(
            "agent",
            "host:port",
            "127.0.0.1:8500",
            "The local agent; `https://` for TLS, there with 8501 where no port is given.",
        ),
        value("service", "name", "forebay", "What this process is an instance of."),
        value("id", "name", "", "Of this instance. None: the service and the address."),
        value("tags", "list of texts", "[]", "Of this instance."),
        value("token", "text", "", "Sent as `X-Consul-Token`; never shown or logged."),
        block("tls", SECURED),
        value(
            "forget_after",
            "duration",
            "10m",
            "Consul takes out an instance that was critical for so long. 0: never; else 1m at \
             least.",
        ),
    ],
};

pub(crate) const ETCD: Table = Table {
    path: "engine.registration.etcd",
    keys: &[
        value("endpoints", "list of host:port", "", "Required: as for discovery."),
        value("prefix", "text", "/services/forebay/", "The key is this and the instance's id."),
        value("id", "name", "", "Of this instance. None: the address."),
        value("username", "text", "", "None: nobody logs in."),
        value("password", "text", "", "Never shown or logged."),
        block("tls", SECURED),
    ],
};

/// Where, as what, and how that place is reached (`None`: in cleartext).
type Entry = (Registration, Option<TlsOut>);

/// `None`: nobody is told, or the report says why not.
pub(crate) fn read(engine: &Section<'_>) -> Option<Entry> {
    engine.given("registration")?;
    let section = engine.block("registration", &REGISTRATION);
    let address = required(&section, "address", "where do others find this process?");
    let address = address.and_then(|text| match Endpoint::parse(&text, None) {
        Ok(endpoint) => Some(endpoint.address().to_owned()),
        Err(fault) => {
            section.fault("address", &format!("is wrong: {fault}"));
            None
        }
    });
    let (attributes, ttl) = (attributes(&section), ttl(&section));
    // Read all the same where something is missing, so that one run finds all mistakes.
    let known = address.clone().unwrap_or_else(|| "missing:1".to_owned());
    let registration = match the_one(&section, &["consul", "etcd"]) {
        Some("consul") => consul(&section.block("consul", &CONSUL), &known, attributes, ttl),
        Some(_) => etcd(&section.block("etcd", &ETCD), known, attributes, ttl),
        None => {
            if section.given("consul").is_none() && section.given("etcd").is_none() {
                let what = format!("{} names no registry", section.path);
                let problem = Problem::error(&section.place, what);
                section.report.add(problem.hint("add consul: {} or etcd: {endpoints: [...]}"));
            }
            None
        }
    };
    address.and(registration)
}

fn consul(
    section: &Section<'_>,
    address: &str,
    meta: BTreeMap<String, String>,
    ttl: Duration,
) -> Option<Entry> {
    let (agent, tls) = consul_agent(section);
    let service = section.value("service", values::text);
    let id = section.read("id", values::text).unwrap_or_else(|| format!("{service}-{address}"));
    let (host, port) = address.rsplit_once(':')?;
    let forget_after = section.value("forget_after", |text| match values::duration(text)? {
        after if after.is_zero() || after >= Duration::from_secs(60) => Ok(after),
        _ => Err("must be 0 or 1m at least: Consul takes no less".to_owned()),
    });
    let registration = consul::Registration {
        agent,
        token: secret(section, "token"),
        service,
        id,
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: port.parse().ok()?,
        tags: section.texts("tags").into_iter().map(|(tag, _)| tag.to_owned()).collect(),
        meta,
        check: consul::Check::Ttl(ttl),
        forget_after: Some(forget_after).filter(|after| !after.is_zero()),
    };
    Some((Registration::Consul(registration), tls))
}

fn etcd(
    section: &Section<'_>,
    address: String,
    attributes: BTreeMap<String, String>,
    ttl: Duration,
) -> Option<Entry> {
    let (members, user, tls) = etcd_server(section);
    let prefix = section.value("prefix", values::text);
    let id = section.read("id", values::text).unwrap_or_else(|| address.clone());
    let key = format!("{prefix}{id}");
    let registration = etcd::Registration { members, user, key, address, attributes, ttl };
    (!registration.members.is_empty()).then_some((Registration::Etcd(registration), tls))
}

fn attributes(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let Some(node) = section.given("attributes") else {
        return attributes;
    };
    if !matches!(node.value, Value::Map(_)) {
        section.fault("attributes", "must be a map of names to texts");
    }
    for entry in node.entries() {
        match &entry.node.value {
            Value::Scalar { text, .. } => {
                attributes.insert(entry.key.clone(), text.clone());
            }
            _ => {
                let what = format!("{}.{}", section.key_path("attributes"), entry.key);
                let what = format!("{what} must be a single text");
                section.report.add(Problem::error(&entry.place, what));
            }
        }
    }
    attributes
}

fn ttl(section: &Section<'_>) -> Duration {
    let (least, most) = (Duration::from_secs(3), Duration::from_secs(3600));
    section.value("ttl", |text| match values::duration(text)? {
        ttl if ttl.subsec_nanos() == 0 && (least..=most).contains(&ttl) => Ok(ttl),
        _ => Err("must be whole seconds, from 3s to 1h".to_owned()),
    })
}
