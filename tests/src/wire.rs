//! Clients made by hand: an HTTP/1.1 exchange over a plain socket, and a gRPC call over the `h2`
//! crate with every header in the test's hands.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{BufMut, Bytes, BytesMut};
use forebay_codec::signal::Signal;
use forebay_codec::status::Status;
use http::{HeaderMap, Method, Request};

use crate::forebay::PATIENCE;

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as a `Status`, read as the answer's content type says (OTLP H6).
    pub fn refusal(&self) -> Status {
        refusal(self.header("content-type").unwrap_or(""), &self.body)
    }
}

fn refusal(content_type: &str, body: &[u8]) -> Status {
    let status = match content_type {
        "application/x-protobuf" => Status::from_proto(body),
        "application/json" => Status::from_json(body),
        other => panic!("a refusal of content type {other:?}: {}", body.escape_ascii()),
    };
    let status = status.unwrap_or_else(|| panic!("no Status: {}", body.escape_ascii()));
    assert!(!status.message.is_empty(), "a refusal says why: {status:?}");
    status
}

/// A connection that speaks HTTP/1.1.
pub struct Http1 {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http1 {
    pub fn connect(address: SocketAddr) -> Http1 {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Http1 { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer reads");
    }

    /// POSTs and reads the answer.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.send(&request);
        self.read_answer().expect("an answer")
    }

    /// The next answer that is not `100 Continue`; `None` if the connection ends first.
    pub fn read_answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.read_one()?;
            if answer.status != 100 {
                return Some(answer);
            }
        }
    }

    /// The next answer, `100 Continue` included.
    pub fn read_one(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        while self.buffer.len() < length {
            self.fill()?;
        }
        Some(Answer { status, headers, body: self.buffer.drain(..length).collect() })
    }

    /// Says that no more comes.
    pub fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    }

    /// Whether the peer ends the connection, by closing or by a reset, before it says anything
    /// more; waits for it.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.read(&mut byte) {
            Ok(bytes) => bytes == 0 && self.buffer.is_empty(),
            Err(error) => !is_timeout(&error),
        }
    }

    fn fill(&mut self) -> Option<()> {
        let mut chunk = [0; 4096];
        match self.read(&mut chunk) {
            Ok(0) => None,
            Err(error) if is_timeout(&error) => panic!("no answer came in time"),
            Err(_) => None,
            Ok(bytes) => {
                self.buffer.extend_from_slice(&chunk[..bytes]);
                Some(())
            }
        }
    }

    /// A read that goes on after a stop: one with a timeout ends early when we are stopped and
    /// continued, which says nothing about the peer.
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// POSTs once over a connection of its own.
pub fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Http1::connect(address).post(path, headers, body)
}

/// The OTLP/HTTP path of a signal.
pub fn path_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/v1/traces",
        Signal::Metrics => "/v1/metrics",
        Signal::Logs => "/v1/logs",
        Signal::Profiles => "/v1development/profiles",
    }
}

/// The OTLP/gRPC method of a signal.
pub fn method_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Profiles => {
            "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
        }
    }
}

/// A gRPC message: flag, length, bytes.
pub fn frame(flag: u8, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(flag);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// An answer over HTTP/2; gRPC's status is in `trailers`, or in `headers` if trailers-only.
#[derive(Debug)]
pub struct Http2Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Http2Answer {
    pub fn grpc_status(&self) -> Option<u32> {
        let value = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"))?;
        value.to_str().ok()?.parse().ok()
    }

    pub fn grpc_header(&self, name: &str) -> Option<&str> {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name))?;
        value.to_str().ok()
    }

    /// The body as a `Status`: what OTLP/HTTP answers over HTTP/2.
    pub fn refusal(&self) -> Status {
        let content_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        refusal(content_type.unwrap_or(""), &self.body)
    }

    /// gRPC's details (`grpc-status-details-bin`), if there are any.
    pub fn details(&self) -> Option<Status> {
        let bytes = base64_unpadded(self.grpc_header("grpc-status-details-bin")?);
        Some(Status::from_proto(&bytes).expect("a Status"))
    }
}

/// Reads what gRPC says `-bin` headers are written in (RFC 4648, section 4, without padding).
fn base64_unpadded(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes() {
        let place = ALPHABET.iter().position(|known| *known == letter);
        bits = bits << 6 | place.expect("a letter of base64") as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// A connection that speaks HTTP/2 with prior knowledge.
#[derive(Clone)]
pub struct Http2 {
    send: h2::client::SendRequest<Bytes>,
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Http2 {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("an option can be set");
        // The crate takes many small answers at once for a flood, unless its window is large.
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_connection_window_size(4 << 20).handshake(stream);
        let (send, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(async move {
            // Its end is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Http2 { send }
    }

    /// One exchange: sends `body` whole and waits for the answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Http2Answer, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        let response =
            tokio::time::timeout(PATIENCE, response).await.expect("an answer in time")?;
        let (parts, mut recv) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = recv.data().await {
            let data = data?;
            let _ = recv.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        let trailers = recv.trailers().await?.unwrap_or_default();
        let status = parts.status.as_u16();
        Ok(Http2Answer { status, headers: parts.headers, body, trailers })
    }

    /// A unary gRPC call with an uncompressed message.
    pub async fn export(&self, signal: Signal, message: &[u8]) -> Result<Http2Answer, h2::Error> {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        self.request(Method::POST, method_of(signal), &headers, frame(0, message)).await
    }
}
