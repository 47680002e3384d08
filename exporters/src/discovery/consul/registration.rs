//! An instance of a service in the local agent's book, with a check.
//!
//! The agent keeps the entry, and asks for a sign of life (TTL), or looks by itself (HTTP, gRPC).
//! An agent that restarted may have forgotten: it is asked at each beat.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{ANSWER_TIMEOUT, Address, encoded, scrubbed, with_token};
use crate::discovery::http::{self as registry, Ask};
use crate::discovery::registrar::{Announced, Doing, Health, Registry};
use crate::discovery::secret::Secret;
use crate::discovery::source::Failure;

const ADVICE: &str = "check that the Consul agent runs and that the token may write the service";
/// Consul refuses to forget a service sooner.
const FORGET_AFTER_MIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Registration {
    pub agent: Address,
    pub token: Option<Secret>,
    pub service: String,
    /// Of this instance; one agent knows each once.
    pub id: String,
    /// What others connect to.
    pub host: String,
    pub port: u16,
    pub tags: Vec<String>,
    pub meta: BTreeMap<String, String>,
    pub check: Check,
    /// How long an instance may be critical until Consul takes it out, for processes that can't
    /// do it themselves any more; a minute at least.
    pub forget_after: Option<Duration>,
}

/// How Consul learns that this process is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// From us; critical after this long without a word.
    Ttl(Duration),
    /// It asks this URL: 2xx is well, 429 a warning. What the registrar is told of our health does
    /// not count with this one and the next.
    Http { url: String, interval: Duration },
    /// It asks `host:port[/service]` by gRPC's health protocol.
    Grpc { target: String, interval: Duration },
}

pub(in crate::discovery) struct Registered {
    registration: Registration,
    /// Whether this process has written its entry: what an earlier one wrote may differ.
    is_written: bool,
}

impl Registered {
    pub(in crate::discovery) fn new(registration: Registration) -> Registered {
        Registered { registration, is_written: false }
    }

    async fn announce_anew_or_beat(&mut self, health: &Health) -> Result<Announced, String> {
        if self.is_written && self.beat(health).await? {
            return Ok(Announced::Known);
        }
        let body = self.entry(health).to_string();
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.done(Ask::put(path.to_owned(), body)).await?;
        if matches!(self.registration.check, Check::Ttl(_)) {
            self.done(self.sign_of_life(health)).await?;
        }
        self.is_written = true;
        Ok(Announced::Anew)
    }

    /// Whether the agent still knows the instance.
    async fn beat(&self, health: &Health) -> Result<bool, String> {
        let ask = match self.registration.check {
            Check::Ttl(_) => self.sign_of_life(health),
            _ => Ask::get(format!("/v1/agent/service/{}", encoded(&self.registration.id))),
        };
        let response = self.ask(ask).await?;
        let body = String::from_utf8_lossy(response.body());
        let is_forgotten = response.status() == StatusCode::NOT_FOUND
            // As older agents say it, with status 500.
            || body.to_ascii_lowercase().contains("unknown check");
        match response.status() {
            StatusCode::OK => Ok(true),
            _ if is_forgotten => Ok(false),
            status => Err(registry::refusal(&self.registration.agent, status, response.body())),
        }
    }

    fn sign_of_life(&self, health: &Health) -> Ask {
        let id = encoded(&format!("service:{}", self.registration.id));
        let body = json!({"Status": health.state.word(), "Output": health.note});
        Ask::put(format!("/v1/agent/check/update/{id}"), body.to_string())
    }

    fn entry(&self, health: &Health) -> Value {
        let of = &self.registration;
        let mut check = match &of.check {
            Check::Ttl(ttl) => json!({"TTL": seconds(*ttl)}),
            Check::Http { url, interval } => json!({"HTTP": url, "Interval": seconds(*interval)}),
            Check::Grpc { target, interval } => {
                json!({"GRPC": target, "Interval": seconds(*interval)})
            }
        };
        let mut add = |name: &str, value: String| {
            check
                .as_object_mut()
                .map(|check: &mut Map<_, _>| check.insert(name.to_owned(), value.into()))
        };
        add("CheckID", format!("service:{}", of.id));
        if matches!(of.check, Check::Ttl(_)) {
            add("Status", health.state.word().to_owned());
        }
        if let Some(after) = of.forget_after {
            let after = seconds(after.max(FORGET_AFTER_MIN));
            add("DeregisterCriticalServiceAfter", after);
        }
        json!({
            "ID": of.id, "Name": of.service, "Address": of.host, "Port": of.port,
            "Tags": of.tags, "Meta": of.meta, "Check": check,
        })
    }

    /// Asks for something that must be answered with 200.
    async fn done(&self, ask: Ask) -> Result<(), String> {
        let response = self.ask(ask).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => Err(registry::refusal(&self.registration.agent, status, response.body())),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Response<Bytes>, String> {
        let ask = with_token(ask, self.registration.token.as_ref())?;
        registry::ask(&self.registration.agent, ask, ANSWER_TIMEOUT).await
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(scrubbed(self.registration.token.as_ref(), why), ADVICE)
    }
}

impl Registry for Registered {
    fn name(&self) -> String {
        let of = &self.registration;
        format!("consul {} as {} of service {}", of.agent, of.id, of.service)
    }

    fn ttl(&self) -> Duration {
        match self.registration.check {
            Check::Ttl(ttl) => ttl,
            // How often to ask whether the agent remembers.
            Check::Http { interval, .. } | Check::Grpc { interval, .. } => 3 * interval,
        }
    }

    fn announce<'a>(&'a mut self, health: &'a Health) -> Doing<'a, Announced> {
        Box::pin(async {
            let announced = self.announce_anew_or_beat(health).await;
            announced.map_err(|why| self.failure(&why))
        })
    }

    fn withdraw(&mut self) -> Doing<'_, ()> {
        Box::pin(async {
            let id = encoded(&self.registration.id);
            let ask = Ask::put(format!("/v1/agent/service/deregister/{id}"), String::new());
            let done = self.done(ask).await;
            done.map_err(|why| self.failure(&why))
        })
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
