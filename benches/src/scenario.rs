//! What to measure: scenarios, each a file of rows. Ready ones are built in; any path does as well.
//!
//! A row that gives lists for `transport`, `compression`, `items` or `connections` stands for every
//! combination. Rows are loads; how often and how long is the scenario's.

use std::path::Path;

use serde::Deserialize;

use crate::load::Arrivals;
use crate::sink::faults::Faults;

/// The scenarios that come with the program.
const BUILT_IN: [(&str, &str); 11] = [
    ("quick", include_str!("../scenarios/quick.toml")),
    ("ingest", include_str!("../scenarios/ingest.toml")),
    ("ecommerce", include_str!("../scenarios/ecommerce.toml")),
    ("payments", include_str!("../scenarios/payments.toml")),
    ("iot", include_str!("../scenarios/iot.toml")),
    ("realtime", include_str!("../scenarios/realtime.toml")),
    ("sizes", include_str!("../scenarios/sizes.toml")),
    ("connections", include_str!("../scenarios/connections.toml")),
    ("half-load", include_str!("../scenarios/half-load.toml")),
    ("tls", include_str!("../scenarios/tls.toml")),
    ("http3", include_str!("../scenarios/http3.toml")),
];

/// One scenario, with its rows spelled out.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub warmup_ms: u64,
    pub window_ms: u64,
    pub repeats: usize,
    pub rows: Vec<Row>,
}

/// One load.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub transport: String,
    /// The load encrypts; over HTTP/3 it always does.
    pub tls: bool,
    pub signal: String,
    pub items: usize,
    pub attributes: usize,
    pub connections: usize,
    pub streams: usize,
    pub compression: String,
    pub pace: Pace,
    pub arrivals: Arrivals,
    pub churn: u64,
    pub engine: Engine,
    pub faults: Faults,
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as answers do.
    Closed,
    /// Requests a second.
    Rate(f64),
    /// A share of what closed mode reached, measured just before.
    OfMax(f64),
}

/// What the program under load is asked to do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Requests are joined to batches before they go on.
    pub batch: bool,
    /// `accepted` or `delivered`.
    pub acks: String,
    /// `otlp_grpc` or `otlp_http`; `nop` sends nothing on, and then the program's own ledger is
    /// what the load is compared with.
    pub exporter: String,
    /// How what goes on is compressed: `none`, `gzip` or `zstd`.
    pub compression: String,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine {
            batch: true,
            acks: "accepted".to_owned(),
            exporter: "otlp_grpc".to_owned(),
            compression: "none".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    warmup_ms: u64,
    window_ms: u64,
    repeats: usize,
    row: Vec<FileRow>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileRow {
    name: Option<String>,
    transport: OneOrMany<String>,
    tls: OneOrMany<bool>,
    signal: OneOrMany<String>,
    items: OneOrMany<usize>,
    attributes: usize,
    connections: OneOrMany<usize>,
    streams: usize,
    compression: OneOrMany<String>,
    rate_per_s: Option<f64>,
    of_max: OneOrMany<f64>,
    arrivals: Arrivals,
    churn: u64,
    engine: Engine,
    faults: Faults,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
    fn all(&self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        }
    }
}

impl Default for FileRow {
    fn default() -> FileRow {
        let one = |text: &str| OneOrMany::One(text.to_owned());
        FileRow {
            name: None,
            transport: one("grpc"),
            tls: OneOrMany::One(false),
            signal: one("traces"),
            items: OneOrMany::One(100),
            attributes: 8,
            connections: OneOrMany::One(8),
            streams: 4,
            compression: one("none"),
            rate_per_s: None,
            of_max: OneOrMany::Many(Vec::new()),
            arrivals: Arrivals::default(),
            churn: 0,
            engine: Engine::default(),
            faults: Faults::default(),
        }
    }
}

/// Names and purposes of the built-in scenarios.
pub fn list() -> Vec<(&'static str, String)> {
    let about =
        |text: &str| toml::from_str::<File>(text).map_or_else(|e| e.to_string(), |f| f.about);
    BUILT_IN.iter().map(|(name, text)| (*name, about(text))).collect()
}

/// A built-in scenario by its name, or a file by its path.
pub fn find(name: &str) -> Result<Scenario, String> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return parse(name, text);
    }
    let path = Path::new(name);
    let text = std::fs::read_to_string(path).map_err(|error| {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        format!(
            "there is no scenario {name:?}: built in are {}, and no file of that name can be read \
             ({error})",
            names.join(", ")
        )
    })?;
    let stem = path.file_stem().map_or(name.into(), |stem| stem.to_string_lossy());
    parse(&stem, &text)
}

/// Reads a scenario from its text.
pub fn parse(name: &str, text: &str) -> Result<Scenario, String> {
    let file: File = toml::from_str(text).map_err(|error| format!("scenario {name}: {error}"))?;
    let mut rows = Vec::new();
    for row in &file.row {
        spell_out(row, &mut rows);
    }
    for row in &rows {
        check(row).map_err(|error| format!("scenario {name}, row {:?}: {error}", row.name))?;
    }
    if rows.is_empty() || file.repeats == 0 || file.window_ms == 0 {
        return Err(format!("scenario {name} measures nothing"));
    }
    let File { about, warmup_ms, window_ms, repeats, .. } = file;
    Ok(Scenario { name: name.to_owned(), about, warmup_ms, window_ms, repeats, rows })
}

fn spell_out(row: &FileRow, rows: &mut Vec<Row>) {
    let paces: Vec<Pace> = match (row.rate_per_s, row.of_max.all()) {
        (Some(rate), _) => vec![Pace::Rate(rate)],
        (None, shares) if shares.is_empty() => vec![Pace::Closed],
        (None, shares) => shares.into_iter().map(Pace::OfMax).collect(),
    };
    let first = rows.len();
    let ways: Vec<(String, bool)> = row
        .transport
        .all()
        .into_iter()
        .flat_map(|transport| row.tls.all().into_iter().map(move |tls| (transport.clone(), tls)))
        .collect();
    for (transport, tls) in ways {
        for signal in row.signal.all() {
            for compression in row.compression.all() {
                for connections in row.connections.all() {
                    for items in row.items.all() {
                        for pace in &paces {
                            rows.push(Row {
                                name: row.name.clone().unwrap_or_default(),
                                transport: transport.clone(),
                                tls: tls || transport == "http3",
                                signal: signal.clone(),
                                items,
                                attributes: row.attributes,
                                connections,
                                streams: if transport == "http1" { 1 } else { row.streams },
                                compression: compression.clone(),
                                pace: *pace,
                                arrivals: row.arrivals,
                                churn: row.churn,
                                engine: row.engine.clone(),
                                faults: row.faults.clone(),
                            });
                        }
                    }
                }
            }
        }
    }
    let is_one = rows.len() - first == 1;
    for row in rows.iter_mut().skip(first) {
        if row.name.is_empty() || !is_one {
            row.name = describe(row, &row.name);
        }
    }
}

/// What a row is, in a few words.
fn describe(row: &Row, prefix: &str) -> String {
    let things = match (row.signal.as_str(), row.items) {
        ("traces", 1) => "span",
        ("traces", _) => "spans",
        ("logs", 1) => "log",
        ("logs", _) => "logs",
        (_, 1) => "point",
        _ => "points",
    };
    let transport = match row.transport.as_str() {
        "http1" => "HTTP/1.1",
        "http2" => "HTTP/2",
        "http3" => "HTTP/3",
        _ => "gRPC",
    };
    let tls = if row.tls && row.transport != "http3" { " over TLS" } else { "" };
    let mut name = format!("{transport}{tls}, {} {things}", row.items);
    if !prefix.is_empty() {
        name = format!("{prefix}: {name}");
    }
    if row.compression != "none" {
        name += &format!(", {}", row.compression);
    }
    if row.connections != 8 {
        name += &format!(", {} conns", row.connections);
    }
    match row.pace {
        Pace::OfMax(share) => name += &format!(", {:.0} % load", share * 100.0),
        Pace::Rate(rate) => name += &format!(", {rate:.0}/s"),
        Pace::Closed => {}
    }
    name
}

fn check(row: &Row) -> Result<(), String> {
    let one_of = |what: &str, value: &str, known: &[&str]| match known.contains(&value) {
        true => Ok(()),
        false => Err(format!("{what} is {value:?}: {} are known", known.join(", "))),
    };
    one_of("transport", &row.transport, &["grpc", "http1", "http2", "http3"])?;
    one_of("signal", &row.signal, &["traces", "metrics", "logs"])?;
    one_of("compression", &row.compression, &["none", "gzip", "zstd"])?;
    one_of("engine.acks", &row.engine.acks, &["accepted", "delivered"])?;
    one_of("engine.exporter", &row.engine.exporter, &["otlp_grpc", "otlp_http", "nop"])?;
    one_of("engine.compression", &row.engine.compression, &["none", "gzip", "zstd"])?;
    match row.pace {
        Pace::Rate(rate) if rate <= 0.0 => return Err("rate_per_s must be above 0".to_owned()),
        Pace::OfMax(share) if !(0.0..=2.0).contains(&share) || share == 0.0 => {
            return Err("of_max is a share of the maximum: above 0, at most 2".to_owned());
        }
        _ => {}
    }
    match row.items > 0 && row.connections > 0 && row.streams > 0 {
        true => Ok(()),
        false => Err("items, connections and streams must be above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_can_be_read() {
        for (name, _) in BUILT_IN {
            let scenario = find(name).unwrap();
            assert!(!scenario.about.is_empty(), "{name}");
            let names: std::collections::BTreeSet<&str> =
                scenario.rows.iter().map(|row| row.name.as_str()).collect();
            assert_eq!(names.len(), scenario.rows.len(), "{name}: rows with the same name");
        }
    }

    #[test]
    fn lists_stand_for_every_combination() {
        let text = "about='x'\nwarmup_ms=1\nwindow_ms=1\nrepeats=1\n\
            [[row]]\ntransport=['grpc','http1']\ncompression=['none','gzip']\nitems=[1,10,100]";
        assert_eq!(parse("t", text).unwrap().rows.len(), 12);
    }

    #[test]
    fn a_row_may_be_with_tls_and_without_and_http3_is_never_without() {
        let head = "about='x'\nwarmup_ms=1\nwindow_ms=1\nrepeats=1\n[[row]]\n";
        let rows = |row: &str| parse("t", &format!("{head}{row}")).unwrap().rows;
        let ways: Vec<(String, bool)> = rows("transport=['grpc','http3']\ntls=[false,true]")
            .into_iter()
            .map(|row| (row.transport, row.tls))
            .collect();
        let grpc = |tls| ("grpc".to_owned(), tls);
        let http3 = || ("http3".to_owned(), true);
        assert_eq!(ways, [grpc(false), grpc(true), http3(), http3()]);
        assert_eq!(rows("tls=true")[0].name, "gRPC over TLS, 100 spans");
        assert_eq!(rows("transport='http3'")[0].name, "HTTP/3, 100 spans");
    }

    #[test]
    fn what_is_misspelt_is_named() {
        let head = "about='x'\nwarmup_ms=1\nwindow_ms=1\nrepeats=1\n[[row]]\n";
        for (row, named) in [
            ("transprot='grpc'", "transprot"),
            ("transport='quic'", "quic"),
            ("engine={acks='durable'}", "durable"),
            ("rate_per_s=0", "rate_per_s"),
        ] {
            let error = parse("t", &format!("{head}{row}")).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
