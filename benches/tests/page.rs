//! The page of a sample result, as a browser sees it: every plot has its marks, no script fails.
//!
//! The structure is asserted on the text, everywhere. Where Chromium is installed the page is
//! opened in it too, and the same is asserted on the document that its script has worked on;
//! where it is not, the test says so on the console, and fails if `CI` is set: there it is a part
//! of the promise. `FOREBAY_BENCH_SCREENSHOTS=FOLDER` keeps pictures of the page, light and dark,
//! wide and narrow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use forebay_bench::report::{html, table};
use forebay_bench::result::{Result, Row};

const SAMPLE: &str = include_str!("page/sample.json");
const CHROMIUM: &str = "/usr/bin/chromium";

fn sample() -> Result {
    serde_json::from_str(SAMPLE).expect("the sample has the shape of a result")
}

/// What lies in the figure with this id.
fn figure<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no plot {id}"));
    let end = page[start..].find("</figure>").expect("a figure ends");
    &page[start..start + end]
}

fn marks(figure: &str) -> usize {
    figure.matches("data-tip=").count()
}

/// Asserts the marks of all plots, in the text that we wrote or in the browser's document.
fn assert_plots(page: &str, rows: &[Row]) {
    let count = |held: fn(&Row) -> bool| rows.iter().filter(|row| held(row)).count();
    let floors = count(|row| row.median.floor_cpu_ns_per_item.is_some());
    let queues = count(|row| !row.queue_depth.is_empty());
    let ratios = count(|row| row.median.ratio_to_floor.is_some());
    assert_eq!(marks(figure(page, "cost")), rows.len() + floors, "a mark per row and per floor");
    assert_eq!(marks(figure(page, "floor-ratio")), ratios, "a bar per ratio");
    assert_eq!(marks(figure(page, "latency")), rows.len() * 6, "a mark per percentile");
    assert_eq!(marks(figure(page, "throughput")), rows.len() * 2, "median and p99 per row");
    assert_eq!(marks(figure(page, "queue")), queues, "the deepest point of each row");
    for id in ["cost", "latency", "throughput"] {
        let figure = figure(page, id);
        assert!(figure.contains("class=\"legend\""), "{id} has a legend");
        assert!(figure.contains("class=\"title middle\""), "{id} names its axis");
        assert!(figure.matches("class=\"tick end\"").count() >= 2, "{id} has ticks");
    }
}

#[test]
fn every_plot_has_a_mark_for_every_row_and_every_figure_is_in_the_table() {
    let result = sample();
    let page = html(&result);
    assert_plots(&page, &result.rows);
    let table = &page[page.find("<tbody>").unwrap()..page.find("</tbody>").unwrap()];
    assert_eq!(table.matches("<tr>").count(), result.rows.len());
    let header = &page[page.find("<header>").unwrap()..page.find("</header>").unwrap()];
    let machine = &result.machine;
    for fact in [&machine.cpu, &machine.kernel, &result.commit, &result.command, &result.started] {
        assert!(header.contains(fact.as_str()), "{fact} is on top");
    }
    assert!(!header.contains("class=\"partial\""));
}

#[test]
fn the_page_asks_nothing_of_any_other_place() {
    let page = html(&sample());
    for outside in ["http://", "https://", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn text_of_a_result_never_becomes_markup() {
    let evil = "</script><script>alert('x')</script>\"&<b>";
    let mut result = sample();
    for text in [&mut result.scenario, &mut result.about, &mut result.commit, &mut result.command] {
        evil.clone_into(text);
    }
    for row in &mut result.rows {
        evil.clone_into(&mut row.name);
        evil.clone_into(&mut row.transport);
        row.notes = vec![evil.to_owned()];
    }
    let page = html(&result);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("alert('x')"));
}

#[test]
fn what_was_not_measured_leaves_no_mark_and_a_partial_run_says_so() {
    let mut result = sample();
    result.partial = true;
    for row in &mut result.rows {
        row.queue_depth.clear();
        row.median.floor_cpu_ns_per_item = None;
        row.median.ratio_to_floor = None;
    }
    let page = html(&result);
    assert!(page.contains("class=\"partial\""));
    for id in ["queue", "floor-ratio"] {
        assert_eq!(marks(figure(&page, id)), 0);
        assert!(figure(&page, id).contains("Nothing of this was measured"), "{id}");
    }
    assert_eq!(marks(figure(&page, "cost")), result.rows.len());
    let page = html(&Result::default());
    assert_eq!(marks(&page[..page.find("<script>").unwrap()]), 0);
}

#[test]
fn more_rows_than_one_plot_can_tell_apart_get_panels_by_family() {
    let mut result = sample();
    let more: Vec<Row> = result.rows.iter().cloned().map(renamed).collect();
    result.rows.extend(more);
    let page = html(&result);
    assert!(figure(&page, "latency").matches("<svg viewBox=\"0 0 480").count() > 3);
    assert_eq!(marks(figure(&page, "latency")), result.rows.len() * 6);
}

#[test]
fn a_program_beside_forebay_is_told_apart_in_every_plot_and_table() {
    let mut result = sample();
    result.rows.truncate(2);
    let beside = |row: &Row| {
        let mut row = Row { program: "haproxy".to_owned(), ..row.clone() };
        row.median.forebay_ratio = Some(0.525);
        row
    };
    let others: Vec<Row> = result.rows.iter().map(beside).collect();
    result.rows.extend(others);
    let page = html(&result);
    for id in ["cost", "floor-ratio", "latency", "throughput", "queue"] {
        let figure = figure(&page, id);
        assert!(figure.contains("haproxy: grpc traces"), "{id}");
    }
    for figures in [&page[page.find("<tbody>").unwrap()..], &table(&result)] {
        assert!(figures.contains("haproxy: grpc traces 100"), "{figures}");
        assert!(figures.contains("0.53×") || figures.contains("0.52×"), "{figures}");
    }
}

fn renamed(row: Row) -> Row {
    Row { name: format!("{} zstd", row.name), compression: "zstd".to_owned(), ..row }
}

#[test]
fn a_browser_shows_every_plot_and_logs_no_script_error() {
    if !has_browser() {
        return assert_plots(&html(&sample()), &sample().rows);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("page.html");
    fs::write(&page, html(&sample())).expect("the page is written");
    let output = chromium(folder.path(), &["--dump-dom"], &page);
    let document = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Chromium failed: {log}");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(errors.is_empty(), "the page logged: {errors:?}");
    assert_plots(&document, &sample().rows);
    let script_found = document.split("data-ready=\"").nth(1).expect("the script ran to its end");
    let script_found: usize = script_found.split('"').next().unwrap().parse().unwrap();
    let ids = ["cost", "floor-ratio", "latency", "throughput", "queue"];
    let drawn: usize = ids.iter().map(|id| marks(figure(&document, id))).sum();
    assert_eq!(script_found, drawn, "the script found every mark");
    keep_screenshots(folder.path(), &page);
}

/// A script that fails is seen by the test above: its check can fail.
#[test]
fn a_script_error_would_be_noticed() {
    if !has_browser() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("page.html");
    let broken = html(&sample()).replacen("\"use strict\";", "throw new Error('broken');", 1);
    fs::write(&page, broken).expect("the page is written");
    let output = chromium(folder.path(), &["--dump-dom"], &page);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.lines().any(|line| line.contains("CONSOLE")), "{log}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("data-ready=\""));
}

fn has_browser() -> bool {
    let has_browser = Path::new(CHROMIUM).exists();
    if !has_browser {
        assert!(std::env::var_os("CI").is_none(), "{CHROMIUM} is not installed: .ci/packages");
        eprintln!(
            "\n*** {CHROMIUM} is not installed: the page was NOT opened in a browser. \
             Install Chromium to run this test in full. ***\n"
        );
    }
    has_browser
}

fn chromium(folder: &Path, flags: &[&str], page: &Path) -> Output {
    Command::new(CHROMIUM)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("Chromium starts")
}

fn keep_screenshots(folder: &Path, page: &Path) {
    let Some(kept) = std::env::var_os("FOREBAY_BENCH_SCREENSHOTS").map(PathBuf::from) else {
        return;
    };
    fs::create_dir_all(&kept).expect("the folder for screenshots is made");
    for (name, size, theme) in [
        ("wide-light", "1280,2300", "1"),
        ("wide-dark", "1280,2300", "0"),
        ("narrow-light", "500,1900", "1"),
    ] {
        let picture = kept.join(format!("{name}.png"));
        let flags = [
            format!("--screenshot={}", picture.display()),
            format!("--window-size={size}"),
            format!("--blink-settings=preferredColorScheme={theme}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let output = chromium(folder, &flags, page);
        assert!(picture.exists(), "no picture: {}", String::from_utf8_lossy(&output.stderr));
    }
}
