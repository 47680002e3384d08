//! The chunked transfer coding, decoded as it arrives. RFC 9112 7.1.
//!
//! Strict: sizes are 1 to 16 hex digits, lines end in CRLF, and what follows a size up to the end
//! of its line, like the trailers, is bounded and thrown away.

use bytes::{Buf, BytesMut};

/// Longest size line with its extensions, and longest trailer section.
const LINE_BYTES_MAX: usize = 256;
const TRAILER_BYTES_MAX: usize = 4096;

pub(super) struct Chunked {
    state: State,
    trailer_bytes: usize,
}

enum State {
    Size,
    Data(u64),
    /// The CRLF behind a chunk's data.
    DataEnd,
    Trailer,
    End,
}

pub(super) enum Piece {
    Data(BytesMut),
    NeedsMore,
    End,
    Malformed,
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked { state: State::Size, trailer_bytes: 0 }
    }

    /// The next piece of data in `input`, which it removes from there.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Piece {
        loop {
            self.state = match self.state {
                State::End => return Piece::End,
                State::Size => match line(input, LINE_BYTES_MAX) {
                    Line::Partial => return Piece::NeedsMore,
                    Line::TooLong => return Piece::Malformed,
                    Line::Complete(line) => match size(&line) {
                        Some(0) => State::Trailer,
                        Some(bytes) => State::Data(bytes),
                        None => return Piece::Malformed,
                    },
                },
                State::Data(_) if input.is_empty() => return Piece::NeedsMore,
                State::Data(left) => {
                    let taken = (input.len() as u64).min(left);
                    self.state = match left - taken {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    return Piece::Data(input.split_to(taken as usize));
                }
                State::DataEnd if input.len() < 2 => return Piece::NeedsMore,
                State::DataEnd if input.starts_with(b"\r\n") => {
                    input.advance(2);
                    State::Size
                }
                State::DataEnd => return Piece::Malformed,
                State::Trailer => match line(input, TRAILER_BYTES_MAX - self.trailer_bytes) {
                    Line::Partial => return Piece::NeedsMore,
                    Line::TooLong => return Piece::Malformed,
                    Line::Complete(line) if line.is_empty() => State::End,
                    Line::Complete(line) => {
                        self.trailer_bytes =
                            (self.trailer_bytes + line.len() + 2).min(TRAILER_BYTES_MAX);
                        State::Trailer
                    }
                },
            };
        }
    }
}

enum Line {
    Partial,
    TooLong,
    Complete(BytesMut),
}

/// Takes a line off `input`, without its CRLF.
fn line(input: &mut BytesMut, bytes_max: usize) -> Line {
    match input.iter().take(bytes_max + 2).position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && input[end - 1] == b'\r' => {
            let mut line = input.split_to(end + 1);
            line.truncate(end - 1);
            Line::Complete(line)
        }
        Some(_) => Line::TooLong,
        None if input.len() > bytes_max => Line::TooLong,
        None => Line::Partial,
    }
}

fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let well_ended = matches!(line.get(digits), None | Some(b';' | b' ' | b'\t'));
    if !(1..=16).contains(&digits) || !well_ended || line.contains(&b'\r') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `body` in pieces of `step` bytes; the data, or `None` if it is malformed, and what
    /// was left behind the end.
    fn decode(body: &[u8], step: usize) -> (Option<Vec<u8>>, Vec<u8>) {
        let (mut chunked, mut input, mut data) = (Chunked::new(), BytesMut::new(), Vec::new());
        let mut pieces = body.chunks(step);
        loop {
            match chunked.next(&mut input) {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::End => {
                    input.extend(pieces.flatten());
                    return (Some(data), input.to_vec());
                }
                Piece::Malformed => return (None, Vec::new()),
                Piece::NeedsMore => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return (None, b"truncated".to_vec()),
                },
            }
        }
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_arrives() {
        let body = b"5\r\nhello\r\n1;name=value\r\n \r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\nGET";
        for step in 1..body.len() {
            let (data, rest) = decode(body, step);
            assert_eq!(data.as_deref(), Some(&b"hello 0123456789"[..]), "in steps of {step}");
            assert_eq!(rest, b"GET", "in steps of {step}");
        }
    }

    #[test]
    fn a_chunk_that_two_parsers_could_read_differently_is_refused() {
        let bad: [&[u8]; 9] = [
            b"5\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"FFFFFFFFFFFFFFFFF\r\nhello",
            b"5\r\r\nhello\r\n0\r\n\r\n",
        ];
        for body in bad {
            let (data, rest) = decode(body, body.len());
            assert_eq!(data, None, "{}", body.escape_ascii());
            assert_ne!(rest, b"truncated", "{}", body.escape_ascii());
        }
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
        assert_eq!(decode(long.as_bytes(), 50).0, None, "a long extension");
    }
}
