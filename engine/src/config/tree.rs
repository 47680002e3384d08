//! YAML text to a tree in which each value knows its place.
//!
//! Scalars stay text: whoever reads a key knows what it must be. Duplicate keys are errors, and
//! so is everything with which a small file could become a large tree.
//!
//! Always
//! - A tree is at most [`DEPTH_MAX`] deep and has at most [`NODES_MAX`] nodes and [`BYTES_MAX`]
//!   bytes of text, aliases counted at each use: code that walks it may recurse.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::problem::{Place, Problem, Report};

pub(crate) const DEPTH_MAX: usize = 64;
pub(crate) const NODES_MAX: usize = 100_000;
pub(crate) const BYTES_MAX: usize = 16 << 20;

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    /// `plain`: written without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Of the key.
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// For messages: `a map`.
    pub(crate) fn form(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Gives the whole tree one place: that of the reference or the setting it came from.
    pub(crate) fn move_to(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_to(place)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.place = place.clone();
                    entry.node.move_to(place);
                }
            }
            Value::Null | Value::Scalar { .. } => {}
        }
    }

    /// Nodes and bytes of text.
    fn weight(&self) -> (usize, usize) {
        let sum = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        match &self.value {
            Value::Null => (1, 0),
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Node::weight).fold((1, 0), sum),
            Value::Map(entries) => entries.iter().fold((1, 0), |whole, entry| {
                sum(sum(whole, (0, entry.key.len())), entry.node.weight())
            }),
        }
    }

    fn depth(&self) -> usize {
        match &self.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|e| e.node.depth()).max().unwrap_or(0),
        }
    }
}

/// Does YAML take this unquoted text for "no value"?
pub(crate) fn means_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads one document. `None`: the text is no YAML or too much of it, and the report says so.
/// Findings that leave a tree to go on with, such as duplicate keys, are reported, too.
pub(crate) fn read(text: &str, source: &Arc<str>, report: &Report) -> Option<Node> {
    let mut builder = Builder {
        source,
        report,
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        nodes_count: 0,
        bytes_count: 0,
        documents_count: 0,
    };
    match builder.read(text) {
        Ok(()) => Some(builder.root.unwrap_or(Node {
            place: Place { source: source.clone(), line: 1, column: 1 },
            value: Value::Null,
        })),
        Err(problem) => {
            report.add(*problem);
            None
        }
    }
}

struct Builder<'a> {
    source: &'a Arc<str>,
    report: &'a Report,
    /// Lists and maps that have begun and not ended.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes_count: usize,
    bytes_count: usize,
    documents_count: usize,
}

struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, known: HashMap<String, Place>, key: Option<(String, Place)> },
}

type Stop = Box<Problem>;

impl Builder<'_> {
    fn read(&mut self, text: &str) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|fault| {
                Problem::error(&self.place(fault.marker()), format!("no YAML: {}", fault.info()))
                    .hint("check the indentation and the quotes here and in the line before")
            })?;
            let place = self.place(&span.start);
            self.take(event, place)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => self.documents_count += 1,
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_ref().map(|tag| tag.to_string()), &place);
                let plain = style == ScalarStyle::Plain;
                let value = match plain && means_null(&text) {
                    true => Value::Null,
                    false => Value::Scalar { text: text.into_owned(), plain },
                };
                self.add(Node { place, value }, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_ref().map(|tag| tag.to_string()), &place);
                self.begin(place, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_ref().map(|tag| tag.to_string()), &place);
                let (entries, known) = (Vec::new(), HashMap::new());
                self.begin(place, anchor, Content::Map { entries, known, key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(stop(&place, "this alias stands inside its own anchor"));
                };
                self.weigh(node.weight(), &place)?;
                if self.open.len() + node.depth() > DEPTH_MAX {
                    return Err(too_deep(&place));
                }
                self.place_node(node)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        if self.documents_count > 1 {
            let problem = Problem::error(&self.whole(), "more than one YAML document in a source")
                .hint("split the file at \"---\" and give each part with --config");
            return Err(problem.into());
        }
        Ok(())
    }

    fn begin(&mut self, place: Place, anchor: usize, content: Content) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(&place));
        }
        self.open.push(Open { place, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let open = self.open.pop().expect("the parser pairs starts and ends");
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(merge_keys(entries, self.report)),
        };
        self.add(Node { place: open.place, value }, open.anchor)
    }

    /// Takes a node that the text has written out.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        let bytes = match &node.value {
            Value::Scalar { text, .. } => text.len(),
            _ => 0,
        };
        self.weigh((1, bytes), &node.place)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place_node(node)
    }

    fn weigh(&mut self, (nodes, bytes): (usize, usize), place: &Place) -> Result<(), Stop> {
        self.nodes_count += nodes;
        self.bytes_count += bytes;
        if self.nodes_count > NODES_MAX || self.bytes_count > BYTES_MAX {
            let what = format!(
                "more than {NODES_MAX} values or {} MiB of text, aliases counted at each use",
                BYTES_MAX >> 20
            );
            return Err(stop(place, &what));
        }
        Ok(())
    }

    /// Puts a node where it belongs: into the open list or map, or at the root.
    fn place_node(&mut self, node: Node) -> Result<(), Stop> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, known, key }) => match key.take() {
                None => *key = Some(key_of(node)?),
                Some((key, place)) => {
                    if let Some(first) = known.insert(key.clone(), place.clone()) {
                        let what = format!("duplicate key \"{key}\": it also stands at {first}");
                        let hint = "keep one of the two: which one would count is anyone's guess";
                        self.report.add(Problem::error(&place, what).hint(hint));
                    } else {
                        entries.push(Entry { key, place, node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Tags choose types; here the key does that. `!!str` and the like would only look effective.
    fn refuse_tag(&self, tag: Option<String>, place: &Place) {
        if let Some(tag) = tag {
            let what = format!("YAML tags such as {tag} are not supported");
            self.report.add(Problem::error(place, what).hint("remove the tag; quote texts"));
        }
    }

    fn place(&self, marker: &Marker) -> Place {
        Place { source: self.source.clone(), line: marker.line(), column: marker.col() + 1 }
    }

    fn whole(&self) -> Place {
        Place::whole(self.source)
    }
}

fn key_of(node: Node) -> Result<(String, Place), Stop> {
    match node.value {
        Value::Scalar { text, .. } => Ok((text, node.place)),
        _ => Err(stop(&node.place, "a key must be a name")),
    }
}

/// YAML's merge key: `<<: *defaults` adds the entries that the map does not have itself.
fn merge_keys(entries: Vec<Entry>, report: &Report) -> Vec<Entry> {
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    for merge in merges {
        let maps = match merge.node.value {
            Value::List(items) => items,
            _ => vec![merge.node],
        };
        for map in maps {
            let Value::Map(entries) = map.value else {
                let what = format!("\"<<\" takes a map to merge, not {}", map.form());
                report.add(Problem::error(&map.place, what));
                continue;
            };
            let known: HashSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
            own.extend(entries.into_iter().filter(|entry| !known.contains(&entry.key)));
        }
    }
    own
}

fn too_deep(place: &Place) -> Stop {
    stop(place, &format!("nested deeper than {DEPTH_MAX} levels"))
}

fn stop(place: &Place, what: &str) -> Stop {
    Problem::error(place, what).into()
}
