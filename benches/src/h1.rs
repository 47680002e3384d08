//! HTTP/1.1, the sink's side: whole requests in, answers out. The load's is `client/h1.rs`.
//!
//! Takes a content length or chunks, as proxies and SDKs write them. Sans-I/O.

use std::io::Write;

use crate::sink::exchange::{Asked, Head, Reply};

const HEADERS_MAX: usize = 64;

#[derive(Default)]
pub struct Server {
    partial: Vec<u8>,
}

/// Of a request's head, what is needed to find its end.
struct Parsed {
    head: Head,
    head_bytes: usize,
    length: Option<usize>,
    expects_continue: bool,
}

impl Server {
    /// Whole requests go to `asked`. An error ends the connection.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        asked: &mut Vec<Asked>,
    ) -> Result<(), String> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(parsed) = parse(&self.partial[at..])? {
            let body = &self.partial[at + parsed.head_bytes..];
            let whole = match parsed.length {
                Some(length) => body.get(..length).map(|body| (body.to_vec(), length)),
                None => unchunk(body)?,
            };
            let Some((body, body_bytes)) = whole else {
                if parsed.expects_continue && body.is_empty() {
                    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                break;
            };
            at += parsed.head_bytes + body_bytes;
            asked.push(Asked { stream: 0, head: parsed.head, body });
        }
        self.partial.drain(..at);
        Ok(())
    }

    pub fn answer(&self, reply: Reply, out: &mut Vec<u8>) {
        match reply {
            Reply::Ok => out.extend_from_slice(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                  content-length: 0\r\n\r\n",
            ),
            Reply::Refuse { retry, .. } => {
                out.extend_from_slice(b"HTTP/1.1 503 Service Unavailable\r\n");
                if let Some(retry) = retry {
                    let _ = write!(out, "retry-after: {}\r\n", retry.to_seconds());
                }
                out.extend_from_slice(b"content-length: 0\r\n\r\n");
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Parsed>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(bytes).map_err(|error| format!("no HTTP/1.1 request: {error}"))?;
    let httparse::Status::Complete(head_bytes) = status else { return Ok(None) };
    let value = |name: &str| {
        let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let length = match (value("transfer-encoding"), value("content-length")) {
        (Some(_), _) => None,
        (None, Some(length)) => Some(length.trim().parse().map_err(|_| "a bad content-length")?),
        (None, None) => Some(0),
    };
    let head = Head::of(
        request.path.unwrap_or_default(),
        value("content-type").unwrap_or_default(),
        None,
        value("content-encoding"),
    );
    Ok(Some(Parsed { head, head_bytes, length, expects_continue: value("expect").is_some() }))
}

/// The bytes of a chunked body and how many it took, if it is whole.
fn unchunk(mut bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let all = bytes.len();
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(bytes).map_err(|_| "a bad chunk size")?;
        let httparse::Status::Complete((start, length)) = size else { return Ok(None) };
        let end = start + length as usize;
        let Some(after) = bytes.get(end + 2..) else { return Ok(None) };
        body.extend_from_slice(&bytes[start..end]);
        bytes = after;
        if length == 0 {
            return Ok(Some((body, all - bytes.len())));
        }
    }
}
