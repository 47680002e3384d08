//! From the text of a condition to its tree. Nothing here sees a request.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use super::{Context, Node, Operand, Order, paths};

/// Parentheses and `not`s inside one another.
const DEPTH_MAX: usize = 32;
/// A compiled pattern may not take more memory than this.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a text is no condition that is supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for ConditionError {}

pub(super) fn parse(text: &str, context: Context) -> Result<Node, ConditionError> {
    let mut parser = Parser { text, at: 0, context };
    let node = parser.any(0)?;
    match parser.next_byte() {
        None => Ok(node),
        Some(_) => Err(parser.error("expected \"and\", \"or\" or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    context: Context,
}

impl<'a> Parser<'a> {
    fn any(&mut self, depth: usize) -> Result<Node, ConditionError> {
        let mut nodes = vec![self.all(depth)?];
        while self.takes_word("or") {
            nodes.push(self.all(depth)?);
        }
        Ok(only(nodes).unwrap_or_else(Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, ConditionError> {
        let mut nodes = vec![self.one(depth)?];
        while self.takes_word("and") {
            nodes.push(self.one(depth)?);
        }
        Ok(only(nodes).unwrap_or_else(Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, ConditionError> {
        if depth > DEPTH_MAX {
            return Err(self.error("more than 32 parentheses inside one another"));
        }
        if self.takes_word("not") {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes("(") {
            let node = self.any(depth + 1)?;
            self.expect(")")?;
            return Ok(node);
        }
        if self.takes_word("IsMatch") {
            return self.is_match();
        }
        let left = self.operand()?;
        let Some(order) = self.order() else {
            return match left {
                Operand::Bool(value) => Ok(Node::Constant(value)),
                _ => Err(self.error("expected a comparison: ==, !=, <, <=, > or >=")),
            };
        };
        let right = self.operand()?;
        Ok(Node::Compare(left, order, right))
    }

    fn is_match(&mut self) -> Result<Node, ConditionError> {
        self.expect("(")?;
        let operand = self.operand()?;
        self.expect(",")?;
        self.skip_space();
        let start = self.at;
        let Operand::Text(pattern) = self.operand()? else {
            return Err(self.error_at(start, "the pattern must be a text in quotes"));
        };
        self.expect(")")?;
        let pattern = String::from_utf8_lossy(&pattern);
        match compile(&pattern) {
            Ok(regex) => Ok(Node::Matches(operand, regex)),
            Err(why) => Err(self.error_at(start, format!("no regular expression: {why}"))),
        }
    }

    fn operand(&mut self) -> Result<Operand, ConditionError> {
        match self.next_byte() {
            Some(b'"') => Ok(Operand::Text(self.quoted()?.into_bytes().into())),
            Some(b'0'..=b'9' | b'-' | b'+') => self.number(),
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => self.named(),
            Some(_) => Err(self.error("expected a value")),
            None => Err(self.error("expected a value, found the end")),
        }
    }

    /// A path, an enum, or a word that stands for a value.
    fn named(&mut self) -> Result<Operand, ConditionError> {
        let start = self.at;
        let name = self.word();
        match name {
            "nil" => return Ok(Operand::Nil),
            "true" | "false" => return Ok(Operand::Bool(name == "true")),
            "TraceID" => return self.id(16),
            "SpanID" => return self.id(8),
            _ => {}
        }
        if self.text[self.at..].starts_with('(') {
            let message = format!("the function {name} is not supported; IsMatch is");
            return Err(self.error_at(start, message));
        }
        if let Some(number) = paths::enumeration(name, self.context) {
            return Ok(Operand::Int(number));
        }
        let key = match self.text[self.at..].starts_with('[') {
            true => {
                self.at += 1;
                self.skip_space();
                let key = self.quoted()?;
                self.expect("]")?;
                Some(key)
            }
            false => None,
        };
        let path = paths::path(name, key.as_deref(), self.context);
        // What follows a bracket (an index, a field of a map) is not supported.
        let goes_on = self.text[self.at..].starts_with(['[', '.']);
        path.filter(|_| !goes_on).map(Operand::Path).ok_or_else(|| {
            let known = paths::known(self.context);
            let message = format!("\"{name}\" is not supported here; known are {known}");
            self.error_at(start, message)
        })
    }

    fn id(&mut self, length: usize) -> Result<Operand, ConditionError> {
        self.expect("(")?;
        self.skip_space();
        let start = self.at;
        let id = self.number()?;
        self.expect(")")?;
        match id {
            Operand::Bytes(id) if id.len() == length => Ok(Operand::Bytes(id)),
            _ => Err(self.error_at(start, format!("expected 0x and {} digits", length * 2))),
        }
    }

    /// An integer, a float, or bytes as `0x...`.
    fn number(&mut self) -> Result<Operand, ConditionError> {
        let start = self.at;
        let rest = &self.text[start..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let text = &rest[..length];
        self.at += length;
        if let Some(digits) = text.strip_prefix("0x") {
            let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
            return bytes
                .map(|bytes| Operand::Bytes(bytes.into()))
                .ok_or_else(|| self.error_at(start, "bytes are 0x and pairs of digits"));
        }
        let number = match text.parse() {
            Ok(number) => Some(Operand::Int(number)),
            Err(_) => text.parse().ok().map(Operand::Float),
        };
        number.ok_or_else(|| self.error_at(start, format!("\"{text}\" is no number")))
    }

    fn quoted(&mut self) -> Result<String, ConditionError> {
        let start = self.at;
        if !self.takes("\"") {
            return Err(self.error("expected a text in double quotes"));
        }
        let mut out = String::new();
        let mut letters = self.text[self.at..].char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at += at + 1;
                    return Ok(out);
                }
                '\\' => out.push(match letters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => escaped,
                    Some((_, 'n')) => '\n',
                    Some((_, 'r')) => '\r',
                    Some((_, 't')) => '\t',
                    _ => {
                        let message = "unknown escape: write \\\\ for a backslash";
                        return Err(self.error_at(self.at + at, message));
                    }
                }),
                other => out.push(other),
            }
        }
        Err(self.error_at(start, "this text has no closing quote"))
    }

    fn order(&mut self) -> Option<Order> {
        let orders = [
            ("==", Order::Equal),
            ("!=", Order::Unequal),
            ("<=", Order::AtMost),
            (">=", Order::AtLeast),
            ("<", Order::Less),
            (">", Order::Greater),
        ];
        orders.into_iter().find(|(sign, _)| self.takes(sign)).map(|(_, order)| order)
    }

    /// Letters, digits, underscores, and dots between them.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let before = self.at;
        if self.word() == wanted {
            return true;
        }
        self.at = before;
        false
    }

    fn takes(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let is_there = self.text[self.at..].starts_with(wanted);
        self.at += if is_there { wanted.len() } else { 0 };
        is_there
    }

    fn expect(&mut self, wanted: &str) -> Result<(), ConditionError> {
        match self.takes(wanted) {
            true => Ok(()),
            false => Err(self.error(format!("expected \"{wanted}\""))),
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, message: impl Into<String>) -> ConditionError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, at: usize, message: impl Into<String>) -> ConditionError {
        let column = self.text[..at].chars().count() + 1;
        ConditionError { column, message: message.into() }
    }
}

/// The node itself if it is alone.
fn only(mut nodes: Vec<Node>) -> Result<Node, Vec<Node>> {
    match nodes.len() {
        1 => nodes.pop().ok_or(nodes),
        _ => Err(nodes),
    }
}

/// Matching takes time in proportion to the text, whatever the pattern.
fn compile(pattern: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    let compiled = builder.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it takes more than 1 MiB when compiled".to_owned(),
        // The library draws a picture over several lines; the last one says what is wrong.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    })
}
