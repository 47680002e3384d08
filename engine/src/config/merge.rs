//! Several sources into one tree: maps merge by key, everything else is replaced, later wins.

use std::sync::Arc;

use super::problem::{Place, Problem, Report};
use super::tree::{self, Entry, Node, Value};

/// Lays `upper` over `lower`.
pub(crate) fn merge(lower: &mut Node, upper: Node) {
    match (&mut lower.value, upper) {
        (Value::Map(below), Node { value: Value::Map(above), .. }) => {
            for entry in above {
                match below.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        known.place = entry.place;
                        merge(&mut known.node, entry.node);
                    }
                    None => below.push(entry),
                }
            }
        }
        (_, upper) => *lower = upper,
    }
}

/// A source of its own for one `--set a.b=c`. With `::` in the path, keys are split there, so
/// that they may hold dots. The value is YAML.
pub(crate) fn set(assignment: &str, report: &Report) -> Option<Node> {
    let Some((path, text)) = assignment.split_once('=') else {
        let place = Place::whole(&Arc::from("--set"));
        let what = "a setting needs the form key=value";
        report.add(Problem::error(&place, what).hint("as in --set processors.batch.timeout=1s"));
        return None;
    };
    let source: Arc<str> = Arc::from(format!("--set {path}"));
    let place = Place::whole(&source);
    let mut node = tree::read(text, &source, report)?;
    let keys: Vec<&str> = match path.contains("::") {
        true => path.split("::").collect(),
        false => path.split('.').collect(),
    };
    if keys.iter().any(|key| key.is_empty()) || keys.len() > tree::DEPTH_MAX / 2 {
        report.add(Problem::error(&place, "the path has an empty part, or far too many"));
        return None;
    }
    node.move_to(&place);
    for key in keys.into_iter().rev() {
        let entry = Entry { key: key.to_owned(), place: place.clone(), node };
        node = Node { place: place.clone(), value: Value::Map(vec![entry]) };
    }
    Some(node)
}

/// Turns the short form of `yaml:` sources, `a::b: c`, into nested maps.
pub(crate) fn unfold(node: Node) -> Node {
    let place = node.place;
    let Value::Map(entries) = node.value else {
        return Node { place, value: node.value };
    };
    let mut whole = Node { place, value: Value::Map(Vec::new()) };
    for Entry { key, place, node } in entries {
        let mut inner = unfold(node);
        for part in key.rsplit("::") {
            let entry = Entry { key: part.to_owned(), place: place.clone(), node: inner };
            inner = Node { place: place.clone(), value: Value::Map(vec![entry]) };
        }
        merge(&mut whole, inner);
    }
    whole
}
