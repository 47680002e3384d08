//! A destination that a test holds in its hands: takes OTLP over gRPC (tonic) and HTTP (axum),
//! remembers what it took, and answers as it is told.
//!
//! tonic and axum are other people's servers: forebay's exporters are tested against them, not
//! against our own understanding.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use forebay_codec::compress::{Decompressor, Encoding};
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::{logs, metrics, trace};
use prost::Message;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Response, Status};

use crate::forebay::PATIENCE;
use crate::items::numbers_of;

/// What a sink answers to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Ok,
    /// A gRPC status, or its HTTP counterpart. The request is not kept.
    Fail(Code, Option<Duration>),
    /// As [`Reply::Fail`], but the request is kept: an answer that got lost.
    KeepAndFail(Code),
    /// Success, with this many items rejected.
    Partial(i64),
    /// No answer at all.
    Never,
}

type Script = Box<dyn FnMut(usize) -> Reply + Send>;

struct State {
    script: Script,
    requests: usize,
    /// By signal: how often each number came.
    numbers: [BTreeMap<i64, usize>; 4],
    sizes: Vec<(Signal, usize)>,
}

/// A running sink. Ends when dropped.
pub struct Sink {
    state: Arc<Mutex<State>>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    end: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Sink {
    /// Answers every request with success.
    pub fn start() -> Sink {
        Sink::scripted(|_| Reply::Ok)
    }

    /// `script` is asked with the number of each request, counted from 0.
    pub fn scripted(script: impl FnMut(usize) -> Reply + Send + 'static) -> Sink {
        Sink::on(any_port(), script)
    }

    /// As [`Sink::scripted`], with gRPC on a given address: a destination that comes back.
    pub fn on(grpc: SocketAddr, script: impl FnMut(usize) -> Reply + Send + 'static) -> Sink {
        Sink::on_both(grpc, any_port(), script)
    }

    /// As [`Sink::on`], with both addresses given.
    pub fn on_both(
        grpc: SocketAddr,
        http: SocketAddr,
        script: impl FnMut(usize) -> Reply + Send + 'static,
    ) -> Sink {
        let state = Arc::new(Mutex::new(State {
            script: Box::new(script),
            requests: 0,
            numbers: Default::default(),
            sizes: Vec::new(),
        }));
        let (ready, addresses) = std::sync::mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let service = Service(state.clone());
        // A thread of its own: a test may run in a runtime, and these don't nest.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::bind(grpc).await.expect("a free port");
                let grpc = listener.local_addr().expect("an address");
                tokio::spawn(serve_grpc(listener, service.clone()));
                let any = tokio::net::TcpListener::bind(http).await;
                let listener = any.expect("a free port");
                let http = listener.local_addr().expect("an address");
                tokio::spawn(serve_http(listener, service));
                ready.send((grpc, http)).expect("the test waits");
                // Ends when the sink is dropped, and with it all that was spawned.
                let _ = ended.await;
            });
        });
        let (grpc, http) = addresses.recv_timeout(PATIENCE).expect("the sink starts");
        Sink { state, grpc, http, end, thread }
    }

    /// Ends it; afterwards its ports are free for others.
    pub fn stop(self) {
        drop(self.end);
        self.thread.join().expect("the sink ends in order");
    }

    /// The exporter block for this sink over gRPC, with quick retries.
    pub fn grpc_exporter(&self) -> String {
        grpc_exporter(self.grpc)
    }

    /// The exporter block for this sink over HTTP, with quick retries.
    pub fn http_exporter(&self) -> String {
        http_exporter(self.http)
    }

    /// Requests that came, whatever they were answered.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    /// How often each number came, by signal.
    pub fn numbers(&self, signal: Signal) -> BTreeMap<i64, usize> {
        self.lock().numbers[signal.index()].clone()
    }

    /// Items and their signal, per request that was kept.
    pub fn sizes(&self) -> Vec<(Signal, usize)> {
        self.lock().sizes.clone()
    }

    /// How many numbers came, and the least and the largest count of any of them.
    pub fn counts(&self, signal: Signal) -> (usize, usize, usize) {
        let state = self.lock();
        let counts = state.numbers[signal.index()].values();
        let (least, most) = (counts.clone().min(), counts.clone().max());
        (counts.len(), least.copied().unwrap_or(0), most.copied().unwrap_or(0))
    }

    /// Waits until every number from 0 to `n` has come.
    pub fn wait_for(&self, signal: Signal, n: i64) {
        let what = format!("{n} items of {signal}");
        self.wait_until(&what, |sink| sink.missing(signal, n).is_empty());
    }

    pub fn wait_until(&self, what: &str, is_it: impl Fn(&Sink) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_it(self) {
            assert!(Instant::now() < deadline, "the sink never had {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The numbers below `n` that have not come.
    pub fn missing(&self, signal: Signal, n: i64) -> Vec<i64> {
        let state = self.lock();
        let numbers = &state.numbers[signal.index()];
        (0..n).filter(|number| !numbers.contains_key(number)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }
}

/// A door that a test opens: until then a script built on it refuses.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// A script: UNAVAILABLE while the gate is closed, success from then on.
    pub fn script(&self) -> impl FnMut(usize) -> Reply + Send + 'static {
        let gate = self.0.clone();
        move |_| match gate.load(Ordering::Acquire) {
            true => Reply::Ok,
            false => Reply::Fail(Code::Unavailable, None),
        }
    }
}

/// What listens where a destination should: `act` is all that happens to a connection.
pub struct Stranger {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stranger {
    /// Ends when dropped, and then its port is free. `act` must return soon.
    pub fn start(act: impl Fn(TcpStream) + Send + 'static) -> Stranger {
        let listener = TcpListener::bind(own_port()).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (connections, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, end) = (connections.clone(), ending.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                counter.fetch_add(1, Ordering::AcqRel);
                stream.into_iter().for_each(&act);
            }
        });
        Stranger { address, connections, ending, thread: Some(thread) }
    }

    /// Connections that came.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Wakes the thread out of its accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An address of the loopback whose port the kernel chooses.
pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Like [`any_port`], on an address of the loopback that nobody else uses: when its listener
/// ends, no other test can come by its port before the listener is back.
pub fn own_port() -> SocketAddr {
    static USED: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = USED.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, high | 1, low, host], 0))
}

/// An address where nobody listens.
pub fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind(own_port()).expect("a free port");
    listener.local_addr().expect("an address")
}

/// The exporter block for an HTTP address, with quick retries.
pub fn http_exporter(address: SocketAddr) -> String {
    format!("{{endpoint: \"http://{address}\", {QUICK}}}")
}

/// The exporter block for a gRPC address, with quick retries.
pub fn grpc_exporter(address: SocketAddr) -> String {
    format!("{{endpoint: \"http://{address}\", tls: {{insecure: true}}, {QUICK}}}")
}

/// A destination that works again is tried again at once.
const QUICK: &str = "retry_on_failure: {initial_interval: 20ms, max_interval: 100ms}, \
                     circuit_breaker: {recovery_timeout: 50ms, recovery_timeout_max: 200ms}";

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl Service {
    /// Asks the script, and keeps the request if it says so.
    fn take(&self, signal: Signal, request: &[u8]) -> Reply {
        let mut state = self.0.lock().expect("no test panics while it holds the state");
        let number = state.requests;
        state.requests += 1;
        let reply = (state.script)(number);
        if matches!(reply, Reply::Ok | Reply::KeepAndFail(_) | Reply::Partial(_)) {
            let numbers = numbers_of(signal, request);
            state.sizes.push((signal, numbers.len()));
            for number in numbers {
                *state.numbers[signal.index()].entry(number).or_default() += 1;
            }
        }
        reply
    }

    async fn grpc(&self, signal: Signal, request: Vec<u8>) -> Result<i64, Status> {
        match self.take(signal, &request) {
            Reply::Ok => Ok(0),
            Reply::Partial(rejected) => Ok(rejected),
            Reply::Never => std::future::pending().await,
            Reply::KeepAndFail(code) | Reply::Fail(code, None) => Err(Status::new(code, "told to")),
            Reply::Fail(code, Some(delay)) => {
                let details = status_with_delay(code, delay);
                Err(Status::with_details(code, "told to", details.into()))
            }
        }
    }
}

fn status_with_delay(code: Code, delay: Duration) -> Vec<u8> {
    let status = forebay_codec::status::Status {
        code: code as u32,
        message: "told to".to_owned(),
        retry_delay: Some(delay),
        bad_request: None,
    };
    status.to_proto()
}

macro_rules! service {
    ($module:ident, $trait:path, $signal:expr, $request:ident, $response:ident, $partial:ident,
     $rejected:ident) => {
        #[tonic::async_trait]
        impl $trait for Service {
            async fn export(
                &self,
                request: tonic::Request<$module::v1::$request>,
            ) -> Result<Response<$module::v1::$response>, Status> {
                let request = request.into_inner().encode_to_vec();
                let rejected = self.grpc($signal, request).await?;
                let partial_success = (rejected > 0).then(|| $module::v1::$partial {
                    $rejected: rejected,
                    error_message: "told to".to_owned(),
                });
                Ok(Response::new($module::v1::$response { partial_success }))
            }
        }
    };
}

service!(
    trace,
    trace::v1::trace_service_server::TraceService,
    Signal::Traces,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    ExportTracePartialSuccess,
    rejected_spans
);
service!(
    metrics,
    metrics::v1::metrics_service_server::MetricsService,
    Signal::Metrics,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    ExportMetricsPartialSuccess,
    rejected_data_points
);
service!(
    logs,
    logs::v1::logs_service_server::LogsService,
    Signal::Logs,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
    ExportLogsPartialSuccess,
    rejected_log_records
);

async fn serve_grpc(listener: tokio::net::TcpListener, service: Service) {
    let bytes_max = 64 << 20;
    let (s, gzip) = (service, tonic::codec::CompressionEncoding::Gzip);
    let trace = trace::v1::trace_service_server::TraceServiceServer::new(s.clone());
    let metrics = metrics::v1::metrics_service_server::MetricsServiceServer::new(s.clone());
    let logs = logs::v1::logs_service_server::LogsServiceServer::new(s);
    let served = tonic::transport::Server::builder()
        .add_service(trace.max_decoding_message_size(bytes_max).accept_compressed(gzip))
        .add_service(metrics.max_decoding_message_size(bytes_max).accept_compressed(gzip))
        .add_service(logs.max_decoding_message_size(bytes_max).accept_compressed(gzip))
        .serve_with_incoming(TcpListenerStream::new(listener));
    served.await.expect("the sink serves until it is dropped");
}

async fn serve_http(listener: tokio::net::TcpListener, service: Service) {
    let mut router = Router::new();
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let service = service.clone();
        let handler = async move |headers: HeaderMap, body: Bytes| {
            http_reply(service.clone(), signal, headers, body).await
        };
        router = router.route(crate::wire::path_of(signal), post(handler));
    }
    let router = router.layer(DefaultBodyLimit::max(64 << 20));
    axum::serve(listener, router).await.expect("the sink serves until it is dropped");
}

async fn http_reply(
    service: Service,
    signal: Signal,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let encoding = Encoding::from_http(text("content-encoding")).expect("a known encoding");
    let body = Decompressor::new().decompress(encoding, &body, 64 << 20).expect("whole bodies");
    let request = match text("content-type") {
        "application/json" => {
            forebay_codec::json::json_to_proto(signal, &body, 64 << 20).expect("valid OTLP/JSON")
        }
        _ => body,
    };
    let ok = [("content-type", "application/x-protobuf")];
    match service.take(signal, &request) {
        Reply::Ok => (StatusCode::OK, ok, Vec::new()).into_response(),
        Reply::Partial(rejected) => {
            let partial = forebay_codec::status::PartialSuccess {
                rejected: rejected as u64,
                message: "told to".to_owned(),
            };
            (StatusCode::OK, ok, partial.to_response_proto()).into_response()
        }
        Reply::Never => std::future::pending().await,
        Reply::KeepAndFail(code) => http_status(code).into_response(),
        Reply::Fail(code, None) => http_status(code).into_response(),
        Reply::Fail(code, Some(delay)) => {
            let after = [("retry-after", delay.as_secs().max(1).to_string())];
            (http_status(code), after).into_response()
        }
    }
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
