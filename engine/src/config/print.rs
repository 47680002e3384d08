//! The tree as YAML again, for `print-config`: what was read, merged and expanded, in a form that
//! reads back to the same tree, with secrets masked: by their keys' names, and private keys that
//! stand where a file should be named, or anywhere.

use super::secret::holds_key;
use super::tree::{self, Entry, Node, Value};
use super::values;

const MASK: &str = "[REDACTED]";

/// Keys whose values are secret, by a part of their name.
const SECRET_PARTS: [&str; 7] =
    ["password", "token", "secret", "key_pem", "authorization", "api_key", "apikey"];

/// Which values below a key are masked.
#[derive(Clone, Copy, PartialEq)]
enum Hide {
    Nothing,
    Everything,
    /// All but `name`: the items of a list of headers.
    AllButNames,
}

/// YAML in block style, with a newline at the end.
pub(crate) fn print(root: &Node) -> String {
    let mut text = String::new();
    match &root.value {
        Value::Map(entries) if !entries.is_empty() => {
            print_map(&mut text, entries, 0, Hide::Nothing);
        }
        _ => text.push_str("{}\n"),
    }
    text
}

fn print_map(text: &mut String, entries: &[Entry], indent: usize, hide: Hide) {
    for entry in entries {
        let hide = match hide {
            Hide::AllButNames if entry.key == "name" => Hide::Nothing,
            Hide::Nothing if !is_secret(&entry.key) && !is_misplaced(entry) => Hide::Nothing,
            _ => Hide::Everything,
        };
        text.push_str(&format!("{:indent$}{}:", "", quoted(&entry.key, false)));
        print_value(text, &entry.node, indent, hide);
    }
}

fn print_value(text: &mut String, node: &Node, indent: usize, hide: Hide) {
    match &node.value {
        Value::Null => text.push('\n'),
        Value::Scalar { text: value, .. } if hide != Hide::Nothing || holds_key(value) => {
            text.push_str(&format!(" \"{MASK}\"\n"));
        }
        Value::Scalar { text: value, plain } => {
            text.push_str(&format!(" {}\n", quoted(&value.replace('$', "$$"), *plain)));
        }
        Value::List(items) if items.is_empty() => text.push_str(" []\n"),
        Value::Map(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Value::List(items) => {
            let hide = if hide == Hide::Everything { Hide::AllButNames } else { hide };
            text.push('\n');
            for item in items {
                text.push_str(&format!("{:indent$}  -", ""));
                print_value(text, item, indent + 2, hide);
            }
        }
        Value::Map(entries) => {
            text.push('\n');
            print_map(text, entries, indent + 2, hide);
        }
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.ends_with("headers") || SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// The content of a file, where its name should be.
fn is_misplaced(entry: &Entry) -> bool {
    let is_content =
        |value: &Value| matches!(value, Value::Scalar { text, .. } if values::is_content(text));
    entry.key.ends_with("_file") && is_content(&entry.node.value)
}

/// Quotes where YAML, or the reader of a quoted text, would see something else.
fn quoted(text: &str, plain: bool) -> String {
    let starts_safe = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.$_<".contains(c));
    let safe = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:$=<".contains(c));
    let typed = tree::means_null(text) || (!plain && !text.contains(|c: char| c.is_alphabetic()));
    if starts_safe && safe && !typed && !text.ends_with(':') && text != "..." {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
