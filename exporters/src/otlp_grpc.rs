//! `otlp_grpc`: unary Export over HTTP/2, in cleartext with prior knowledge or through TLS, several
//! connections, own framing.
//!
//! Never retries an answer: each call of `send` is one attempt. (A request that met a connection
//! in the moment of its closing is sent once more, to the same endpoint, within the same attempt;
//! that is counted.) Always: every wait of an attempt, for a connection, a stream, an answer, has
//! its timeout, and an attempt that is given up resets its stream. A client that is dropped ends
//! its connections after their last call.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_net::dial::Target;
use forebay_net::glommio_io::sleep;
use forebay_net::http2::client::{Answer, Code, Failure, RequestHead, Why};
use forebay_net::tls::outward::Initiator;
use futures_lite::future::{or, yield_now};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::checkup::Finding;
use crate::destination::{OtlpGrpc, Pool};
use crate::encode::Codec;
use crate::identity::user_agent;
use crate::lane::Lane;
use crate::transport::{Request, Tended};
use crate::verdict::{FailureKind, Verdict, again, answer_too_large, of_grpc, of_grpc_reset};

mod connections;
mod exchange;
mod health;
mod keeper;

use connections::{Absence, Connections, Rules};
use exchange::Exchange;

/// So many requests in a row without an answer retire a connection: one may be a slow request's.
const TIMEOUTS_MAX: u32 = 2;

/// What the clients of one destination share on one exporter core.
pub(crate) struct Wire {
    settings: OtlpGrpc,
    rules: Rules,
    headers: HeaderMap,
    codec: RefCell<Codec>,
    lane: Arc<Lane>,
    /// `None`: cleartext.
    initiator: Option<Arc<Initiator>>,
}

/// One endpoint's HTTP/2 connections on one exporter core.
pub(crate) struct Client {
    wire: Rc<Wire>,
    /// By `Signal::index`.
    heads: [Rc<RequestHead>; 4],
    health_head: OnceCell<Rc<RequestHead>>,
    authority: String,
    /// The error says why no request can be made at all; the configuration refuses such settings.
    connections: Result<Rc<Connections>, String>,
}

/// How one call over one connection ended.
enum Call {
    Answered(Answer),
    Judged(Verdict),
    /// The connection closed, or refused the stream, before an answer began.
    TurnedAway {
        why: String,
        /// The peer says that it has not looked at it.
        is_untouched: bool,
    },
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
            Why::Ended if exchange.is_hopeless() => Call::Judged(exchange.absence().verdict()),
            Why::Unprocessed(_) | Why::Reset(Code::REFUSED_STREAM) => {
                Call::TurnedAway { why: why(), is_untouched: true }
            }
            Why::Ended => Call::TurnedAway { why: why(), is_untouched: false },
            Why::Malformed(_) | Why::Reset(_) => Call::Judged(of_grpc_reset(why())),
        }
    }
}

impl Wire {
    pub(crate) fn new(
        settings: &OtlpGrpc,
        pool: Pool,
        lane: &Arc<Lane>,
        initiator: Option<Arc<Initiator>>,
    ) -> Rc<Wire> {
        let codec = Codec::new(settings.compression);
        Rc::new(Wire {
            rules: Rules::of(settings, pool),
            headers: headers(settings, codec.grpc_name()),
            codec: RefCell::new(codec),
            settings: settings.clone(),
            lane: Arc::clone(lane),
            initiator,
        })
    }

    fn scheme(&self) -> &'static str {
        match self.initiator {
            Some(_) => "https",
            None => "http",
        }
    }
}

impl Client {
    /// `address`: `host:port`. Connects to nothing yet.
    pub(crate) fn new(wire: &Rc<Wire>, address: &str) -> Rc<Client> {
        let authority = wire.settings.authority.as_deref().unwrap_or(address);
        let uris = uris(wire.scheme(), authority);
        let target = Target::parse(address)
            .ok_or_else(|| format!("the endpoint {address} names no host and port"));
        let connections = uris.as_ref().map_err(String::clone).and(target).map(|target| {
            let (count, lane) = (wire.settings.connections, Arc::clone(&wire.lane));
            Rc::new(Connections::new(target, count, wire.rules, lane, wire.initiator.clone()))
        });
        let head = |uri| Rc::new(RequestHead::post(&uri, &wire.headers));
        Rc::new(Client {
            heads: uris.unwrap_or_default().map(head),
            health_head: OnceCell::new(),
            authority: authority.to_owned(),
            connections,
            wire: Rc::clone(wire),
        })
    }

    /// One attempt. Takes four timeouts at most.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Verdict {
        let connections = match &self.connections {
            Ok(connections) => connections,
            Err(defect) => return again(FailureKind::Internal, defect.clone()),
        };
        let (began, timeout) = (Instant::now(), self.wire.settings.timeout);
        let mut message = None;
        let mut may_repeat = true;
        loop {
            // Connected first: while the destination is down nothing is compressed in vain.
            let exchange = match connections.take().await {
                Ok(exchange) => exchange,
                Err(absence) => return absence.verdict(),
            };
            let pieces = match message.map_or_else(|| self.encode(request), Ok) {
                Ok(pieces) => pieces,
                Err(why) => return again(FailureKind::Internal, why),
            };
            message = Some(pieces.clone());
            request.stats.sent(pieces.iter().map(|piece| piece.len() as u64).sum());
            let had_worked = exchange.has_worked();
            let head = &self.heads[request.signal.index()];
            match within(timeout, call(&exchange, head, pieces)).await {
                Call::Answered(answer) => return self.read(&answer),
                Call::Judged(verdict) => return verdict,
                Call::TurnedAway { is_untouched, .. }
                    if may_repeat && (had_worked || is_untouched) && began.elapsed() < timeout =>
                {
                    may_repeat = false;
                    request.stats.repeated();
                    yield_now().await;
                }
                Call::TurnedAway { why, .. } => return of_grpc_reset(why),
                Call::TimedOut => {
                    if exchange.mark_timeout() >= TIMEOUTS_MAX {
                        // What is in flight on it ends there, the next goes over a new one.
                        exchange.leave();
                    }
                    let text = format!("no answer within {timeout:?}");
                    return again(FailureKind::Timeout, text);
                }
            }
        }
    }

    fn encode(&self, request: &Request<'_>) -> Result<Vec<Bytes>, String> {
        let mut codec = self.wire.codec.borrow_mut();
        match codec.grpc_name() {
            Some(_) => request.packed.get_or_pack(|| codec.grpc_message(request.chain)),
            // Nothing but a prefix: not worth to be kept.
            None => codec.grpc_message(request.chain),
        }
    }

    fn read(&self, answer: &Answer) -> Verdict {
        let Answer { status, headers, body, trailers } = answer;
        let decompressor = &mut self.wire.codec.borrow_mut().decompressor;
        of_grpc(*status, headers, body, trailers.as_ref(), decompressor)
    }

    fn health_head(&self) -> &Rc<RequestHead> {
        self.health_head.get_or_init(|| {
            let uri = format!("{}://{}{}", self.wire.scheme(), self.authority, health::PATH);
            let uri = uri.parse().expect("the same authority is in the heads of the signals");
            Rc::new(RequestHead::post(&uri, &health::headers(&self.wire.headers)))
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Ok(connections) = &self.connections {
            connections.close();
        }
    }
}

impl Tended for Client {
    fn keep_warm(&self, is_warm: bool) {
        if let Ok(connections) = &self.connections {
            connections.keep_warm(is_warm);
        }
    }

    async fn ask_health(&self, service: &str) -> Finding {
        let connections = match &self.connections {
            Ok(connections) => connections,
            Err(defect) => return Finding::trouble(FailureKind::Internal, defect),
        };
        let exchange = match connections.take().await {
            Ok(exchange) => exchange,
            Err(absence) => return Finding::trouble(absence.kind, absence.why),
        };
        let message = vec![health::request(service)];
        match call(&exchange, self.health_head(), message).await {
            Call::Answered(answer) => {
                let decompressor = &mut self.wire.codec.borrow_mut().decompressor;
                health::finding(&answer, service, decompressor)
            }
            Call::Judged(Verdict::Failed(failure)) => {
                Finding::trouble(failure.kind, failure.message)
            }
            Call::TurnedAway { why, .. } => Finding::trouble(FailureKind::Disconnected, why),
            Call::Judged(Verdict::Delivered { .. }) | Call::TimedOut => {
                Finding::trouble(FailureKind::Timeout, "no answer")
            }
        }
    }
}

async fn call(exchange: &Rc<Exchange>, head: &Rc<RequestHead>, message: Vec<Bytes>) -> Call {
    let Some(call) = exchange.call(head, message) else {
        return Call::TurnedAway { why: exchange.why(), is_untouched: true };
    };
    match call.await {
        Ok(answer) => Call::Answered(answer),
        Err(failure) => Call::unanswered(failure, exchange),
    }
}

fn uris(scheme: &str, authority: &str) -> Result<[Uri; 4], String> {
    let mut uris = [const { None }; 4];
    for signal in Signal::ALL {
        let (version, service) = match signal {
            Signal::Traces => ("trace.v1", "TraceService"),
            Signal::Metrics => ("metrics.v1", "MetricsService"),
            Signal::Logs => ("logs.v1", "LogsService"),
            Signal::Profiles => ("profiles.v1development", "ProfilesService"),
        };
        let mut uri = format!("{scheme}://{authority}/opentelemetry.proto.collector.");
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
