//! What is wrong with a configuration, and where: written for the operator who must fix it.
//!
//! A problem says what, why, and what to do about it. It never shows a secret: whoever makes one
//! leaves the values of headers and credentials out, and keys are left out here.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::secret::without_keys;

/// A position in one source, 1-based. Line 0: the source as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's path as given, or what stands for it: `--set processors.batch.timeout`.
    pub source: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub(crate) fn whole(source: &Arc<str>) -> Place {
        Place { source: source.clone(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.source),
            line => write!(f, "{}:{line}:{}", self.source, self.column),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// It can, but not all of it does what it says.
    Warning,
}

/// One finding. Displays over several lines, without a newline at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub place: Place,
    pub what: String,
    pub why: Option<String>,
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn error(place: &Place, what: impl Into<String>) -> Problem {
        Problem::new(Severity::Error, place, what.into())
    }

    pub(crate) fn warning(place: &Place, what: impl Into<String>) -> Problem {
        Problem::new(Severity::Warning, place, what.into())
    }

    pub(crate) fn why(mut self, why: impl Into<String>) -> Problem {
        self.why = Some(why.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// A sentence that quotes a text of megabytes helps nobody, and a key that stands in the wrong
    /// place stays a secret.
    fn new(severity: Severity, place: &Place, what: String) -> Problem {
        const CHARS_MAX: usize = 400;
        let mut what = without_keys(what);
        if let Some((end, _)) = what.char_indices().nth(CHARS_MAX) {
            what.truncate(end);
            what.push_str(" ...");
        }
        Problem { severity, place: place.clone(), what, why: None, hint: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let width = label.len();
        write!(f, "{label}: {}: {}", self.place, self.what)?;
        for (label, text) in [("why", &self.why), ("hint", &self.hint)] {
            if let Some(text) = text {
                write!(f, "\n{label:>width$}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Collects findings, so that one reading reports all of them.
#[derive(Default)]
pub(crate) struct Report {
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    pub(crate) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Errors and warnings, each in the order of the text.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        problems.dedup();
        problems.into_iter().partition(|problem| problem.severity == Severity::Error)
    }
}

/// The name among `known` that `word` was most likely meant to be, if one is near.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const CHARS_MAX: usize = 64;
    let chars = word.chars().take(CHARS_MAX + 1).count();
    let edits_max = (chars / 3).max(1);
    known
        .into_iter()
        .filter(|_| chars <= CHARS_MAX)
        .map(|name| (edits(word, name), name))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance, where swapping two neighbours counts as one edit.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let changed = usize::from(from[i - 1] != to[j - 1]);
            let mut cost =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                cost = cost.min(rows[i - 2][j - 2] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not_suggested() {
        let known = ["endpoint", "timeout", "headers"];
        assert_eq!(nearest("endpont", known), Some("endpoint"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("header", known), Some("headers"));
        assert_eq!(nearest("kafka", known), None);
    }

    #[test]
    fn a_problem_reads_what_why_and_hint_with_labels_in_a_column() {
        let place = Place { source: "config.yaml".into(), line: 12, column: 7 };
        let problem = Problem::error(&place, "unknown key \"endpont\"")
            .why("only known keys can be trusted to do something")
            .hint("did you mean \"endpoint\"?");
        assert_eq!(
            problem.to_string(),
            "error: config.yaml:12:7: unknown key \"endpont\"\n  \
             why: only known keys can be trusted to do something\n \
             hint: did you mean \"endpoint\"?"
        );
    }
}
