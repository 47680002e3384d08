//! `otlp_http`: POST over HTTP/1.1 with kept-alive connections, in cleartext or through TLS,
//! protobuf or JSON.
//!
//! Never retries an answer: each call of `send` is one attempt. (A request that met a kept-alive
//! connection in the moment of its closing is sent once more over a fresh one, to the same endpoint
//! within the same attempt; that is counted.) Always: at most `connections` requests are in flight,
//! and each wait of an attempt, for its turn, a connection, an answer, ends within the timeout.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_net::glommio_io::sleep;
use forebay_net::tls::outward::Initiator;
use futures_lite::future::or;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::checkup::Finding;
use crate::destination::{self, Encoding, OtlpHttp};
use crate::encode::Codec;
use crate::identity::user_agent;
use crate::lane::Lane;
use crate::transport::{Request, Tended};
use crate::verdict::{
    ANSWER_BYTES_MAX, ERROR_BODY_BYTES_MAX, FailureKind, Verdict, again, answer_too_large, of_http,
};

mod body;
mod pool;

use body::ChainBody;
use pool::{Pool, Pooled, Rules};

/// What the clients of one destination share on one exporter core.
pub(crate) struct Wire {
    settings: OtlpHttp,
    rules: Rules,
    headers: HeaderMap,
    codec: RefCell<Codec>,
    lane: Arc<Lane>,
    /// `None`: cleartext.
    initiator: Option<Arc<Initiator>>,
}

/// One endpoint's HTTP/1.1 connections on one exporter core.
pub(crate) struct Client {
    wire: Rc<Wire>,
    /// What requests name as their host; `None`: the URL's authority.
    host: Option<HeaderValue>,
    pool: Rc<Pool>,
}

/// How one exchange over one connection ended.
enum Exchange {
    Answered(Verdict),
    /// The connection closed before a byte of the answer came.
    Closed(FailureKind, String),
}

impl Wire {
    pub(crate) fn new(
        settings: &OtlpHttp,
        pool: destination::Pool,
        lane: &Arc<Lane>,
        initiator: Option<Arc<Initiator>>,
    ) -> Rc<Wire> {
        let codec = Codec::new(settings.compression);
        Rc::new(Wire {
            rules: Rules::of(settings, pool),
            headers: headers(settings, codec.http_name()),
            codec: RefCell::new(codec),
            settings: settings.clone(),
            lane: Arc::clone(lane),
            initiator,
        })
    }
}

impl Client {
    /// `address`: `host:port`. Connects to nothing yet.
    pub(crate) fn new(wire: &Rc<Wire>, address: &str) -> Rc<Client> {
        let is_own = wire.settings.authority_of_endpoint;
        let host = is_own.then(|| HeaderValue::from_str(address).ok());
        let (lane, initiator) = (Arc::clone(&wire.lane), wire.initiator.clone());
        let pool = Pool::new(address, wire.rules, lane, initiator);
        Rc::new(Client { host: host.flatten(), pool: Rc::new(pool), wire: Rc::clone(wire) })
    }

    /// One attempt.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Verdict {
        let timeout = self.wire.settings.timeout;
        let url = &self.wire.settings.urls[request.signal.index()];
        let permit = or(async { Some(self.pool.permit().await) }, async {
            sleep(timeout).await;
            None
        });
        let Some(_permit) = permit.await else {
            let count = self.wire.rules.connections_max;
            let text = format!("all {count} connections were busy for {timeout:?}");
            return again(FailureKind::Timeout, text);
        };
        let mut connection = match self.pool.connection().await {
            Ok(connection) => connection,
            Err(absence) => return absence.verdict(),
        };
        let body = match self.encode(request) {
            Ok(body) => body,
            Err(why) => return again(FailureKind::Internal, why),
        };
        let bytes = body.iter().map(|piece| piece.len() as u64).sum();
        loop {
            request.stats.sent(bytes);
            let had_worked = connection.has_worked;
            let exchange = self.exchange(connection, url, body.clone());
            match within(timeout, exchange).await {
                Exchange::Answered(verdict) => return verdict,
                Exchange::Closed(..) if had_worked => {
                    request.stats.repeated();
                    match self.pool.fresh().await {
                        Ok(fresh) => connection = fresh,
                        Err(absence) => return absence.verdict(),
                    }
                }
                Exchange::Closed(kind, why) => return again(kind, why),
            }
        }
    }

    fn encode(&self, request: &Request<'_>) -> Result<Vec<Bytes>, String> {
        let mut codec = self.wire.codec.borrow_mut();
        let (signal, chain) = (request.signal, request.chain);
        match self.wire.settings.encoding {
            Encoding::Json => request.packed.get_or_pack(|| codec.json_body(signal, chain)),
            Encoding::Proto if codec.http_name().is_some() => {
                request.packed.get_or_pack(|| codec.http_body(chain))
            }
            // The batch's own bytes.
            Encoding::Proto => codec.http_body(chain),
        }
    }

    /// Sends over `connection` and gives it back to the pool if it can carry another request.
    async fn exchange(&self, mut connection: Pooled, url: &Uri, body: Vec<Bytes>) -> Exchange {
        let request = self.request(url, body);
        let answer = match connection.sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_parse() => {
                let text = format!("the answer is no HTTP: {}", said(&error));
                return Exchange::Answered(again(FailureKind::Garbage, text));
            }
            Err(error) => {
                let text = format!("the connection ended without an answer: {}", said(&error));
                let kind = FailureKind::of_line(&error, FailureKind::Disconnected);
                return Exchange::Closed(kind, text);
            }
        };
        let (head, body) = answer.into_parts();
        let bytes_max = match head.status.is_success() {
            true => ANSWER_BYTES_MAX,
            false => ERROR_BODY_BYTES_MAX,
        };
        let (body, whole) = match read(body, bytes_max).await {
            Ok(read) => read,
            // An error's status is clear without its body; a success is one only when whole.
            Err(_) if !head.status.is_success() => (Vec::new(), false),
            Err(error) => {
                let text = format!("the answer broke off: {}", said(&error));
                return Exchange::Answered(again(FailureKind::Disconnected, text));
            }
        };
        if whole {
            self.pool.give_back(connection);
        } else if head.status.is_success() {
            return Exchange::Answered(answer_too_large());
        }
        // A Retry-After may be a date, so the wall clock is needed here and nowhere else.
        let now = SystemTime::now();
        let decompressor = &mut self.wire.codec.borrow_mut().decompressor;
        Exchange::Answered(of_http(head.status, &head.headers, &body, now, decompressor))
    }

    fn request(&self, url: &Uri, body: Vec<Bytes>) -> http::Request<ChainBody> {
        let mut request = http::Request::new(ChainBody::new(body));
        *request.method_mut() = Method::POST;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().expect("a part of a URI is a URI");
        *request.headers_mut() = self.wire.headers.clone();
        let of_url = || url.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let host = self.host.clone().or_else(of_url);
        if let Some(host) = host.filter(|_| !self.wire.headers.contains_key(header::HOST)) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }
}

impl Tended for Client {
    fn keep_warm(&self, is_warm: bool) {
        self.pool.keep_warm(is_warm);
    }

    async fn ask_health(&self, _service: &str) -> Finding {
        // The protocol is gRPC's.
        Finding::NoHealthService
    }
}

/// The same for every request: what OTLP/HTTP needs, then what the configuration adds.
fn headers(settings: &OtlpHttp, encoding: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let media = match settings.encoding {
        Encoding::Proto => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    let agent = settings.user_agent.clone().unwrap_or_else(user_agent);
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        headers.insert(header::USER_AGENT, agent);
    }
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    // Several values of one name stay several; none replaces what the protocol needs.
    let needed = headers.clone();
    for (name, value) in &settings.headers {
        if !needed.contains_key(name) && name != header::CONTENT_LENGTH {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// The body up to `bytes_max`, and whether that is all of it.
async fn read(mut body: Incoming, bytes_max: usize) -> hyper::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bytes_max {
            bytes.extend_from_slice(&data[..bytes_max - bytes.len()]);
            return Ok((bytes, false));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, true))
}

async fn within(limit: Duration, exchange: impl Future<Output = Exchange>) -> Exchange {
    or(exchange, async {
        sleep(limit).await;
        let text = format!("no answer within {limit:?}");
        Exchange::Answered(again(FailureKind::Timeout, text))
    })
    .await
}

/// hyper's error with its cause, which it does not print by itself.
fn said(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
