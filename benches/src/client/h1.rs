//! HTTP/1.1 with keep-alive: one request at a time on a connection, as every SDK sends.

use std::io::Write;

use forebay_codec::compress::Encoding;

use super::{Answer, Heading, outcome, path};

/// A head longer than this is not an answer to us.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

pub struct Client {
    /// Up to the value of `content-length`.
    head: Vec<u8>,
    waiting: Option<u32>,
    /// An answer that is not whole.
    partial: Vec<u8>,
    /// The peer ends the connection after this answer.
    closing: bool,
}

impl Client {
    pub fn new(heading: &Heading) -> Client {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nuser-agent: forebay-bench\r\n\
             content-type: application/x-protobuf\r\n",
            path(heading.transport, heading.signal),
            heading.authority
        );
        if heading.encoding != Encoding::Identity {
            head += &format!("content-encoding: {}\r\n", heading.encoding.http_name());
        }
        head += "content-length: ";
        Client { head: head.into_bytes(), waiting: None, partial: Vec::new(), closing: false }
    }

    pub fn has_room(&self) -> bool {
        self.waiting.is_none() && !self.closing
    }

    pub fn begin(&mut self, ticket: u32, body: &[u8], out: &mut Vec<u8>) {
        self.waiting = Some(ticket);
        out.extend_from_slice(&self.head);
        let _ = write!(out, "{}\r\n\r\n", body.len());
        out.extend_from_slice(body);
    }

    pub fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        if self.partial.is_empty() {
            let used = self.answer(bytes, answers)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let partial = std::mem::take(&mut self.partial);
            let used = self.answer(&partial, answers)?;
            self.partial = partial;
            self.partial.drain(..used);
        }
        match self.partial.len() > HEAD_BYTES_MAX && self.waiting.is_none() {
            true => Err("bytes that nobody asked for".to_owned()),
            false => Ok(()),
        }
    }

    pub fn abandon(&mut self) -> Vec<u32> {
        self.waiting.take().into_iter().collect()
    }

    /// Reads one answer if it is whole; how many bytes it took.
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<usize, String> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let head = response.parse(bytes).map_err(|error| format!("no HTTP/1.1 answer: {error}"))?;
        let httparse::Status::Complete(head_bytes) = head else { return Ok(0) };
        let mut length = 0;
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default();
            if header.name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(|_| "a content-length that is no number")?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err("a chunked answer, which is not read here".to_owned());
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.closing |= value.eq_ignore_ascii_case("close");
            }
        }
        let Some(message) = bytes.get(head_bytes..head_bytes + length) else { return Ok(0) };
        let status = response.code.unwrap_or(0);
        if status >= 200 {
            let ticket = self.waiting.take().ok_or("an answer that nobody asked for")?;
            answers.push(Answer { ticket, outcome: outcome(status, None, message) });
        }
        Ok(head_bytes + length)
    }
}
