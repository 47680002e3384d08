//! Consul: the healthy instances of a service by blocking queries, and an instance of our own.
//!
//! Who counts as healthy is decided as Consul's own DNS does it: an instance with a critical check
//! is out, one with a warning has the weight it asked for in that case.

use std::time::Duration;

use ::http::StatusCode;
use serde::Deserialize;

use super::endpoint::{Endpoint, shortened};
use super::http::{self, Ask};
use super::keeper::Pace;
use super::secret::Secret;
use super::source::{Again, Answer, Failure, Look, Source};

mod registration;

pub use self::registration::{Check, Registration};
pub use super::http::{Address, Scheme};

pub(super) use self::registration::Registered;

pub const PORT_DEFAULT: u16 = 8500;
/// Where Consul's own manual has HTTPS.
pub const PORT_TLS_DEFAULT: u16 = 8501;
pub const PACE: Pace = Pace {
    interval_min: Duration::from_secs(1),
    interval_max: Duration::from_secs(60),
    backoff_max: Duration::from_secs(30),
};
/// Beyond the time that the agent was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ADVICE: &str = "check that the Consul agent runs, has a leader, and takes the token";

#[derive(Clone, Debug)]
pub struct Consul {
    pub agent: Address,
    pub service: String,
    /// Instances must have all of them.
    pub tags: Vec<String>,
    /// `None`: the agent's own.
    pub datacenter: Option<String>,
    pub token: Option<Secret>,
    /// Whether any server may answer, and not the leader alone: cheaper, and possibly a moment old.
    pub stale: bool,
}

impl Consul {
    pub fn of(agent: Address, service: impl Into<String>) -> Consul {
        let (tags, datacenter, token) = (Vec::new(), None, None);
        Consul { agent, service: service.into(), tags, datacenter, token, stale: true }
    }
}

pub(super) struct ConsulSource {
    consul: Consul,
    wait: Duration,
    /// Of the last answer; 0: the next question is answered at once.
    index: u64,
}

impl ConsulSource {
    pub(super) fn new(consul: Consul, pace: Pace) -> ConsulSource {
        // Consul takes whole seconds up to ten minutes.
        let wait = pace.interval_max.clamp(Duration::from_secs(1), Duration::from_secs(600));
        ConsulSource { consul, wait, index: 0 }
    }

    async fn ask(&mut self) -> Result<Answer, String> {
        let index = std::mem::take(&mut self.index);
        // Consul adds up to a sixteenth to the wait.
        let timeout = self.wait + self.wait / 16 + ANSWER_TIMEOUT;
        let ask = Ask::get(self.path(index));
        let ask = with_token(ask, self.consul.token.as_ref())?;
        // Until there is an answer the index is 0: after a failure the next one comes at once.
        let response = http::ask(&self.consul.agent, ask, timeout).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(http::refusal(&self.consul.agent, status, response.body()));
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let entries: Vec<Entry> = serde_json::from_slice(response.body())
            .map_err(|error| format!("{} answers no list: {error}", self.consul.agent))?;
        let answered: u64 = header("x-consul-index").and_then(|at| at.parse().ok()).unwrap_or(0);
        // One that goes back is of a server that was restored: ask anew.
        self.index = if answered < index { 0 } else { answered };
        let mut answer = answer(entries);
        if header("x-consul-knownleader") == Some("false") {
            let agent = &self.consul.agent;
            answer.notes.push(format!("{agent} knows no leader, the answer may be old"));
        }
        Ok(answer)
    }

    fn path(&self, index: u64) -> String {
        let mut path = format!("/v1/health/service/{}?", encoded(&self.consul.service));
        if index > 0 {
            path += &format!("index={index}&wait={}s&", self.wait.as_secs());
        }
        for tag in &self.consul.tags {
            path += &format!("tag={}&", encoded(tag));
        }
        if let Some(datacenter) = &self.consul.datacenter {
            path += &format!("dc={}&", encoded(datacenter));
        }
        path + if self.consul.stale { "stale" } else { "" }
    }
}

impl Source for ConsulSource {
    fn name(&self) -> String {
        format!("consul {} service {}", self.consul.agent, shortened(&self.consul.service))
    }

    fn look(&mut self) -> Look<'_> {
        Box::pin(async {
            let token = self.consul.token.clone();
            let asked = self.ask().await;
            asked.map_err(|why| Failure::new(scrubbed(token.as_ref(), &why), ADVICE))
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Vec<NodeCheck>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    /// Empty: the node's.
    #[serde(default)]
    address: String,
    port: u16,
    #[serde(default)]
    meta: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeCheck {
    status: String,
}

fn answer(entries: Vec<Entry>) -> Answer {
    let mut answer = Answer { again: Again::AtOnce, ..Answer::default() };
    for entry in entries {
        let has = |status| entry.checks.iter().any(|check| check.status == status);
        if entry.checks.iter().any(|check| !matches!(&*check.status, "passing" | "warning")) {
            continue;
        }
        let is_warned = has("warning");
        let service = entry.service;
        let host = match service.address.is_empty() {
            true => &entry.node.address,
            false => &service.address,
        };
        match Endpoint::at(host, service.port) {
            Ok(mut endpoint) => {
                for (name, value) in service.meta.iter().flatten() {
                    endpoint.describe(name, value);
                }
                let weight = service.weights.map_or(1, |weights| match is_warned {
                    true => weights.warning,
                    false => weights.passing,
                });
                answer.endpoints.push(endpoint.weighing(weight));
            }
            Err(why) => {
                answer.notes.push(format!("instance {}: {why}", shortened(&service.id)));
            }
        }
    }
    answer
}

fn with_token(ask: Ask, token: Option<&Secret>) -> Result<Ask, String> {
    match token {
        Some(token) => ask.with_secret("x-consul-token", token),
        None => Ok(ask),
    }
}

fn scrubbed(token: Option<&Secret>, text: &str) -> String {
    token.map_or_else(|| text.to_owned(), |token| token.scrub(text))
}

/// A text as part of a path or a query (RFC 3986).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
