//! A map of the configuration, read strictly against the declaration of its keys.
//!
//! Always
//! - Opening a section reports every key that is unknown, refused or without effect.
//! - A value that can't be read is reported and its default used, so that reading goes on and one
//!   run finds all mistakes.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::keys::{Key, Role, Table};
use super::problem::{Place, Problem, Report, nearest};
use super::tree::{Entry, Node, Value};
use super::values;

pub(crate) struct Section<'a> {
    /// As the user wrote it: `exporters.otlp_grpc/tempo`. Empty for the whole file.
    pub(crate) path: String,
    pub(crate) place: Place,
    pub(crate) report: &'a Report,
    table: &'static Table,
    entries: &'a [Entry],
}

/// A component of the configuration: `otlp_grpc/tempo` is of kind `otlp_grpc`.
pub(crate) struct Component<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) place: &'a Place,
    pub(crate) node: &'a Node,
    /// `exporters.otlp_grpc/tempo`.
    pub(crate) path: String,
}

impl<'a> Section<'a> {
    /// Null is a map without entries: `grpc:` alone means its defaults.
    pub(crate) fn open(
        node: &'a Node,
        place: &Place,
        path: impl Into<String>,
        table: &'static Table,
        report: &'a Report,
    ) -> Section<'a> {
        let (entries, place, path) = (node.entries(), place.clone(), path.into());
        let section = Section { path, place, report, table, entries };
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            let what = format!("{} must be a map, not {}", section.subject(), node.form());
            report.add(Problem::error(&node.place, what));
        }
        entries.iter().for_each(|entry| section.admit(entry));
        section
    }

    /// The map under `name`; without entries if it is absent.
    pub(crate) fn block(&self, name: &str, table: &'static Table) -> Section<'a> {
        match self.entry(name) {
            Some(entry) => {
                Section::open(&entry.node, &entry.place, self.key_path(name), table, self.report)
            }
            None => Section {
                path: self.key_path(name),
                place: self.place.clone(),
                report: self.report,
                table,
                entries: &[],
            },
        }
    }

    /// The entry of a declared key, even if its value is null.
    pub(crate) fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.declared(name);
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// The value of a declared key, unless it is absent or null.
    pub(crate) fn given(&self, name: &str) -> Option<&'a Node> {
        self.entry(name).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    /// Whether `name` stands there without a value, as a variable leaves it that has lost its own.
    pub(crate) fn is_empty(&self, name: &str) -> bool {
        self.entry(name).is_some_and(|entry| match &entry.node.value {
            Value::Null => true,
            Value::Scalar { text, .. } => text.is_empty(),
            Value::List(_) | Value::Map(_) => false,
        })
    }

    /// Where `name` stands, or else the section.
    pub(crate) fn place_of(&self, name: &str) -> &Place {
        self.entries.iter().find(|entry| entry.key == name).map_or(&self.place, |e| &e.place)
    }

    /// The map under `name` as components: `type` or `type/name` each.
    pub(crate) fn components(&self, name: &str) -> Vec<Component<'a>> {
        let Some(node) = self.given(name) else {
            return Vec::new();
        };
        if !matches!(node.value, Value::Map(_)) {
            let what = format!("\"{name}\" must be a map, not {}", node.form());
            self.report.add(Problem::error(&node.place, what));
        }
        let components: Vec<Component<'a>> =
            node.entries().iter().map(|entry| component(name, entry)).collect();
        for component in components.iter().filter(|component| !component.has_proper_id()) {
            let what = format!("\"{}\" is no name for a component", component.id);
            let hint = "write type or type/name, such as otlp or otlp/edge";
            self.report.add(Problem::error(component.place, what).hint(hint));
        }
        components
    }

    /// The texts of a list; a single text counts as a list of one.
    pub(crate) fn texts(&self, name: &str) -> Vec<(&'a str, &'a Place)> {
        let Some(node) = self.given(name) else {
            return Vec::new();
        };
        let items: &[Node] = match &node.value {
            Value::List(items) => items,
            Value::Scalar { .. } => std::slice::from_ref(node),
            _ => {
                self.fault(name, &format!("must be a list, not {}", node.form()));
                &[]
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::Scalar { text, .. } => texts.push((text.as_str(), &item.place)),
                Value::Null => texts.push(("", &item.place)),
                _ => self.fault(name, &format!("must hold names only, not {}", item.form())),
            }
        }
        texts
    }

    /// A value with a reader of its own. `None`: absent, and without a default; or faulty.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        reader: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let key = self.declared(name);
        if let Some(node) = self.given(name) {
            let read = match &node.value {
                Value::Scalar { text, .. } => reader(text),
                _ => Err(format!("must be a single value ({}), not {}", key.kind, node.form())),
            };
            match read {
                Ok(value) => return Some(value),
                Err(fault) => self.fault(name, &fault),
            }
        }
        match key.default {
            "" => None,
            default => Some(reader(default).expect("defaults are written as they are read")),
        }
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        self.value(name, values::duration)
    }

    /// More than zero.
    pub(crate) fn duration_above_zero(&self, name: &str) -> Duration {
        self.value(name, |text| match values::duration(text)? {
            Duration::ZERO => Err("must be longer than zero".to_owned()),
            duration => Ok(duration),
        })
    }

    pub(crate) fn size(&self, name: &str, range: RangeInclusive<u64>) -> u64 {
        self.value(name, |text| in_range(values::size(text)?, &range))
    }

    pub(crate) fn count(&self, name: &str, range: RangeInclusive<u64>) -> u64 {
        self.value(name, |text| in_range(values::count(text)?, &range))
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name, values::flag)
    }

    /// A value whose declaration has a default.
    pub(crate) fn value<T>(&self, name: &str, reader: impl Fn(&str) -> Result<T, String>) -> T {
        self.read(name, reader).expect("a key read as a value declares a default")
    }

    /// Reports what is wrong with `name`: `fault` goes on after the key.
    pub(crate) fn fault(&self, name: &str, fault: &str) {
        let place = self.given(name).map_or(self.place_of(name), |node| &node.place);
        let problem = Problem::error(place, format!("{} {fault}", self.key_path(name)));
        self.report.add(match self.declared(name).default {
            "" => problem,
            default => problem.hint(format!("without the key it is {default}")),
        });
    }

    pub(crate) fn key_path(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    fn subject(&self) -> &str {
        match self.path.as_str() {
            "" => "the configuration",
            path => path,
        }
    }

    fn declared(&self, name: &str) -> &'static Key {
        let key = self.table.keys.iter().find(|key| key.name == name);
        key.unwrap_or_else(|| panic!("{}.{name} is read but not declared", self.table.path))
    }

    /// Judges one entry by its key alone.
    fn admit(&self, entry: &Entry) {
        let known = || self.table.keys.iter().filter(|key| key.role != Role::Refused);
        let name = &entry.key;
        let Some(key) = self.table.keys.iter().find(|key| key.name == name) else {
            let what = format!("unknown key \"{name}\" in {}", self.subject());
            self.report.add(Problem::error(&entry.place, what).hint(
                match nearest(name, known().map(|key| key.name)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("known here: {}", names(known())),
                },
            ));
            return;
        };
        // Null is what the Collector writes for "not set".
        if entry.node.is_null() && key.role != Role::Ignored {
            return;
        }
        let path = self.key_path(name);
        match key.role {
            Role::Value | Role::Block => {}
            Role::Ignored => {
                let what = format!("{path} has no effect in forebay");
                self.report.add(Problem::warning(&entry.place, what).why(key.about));
            }
            Role::Refused => {
                let what = format!("{path} is not supported");
                self.report.add(Problem::error(&entry.place, what).hint(key.about));
            }
            Role::Only => match &entry.node.value {
                Value::Scalar { text, .. } if text == key.default => {}
                _ => {
                    let what = format!("{path} can only be {}", key.default);
                    self.report.add(Problem::error(&entry.place, what).hint(key.about));
                }
            },
        }
    }
}

fn component<'a>(class: &str, entry: &'a Entry) -> Component<'a> {
    Component {
        id: &entry.key,
        kind: entry.key.split('/').next().expect("split yields at least one part"),
        place: &entry.place,
        node: &entry.node,
        path: format!("{class}.{}", entry.key),
    }
}

pub(crate) fn in_range(number: u64, range: &RangeInclusive<u64>) -> Result<u64, String> {
    match range.contains(&number) {
        true => Ok(number),
        false => {
            Err(format!("must lie from {} to {}; this is {number}", range.start(), range.end()))
        }
    }
}

fn names<'k>(keys: impl Iterator<Item = &'k Key>) -> String {
    let names: Vec<&str> = keys.map(|key| key.name).collect();
    match names.is_empty() {
        true => "no keys".to_owned(),
        false => names.join(", "),
    }
}

impl Component<'_> {
    fn has_proper_id(&self) -> bool {
        let (kind, name) = self.id.split_once('/').unwrap_or((self.id, "x"));
        !kind.is_empty() && !name.is_empty() && !self.id.contains(char::is_whitespace)
    }

    /// A type that forebay does not have.
    pub(crate) fn unknown(&self, class: &str, kinds: &[&str]) -> Problem {
        let problem = Problem::error(self.place, format!("unknown {class} type \"{}\"", self.kind));
        problem.hint(match nearest(self.kind, kinds.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "forebay has {}; leave \"{}\" to a Collector behind it",
                kinds.join(", "),
                self.kind
            ),
        })
    }
}
