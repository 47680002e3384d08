//! JSON's own grammar (RFC 8259): strings, numbers, literals, and skipping a value of any shape.
//!
//! The text is known to be UTF-8. Strings without escapes are borrowed from it.

use std::borrow::Cow;

use super::{Fault, JsonReason};

/// A position in the text. Each method skips white space first and stands behind what it read.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// Where the next token starts.
    pub(super) fn offset(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// The first byte of the next token, if there is one.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Reads this one byte if it is next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Reads this one byte; `what` says what it would have begun or ended.
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Box<Fault>> {
        match self.take(byte) {
            true => Ok(()),
            false => Err(self.expected(what)),
        }
    }

    /// The error that something else stands here, or that nothing does.
    #[cold]
    pub(super) fn expected(&mut self, what: &'static str) -> Box<Fault> {
        match self.peek() {
            None => Fault::new(self.at, JsonReason::Truncated),
            Some(_) => Fault::new(self.at, JsonReason::Expected(what)),
        }
    }

    /// Reads `null`, `true` or `false` if it is next.
    pub(super) fn take_literal(&mut self, literal: &str) -> bool {
        self.peek();
        let rest = &self.text.as_bytes()[self.at..];
        let taken = rest.starts_with(literal.as_bytes());
        if taken {
            self.at += literal.len();
        }
        taken
    }

    /// Reads what separates two members of an object or array: `Ok(true)` behind a comma,
    /// `Ok(false)` behind `close`.
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Box<Fault>> {
        if self.take(b',') {
            return Ok(true);
        }
        let what = if close == b'}' { "',' or '}'" } else { "',' or ']'" };
        self.expect(close, what)?;
        Ok(false)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Box<Fault>> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        match self.plain()? {
            b'"' => Ok(Cow::Borrowed(&self.text[start..self.at - 1])),
            _ => self.escaped(start).map(Cow::Owned),
        }
    }

    /// A number as it is written, its grammar checked.
    pub(super) fn number(&mut self) -> Result<&'a str, Box<Fault>> {
        self.peek();
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let Some(bytes) = number_bytes(rest) else {
            return Err(self.expected("a number"));
        };
        self.at += bytes;
        Ok(&self.text[start..self.at])
    }

    /// Reads over a value of any kind, however odd, without recursion.
    pub(super) fn skip(&mut self) -> Result<(), Box<Fault>> {
        // One bit for each open bracket, innermost lowest: 1 is an object, 0 an array.
        let (mut open, mut depth) = (0u128, 0);
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth == SKIP_DEPTH_MAX {
                        return Err(Fault::new(self.at, JsonReason::TooDeep));
                    }
                    self.at += 1;
                    let is_object = bracket == b'{';
                    let close = if is_object { b'}' } else { b']' };
                    if !self.take(close) {
                        (open, depth) = (open << 1 | u128::from(is_object), depth + 1);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => drop(self.string()?),
                Some(b'-' | b'0'..=b'9') => drop(self.number()?),
                _ if LITERALS.iter().any(|literal| self.take_literal(literal)) => {}
                _ => return Err(self.expected("a value")),
            }
            // A value has ended, and with it as many brackets as close here.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = open & 1 == 1;
                if self.more(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                (open, depth) = (open >> 1, depth - 1);
            }
        }
    }

    /// Reads a key and its colon.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, Box<Fault>> {
        let key = self.string()?;
        self.expect(b':', "':'")?;
        Ok(key)
    }

    /// Moves behind the next quote or backslash, over characters that stand for themselves, and
    /// returns which of the two it was.
    fn plain(&mut self) -> Result<u8, Box<Fault>> {
        let rest = &self.text.as_bytes()[self.at..];
        let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
        let Some(bytes) = rest.iter().position(special) else {
            return Err(Fault::new(self.text.len(), JsonReason::Truncated));
        };
        self.at += bytes;
        match rest[bytes] {
            byte @ (b'"' | b'\\') => {
                self.at += 1;
                Ok(byte)
            }
            _ => Err(Fault::new(self.at, JsonReason::ControlCharacter)),
        }
    }

    /// Reads the rest of a string that starts at `start`, behind its first backslash.
    fn escaped(&mut self, start: usize) -> Result<String, Box<Fault>> {
        let mut out = self.text[start..self.at - 1].to_owned();
        loop {
            out.push(self.escape()?);
            let plain = self.at;
            let end = self.plain()?;
            out.push_str(&self.text[plain..self.at - 1]);
            if end == b'"' {
                return Ok(out);
            }
        }
    }

    fn escape(&mut self) -> Result<char, Box<Fault>> {
        let offset = self.at - 1;
        let Some(&byte) = self.text.as_bytes().get(self.at) else {
            return Err(Fault::new(self.at, JsonReason::Truncated));
        };
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' => Ok(char::from(byte)),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'u' => self.unicode(offset),
            _ => Err(Fault::new(offset, JsonReason::UnknownEscape)),
        }
    }

    fn unicode(&mut self, offset: usize) -> Result<char, Box<Fault>> {
        let lone = || Fault::new(offset, JsonReason::LoneSurrogate);
        let first = self.hex4(offset)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(lone);
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(lone());
        }
        self.at += 2;
        let second = self.hex4(offset)?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone());
        }
        let code = 0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00));
        char::from_u32(code).ok_or_else(lone)
    }

    fn hex4(&mut self, offset: usize) -> Result<u32, Box<Fault>> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.text.as_bytes().get(self.at);
            let digit = byte.and_then(|&byte| char::from(byte).to_digit(16));
            let digit = digit.ok_or_else(|| Fault::new(offset, JsonReason::UnknownEscape))?;
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }
}

/// How many bytes the number at the start of `text` takes, by RFC 8259's grammar.
pub(super) fn number_bytes(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') {
        let decimals = digits(at + 1);
        at += 1 + decimals;
        if decimals == 0 {
            return None;
        }
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        let exponent = digits(at);
        at += exponent;
        if exponent == 0 {
            return None;
        }
    }
    Some(at)
}

const LITERALS: [&str; 3] = ["null", "true", "false"];
/// As many as a `u128` has bits.
const SKIP_DEPTH_MAX: usize = 128;
