//! etcd: the keys under a prefix, watched, and a key of our own that lives by a lease.
//!
//! Spoken is the JSON that etcd serves beside gRPC on the same port (3.4 and later). A snapshot and
//! the watch that begins right behind it are one look; the following looks wait on the watch, and
//! at [`Pace::interval_max`] a new snapshot checks that the watch still lives.
//!
//! With client certificates etcd's own JSON gateway is a client of etcd, by the server's
//! certificate: that one has to be good for clients, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_net::tls::outward::Initiator;

use self::api::{Client, Watched};
use super::endpoint::{Endpoint, shortened};
use super::keeper::Pace;
use super::secret::Secret;
use super::source::{Again, Answer, Failure, Look, Source};

mod api;
mod member;
mod registration;

pub use self::registration::Registration;
pub use super::http::{Address, Scheme};

pub(super) use self::registration::Registered;

pub const PORT_DEFAULT: u16 = 2379;
pub const PACE: Pace = Pace {
    interval_min: Duration::from_secs(1),
    interval_max: Duration::from_secs(60),
    backoff_max: Duration::from_secs(30),
};
/// Under one prefix; more of them are not a fleet but a mistake in the prefix.
pub const KEYS_MAX: usize = 1 << 16;
/// Of the watch, taken at once; more wait for the next look.
const MESSAGES_MAX: usize = 1 << 12;
const ADVICE: &str = "check that etcd runs, has a leader, and lets the user read the prefix";

/// The values are `host:port`, or the JSON of etcd's Go resolver, `{"Addr": "host:port",
/// "Metadata": {"weight": 2, "zone": "a"}}`, or the same flat: `{"address": ..., "zone": ...}`.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// Members of the cluster; the next one is asked where one fails.
    pub members: Vec<Address>,
    /// `/services/collector/`; with the last slash, or its neighbours are found, too.
    pub prefix: String,
    pub port_default: Option<u16>,
    pub user: Option<User>,
}

#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub password: Secret,
}

impl Etcd {
    pub fn of(member: Address, prefix: impl Into<String>) -> Etcd {
        Etcd { members: vec![member], prefix: prefix.into(), port_default: None, user: None }
    }
}

/// Reaches all members through TLS.
pub(super) fn secure(members: &mut [Address], initiator: &Arc<Initiator>) {
    for member in members {
        *member = member.clone().secured(initiator);
    }
}

pub(super) struct EtcdSource {
    client: Client,
    prefix: String,
    port_default: Option<u16>,
    resync_interval: Duration,
    /// By key. `Ok(None)`: it is there, and says that nothing should be sent to it.
    members: BTreeMap<Vec<u8>, Result<Option<Endpoint>, String>>,
    watch: Option<Watch>,
}

struct Watch {
    watched: Watched,
    until: Instant,
}

impl EtcdSource {
    pub(super) fn new(etcd: Etcd, pace: Pace) -> EtcdSource {
        let Etcd { members, prefix, port_default, user } = etcd;
        let client = Client::new(members, user);
        let resync_interval = pace.interval_max;
        let members = BTreeMap::new();
        EtcdSource { client, prefix, port_default, resync_interval, members, watch: None }
    }

    async fn ask(&mut self) -> Result<Answer, String> {
        while let Some(watch) = &mut self.watch {
            let message = watch.watched.next();
            match tokio::time::timeout_at(watch.until.into(), message).await {
                Ok(Ok(events)) => {
                    if self.apply(events)? {
                        self.apply_ready()?;
                        return Ok(self.answer());
                    }
                }
                // It ended, or it is time to see whether it still lives: a snapshot says.
                Ok(Err(_)) | Err(_) => self.watch = None,
            }
        }
        self.snapshot().await
    }

    async fn snapshot(&mut self) -> Result<Answer, String> {
        let snapshot = self.client.range(self.prefix.as_bytes()).await?;
        let watched = self.client.watch(self.prefix.as_bytes(), snapshot.revision + 1).await;
        self.members.clear();
        self.apply(snapshot.events)?;
        let mut answer = self.answer();
        match watched {
            Ok(watched) => {
                let until = super::now() + self.resync_interval;
                self.watch = Some(Watch { watched, until });
            }
            // The next look is a snapshot, too: slower, and as right.
            Err(why) => answer.notes.push(format!("the prefix can't be watched: {why}")),
        }
        Ok(answer)
    }

    /// What has come meanwhile, so that a burst of changes is one answer.
    fn apply_ready(&mut self) -> Result<(), String> {
        for _ in 0..MESSAGES_MAX {
            match self.watch.as_mut().and_then(|watch| watch.watched.ready()) {
                Some(Ok(events)) => self.apply(events)?,
                Some(Err(_)) => {
                    self.watch = None;
                    return Ok(());
                }
                None => return Ok(()),
            };
        }
        Ok(())
    }

    /// Whether there were any.
    fn apply(&mut self, events: Vec<api::Event>) -> Result<bool, String> {
        let is_any = !events.is_empty();
        for api::Event { key, value } in events {
            match value {
                Some(value) => {
                    let member = member::parse(&value, self.port_default);
                    let named =
                        |why| format!("{}: {why}", shortened(&String::from_utf8_lossy(&key)));
                    self.members.insert(key.clone(), member.map_err(named));
                }
                None => _ = self.members.remove(&key),
            }
        }
        if self.members.len() > KEYS_MAX {
            self.members.clear();
            self.watch = None;
            return Err(format!("more than {KEYS_MAX} keys under the prefix"));
        }
        Ok(is_any)
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer { again: Again::AtOnce, ..Answer::default() };
        for member in self.members.values() {
            match member {
                Ok(endpoint) => answer.endpoints.extend(endpoint.clone()),
                Err(why) => answer.notes.push(why.clone()),
            }
        }
        answer
    }
}

impl Source for EtcdSource {
    fn name(&self) -> String {
        format!("etcd {} prefix {}", self.client.members(), shortened(&self.prefix))
    }

    fn look(&mut self) -> Look<'_> {
        Box::pin(async {
            let asked = self.ask().await;
            asked.map_err(|why| Failure::new(self.client.scrub(&why), ADVICE))
        })
    }
}
