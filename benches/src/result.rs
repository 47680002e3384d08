//! What a run found out, as it is written to disk, shown in the terminal and drawn on the page.
//!
//! Plain data: measures nothing, draws nothing, judges nothing. A [`Result`] that exists has passed
//! its conservation check; a run that lost an item, or counted none, never becomes one.
//!
//! Units are in the names. `items` are spans, log records or metric data points.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run of one scenario: one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Result {
    pub scenario: String,
    /// What the scenario stands for, in a sentence or two.
    #[serde(default)]
    pub about: String,
    /// Of the checkout that the engine was built from; ends in `+` if files had been changed.
    pub commit: String,
    /// What to type to get this file again.
    pub command: String,
    pub machine: Machine,
    /// RFC 3339, UTC.
    pub started: String,
    /// Ended by Ctrl-C: some rows are missing or have fewer runs than was asked for.
    pub partial: bool,
    pub rows: Vec<Row>,
    /// What a reader must know to read the figures right.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Where it ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    /// Cores that the run may use.
    pub cores: usize,
    pub kernel: String,
}

/// One load, driven several times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// The program under load: `forebay`, or what `compare` put beside it.
    #[serde(default = "forebay")]
    pub program: String,
    /// `grpc`, `http1` or `http2`.
    pub transport: String,
    /// `traces`, `metrics` or `logs`.
    pub signal: String,
    pub items_per_request: u64,
    /// Mean bytes of one request on the wire, frames and headers included.
    #[serde(default)]
    pub request_bytes: u64,
    pub connections: u64,
    /// Requests in flight per connection at most.
    pub streams: u64,
    /// `none`, `gzip` or `zstd`.
    pub compression: String,
    /// `closed`: the next request follows an answer. `open`: requests come at a rate.
    pub mode: String,
    /// Requests a second that were intended; only in open mode.
    pub rate_per_s: Option<f64>,
    /// Cores that the program was pinned to.
    #[serde(default)]
    pub engine_cores: u64,
    pub runs: Vec<Run>,
    /// The median of each figure over the runs, by itself.
    pub median: Run,
    /// `[min, max]` over the runs, by the figure's name (`latency_us.p99` for nested ones).
    pub spread: BTreeMap<String, [f64; 2]>,
    /// `[seconds since the window began, batches queued]`, from the run in the middle.
    pub queue_depth: Vec<[f64; 2]>,
    /// What was wrong with the measurement, e.g. that the load was the bottleneck.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The figures of one measured window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Answered with success within the window.
    pub requests: f64,
    pub items: f64,
    pub seconds: f64,
    pub requests_per_s: f64,
    pub items_per_s: f64,
    pub engine_cpu_ns_per_item: f64,
    pub engine_cpu_ns_per_request: f64,
    /// Of the load alone, without the sink.
    pub load_cpu_ns_per_request: f64,
    /// How busy the engine's cores were, 0 to 1.
    #[serde(default)]
    pub engine_busy: f64,
    /// How busy the cores of load and sink were, 0 to 1.
    #[serde(default)]
    pub load_busy: f64,
    /// Refused and to be sent again later, within the window.
    #[serde(default)]
    pub refused_requests: f64,
    /// The largest that was seen.
    pub rss_bytes: f64,
    pub latency_us: Latency,
    /// Absent where nothing counts them.
    pub syscalls_per_request: Option<f64>,
    /// Absent where no floor was run.
    pub floor_cpu_ns_per_item: Option<f64>,
    pub floor_cpu_ns_per_request: Option<f64>,
    /// The program's CPU time per item divided by the floor's.
    pub ratio_to_floor: Option<f64>,
    /// `compare` only: forebay's CPU time per item divided by this program's, from the pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forebay_ratio: Option<f64>,
}

/// From the intended send time in open mode, from the write in closed mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

fn forebay() -> String {
    "forebay".to_owned()
}
