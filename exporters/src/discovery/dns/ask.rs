//! The questions themselves: names to try, servers to ask, and what their answers mean.
//!
//! A thin room around hickory-resolver. Always: a failure is not taken for an absence, not even
//! where the next name of the search list is said to be absent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_lite::future::zip;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};

use super::PACE;
use crate::discovery::endpoint::shortened;

/// What a negative answer without a SOA record, and an entry of the hosts file, is good for.
const TTL_UNSAID: Duration = Duration::from_secs(30);

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    #[default]
    Both,
    V4,
    V6,
}

impl Families {
    pub(super) fn count(self) -> usize {
        if self == Families::Both { 2 } else { 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn record(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record().fmt(f)
    }
}

pub(super) struct Resolver {
    resolver: TokioResolver,
    hosts: Option<Hosts>,
    search: Vec<Name>,
    ndots: usize,
    families: Families,
}

/// What one question brought; no addresses: there are none, says somebody who knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) ips: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

pub(super) struct Targets {
    pub(super) targets: Vec<Target>,
    pub(super) ttl: Duration,
}

pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

impl Resolver {
    pub(super) fn new(
        server: Option<SocketAddr>,
        families: Families,
        timeout: Duration,
    ) -> Result<Resolver, String> {
        let (config, mut options, hosts) = match server {
            Some(server) => (only(server), ResolverOpts::default(), None),
            None => {
                let read = read_system_conf();
                let (config, options) = read.map_err(|e| format!("/etc/resolv.conf: {e}"))?;
                (config, options, Hosts::from_system().ok())
            }
        };
        options.timeout = options.timeout.min(timeout);
        options.cache_size = 0;
        // Done here, for the name as it is written and before the search list.
        options.use_hosts_file = ResolveHosts::Never;
        let (search, ndots) = (config.search().to_vec(), options.ndots);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build();
        let resolver = resolver.map_err(|error| error.to_string())?;
        Ok(Resolver { resolver, hosts, search, ndots, families })
    }

    /// An answer for each family that is wanted.
    pub(super) async fn addresses(&self, host: &str) -> Vec<(Family, Result<Found, String>)> {
        let names = match self.names(host) {
            Ok(names) => names,
            Err(why) => return self.wanted(|_| Err(why.clone())),
        };
        if let Some(listed) = self.listed(host) {
            return listed;
        }
        let mut so_far = self.wanted(|_| Ok(Found { ips: Vec::new(), ttl: PACE.interval_max }));
        for name in names {
            let (v4, v6) =
                zip(self.family(&name, Family::V4), self.family(&name, Family::V6)).await;
            let is_found = [&v4, &v6].iter().any(|answer| matches!(answer, Ok(f) if f.has_any()));
            let answers = self.wanted(|family| match family {
                Family::V4 => v4.clone(),
                Family::V6 => v6.clone(),
            });
            if is_found {
                return answers;
            }
            for ((_, before), (_, answer)) in so_far.iter_mut().zip(answers) {
                *before = both_absent(before, answer);
            }
        }
        so_far
    }

    /// The targets of a service, in any order.
    pub(super) async fn targets(&self, service: &str) -> Result<Targets, String> {
        let mut so_far = Ok(PACE.interval_max);
        for name in self.names(service)? {
            match self.lookup(&name, RecordType::SRV).await {
                Ok((Some(lookup), ttl)) => return Ok(Targets { targets: targets(&lookup), ttl }),
                Ok((None, ttl)) => so_far = so_far.map(|before| before.min(ttl)),
                Err(why) => so_far = Err(format!("SRV of {service}: {why}")),
            }
        }
        Ok(Targets { targets: Vec::new(), ttl: so_far? })
    }

    /// What to ask for, in turn, by the rules of resolv.conf(5).
    fn names(&self, host: &str) -> Result<Vec<Name>, String> {
        let bad = |error| format!("\"{}\" is no name: {error}", shortened(host));
        let name = Name::from_ascii(host).map_err(bad)?;
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let mut names: Vec<Name> = Vec::with_capacity(1 + self.search.len());
        let suffixed = |suffix: &Name| name.clone().append_domain(suffix).ok();
        names.extend(self.search.iter().filter_map(suffixed));
        let mut complete = name.clone();
        complete.set_fqdn(true);
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, complete);
        Ok(names)
    }

    /// What the hosts file says.
    fn listed(&self, host: &str) -> Option<Vec<(Family, Result<Found, String>)>> {
        let name = Name::from_ascii(host).ok()?;
        let hosts = self.hosts.as_ref()?;
        let found = self.wanted(|family| {
            let lookup = hosts.lookup_static_host(&Query::query(name.clone(), family.record()));
            Ok(Found { ips: lookup.as_ref().map(addresses).unwrap_or_default(), ttl: TTL_UNSAID })
        });
        let is_listed = found.iter().any(|(_, found)| matches!(found, Ok(f) if f.has_any()));
        is_listed.then_some(found)
    }

    async fn family(&self, name: &Name, family: Family) -> Result<Found, String> {
        if !self.wants(family) {
            return Ok(Found::default());
        }
        let (lookup, ttl) = self.lookup(name, family.record()).await?;
        Ok(Found { ips: lookup.as_ref().map(addresses).unwrap_or_default(), ttl })
    }

    /// The records and the shortest of their TTLs; `None`: the name, or such records of it, are
    /// known not to exist.
    async fn lookup(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<(Option<Lookup>, Duration), String> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let ttls = lookup.answers().iter().map(|record| record.ttl);
                let ttl = ttls.min().map_or(TTL_UNSAID, seconds);
                Ok((Some(lookup), ttl))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok((None, none.negative_ttl.map_or(TTL_UNSAID, seconds)))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn wants(&self, family: Family) -> bool {
        match self.families {
            Families::Both => true,
            Families::V4 => family == Family::V4,
            Families::V6 => family == Family::V6,
        }
    }

    fn wanted<T>(&self, answer: impl Fn(Family) -> T) -> Vec<(Family, T)> {
        let families = [Family::V4, Family::V6].into_iter().filter(|family| self.wants(*family));
        families.map(|family| (family, answer(family))).collect()
    }
}

impl Found {
    fn has_any(&self) -> bool {
        !self.ips.is_empty()
    }
}

/// Of two names without addresses: both are absent, or somebody could not say.
fn both_absent(
    before: &Result<Found, String>,
    answer: Result<Found, String>,
) -> Result<Found, String> {
    match (before, answer) {
        (Err(why), _) => Err(why.clone()),
        (Ok(_), Err(why)) => Err(why),
        (Ok(before), Ok(answer)) => Ok(Found { ips: Vec::new(), ttl: before.ttl.min(answer.ttl) }),
    }
}

fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

fn targets(lookup: &Lookup) -> Vec<Target> {
    let srv = lookup.answers().iter().filter_map(|record| match &record.data {
        // The root as a target says that there is no such service.
        RData::SRV(srv) if !srv.target.is_root() && srv.port > 0 => Some(srv),
        _ => None,
    });
    srv.map(|srv| Target {
        host: srv.target.to_ascii(),
        port: srv.port,
        priority: srv.priority,
        weight: srv.weight,
    })
    .collect()
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl))
}

/// A server of its own port, by UDP, and by TCP where an answer was too long for that.
fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_parts(None, Vec::new(), vec![server])
}
