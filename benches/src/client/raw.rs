//! The floor's protocol: requests of a fixed size, answers of a fixed size, in order.

use std::collections::VecDeque;

use super::{Answer, Outcome};

/// About what the shortest gRPC answer takes: headers, an empty message, trailers.
pub const ANSWER_BYTES: usize = 48;

pub struct Client {
    request_bytes: usize,
    streams: usize,
    waiting: VecDeque<u32>,
    /// Bytes of an answer that is not whole.
    partial: usize,
}

impl Client {
    pub fn new(request_bytes: usize, streams: usize) -> Client {
        Client { request_bytes, streams, waiting: VecDeque::new(), partial: 0 }
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < self.streams
    }

    pub fn begin(&mut self, ticket: u32, body: &[u8], out: &mut Vec<u8>) {
        let end = out.len() + self.request_bytes;
        out.extend_from_slice(&body[..body.len().min(self.request_bytes)]);
        out.resize(end, 0);
        self.waiting.push_back(ticket);
    }

    pub fn handle(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        self.partial += bytes.len();
        while self.partial >= ANSWER_BYTES {
            self.partial -= ANSWER_BYTES;
            let ticket = self.waiting.pop_front().ok_or("an answer that nobody asked for")?;
            answers.push(Answer { ticket, outcome: Outcome::Ok });
        }
        Ok(())
    }

    pub fn abandon(&mut self) -> Vec<u32> {
        self.waiting.drain(..).collect()
    }
}
