//! A client of HTTP/1.1: what it says, byte by byte, and how it reads what it is told.

use std::collections::VecDeque;

use forebay_net::ring::fake::Dice;

use crate::talk::{Got, Made, Oracle, Talk};

pub(crate) struct Http1 {
    /// What is to be written, in pieces; a gate waits for a `100 Continue` or an answer.
    pieces: VecDeque<Piece>,
    /// Requests in the order in which they were made, without their answers.
    unanswered: VecDeque<u64>,
    input: Vec<u8>,
    at_once: usize,
    said_close: bool,
}

enum Piece {
    Bytes(Vec<u8>),
    /// The body of `id` may follow.
    Gate(u64),
}

impl Http1 {
    pub(crate) fn new(dice: &mut Dice) -> Http1 {
        Http1 {
            pieces: VecDeque::new(),
            unanswered: VecDeque::new(),
            input: Vec::new(),
            at_once: 1 + dice.below(4) as usize,
            said_close: false,
        }
    }

    /// Opens the gate of `id`, if it is the next thing to be written.
    fn open_gate(&mut self, id: u64) {
        self.pieces.retain(|piece| !matches!(piece, Piece::Gate(gate) if *gate == id));
    }
}

impl Talk for Http1 {
    fn wants_request(&self) -> bool {
        self.unanswered.len() < self.at_once && !self.said_close
    }

    fn say(&mut self, made: Made, dice: &mut Dice) {
        let Made { id, path, headers, body } = made;
        let chunked = dice.of_1000(300);
        let expects = !body.is_empty() && dice.of_1000(150);
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: a\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match chunked {
            true => "transfer-encoding: chunked\r\n".to_owned(),
            false => format!("content-length: {}\r\n", body.len()),
        };
        head += if expects { "expect: 100-continue\r\n\r\n" } else { "\r\n" };
        self.pieces.push_back(Piece::Bytes(head.into_bytes()));
        if expects {
            self.pieces.push_back(Piece::Gate(id));
        }
        let body = if chunked { in_chunks(&body, dice) } else { body };
        self.pieces.push_back(Piece::Bytes(body));
        self.unanswered.push_back(id);
    }

    fn next_output(&mut self, dice: &mut Dice) -> Vec<u8> {
        match self.pieces.pop_front() {
            Some(Piece::Bytes(bytes)) => bytes,
            // Some clients don't wait long.
            Some(Piece::Gate(_)) if dice.of_1000(5) => Vec::new(),
            Some(gate) => {
                self.pieces.push_front(gate);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn hear(&mut self, bytes: &[u8], oracle: &mut dyn Oracle) {
        self.input.extend_from_slice(bytes);
        while let Some((answer, closes)) = cut_answer(&mut self.input) {
            let Some(id) = self.unanswered.front().copied() else {
                assert!(answer.status >= 400 && closes, "nobody asked: {answer:?}");
                self.said_close = true;
                return;
            };
            self.open_gate(id);
            if answer.status == 100 {
                continue;
            }
            self.said_close |= closes;
            oracle.answer(id, &answer);
            self.unanswered.pop_front();
        }
    }

    fn has_given_up_some(&self) -> bool {
        false
    }

    fn is_all_said(&self) -> bool {
        self.pieces.is_empty()
    }

    fn unanswered(&self) -> Vec<u64> {
        self.unanswered.iter().copied().collect()
    }

    fn was_told_to_go(&self) -> bool {
        self.said_close
    }
}

/// The first whole answer, and whether it says that the connection closes.
fn cut_answer(input: &mut Vec<u8>) -> Option<(Got, bool)> {
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&input[..end]).expect("a head is text");
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut got = Got {
        status: head[9..12].parse().expect("a status is a number"),
        fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: Vec::new(),
    };
    let length = got.field("content-length");
    let length = length.map_or(0, |text| text.parse::<usize>().expect("a length"));
    got.body = input.get(end..end + length)?.to_vec();
    input.drain(..end + length);
    let closes = got.field("connection") == Some("close");
    Some((got, closes))
}

fn in_chunks(body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let bytes = 1 + dice.below(rest.len() as u64) as usize;
        out.extend(format!("{bytes:x}\r\n").bytes());
        out.extend_from_slice(&rest[..bytes]);
        out.extend(b"\r\n");
        rest = &rest[bytes..];
    }
    out.extend(b"0\r\n\r\n");
    out
}
