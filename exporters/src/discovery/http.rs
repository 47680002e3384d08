//! HTTP/1.1 to a registry: one question, or one answer that never ends, read line by line.
//!
//! Starts no task: a connection lives inside of the future that uses it. Always: answers, lines
//! and waits are bounded, and neither a header nor a body of ours appears in an error. An address
//! with `https` is never spoken to in cleartext.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_net::tls::fault::Fault;
use forebay_net::tls::outward::{Initiator, server_name};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::shortened;
use super::secret::Secret;

/// Of one answer, and of one line of an endless answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Where a registry listens: `http://host:port`, `https://host:port` or `host:port`.
#[derive(Clone, Debug)]
pub struct Address {
    host: String,
    port: u16,
    scheme: Option<Scheme>,
    /// `None`: cleartext.
    initiator: Option<Arc<Initiator>>,
}

/// As it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Address {
    pub fn parse(text: &str, port_default: u16) -> Result<Address, String> {
        let bad = |why: &str| {
            let text = shortened(text);
            format!("\"{text}\": {why}; write http://host:port or https://host:port")
        };
        let with_scheme = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri = Uri::from_str(&with_scheme).map_err(|_| bad("no URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(bad("only HTTP is spoken with registries")),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // Not repeated in the message: what stands before the @ is a password.
            return Err("a registry's URL must not hold a user and a password".to_owned());
        }
        let host = uri.host().ok_or_else(|| bad("it names no host"))?.to_owned();
        let scheme = text.contains("://").then_some(scheme);
        let port = uri.port_u16().unwrap_or(port_default);
        Ok(Address { host, port, scheme, initiator: None })
    }

    /// `None`: it was written without one.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The same place, reached through TLS with what `initiator` has for each new connection.
    pub fn secured(self, initiator: &Arc<Initiator>) -> Address {
        Address { initiator: Some(Arc::clone(initiator)), ..self }
    }

    /// What a request calls the peer.
    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_secured = self.initiator.is_some() || self.scheme == Some(Scheme::Https);
        let scheme = if is_secured { "https://" } else { "" };
        write!(f, "{scheme}{}:{}", self.host, self.port)
    }
}

/// A question.
pub(super) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Ask {
    pub(super) fn get(path: String) -> Ask {
        Ask { method: Method::GET, path, headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn put(path: String, body: String) -> Ask {
        Ask { method: Method::PUT, path, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn post(path: &str, body: String) -> Ask {
        let (method, path) = (Method::POST, path.to_owned());
        Ask { method, path, headers: Vec::new(), body: body.into() }
    }

    /// A header that is a secret: hyper shows it to nobody.
    pub(super) fn with_secret(
        mut self,
        name: &'static str,
        secret: &Secret,
    ) -> Result<Ask, String> {
        let mut value = HeaderValue::from_str(secret.reveal())
            .map_err(|_| "the token has characters that a header can't carry".to_owned())?;
        value.set_sensitive(true);
        self.headers.push((HeaderName::from_static(name), value));
        Ok(self)
    }
}

/// The whole answer to `ask`, within `timeout` from the connection's begin to the last byte.
pub(super) async fn ask(
    address: &Address,
    ask: Ask,
    timeout: Duration,
) -> Result<Response<Bytes>, String> {
    let exchange = async {
        let (response, mut link) = send(address, ask).await?;
        let (head, body) = response.into_parts();
        let body = link.drive(Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let body = body.map_err(|error| format!("{address}: reading the answer: {error}"))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    within(timeout, address, exchange).await
}

/// An answer that goes on: a line at a time.
pub(super) struct Lines {
    link: Link,
    body: Incoming,
    unread: BytesMut,
    /// How much of `unread` is known to hold no end of a line.
    searched: usize,
}

/// The answer's head within `timeout`, then lines. An answer that is not 200 is read and returned
/// as an error's text.
pub(super) async fn open(address: &Address, ask: Ask, timeout: Duration) -> Result<Lines, String> {
    let opening = async {
        let (response, mut link) = send(address, ask).await?;
        let status = response.status();
        let body = response.into_body();
        if status == StatusCode::OK {
            return Ok(Lines { link, body, unread: BytesMut::new(), searched: 0 });
        }
        let body = link.drive(Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(refusal(address, status, &body))
    };
    within(timeout, address, opening).await
}

impl Lines {
    /// The next line; `None` at the end. A wait that is dropped loses no byte.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, String>> {
        loop {
            if let Some(line) = self.take_line() {
                return Poll::Ready(Ok(Some(line)));
            }
            if self.unread.len() > ANSWER_BYTES_MAX {
                return Poll::Ready(Err("a line of the answer has no end".to_owned()));
            }
            self.link.poll(cx);
            match poll_data(&mut self.body, cx) {
                Poll::Ready(Some(Ok(data))) => self.unread.extend_from_slice(&data),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.to_string())),
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        match self.unread[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.unread.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.unread.len();
                None
            }
        }
    }
}

/// What to say of an answer that is not the wanted one.
pub(super) fn refusal(address: &Address, status: StatusCode, body: &[u8]) -> String {
    format!("{address} answers {status}: {}", shortened(&String::from_utf8_lossy(body)))
}

/// The connection's own work, done while somebody waits for its fruits.
struct Link {
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Kept: without it the connection would take itself for unwanted once the request is sent.
    _sender: SendRequest<Full<Bytes>>,
}

impl Link {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }
}

async fn send(address: &Address, ask: Ask) -> Result<(Response<Incoming>, Link), String> {
    let refused = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    // An IPv6 address has lost its brackets in front of the resolver only.
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, address.port)).await.map_err(|e| refused(&e))?;
    stream.set_nodelay(true).map_err(|e| refused(&e))?;
    match (&address.initiator, address.scheme) {
        (Some(initiator), _) => {
            let stream = secured(initiator, host, stream).await.map_err(|e| refused(&e))?;
            converse(address, ask, stream).await
        }
        (None, Some(Scheme::Https)) => Err(refused(&"there are no terms for TLS")),
        (None, _) => converse(address, ask, stream).await,
    }
}

async fn secured(
    initiator: &Initiator,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let security = initiator.security();
    let name = match &security.name {
        Some(name) => name.clone(),
        None => server_name(host)?,
    };
    let connector = TlsConnector::from(Arc::clone(&security.config));
    connector.connect(name, stream).await.map_err(|error| Fault::told(&error))
}

async fn converse<S>(
    address: &Address,
    ask: Ask,
    stream: S,
) -> Result<(Response<Incoming>, Link), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let refused = |error: &hyper::Error| format!("{address}: {}", said(error));
    let (mut sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| refused(&error))?;
    let mut request = Request::builder()
        .method(ask.method)
        .uri(&ask.path)
        .header("host", address.authority())
        .header("user-agent", crate::identity::user_agent());
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    let request =
        request.body(Full::new(ask.body)).map_err(|error| format!("{address}: {error}"))?;
    let response = sender.send_request(request);
    let connection = Box::pin(async move {
        // How it ended is told to whoever waits for the answer.
        let _ = connection.await;
    });
    let mut link = Link { connection: Some(connection), _sender: sender };
    let response = link.drive(response).await.map_err(|error| refused(&error))?;
    Ok((response, link))
}

/// hyper's error with its cause, which of TLS 1.3 may be that the server refuses our certificate:
/// it says so after the handshake has ended on this side.
fn said(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error);
    let of_line = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match (of_line, cause) {
        (Some(error), _) => Fault::told(error),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

async fn within<T>(
    timeout: Duration,
    address: &Address,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = |_| format!("{address}: no answer within {} s", timeout.as_secs_f32());
    tokio::time::timeout(timeout, work).await.map_err(late)?
}

/// The next piece of data, past trailers.
fn poll_data(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, hyper::Error>>> {
    loop {
        return match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Poll::Ready(Some(Ok(data))),
                Err(_trailers) => continue,
            },
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        };
    }
}
