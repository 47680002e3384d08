//! What a destination is told: plain data, made by the configuration, read by the lanes.
//!
//! Defaults are the Collector's (v0.159.0) except where a field says so.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Uri};

/// One exporter of the configuration.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The component id: `otlp_grpc`, `otlp_http/backup`, `debug` ...
    pub name: String,
    pub kind: Kind,
    pub queue: Queue,
    pub retry: Retry,
}

#[derive(Clone, Debug)]
pub enum Kind {
    OtlpGrpc(OtlpGrpc),
    OtlpHttp(OtlpHttp),
    File(File),
    Debug(Debug),
    Nop,
}

/// `otlp_grpc` (alias `otlp`).
#[derive(Clone, Debug)]
pub struct OtlpGrpc {
    /// Scheme and authority: `http://collector:4317`. Only cleartext for now.
    pub endpoint: Uri,
    pub compression: Compression,
    /// For one attempt, from its first byte out to the status in. Default 5 s.
    pub timeout: Duration,
    pub headers: HeaderMap,
    /// HTTP/2 connections per exporter core. Default 1.
    pub connections: usize,
    pub keepalive: Keepalive,
    pub authority: Option<String>,
    pub user_agent: Option<String>,
    /// Largest request before compression. Default 64 MiB (OTLP 1.11 client limit).
    pub request_bytes_max: u64,
}

/// `otlp_http` (alias `otlphttp`).
#[derive(Clone, Debug)]
pub struct OtlpHttp {
    /// Full URLs by signal, in the order of `Signal::ALL`.
    pub urls: [Uri; 4],
    pub encoding: Encoding,
    pub compression: Compression,
    /// For one attempt. Default 30 s.
    pub timeout: Duration,
    pub headers: HeaderMap,
    /// Parallel HTTP/1.1 connections per exporter core. Default 8.
    pub connections: usize,
    /// Idle connections are closed after this. Default 90 s.
    pub idle_timeout: Duration,
    pub user_agent: Option<String>,
    pub request_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Proto,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub algorithm: Algorithm,
    /// The algorithm's own scale; `None` is its default.
    pub level: Option<i32>,
}

/// Names as the configuration writes them; `Snappy` is framed for gRPC and block for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    None,
    Gzip,
    Zstd,
    Snappy,
    Zlib,
    Deflate,
    Lz4,
}

/// HTTP/2 pings; off by default, as in the Collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keepalive {
    pub time: Option<Duration>,
    pub timeout: Option<Duration>,
    pub permit_without_stream: bool,
}

/// `file`: OTLP JSON, one request a line.
#[derive(Clone, Debug)]
pub struct File {
    pub path: PathBuf,
    pub append: bool,
    pub rotation: Option<Rotation>,
}

/// The file exporter's `rotation` block (lumberjack's meaning).
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Default 100 MiB.
    pub bytes_max: u64,
    /// Rotated files older than this are removed; `None`: never.
    pub days_max: Option<u32>,
    /// How many rotated files to keep. Default 100; 0 keeps all.
    pub backups_max: u32,
}

/// `debug`: a readable account on standard error, sampled.
#[derive(Clone, Copy, Debug)]
pub struct Debug {
    pub verbosity: Verbosity,
    /// Batches printed in each second before sampling starts. Default 2.
    pub sampling_initial: u32,
    /// After that every n-th. Default 1 (all), as in the Collector.
    pub sampling_thereafter: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// One line a batch: how many resources and items.
    Basic,
    /// A line per item.
    Normal,
    /// Every field.
    Detailed,
}

/// `sending_queue`: what a destination may hold per exporter core. Full is backpressure towards
/// clients, never a drop.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Requests in flight at once (`num_consumers`). Default 10.
    pub consumers: usize,
    /// Batches waiting (`queue_size`). Default 1000.
    pub batches_max: usize,
}

/// `retry_on_failure`. Full jitter: each wait is drawn from 0 to the current interval.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pub enabled: bool,
    /// Default 5 s.
    pub initial_interval: Duration,
    /// Default 1.5.
    pub multiplier: f64,
    /// Default 30 s.
    pub max_interval: Duration,
    /// From the batch's first attempt. `None`: for ever, the default here (the Collector gives up
    /// and drops after 300 s; forebay holds what it acknowledged and pushes back instead).
    pub max_elapsed_time: Option<Duration>,
    /// A batch is sent at most so many times. `None`: without limit, the default.
    pub max_attempts: Option<u32>,
}
