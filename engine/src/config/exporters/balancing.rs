//! `balancing` of a network destination: which of its endpoints gets a batch.

use forebay_exporters::balance::{RoutingKey, Strategy};

use crate::config::keys::{Table, value};
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::values;

pub(crate) const BALANCING: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].balancing",
    keys: &[
        value(
            "strategy",
            "round_robin, weighted_round_robin, least_outstanding or consistent_hashing",
            "",
            "None: `weighted_round_robin` where endpoints may have weights (`endpoints` with \
             some, `file`, `dns_srv`, `consul`, `etcd`), else `round_robin`.",
        ),
        value(
            "routing_key",
            "traceID, service, metric, resource or attributes",
            "",
            "With `consistent_hashing`, what goes to one endpoint together. None, and for signals \
             that have no such key: the trace for traces and logs, the service for metrics.",
        ),
        value(
            "routing_attributes",
            "list of one name",
            "[]",
            "The attribute that `resource` (one of the resource's) and `attributes` (one of the \
             item's own) go by.",
        ),
    ],
};

/// A strategy, and what its hashing goes by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Balancing {
    pub(crate) strategy: Strategy,
    pub(crate) routing_key: Option<RoutingKey>,
}

/// `otherwise`: what is done if nobody says so.
pub(crate) fn read(section: &Section<'_>, otherwise: Strategy) -> Balancing {
    const STRATEGIES: &[(&str, Strategy)] = &[
        ("round_robin", Strategy::RoundRobin),
        ("weighted_round_robin", Strategy::WeightedRoundRobin),
        ("least_outstanding", Strategy::LeastOutstanding),
        ("consistent_hashing", Strategy::ConsistentHashing),
    ];
    let written = section.read("strategy", values::choice(STRATEGIES));
    let strategy = written.unwrap_or(otherwise);
    if strategy == Strategy::ConsistentHashing {
        return Balancing { strategy, routing_key: Some(routing_key(section)) };
    }
    for key in ["routing_key", "routing_attributes"] {
        if section.given(key).is_some() {
            section.fault(key, "is for consistent_hashing alone: set strategy to it, or remove it");
        }
    }
    Balancing { strategy, routing_key: None }
}

/// From `routing_key` and `routing_attributes` of this section. Signals that have no such key go by
/// their usual one.
pub(crate) fn routing_key(section: &Section<'_>) -> RoutingKey {
    let usual = RoutingKey::TraceId;
    let attribute = attribute(section);
    let Some(word) = section.read("routing_key", known) else {
        if attribute.is_some() && section.given("routing_key").is_none() {
            let fault = "has no effect without routing_key: resource or attributes";
            section.fault("routing_attributes", fault);
        }
        return usual;
    };
    let needs_attribute = matches!(word.as_str(), "resource" | "attributes");
    match (needs_attribute, attribute) {
        (true, None) => {
            let hint = match word.as_str() {
                "resource" => "or set routing_key: service, which is what most want",
                _ => "as in routing_attributes: [tenant]",
            };
            let what = format!("{} needs an attribute", section.key_path("routing_key"));
            let problem = Problem::error(section.place_of("routing_key"), what)
                .why(format!("forebay hashes one attribute, and \"{word}\" names none"))
                .hint(format!("name it in routing_attributes, {hint}"));
            section.report.add(problem);
            return usual;
        }
        (false, Some(_)) => {
            let fault = format!("has no effect with routing_key: {word}");
            section.fault("routing_attributes", &fault);
        }
        _ => {}
    }
    RoutingKey::parse(&word, attribute).unwrap_or(usual)
}

fn known(word: &str) -> Result<String, String> {
    match word {
        "traceID" | "service" | "metric" | "resource" | "attributes" => Ok(word.to_owned()),
        "streamID" => Err("can't be streamID in forebay, which does not identify single streams: \
                           metric or service keep the points of a stream together"
            .to_owned()),
        _ => Err(format!(
            "must be one of traceID, service, metric, resource, attributes; this is \"{word}\""
        )),
    }
}

fn attribute<'a>(section: &Section<'a>) -> Option<&'a str> {
    let names = section.texts("routing_attributes");
    if names.len() > 1 {
        let fault = "has more than one name, and forebay hashes one attribute: leave the one that \
                     tells most";
        section.fault("routing_attributes", fault);
    }
    names.first().map(|(name, _)| *name).filter(|name| !name.is_empty())
}
