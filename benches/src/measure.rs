//! One measured window: everything started, warmed up, measured, stopped, and accounted for.
//!
//! Always: the sink's audit comes before any figure. What is returned has lost nothing.

mod verdict;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::verdict::{Ledger, audit, conclude};
use crate::certificates;
use crate::control::{Event, Loaded, Order, Progress, Ready};
use crate::machine::{busy_nanos, cpu_nanos, resident_bytes};
use crate::process::{Placement, Spawned, Worker};
use crate::program::{Ports, Program, Purpose};
use crate::result::Run;
use crate::scenario::Row;
use crate::syscalls;

const PATIENCE: Duration = Duration::from_secs(60);
/// How often memory is looked at, and the queue.
const STEP: Duration = Duration::from_millis(100);
const SCRAPE_STEPS: u32 = 5;
const SYSCALL_WINDOW: Duration = Duration::from_millis(400);
/// Where load and sink share a core.
const SINK_NICE: &str = "5";
/// Above this a core has nothing left to give.
const BUSY: f64 = 0.95;
const NOT_BUSY: f64 = 0.90;
/// More than this of the engine's cores for somebody else is worth a word.
const FOREIGN: f64 = 0.05;

/// Where and how long.
#[derive(Clone, Debug)]
pub struct Bench {
    pub placement: Placement,
    pub warmup: Duration,
    pub window: Duration,
    /// Count system calls too: it takes longer, so it is done for the first run of a row.
    pub counts_syscalls: bool,
    pub interrupted: Arc<AtomicBool>,
}

/// What one window showed.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub run: Run,
    /// Mean bytes of a request on the wire.
    pub request_bytes: f64,
    pub queue_depth: Vec<[f64; 2]>,
    pub notes: Vec<String>,
}

/// Why there is no figure.
#[derive(Debug)]
pub enum Void {
    Interrupted,
    Error(String),
}

impl From<String> for Void {
    fn from(error: String) -> Void {
        Void::Error(error)
    }
}

/// A point in time, and what had been used by then.
struct Sample {
    at: Instant,
    engine: u64,
    load: u64,
    sink: u64,
    /// Everybody's time on the engine's cores, where the kernel tells.
    busy: Option<u64>,
    progress: Progress,
}

/// Everything that runs during a window.
struct Running<'a> {
    engine: Engine,
    load: Worker,
    sink: &'a mut Worker,
    metrics: Option<(String, String)>,
}

enum Engine {
    Program(Spawned),
    Floor(Worker),
}

impl Engine {
    fn pid(&self) -> u32 {
        match self {
            Engine::Program(program) => program.pid(),
            Engine::Floor(floor) => floor.pid(),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        match self {
            Engine::Program(program) => program.check(),
            Engine::Floor(floor) => floor.check(),
        }
    }
}

impl Bench {
    /// Drives `program` with `row`; `rate` in requests a second, `None` for closed mode.
    pub fn program(
        &self,
        program: &Program,
        row: &Row,
        rate: Option<f64>,
        tag: u8,
    ) -> Result<Measured, Void> {
        let folder = Folder::new()?;
        let (mut sink, stands) = self.sink(row, tag, folder.path())?;
        let certificates = certificates::make(folder.path())?;
        let purpose = Purpose {
            engine: &row.engine,
            transport: &row.transport,
            tls: row.tls,
            certificates: &certificates,
            sink_grpc: stands.grpc.ok_or_else(|| "a sink without gRPC".to_owned())?,
            sink_http: stands.http.ok_or_else(|| "a sink without HTTP".to_owned())?,
            placement: &self.placement,
        };
        let (mut spawned, ports) = program.start(&purpose, folder.path())?;
        let target = self.wait_until_ready(&mut spawned, &ports, row)?;
        let mut arguments = load_arguments(row, target, rate, tag);
        if row.tls {
            arguments.push("--tls".to_owned());
            arguments.extend(["--ca".to_owned(), certificates.ca.display().to_string()]);
        }
        let (load, _) = self.load(&arguments, folder.path())?;
        let mut running = Running {
            engine: Engine::Program(spawned),
            load,
            sink: &mut sink,
            metrics: ports.metrics,
        };
        let (mut measured, loaded) = self.drive(&mut running)?;
        let Running { engine: Engine::Program(spawned), load, .. } = running else {
            unreachable!("a program was started")
        };
        drop(load);
        let output = spawned.stop(PATIENCE)?;
        let (mut verdict, sunk) = audit(&mut sink, &loaded)?;
        let ledger = match program.has_ledger {
            true => Ledger::read(&output, &loaded)?,
            false => Ledger::default(),
        };
        if row.engine.exporter == "nop" {
            verdict = ledger.verdict(&program.name, &loaded, &verdict)?;
        }
        let dropped = ledger.dropped_items;
        conclude(&program.name, row, &loaded, &verdict, &sunk, dropped, &mut measured)?;
        measured.request_bytes =
            loaded.sent_bytes as f64 / loaded.progress.sent_requests.max(1) as f64;
        Ok(measured)
    }

    /// Drives the floor with as many bytes a request as `row` had on the wire, at the same pace.
    pub fn floor(
        &self,
        row: &Row,
        rate: Option<f64>,
        request_bytes: usize,
        tag: u8,
    ) -> Result<Measured, Void> {
        let folder = Folder::new()?;
        let (mut sink, stands) = self.sink(row, tag, folder.path())?;
        let raw = stands.raw.ok_or_else(|| "a sink without a raw port".to_owned())?;
        let size = request_bytes.to_string();
        let arguments = words(&["floor", "--to", &raw.to_string(), "--request-bytes", &size]);
        let arguments = with_cores(arguments, &self.placement.engine);
        let mut floor = Worker::start(&arguments, &self.placement.engine, folder.path())?;
        let Event::Ready(Ready { raw: Some(target), .. }) = floor.hear(PATIENCE)? else {
            return Err("the floor does not say where it listens".to_owned().into());
        };
        let raw = Row { transport: "raw".to_owned(), tls: false, ..row.clone() };
        let mut arguments = load_arguments(&raw, target, rate, tag);
        arguments.extend(words(&["--request-bytes", &size]));
        let (load, _) = self.load(&arguments, folder.path())?;
        let mut running =
            Running { engine: Engine::Floor(floor), load, sink: &mut sink, metrics: None };
        let (measured, loaded) = self.drive(&mut running)?;
        let Running { engine: Engine::Floor(mut floor), load, .. } = running else {
            unreachable!("a floor was started")
        };
        drop(load);
        floor.tell(&Order::Stop)?;
        floor.hear(PATIENCE)?;
        // The floor has sent everything; the sink reads what the sockets still hold before it ends.
        let sent = loaded.progress.sent_requests * request_bytes as u64;
        sink.tell(&Order::Stop)?;
        let Event::Sunk(sunk) = sink.hear(PATIENCE)? else {
            return Err("the sink does not say what came".to_owned().into());
        };
        if sunk.bytes != sent || sent == 0 {
            return Err(Void::Error(format!(
                "the floor moved {} of {sent} bytes: this run is void",
                sunk.bytes
            )));
        }
        Ok(measured)
    }

    fn sink(&self, row: &Row, tag: u8, folder: &Path) -> Result<(Worker, Ready), String> {
        let mut arguments = words(&["sink", "--controlled", "--run", &tag.to_string()]);
        if row.compression != "none" {
            arguments.push("--repeating".to_owned());
        }
        if self.placement.load == self.placement.sink {
            // Requests are due at their time; what has arrived can wait a little to be counted.
            arguments.extend(words(&["--nice", SINK_NICE]));
        }
        arguments.extend(fault_arguments(row));
        let arguments = with_cores(arguments, &self.placement.sink);
        let mut sink = Worker::start(&arguments, &self.placement.sink, folder)?;
        match sink.hear(PATIENCE)? {
            Event::Ready(ready) => Ok((sink, ready)),
            other => Err(format!("the sink says {other:?}")),
        }
    }

    fn load(&self, arguments: &[String], folder: &Path) -> Result<(Worker, Ready), String> {
        let arguments = with_cores(arguments.to_vec(), &self.placement.load);
        let mut load = Worker::start(&arguments, &self.placement.load, folder)?;
        match load.hear(PATIENCE)? {
            Event::Ready(ready) => Ok((load, ready)),
            other => Err(format!("the load says {other:?}")),
        }
    }

    fn wait_until_ready(
        &self,
        spawned: &mut Spawned,
        ports: &Ports,
        row: &Row,
    ) -> Result<SocketAddr, String> {
        let patience = Duration::from_secs(20);
        let port = match row.transport.as_str() {
            "grpc" => ports.grpc,
            "http3" => {
                spawned.wait_for_udp(ports.http3, patience)?;
                return Ok(SocketAddr::from(([127, 0, 0, 1], ports.http3)));
            }
            _ => ports.http,
        };
        spawned.wait_for_ports(&[port], patience)?;
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Warm-up, window, and the load's end.
    fn drive(&self, running: &mut Running<'_>) -> Result<(Measured, Loaded), Void> {
        running.load.tell(&Order::Start)?;
        self.sleep(running, self.warmup, |_, _| {})?;
        let before = sample(running, &self.placement, &Order::Begin)?;
        let mut rss: u64 = 0;
        let mut queue_depth = Vec::new();
        let mut step = 0;
        self.sleep(running, self.window, |running, since| {
            rss = rss.max(resident_bytes(running.engine.pid()).unwrap_or(0));
            if step % SCRAPE_STEPS == 0
                && let Some(depth) = scrape(running, "otelcol_exporter_queue_size")
            {
                queue_depth.push([since.as_secs_f64(), depth]);
            }
            step += 1;
        })?;
        let after = sample(running, &self.placement, &Order::End)?;
        let syscalls = match &running.engine {
            Engine::Program(program) if self.counts_syscalls => {
                syscalls_per_request(program.pid(), &mut running.load)?
            }
            _ => None,
        };
        running.load.tell(&Order::Stop)?;
        let loaded = loop {
            match running.load.hear(PATIENCE)? {
                Event::Loaded(loaded) => break *loaded,
                _ => continue,
            }
        };
        running.engine.check()?;
        let mut measured = figures(&before, &after, &self.placement);
        measured.run.rss_bytes = rss as f64;
        measured.run.syscalls_per_request = syscalls;
        measured.run.latency_us = loaded.latency_us.clone();
        measured.queue_depth = queue_depth;
        Ok((measured, loaded))
    }

    /// Waits, and looks in each step whether everybody lives.
    fn sleep(
        &self,
        running: &mut Running<'_>,
        wanted: Duration,
        mut each: impl FnMut(&Running<'_>, Duration),
    ) -> Result<(), Void> {
        let started = Instant::now();
        while started.elapsed() < wanted {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Void::Interrupted);
            }
            running.engine.check()?;
            running.load.check()?;
            running.sink.check()?;
            each(running, started.elapsed());
            std::thread::sleep(STEP.min(wanted.saturating_sub(started.elapsed())));
        }
        Ok(())
    }
}

fn sample(
    running: &mut Running<'_>,
    placement: &Placement,
    order: &Order,
) -> Result<Sample, String> {
    running.load.tell(order)?;
    let Event::Progress(progress) = running.load.hear(PATIENCE)? else {
        return Err("the load does not say how far it is".to_owned());
    };
    let cpu = |pid: u32| cpu_nanos(pid).ok_or("a process has no CPU time: it is gone".to_owned());
    Ok(Sample {
        at: Instant::now(),
        engine: cpu(running.engine.pid())?,
        load: cpu(running.load.pid())?,
        sink: cpu(running.sink.pid())?,
        busy: busy_nanos(&placement.engine),
        progress,
    })
}

/// Counted while the load goes on after its window: a rate, which needs no exact borders.
fn syscalls_per_request(pid: u32, load: &mut Worker) -> Result<Option<f64>, String> {
    let mut requests = || {
        load.tell(&Order::End)?;
        match load.hear(PATIENCE)? {
            Event::Progress(progress) => Ok(progress.ok_requests as f64),
            other => Err(format!("the load says {other:?}")),
        }
    };
    // perf takes a moment to begin and to end: the rate of requests is that of the whole time.
    let (began, before) = (Instant::now(), requests()?);
    let Some(calls) = syscalls::count(pid, SYSCALL_WINDOW) else { return Ok(None) };
    let per_s = (requests()? - before) / began.elapsed().as_secs_f64();
    Ok((per_s > 0.0).then(|| calls / SYSCALL_WINDOW.as_secs_f64() / per_s))
}

fn figures(before: &Sample, after: &Sample, placement: &Placement) -> Measured {
    let seconds = (after.at - before.at).as_secs_f64();
    let requests = (after.progress.ok_requests - before.progress.ok_requests) as f64;
    let items = (after.progress.ok_items - before.progress.ok_items) as f64;
    let refused = (after.progress.refused_requests - before.progress.refused_requests) as f64;
    let engine = (after.engine - before.engine) as f64;
    let load = (after.load - before.load) as f64;
    let others = load + (after.sink - before.sink) as f64;
    let busy = |nanos: f64, cores: usize| nanos / (seconds * 1e9 * cores.max(1) as f64);
    let run = Run {
        requests,
        items,
        seconds,
        requests_per_s: requests / seconds,
        items_per_s: items / seconds,
        engine_cpu_ns_per_item: engine / items,
        engine_cpu_ns_per_request: engine / requests,
        load_cpu_ns_per_request: load / requests,
        engine_busy: busy(engine, placement.engine.len()),
        load_busy: busy(others, placement.others()),
        refused_requests: refused,
        ..Run::default()
    };
    let mut notes = Vec::new();
    if run.load_busy > BUSY && run.engine_busy < NOT_BUSY {
        notes.push(format!(
            "load and sink were the bottleneck ({:.0} % of their cores, engine {:.0} %): \
             throughput is theirs, CPU per item is the engine's",
            run.load_busy * 100.0,
            run.engine_busy * 100.0
        ));
    }
    let all = before.busy.zip(after.busy).map(|(before, after)| (after - before) as f64);
    let foreign = all.map_or(0.0, |all| busy(all - engine, placement.engine.len()));
    if foreign > FOREIGN && placement.warning().is_none() {
        notes.push(format!(
            "others took {:.0} % of the engine's cores: throughput and latency are worse for it, \
             and CPU time a little",
            foreign * 100.0
        ));
    }
    let late = after.progress.late_us_max;
    if late > 5_000 {
        notes.push(format!("the load itself was up to {} ms late", late / 1000));
    }
    Measured { run, notes, ..Measured::default() }
}

fn load_arguments(row: &Row, target: SocketAddr, rate: Option<f64>, tag: u8) -> Vec<String> {
    let mut arguments = words(&["load", "--controlled", &target.to_string()]);
    let mut set = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    set("transport", row.transport.clone());
    set("signal", row.signal.clone());
    set("items", row.items.to_string());
    set("attributes", row.attributes.to_string());
    set("connections", row.connections.to_string());
    set("streams", row.streams.to_string());
    set("compression", row.compression.clone());
    set("churn", row.churn.to_string());
    set("run", tag.to_string());
    set("seed", (u64::from(tag) + 1).to_string());
    if let Some(rate) = rate {
        set("rate", rate.to_string());
        set("arrivals", format!("{:?}", row.arrivals).to_lowercase());
    }
    arguments
}

fn fault_arguments(row: &Row) -> Vec<String> {
    let faults = serde_json::to_value(&row.faults).expect("faults are plain data");
    let given = faults.as_object().into_iter().flatten();
    let given = given.filter(|(_, value)| value.as_u64().is_some_and(|value| value > 0));
    given
        .flat_map(|(name, value)| [format!("--{}", name.replace('_', "-")), value.to_string()])
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn with_cores(mut arguments: Vec<String>, cores: &[usize]) -> Vec<String> {
    let list: Vec<String> = cores.iter().map(usize::to_string).collect();
    arguments.extend(["--cores".to_owned(), list.join(",")]);
    arguments
}

/// The sum of a metric's samples.
fn scrape(running: &Running<'_>, name: &str) -> Option<f64> {
    let (authority, path) = running.metrics.as_ref()?;
    let mut stream = TcpStream::connect(authority).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values: Vec<f64> =
        samples.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// A folder for one run's files, gone with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        let name = format!("forebay-bench-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("{} can't be made: {error}", path.display()))?;
        Ok(Folder(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
