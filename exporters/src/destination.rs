//! What a destination is told: plain data, made by the configuration, read by the lanes.
//!
//! Defaults are the Collector's (v0.159.0) except where a field says so.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Uri};

use crate::balance::{RoutingKey, Strategy};
use crate::breaker::{self, FleetSettings};
use crate::budget;
use crate::discovery::fixed::Static;
use crate::discovery::keeper::Pace;
use crate::discovery::{Discovery, Endpoint};

/// Longer than a source that is well takes to answer, shorter than clients wait.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_secs(5);

/// One exporter of the configuration.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The component id: `otlp_grpc`, `otlp_http/backup`, `debug` ...
    pub name: String,
    pub kind: Kind,
    pub backends: Backends,
    pub queue: Queue,
    pub retry: Retry,
    /// What waits while no endpoint takes it is given back ([`crate::batch::Why::Failover`]), if
    /// its batch may be passed on: another destination may take it.
    pub fails_over: bool,
    /// What the destination refuses for good is given back ([`crate::batch::Why::Refused`]) and
    /// not dropped: a dead-letter destination takes it.
    pub keeps_refused: bool,
}

/// Who a destination's endpoints are, and how calls are spread over them.
#[derive(Clone, Debug)]
pub struct Backends {
    /// A destination on this machine (file, debug, nop) has one endpoint of its own name, which is
    /// always there.
    pub discovery: Discovery,
    /// How often discovery's source is asked.
    pub pace: Pace,
    pub strategy: Strategy,
    /// What consistent hashing goes by; `None`: by batch, to any.
    pub routing_key: Option<RoutingKey>,
    pub breaker: breaker::Settings,
    pub ejection: FleetSettings,
    pub retry_budget: budget::Settings,
    pub health_check: HealthCheck,
    pub pool: Pool,
    /// So long after the start, what could fail over waits here all the same if discovery has not
    /// named anybody yet. Default [`FIRST_ANSWER_MAX`].
    pub first_answer_max: Duration,
}

/// How an endpoint without calls is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub probe: Probe,
    /// Default 10 s. Each endpoint's own, jittered.
    pub interval: Duration,
    /// Default 5 s.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Calls alone tell.
    Off,
    /// A connection can be made. That it can proves little: a failure counts as a failed call, a
    /// success for nothing.
    Connect,
    /// The gRPC health protocol says SERVING for this service; empty: for the server as a whole.
    /// Where a server has no such protocol, and over HTTP/1.1: [`Probe::Connect`].
    Grpc(String),
}

/// The connections to one endpoint from one exporter core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The first is made before it is needed, and again when it ends: for up to 16 endpoints, and
    /// not while an endpoint's breaker is open. Default true.
    pub warm: bool,
    /// A connection this old is replaced by a new one (give or take a tenth), and closed once its
    /// calls have ended. `None`: never. Default 30 min.
    pub age_max: Option<Duration>,
    /// gRPC: one without calls for this long is closed, or replaced where it is kept warm. `None`:
    /// never. Default 5 min. HTTP/1.1 has [`OtlpHttp::idle_timeout`].
    pub idle_timeout: Option<Duration>,
}

impl Backends {
    /// The one endpoint of a destination on this machine. Nothing shuts it off.
    pub fn local(name: &str) -> Backends {
        let breaker = breaker::Settings {
            failure_threshold: 0,
            failure_rate: 2.0,
            slow_call_rate: 2.0,
            ..breaker::Settings::default()
        };
        let discovery = Discovery::Static(Static { endpoints: vec![Endpoint::local(name)] });
        let health_check = HealthCheck { probe: Probe::Off, ..HealthCheck::default() };
        Backends { breaker, health_check, ..Backends::found_by(discovery) }
    }

    /// A fixed list with everything else as usual.
    pub fn of(list: Static) -> Backends {
        Backends::found_by(Discovery::Static(list))
    }

    /// Endpoints from any source with everything else as usual.
    pub fn found_by(discovery: Discovery) -> Backends {
        Backends {
            pace: discovery.pace(),
            discovery,
            strategy: Strategy::RoundRobin,
            routing_key: None,
            breaker: breaker::Settings::default(),
            ejection: FleetSettings::default(),
            retry_budget: budget::Settings::default(),
            health_check: HealthCheck::default(),
            pool: Pool::default(),
            first_answer_max: FIRST_ANSWER_MAX,
        }
    }
}

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        HealthCheck {
            probe: Probe::Connect,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            warm: true,
            age_max: Some(Duration::from_secs(1800)),
            idle_timeout: Some(Duration::from_secs(300)),
        }
    }
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
    pub compression: Compression,
    /// For one attempt, from its first byte out to the status in. Default 5 s.
    pub timeout: Duration,
    pub headers: HeaderMap,
    /// HTTP/2 connections per endpoint and exporter core at most: another is made when those there
    /// are have no stream left, or their windows take no more. Default 1.
    pub connections: usize,
    pub keepalive: Keepalive,
    /// Sent as `:authority`; `None`: the endpoint's address.
    pub authority: Option<String>,
    pub user_agent: Option<String>,
    /// Largest request before compression. Default 64 MiB (OTLP 1.11 client limit).
    pub request_bytes_max: u64,
}

/// `otlp_http` (alias `otlphttp`).
#[derive(Clone, Debug)]
pub struct OtlpHttp {
    /// Full URLs by signal, in the order of `Signal::ALL`. The connection goes to the endpoint's
    /// address; the URL's authority is what the request names as its host, unless
    /// `authority_of_endpoint`.
    pub urls: [Uri; 4],
    /// Signals go to hosts of their own, each `host:port`: these are connected to, and not the
    /// endpoint's address.
    pub addresses: Option<[String; 4]>,
    /// The request names the endpoint's address as its host.
    pub authority_of_endpoint: bool,
    pub encoding: Encoding,
    pub compression: Compression,
    /// For one attempt. Default 30 s.
    pub timeout: Duration,
    pub headers: HeaderMap,
    /// Parallel HTTP/1.1 connections per endpoint and exporter core. Default 8.
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
    /// Request bytes held per exporter core, in whatever state; at this many the queue is full.
    /// One batch is always taken. `None`: no bound of its own.
    pub bytes_max: Option<u64>,
}

/// `retry_on_failure`. Full jitter: each wait is drawn from 0 to the current interval.
#[derive(Clone, Debug)]
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
    pub codes: RetryCodes,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: None,
            max_attempts: None,
            codes: RetryCodes::default(),
        }
    }
}

/// What is tried again. By default what OTLP says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryCodes {
    /// gRPC codes; `None`: OTLP's.
    pub grpc: Option<Vec<u32>>,
    /// HTTP statuses; `None`: OTLP's.
    pub http: Option<Vec<u16>>,
}
