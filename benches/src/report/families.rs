//! Which rows belong together, and how each is told from the others.
//!
//! A family is what differs only in size, rate or load: `grpc traces`, `http1 logs gzip`. A
//! family has a hue, the same in every plot; its members have shades of it and marks of their own.
//!
//! Not here: the colours (`page.css`), in light and in dark.

use std::borrow::Cow;

use crate::result::Row;

/// More lines than this in one plot can't be told apart.
pub(super) const LINES_MAX: usize = 8;
const HUES: usize = 8;
const MARKS: usize = 4;

/// The program that needs no name beside its rows.
const OWN: &str = "forebay";

/// How a row is told from all others: its name, with the program's if that is not forebay.
pub(super) fn row_name(row: &Row) -> Cow<'_, str> {
    match row.program.as_str() {
        "" | OWN => Cow::Borrowed(&row.name),
        program => Cow::Owned(format!("{program}: {}", row.name)),
    }
}

pub(super) struct Families<'a> {
    pub(super) all: Vec<Family<'a>>,
}

pub(super) struct Family<'a> {
    pub(super) name: String,
    hue: usize,
    pub(super) members: Vec<Member<'a>>,
}

pub(super) struct Member<'a> {
    pub(super) row: &'a Row,
    /// The mark that stands for the row: 0 to 3.
    pub(super) mark: usize,
    /// Classes of the page's style sheet: hue and shade.
    pub(super) class: String,
}

impl<'a> Families<'a> {
    /// In the order of the rows.
    pub(super) fn of(rows: &'a [Row]) -> Families<'a> {
        let mut grouped: Vec<(String, Vec<&Row>)> = Vec::new();
        for row in rows {
            let name = family_name(row);
            match grouped.iter_mut().find(|(known, _)| *known == name) {
                Some((_, members)) => members.push(row),
                None => grouped.push((name, vec![row])),
            }
        }
        let all = grouped.into_iter().enumerate();
        Families {
            all: all.map(|(at, (name, rows))| Family::new(name, at % HUES, &rows)).collect(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member<'a>> {
        self.all.iter().flat_map(|family| family.members.iter())
    }

    /// The panels of a plot with one line per row: all in one if they can be told apart, else a
    /// panel for each family, or part of one, with its name.
    pub(super) fn panels(&self) -> Vec<(String, Vec<&Member<'a>>)> {
        let members: Vec<_> = self.members().collect();
        if members.len() <= LINES_MAX {
            return vec![(String::new(), members)];
        }
        let mut panels = Vec::new();
        for family in &self.all {
            let members: Vec<_> = family.members.iter().collect();
            let parts = members.chunks(LINES_MAX);
            panels.extend(parts.map(|part| (family.name.clone(), part.to_vec())));
        }
        panels
    }
}

impl<'a> Family<'a> {
    fn new(name: String, hue: usize, rows: &[&'a Row]) -> Family<'a> {
        let shade = |at: usize| match rows.len() {
            1 => 2,
            2 => 1 + at * 2,
            many => (at * 4 + (many - 1) / 2) / (many - 1),
        };
        let member = |(at, row): (usize, &&'a Row)| Member {
            row,
            mark: at % MARKS,
            class: format!("h{hue} s{}", shade(at)),
        };
        Family { name, hue, members: rows.iter().enumerate().map(member).collect() }
    }

    /// The class of what stands for the family as a whole.
    pub(super) fn class(&self) -> String {
        format!("h{} s2", self.hue)
    }
}

fn family_name(row: &Row) -> String {
    let mut name = format!("{} {}", row.transport, row.signal);
    if !["", OWN].contains(&row.program.as_str()) {
        name = format!("{}: {name}", row.program);
    }
    if !["", "none", "identity"].contains(&row.compression.as_str()) {
        name.push(' ');
        name.push_str(&row.compression);
    }
    if row.mode == "open" {
        name.push_str(" open loop");
    }
    name
}
