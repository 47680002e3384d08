//! `attributes` and `resource`: what is done to attributes, action by action.

use forebay_codec::edit::{Action, Source, Verb};

use crate::config::keys::{Key, Table, block, refused, value};
use crate::config::section::Section;
use crate::config::tree::{Node, Value};
use crate::config::values;

const MATCH: &str =
    "write the condition into a `filter`, or leave this processor to a Collector behind forebay";

pub(crate) const ATTRIBUTES: Table = Table {
    path: "processors.attributes[/name]",
    keys: &[
        block("actions", "Required. A list, done in its order, to each item's attributes."),
        refused("include", MATCH),
        refused("exclude", MATCH),
    ],
};

pub(crate) const RESOURCE: Table = Table {
    path: "processors.resource[/name]",
    keys: &[block(
        "attributes",
        "Required. A list of the same actions, done to each resource's attributes.",
    )],
};

const ACTION_KEYS: &[Key] = &[
    value("key", "text", "", "Required. The attribute."),
    value(
        "action",
        "insert, update, upsert, delete or hash",
        "",
        "Required. insert: unless it is there; update: only if it is there; hash: its SHA-256.",
    ),
    value(
        "value",
        "text, number, true or false",
        "",
        "What insert, update and upsert set. Quoted: a text.",
    ),
    value("from_attribute", "text", "", "Instead of `value`: the attribute to copy it from."),
    refused("from_context", "client metadata is not kept: remove it"),
    refused("pattern", "name the keys one by one"),
    refused("converted_type", "leave `convert` to a Collector behind forebay"),
];

pub(crate) const ATTRIBUTES_ACTION: Table =
    Table { path: "processors.attributes[/name].actions[]", keys: ACTION_KEYS };

pub(crate) const RESOURCE_ACTION: Table =
    Table { path: "processors.resource[/name].attributes[]", keys: ACTION_KEYS };

/// The actions in the list under `name`.
pub(super) fn actions(section: &Section<'_>, name: &str, table: &'static Table) -> Vec<Action> {
    let list: &[Node] = match section.given(name).map(|node| &node.value) {
        Some(Value::List(list)) => list,
        Some(_) => {
            section.fault(name, "must be a list of actions");
            return Vec::new();
        }
        None => &[],
    };
    if list.is_empty() {
        section.fault(name, "is missing or empty: without an action nothing is done");
    }
    let one = |(index, node): (usize, &Node)| {
        let path = format!("{}[{index}]", section.key_path(name));
        action(&Section::open(node, &node.place, path, table, section.report))
    };
    list.iter().enumerate().filter_map(one).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Update,
    Upsert,
    Delete,
    Hash,
}

fn action(section: &Section<'_>) -> Option<Action> {
    const KINDS: &[(&str, Kind)] = &[
        ("insert", Kind::Insert),
        ("update", Kind::Update),
        ("upsert", Kind::Upsert),
        ("delete", Kind::Delete),
        ("hash", Kind::Hash),
    ];
    let key = section.read("key", values::text).unwrap_or_default();
    if key.is_empty() {
        section.fault("key", "is missing or empty: which attribute?");
    }
    let kind = section.read("action", |text| values::choice(KINDS)(&text.to_ascii_lowercase()));
    if section.given("action").is_none() {
        section.fault("action", "is missing: insert, update, upsert, delete or hash");
    }
    let source = source(section);
    let sets = !matches!(kind?, Kind::Delete | Kind::Hash);
    if !sets && let Some(unused) = given_sources(section).first() {
        section.fault(unused, "has no meaning for delete and hash: remove it");
    }
    if sets && source.is_none() && given_sources(section).is_empty() {
        section.fault("value", "is missing: set it, or from_attribute");
    }
    let verb = match (kind?, source) {
        (Kind::Delete, _) => Verb::Delete,
        (Kind::Hash, _) => Verb::Hash,
        (Kind::Insert, source) => Verb::Insert(source?),
        (Kind::Update, source) => Verb::Update(source?),
        (Kind::Upsert, source) => Verb::Upsert(source?),
    };
    Some(Action { key, verb })
}

fn given_sources(section: &Section<'_>) -> Vec<&'static str> {
    let is_given = |name: &&str| section.given(name).is_some();
    ["value", "from_attribute"].into_iter().filter(is_given).collect()
}

fn source(section: &Section<'_>) -> Option<Source> {
    if given_sources(section).len() > 1 {
        section.fault("from_attribute", "and value exclude each other: remove one");
    }
    if let Some(from) = section.read("from_attribute", values::text) {
        return Some(Source::Attribute(from));
    }
    match &section.given("value")?.value {
        Value::Scalar { text, plain: true } => Some(typed(text)),
        Value::Scalar { text, .. } => Some(Source::Text(text.clone())),
        _ => {
            section.fault("value", "must be a single value; lists and maps are not supported");
            None
        }
    }
}

/// YAML's types for what is written without quotes.
fn typed(text: &str) -> Source {
    match text {
        "true" | "True" | "TRUE" => return Source::Bool(true),
        "false" | "False" | "FALSE" => return Source::Bool(false),
        _ => {}
    }
    let looks_like_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let float = || text.parse().ok().filter(|_| looks_like_number).map(Source::Float);
    let whole = text.parse().ok().map(Source::Int);
    whole.or_else(float).unwrap_or_else(|| Source::Text(text.to_owned()))
}
