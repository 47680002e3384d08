//! `otlp_grpc`: unary Export over HTTP/2 with prior knowledge, several connections, own framing.
//!
//! Never retries an answer: each call of `send` is one attempt. (A request that met a connection
//! in the moment of its closing is sent once more over another, within the same attempt.) Starts
//! one task per connection at the beginning. Always: every wait of an attempt, for a connection, a
//! stream, an answer, has its timeout, and an attempt that is given up resets its stream.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_net::dial::Target;
use forebay_net::glommio_io::{sleep, spawn};
use forebay_net::http2::client::{Answer, Code, Failure, RequestHead, Why};
use futures_lite::future::{or, yield_now};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::destination::OtlpGrpc;
use crate::encode::Codec;
use crate::identity::user_agent;
use crate::transport::Request;
use crate::verdict::{FailureKind, Verdict, again, answer_too_large, of_grpc, of_grpc_reset};

mod connection;
mod exchange;

use connection::{Absence, Slot};
use exchange::Exchange;

/// A connection that closes between being picked and being used is replaced this often before
/// the attempt counts as failed: nothing was sent yet.
const PICKS_MAX: usize = 3;

/// One destination's HTTP/2 connections on one exporter core.
pub(crate) struct Client {
    timeout: Duration,
    /// Why no request can be made at all; the configuration refuses such settings.
    defect: Option<String>,
    /// By `Signal::index`.
    heads: [Rc<RequestHead>; 4],
    slots: Vec<Rc<Slot>>,
    turn: Cell<usize>,
    codec: RefCell<Codec>,
}

/// How one call over one connection ended.
enum Call {
    Answered(Answer),
    Judged(Verdict),
    /// The connection closed, or refused the stream, before an answer began.
    TurnedAway(String),
    TimedOut,
}

impl Call {
    fn unanswered(failure: Failure, exchange: &Exchange) -> Call {
        let why = || match failure.why {
            Why::Ended => exchange.why(),
            why => why.to_string(),
        };
        match failure.why {
            Why::TooLarge => Call::Judged(answer_too_large()),
            _ if failure.began => Call::Judged(of_grpc_reset(why())),
            Why::Malformed(reason) if !exchange.has_answered() => {
                Call::Judged(Absence::garbage(&format!("an answer with {reason}")).verdict())
            }
            Why::Ended if exchange.is_garbage() => Call::Judged(exchange.absence().verdict()),
            Why::Ended | Why::Unprocessed(_) | Why::Reset(Code::REFUSED_STREAM) => {
                Call::TurnedAway(why())
            }
            Why::Malformed(_) | Why::Reset(_) => Call::Judged(of_grpc_reset(why())),
        }
    }
}

impl Client {
    /// `address`: `host:port`.
    pub(crate) fn start(settings: &OtlpGrpc, address: &str) -> Rc<Client> {
        let codec = Codec::new(settings.compression);
        let target = Target::parse(address);
        let uris = uris(settings.authority.as_deref().unwrap_or(address));
        let defect = match (&target, &uris) {
            (None, _) => Some(format!("the endpoint {address} names no host and port")),
            (_, Err(why)) => Some(why.clone()),
            _ => None,
        };
        let slots: Vec<Rc<Slot>> =
            (0..settings.connections.max(1)).map(|_| Rc::default()).collect();
        if let (None, Some(target)) = (&defect, target) {
            for (turn, slot) in slots.iter().enumerate() {
                let (slot, target) = (Rc::clone(slot), target.clone());
                spawn(connection::keep(slot, target, turn, settings.timeout, settings.keepalive));
            }
        }
        let headers = headers(settings, codec.grpc_name());
        let head = |uri| Rc::new(RequestHead::post(&uri, &headers));
        Rc::new(Client {
            timeout: settings.timeout,
            defect,
            heads: uris.unwrap_or_default().map(head),
            slots,
            turn: Cell::new(0),
            codec: RefCell::new(codec),
        })
    }

    /// One attempt.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Verdict {
        if let Some(defect) = &self.defect {
            return again(FailureKind::Internal, defect.clone());
        }
        let mut message = None;
        let mut may_repeat = true;
        loop {
            // Connected first: while the destination is down nothing is compressed in vain.
            let (slot, exchange) = match self.connected().await {
                Ok(connected) => connected,
                Err(absence) => return absence.verdict(),
            };
            let pieces = match message.map_or_else(|| self.encode(request), Ok) {
                Ok(pieces) => pieces,
                Err(why) => return again(FailureKind::Internal, why),
            };
            message = Some(pieces.clone());
            request.stats.sent(pieces.iter().map(|piece| piece.len() as u64).sum());
            // Only a connection that has worked can have been closed in the wrong moment.
            let had_worked = exchange.has_answered();
            match within(self.timeout, self.call(&exchange, request.signal, pieces)).await {
                Call::Answered(answer) => return self.read(&answer),
                Call::Judged(verdict) => return verdict,
                Call::TurnedAway(_) if may_repeat && had_worked => {
                    may_repeat = false;
                    if !exchange.is_usable() {
                        slot.retire(&exchange);
                    }
                    yield_now().await;
                }
                Call::TurnedAway(why) => return of_grpc_reset(why),
                Call::TimedOut => {
                    slot.mark_timeout(&exchange);
                    let text = format!("no answer within {:?}", self.timeout);
                    return again(FailureKind::Timeout, text);
                }
            }
        }
    }

    fn encode(&self, request: &Request<'_>) -> Result<Vec<Bytes>, String> {
        self.codec.borrow_mut().grpc_message(request.chain)
    }

    /// A connection that can take a request now, made if there is none.
    async fn connected(&self) -> Result<(Rc<Slot>, Rc<Exchange>), Absence> {
        let mut absence = Absence::connect(String::new());
        for _ in 0..PICKS_MAX {
            let slot = self.pick();
            let exchange = slot.exchange().await?;
            match within_connect(self.timeout, exchange.ready()).await {
                Ok(()) => return Ok((slot, exchange)),
                Err(why) => absence = why,
            }
            if !exchange.is_usable() {
                // What is in flight on it ends there, this goes over a new one.
                slot.retire(&exchange);
            }
            yield_now().await;
        }
        Err(absence)
    }

    /// Connections in turn, passing over those that could not be made lately.
    fn pick(&self) -> Rc<Slot> {
        let first = self.turn.get();
        self.turn.set(first.wrapping_add(1));
        let count = self.slots.len();
        let in_turn = (0..count).map(|i| &self.slots[first.wrapping_add(i) % count]);
        let usable = in_turn.clone().find(|slot| !slot.is_down());
        Rc::clone(usable.unwrap_or(&self.slots[first % count]))
    }

    async fn call(&self, exchange: &Rc<Exchange>, signal: Signal, message: Vec<Bytes>) -> Call {
        let Some(call) = exchange.call(&self.heads[signal.index()], message) else {
            return Call::TurnedAway(exchange.why());
        };
        match call.await {
            Ok(answer) => Call::Answered(answer),
            Err(failure) => Call::unanswered(failure, exchange),
        }
    }

    fn read(&self, answer: &Answer) -> Verdict {
        let Answer { status, headers, body, trailers } = answer;
        let decompressor = &mut self.codec.borrow_mut().decompressor;
        of_grpc(*status, headers, body, trailers.as_ref(), decompressor)
    }
}

fn uris(authority: &str) -> Result<[Uri; 4], String> {
    let mut uris = [const { None }; 4];
    for signal in Signal::ALL {
        let (version, service) = match signal {
            Signal::Traces => ("trace.v1", "TraceService"),
            Signal::Metrics => ("metrics.v1", "MetricsService"),
            Signal::Logs => ("logs.v1", "LogsService"),
            Signal::Profiles => ("profiles.v1development", "ProfilesService"),
        };
        let mut uri = format!("http://{authority}/opentelemetry.proto.collector.");
        write!(uri, "{version}.{service}/Export").expect("a String takes every write");
        let parsed = uri.parse().map_err(|error| format!("{uri} is no URI: {error}"))?;
        uris[signal.index()] = Some(parsed);
    }
    Ok(uris.map(|uri| uri.expect("each signal has its index")))
}

/// The same for every request: what gRPC needs, then what the configuration adds.
fn headers(settings: &OtlpGrpc, encoding: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let agent = settings.user_agent.clone().unwrap_or_else(user_agent);
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        headers.insert(header::USER_AGENT, agent);
    }
    if let Ok(timeout) = HeaderValue::from_str(&grpc_timeout(settings.timeout)) {
        headers.insert(HeaderName::from_static("grpc-timeout"), timeout);
    }
    if let Some(encoding) = encoding {
        let name = HeaderName::from_static("grpc-encoding");
        headers.insert(name, HeaderValue::from_static(encoding));
    }
    let accepted = HeaderValue::from_static("identity,gzip,zstd,snappy,deflate");
    headers.insert(HeaderName::from_static("grpc-accept-encoding"), accepted);
    // Several values of one name stay several; none replaces what the protocol needs.
    let needed = headers.clone();
    for (name, value) in &settings.headers {
        if !needed.contains_key(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// At most 8 digits and a unit (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..=99_999_999 => format!("{}m", millis.max(1)),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    }
}

async fn within(limit: Duration, call: impl Future<Output = Call>) -> Call {
    or(call, async {
        sleep(limit).await;
        Call::TimedOut
    })
    .await
}

async fn within_connect(
    limit: Duration,
    ready: impl Future<Output = Result<(), Absence>>,
) -> Result<(), Absence> {
    or(ready, async {
        sleep(limit).await;
        let why = format!("the destination took no further request for {limit:?}");
        Err(Absence::connect(why))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grpc_timeout_has_at_most_eight_digits() {
        assert_eq!(grpc_timeout(Duration::from_secs(5)), "5000m");
        assert_eq!(grpc_timeout(Duration::ZERO), "1m");
        assert_eq!(grpc_timeout(Duration::from_secs(100_000)), "100000S");
        assert_eq!(grpc_timeout(Duration::MAX), "99999999S");
    }
}
