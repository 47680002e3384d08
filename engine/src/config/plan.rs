//! A validated configuration: plain data that the shards, the exporters and the control plane
//! read and never question again. Only `config` makes one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_codec::edit::Editor;
use forebay_codec::mend::InvalidUtf8;
use forebay_codec::signal::Signal;
use forebay_exporters::destination::{Destination, Kind, Queue};
use forebay_exporters::discovery::registrar::Registration;
use forebay_net::cors::Cors;
use forebay_net::tls::settings::Version;
use http::HeaderName;

/// Everything the process needs to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub listeners: Vec<Listener>,
    pub destinations: Vec<Destination>,
    /// By destination: where what it refuses for good is kept.
    pub dead_letters: Vec<Option<u16>>,
    /// By destination: how it is reached; `None`: in cleartext.
    pub tls_out: Vec<Option<TlsOut>>,
    /// By destination: how the server is reached that knows its endpoints; `None`: in cleartext,
    /// or there is none.
    pub source_tls: Vec<Option<TlsOut>>,
    pub pipelines: Vec<Pipeline>,
    pub engine: Engine,
    pub telemetry: Telemetry,
    /// The `health_check` extension's address; `None`: off.
    pub health: Option<SocketAddr>,
}

impl Plan {
    /// The queue of a destination on one of so many exporter cores. Where several destinations
    /// over the network could hold it all, each gets half of what receivers may hold: one that is
    /// dead leaves the other half to the rest.
    pub fn queue(&self, destination: usize, receivers: usize, exporters: usize) -> Queue {
        let mut queue = self.destinations[destination].queue;
        if queue.bytes_max.is_none() && self.has_quotas() {
            let budgets = self.engine.memory_budget_bytes as u64 * receivers as u64;
            queue.bytes_max = Some((budgets / 2 / exporters.max(1) as u64).max(1));
        }
        queue
    }

    /// By destination: whether items need it, as the first that they go to, as another's stand-in,
    /// or for what such a destination refuses. The others get copies alone: nothing waits for them.
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.destinations.len()];
        let outputs = self.pipelines.iter().flat_map(|pipeline| &pipeline.outputs);
        let is_owed = |output: &&Output| output.primary().is_some();
        let mut open: Vec<u16> = outputs.filter(is_owed).flat_map(Output::destinations).collect();
        while let Some(destination) = open.pop() {
            let index = usize::from(destination);
            if !std::mem::replace(&mut needed[index], true) {
                open.extend(self.dead_letters[index]);
            }
        }
        needed
    }

    /// Whether one destination could take the memory of others' pipelines.
    pub fn has_quotas(&self) -> bool {
        let is_remote = |d: &&Destination| matches!(d.kind, Kind::OtlpGrpc(_) | Kind::OtlpHttp(_));
        self.destinations.iter().filter(is_remote).count() > 1
    }
}

/// One address that takes OTLP. A receiver with gRPC and HTTP on one address is one listener.
/// In a plan those of TCP come first; at most one is QUIC's.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Index of the receiver in the order of the configuration: pipelines name receivers by it.
    pub receiver: u16,
    /// The component id: `otlp`, `otlp/edge`.
    pub receiver_name: String,
    pub address: SocketAddr,
    /// As written, for the log.
    pub endpoint: String,
    pub grpc: Option<Grpc>,
    pub http: Option<Http>,
    /// On UDP: `http` is spoken by HTTP/3 there, and there is TLS. Else on TCP.
    pub is_quic: bool,
    pub lifetime: Lifetime,
    /// `None`: cleartext.
    pub tls: Option<Tls>,
}

/// The `tls` block of a receiver's protocol. Its files were good when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is shown to clients that name none of the others.
    pub certificates: Vec<PemPair>,
    /// If given, clients need a certificate.
    pub client_ca_file: Option<PathBuf>,
    pub client_crl_file: Option<PathBuf>,
    pub version_min: Version,
    pub version_max: Version,
    /// IANA's names; none: all.
    pub cipher_suites: Vec<String>,
    /// None: the default ones.
    pub curves: Vec<String>,
    /// Default 1 min; zero: only at SIGHUP.
    pub reload_interval: Duration,
}

/// The `tls` block of an exporter, or of a registry. Its files were good when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOut {
    /// Whom to trust.
    pub ca: Option<Pem>,
    /// The system's CAs, too, or alone.
    pub trusts_system: bool,
    /// What is shown to a destination that asks for it.
    pub own: Option<PemPair>,
    /// False: whoever answers is taken for the destination.
    pub verifies: bool,
    /// What its certificate must be for; `None`: the host of the endpoint.
    pub server_name: Option<String>,
    pub version_min: Version,
    pub version_max: Version,
    /// Default 1 min; zero: only at SIGHUP.
    pub reload_interval: Duration,
    /// What is spoken above, by its ALPN name.
    pub protocol: &'static str,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemPair {
    pub chain: Pem,
    pub key: Pem,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    File(PathBuf),
    /// Written into the configuration.
    Text(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.fmt(f),
            Pem::Text(_) => f.write_str("[REDACTED]"),
        }
    }
}

/// How long a listener's connections may live. Zero: never an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Without any request.
    pub idle_timeout: Duration,
    /// Until a connection is told to leave, give or take a tenth.
    pub age_max: Duration,
    /// From then until it is cut.
    pub age_grace: Duration,
}

#[derive(Clone, Debug)]
pub struct Grpc {
    /// `max_recv_msg_size_mib` in bytes, after decompression. Default 64 MiB.
    pub request_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct Http {
    /// `max_request_body_size`, after decompression. Default 64 MiB.
    pub request_bytes_max: usize,
    /// Paths in the order of `Signal::ALL`.
    pub paths: [String; 4],
    /// Content-Encoding names taken besides identity, from `compression_algorithms`.
    pub encodings: Vec<String>,
    /// Whose pages may send here from browsers.
    pub cors: Option<Arc<Cors>>,
}

/// One of `service.pipelines`.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// `traces`, `traces/critical` ...
    pub name: String,
    pub signal: Signal,
    /// Receivers by [`Listener::receiver`]. None: only routings feed it.
    pub receivers: Vec<u16>,
    /// Where each batch goes: to all of them. None: everything is routed to other pipelines.
    pub outputs: Vec<Output>,
    /// What each request is, beside that, routed by.
    pub routings: Vec<Routing>,
    /// Every destination at which its items may end, once each, dead letters included: indices
    /// into [`Plan::destinations`].
    pub destinations: Vec<u16>,
    /// What is done to each request's items before they are routed and batched, in this order.
    pub processors: Vec<Processor>,
    pub batch: Batch,
    pub ack: Ack,
    pub priority: Priority,
}

impl Pipeline {
    /// Where a destination stands among [`Pipeline::destinations`].
    pub fn place(&self, destination: u16) -> usize {
        let place = self.destinations.iter().position(|other| *other == destination);
        place.expect("items end only where the pipeline's list says")
    }
}

/// One of the ways that each batch of a pipeline goes. No destination stands in two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    One(u16),
    /// To the first that takes it.
    Failover(Vec<u16>),
    /// To one of them, in these shares.
    Shift {
        shares: Vec<(u16, u32)>,
        by: ShiftBy,
    },
    /// A copy of so many of a hundred batches. Nobody waits for it.
    Mirror {
        destination: u16,
        percent: u32,
    },
}

/// What a shift tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftBy {
    Batch,
    /// All of a trace goes to one destination.
    TraceId,
}

impl Output {
    /// All that it may send to.
    pub fn destinations(&self) -> Vec<u16> {
        match self {
            Output::One(destination) | Output::Mirror { destination, .. } => vec![*destination],
            Output::Failover(levels) => levels.clone(),
            Output::Shift { shares, .. } => shares.iter().map(|(d, _)| *d).collect(),
        }
    }

    /// The destination in whose name the ledger enters what comes; another that takes it takes it
    /// over from this one. `None`: a mirror, which is not owed anything.
    pub fn primary(&self) -> Option<u16> {
        match self {
            Output::One(destination) => Some(*destination),
            Output::Failover(levels) => levels.first().copied(),
            Output::Shift { shares, .. } => shares.first().map(|(d, _)| *d),
            Output::Mirror { .. } => None,
        }
    }
}

/// A routing connector as one pipeline uses it.
#[derive(Clone, Debug)]
pub struct Routing {
    /// The component id: `routing/tenants`.
    pub name: String,
    /// The first row that is true of a request, or of a resource in it, has it.
    pub rows: Vec<Row>,
    /// Pipelines for what no row has. None: it is dropped, and counted as unrouted.
    pub otherwise: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub condition: Condition,
    /// Indices into [`Plan::pipelines`].
    pub pipelines: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The request has this header (or gRPC metadata) with this value.
    Header(HeaderName, String),
    /// The resource has this attribute with this value.
    Attribute(String, String),
}

/// Who is refused first when memory runs short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// The `engine.priorities` block.
#[derive(Clone, Debug, Default)]
pub struct Priorities {
    /// Whether anything has another priority than the others: else nobody is refused early.
    pub are_told_apart: bool,
    /// The header that names a tenant, and the tenants that are not normal.
    pub tenants: Option<(HeaderName, Vec<(String, Priority)>)>,
}

/// A processor that changes or drops items.
#[derive(Clone, Debug)]
pub struct Processor {
    /// The component id: `filter`, `attributes/drop_pii`.
    pub name: String,
    /// Cloned by each receiver core, for buffers of its own.
    pub editor: Editor,
}

impl Processor {
    /// The component's type: `filter`, `attributes`.
    pub fn kind(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// When a batch is sealed. `flush_timeout` and both minima are zero together: then each request
/// is a batch of its own, and only the maxima apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sealed at this many items; 0: not by items.
    pub items_min: u64,
    /// Never more items than this; 0: no limit.
    pub items_max: u64,
    /// Sealed at this many bytes; 0: not by bytes.
    pub bytes_min: u64,
    /// Never more bytes than this unless one item alone is larger. Default 4,000,000: below the
    /// 4 MiB that a Collector takes over gRPC.
    pub bytes_max: u64,
    /// A batch waits no longer than this for more requests. Zero: it does not wait.
    pub flush_timeout: Duration,
}

/// What an OK means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Checked, admitted, queued: survives a graceful stop.
    Accepted,
    /// Every destination of the pipeline said OK.
    Delivered,
}

/// The `engine:` block.
#[derive(Clone, Debug)]
pub struct Engine {
    pub cores: forebay_tuning::cores::Placement,
    pub ring: Ring,
    pub limits: Limits,
    /// `engine.memory.budget_bytes`: request bytes held by one receiver core, from the first byte
    /// of a body to the end of its batch at the last destination. Default 128 MiB.
    pub memory_budget_bytes: usize,
    /// `engine.acks.timeout`: a `delivered` answer that takes longer is UNAVAILABLE with a delay;
    /// the batch stays in flight. Default 30 s.
    pub ack_timeout: Duration,
    /// `engine.drain_timeout`: from SIGTERM to exit. Default 10 s, what a Collector's users
    /// expect.
    pub drain_timeout: Duration,
    /// `engine.invalid_utf8`: what becomes of a protobuf request with text that is not UTF-8.
    pub invalid_utf8: InvalidUtf8,
    /// `engine.reflection`: whether gRPC server reflection is served. Default true.
    pub reflection: bool,
    /// `engine.registration`: where this process makes itself known. Default: nowhere.
    pub registration: Option<Registration>,
    /// How that place is reached; `None`: in cleartext.
    pub registration_tls: Option<TlsOut>,
    pub priorities: Priorities,
}

/// The `engine.ring` block.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Submission entries, a power of two. Default 1024.
    pub entries: u32,
    /// Provided buffers per receiver core, a power of two. Default: a 32nd of the budget's worth.
    pub buffers: u16,
    /// Bytes of one provided buffer. Default 16 KiB.
    pub buffer_bytes: u32,
    /// The highest rung of the ladder to try: `auto`, `multishot`, `oneshot`.
    pub rung: Rung,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    Auto,
    Multishot,
    Oneshot,
}

/// The `engine.limits` block. All are per receiver core unless they say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Header section of one request. Default 16 KiB.
    pub header_bytes_max: usize,
    /// Open connections. Default 65,536.
    pub connections_max: usize,
    /// Requests in flight on one connection (HTTP/2 streams). Default 256.
    pub connection_requests_max: usize,
    /// Requests that wait for their delivery; open bodies are bounded by the memory budget. 65,536.
    pub requests_max: usize,
    /// From the first byte of a request (or the connection's start) to its complete header. 10 s.
    pub header_timeout: Duration,
    /// Between two arrivals of body bytes. Default 30 s.
    pub body_timeout: Duration,
    /// Without any request. Default 15 min; zero: never.
    pub idle_timeout: Duration,
    /// Until a connection is told to leave, unless its receiver says otherwise. Default 30 min;
    /// zero: never.
    pub connection_age_max: Duration,
    /// TLS handshakes under way at once: beyond that who stalls gives way. Default 1,024.
    pub handshakes_max: usize,
    /// From a connection's beginning to the end of its TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// A peer that does not read its answers. Default 30 s.
    pub write_timeout: Duration,
}

/// `service.telemetry`.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Prometheus; default 127.0.0.1:8888. `None` when `metrics.level: none`.
    pub metrics: Option<SocketAddr>,
    /// `debug`, `info`, `warn`, `error`.
    pub log_level: String,
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Console,
    Json,
}
