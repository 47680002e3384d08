//! Sends traces, metrics and logs with the OpenTelemetry Rust SDK.
//!
//! Every export call goes out twice with the same SDK objects: to `--via`, the server under test,
//! and to `--twin`, a Collector that nothing stands before. What reached the two is compared
//! elsewhere. The ids of everything sent are written to `--ledger`, with every export that did
//! not succeed.

mod exporters;
mod ledger;
mod signals;
mod tee;

use std::collections::HashMap;

use ledger::Ledger;

/// What the command line says.
pub struct Options {
    pub protocol: String,
    pub compression: String,
    pub via: String,
    pub twin: String,
    pub count: usize,
    pub batch: usize,
    pub timeout_s: u64,
}

fn main() {
    let told = words_after_flags();
    let options = Options {
        protocol: told["protocol"].clone(),
        compression: told.get("compression").cloned().unwrap_or_else(|| "none".into()),
        via: told["via"].clone(),
        twin: told["twin"].clone(),
        count: number(&told, "count", 200),
        batch: number(&told, "batch", 64),
        timeout_s: number(&told, "timeout-s", 10) as u64,
    };
    // The gRPC exporters look for a runtime where they are made; the HTTP ones bring their own.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the gRPC exporters");
    let _inside = (options.protocol == "grpc").then(|| runtime.enter());
    let ledger = Ledger::default();
    signals::send_traces(&options, &ledger);
    signals::send_metrics(&options, &ledger);
    signals::send_logs(&options, &ledger);
    ledger.write(&told["ledger"]);
}

/// `--name value --other value` as a map.
fn words_after_flags() -> HashMap<String, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    words
        .chunks_exact(2)
        .map(|pair| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone()))
        .collect()
}

fn number(told: &HashMap<String, String>, name: &str, default: usize) -> usize {
    told.get(name).map_or(default, |word| word.parse().expect("a number"))
}
