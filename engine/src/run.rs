//! From a plan to a running process, and from a signal to its end.
//!
//! Start: bind every address, start the exporter cores, then the receiver cores, then say what
//! listens where. Stop: receivers take nothing new and answer what is in flight, exporters deliver
//! what is queued; at the deadline what is left is accounted for as dropped. The last line on
//! standard output is the ledger.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use forebay_exporters::cluster::Cluster;
use forebay_exporters::core::{Seat, Stop, start};
use forebay_exporters::lane::Lane;
use forebay_net::ring::Rung;
use forebay_net::ring::uring::Uring;
use forebay_net::server::listen::listen;
use forebay_tuning::cores::{self, CorePlan};
use forebay_tuning::host::Host;
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::plan::Plan;
use crate::control::register::Registered;
use crate::control::{View, discover, register, serve};
use crate::handoff::{ReturnPaths, ReturnQueue};
use crate::http3::{Ground, Kept, Share};
use crate::ledger::Ledger;
use crate::neighbours::Neighbours;
use crate::shard::{Parts, Phase, Shard, ShardStats, ring_options};
use crate::tls::{self, Doors};

mod copies;

use self::copies::Copies;

/// Of the time for draining, what is kept for accounting after the exporters gave up.
const ACCOUNTING: Duration = Duration::from_secs(2);
/// How often the end is looked for while the process drains.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// Runs until a signal ends it. The exit code is 0 after an orderly stop.
pub fn run(plan: Plan) -> ExitCode {
    prepare_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(|error| format!("the control plane can't start: {error}"))
        .and_then(|runtime| {
            let outcome = runtime.block_on(live(Arc::new(plan)));
            // A file that can't be read, on a mount that hangs, is waited for no longer.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The running parts.
struct Engine {
    view: Arc<View>,
    stop: Arc<Stop>,
    returns: Vec<Arc<ReturnQueue>>,
    receivers: Vec<JoinHandle<std::io::Result<()>>>,
    exporters: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    rung: Rung,
    cores: CorePlan,
    /// Until the end of all receivers.
    _datagrams: Option<Kept>,
}

async fn live(plan: Arc<Plan>) -> Result<ExitCode, String> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    // Whatever there is to reload: unheeded it would end the process.
    let hangup = listen_for(SignalKind::hangup())?;
    let metrics = match plan.telemetry.metrics {
        Some(address) => {
            let key = "service.telemetry.metrics.address";
            Some(serve::bind(address, "the metrics page", key).await?)
        }
        None => None,
    };
    let health = match plan.health {
        Some(address) => {
            let key = "extensions.health_check.endpoint";
            Some(serve::bind(address, "the health check", key).await?)
        }
        None => None,
    };
    let engine = Engine::start(plan.clone())?;
    tokio::spawn(tls::keep(engine.view.tls.clone(), hangup));
    let metrics_address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
    let health_address = health.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(listener) = metrics {
        tokio::spawn(serve::serve_metrics(listener, engine.view.clone()));
    }
    if let Some(listener) = health {
        tokio::spawn(serve::serve_health(listener, engine.view.clone()));
    }
    discover::follow_all(&engine.view);
    engine.announce(metrics_address, health_address);
    let registered = register::start(&engine.view);
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = engine.broken() => "",
    };
    let broken = name.is_empty();
    if broken {
        tracing::error!(
            "A core has ended by itself, and what it held is lost. The others deliver what they \
             hold, then the process ends"
        );
    } else {
        tracing::info!(signal = name, "Received signal from OS");
    }
    tokio::select! {
        code = leave_and_stop(registered, engine) => {
            Ok(if broken { ExitCode::FAILURE } else { code })
        }
        () = second(&mut terminate, &mut interrupt) => Ok(ended_at_once()),
    }
}

/// Others hear first that this process is about to go.
async fn leave_and_stop(registered: Option<Registered>, engine: Engine) -> ExitCode {
    if let Some(registered) = registered {
        registered.leave().await;
    }
    engine.stop().await
}

/// Waits for a signal that is no echo of the first: `timeout` and shells signal a process and then
/// its whole group.
async fn second(terminate: &mut Signal, interrupt: &mut Signal) {
    let first_at = Instant::now();
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if first_at.elapsed() >= ECHO {
            return;
        }
    }
}

/// Sets what the process needs of itself before any thread starts. What fails here costs memory
/// or connections, not correctness, and is felt and reported where that happens.
fn prepare_process() {
    // With huge pages each idle connection's few touched bytes cost their whole neighbourhood:
    // 10,000 HTTP/2 connections took 340 MB instead of 160.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let files = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: files.maximum, maximum: files.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
}

/// A signal this soon after the first is the same one.
const ECHO: Duration = Duration::from_millis(500);

fn ended_at_once() -> ExitCode {
    tracing::error!("A second signal: ended at once. What was in flight is lost");
    crate::control::logs::finish();
    std::process::exit(1)
}

fn listen_for(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("signals can't be handled: {error}"))
}

impl Engine {
    fn start(plan: Arc<Plan>) -> Result<Engine, String> {
        // Asked first, and here: a ring that can't be had is said once, with its cause.
        Uring::new(&ring_options(&plan))?;
        let host = Host::detect();
        let cores = cores::plan(&plan.engine.cores, &host)?;
        let shards = cores.receivers.len();
        let tls = Arc::new(Doors::open(&plan)?);
        tls.warn(Instant::now(), SystemTime::now());
        let (mut addresses, sockets) = bind(&plan, shards)?;
        let ground = Ground::bind(&plan, shards)?;
        addresses.extend(ground.as_ref().map(|ground| ground.address));
        let stop = Arc::new(Stop::new());
        let returns: Vec<_> = (0..shards).map(|_| Arc::new(ReturnQueue::new())).collect();
        let lanes = lanes(&plan, shards, cores.exporters.len());
        let clusters = discover::clusters(&plan);
        let exporters = start_exporters(&plan, &cores, &lanes, &clusters, &tls, &returns, &stop)?;
        let view = Arc::new(View {
            ledger: Arc::new(Ledger::new(&plan, shards)),
            shards: (0..shards).map(|_| Arc::new(ShardStats::default())).collect(),
            receiver_cores: cores.receivers.clone(),
            lanes,
            exporter_cores: cores.exporters.clone(),
            discovered: clusters.iter().map(|_| Arc::default()).collect(),
            clusters,
            phase: Arc::new(Phase::default()),
            tls,
            epoch: Instant::now(),
            plan,
        });
        let acceptors = view.tls.acceptors();
        let shares = ground.map(|ground| ground.shares(&view.plan, &acceptors, view.epoch));
        let (shares, datagrams) = shares.transpose()?.unzip();
        let shares = shares.unwrap_or_default();
        let (receivers, rung) = start_receivers(&view, &returns, sockets, shares)?;
        // Last: threads inherit where their parent may run.
        if let Some(core) = cores.control
            && let Err(error) = pin(core)
        {
            tracing::warn!(core, %error, "The control thread is not pinned to its core");
        }
        Ok(Engine {
            view,
            stop,
            returns,
            receivers,
            exporters,
            addresses,
            rung,
            cores,
            _datagrams: datagrams,
        })
    }

    /// Says once what listens where and which cores do what.
    fn announce(&self, metrics: Option<SocketAddr>, health: Option<SocketAddr>) {
        for (listener, address) in self.view.plan.listeners.iter().zip(&self.addresses) {
            let endpoint = address.to_string();
            let receiver = listener.receiver_name.as_str();
            let tls = listener.tls.is_some();
            if listener.grpc.is_some() {
                tracing::info!(endpoint, receiver, tls, "Starting GRPC server");
            }
            match &listener.http {
                Some(_) if listener.is_quic => {
                    tracing::info!(endpoint, receiver, tls, "Starting HTTP/3 server");
                }
                Some(_) => tracing::info!(endpoint, receiver, tls, "Starting HTTP server"),
                None => {}
            }
        }
        let only_local = self.addresses.iter().all(|address| address.ip().is_loopback());
        if only_local && std::path::Path::new("/.dockerenv").exists() {
            tracing::warn!(
                "Every receiver listens on localhost and can be reached only from inside this \
                 container: set the endpoints to 0.0.0.0 to take telemetry from outside"
            );
        }
        let shown = |address: Option<SocketAddr>| {
            address.map_or_else(|| "off".to_owned(), |address| address.to_string())
        };
        tracing::info!(
            receiver_cores = list(&self.cores.receivers),
            exporter_cores = list(&self.cores.exporters),
            ring = self.rung.name(),
            metrics = shown(metrics),
            health = shown(health),
            "Everything is ready. Begin running and processing data."
        );
    }

    /// Ends when a thread has ended that should not have.
    async fn broken(&self) {
        loop {
            let receiver = self.receivers.iter().any(JoinHandle::is_finished);
            if receiver || self.exporters.iter().any(JoinHandle::is_finished) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Drains, accounts, and prints the ledger.
    async fn stop(self) -> ExitCode {
        tracing::info!("Starting shutdown...");
        let drain = self.view.plan.engine.drain_timeout;
        let started = Instant::now();
        let mut copies = Copies::new(&self.view, started);
        self.view.phase.drain();
        self.wake_receivers();
        if !self.receivers_end_by(started + drain, &mut copies).await {
            let held = self.view.ledger.totals(&self.view.plan).in_flight_items();
            tracing::warn!(
                in_flight_items = held,
                drain_timeout_ms = drain.as_millis() as u64,
                "The time for draining is over: what no destination took is dropped, and counted. \
                 A longer engine.drain_timeout gives slow destinations more time"
            );
            self.stop.abandon();
            self.view.phase.abandon();
            self.wake_receivers();
            self.receivers_end_by(Instant::now() + ACCOUNTING, &mut copies).await;
        }
        self.stop.close();
        let deadline = Instant::now() + ACCOUNTING;
        while !self.exporters.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_STEP).await;
        }
        self.last_word()
    }

    async fn receivers_end_by(&self, deadline: Instant, copies: &mut Copies) -> bool {
        while Instant::now() < deadline {
            copies.look(Instant::now());
            if self.receivers.iter().all(JoinHandle::is_finished) {
                return true;
            }
            tokio::time::sleep(DRAIN_STEP).await;
        }
        self.receivers.iter().all(JoinHandle::is_finished)
    }

    fn wake_receivers(&self) {
        self.returns.iter().for_each(|returns| returns.wake());
    }

    /// Whether every core that has ended did so in order; a panic has said its own text already.
    fn ended_in_order(&mut self) -> bool {
        let receivers = std::mem::take(&mut self.receivers);
        let exporters = std::mem::take(&mut self.exporters);
        let receivers = receivers.into_iter().filter(JoinHandle::is_finished).all(|thread| {
            match thread.join() {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::error!(%error, "A receiver core lost its ring");
                    false
                }
                Err(_) => false,
            }
        });
        let mut exporters = exporters.into_iter().filter(JoinHandle::is_finished);
        exporters.all(|thread| thread.join().is_ok()) && receivers
    }

    fn last_word(mut self) -> ExitCode {
        let in_order = self.ended_in_order();
        let totals = self.view.ledger.totals(&self.view.plan);
        let mut stdout = std::io::stdout();
        let ledger = match stdout.is_terminal() {
            true => totals.to_text(),
            false => totals.to_json() + "\n",
        };
        // Nobody may be reading any more; the logs and the exit code still tell.
        let _ = stdout.write_all(ledger.as_bytes());
        let in_flight_items = totals.in_flight_items();
        if !totals.is_balanced() {
            tracing::error!(
                in_flight_items,
                "The ledger does not balance: items are lost that nobody accounted for"
            );
            return ExitCode::FAILURE;
        }
        if in_flight_items > 0 {
            tracing::error!(
                in_flight_items,
                "A core did not end in time: what it held was neither delivered nor given up, and \
                 is lost with the process"
            );
            return ExitCode::FAILURE;
        }
        if !in_order {
            tracing::error!("A core did not end in order: requests on it may have gone unanswered");
            return ExitCode::FAILURE;
        }
        tracing::info!("Shutdown complete.");
        ExitCode::SUCCESS
    }
}

/// Binds each listener of TCP once per receiver core. Sockets come back by core, then by listener.
fn bind(plan: &Plan, shards: usize) -> Result<(Vec<SocketAddr>, Vec<Vec<OwnedFd>>), String> {
    let mut addresses = Vec::new();
    let mut by_shard: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    for listener in plan.listeners.iter().filter(|listener| !listener.is_quic) {
        let (address, sockets) = listen(listener.address, shards).map_err(|error| {
            format!(
                "receiver {} can't listen on {}: {error}\n  cost: forebay does not start\n  hint: \
                 end the process that has this port, or change the receiver's endpoint",
                listener.receiver_name, listener.endpoint
            )
        })?;
        addresses.push(address);
        for (shard, socket) in by_shard.iter_mut().zip(sockets) {
            shard.push(socket);
        }
    }
    Ok((addresses, by_shard))
}

/// By destination, then by exporter core.
fn lanes(plan: &Plan, receivers: usize, exporters: usize) -> Vec<Vec<Arc<Lane>>> {
    let queue = |index: usize| plan.queue(index, receivers, exporters);
    let lane = |index: usize| Arc::new(Lane::new(index as u16, &queue(index)));
    (0..plan.destinations.len())
        .map(|index| (0..exporters).map(|_| lane(index)).collect())
        .collect()
}

fn start_exporters(
    plan: &Plan,
    cores: &CorePlan,
    lanes: &[Vec<Arc<Lane>>],
    clusters: &[Arc<Cluster>],
    tls: &Doors,
    returns: &[Arc<ReturnQueue>],
    stop: &Arc<Stop>,
) -> Result<Vec<JoinHandle<()>>, String> {
    let destinations: Vec<_> = plan.destinations.iter().cloned().map(Arc::new).collect();
    let initiators = tls.initiators();
    let paths = Arc::new(ReturnPaths(returns.to_vec()));
    let start_one = |(place, core): (usize, &usize)| {
        let seats = destinations
            .iter()
            .zip(clusters)
            .zip(lanes)
            .zip(&initiators)
            .map(|(((destination, cluster), lanes), initiator)| Seat {
                destination: destination.clone(),
                cluster: cluster.clone(),
                lane: lanes[place].clone(),
                initiator: initiator.clone(),
            })
            .collect();
        let name = format!("exporter-{core}");
        start(name, Some(*core), seats, paths.clone(), stop.clone())
            .map_err(|error| format!("the exporter on core {core} can't start: {error}"))
    };
    cores.exporters.iter().enumerate().map(start_one).collect()
}

type Receivers = (Vec<JoinHandle<std::io::Result<()>>>, Rung);

fn start_receivers(
    view: &Arc<View>,
    returns: &[Arc<ReturnQueue>],
    sockets: Vec<Vec<OwnedFd>>,
    shares: Vec<Share>,
) -> Result<Receivers, String> {
    let (ready, stands) = mpsc::channel();
    let mut threads = Vec::new();
    let neighbours = Neighbours::all(sockets.len());
    let mut shares = shares.into_iter();
    for (index, (sockets, neighbours)) in sockets.into_iter().zip(neighbours).enumerate() {
        let core = view.receiver_cores[index];
        let parts = Parts {
            index,
            plan: view.plan.clone(),
            ledger: view.ledger.clone(),
            stats: view.shards[index].clone(),
            peers: view.shards.clone(),
            returns: returns[index].clone(),
            phase: view.phase.clone(),
            lanes: view.lanes.clone(),
            clusters: view.clusters.clone(),
            sockets,
            acceptors: view.tls.acceptors(),
            neighbours,
            epoch: view.epoch,
        };
        let (ready, share) = (ready.clone(), shares.next());
        let thread = std::thread::Builder::new().name(format!("receiver-{core}"));
        let body = move || {
            if let Err(error) = pin(core) {
                tracing::warn!(core, %error, "This receiver is not pinned to its core");
            }
            match open(parts, share) {
                Ok(shard) => {
                    let _ = ready.send(Ok(shard.rung()));
                    drop(ready);
                    shard.run()
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            }
        };
        let thread = thread
            .spawn(body)
            .map_err(|error| format!("the receiver on core {core} can't start: {error}"))?;
        threads.push(thread);
    }
    drop(ready);
    let mut rung = Rung::Deferred;
    for stands in stands.iter().take(threads.len()) {
        rung = stands?;
    }
    Ok((threads, rung))
}

/// A receiver on the thread that it lives on.
fn open(parts: Parts<OwnedFd>, share: Option<Share>) -> Result<Shard<Uring>, String> {
    let ring = Uring::new(&ring_options(&parts.plan))?;
    let mut shard = Shard::new(parts, ring);
    if let Some(Share { listener, alternatives }) = share {
        shard.open_quic(listener, alternatives).map_err(|error| {
            format!(
                "HTTP/3 can't be served: its buffers can't be had ({error})\n  cost: forebay does \
                 not start\n  hint: give the process more memory, or remove the http3 block"
            )
        })?;
    }
    Ok(shard)
}

/// Keeps the calling thread on `core`.
fn pin(core: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}
