//! Where the members of a fleet are: from a source that knows them to sets of endpoints.
//!
//! ```text
//! static | file | dns | dns_srv | consul | etcd  -> Source::look -> Keeper -> Watcher::next
//! ```
//!
//! A [`source::Source`] asks its server and waits for changes; it decides nothing. A
//! [`keeper::Keeper`] decides and does no I/O: what a new set is, when to ask again, what of a
//! failure is told. A [`Watcher`] joins the two. It runs inside the task that calls
//! [`Watcher::next`] on a tokio runtime with time and I/O enabled, and nowhere else: dropping it
//! leaves nothing behind.
//!
//! ```no_run
//! # use forebay_exporters::discovery::{Discovery, Event, Watcher, dns::Dns};
//! # async fn watch() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Discovery::Dns(Dns::of_target("dns:///collectors.observability:4317")?);
//! let mut watcher = Watcher::new(fleet);
//! loop {
//!     match watcher.next().await {
//!         Event::Changed(set) => println!("{}: {:?}", set.generation, set.endpoints),
//!         Event::Trouble(trouble) => eprintln!("{trouble}"),
//!         Event::Recovered(recovered) => eprintln!("{recovered}"),
//!     }
//! }
//! # }
//! ```
//!
//! The other direction, making this process known to others, is [`registrar`].
//!
//! Always
//! - The last good set stays in use while its source fails, or answers that there is nobody.
//! - A set is sorted, names each address once, holds at most [`keeper::Limits::endpoints_max`]
//!   endpoints, and has a generation that grows with every change and only then.
//! - A source is asked no more often than [`keeper::Pace`] allows, however fast its members come
//!   and go, and less and less often while it fails.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use forebay_net::tls::outward::Initiator;

pub mod consul;
pub mod dns;
pub mod endpoint;
pub mod etcd;
pub mod event;
pub mod file;
pub mod fixed;
pub mod keeper;
pub mod registrar;
pub mod secret;
pub mod source;

mod http;

pub use self::endpoint::Endpoint;
pub use self::event::{Event, Recovered, Trouble, Update};
use self::keeper::{Keeper, Limits, Pace, Status};
use self::source::{Said, Source};

/// Who knows the members of the fleet.
#[derive(Clone, Debug)]
pub enum Discovery {
    Static(fixed::Static),
    File(file::File),
    Dns(dns::Dns),
    DnsSrv(dns::DnsSrv),
    Consul(consul::Consul),
    Etcd(etcd::Etcd),
}

impl Discovery {
    /// How often this kind of source is asked, if nobody says otherwise.
    pub fn pace(&self) -> Pace {
        match self {
            Discovery::Static(_) => Pace::default(),
            Discovery::File(_) => file::PACE,
            Discovery::Dns(_) | Discovery::DnsSrv(_) => dns::PACE,
            Discovery::Consul(_) => consul::PACE,
            Discovery::Etcd(_) => etcd::PACE,
        }
    }

    /// The same source, asked through TLS; those that no server is asked of stay as they are.
    pub fn secured(mut self, initiator: &Arc<Initiator>) -> Discovery {
        match &mut self {
            Discovery::Consul(consul) => consul.agent = consul.agent.clone().secured(initiator),
            Discovery::Etcd(etcd) => etcd::secure(&mut etcd.members, initiator),
            _ => {}
        }
        self
    }

    fn source(self, pace: Pace) -> Box<dyn Source> {
        match self {
            Discovery::Static(list) => Box::new(fixed::StaticSource::new(list)),
            Discovery::File(file) => Box::new(file::FileSource::new(file, pace)),
            Discovery::Dns(dns) => Box::new(dns::DnsSource::new(dns)),
            Discovery::DnsSrv(srv) => Box::new(dns::DnsSource::of_srv(srv)),
            Discovery::Consul(consul) => Box::new(consul::ConsulSource::new(consul, pace)),
            Discovery::Etcd(etcd) => Box::new(etcd::EtcdSource::new(etcd, pace)),
        }
    }
}

/// Follows one source: what it yields is the latest set, and what is wrong meanwhile.
pub struct Watcher {
    /// `None` while it looks.
    source: Option<Box<dyn Source>>,
    /// A look that is under way outlives a wait for it that was given up.
    looking: Option<Looking>,
    keeper: Keeper,
    random: fastrand::Rng,
}

type Looking = Pin<Box<dyn Future<Output = (Box<dyn Source>, Said)> + Send>>;

impl Watcher {
    pub fn new(discovery: Discovery) -> Watcher {
        let pace = discovery.pace();
        Watcher::with(discovery, pace, Limits::default())
    }

    pub fn with(discovery: Discovery, pace: Pace, limits: Limits) -> Watcher {
        Watcher::of(discovery.source(pace), pace, limits)
    }

    /// Follows a source that is none of [`Discovery`]'s.
    pub fn of(source: Box<dyn Source>, pace: Pace, limits: Limits) -> Watcher {
        let keeper = Keeper::new(source.name(), pace, limits, now());
        Watcher { source: Some(source), looking: None, keeper, random: fastrand::Rng::new() }
    }

    /// Waits for the next thing to know. Never ends by itself: a list that can't change waits for
    /// good after its only update. Cancel safe: the next call goes on where this one was.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.keeper.take_event() {
                return event;
            }
            let said = self.look().await;
            self.keeper.take(said, now(), self.random.f64());
        }
    }

    /// One look, begun when it is due.
    async fn look(&mut self) -> Said {
        if self.looking.is_none() {
            match self.keeper.ask_at() {
                None => std::future::pending().await,
                Some(at) => tokio::time::sleep_until(at.into()).await,
            }
        }
        let source = &mut self.source;
        let looking = self.looking.get_or_insert_with(|| {
            let mut source = source.take().expect("a source that does not look is at rest");
            Box::pin(async move {
                let said = source.look().await;
                (source, said)
            })
        });
        let (source, said) = looking.await;
        (self.source, self.looking) = (Some(source), None);
        said
    }

    /// What is known at this moment, for `/metrics` and the admin port.
    pub fn status(&self) -> Status {
        self.keeper.status(now())
    }
}

/// tokio's clock, so that tests can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
