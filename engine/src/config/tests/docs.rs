//! `docs/configuration.md` says what the parser knows: its tables are written from the
//! declarations, and its examples run.
//!
//! With `FOREBAY_WRITE_DOCS=1` the tables are written anew; a heading must be there already.

use std::fs;

use super::*;
use crate::config::embedded;
use crate::config::keys::{Key, Role, TABLES, Table};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

pub(super) fn page() -> String {
    fs::read_to_string(PAGE).expect("the page is part of the repository")
}

/// The YAML blocks of a page.
pub(super) fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("split yields a part")).collect()
}

fn heading(table: &Table) -> String {
    format!("### `{}`\n", table.path)
}

fn rendered(table: &Table) -> String {
    if table.keys.is_empty() {
        return "No keys.\n".to_owned();
    }
    let rows: Vec<String> = table.keys.iter().map(row).collect();
    format!("| key | value | default | meaning |\n| --- | --- | --- | --- |\n{}", rows.concat())
}

fn row(key: &Key) -> String {
    let code = |text: &str| {
        if text.is_empty() { String::new() } else { format!("`{text}`") }
    };
    let (kind, default) = match key.role {
        Role::Value => (key.kind.to_owned(), code(key.default)),
        Role::Block => ("block".to_owned(), String::new()),
        Role::Only => (format!("only `{}`", key.default), String::new()),
        Role::Ignored => ("ignored, with a warning".to_owned(), String::new()),
        Role::Refused => ("not supported".to_owned(), String::new()),
    };
    format!("| `{}` | {kind} | {default} | {} |\n", key.name, key.about)
}

/// The page with each table's rows replaced by what the declarations say.
fn rewritten(page: &str) -> String {
    let mut page = page.to_owned();
    for table in TABLES.iter().filter(|table| !table.keys.is_empty()) {
        let heading = heading(table);
        let at =
            page.find(&heading).unwrap_or_else(|| panic!("no heading {heading}")) + heading.len();
        let end = page[at..].find("\n#").map_or(page.len(), |end| at + end + 1);
        let is_row = |line: &&str| line.starts_with('|');
        let prose: String =
            page[at..end].split_inclusive('\n').filter(|line| !is_row(line)).collect();
        let section = format!("\n{}\n\n{}", prose.trim(), rendered(table)).replace("\n\n\n", "\n");
        page.replace_range(at..end, &format!("{section}\n"));
    }
    page.trim_end().to_owned() + "\n"
}

#[test]
fn the_page_lists_every_key_with_its_default_and_no_other() {
    if std::env::var_os("FOREBAY_WRITE_DOCS").is_some() {
        fs::write(PAGE, rewritten(&page())).expect("the page can be written");
    }
    let page = page();
    let mut expected_rows = 0;
    for table in TABLES {
        let section = page.split(&heading(table)).nth(1);
        let section = section.unwrap_or_else(|| panic!("no heading for {}", table.path));
        let section = section.split("\n#").next().expect("split yields a part");
        assert!(section.contains(&rendered(table)), "{} is not as declared", table.path);
        expected_rows += table.keys.len();
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, expected_rows, "the page has rows that nothing declares");
    let headings = page.lines().filter(|line| line.starts_with("### `")).count();
    assert_eq!(headings, TABLES.len(), "the page has headings for tables that are none");
}

#[test]
fn every_example_of_the_page_runs_without_warnings() {
    let page = page();
    let examples = examples(&page);
    assert!(examples.len() >= 4);
    for example in examples {
        // A part of a file is laid over the embedded default.
        let whole = example.contains("\nservice:");
        let sources = match whole {
            true => vec![text("example", example)],
            false => vec![embedded(), text("example", example)],
        };
        let made = load_in(&environment, &sources, &[]);
        let made = made.unwrap_or_else(|p| panic!("{example}\n{}", texts(&p).join("\n")));
        check(&made.warnings, &[]);
    }
}

#[test]
fn no_key_is_declared_twice_or_without_a_word() {
    for table in TABLES {
        for (index, key) in table.keys.iter().enumerate() {
            let again = table.keys[..index].iter().any(|other| other.name == key.name);
            assert!(!again, "{}.{} is declared twice", table.path, key.name);
            assert!(!key.about.is_empty(), "{}.{} says nothing", table.path, key.name);
        }
    }
}
