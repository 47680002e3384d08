//! A plain HTTP/1.1 server on sockets that answers, misbehaves and remembers as a script says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) enum Reply {
    /// These bytes, whatever they are; the connection stays open.
    Send(Vec<u8>),
    /// These bytes, then the connection is closed.
    SendAndClose(Vec<u8>),
    /// The connection is closed without a word.
    Close,
    /// No answer; the connection stays open.
    Hang,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpRequest {
    /// From 0, in the order of acceptance.
    pub(crate) connection: usize,
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl HttpRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

type Script = dyn Fn(usize, &HttpRequest) -> Reply + Send + Sync;

pub(crate) struct HttpPeer {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<HttpRequest>>>,
    closed: Arc<AtomicUsize>,
}

impl HttpPeer {
    /// `script` is given the number of the request, from 0.
    pub(crate) fn start(
        script: impl Fn(usize, &HttpRequest) -> Reply + Send + Sync + 'static,
    ) -> HttpPeer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (script, shared): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&got));
        let count = AtomicUsize::new(0);
        let closed = Arc::new(AtomicUsize::new(0));
        let ended = Arc::clone(&closed);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, got) = (Arc::clone(&script), Arc::clone(&shared));
                let connection = count.fetch_add(1, Ordering::Relaxed);
                let ended = Arc::clone(&ended);
                std::thread::spawn(move || {
                    serve(stream.unwrap(), connection, &*script, &got);
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        HttpPeer { address, got, closed }
    }

    /// Connections that ended.
    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn got(&self) -> Vec<HttpRequest> {
        self.got.lock().unwrap().clone()
    }
}

/// An answer with its length.
pub(crate) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn ok() -> Vec<u8> {
    response("200 OK", "Content-Type: application/x-protobuf\r\n", b"")
}

fn serve(mut stream: TcpStream, connection: usize, script: &Script, got: &Mutex<Vec<HttpRequest>>) {
    while let Some(request) = read(&mut stream, connection) {
        let reply = {
            let mut got = got.lock().unwrap();
            let reply = script(got.len(), &request);
            got.push(request);
            reply
        };
        // The client may be gone already: that is the test's business, not the peer's.
        match reply {
            Reply::Send(bytes) => drop(stream.write_all(&bytes)),
            Reply::SendAndClose(bytes) => return drop(stream.write_all(&bytes)),
            Reply::Close => return,
            Reply::Hang => {}
        }
    }
}

fn read(stream: &mut TcpStream, connection: usize) -> Option<HttpRequest> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(HttpRequest { connection, line, headers, body })
}
