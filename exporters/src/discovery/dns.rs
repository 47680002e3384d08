//! A name's addresses, or a service's targets, asked for again when their TTL has passed.
//!
//! Two questions and more make one answer: A and AAAA of a name, and of each target of a service.
//! Where one of them fails and others do not, the addresses that it brought last stay in, so that
//! a name server that fails for one family takes nothing away from the set.
//!
//! Always: "there is no such name" and "nobody could say" are two things; the first empties a set
//! (and the keeper keeps the last good one), the second is a failure. A name is looked for in
//! `/etc/hosts` and by the rules of `/etc/resolv.conf`, both read anew each time, unless a server
//! is named.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use self::ask::{Family, Found, Resolver};
use super::endpoint::Endpoint;
use super::keeper::Pace;
use super::source::{Again, Answer, Failure, Look, Source};

mod ask;
mod uri;

pub use self::ask::Families;
pub use self::uri::BadTarget;

pub const PACE: Pace = Pace {
    interval_min: Duration::from_secs(5),
    interval_max: Duration::from_secs(300),
    backoff_max: Duration::from_secs(60),
};
/// Of one service; each may cost two questions.
pub const TARGETS_MAX: usize = 256;
/// Until an unanswered question is asked once more.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// For all questions of a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
const ADVICE: &str = "check the name and the name servers in /etc/resolv.conf";

/// All addresses of a name, as gRPC's `dns:///host:port` means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    pub host: String,
    pub port: u16,
    /// Who is asked; `None`: whom `/etc/resolv.conf` names.
    pub server: Option<SocketAddr>,
    pub families: Families,
}

/// All targets of a service (RFC 2782): `_otlp._tcp.example.com`. Weights and priorities are the
/// records'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSrv {
    pub service: String,
    pub server: Option<SocketAddr>,
    pub families: Families,
}

impl DnsSrv {
    pub fn of(service: impl Into<String>) -> DnsSrv {
        DnsSrv { service: service.into(), server: None, families: Families::Both }
    }
}

pub(super) struct DnsSource {
    question: Question,
    server: Option<SocketAddr>,
    families: Families,
    /// What each question brought last, for when it fails; of the names in the last answer only.
    known: BTreeMap<(String, Family), Vec<IpAddr>>,
}

enum Question {
    Host { host: String, port: u16 },
    Service(String),
}

/// The addresses of one name, of all families.
struct Addresses {
    found: Vec<(Family, Vec<IpAddr>)>,
    ttl: Duration,
    /// Of the questions that failed, why.
    notes: Vec<String>,
}

impl DnsSource {
    pub(super) fn new(dns: Dns) -> DnsSource {
        let Dns { host, port, server, families } = dns;
        let question = Question::Host { host, port };
        DnsSource { question, server, families, known: BTreeMap::new() }
    }

    pub(super) fn of_srv(srv: DnsSrv) -> DnsSource {
        let DnsSrv { service, server, families } = srv;
        DnsSource { question: Question::Service(service), server, families, known: BTreeMap::new() }
    }

    async fn ask(&mut self) -> Result<Answer, Failure> {
        let failed = |why: String| Failure::new(why, ADVICE);
        let resolver = Resolver::new(self.server, self.families, QUESTION_TIMEOUT);
        let resolver = resolver.map_err(failed)?;
        let asking = async {
            match &self.question {
                Question::Host { host, port } => self.host(&resolver, host, *port).await,
                Question::Service(service) => self.service(&resolver, service).await,
            }
        };
        let late = |_| failed(format!("no answer within {} s", LOOK_TIMEOUT.as_secs()));
        let asked = tokio::time::timeout(LOOK_TIMEOUT, asking).await.map_err(late)?;
        let (answer, known) = asked.map_err(failed)?;
        self.known = known;
        Ok(answer)
    }

    async fn host(&self, resolver: &Resolver, host: &str, port: u16) -> Result<Told, String> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            let endpoints = vec![Endpoint::of(SocketAddr::new(ip, port))];
            let answer = Answer { endpoints, again: Again::Never, notes: Vec::new() };
            return Ok((answer, BTreeMap::new()));
        }
        let mut addresses = self.addresses(resolver, host).await?;
        if addresses.notes.len() == self.families.count() {
            return Err(addresses.notes.swap_remove(0));
        }
        let mut told = Telling::new(addresses.ttl);
        told.add(host, addresses, |endpoint| endpoint, port);
        Ok(told.end())
    }

    async fn service(&self, resolver: &Resolver, service: &str) -> Result<Told, String> {
        let mut targets = resolver.targets(service).await?;
        let mut told = Telling::new(targets.ttl);
        if targets.targets.len() > TARGETS_MAX {
            let count = targets.targets.len();
            told.note(format!("{service} has {count} targets, the first {TARGETS_MAX} are used"));
            targets.targets.sort_unstable_by(|a, b| a.host.cmp(&b.host));
            targets.targets.truncate(TARGETS_MAX);
        }
        let asked = targets.targets.iter().map(|target| self.addresses(resolver, &target.host));
        let mut failures = Vec::new();
        for (target, addresses) in targets.targets.iter().zip(all(asked).await) {
            let describe = |mut endpoint: Endpoint| {
                endpoint.priority = target.priority;
                // 0 beside others is RFC 2782's "hardly ever"; a share of one is the least we have.
                endpoint.weighing(u32::from(target.weight).max(1))
            };
            match addresses {
                Ok(addresses) => told.add(&target.host, addresses, describe, target.port),
                Err(why) => failures.push(why),
            }
        }
        match failures.into_iter().next() {
            Some(why) if told.answer.endpoints.is_empty() => Err(why),
            Some(why) => {
                told.note(why);
                Ok(told.end())
            }
            None => Ok(told.end()),
        }
    }

    /// Of all families, those that failed as they were known before. Fails if there is nothing to
    /// show for it.
    async fn addresses(&self, resolver: &Resolver, host: &str) -> Result<Addresses, String> {
        let mut addresses =
            Addresses { found: Vec::new(), ttl: PACE.interval_max, notes: Vec::new() };
        for (family, answer) in resolver.addresses(host).await {
            match answer {
                Ok(Found { ips, ttl }) => {
                    addresses.ttl = addresses.ttl.min(ttl);
                    addresses.found.push((family, ips));
                }
                Err(why) => {
                    let known = self.known.get(&(host.to_owned(), family));
                    if let Some(known) = known.filter(|known| !known.is_empty()) {
                        addresses.found.push((family, known.clone()));
                    }
                    // Asked again soon: a failure has no TTL.
                    addresses.ttl = Duration::ZERO;
                    addresses.notes.push(format!("{family} of {host}: {why}"));
                }
            }
        }
        let is_empty = addresses.found.iter().all(|(_, ips)| ips.is_empty());
        match addresses.notes.first() {
            // Nobody knows whether the name has addresses of the family that failed.
            Some(why) if is_empty => Err(why.clone()),
            _ => Ok(addresses),
        }
    }
}

impl Source for DnsSource {
    fn name(&self) -> String {
        match &self.question {
            Question::Host { host, port } => format!("dns {host}:{port}"),
            Question::Service(service) => format!("dns srv {service}"),
        }
    }

    fn look(&mut self) -> Look<'_> {
        Box::pin(self.ask())
    }
}

type Known = BTreeMap<(String, Family), Vec<IpAddr>>;
type Told = (Answer, Known);

/// An answer in the making, and what to remember of it.
struct Telling {
    answer: Answer,
    known: Known,
    ttl: Duration,
}

impl Telling {
    fn new(ttl: Duration) -> Telling {
        Telling { answer: Answer::default(), known: Known::new(), ttl }
    }

    fn add(
        &mut self,
        host: &str,
        addresses: Addresses,
        describe: impl Fn(Endpoint) -> Endpoint,
        port: u16,
    ) {
        self.ttl = self.ttl.min(addresses.ttl);
        self.answer.notes.extend(addresses.notes);
        for (family, ips) in addresses.found {
            self.answer.endpoints.extend(ips.iter().map(|ip| {
                let mut endpoint = Endpoint::of(SocketAddr::new(*ip, port));
                endpoint.name = Some(host.trim_end_matches('.').to_ascii_lowercase());
                describe(endpoint)
            }));
            self.known.insert((host.to_owned(), family), ips);
        }
    }

    fn note(&mut self, note: String) {
        self.answer.notes.push(note);
    }

    fn end(mut self) -> Told {
        self.answer.again = Again::After(self.ttl);
        (self.answer, self.known)
    }
}

/// Waits for all of them at once.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<Pin<Box<_>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, done) in waiting.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}
