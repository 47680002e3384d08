//! The table for the terminal: one line per row, medians, and how far the runs lie apart.

use std::fmt::Write as _;

use super::families::row_name;
use super::quantity::{bytes, count, micros, nanos, ratio, spread};
use crate::result::{Result, Row, Run};

pub(super) fn table(result: &Result) -> String {
    let mut text = String::new();
    heading(&mut text, result);
    let mut lines: Vec<Vec<String>> = result.rows.iter().map(line).collect();
    let mut heads: Vec<String> = HEADS.iter().map(|head| (*head).to_owned()).collect();
    if result.rows.iter().any(|row| row.median.forebay_ratio.is_some()) {
        heads.push("forebay/it".to_owned());
        for (line, row) in lines.iter_mut().zip(&result.rows) {
            line.push(row.median.forebay_ratio.map_or(ABSENT.to_owned(), ratio));
        }
    }
    let widths: Vec<usize> = (0..heads.len())
        .map(|at| {
            let cells = lines.iter().map(|line| letters(&line[at]));
            cells.chain([letters(&heads[at])]).max().unwrap_or(0)
        })
        .collect();
    put_line(&mut text, &heads, &widths);
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    put_line(&mut text, &rule, &widths);
    for line in &lines {
        put_line(&mut text, line, &widths);
    }
    footing(&mut text, result);
    text
}

const HEADS: [&str; 12] = [
    "row", "items/s", "req/s", "CPU/item", "spread", "floor", "ratio", "p50", "p99", "p99.9",
    "memory", "sys/req",
];

fn heading(text: &mut String, result: &Result) {
    let machine = &result.machine;
    let partial = if result.partial { "  (PARTIAL: ended before it was through)" } else { "" };
    let cores = machine.cores;
    let _ = writeln!(text, "\n{}{partial}", result.scenario);
    let _ = writeln!(text, "  {}, {cores} cores, Linux {}", machine.cpu, machine.kernel);
    let _ = writeln!(text, "  commit {}, {}", result.commit, result.started);
    let _ = writeln!(text, "  $ {}\n", result.command);
}

fn footing(text: &mut String, result: &Result) {
    let runs = result.rows.iter().map(|row| row.runs.len());
    let said = match (runs.clone().min(), runs.max()) {
        (None, _) | (_, None) => "No row was measured.".to_owned(),
        (Some(1), Some(1)) => "One run a row: no spread can be told.".to_owned(),
        (Some(fewest), Some(most)) if fewest == most => format!("Median of {most} runs."),
        (Some(fewest), Some(most)) => format!("Median of {fewest} to {most} runs."),
    };
    let _ = writeln!(
        text,
        "\n{said} CPU/item: the engine's CPU time per item; spread: half of worst less best of \
         it.\nfloor: the same bytes moved without a look inside; ratio: CPU/item by floor."
    );
    let rows = result
        .rows
        .iter()
        .flat_map(|row| row.notes.iter().map(move |note| format!("{}: {note}", row_name(row))));
    for note in result.notes.iter().cloned().chain(rows) {
        let _ = writeln!(text, "! {note}");
    }
}

fn line(row: &Row) -> Vec<String> {
    let median: &Run = &row.median;
    let cost = median.engine_cpu_ns_per_item;
    let apart = match row.spread.get("engine_cpu_ns_per_item") {
        Some([min, max]) if row.runs.len() > 1 => spread(cost, *min, *max),
        _ => ABSENT.to_owned(),
    };
    let or_absent =
        |figure: Option<f64>, say: fn(f64) -> String| figure.map_or(ABSENT.to_owned(), say);
    let known = |value: f64| (value > 0.0).then_some(value);
    vec![
        row_name(row).into_owned(),
        count(median.items_per_s),
        count(median.requests_per_s),
        or_absent(known(cost), nanos),
        apart,
        or_absent(median.floor_cpu_ns_per_item, nanos),
        or_absent(median.ratio_to_floor, ratio),
        or_absent(known(median.latency_us.p50), micros),
        or_absent(known(median.latency_us.p99), micros),
        or_absent(known(median.latency_us.p999), micros),
        or_absent(known(median.rss_bytes), bytes),
        or_absent(median.syscalls_per_request, count),
    ]
}

/// What stands where nothing was measured.
const ABSENT: &str = "–";

/// The first cell to the left, all others to the right.
fn put_line(text: &mut String, cells: &[String], widths: &[usize]) {
    let mut line = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let room = " ".repeat(width - letters(cell));
        let _ = match at {
            0 => write!(line, "{cell}{room}"),
            _ => write!(line, "  {room}{cell}"),
        };
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn letters(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Latency;

    fn row(name: &str) -> Row {
        let latency_us = Latency { p50: 85.0, p99: 210.0, p999: 1_400.0, ..Latency::default() };
        let median = Run {
            items_per_s: 1_840_000.0,
            engine_cpu_ns_per_item: 175.0,
            floor_cpu_ns_per_item: Some(125.0),
            ratio_to_floor: Some(1.4),
            latency_us,
            ..Run::default()
        };
        let spread = [("engine_cpu_ns_per_item".to_owned(), [170.0, 182.0])].into();
        let runs = vec![median.clone(); 5];
        Row { name: name.to_owned(), runs, median, spread, ..Row::default() }
    }

    #[test]
    fn all_lines_of_the_table_end_in_the_same_column() {
        let rows = vec![row("grpc 100"), row("a row with a longer name, été")];
        let text = table(&Result { rows, ..Result::default() });
        let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("row")).collect();
        for line in &lines[..4] {
            assert_eq!(letters(line), letters(lines[0]), "{text}");
        }
        let figures = ["1.84 M", "175 ns", "±3.4 %", "1.40×", "85.0 µs", "1.40 ms"];
        assert!(figures.iter().all(|figure| lines[2].contains(figure)), "{text}");
        assert!(text.contains("Median of 5 runs."), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_no_figure_and_a_partial_run_says_so() {
        let mut bare = row("bare");
        bare.median.ratio_to_floor = None;
        bare.median.syscalls_per_request = None;
        bare.runs.truncate(1);
        bare.notes.push("the load was the bottleneck".to_owned());
        let text = table(&Result { rows: vec![bare], partial: true, ..Result::default() });
        assert!(text.contains("PARTIAL"), "{text}");
        assert!(text.contains("no spread can be told"), "{text}");
        assert!(text.contains("! bare: the load was the bottleneck"), "{text}");
        let line = text.lines().find(|line| line.starts_with("bare")).unwrap();
        assert!(line.matches(ABSENT).count() >= 3, "{line}");
        assert!(table(&Result::default()).contains("No row was measured."));
    }
}
