//! Who the endpoints of an `otlp_grpc` or `otlp_http` destination are, from the keys that say so,
//! and what is done for and against them.

use std::time::Duration;

use forebay_exporters::balance::Strategy;
use forebay_exporters::destination::{Backends, Pool};
use forebay_exporters::discovery::Discovery;
use forebay_exporters::discovery::dns::Dns;

use super::{address, grpc_endpoint, require_endpoint, url};
use crate::config::exporters::endpoints::{self, Found, Target, authority};
use crate::config::exporters::tls::Ways;
use crate::config::exporters::{balancing, guards};
use crate::config::section::Section;
use crate::config::values;

/// One of them says who the endpoints are; `otlp_http` takes the first beside another.
pub(super) const FLEET: [&str; 3] = ["endpoint", "endpoints", "discovery"];

pub(super) fn grpc_fleet(section: &Section<'_>, ways: &Ways<'_>) -> Option<Found> {
    if !given(section, &FLEET) {
        require_endpoint(section);
        return None;
    }
    match endpoints::the_one(section, &FLEET)? {
        "endpoint" => match section.read("endpoint", |text| grpc_endpoint(text, ways))? {
            Target::At(address) => named(section, &address),
            Target::Named(dns) => match is_pick_first(section) {
                true => Found::at(&Found::by(Discovery::Dns(dns)).name?),
                false => Some(Found::by(Discovery::Dns(dns))),
            },
        },
        "endpoints" => {
            let parse = |text: &str| match grpc_endpoint(text, ways)? {
                Target::At(address) => Ok(address),
                Target::Named(_) => Err("is a name to look up: set it as `endpoint`, or as \
                     discovery.dns"
                    .to_owned()),
            };
            let list = endpoints::list(section, "endpoints", &parse)?;
            Some(Found::by(Discovery::Static(list)))
        }
        _ => {
            ways.note(None);
            endpoints::discovered(section, 4317)
        }
    }
}

/// What `endpoints` or `discovery` say.
pub(super) fn http_fleet(section: &Section<'_>, ways: &Ways<'_>) -> Option<Found> {
    const OWN: [&str; 4] =
        ["traces_endpoint", "metrics_endpoint", "logs_endpoint", "profiles_endpoint"];
    let fleet = endpoints::the_one(section, &FLEET[1..])?;
    for key in OWN.into_iter().filter(|key| section.given(key).is_some()) {
        let fault = format!("can't be set beside {fleet}: every endpoint takes each signal");
        section.fault(key, &fault);
    }
    if fleet == "discovery" {
        // Else its scheme is theirs.
        if section.given("endpoint").is_none() {
            ways.note(None);
        }
        return endpoints::discovered(section, 4318);
    }
    let parse = |text: &str| {
        let url = url(text, ways)?;
        match url.path() {
            "" | "/" => Ok(address(&url)),
            _ => Err("must be a scheme, host and port alone: set endpoint for a path".to_owned()),
        }
    };
    Some(Found::by(Discovery::Static(endpoints::list(section, "endpoints", &parse)?)))
}

/// The endpoints with all that is done for and against them. `section` has the blocks.
pub(crate) fn guarded(
    section: &Section<'_>,
    found: Found,
    attempt: Duration,
    speaks_grpc: bool,
) -> Backends {
    let balancing = section.block("balancing", &balancing::BALANCING);
    let otherwise = balancer(section, speaks_grpc).unwrap_or(match found.may_weigh() {
        true => Strategy::WeightedRoundRobin,
        false => Strategy::RoundRobin,
    });
    let balancing = balancing::read(&balancing, otherwise);
    let breaker = section.block("circuit_breaker", &guards::CIRCUIT_BREAKER);
    let (breaker, ejection) = guards::breaker(&breaker, attempt);
    let idle_timeout = match speaks_grpc {
        true => Pool::default().idle_timeout,
        false => Some(section.duration_above_zero("idle_conn_timeout")),
    };
    let health_check = section.block("health_check", &guards::HEALTH_CHECK);
    Backends {
        pace: found.pace,
        strategy: balancing.strategy,
        routing_key: balancing.routing_key,
        breaker,
        ejection,
        retry_budget: guards::retry_budget(&section.block("retry_budget", &guards::RETRY_BUDGET)),
        health_check: guards::health_check(&health_check, speaks_grpc),
        pool: guards::pool(&section.block("pool", &guards::POOL), idle_timeout),
        ..Backends::found_by(found.discovery)
    }
}

pub(super) fn given(section: &Section<'_>, keys: &[&str]) -> bool {
    keys.iter().any(|key| section.given(key).is_some())
}

/// One address, or all addresses of its name if a balancer is asked for.
fn named(section: &Section<'_>, address: &str) -> Option<Found> {
    let authority = authority(address)?;
    let is_balanced = section.given("balancer_name").is_some() && !is_pick_first(section);
    match is_balanced && endpoints::is_name(authority.host()) {
        true => Some(Found::by(Discovery::Dns(Dns::of(authority.host(), authority.port_u16()?)))),
        false => Found::at(address),
    }
}

fn is_pick_first(section: &Section<'_>) -> bool {
    section.read("balancer_name", values::text).as_deref() == Some("pick_first")
}

/// What `balancer_name` asks for; `None`: nothing.
fn balancer(section: &Section<'_>, speaks_grpc: bool) -> Option<Strategy> {
    const NAMES: &[(&str, Strategy)] = &[
        ("round_robin", Strategy::RoundRobin),
        ("pick_first", Strategy::RoundRobin),
        ("weighted_round_robin", Strategy::WeightedRoundRobin),
        ("least_request", Strategy::LeastOutstanding),
        ("least_request_experimental", Strategy::LeastOutstanding),
    ];
    match speaks_grpc {
        true => section.read("balancer_name", values::choice(NAMES)),
        false => None,
    }
}
