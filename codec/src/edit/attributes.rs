//! Actions on the attributes of one resource, scope or item, as the Collector's `attributes` and
//! `resource` processors know them.
//!
//! The attributes are listed by where they lie, the steps run over the list, and what they change
//! becomes a few [`Edit`]s: ranges of the request and the bytes that take their place.
//!
//! Where one key stands several times, which OTLP forbids, the first counts for reading, as in
//! the Collector. Deleting takes all of them, and what sets or hashes a key leaves it standing
//! once: a copy left behind would give away what the action was to hide.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::schema::{LEN, VARINT};
use crate::wire::{self, Fields, RawField};

use super::read::{self, KEY, Scalar, VALUE};

/// What to do to the attribute `key`.
#[derive(Clone, Debug)]
pub struct Action {
    pub key: String,
    pub verb: Verb,
}

#[derive(Clone, Debug)]
pub enum Verb {
    /// Adds the attribute unless it is there.
    Insert(Source),
    /// Sets the attribute if it is there. With a constant: redacts it.
    Update(Source),
    /// Sets the attribute, there or not.
    Upsert(Source),
    Delete,
    /// Sets the attribute, if it is there, to the SHA-256 of its value in hexadecimal: of a text
    /// its bytes, of a number 8 bytes little-endian, of a bool one byte. What is none of these
    /// becomes the empty text.
    Hash,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// The value of another attribute of the same owner. If there is none, nothing is done.
    Attribute(String),
}

/// Compiled actions. Ranges are those of the constants that every arena begins with.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    list: Vec<Step>,
    /// The keys that any step reads or changes; the others are passed over.
    keys: Vec<Range<usize>>,
    /// Bit n: one of them has n bytes, or 63 and more.
    key_lengths: u64,
}

#[derive(Clone, Debug)]
struct Step {
    key: Range<usize>,
    when_there: Change,
    inserts: bool,
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Set,
    Delete,
    Hash,
}

#[derive(Clone, Debug)]
enum From {
    Nowhere,
    /// The content of an `AnyValue`.
    Constant(Range<usize>),
    Attribute(Range<usize>),
    /// What was made for the item at hand, see [`Entries::make`].
    Made(usize),
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn add(&mut self, action: Action, constants: &mut Vec<u8>) {
        let mut keep = |bytes: &[u8]| {
            let start = constants.len();
            constants.extend_from_slice(bytes);
            start..constants.len()
        };
        let key = keep(action.key.as_bytes());
        let (when_there, inserts, source) = match action.verb {
            Verb::Insert(source) => (Change::Nothing, true, Some(source)),
            Verb::Update(source) => (Change::Set, false, Some(source)),
            Verb::Upsert(source) => (Change::Set, true, Some(source)),
            Verb::Delete => (Change::Delete, false, None),
            Verb::Hash => (Change::Hash, false, None),
        };
        let from = match source {
            None => From::Nowhere,
            Some(Source::Attribute(key)) => From::Attribute(keep(key.as_bytes())),
            Some(constant) => From::Constant(keep(&any_value(&constant))),
        };
        self.push(Step { key, when_there, inserts, from });
    }

    /// A step that sets `key` to the value that is made for an item in this place, if one is.
    pub(super) fn add_made(&mut self, key: &str, place: usize, constants: &mut Vec<u8>) {
        let start = constants.len();
        constants.extend_from_slice(key.as_bytes());
        let (key, from) = (start..constants.len(), From::Made(place));
        self.push(Step { key, when_there: Change::Set, inserts: true, from });
    }

    fn push(&mut self, step: Step) {
        self.keys.push(step.key.clone());
        if let From::Attribute(source) = &step.from {
            self.keys.push(source.clone());
        }
        let lengths = self.keys.iter().map(|key| length_bit(key.len()));
        self.key_lengths = lengths.fold(0, |all, one| all | one);
        self.list.push(step);
    }
}

fn length_bit(bytes: usize) -> u64 {
    1 << bytes.min(63)
}

/// The content of an `AnyValue`. A member of a `oneof` is written even if it is zero.
fn any_value(source: &Source) -> Vec<u8> {
    let mut out = Vec::new();
    match source {
        Source::Text(text) => wire::put_bytes(&mut out, read::TEXT, text.as_bytes()),
        Source::Bool(value) => {
            wire::put_tag(&mut out, read::BOOL, VARINT);
            wire::put_varint(&mut out, u64::from(*value));
        }
        Source::Int(value) => {
            wire::put_tag(&mut out, read::INT, VARINT);
            wire::put_varint(&mut out, *value as u64);
        }
        Source::Float(value) => {
            wire::put_tag(&mut out, read::FLOAT, crate::schema::I64);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Source::Attribute(_) => {}
    }
    out
}

/// Bytes that take the place of a range of the request.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub(super) at: Range<usize>,
    /// In the arena.
    pub(super) put: Range<usize>,
}

impl Edit {
    /// Whether the message that it belongs to is not there at all.
    pub(super) fn is_homeless(&self) -> bool {
        self.at.start == HOMELESS
    }
}

const HOMELESS: usize = usize::MAX;

/// The attributes of one owner while its steps run, and the bytes that were made for edits.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    /// Those that a step may be about, in the order of the request.
    list: Vec<Entry>,
    /// Where the last attribute of all ends, if there is any.
    last_end: Option<usize>,
    /// Constants first, then what was made, until it is forgotten.
    arena: Vec<u8>,
    constants_bytes: usize,
    made: [Option<Range<usize>>; MADE_MAX],
    /// Whether an owner had more than [`PARTS_MAX`] attributes that steps are about.
    has_too_many: bool,
}

/// So many attributes of one owner may be changed, and in so many parts may it lie. Real ones have
/// a few; what has millions is there to make us remember them all.
pub(super) const PARTS_MAX: usize = 1 << 16;

/// What a buffer keeps of its size from request to request.
const KEPT_ENTRIES: usize = 1 << 10;
const KEPT_BYTES: usize = 1 << 16;

/// How many values a sampler makes for an item.
const MADE_MAX: usize = 2;

#[derive(Clone, Debug)]
struct Entry {
    /// The whole field in the request; empty for one that a step has added.
    whole: Range<usize>,
    key: Piece,
    /// The content of its `AnyValue`.
    value: Option<Piece>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AsItCame,
    Changed,
    Added,
    Gone,
}

#[derive(Clone, Debug)]
enum Piece {
    Request(Range<usize>),
    Arena(Range<usize>),
}

impl Entries {
    pub(super) fn new(constants: &[u8]) -> Self {
        let (arena, constants_bytes) = (constants.to_vec(), constants.len());
        Self {
            list: Vec::new(),
            last_end: None,
            arena,
            constants_bytes,
            made: [None, None],
            has_too_many: false,
        }
    }

    /// What was made so far; edits refer to it until it is forgotten.
    pub(super) fn mark(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn forget_from(&mut self, mark: usize) {
        self.arena.truncate(mark);
    }

    pub(super) fn forget_all(&mut self) {
        self.arena.truncate(self.constants_bytes);
    }

    /// Between requests: what one large request needed is not kept for ever.
    pub(super) fn shrink(&mut self) {
        self.forget_all();
        self.list.clear();
        self.list.shrink_to(KEPT_ENTRIES);
        self.arena.shrink_to(KEPT_BYTES);
        self.has_too_many = false;
    }

    pub(super) fn has_too_many(&self) -> bool {
        self.has_too_many
    }

    pub(super) fn bytes(&self, made: Range<usize>) -> &[u8] {
        &self.arena[made]
    }

    /// Appends bytes for edits.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.arena.len();
        write(&mut self.arena);
        start..self.arena.len()
    }

    /// Makes the value that the steps added for `place` set, or none.
    pub(super) fn make(&mut self, place: usize, text: Option<&[u8]>) {
        let made = text.map(|text| self.write(|out| wire::put_bytes(out, read::TEXT, text)));
        self.made[place] = made;
    }

    /// Runs the steps over the attributes in field `number` of the message that lies at `parts`;
    /// appends what they change, in the order of the request.
    pub(super) fn edit(
        &mut self,
        bytes: &[u8],
        parts: &[Range<usize>],
        number: u32,
        steps: &Steps,
        edits: &mut Vec<Edit>,
    ) {
        self.list.clear();
        self.last_end = None;
        for part in parts {
            let fields = Fields::new(bytes, part.clone());
            for field in fields.filter(|field| field.number == number) {
                self.last_end = Some(field.whole.end);
                if let Some(key) = read::plain_key(bytes, field.value.clone())
                    && steps.key_lengths & length_bit(key.len()) == 0
                {
                    continue;
                }
                self.collect(bytes, field, steps);
            }
        }
        let mut is_changed = false;
        for step in &steps.list {
            is_changed |= self.run(bytes, step);
        }
        if is_changed {
            // Behind the last attribute, so that fields stay in their order; else at the end.
            let end = parts.last().map_or(HOMELESS, |part| part.end);
            let end = self.last_end.unwrap_or(end);
            self.emit(bytes, number, end, edits);
        }
    }

    fn collect(&mut self, bytes: &[u8], field: RawField, steps: &Steps) {
        let RawField { whole, value: entry, .. } = field;
        let mut key = whole.start..whole.start;
        let mut value = None;
        for field in Fields::new(bytes, entry) {
            match field.number {
                KEY => key = field.value,
                VALUE => value = Some(self.joined(bytes, value, field.value)),
                _ => {}
            }
        }
        let text = &bytes[key.clone()];
        if steps.keys.iter().any(|wanted| self.arena[wanted.clone()] == *text) {
            if self.list.len() == PARTS_MAX {
                self.has_too_many = true;
                return;
            }
            let key = Piece::Request(key);
            self.list.push(Entry { whole, key, value, state: State::AsItCame });
        }
    }

    /// A message in several parts is their concatenation.
    fn joined(&mut self, bytes: &[u8], before: Option<Piece>, part: Range<usize>) -> Piece {
        let start = match before {
            None => return Piece::Request(part),
            Some(Piece::Arena(joined)) => joined.start,
            Some(Piece::Request(first)) => {
                let start = self.arena.len();
                self.arena.extend_from_slice(&bytes[first]);
                start
            }
        };
        self.arena.extend_from_slice(&bytes[part]);
        Piece::Arena(start..self.arena.len())
    }

    /// Returns whether it has changed anything.
    fn run(&mut self, bytes: &[u8], step: &Step) -> bool {
        let Some(first) = self.find(bytes, 0, &step.key) else {
            return step.inserts && self.insert(bytes, step);
        };
        let value = match step.when_there {
            Change::Nothing => return false,
            Change::Delete => None,
            Change::Hash => Some(self.hashed(bytes, first)),
            Change::Set => match self.source(bytes, &step.from) {
                None => return false,
                source => source,
            },
        };
        let mut rest = first;
        if let Some(value) = value {
            let entry = &mut self.list[first];
            entry.value = value;
            if entry.state == State::AsItCame {
                entry.state = State::Changed;
            }
            rest += 1;
        }
        while let Some(copy) = self.find(bytes, rest, &step.key) {
            self.list[copy].state = State::Gone;
            rest = copy + 1;
        }
        true
    }

    fn insert(&mut self, bytes: &[u8], step: &Step) -> bool {
        let Some(value) = self.source(bytes, &step.from) else {
            return false;
        };
        let key = Piece::Arena(step.key.clone());
        self.list.push(Entry { whole: 0..0, key, value, state: State::Added });
        true
    }

    /// The first attribute with this key from the place `start` of the list on.
    fn find(&self, bytes: &[u8], start: usize, key: &Range<usize>) -> Option<usize> {
        let key = &self.arena[key.clone()];
        let is_it =
            |entry: &Entry| entry.state != State::Gone && self.piece(bytes, &entry.key) == key;
        let place = self.list.get(start..)?.iter().position(is_it)?;
        Some(start + place)
    }

    /// The value to set. The inner `None` is that of an attribute without a value.
    fn source(&self, bytes: &[u8], from: &From) -> Option<Option<Piece>> {
        match from {
            From::Nowhere => None,
            From::Constant(value) => Some(Some(Piece::Arena(value.clone()))),
            From::Attribute(key) => {
                let place = self.find(bytes, 0, key)?;
                Some(self.list[place].value.clone())
            }
            From::Made(place) => Some(Some(Piece::Arena(self.made[*place].clone()?))),
        }
    }

    fn hashed(&mut self, bytes: &[u8], place: usize) -> Option<Piece> {
        let value = match &self.list[place].value {
            None => Scalar::Nil,
            Some(Piece::Request(range)) => read::any(bytes, range.clone()),
            Some(Piece::Arena(range)) => read::any(&self.arena, range.clone()),
        };
        let digest = match value {
            Scalar::Text(text) => Some(Sha256::digest(text)),
            Scalar::Bool(value) => Some(Sha256::digest([u8::from(value)])),
            Scalar::Int(value) => Some(Sha256::digest(value.to_le_bytes())),
            Scalar::Float(value) => Some(Sha256::digest(value.to_bits().to_le_bytes())),
            Scalar::Nil | Scalar::Bytes(_) | Scalar::Composite => None,
        };
        let start = self.arena.len();
        let mut text = [0; 64];
        let digits = digest.iter().flatten().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut length = 0;
        for (place, digit) in text.iter_mut().zip(digits) {
            *place = b"0123456789abcdef"[usize::from(digit)];
            length += 1;
        }
        wire::put_bytes(&mut self.arena, read::TEXT, &text[..length]);
        Some(Piece::Arena(start..self.arena.len()))
    }

    fn emit(&mut self, bytes: &[u8], number: u32, end: usize, edits: &mut Vec<Edit>) {
        let mut list = std::mem::take(&mut self.list);
        for entry in &list {
            let start = self.arena.len();
            match entry.state {
                State::AsItCame | State::Added => continue,
                State::Changed => self.write_entry(bytes, number, entry),
                State::Gone if entry.whole.is_empty() => continue,
                State::Gone => {}
            }
            edits.push(Edit { at: entry.whole.clone(), put: start..self.arena.len() });
        }
        let start = self.arena.len();
        for entry in list.iter().filter(|entry| entry.state == State::Added) {
            self.write_entry(bytes, number, entry);
        }
        if self.arena.len() > start {
            edits.push(Edit { at: end..end, put: start..self.arena.len() });
        }
        list.clear();
        self.list = list;
    }

    /// The whole field: key, what is unknown, value.
    fn write_entry(&mut self, bytes: &[u8], number: u32, entry: &Entry) {
        let value_bytes = entry.value.as_ref().map_or(0, |value| self.piece(bytes, value).len());
        let value_field = match entry.value {
            None => 0,
            Some(_) => 1 + wire::varint_bytes(value_bytes as u64) + value_bytes,
        };
        let others = |bytes| {
            let inner = Fields::new(bytes, entry.whole.clone()).next().map(|field| field.value);
            let fields = Fields::new(bytes, inner.unwrap_or_default());
            fields.filter(|field| field.number != VALUE).map(|field| field.whole)
        };
        let head = match entry.state {
            State::Added => {
                let key = self.piece(bytes, &entry.key).len();
                1 + wire::varint_bytes(key as u64) + key
            }
            _ => others(bytes).map(|field| field.len()).sum(),
        };
        wire::put_tag(&mut self.arena, number, LEN);
        wire::put_varint(&mut self.arena, (head + value_field) as u64);
        if entry.state == State::Added {
            self.put_field(bytes, KEY, &entry.key);
        } else {
            for field in others(bytes) {
                self.arena.extend_from_slice(&bytes[field]);
            }
        }
        if let Some(value) = &entry.value {
            self.put_field(bytes, VALUE, value);
        }
    }

    fn put_field(&mut self, bytes: &[u8], number: u32, piece: &Piece) {
        wire::put_tag(&mut self.arena, number, LEN);
        match piece {
            Piece::Request(range) => {
                wire::put_varint(&mut self.arena, range.len() as u64);
                self.arena.extend_from_slice(&bytes[range.clone()]);
            }
            Piece::Arena(range) => {
                wire::put_varint(&mut self.arena, range.len() as u64);
                self.arena.extend_from_within(range.clone());
            }
        }
    }

    fn piece<'b>(&'b self, bytes: &'b [u8], piece: &Piece) -> &'b [u8] {
        match piece {
            Piece::Request(range) => &bytes[range.clone()],
            Piece::Arena(range) => &self.arena[range.clone()],
        }
    }
}
