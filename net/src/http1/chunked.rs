//! The chunked transfer coding, decoded as it arrives. RFC 9112 7.1.
//!
//! Strict: sizes are 1 to 16 hex digits, lines end in CRLF. What follows a size up to the end of
//! its line, like the trailers, is bounded and thrown away, but it must look like what it is:
//! whoever reads it otherwise may see another end of the body there.

use http::HeaderName;

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

pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    NeedsMore,
    End,
    Malformed,
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked { state: State::Size, trailer_bytes: 0 }
    }

    /// The next piece of data in `input`, which it removes from there.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Piece<'a> {
        loop {
            self.state = match self.state {
                State::End => return Piece::End,
                State::Size => match line(input, LINE_BYTES_MAX) {
                    Line::Partial => return Piece::NeedsMore,
                    Line::TooLong => return Piece::Malformed,
                    Line::Complete(line) => match size(line) {
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
                    let (data, rest) = input.split_at(taken as usize);
                    *input = rest;
                    return Piece::Data(data);
                }
                State::DataEnd if input.len() < 2 => return Piece::NeedsMore,
                State::DataEnd if input.starts_with(b"\r\n") => {
                    *input = &input[2..];
                    State::Size
                }
                State::DataEnd => return Piece::Malformed,
                State::Trailer => match line(input, TRAILER_BYTES_MAX - self.trailer_bytes) {
                    Line::Partial => return Piece::NeedsMore,
                    Line::TooLong => return Piece::Malformed,
                    Line::Complete(b"") => State::End,
                    Line::Complete(line) if !is_field(line) => return Piece::Malformed,
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

enum Line<'a> {
    Partial,
    TooLong,
    Complete(&'a [u8]),
}

/// Takes a line off `input`, without its CRLF.
fn line<'a>(input: &mut &'a [u8], bytes_max: usize) -> Line<'a> {
    match memchr::memchr(b'\n', &input[..input.len().min(bytes_max + 2)]) {
        Some(end) if end > 0 && input[end - 1] == b'\r' => {
            let line = &input[..end - 1];
            *input = &input[end + 1..];
            Line::Complete(line)
        }
        Some(_) => Line::TooLong,
        None if input.len() >= bytes_max + 2 => Line::TooLong,
        None => Line::Partial,
    }
}

fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let extensions = &line[digits..];
    // Blanks before an extension are bad, and borne (RFC 9112, 7.1.1).
    let well_ended =
        matches!(extensions.iter().find(|b| !matches!(b, b' ' | b'\t')), None | Some(b';'));
    if !(1..=16).contains(&digits) || !well_ended || !is_text(extensions) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

/// Whether a line of the trailers has a name and a value.
fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return false;
    };
    HeaderName::from_bytes(&line[..colon]).is_ok() && is_text(&line[colon..])
}

/// Whether this has no control characters, a carriage return among them.
fn is_text(line: &[u8]) -> bool {
    line.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `body` in pieces of `step` bytes; the data, or `None` if it is malformed, and what
    /// was left behind the end.
    fn decode(body: &[u8], step: usize) -> (Option<Vec<u8>>, Vec<u8>) {
        let (mut chunked, mut data) = (Chunked::new(), Vec::new());
        // What has come and is not taken lies in `body[taken..came]`.
        let (mut taken, mut came) = (0, 0);
        loop {
            let mut input = &body[taken..came];
            let piece = chunked.next(&mut input);
            taken = came - input.len();
            match piece {
                Piece::Data(piece) => data.extend_from_slice(piece),
                Piece::End => return (Some(data), body[taken..].to_vec()),
                Piece::Malformed => return (None, Vec::new()),
                Piece::NeedsMore if came == body.len() => return (None, b"truncated".to_vec()),
                Piece::NeedsMore => came = (came + step).min(body.len()),
            }
        }
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_arrives() {
        let body = b"5 \r\nhello\r\n1 ;name=value\r\n \r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\nGET";
        for step in 1..body.len() {
            let (data, rest) = decode(body, step);
            assert_eq!(data.as_deref(), Some(&b"hello 0123456789"[..]), "in steps of {step}");
            assert_eq!(rest, b"GET", "in steps of {step}");
        }
    }

    #[test]
    fn a_chunk_that_two_parsers_could_read_differently_is_refused() {
        let bad: [&[u8]; 14] = [
            b"5\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"FFFFFFFFFFFFFFFFF\r\nhello",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5 a\r\nhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
            b"5\r\nhello\r\n0\r\n folded: x\r\n\r\n",
            b"5\r\nhello\r\n0\r\nx: \x7f\r\n\r\n",
        ];
        for body in bad {
            let (data, rest) = decode(body, body.len());
            assert_eq!(data, None, "{}", body.escape_ascii());
            assert_ne!(rest, b"truncated", "{}", body.escape_ascii());
        }
    }

    #[test]
    fn the_longest_line_is_taken_and_one_more_byte_is_not_however_they_arrive() {
        for (bytes, expected) in [(LINE_BYTES_MAX, Some(&b"hello"[..])), (LINE_BYTES_MAX + 1, None)]
        {
            let body = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(bytes - 2));
            for step in 1..body.len() {
                let (data, rest) = decode(body.as_bytes(), step);
                assert_eq!(data.as_deref(), expected, "{bytes} bytes in steps of {step}");
                assert_ne!(rest, b"truncated", "{bytes} bytes in steps of {step}");
            }
        }
    }
}
