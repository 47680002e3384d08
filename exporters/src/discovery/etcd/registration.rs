//! A key of our own under a lease: it vanishes with us, and comes back after it was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::Client;
use super::{Address, User, member};
use crate::discovery::registrar::{Announced, Doing, Health, Registry};
use crate::discovery::source::Failure;

const ADVICE: &str = "check that etcd runs, has a leader, and lets the user write the key";

#[derive(Clone, Debug)]
pub struct Registration {
    pub members: Vec<Address>,
    pub user: Option<User>,
    /// The prefix that others watch, and this instance's own name.
    pub key: String,
    /// `host:port`, what others connect to.
    pub address: String,
    pub attributes: BTreeMap<String, String>,
    /// How long the key outlives this process, in whole seconds.
    pub ttl: Duration,
}

pub(in crate::discovery) struct Registered {
    client: Client,
    key: String,
    address: String,
    attributes: BTreeMap<String, String>,
    ttl: Duration,
    lease: Option<String>,
    /// What was written last, with the lease at hand.
    written: Option<String>,
}

impl Registered {
    pub(in crate::discovery) fn new(registration: Registration) -> Registered {
        let Registration { members, user, key, address, attributes, ttl } = registration;
        let client = Client::new(members, user);
        let (lease, written) = (None, None);
        Registered { client, key, address, attributes, ttl, lease, written }
    }

    async fn keep(&mut self, health: &Health) -> Result<Announced, String> {
        let entry = member::entry(&self.address, &self.attributes, health);
        if self.lives().await? {
            if self.written.as_ref() != Some(&entry) {
                self.write(entry).await?;
            }
            return Ok(Announced::Known);
        }
        self.write(entry).await?;
        Ok(Announced::Anew)
    }

    /// Whether the lease lives and the key hangs on it. A lease that is gone is forgotten.
    async fn lives(&mut self) -> Result<bool, String> {
        let Some(lease) = &self.lease else {
            return Ok(false);
        };
        if !self.client.keep_alive(lease).await? {
            (self.lease, self.written) = (None, None);
            return Ok(false);
        }
        let of_key = self.client.lease_of(&self.key).await?;
        Ok(of_key.as_ref() == Some(lease))
    }

    async fn write(&mut self, entry: String) -> Result<(), String> {
        let lease = match &self.lease {
            Some(lease) => lease.clone(),
            None => self.client.grant(self.ttl).await?,
        };
        self.lease = Some(lease.clone());
        self.client.put(&self.key, &entry, &lease).await?;
        self.written = Some(entry);
        Ok(())
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(self.client.scrub(why), ADVICE)
    }
}

impl Registry for Registered {
    fn name(&self) -> String {
        format!("etcd {} as {}", self.client.members(), self.key)
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn announce<'a>(&'a mut self, health: &'a Health) -> Doing<'a, Announced> {
        Box::pin(async {
            let kept = self.keep(health).await;
            kept.map_err(|why| self.failure(&why))
        })
    }

    fn withdraw(&mut self) -> Doing<'_, ()> {
        Box::pin(async {
            // With its lease goes the key.
            match self.lease.take() {
                Some(lease) => {
                    let revoked = self.client.revoke(&lease).await;
                    revoked.map_err(|why| self.failure(&why))
                }
                None => Ok(()),
            }
        })
    }
}
