//! One exporter core with its destinations, and an account of every batch's end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_codec::signal::{Counts, Signal};
use forebay_exporters::batch::{Batch, BatchId, DropReason, Outcome, Returns, Settled};
use forebay_exporters::cluster::Cluster;
use forebay_exporters::core::{Seat, Stop, start};
use forebay_exporters::destination::{
    Algorithm, Backends, Compression, Destination, Encoding, Keepalive, Kind, OtlpGrpc, OtlpHttp,
    Queue, Retry, RetryCodes,
};
use forebay_exporters::discovery::Discovery;
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::lane::Lane;
use forebay_exporters::stats::Snapshot;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) clusters: Vec<Arc<Cluster>>,
    pub(crate) stop: Arc<Stop>,
    ends: Receiver<Settled>,
    thread: Option<JoinHandle<()>>,
}

struct Words {
    sender: Mutex<Sender<Settled>>,
    calls: AtomicU64,
    /// Every n-th word is refused once, as by a full queue; 0: none.
    refuse_every: u64,
}

impl Returns for Words {
    fn settle(&self, settled: Settled) -> Result<(), Settled> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.refuse_every > 0 && call.is_multiple_of(self.refuse_every) {
            return Err(settled);
        }
        self.sender.lock().unwrap().send(settled).map_err(|error| error.0)
    }
}

impl Rig {
    pub(crate) fn new(destinations: Vec<Destination>) -> Rig {
        Rig::with_full_receivers(destinations, 0)
    }

    pub(crate) fn with_full_receivers(destinations: Vec<Destination>, refuse_every: u64) -> Rig {
        Rig::made(destinations, refuse_every, |_| {})
    }

    /// `before` sees the clusters before the exporter core is there.
    pub(crate) fn begun(
        destinations: Vec<Destination>,
        before: impl FnOnce(&[Arc<Cluster>]),
    ) -> Rig {
        Rig::made(destinations, 0, before)
    }

    fn made(
        destinations: Vec<Destination>,
        refuse_every: u64,
        before: impl FnOnce(&[Arc<Cluster>]),
    ) -> Rig {
        let (sender, ends) = channel();
        let words = Words { sender: Mutex::new(sender), calls: AtomicU64::new(0), refuse_every };
        let stop = Arc::new(Stop::new());
        let (mut lanes, mut clusters, mut seats) = (Vec::new(), Vec::new(), Vec::new());
        for (index, destination) in destinations.into_iter().enumerate() {
            let lane = Arc::new(Lane::new(index as u16, &destination.queue));
            lanes.push(Arc::clone(&lane));
            let cluster = Cluster::new(&destination.backends, Instant::now());
            if let Discovery::Static(list) = &destination.backends.discovery {
                cluster.apply(Instant::now(), &list.endpoints);
            }
            clusters.push(Arc::clone(&cluster));
            let destination = Arc::new(destination);
            seats.push(Seat { destination, cluster, lane, initiator: None });
        }
        before(&clusters);
        let thread = start("exporter".into(), None, seats, Arc::new(words), Arc::clone(&stop));
        Rig { lanes, clusters, stop, ends, thread: Some(thread.unwrap()) }
    }

    pub(crate) fn offer(&self, lane: usize, batch: Batch) {
        self.lanes[lane].offer(Arc::new(batch)).expect("the lane has room");
    }

    /// The next batch to end, whichever it is.
    pub(crate) fn next_end(&self) -> Settled {
        self.ends.recv_timeout(PATIENCE).expect("a batch should have settled by now")
    }

    /// The ends of `count` batches by (destination, number); each must end once.
    pub(crate) fn ends(&self, count: usize) -> HashMap<(u16, u64), Outcome> {
        let mut ends = HashMap::new();
        for _ in 0..count {
            let settled = self.next_end();
            let twice = ends.insert((settled.destination, settled.batch.seq), settled.outcome);
            assert!(twice.is_none(), "batch {:?} settled twice", settled.batch);
        }
        ends
    }

    pub(crate) fn snapshot(&self, lane: usize) -> Snapshot {
        self.lanes[lane].stats().snapshot()
    }

    /// Closes, waits for the thread, and checks that nobody heard anything more and that each
    /// lane's account balances.
    pub(crate) fn finish(mut self) -> Vec<Snapshot> {
        self.stop.close();
        self.join()
    }

    pub(crate) fn abandon(mut self) -> (Vec<Snapshot>, Vec<Settled>) {
        self.stop.abandon();
        let thread = self.thread.take().unwrap();
        thread.join().unwrap();
        (self.balanced(), self.ends.try_iter().collect())
    }

    fn join(&mut self) -> Vec<Snapshot> {
        self.thread.take().unwrap().join().unwrap();
        assert_eq!(self.ends.try_iter().count(), 0, "a batch settled more than once");
        self.balanced()
    }

    fn balanced(&self) -> Vec<Snapshot> {
        let snapshots: Vec<_> = (0..self.lanes.len()).map(|lane| self.snapshot(lane)).collect();
        for stats in &snapshots {
            let dropped: u64 = stats.dropped_items.iter().sum();
            let given_back: u64 = stats.given_back_items.iter().sum();
            let ended = stats.delivered_items + dropped + given_back;
            assert_eq!(stats.offered_items, ended, "{stats:?}");
            let held = [stats.queue_batches, stats.queue_bytes, stats.retries_waiting];
            assert_eq!((held, stats.in_flight_requests), ([0; 3], 0), "{stats:?}");
        }
        snapshots
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A failed test should not leave its core running.
        self.stop.abandon();
    }
}

/// Waits until `holds`, looking again and again.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn delivered() -> Outcome {
    Outcome::Delivered { rejected_items: 0 }
}

pub(crate) fn drop_reason(outcome: &Outcome) -> Option<DropReason> {
    match outcome {
        Outcome::Dropped { reason, .. } => Some(*reason),
        Outcome::Delivered { .. } | Outcome::Parted { .. } => None,
    }
}

/// A batch of one span per name, in a chain of two requests where there are two spans or more.
pub(crate) fn batch(seq: u64, names: &[&str]) -> Batch {
    let (one, two) = names.split_at(names.len() / 2);
    let requests = [one, two].into_iter().filter(|names| !names.is_empty());
    let chain: Vec<bytes::Bytes> =
        requests.map(|names| request(names).encode_to_vec().into()).collect();
    Batch {
        id: BatchId { receiver: 3, seq },
        signal: Signal::Traces,
        counts: Counts { items: names.len() as u64, profiles: 0 },
        bytes: chain.iter().map(|bytes| bytes.len() as u64).sum(),
        chain,
        may_fail_over: false,
    }
}

pub(crate) fn names(request: &ExportTraceServiceRequest) -> Vec<String> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| span.name.clone()).collect()
}

/// A span's trace is the first letter of its name.
fn request(names: &[&str]) -> ExportTraceServiceRequest {
    let spans = names.iter().map(|name| Span {
        trace_id: vec![name.as_bytes().first().copied().unwrap_or(7); 16],
        span_id: vec![8; 8],
        name: (*name).to_owned(),
        ..Span::default()
    });
    let scope = ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }
}

/// Retries within milliseconds, for ever.
pub(crate) fn soon() -> Retry {
    Retry {
        enabled: true,
        initial_interval: Duration::from_millis(5),
        multiplier: 1.5,
        max_interval: Duration::from_millis(50),
        max_elapsed_time: None,
        max_attempts: None,
        codes: RetryCodes::default(),
    }
}

/// One endpoint, where the kind says, whose breaker never opens.
pub(crate) fn destination(kind: Kind) -> Destination {
    let address = match &kind {
        Kind::OtlpGrpc(grpc) => grpc.authority.clone(),
        Kind::OtlpHttp(http) => http.urls[0].authority().map(ToString::to_string),
        Kind::File(_) | Kind::Debug(_) | Kind::Nop => None,
    };
    let local = Backends::local("under_test");
    let list = address.map(|address| Static::of([address.as_str()], None).unwrap());
    let backends = match list {
        Some(list) => Backends { discovery: Discovery::Static(list), ..local },
        None => local,
    };
    Destination {
        name: "under_test".into(),
        kind,
        backends,
        queue: Queue { consumers: 4, batches_max: 100, bytes_max: None },
        retry: soon(),
        fails_over: false,
        keeps_refused: false,
    }
}

pub(crate) fn grpc_to(address: std::net::SocketAddr) -> OtlpGrpc {
    OtlpGrpc {
        compression: Compression { algorithm: Algorithm::None, level: None },
        timeout: Duration::from_secs(20),
        headers: http_headers(&[]),
        connections: 1,
        keepalive: Keepalive::default(),
        authority: Some(address.to_string()),
        user_agent: None,
        request_bytes_max: 64 << 20,
    }
}

pub(crate) fn http_to(address: std::net::SocketAddr) -> OtlpHttp {
    let url = |path: &str| format!("http://{address}{path}").parse().unwrap();
    OtlpHttp {
        urls: [
            url("/v1/traces"),
            url("/v1/metrics"),
            url("/v1/logs"),
            url("/v1development/profiles"),
        ],
        addresses: None,
        authority_of_endpoint: false,
        encoding: Encoding::Proto,
        compression: Compression { algorithm: Algorithm::None, level: None },
        timeout: Duration::from_secs(20),
        headers: http_headers(&[]),
        connections: 4,
        idle_timeout: Duration::from_secs(90),
        user_agent: None,
        request_bytes_max: 64 << 20,
    }
}

pub(crate) fn http_headers(pairs: &[(&'static str, &'static str)]) -> ::http::HeaderMap {
    let mut headers = ::http::HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, ::http::HeaderValue::from_static(value));
    }
    headers
}
