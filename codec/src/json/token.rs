//! JSON's own grammar (RFC 8259): strings, numbers, literals, and skipping a value of any shape.
//!
//! The text is known to be UTF-8. Strings without escapes are borrowed from it.
//!
//! What nearly every text consists of has a short way, named `plain_`: it reads all of what it is
//! for or nothing at all, and what it leaves is read, or refused, by the long way.

use std::borrow::Cow;

use super::{Fault, JsonReason, scan};
use crate::schema::{Field, Key, Message};

/// A position in the text. Each method skips white space first and stands behind what it read.
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// Where the next token starts.
    pub(super) fn offset(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// The first byte of the next token, if there is one.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        match self.text.get(self.at) {
            Some(&byte) if byte > b' ' => Some(byte),
            _ => self.behind_blanks(),
        }
    }

    #[inline(never)]
    fn behind_blanks(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
            self.at += scan::spaces(&self.text[self.at..]);
        }
    }

    /// Reads this one byte if it is next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Reads this one byte; `what` says what it would have begun or ended.
    #[inline]
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
    #[inline]
    pub(super) fn take_literal(&mut self, literal: &'static [u8]) -> bool {
        let taken = self.peek() == Some(literal[0]) && self.text[self.at..].starts_with(literal);
        if taken {
            self.at += literal.len();
        }
        taken
    }

    /// Reads what separates two members of an object or array: `Ok(true)` behind a comma,
    /// `Ok(false)` behind `close`.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Box<Fault>> {
        if self.take(b',') {
            return Ok(true);
        }
        let what = if close == b'}' { "',' or '}'" } else { "',' or ']'" };
        self.expect(close, what)?;
        Ok(false)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Box<Fault>> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        match self.plain()? {
            b'"' => Ok(Cow::Borrowed(&self.text[start..self.at - 1])),
            _ => self.escaped(start).map(Cow::Owned),
        }
    }

    /// A string without escapes: what stands behind its first quote, which goes on behind the
    /// string, and how many bytes of it are the string.
    #[inline]
    pub(super) fn plain_string(&mut self) -> Option<(&'a [u8], usize)> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let rest = &self.text[self.at + 1..];
        let bytes = scan::plain_bytes(rest);
        if rest.get(bytes) != Some(&b'"') {
            return None;
        }
        self.at += bytes + 2;
        Some((rest, bytes))
    }

    /// Reads the key of this field and its colon, if they are next.
    #[inline]
    pub(super) fn take_key(&mut self, field: &Field) -> bool {
        self.peek();
        // Something opened the object that the key is in, so a byte stands before it.
        let before = self.at.wrapping_sub(1);
        let block = self.text.get(before..).and_then(|rest| rest.first_chunk());
        let taken = block.is_some_and(|block| field.is_labelled(block));
        if taken {
            self.at = before + field.json_label().1;
        }
        taken
    }

    /// A key that names a field, and its colon. Returns the field's index.
    #[inline]
    pub(super) fn plain_key(&mut self, message: &'static Message) -> Option<usize> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let rest = &self.text[self.at + 1..];
        let block = rest.first_chunk()?;
        let bytes = scan::plain_bytes(block);
        let [b'"', b':'] = rest.get(bytes..bytes + 2)? else { return None };
        let index = message.index_keyed(&Key::cut(block, bytes)?)?;
        self.at += bytes + 3;
        Some(index)
    }

    /// A whole number of at most 19 digits, written as most writers do, in quotes or not: whether
    /// it is negative, and its digits.
    #[inline]
    pub(super) fn plain_integer(&mut self) -> Option<(bool, u64)> {
        let is_quoted = self.peek()? == b'"';
        let mut at = self.at + usize::from(is_quoted);
        let is_negative = self.text.get(at) == Some(&b'-');
        at += usize::from(is_negative);
        let is_zero_first = self.text.get(at) == Some(&b'0');
        let (value, count) = scan::digits(self.text, &mut at);
        let next = self.text.get(at).copied().unwrap_or(b' ');
        let ends_here = match is_quoted {
            true => next == b'"',
            false => !matches!(next, b'0'..=b'9' | b'.' | b'e' | b'E'),
        };
        if count == 0 || (is_zero_first && count > 1) || !ends_here {
            return None;
        }
        self.at = at + usize::from(is_quoted);
        Some((is_negative, value))
    }

    /// A number that is a quotient of two that a double holds exactly, so that one division finds
    /// the nearest double.
    #[inline]
    pub(super) fn plain_double(&mut self) -> Option<f64> {
        self.peek();
        let is_negative = self.text.get(self.at) == Some(&b'-');
        let mut at = self.at + usize::from(is_negative);
        let is_zero_first = self.text.get(at) == Some(&b'0');
        let (whole, whole_digits) = scan::digits(self.text, &mut at);
        if whole_digits == 0 || (is_zero_first && whole_digits > 1) {
            return None;
        }
        let (mut digits, mut decimals) = (whole, 0);
        if self.text.get(at) == Some(&b'.') {
            at += 1;
            let (part, count) = scan::digits(self.text, &mut at);
            let scale = TENS.get(count).filter(|_| count > 0)?;
            digits = whole.checked_mul(*scale)?.checked_add(part)?;
            decimals = count;
        }
        let next = self.text.get(at).copied().unwrap_or(b' ');
        if digits > DOUBLE_EXACT_MAX || matches!(next, b'0'..=b'9' | b'.' | b'e' | b'E') {
            return None;
        }
        self.at = at;
        let value = digits as f64 / TENS[decimals] as f64;
        Some(if is_negative { -value } else { value })
    }

    /// A number as it is written, its grammar checked.
    pub(super) fn number(&mut self) -> Result<&'a [u8], Box<Fault>> {
        self.peek();
        let rest = &self.text[self.at..];
        let Some(bytes) = number_bytes(rest) else {
            return Err(self.expected("a number"));
        };
        self.at += bytes;
        Ok(&rest[..bytes])
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
    pub(super) fn key(&mut self) -> Result<Cow<'a, [u8]>, Box<Fault>> {
        let key = self.string()?;
        self.expect(b':', "':'")?;
        Ok(key)
    }

    /// Moves behind the next quote or backslash, over characters that stand for themselves, and
    /// returns which of the two it was.
    fn plain(&mut self) -> Result<u8, Box<Fault>> {
        let rest = &self.text[self.at..];
        let bytes = scan::plain_bytes(rest);
        self.at += bytes;
        match rest.get(bytes) {
            Some(&byte @ (b'"' | b'\\')) => {
                self.at += 1;
                Ok(byte)
            }
            Some(_) => Err(Fault::new(self.at, JsonReason::ControlCharacter)),
            None => Err(Fault::new(self.at, JsonReason::Truncated)),
        }
    }

    /// Reads the rest of a string that starts at `start`, behind its first backslash.
    fn escaped(&mut self, start: usize) -> Result<Vec<u8>, Box<Fault>> {
        let mut out = self.text[start..self.at - 1].to_vec();
        loop {
            let character = self.escape()?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            let plain = self.at;
            let end = self.plain()?;
            out.extend_from_slice(&self.text[plain..self.at - 1]);
            if end == b'"' {
                return Ok(out);
            }
        }
    }

    fn escape(&mut self) -> Result<char, Box<Fault>> {
        let offset = self.at - 1;
        let Some(&byte) = self.text.get(self.at) else {
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
        if !self.text[self.at..].starts_with(b"\\u") {
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
            let byte = self.text.get(self.at);
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

const LITERALS: [&[u8]; 3] = [b"null", b"true", b"false"];
/// As many as a `u128` has bits.
const SKIP_DEPTH_MAX: usize = 128;
/// Whole numbers up to this one are doubles, each of them.
const DOUBLE_EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;
/// Powers of ten; all of them are doubles too.
const TENS: [u64; 20] = {
    let mut tens = [1; 20];
    let mut at = 1;
    while at < tens.len() {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};
