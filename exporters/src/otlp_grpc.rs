//! `otlp_grpc`: unary Export over HTTP/2 with prior knowledge, several connections, own framing.
//!
//! Never retries an answer: each call of `send` is one attempt. (A request that met a connection
//! in the moment of its closing is sent once more over another, within the same attempt.) Starts
//! one task per connection at the beginning. Always: an attempt ends within the connect and the
//! request timeout, and one that is given up resets its stream.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_codec::signal::Signal;
use forebay_net::dial::Target;
use forebay_net::glommio_io::{sleep, spawn};
use futures_lite::future::{or, yield_now};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

use crate::destination::OtlpGrpc;
use crate::encode::Codec;
use crate::identity::user_agent;
use crate::transport::Request;
use crate::verdict::{
    ANSWER_BYTES_MAX, FailureKind, Verdict, again, answer_too_large, of_grpc, of_grpc_reset,
};

mod connection;
mod wire;

use connection::{Absence, Record, Slot, is_garbage, no_http2};

const PORT_DEFAULT: u16 = 4317;
/// A connection that closes between being picked and being used is replaced this often before
/// the attempt counts as failed: nothing was sent yet.
const PICKS_MAX: usize = 3;

/// One destination's HTTP/2 connections on one exporter core.
pub(crate) struct Client {
    timeout: Duration,
    /// Why no request can be made at all; the configuration refuses such settings.
    defect: Option<String>,
    /// By `Signal::index`.
    uris: [Uri; 4],
    headers: HeaderMap,
    slots: Vec<Rc<Slot>>,
    turn: Cell<usize>,
    codec: RefCell<Codec>,
}

/// How one call over one connection ended.
enum Call {
    Answered(Verdict),
    /// The connection closed, or refused the stream, before an answer began.
    TurnedAway(h2::Error),
    TimedOut,
}

impl Call {
    fn unanswered(error: h2::Error, record: &Record) -> Call {
        if is_garbage(&error, record) {
            return Call::Answered(again(FailureKind::Garbage, no_http2(&error)));
        }
        let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if is_refused || error.is_go_away() || error.is_io() {
            Call::TurnedAway(error)
        } else {
            Call::Answered(of_grpc_reset(error))
        }
    }
}

impl Client {
    pub(crate) fn start(settings: &OtlpGrpc) -> Rc<Client> {
        let codec = Codec::new(settings.compression);
        let target = Target::of(&settings.endpoint, PORT_DEFAULT);
        let uris = uris(settings);
        let defect = match (&target, &uris) {
            (None, _) => Some(format!("the endpoint {} names no host", settings.endpoint)),
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
        Rc::new(Client {
            timeout: settings.timeout,
            defect,
            uris: uris.unwrap_or_default(),
            headers: headers(settings, codec.grpc_name()),
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
            let (slot, client, record) = match self.connected().await {
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
            let had_worked = record.has_answered();
            let _active = slot.activity();
            match within(self.timeout, self.call(&record, client, request.signal, pieces)).await {
                Call::Answered(verdict) => return verdict,
                Call::TurnedAway(_) if may_repeat && had_worked => {
                    may_repeat = false;
                    slot.retire(&record);
                    yield_now().await;
                }
                Call::TurnedAway(error) => return of_grpc_reset(error),
                Call::TimedOut => {
                    slot.mark_timeout(&record);
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
    async fn connected(&self) -> Result<(Rc<Slot>, SendRequest<Bytes>, Rc<Record>), Absence> {
        let mut absence = Absence::connect(String::new());
        for _ in 0..PICKS_MAX {
            let slot = self.pick();
            let (client, record) = slot.client().await?;
            match within_connect(self.timeout, client.ready(), &record).await {
                Ok(client) => return Ok((slot, client, record)),
                Err(why) => absence = why,
            }
            // It is going away: what is in flight on it ends there, this goes over a new one.
            slot.retire(&record);
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

    async fn call(
        &self,
        record: &Record,
        mut client: SendRequest<Bytes>,
        signal: Signal,
        message: Vec<Bytes>,
    ) -> Call {
        let mut head = http::Request::new(());
        *head.method_mut() = Method::POST;
        *head.version_mut() = Version::HTTP_2;
        *head.uri_mut() = self.uris[signal.index()].clone();
        *head.headers_mut() = self.headers.clone();
        let (answer, mut body) = match client.send_request(head, false) {
            Ok(sending) => sending,
            Err(error) => return Call::unanswered(error, record),
        };
        let last = message.len() - 1;
        for (index, piece) in message.into_iter().enumerate() {
            // A peer may answer and close before it has read everything: its answer says why.
            if body.send_data(piece, index == last).is_err() {
                break;
            }
        }
        match answer.await {
            Ok(answer) => {
                record.mark_answered();
                Call::Answered(self.read(answer).await)
            }
            Err(error) => Call::unanswered(error, record),
        }
    }

    async fn read(&self, answer: http::Response<RecvStream>) -> Verdict {
        let (head, mut body) = answer.into_parts();
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = match data {
                Ok(data) => data,
                Err(error) => return of_grpc_reset(error),
            };
            // A stream that is already closed needs no window.
            let _ = body.flow_control().release_capacity(data.len());
            if message.len() + data.len() > ANSWER_BYTES_MAX {
                return answer_too_large();
            }
            message.extend_from_slice(&data);
        }
        let trailers = match body.trailers().await {
            Ok(trailers) => trailers,
            Err(error) => return of_grpc_reset(error),
        };
        let decompressor = &mut self.codec.borrow_mut().decompressor;
        of_grpc(head.status, &head.headers, &message, trailers.as_ref(), decompressor)
    }
}

fn uris(settings: &OtlpGrpc) -> Result<[Uri; 4], String> {
    let authority = match (&settings.authority, settings.endpoint.authority()) {
        (Some(authority), _) => authority.clone(),
        (None, Some(authority)) => authority.to_string(),
        (None, None) => return Err(format!("the endpoint {} names no host", settings.endpoint)),
    };
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

async fn within_connect<T>(
    limit: Duration,
    ready: impl Future<Output = Result<T, h2::Error>>,
    record: &Record,
) -> Result<T, Absence> {
    or(async { ready.await.map_err(|error| Absence::ended(&error, record)) }, async {
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
