//! The load: drives a program with OTLP, closed loop or at a rate, and keeps account of it.
//!
//! Each thread has its own ring, its own share of the connections and of the rate, and its own
//! requests, made before the first is sent. HTTP/3 goes through `quinn` on a runtime of tokio's,
//! one for each thread: code that the engine does not share. In closed mode a request follows an
//! answer; in open mode requests are due at their time, and wait, counted, if every stream is
//! taken.
//!
//! A refused request is not repeated: its stream pauses, then sends the next one.

mod crew;
mod ledger;
mod schedule;
mod seal;
mod tally;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use forebay_codec::compress::Encoding;
use forebay_codec::signal::Signal;
use forebay_net::wake::Wake;
use hdrhistogram::Histogram;
use tokio::sync::Notify;

use self::crew::Crew;
pub(crate) use self::crew::widen;
pub use self::schedule::Arrivals;
use self::worker::Worker;
use crate::account::Claim;
use crate::client::{Outcome, Transport};
use crate::control::{Event, Loaded, Order, Progress, Ready, orders, say};
use crate::machine::{pin, raise_file_limit};
use crate::payload::{Pool, Shape};
use crate::result::Latency;
use crate::target::Target;
use crate::trust::Trust;

/// How long connections may take to open, all of them together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers may take once nothing more is sent.
const LAST_ANSWERS: Duration = Duration::from_secs(35);
/// A refused request's stream pauses for so many nanoseconds.
const PAUSE: u64 = 100_000_000;
/// HTTP/2 has streams for a few more requests than this.
const CONNECTION_REQUESTS_MAX: u64 = 1 << 29;

/// A load, as the command line asks for it.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// What to drive: a name or an address, with its port
    #[arg(value_name = "HOST:PORT")]
    pub target: Target,
    /// How requests travel
    #[arg(long, default_value = "grpc")]
    pub transport: TransportName,
    /// Encrypt; HTTP/3 always is
    #[arg(long)]
    pub tls: bool,
    #[command(flatten)]
    pub trust: Trust,
    /// What they carry
    #[arg(long, default_value = "traces", value_parser = signal)]
    pub signal: Signal,
    /// Items in each request
    #[arg(long, default_value_t = 100)]
    pub items: usize,
    /// Attributes of each item
    #[arg(long, default_value_t = 8)]
    pub attributes: usize,
    /// Connections, over all cores
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Requests in flight on one connection at most (HTTP/1.1: always 1)
    #[arg(long, default_value_t = 4)]
    pub streams: usize,
    /// none, gzip or zstd
    #[arg(long, default_value = "none", value_parser = encoding)]
    pub compression: Encoding,
    /// Requests a second in all, whatever the answers do (0: closed loop)
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// How requests are spread in time, with a rate
    #[arg(long, default_value = "poisson")]
    pub arrivals: Arrivals,
    /// Close a connection after so many requests, and open another (0: never)
    #[arg(long, default_value_t = 0)]
    pub churn: u64,
    /// Makes the requests: the same seed, the same requests
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Cores, one thread each, as in `2,3`; none: one thread that is not pinned
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Marks this run's items
    #[arg(long, default_value_t = 0)]
    pub run: u8,
    /// Bytes of a request, with transport raw
    #[arg(long, default_value_t = 0)]
    pub request_bytes: usize,
    /// Seconds to run for, when nobody gives orders
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Take orders on standard input, as `run` gives them
    #[arg(long, hide = true)]
    pub controlled: bool,
}

/// [`Transport`] by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TransportName {
    Grpc,
    Http1,
    Http2,
    /// Over QUIC, and so over TLS
    Http3,
    /// Requests and answers of fixed sizes, as the floor takes them
    Raw,
}

fn signal(name: &str) -> Result<Signal, String> {
    let known = [Signal::Traces, Signal::Metrics, Signal::Logs];
    let found = known.into_iter().find(|signal| signal.name() == name);
    found.ok_or_else(|| "traces, metrics or logs".to_owned())
}

/// The compressions that requests can have, by their names.
pub fn encoding(name: &str) -> Result<Encoding, String> {
    match name {
        "none" => Ok(Encoding::Identity),
        "gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        _ => Err("none, gzip or zstd".to_owned()),
    }
}

impl Settings {
    pub fn transport(&self) -> Transport {
        match self.transport {
            TransportName::Grpc => Transport::Grpc,
            TransportName::Http1 => Transport::Http1,
            TransportName::Http2 => Transport::Http2,
            TransportName::Http3 => Transport::Http3,
            TransportName::Raw => Transport::Raw { request_bytes: self.request_bytes },
        }
    }
}

/// What all threads do; each looks at every turn.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const MEASURING: u8 = 2;
const CLOSING: u8 = 3;
const STOPPING: u8 = 4;

impl Phase {
    fn read(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Release);
    }
}

/// What one thread counts, read by others while it runs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    sent: AtomicU64,
    ok: AtomicU64,
    ok_items: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    late_us_max: AtomicU64,
}

/// What one thread says at its end.
struct Report {
    claims: Vec<Claim>,
    latencies: Histogram<u64>,
    outcomes: BTreeMap<Outcome, u64>,
    problems: Vec<String>,
    sent_bytes: u64,
    connections_broken: u64,
}

/// What makes a thread look at its phase.
#[derive(Clone)]
enum Bell {
    Ring(Arc<Wake>),
    Runtime(Arc<Notify>),
}

impl Bell {
    fn ring(&self) {
        match self {
            Bell::Ring(wake) => wake.wake(),
            Bell::Runtime(notify) => notify.notify_one(),
        }
    }
}

/// A thread's connections, open.
enum Stand {
    Ring(Box<Worker>),
    Runtime(Box<Crew>),
}

impl Stand {
    fn connect(
        settings: &Settings,
        source: u8,
        pool: Pool,
        counts: Arc<Counts>,
    ) -> Result<Stand, String> {
        match settings.transport {
            TransportName::Http3 => {
                Crew::connect(settings, source, pool, counts).map(Box::new).map(Stand::Runtime)
            }
            _ => Worker::connect(settings, source, pool, counts).map(Box::new).map(Stand::Ring),
        }
    }

    fn bell(&self) -> Bell {
        match self {
            Stand::Ring(worker) => Bell::Ring(worker.wake()),
            Stand::Runtime(crew) => Bell::Runtime(crew.wake()),
        }
    }

    fn run(self, phase: &Phase) -> Report {
        match self {
            Stand::Ring(worker) => worker.run(phase),
            Stand::Runtime(crew) => crew.run(phase),
        }
    }
}

struct Thread {
    bell: Bell,
    counts: Arc<Counts>,
    /// `None`: it did not come to stand.
    handle: JoinHandle<Option<Report>>,
}

/// A load that stands, with its connections open.
pub struct Load {
    phase: Arc<Phase>,
    threads: Vec<Thread>,
    pub body_bytes: f64,
}

/// The program: on orders, or for a while by itself.
pub fn main(settings: &Settings) -> Result<(), String> {
    let load = Load::start(settings)?;
    if settings.controlled {
        say(&Event::Ready(Ready { body_bytes: load.body_bytes, ..Ready::default() }));
        for order in orders() {
            match order {
                Order::Start => load.set(RUNNING),
                Order::Begin => {
                    load.set(MEASURING);
                    say(&Event::Progress(load.progress()));
                }
                Order::End => {
                    say(&Event::Progress(load.progress()));
                    load.set(CLOSING);
                }
                Order::Stop => {
                    say(&Event::Loaded(Box::new(load.stop())));
                    return Ok(());
                }
                Order::Audit { .. } => {}
            }
        }
        return Ok(());
    }
    load.begin();
    let started = Instant::now();
    let interrupted = crate::machine::interrupts();
    let wanted = Duration::from_secs_f64(settings.seconds);
    while started.elapsed() < wanted && !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut loaded = load.stop();
    loaded.claims.clear();
    println!("{}", serde_json::to_string_pretty(&loaded).expect("counts are plain data"));
    let progress = loaded.progress;
    println!(
        "{:.0} requests/s, {:.0} items/s; nothing was accounted for: that is what `run` does",
        progress.ok_requests as f64 / seconds,
        progress.ok_items as f64 / seconds
    );
    Ok(())
}

impl Load {
    /// Makes the requests and opens the connections.
    pub fn start(settings: &Settings) -> Result<Load, String> {
        raise_file_limit();
        let count = settings.cores.len().max(1).min(settings.connections.max(1));
        let phase = Arc::new(Phase::default());
        let mut threads = Vec::new();
        let mut body_bytes = 0.0;
        for index in 0..count {
            let (thread, mean_bytes) = spawn(settings, index, count, phase.clone())?;
            body_bytes += mean_bytes / count as f64;
            threads.push(thread);
        }
        Ok(Load { phase, threads, body_bytes })
    }

    /// Sends, and counts latencies, from now on.
    pub fn begin(&self) {
        self.set(MEASURING);
    }

    fn set(&self, phase: u8) {
        self.phase.set(phase);
        self.threads.iter().for_each(|thread| thread.bell.ring());
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for thread in &self.threads {
            thread.counts.add_to(&mut progress);
        }
        progress
    }

    /// Sends no more, waits for the last answers, and says what became of everything.
    pub fn stop(self) -> Loaded {
        self.set(STOPPING);
        let mut loaded = Loaded::default();
        let mut latencies = histogram();
        let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
        for thread in self.threads {
            let report = thread.handle.join().expect("a load thread does not panic");
            let report = report.expect("a thread that stood reports");
            latencies.add(&report.latencies).expect("all histograms have the same bounds");
            report.outcomes.into_iter().for_each(|(o, n)| *outcomes.entry(o).or_default() += n);
            loaded.claims.extend(report.claims);
            loaded.problems.extend(report.problems);
            loaded.sent_bytes += report.sent_bytes;
            loaded.connections_broken += report.connections_broken;
            thread.counts.add_to(&mut loaded.progress);
        }
        for (outcome, count) in outcomes.into_iter().filter(|(outcome, _)| *outcome != Outcome::Ok)
        {
            loaded.problems.push(format!("{count} requests ended as {outcome:?}"));
        }
        loaded.latencies = latencies.len();
        loaded.latency_us = quantiles(&latencies);
        loaded
    }
}

impl Counts {
    fn add_to(&self, progress: &mut Progress) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        progress.sent_requests += read(&self.sent);
        progress.ok_requests += read(&self.ok);
        progress.ok_items += read(&self.ok_items);
        progress.refused_requests += read(&self.refused);
        progress.failed_requests += read(&self.failed);
        progress.late_us_max = progress.late_us_max.max(read(&self.late_us_max));
    }
}

/// Nanoseconds, to three digits, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed")
}

fn quantiles(latencies: &Histogram<u64>) -> Latency {
    let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: latencies.max() as f64 / 1000.0,
    }
}

fn spawn(
    settings: &Settings,
    index: usize,
    count: usize,
    phase: Arc<Phase>,
) -> Result<(Thread, f64), String> {
    let share = |all: usize| all / count + usize::from(index < all % count);
    let mut settings = settings.clone();
    settings.connections = share(settings.connections).max(1);
    settings.rate /= count as f64;
    let core = settings.cores.get(index).copied();
    let shape = Shape {
        signal: settings.signal,
        items: settings.items,
        attributes: settings.attributes,
        encoding: settings.compression,
        seed: settings.seed,
    };
    let counts = Arc::new(Counts::default());
    let seen = counts.clone();
    let (ready, stands) = std::sync::mpsc::channel();
    let body = move || {
        if let Some(core) = core {
            pin(&[core]);
        }
        let source = index as u8;
        let stand = Pool::make(&shape, settings.run, source).and_then(|pool| {
            let mean = pool.mean_bytes();
            Stand::connect(&settings, source, pool, counts).map(|stand| (stand, mean))
        });
        match stand {
            Ok((stand, mean)) => {
                let _ = ready.send(Ok((stand.bell(), mean)));
                Some(stand.run(&phase))
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                None
            }
        }
    };
    let handle = std::thread::Builder::new().name("load".to_owned()).spawn(body);
    let handle = handle.map_err(|error| format!("the load can't start a thread: {error}"))?;
    let stands = stands.recv().map_err(|_| "a load thread died at its start".to_owned())?;
    let (bell, mean) = stands?;
    Ok((Thread { bell, counts: seen, handle }, mean))
}
