//! The calls of etcd that are needed, as JSON over HTTP/1.1.
//!
//! Always: where one member of the cluster fails the next is asked, each once; a token that etcd
//! no longer takes is replaced once for a call.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::User;
use crate::discovery::http::{self as registry, Address, Ask, Lines};
use crate::discovery::secret::Secret;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Client {
    members: Vec<Address>,
    /// Which of them answered last.
    at: usize,
    user: Option<User>,
    token: Option<Secret>,
}

/// A key's new value; `None`: it is gone.
pub(super) struct Event {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// All keys under a prefix at one revision.
pub(super) struct Snapshot {
    pub(super) revision: i64,
    pub(super) events: Vec<Event>,
}

impl Client {
    pub(super) fn new(members: Vec<Address>, user: Option<User>) -> Client {
        Client { members, at: 0, user, token: None }
    }

    /// For logs.
    pub(super) fn members(&self) -> String {
        let mut all = String::new();
        for (at, member) in self.members.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a text can't fail.
            let _ = write!(all, "{comma}{member}");
        }
        all
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        let password = self.user.as_ref().map(|user| &user.password);
        let secrets = password.into_iter().chain(&self.token);
        secrets.fold(text.to_owned(), |text, secret| secret.scrub(&text))
    }

    pub(super) async fn range(&mut self, prefix: &[u8]) -> Result<Snapshot, String> {
        let body = json!({"key": coded(prefix), "range_end": coded(&range_end(prefix))});
        let range: Range = self.call("/v3/kv/range", &body).await?;
        let events = range.kvs.into_iter().map(|kv| kv.event(true)).collect::<Result<_, _>>()?;
        Ok(Snapshot { revision: number(&range.header.revision)?, events })
    }

    /// Everything under the prefix from `revision` on.
    pub(super) async fn watch(&mut self, prefix: &[u8], revision: i64) -> Result<Watched, String> {
        let range_end = coded(&range_end(prefix));
        let body = json!({"create_request": {
            "key": coded(prefix), "range_end": range_end, "start_revision": revision.to_string(),
        }});
        let ask = self.authorised(Ask::post("/v3/watch", body.to_string()))?;
        let lines = registry::open(self.member()?, ask, ANSWER_TIMEOUT).await?;
        Ok(Watched { lines })
    }

    pub(super) async fn put(&mut self, key: &str, value: &str, lease: &str) -> Result<(), String> {
        let (key, value) = (coded(key.as_bytes()), coded(value.as_bytes()));
        let body = json!({"key": key, "value": value, "lease": lease});
        self.call::<Value>("/v3/kv/put", &body).await.map(drop)
    }

    /// The lease that a key hangs on, if the key is there.
    pub(super) async fn lease_of(&mut self, key: &str) -> Result<Option<String>, String> {
        let body = json!({"key": coded(key.as_bytes())});
        let range: Range = self.call("/v3/kv/range", &body).await?;
        Ok(range.kvs.into_iter().next().map(|kv| kv.lease))
    }

    /// Its number.
    pub(super) async fn grant(&mut self, ttl: Duration) -> Result<String, String> {
        let body = json!({"TTL": ttl.as_secs().max(1).to_string()});
        let granted: Lease = self.call("/v3/lease/grant", &body).await?;
        Ok(granted.id)
    }

    /// Whether the lease lives.
    pub(super) async fn keep_alive(&mut self, lease: &str) -> Result<bool, String> {
        let kept: Streamed<Lease> = self.call("/v3/lease/keepalive", &json!({"ID": lease})).await?;
        let kept = kept.result.ok_or("the answer to a sign of life has no result")?;
        Ok(number(&kept.ttl).is_ok_and(|ttl| ttl > 0))
    }

    pub(super) async fn revoke(&mut self, lease: &str) -> Result<(), String> {
        self.call::<Value>("/v3/lease/revoke", &json!({"ID": lease})).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(&mut self, path: &str, body: &Value) -> Result<T, String> {
        let body = body.to_string();
        let mut failures = String::new();
        for _ in 0..self.members.len() {
            let answer = match self.answer(path, &body).await {
                Err(refusal) if self.user.is_some() && refusal.is_of_token() => {
                    self.token = None;
                    self.answer(path, &body).await
                }
                answer => answer,
            };
            match answer {
                Ok(bytes) => {
                    let bad = |error| format!("{path} answers what it should not: {error}");
                    return serde_json::from_slice(&bytes).map_err(bad);
                }
                Err(refusal) => {
                    let semicolon = if failures.is_empty() { "" } else { "; " };
                    let _ = write!(failures, "{semicolon}{}", refusal.what);
                    self.at = (self.at + 1) % self.members.len();
                }
            }
        }
        Err(if failures.is_empty() { "no member is named".to_owned() } else { failures })
    }

    async fn answer(&mut self, path: &str, body: &str) -> Result<Bytes, Refusal> {
        self.authenticate().await?;
        let ask = self.authorised(Ask::post(path, body.to_owned()))?;
        self.send(ask).await
    }

    async fn authenticate(&mut self) -> Result<(), Refusal> {
        let (Some(user), None) = (&self.user, &self.token) else {
            return Ok(());
        };
        let body = json!({"name": user.name, "password": user.password.reveal()});
        let answer = self.send(Ask::post("/v3/auth/authenticate", body.to_string())).await?;
        let token: Token = serde_json::from_slice(&answer)
            .map_err(|_| "the answer to a password has no token".to_owned())?;
        self.token = Some(Secret::new(token.token));
        Ok(())
    }

    fn authorised(&self, ask: Ask) -> Result<Ask, String> {
        match &self.token {
            Some(token) => ask.with_secret("authorization", token),
            None => Ok(ask),
        }
    }

    async fn send(&self, ask: Ask) -> Result<Bytes, Refusal> {
        let member = self.member()?;
        let response = registry::ask(member, ask, ANSWER_TIMEOUT).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            status => Err(Refusal {
                what: registry::refusal(member, status, response.body()),
                status: Some(status),
            }),
        }
    }

    fn member(&self) -> Result<&Address, String> {
        self.members.get(self.at).ok_or_else(|| "no member is named".to_owned())
    }
}

/// A watch that is under way.
pub(super) struct Watched {
    lines: Lines,
}

impl Watched {
    /// The changes of the next message; the error: the watch is over, whatever the reason.
    pub(super) async fn next(&mut self) -> Result<Vec<Event>, String> {
        let line = self.lines.next().await?;
        changes(line)
    }

    /// The same, if there is one already.
    pub(super) fn ready(&mut self) -> Option<Result<Vec<Event>, String>> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match self.lines.poll_next(&mut context) {
            std::task::Poll::Ready(line) => Some(line.and_then(changes)),
            std::task::Poll::Pending => None,
        }
    }
}

struct Refusal {
    what: String,
    status: Option<StatusCode>,
}

impl Refusal {
    /// etcd says it in words, with a status that depends on the version.
    fn is_of_token(&self) -> bool {
        self.status == Some(StatusCode::UNAUTHORIZED)
            || self.status.is_some() && self.what.contains("invalid auth token")
    }
}

impl From<String> for Refusal {
    fn from(what: String) -> Refusal {
        Refusal { what, status: None }
    }
}

#[derive(Deserialize)]
struct Header {
    /// Numbers of 64 bits are texts in this JSON.
    revision: String,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Deserialize)]
struct Kv {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    lease: String,
}

#[derive(Deserialize)]
struct Lease {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "TTL", default)]
    ttl: String,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Streamed<T> {
    #[serde(default = "Option::default")]
    result: Option<T>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "type", default)]
    kind: String,
    kv: Kv,
}

impl Kv {
    fn event(self, is_put: bool) -> Result<Event, String> {
        let plain = |text: &str| STANDARD.decode(text).map_err(|_| "a key is no base64".to_owned());
        let value = if is_put { Some(plain(&self.value)?) } else { None };
        Ok(Event { key: plain(&self.key)?, value })
    }
}

fn changes(line: Option<Bytes>) -> Result<Vec<Event>, String> {
    let line = line.ok_or("it ended")?;
    let message: Streamed<Message> =
        serde_json::from_slice(&line).map_err(|error| error.to_string())?;
    // An error has no result; so has a revision that is compacted away.
    let message = message.result.filter(|message| !message.canceled).ok_or("etcd ended it")?;
    message.events.into_iter().map(|change| change.kv.event(change.kind != "DELETE")).collect()
}

fn coded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The first key behind all that begin with `prefix`.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's word for "to the end of all keys".
    vec![0]
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "a number is missing".to_owned())
}
