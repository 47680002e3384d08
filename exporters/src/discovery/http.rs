//! HTTP/1.1 to a registry: one question, or one answer that never ends, read line by line.
//!
//! Starts no task: a connection lives inside of the future that uses it. Always: answers, lines
//! and waits are bounded, and neither a header nor a body of ours appears in an error.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::endpoint::shortened;
use super::secret::Secret;

/// Of one answer, and of one line of an endless answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Where a registry listens: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    pub fn parse(text: &str, port_default: u16) -> Result<Address, String> {
        let bad = |why: &str| format!("\"{}\": {why}; write http://host:port", shortened(text));
        let with_scheme = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri = Uri::from_str(&with_scheme).map_err(|_| bad("no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("only plain HTTP is spoken with registries"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // Not repeated in the message: what stands before the @ is a password.
            return Err("a registry's URL must not hold a user and a password".to_owned());
        }
        let host = uri.host().ok_or_else(|| bad("it names no host"))?.to_owned();
        Ok(Address { host, port: uri.port_u16().unwrap_or(port_default) })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
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
    let (mut sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|e| refused(&e))?;
    let mut request = Request::builder()
        .method(ask.method)
        .uri(&ask.path)
        .header("host", address.to_string())
        .header("user-agent", crate::identity::user_agent());
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(ask.body)).map_err(|e| refused(&e))?;
    let response = sender.send_request(request);
    let connection = Box::pin(async move {
        // How it ended is told to whoever waits for the answer.
        let _ = connection.await;
    });
    let mut link = Link { connection: Some(connection), _sender: sender };
    let response = link.drive(response).await.map_err(|e| refused(&e))?;
    Ok((response, link))
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
