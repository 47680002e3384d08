//! A request as JSON in any of the spellings that a reader has to take.
//!
//! Written from the tables alone, with nothing of the codec's own writer: keys in any order and in
//! both cases, escapes anywhere, blanks or none, numbers in every notation, names of enum values,
//! both base64 alphabets, unknown keys and nulls.

use fastrand::Rng;
use forebay_codec::schema::{Field, Kind, LEN, Message};
use forebay_codec::wire::{self, Fields};

/// `bytes`: as prost writes them, each field in one place.
pub(crate) fn respelled(message: &'static Message, bytes: &[u8], random: &mut Rng) -> String {
    // Half of the texts as most writers make them, so that what is fast for those is seen too.
    let is_odd = random.bool();
    Spell { random, is_odd }.object(message, bytes)
}

struct Spell<'a> {
    random: &'a mut Rng,
    is_odd: bool,
}

impl Spell<'_> {
    fn object(&mut self, message: &'static Message, bytes: &[u8]) -> String {
        let mut members = Vec::new();
        for field in message.fields {
            let values: Vec<_> = Fields::new(bytes, 0..bytes.len())
                .filter(|raw| raw.number == field.number)
                .map(|raw| (raw.wire_type, &bytes[raw.value]))
                .collect();
            if let Some(value) = self.field(field, &values) {
                members.push(self.member(field, &value));
            } else if self.rarely() {
                members.push(self.member(field, "null"));
            }
        }
        if self.rarely() {
            let value = self.one_of(&["1", "\"\\\"}\"", "{\"name\":[{}]}", "[[],null]", "-1.5e3"]);
            members.push(format!("\"unknown_{}\":{value}", self.random.u8(..)));
        }
        if self.random.bool() {
            self.random.shuffle(&mut members);
        }
        let mut out = "{".to_owned();
        for (index, member) in members.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            out.extend([comma, self.blank(), member.as_str(), self.blank()]);
        }
        out + self.blank() + "}"
    }

    fn member(&mut self, field: &Field, value: &str) -> String {
        let json_name = String::from_utf8(field.json_name().to_vec()).expect("ASCII");
        let name = if self.rarely() { field.name } else { &json_name };
        let key = self.string(name);
        [&key, self.blank(), ":", self.blank(), value, self.blank()].concat()
    }

    /// `None`: the field is not there.
    fn field(&mut self, field: &Field, values: &[(u8, &[u8])]) -> Option<String> {
        let (wire_type, first) = *values.first()?;
        if !field.repeated {
            return Some(self.value(field.kind, first));
        }
        let mut elements = Vec::new();
        if wire_type == LEN && field.kind.wire_type() != LEN {
            let mut at = 0;
            while at < first.len() {
                let value = wire::value(first, &mut at, field.kind.wire_type()).expect("packed");
                elements.push(self.value(field.kind, &first[value]));
            }
        } else {
            elements.extend(values.iter().map(|(_, value)| self.value(field.kind, value)));
        }
        let comma = [self.blank(), ",", self.blank()].concat();
        Some(["[", self.blank(), &elements.join(&comma), self.blank(), "]"].concat())
    }

    fn value(&mut self, kind: Kind, value: &[u8]) -> String {
        let fixed64 = || u64::from_le_bytes(value.try_into().expect("eight bytes"));
        let varint = wire::varint_of(value);
        match kind {
            Kind::Message(inner) => self.object(inner, value),
            Kind::String => self.string(str::from_utf8(value).expect("prost writes UTF-8")),
            Kind::Id(_) => {
                let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                let digits = if self.rarely() { digits.to_uppercase() } else { digits };
                self.string(&digits)
            }
            Kind::Bytes | Kind::ProfileId => {
                let text = self.base64(value);
                self.string(&text)
            }
            Kind::Bool => (varint != 0).to_string(),
            Kind::Enum(names) => {
                let name = names.iter().find(|(_, number)| *number as u64 == varint);
                match name.filter(|_| self.rarely()) {
                    Some((name, _)) => self.string(name),
                    None => (varint as i32).to_string(),
                }
            }
            Kind::Int32 | Kind::Strindex => self.integer((varint as i32).into()),
            Kind::Sint32 => {
                self.integer(((varint as u32 >> 1) as i32 ^ -(varint as i32 & 1)).into())
            }
            Kind::Int64 => self.integer((varint as i64).into()),
            Kind::Uint32 | Kind::Uint64 => self.integer(varint.into()),
            Kind::Fixed32 => {
                self.integer(u32::from_le_bytes(value.try_into().expect("four bytes")).into())
            }
            Kind::Fixed64 => self.integer(fixed64().into()),
            Kind::Sfixed64 => self.integer((fixed64() as i64).into()),
            Kind::Double => self.double(f64::from_bits(fixed64())),
        }
    }

    fn integer(&mut self, number: i128) -> String {
        let zeros = self.random.usize(0..30);
        let text = match self.random.u8(0..if self.is_odd { 8 } else { 3 }) {
            4 => format!("{number}.{}", "0".repeat(zeros + 1)),
            5 if number != 0 => format!("{number}{}E-{zeros}", "0".repeat(zeros)),
            6 if number % 1000 == 0 => format!("{}e+3", number / 1000),
            7 if number == 0 => "-0".to_owned(),
            _ => number.to_string(),
        };
        self.maybe_quoted(text)
    }

    fn double(&mut self, number: f64) -> String {
        if !number.is_finite() {
            let name = if number > 0.0 { "Infinity" } else { "-Infinity" };
            return self.string(name);
        }
        let text = match self.random.u8(0..4) {
            0 => format!("{number:e}"),
            1 => format!("{number}"),
            _ => format!("{number:?}"),
        };
        self.maybe_quoted(text)
    }

    fn maybe_quoted(&mut self, number: String) -> String {
        if self.random.bool() { format!("\"{number}\"") } else { number }
    }

    fn string(&mut self, text: &str) -> String {
        let mut out = "\"".to_owned();
        let is_escaped = self.is_odd && self.random.u8(0..8) == 0;
        for character in text.chars() {
            let must = character < ' ' || matches!(character, '"' | '\\');
            let may = is_escaped && self.random.bool();
            if !(must || may) {
                out.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
        out + "\""
    }

    fn base64(&mut self, bytes: &[u8]) -> String {
        let last = if self.random.bool() { "+/" } else { "-_" };
        let letters = ('A'..='Z').chain('a'..='z').chain('0'..='9');
        let alphabet: Vec<char> = letters.chain(last.chars()).collect();
        let mut out = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
            let bits = bits << (8 * (3 - group.len()));
            out.extend((0..=group.len()).map(|at| alphabet[bits >> (18 - 6 * at) & 63]));
        }
        if self.random.bool() {
            out.push_str(&"=".repeat(out.len().next_multiple_of(4) - out.len()));
        }
        out
    }

    fn blank(&mut self) -> &'static str {
        match self.is_odd {
            true => self.one_of(&["", "", "", " ", "\n", "\r\n\t", "\n                   "]),
            false => "",
        }
    }

    fn rarely(&mut self) -> bool {
        self.is_odd && self.random.u8(0..6) == 0
    }

    fn one_of(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.random.usize(0..choices.len())]
    }
}
