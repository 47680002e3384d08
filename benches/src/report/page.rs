//! The page: what ran where, the plots, the figures, how to read them.

use std::fmt::Write as _;

use super::families::{Families, row_name};
use super::plots;
use super::quantity::{bytes, count, micros, nanos, ratio, spread};
use super::svg::escaped;
use crate::result::{Result, Row};

pub(super) fn html(result: &Result) -> String {
    let families = Families::of(&result.rows);
    let mut page = String::with_capacity(128 << 10);
    let title = escaped(&result.scenario);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} – forebay-bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    masthead(&mut page, result);
    page.push_str("<main>\n");
    highlights(&mut page, &result.rows);
    page.push_str("<section class=\"plots\" aria-label=\"Plots\">\n");
    page.push_str(&plots::cost(&families));
    page.push_str(&plots::floor_ratio(&families));
    page.push_str(&plots::latency(&families));
    page.push_str(&plots::throughput(&families));
    page.push_str(&plots::queue(&families));
    page.push_str("</section>\n");
    figures(&mut page, result);
    page.push_str(METHOD);
    let _ = write!(
        page,
        "</main>\n<div id=\"tip\" role=\"status\" hidden></div>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n"
    );
    page
}

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

fn masthead(page: &mut String, result: &Result) {
    let Result { scenario, about, commit, command, machine, started, .. } = result;
    let [scenario, about, commit, command, started] =
        [scenario, about, commit, command, started].map(|text| escaped(text));
    let (cpu, kernel, cores) = (escaped(&machine.cpu), escaped(&machine.kernel), machine.cores);
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    let _ = write!(page, "<header>\n<p class=\"kicker\">forebay-bench</p>\n<h1>{scenario}</h1>\n");
    if !about.is_empty() {
        let _ = writeln!(page, "<p class=\"about\">{about}</p>");
    }
    if result.partial {
        page.push_str(PARTIAL);
    }
    let _ = write!(
        page,
        "<dl class=\"facts\">\
         <div><dt>Machine</dt><dd>{cpu}, {cores}</dd></div>\
         <div><dt>Kernel</dt><dd>Linux {kernel}</dd></div>\
         <div><dt>Commit</dt><dd><code>{commit}</code></dd></div>\
         <div><dt>Started</dt><dd><time>{started}</time></dd></div>\
         <div class=\"wide\"><dt>Command</dt><dd><pre>{command}</pre></dd></div></dl>\n</header>\n"
    );
}

const PARTIAL: &str = "<p class=\"partial\"><strong>Partial.</strong> The run was ended before it \
                       was through: rows are missing, or have fewer runs than asked for.</p>\n";

/// The few figures that one looks for first, each with the row that it is from.
fn highlights(page: &mut String, rows: &[Row]) {
    let highest = |figure: fn(&Row) -> Option<f64>| {
        let known = rows.iter().filter_map(|row| Some((row, figure(row)?)));
        known.filter(|(_, value)| *value > 0.0).max_by(|a, b| a.1.total_cmp(&b.1))
    };
    let cost = |row: &Row| Some(row.median.engine_cpu_ns_per_item).filter(|cost| *cost > 0.0);
    let least = |figure: fn(&Row) -> Option<f64>| {
        let known = rows.iter().filter_map(|row| Some((row, figure(row)?)));
        known.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let tiles = [
        ("Most items a second", highest(|row| Some(row.median.items_per_s)), count as Say),
        ("Least CPU an item", least(cost), nanos),
        ("Furthest from the floor", highest(|row| row.median.ratio_to_floor), ratio),
        ("Longest p99", highest(|row| Some(row.median.latency_us.p99)), micros),
        ("Most memory", highest(|row| Some(row.median.rss_bytes)), bytes),
    ];
    page.push_str("<ul class=\"highlights\">\n");
    for (title, found, say) in tiles {
        let Some((row, value)) = found else { continue };
        let (value, name) = (say(value), escaped(&row_name(row)));
        let _ = writeln!(
            page,
            "<li><span class=\"what\">{title}</span><strong>{value}</strong>\
             <span class=\"where\">{name}</span></li>"
        );
    }
    page.push_str("</ul>\n");
}

type Say = fn(f64) -> String;

const HEADS: [(&str, &str); 19] = [
    ("row", "The load, as the scenario names it"),
    ("items/s", "Items taken in and answered, per second"),
    ("req/s", "Requests answered with success, per second"),
    ("CPU/item", "CPU time of the engine's process per item"),
    ("spread", "Half of the worst run less the best, as a part of the median"),
    ("floor", "CPU time per item of the floor"),
    ("ratio", "CPU/item by floor"),
    ("CPU/req", "CPU time of the engine's process per request"),
    ("load CPU/req", "CPU time of the load generator per request"),
    ("p50", "Latency, median"),
    ("p90", "Latency, 90 %"),
    ("p99", "Latency, 99 %"),
    ("p99.9", "Latency, 99.9 %"),
    ("p99.99", "Latency, 99.99 %"),
    ("max", "Latency, longest"),
    ("memory", "Resident memory, the largest seen"),
    ("sys/req", "System calls of the receivers per request"),
    ("forebay/it", "Beside another program: forebay's CPU/item by the program's"),
    ("load", "Mode, connections × requests in flight on each"),
];

fn figures(page: &mut String, result: &Result) {
    page.push_str(
        "<section class=\"figures\" id=\"figures\">\n<h2>Figures</h2>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Figures\"><table>\n\
         <thead><tr>",
    );
    for (head, meaning) in HEADS {
        let _ = write!(page, "<th scope=\"col\" title=\"{meaning}\">{head}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &result.rows {
        let _ = write!(page, "<tr><th scope=\"row\">{}</th>", escaped(&row_name(row)));
        for cell in cells(row) {
            let _ = write!(page, "<td>{}</td>", escaped(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    let of_rows = result
        .rows
        .iter()
        .flat_map(|row| row.notes.iter().map(move |note| format!("{}: {note}", row_name(row))));
    let notes: Vec<String> = result.notes.iter().cloned().chain(of_rows).collect();
    if !notes.is_empty() {
        page.push_str("<ul class=\"notes\">\n");
        for note in notes {
            let _ = writeln!(page, "<li>{}</li>", escaped(&note));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</section>\n");
}

/// All but the name, in the order of [`HEADS`].
fn cells(row: &Row) -> [String; HEADS.len() - 1] {
    let median = &row.median;
    let said = |value: f64, say: Say| match value > 0.0 {
        true => say(value),
        false => "–".to_owned(),
    };
    let maybe = |value: Option<f64>, say: Say| value.map_or("–".to_owned(), say);
    let apart = match row.spread.get("engine_cpu_ns_per_item") {
        Some([min, max]) if row.runs.len() > 1 => spread(median.engine_cpu_ns_per_item, *min, *max),
        _ => "–".to_owned(),
    };
    let rate = row.rate_per_s.map(|rate| format!(" {} req/s", count(rate))).unwrap_or_default();
    let latency = &median.latency_us;
    [
        count(median.items_per_s),
        count(median.requests_per_s),
        said(median.engine_cpu_ns_per_item, nanos),
        apart,
        maybe(median.floor_cpu_ns_per_item, nanos),
        maybe(median.ratio_to_floor, ratio),
        said(median.engine_cpu_ns_per_request, nanos),
        said(median.load_cpu_ns_per_request, nanos),
        said(latency.p50, micros),
        said(latency.p90, micros),
        said(latency.p99, micros),
        said(latency.p999, micros),
        said(latency.p9999, micros),
        said(latency.max, micros),
        said(median.rss_bytes, bytes),
        maybe(median.syscalls_per_request, count),
        maybe(median.forebay_ratio, ratio),
        format!("{}{rate}, {} × {}", row.mode, row.connections, row.streams),
    ]
}

const METHOD: &str = "<section class=\"method\" id=\"method\">\n<h2>How to read this</h2>\n<ul>\n\
<li><strong>Nothing here lost an item.</strong> Each item carries an id; a sink counts them. A \
run in which one was missing, or none was counted, is an error and has no page.</li>\n\
<li><strong>CPU per item</strong> is what the kernel says the engine's process used, over the \
items that it took in. It is the figure to compare: throughput depends on who shares the \
machine.</li>\n\
<li><strong>The floor</strong> moves the same bytes with the same kind of ring and looks at none \
of them. Its runs stand between the engine's, so that both met the same machine. Under \
compression it moves the compressed bytes, and the ratio holds the price of decompressing, \
too.</li>\n\
<li><strong>Medians</strong> are taken for each figure by itself; the spread is that of all \
runs.</li>\n\
<li>Latency in <strong>closed</strong> loop is that of a saturated engine and says little about \
a quiet one; in <strong>open</strong> loop it counts from the time at which the request was \
due.</li>\n</ul>\n</section>\n";
