//! This process made known to others: announced to a registry, kept alive there, taken out at the
//! end.
//!
//! The mirror image of a watcher: a [`Registry`] does the I/O and is idempotent, [`pulse::Pulse`]
//! decides when and what is told, and a [`Registrar`] runs both inside of the task that calls
//! [`Registrar::next`].
//!
//! Always: a registry that has forgotten this process is told of it again with the next beat, and
//! health that changes is told at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use forebay_net::tls::outward::Initiator;

use self::pulse::Pulse;
use super::event::{Recovered, Trouble};
use super::source::Failure;
use super::{consul, etcd, now};

pub mod pulse;

/// Where to be known, and as what.
#[derive(Clone, Debug)]
pub enum Registration {
    Consul(consul::Registration),
    Etcd(etcd::Registration),
}

impl Registration {
    /// The same, told through TLS.
    pub fn secured(mut self, initiator: &Arc<Initiator>) -> Registration {
        match &mut self {
            Registration::Consul(consul) => consul.agent = consul.agent.clone().secured(initiator),
            Registration::Etcd(etcd) => etcd::secure(&mut etcd.members, initiator),
        }
        self
    }
}

/// How this process is, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub state: State,
    /// For people: why.
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Passing,
    Warning,
    /// Others should send nothing.
    Critical,
}

impl State {
    /// As Consul has it, and as our entries in etcd have it.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Passing => "passing",
            State::Warning => "warning",
            State::Critical => "critical",
        }
    }
}

/// One place where processes make themselves known.
pub trait Registry: Send {
    /// For logs, without secrets.
    fn name(&self) -> String;

    /// How long an entry lives without a sign of life.
    fn ttl(&self) -> Duration;

    /// Makes sure that the registry knows this process and its health.
    fn announce<'a>(&'a mut self, health: &'a Health) -> Doing<'a, Announced>;

    /// Takes the entry out.
    fn withdraw(&mut self) -> Doing<'_, ()>;
}

pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// What the registry had known before it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    Known,
    /// Nothing, or something else.
    Anew,
}

#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The entry stands, for the first time or again after it was lost.
    Registered {
        registry: String,
    },
    Trouble(Trouble),
    Recovered(Recovered),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Registered { registry } => write!(f, "registered with {registry}"),
            News::Trouble(trouble) => trouble.fmt(f),
            News::Recovered(recovered) => recovered.fmt(f),
        }
    }
}

/// Keeps one entry in one registry.
pub struct Registrar {
    /// `None` while it announces.
    registry: Option<Box<dyn Registry>>,
    /// Outlives a wait for it that was given up.
    announcing: Option<Announcing>,
    /// What is being announced, or was announced last.
    announced: Option<Health>,
    name: String,
    pulse: Pulse,
    health: Health,
    random: fastrand::Rng,
}

type Said = Result<Announced, Failure>;
type Announcing = Pin<Box<dyn Future<Output = (Box<dyn Registry>, Said)> + Send>>;

impl Registrar {
    pub fn new(registration: Registration, health: Health) -> Registrar {
        let registry: Box<dyn Registry> = match registration {
            Registration::Consul(consul) => Box::new(consul::Registered::new(consul)),
            Registration::Etcd(etcd) => Box::new(etcd::Registered::new(etcd)),
        };
        Registrar::of(registry, health)
    }

    pub fn of(registry: Box<dyn Registry>, health: Health) -> Registrar {
        let name = registry.name();
        let pulse = Pulse::new(name.clone(), registry.ttl(), now());
        let (announcing, announced, random) = (None, None, fastrand::Rng::new());
        Registrar { registry: Some(registry), announcing, announced, name, pulse, health, random }
    }

    /// Keeps the entry alive and waits for something to tell of it. Cancel safe: the next call
    /// goes on where this one was, and the entry lives for its TTL meanwhile.
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.pulse.take_news() {
                return news;
            }
            if self.announcing.is_none() {
                tokio::time::sleep_until(self.pulse.due().into()).await;
                self.begin();
            }
            let said = self.finish().await;
            self.pulse.take(said, now(), self.random.f64());
            if self.announced.as_ref() != Some(&self.health) {
                self.pulse.hurry(now());
            }
        }
    }

    /// The registry hears of it with the next call of [`Registrar::next`], at once.
    pub fn set_health(&mut self, health: Health) {
        if self.health != health {
            self.health = health;
            self.pulse.hurry(now());
        }
    }

    /// Takes the entry out, within `patience`. Where that fails it dies with its TTL.
    pub async fn leave(mut self, patience: Duration) -> Result<(), Failure> {
        const ADVICE: &str = "none needed: the entry ends with its TTL";
        let what = format!("{}: no answer within {patience:?}", self.name);
        let leaving = async {
            if self.announcing.is_some() {
                // Whatever it says: what it wrote is taken out next.
                let _ = self.finish().await;
            }
            match &mut self.registry {
                Some(registry) => registry.withdraw().await,
                None => Ok(()),
            }
        };
        let left = tokio::time::timeout(patience, leaving).await;
        left.map_err(|_| Failure::new(what, ADVICE))?
    }

    fn begin(&mut self) {
        if let Some(mut registry) = self.registry.take() {
            let health = self.health.clone();
            self.announced = Some(health.clone());
            self.announcing = Some(Box::pin(async move {
                let said = registry.announce(&health).await;
                (registry, said)
            }));
        }
    }

    async fn finish(&mut self) -> Said {
        let announcing = self.announcing.as_mut().expect("it was begun before it is finished");
        let (registry, said) = announcing.await;
        (self.registry, self.announcing) = (Some(registry), None);
        said
    }
}
