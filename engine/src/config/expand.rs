//! References to the environment: `${env:NAME}`, `${env:NAME:-default}`, `${NAME}`, `$$`.
//!
//! Values are expanded, keys are not, and what a variable holds is not expanded again. An unset
//! variable without a default is an error: an endpoint or a token that silently becomes empty
//! costs more than a start that fails.

use std::sync::Arc;

use super::problem::{Place, Problem, Report};
use super::tree::{self, Node, Value};

/// The environment, as a function so that tests bring their own.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A default may hold references itself; deeper than this nobody means it.
const NESTING_MAX: usize = 8;

/// Expands every value of the tree in place.
pub(crate) fn expand(node: &mut Node, environment: Environment<'_>, report: &Report) {
    match &mut node.value {
        Value::Null => {}
        Value::List(items) => {
            items.iter_mut().for_each(|item| expand(item, environment, report));
        }
        Value::Map(entries) => {
            entries.iter_mut().for_each(|entry| expand(&mut entry.node, environment, report));
        }
        Value::Scalar { text, plain } if text.contains('$') => {
            match expand_text(text, environment, 0) {
                Ok(expanded) if *plain && is_one_reference(text) => {
                    node.value = typed(&expanded, &node.place);
                }
                Ok(expanded) => *text = expanded,
                Err(fault) => {
                    let problem = Problem::error(&node.place, fault.what);
                    report.add(problem.hint(fault.hint));
                }
            }
        }
        Value::Scalar { .. } => {}
    }
}

struct Fault {
    what: String,
    hint: String,
}

/// An unquoted value that is one reference takes the variable's text as if it stood in the file:
/// empty is null, and `{...}` or `[...]` is a map or a list.
fn typed(text: &str, place: &Place) -> Value {
    if tree::means_null(text) {
        return Value::Null;
    }
    if text.trim_start().starts_with(['{', '[']) {
        let trial = Report::default();
        let read = tree::read(text, &Arc::from("environment"), &trial);
        if let (Some(mut node), true) = (read, trial.finish().0.is_empty()) {
            node.move_to(place);
            return node.value;
        }
    }
    Value::Scalar { text: text.to_owned(), plain: true }
}

fn is_one_reference(text: &str) -> bool {
    text.strip_prefix("${").and_then(closing).is_some_and(|(_, rest)| rest.is_empty())
}

fn expand_text(text: &str, environment: Environment<'_>, depth: usize) -> Result<String, Fault> {
    if depth > NESTING_MAX {
        return Err(Fault {
            what: format!("references nested deeper than {NESTING_MAX} levels"),
            hint: "give the inner default directly".into(),
        });
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{') {
            let (reference, after) = closing(inside).ok_or_else(|| Fault {
                what: format!("\"{text}\" opens \"${{\" and does not close it"),
                hint: "write ${env:NAME}, or $$ for a dollar sign".into(),
            })?;
            expanded.push_str(&look_up(reference, environment, depth)?);
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Splits at the brace that closes the reference which has just begun.
fn closing(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

fn look_up(reference: &str, environment: Environment<'_>, depth: usize) -> Result<String, Fault> {
    let name = match reference.split_once(':') {
        Some(("env", name)) => name,
        // Without a scheme the Collector means the environment; `NAME:-x` has its default there.
        Some((name, rest)) if rest.starts_with('-') && is_name(name) => reference,
        None => reference,
        Some((scheme, _)) => {
            return Err(Fault {
                what: format!("references to \"{scheme}:\" are not supported"),
                hint: "use ${env:NAME}, or give more files with --config".into(),
            });
        }
    };
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    if !is_name(name) {
        return Err(Fault {
            what: format!("\"{name}\" is no name of an environment variable"),
            hint: "names have letters, digits and underscores and do not begin with a digit".into(),
        });
    }
    match (environment(name), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => expand_text(default, environment, depth + 1),
        (None, None) => Err(Fault {
            what: format!("the environment variable {name} is not set"),
            hint: format!("set it, or give a default: ${{env:{name}:-default}}"),
        }),
    }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
