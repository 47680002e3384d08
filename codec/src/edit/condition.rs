//! Conditions of the Collector's `filter` processor: a part of OTTL, compiled once, evaluated on
//! the bytes of an item.
//!
//! Comparisons, `and`, `or`, `not`, parentheses, `IsMatch`; what a path may be is said in
//! `condition/paths`. Whatever OTTL has beyond that is refused by its column, never guessed at.
//! Values compare as OTTL compares them: numbers with numbers, otherwise only within one type;
//! across types `!=` is true and everything else false. So no evaluation can fail.

use std::cmp::Ordering;
use std::ops::Range;

use regex::bytes::Regex;

use super::read::{self, Scalar};

pub use parse::ConditionError;

mod parse;
mod paths;

/// What a condition looks at, and drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    Span,
    LogRecord,
    Metric,
    DataPoint,
}

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {
    context: Context,
    root: Node,
}

impl Condition {
    /// Reads a condition such as `attributes["http.route"] == "/health" and kind != 3`.
    pub fn parse(text: &str, context: Context) -> Result<Self, ConditionError> {
        let root = parse::parse(text, context)?;
        Ok(Self { context, root })
    }

    pub fn context(&self) -> Context {
        self.context
    }

    /// Adds what lies above the items, and is looked up once for all of them, to `above`.
    pub(super) fn bind(&mut self, above: &mut Vec<Above>) {
        self.root.bind(above);
    }

    pub(super) fn is_true(&self, scene: &Scene<'_>) -> bool {
        self.root.is_true(scene)
    }
}

/// Where an item lies, and what is known of what lies above it.
pub(super) struct Scene<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) item: Range<usize>,
    /// The field of the item that holds its attributes.
    pub(super) item_attributes: u32,
    /// The values of all that conditions read above the items, in the order of their binding.
    pub(super) above: &'a [Scalar<'a>],
}

#[derive(Clone, Debug)]
enum Node {
    Constant(bool),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare(Operand, Order, Operand),
    Matches(Operand, Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Debug)]
enum Operand {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<[u8]>),
    Bytes(Box<[u8]>),
    Path(Path),
}

/// Something of an item or of what lies above it.
#[derive(Clone, Debug)]
enum Path {
    Attribute(Box<[u8]>),
    Field(u32, Type),
    /// A field of a span's `status`.
    Status(u32, Type),
    /// With its place in [`Scene::above`], once it is bound.
    Above(Above, usize),
}

/// Something above the items. It is looked up once for all items below it: a large resource over
/// millions of tiny items must not be searched for each of them.
#[derive(Clone, Debug)]
pub(super) enum Above {
    ResourceAttribute(Box<[u8]>),
    ScopeAttribute(Box<[u8]>),
    ScopeText(u32),
    MetricText(u32),
    MetricType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Resource,
    Scope,
    Metric,
}

impl Above {
    pub(super) fn level(&self) -> Level {
        match self {
            Above::ResourceAttribute(_) => Level::Resource,
            Above::ScopeAttribute(_) | Above::ScopeText(_) => Level::Scope,
            Above::MetricText(_) | Above::MetricType => Level::Metric,
        }
    }

    /// Its value in the message of its level, which lies at `parts`.
    pub(super) fn value<'a>(&self, bytes: &'a [u8], parts: &[Range<usize>]) -> Scalar<'a> {
        let attribute = |number, key| read::attribute(bytes, parts, number, key);
        match self {
            Above::ResourceAttribute(key) => attribute(paths::RESOURCE_ATTRIBUTES, key),
            Above::ScopeAttribute(key) => attribute(paths::SCOPE_ATTRIBUTES, key),
            Above::ScopeText(number) | Above::MetricText(number) => {
                Some(Scalar::Text(read::bytes_of(bytes, parts.iter().cloned(), *number)))
            }
            Above::MetricType => Some(Scalar::Int(paths::metric_type(bytes, parts))),
        }
        .unwrap_or(Scalar::Nil)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Enum,
    /// An id of this many bytes: absent means all zeros.
    Id(usize),
    /// The same in hexadecimal; absent is the empty text.
    IdText,
    AnyValue,
}

impl Node {
    fn is_true(&self, scene: &Scene<'_>) -> bool {
        match self {
            Node::Constant(value) => *value,
            Node::Not(node) => !node.is_true(scene),
            Node::All(nodes) => nodes.iter().all(|node| node.is_true(scene)),
            Node::Any(nodes) => nodes.iter().any(|node| node.is_true(scene)),
            Node::Compare(left, order, right) => {
                let (mut left_room, mut right_room) = ([0; ID_TEXT_MAX], [0; ID_TEXT_MAX]);
                let left = left.value(scene, &mut left_room);
                order.holds(&left, &right.value(scene, &mut right_room))
            }
            Node::Matches(operand, regex) => {
                let mut room = [0; ID_TEXT_MAX];
                matches(regex, &operand.value(scene, &mut room))
            }
        }
    }

    fn bind(&mut self, above: &mut Vec<Above>) {
        match self {
            Node::Constant(_) => {}
            Node::Not(node) => node.bind(above),
            Node::All(nodes) | Node::Any(nodes) => {
                nodes.iter_mut().for_each(|node| node.bind(above));
            }
            Node::Compare(left, _, right) => {
                left.bind(above);
                right.bind(above);
            }
            Node::Matches(operand, _) => operand.bind(above),
        }
    }
}

/// Numbers and bools match by their text, as OTTL converts them.
fn matches(regex: &Regex, value: &Scalar<'_>) -> bool {
    match value {
        Scalar::Text(text) => regex.is_match(text),
        Scalar::Int(value) => regex.is_match(value.to_string().as_bytes()),
        Scalar::Float(value) => regex.is_match(value.to_string().as_bytes()),
        Scalar::Bool(value) => regex.is_match(value.to_string().as_bytes()),
        Scalar::Nil | Scalar::Bytes(_) | Scalar::Composite => false,
    }
}

impl Order {
    fn holds(self, left: &Scalar<'_>, right: &Scalar<'_>) -> bool {
        let ordering = match (left, right) {
            (Scalar::Nil, Scalar::Nil) => Some(Ordering::Equal),
            (Scalar::Bool(left), Scalar::Bool(right)) => Some(left.cmp(right)),
            (Scalar::Int(left), Scalar::Int(right)) => Some(left.cmp(right)),
            (Scalar::Int(left), Scalar::Float(right)) => (*left as f64).partial_cmp(right),
            (Scalar::Float(left), Scalar::Int(right)) => left.partial_cmp(&(*right as f64)),
            (Scalar::Float(left), Scalar::Float(right)) => left.partial_cmp(right),
            (Scalar::Text(left), Scalar::Text(right)) => Some(left.cmp(right)),
            (Scalar::Bytes(left), Scalar::Bytes(right)) => Some(left.cmp(right)),
            _ => None,
        };
        match self {
            Order::Equal => ordering == Some(Ordering::Equal),
            Order::Unequal => ordering != Some(Ordering::Equal),
            Order::Less => ordering == Some(Ordering::Less),
            Order::AtMost => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
            Order::Greater => ordering == Some(Ordering::Greater),
            Order::AtLeast => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// The hexadecimal text of the longest id.
const ID_TEXT_MAX: usize = 32;

impl Operand {
    /// `room` is for a text that is not in the request itself.
    fn value<'v>(&'v self, scene: &'v Scene<'_>, room: &'v mut [u8; ID_TEXT_MAX]) -> Scalar<'v> {
        match self {
            Operand::Nil => Scalar::Nil,
            Operand::Bool(value) => Scalar::Bool(*value),
            Operand::Int(value) => Scalar::Int(*value),
            Operand::Float(value) => Scalar::Float(*value),
            Operand::Text(text) => Scalar::Text(text),
            Operand::Bytes(bytes) => Scalar::Bytes(bytes),
            Operand::Path(path) => path.value(scene, room),
        }
    }

    fn bind(&mut self, bound: &mut Vec<Above>) {
        if let Operand::Path(Path::Above(above, place)) = self {
            *place = bound.len();
            bound.push(above.clone());
        }
    }
}

impl Path {
    fn value<'v>(&self, scene: &'v Scene<'_>, room: &'v mut [u8; ID_TEXT_MAX]) -> Scalar<'v> {
        let (bytes, item) = (scene.bytes, &scene.item);
        match self {
            Path::Attribute(key) => {
                let parts = std::slice::from_ref(item);
                read::attribute(bytes, parts, scene.item_attributes, key).unwrap_or(Scalar::Nil)
            }
            Path::Field(number, kind) => {
                field(bytes, std::iter::once(item.clone()), *number, *kind, room)
            }
            Path::Status(number, kind) => {
                let parts = read::parts_of(bytes, item.clone(), paths::STATUS);
                field(bytes, parts, *number, *kind, room)
            }
            Path::Above(_, place) => scene.above[*place],
        }
    }
}

/// A singular field of the message that lies at `parts`.
fn field<'v>(
    bytes: &'v [u8],
    parts: impl Iterator<Item = Range<usize>>,
    number: u32,
    kind: Type,
    room: &'v mut [u8; ID_TEXT_MAX],
) -> Scalar<'v> {
    match kind {
        Type::Text => Scalar::Text(read::bytes_of(bytes, parts, number)),
        Type::Enum => Scalar::Int(read::enum_of(bytes, parts, number)),
        Type::Id(length) => match read::bytes_of(bytes, parts, number) {
            [] => Scalar::Bytes(&[0; ID_TEXT_MAX / 2][..length]),
            id => Scalar::Bytes(id),
        },
        Type::IdText => {
            let id = read::bytes_of(bytes, parts, number);
            // An id of zeros is none, and has no text.
            if id.iter().all(|byte| *byte == 0) {
                return Scalar::Text(&[]);
            }
            for (place, byte) in room.chunks_exact_mut(2).zip(id) {
                place[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
                place[1] = b"0123456789abcdef"[usize::from(byte & 15)];
            }
            Scalar::Text(&room[..id.len() * 2])
        }
        Type::AnyValue => {
            let mut value = Scalar::Nil;
            for part in parts {
                for any in read::parts_of(bytes, part, number) {
                    read::merge_any(bytes, any, &mut value);
                }
            }
            value
        }
    }
}
