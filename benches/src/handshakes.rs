//! Handshakes a second: connections that are opened, and closed as soon as they stand.
//!
//! Always: a handshake counts as full or resumed by what happened, not by what was asked for: a
//! server that resumes shows no certificate, so nobody looks at one. Every session begins with one
//! full handshake, which is outside the count.

mod quic;
mod tcp;
mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use self::witness::Witness;
use crate::machine::{cpu_nanos, interrupts, pin, raise_file_limit};
use crate::target::Target;
use crate::trust::Trust;

const STEP: Duration = Duration::from_millis(10);
/// For a handshake, and for the ticket after it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `handshakes` is asked for.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The server: a name or an address, with its port
    #[arg(value_name = "HOST:PORT")]
    pub target: Target,
    /// TLS over TCP [this or --quic]
    #[arg(long, required_unless_present = "quic", conflicts_with = "quic")]
    pub tls: bool,
    /// QUIC, with HTTP/3's name in it
    #[arg(long)]
    pub quic: bool,
    /// Each with certificate and key exchange [this or --resumed]
    #[arg(long, required_unless_present = "resumed", conflicts_with = "resumed")]
    pub full: bool,
    /// Each with the ticket of the one before
    #[arg(long)]
    pub resumed: bool,
    /// What TLS offers, best first
    #[arg(long, value_delimiter = ',', default_value = "h2,http/1.1")]
    pub alpn: Vec<String>,
    #[command(flatten)]
    pub trust: Trust,
    /// Handshakes under way at once
    #[arg(long, default_value_t = 8)]
    pub at_once: usize,
    /// Seconds to run for
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// The server's process: its CPU time is shown too
    #[arg(long)]
    pub pid: Option<u32>,
    /// Cores, as in `2,3` [default: any]
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
}

/// What there was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    pub full: u64,
    pub resumed: u64,
    pub failed: u64,
    pub seconds: f64,
    /// CPU time of the server, if its process is known.
    pub cpu_nanos: Option<u64>,
}

/// Counted by all, read once.
#[derive(Debug, Default)]
struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    /// What the first failure said.
    problem: std::sync::OnceLock<String>,
    is_counting: AtomicBool,
    is_over: AtomicBool,
}

/// The program: the figures, or why there are none.
pub fn main(settings: &Settings) -> Result<(), String> {
    let (found, problem) = run(settings)?;
    let all = found.full + found.resumed;
    println!(
        "{:.0} handshakes/s ({} full, {} resumed, {} failed in {:.1} s)",
        all as f64 / found.seconds,
        found.full,
        found.resumed,
        found.failed,
        found.seconds
    );
    if let Some(nanos) = found.cpu_nanos {
        let each_us = nanos as f64 / 1000.0 / all.max(1) as f64;
        println!("{each_us:.1} us of the server's CPU time each");
    }
    match problem {
        Some(problem) => Err(format!("{} handshakes failed; the first: {problem}", found.failed)),
        None if all == 0 => Err("no handshake was counted".to_owned()),
        None => Ok(()),
    }
}

/// Runs for a while; the figures, and the first problem.
pub fn run(settings: &Settings) -> Result<(Found, Option<String>), String> {
    raise_file_limit();
    if !settings.cores.is_empty() {
        pin(&settings.cores);
    }
    let counts = Arc::new(Counts::default());
    let mut threads = Vec::new();
    // Asked here once, so that what is wrong with it is said before anything is tried.
    settings.trust.verifier()?;
    for _ in 0..if settings.quic { 1 } else { settings.at_once.max(1) } {
        let (settings, counts) = (settings.clone(), counts.clone());
        let body = move || match settings.quic {
            true => quic::run(&settings, &counts),
            false => tcp::run(&settings, &counts),
        };
        let thread = std::thread::Builder::new().name("handshakes".to_owned()).spawn(body);
        threads.push(thread.map_err(|error| format!("no thread can be started: {error}"))?);
    }
    let cpu = || settings.pid.map(|pid| cpu_nanos(pid).ok_or(format!("no process {pid}")));
    let before = cpu().transpose()?;
    counts.is_counting.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let interrupted = interrupts();
    let wanted = Duration::from_secs_f64(settings.seconds);
    while started.elapsed() < wanted && !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(STEP);
    }
    counts.is_counting.store(false, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let after = cpu().transpose()?;
    counts.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a thread of handshakes does not panic")?;
    }
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let found = Found {
        full: read(&counts.full),
        resumed: read(&counts.resumed),
        failed: read(&counts.failed),
        seconds,
        cpu_nanos: before.zip(after).map(|(before, after)| after - before),
    };
    Ok((found, counts.problem.get().cloned()))
}

impl Counts {
    fn note(&self, is_full: bool) {
        if self.is_counting.load(Ordering::Relaxed) {
            let count = if is_full { &self.full } else { &self.resumed };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fail(&self, problem: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        // The first is kept.
        let _ = self.problem.set(problem);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}
