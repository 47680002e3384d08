//! Where everything must arrive: takes OTLP over gRPC and HTTP, and accounts for every item.
//!
//! Each thread has its own ring, its own listeners (the kernel spreads connections) and its own
//! [`Book`]; the books are joined at the end. Bodies are read just far enough to find each item's
//! number: what is behind it is the engine's business, and `forebay_codec::check`'s.
//!
//! Never keeps a body, never answers before it counted.

pub mod exchange;
pub mod faults;
mod worker;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use forebay_net::server::listen::listen;
use forebay_net::wake::Wake;

use self::faults::Faults;
use self::worker::{Kind, Worker};
use crate::account::Book;
use crate::control::{Event, Order, Ready, Sunk, orders, say};
use crate::machine::{pin, raise_file_limit};

/// A sink, as the command line asks for it.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where to take OTLP/gRPC (port 0: any that is free)
    #[arg(long, default_value = "127.0.0.1:0")]
    pub grpc: SocketAddr,
    /// Where to take OTLP/HTTP, HTTP/1.1 and HTTP/2
    #[arg(long, default_value = "127.0.0.1:0")]
    pub http: SocketAddr,
    /// Where to take bytes of any kind, which are counted and not answered
    #[arg(long, default_value = "127.0.0.1:0")]
    pub raw: SocketAddr,
    /// Cores, one thread each, as in `2,3`; none: one thread that is not pinned
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// The run whose items are counted; others are alien
    #[arg(long, default_value_t = 0)]
    pub run: u8,
    /// Items may come again and again: compressed requests can't be renumbered
    #[arg(long)]
    pub repeating: bool,
    /// Give way to others on the same core, as `nice` does
    #[arg(long, default_value_t = 0)]
    pub nice: i32,
    #[command(flatten)]
    pub faults: Faults,
    /// Take orders on standard input, as `run` gives them
    #[arg(long, hide = true)]
    pub controlled: bool,
}

/// A running sink.
pub struct Sink {
    pub ready: Ready,
    ended: Arc<AtomicBool>,
    threads: Vec<Thread>,
}

/// The program: until it is told to stop, or Ctrl-C.
pub fn main(settings: &Settings) -> Result<(), String> {
    let sink = Sink::start(settings)?;
    if settings.controlled {
        say(&Event::Ready(sink.ready.clone()));
        obey(sink);
        return Ok(());
    }
    let shown = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |a| a.to_string());
    eprintln!("sink: gRPC {}, HTTP {}", shown(sink.ready.grpc), shown(sink.ready.http));
    crate::machine::wait_for_interrupt();
    let (_, sunk) = sink.stop();
    println!("{}", serde_json::to_string_pretty(&sunk).expect("counts are plain data"));
    Ok(())
}

/// Until the first order that ends it.
fn obey(sink: Sink) {
    let last = orders().find(|order| matches!(order, Order::Audit { .. } | Order::Stop));
    match last {
        Some(Order::Audit { claims }) => {
            let (book, sunk) = sink.stop();
            say(&Event::Audited { verdict: book.audit(&claims), sunk });
        }
        Some(_) => say(&Event::Sunk(sink.stop().1)),
        None => {}
    }
}

impl Sink {
    /// Listens, and takes what comes from here on.
    pub fn start(settings: &Settings) -> Result<Sink, String> {
        raise_file_limit();
        if settings.nice != 0 {
            // Refused only to whoever wants to take instead of give: then nothing changes.
            let _ = rustix::process::setpriority_process(None, settings.nice);
        }
        let count = settings.cores.len().max(1);
        let open = |address: SocketAddr| {
            listen(address, count).map_err(|error| {
                format!(
                    "the sink can't listen on {address}: {error}\n  hint: end the process that \
                     has this port, or let the kernel choose with port 0"
                )
            })
        };
        let (grpc, grpc_sockets) = open(settings.grpc)?;
        let (http, http_sockets) = open(settings.http)?;
        let (raw, raw_sockets) = open(settings.raw)?;
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let sockets = grpc_sockets.into_iter().zip(http_sockets).zip(raw_sockets);
        for (index, ((grpc, http), raw)) in sockets.enumerate() {
            let core = settings.cores.get(index).copied();
            let listeners = vec![(Kind::Grpc, grpc), (Kind::Http, http), (Kind::Raw, raw)];
            threads.push(spawn(settings, core, listeners, ended.clone())?);
        }
        let ready = Ready { grpc: Some(grpc), http: Some(http), raw: Some(raw), body_bytes: 0.0 };
        Ok(Sink { ready, ended, threads })
    }

    /// Ends it, and says what arrived.
    pub fn stop(self) -> (Book, Sunk) {
        self.ended.store(true, Ordering::Release);
        let mut total: Option<(Book, Sunk)> = None;
        for (wake, thread) in self.threads {
            wake.wake();
            let (book, sunk) = thread.join().expect("a sink thread does not panic");
            match &mut total {
                None => total = Some((book, sunk)),
                Some((books, sums)) => {
                    books.merge(book);
                    add(sums, &sunk);
                }
            }
        }
        total.expect("a sink has at least one thread")
    }
}

type Thread = (Arc<Wake>, JoinHandle<(Book, Sunk)>);

fn spawn(
    settings: &Settings,
    core: Option<usize>,
    listeners: Vec<(Kind, OwnedFd)>,
    ended: Arc<AtomicBool>,
) -> Result<Thread, String> {
    let book = Book::new(settings.run, settings.repeating);
    let faults = settings.faults.clone();
    let (ready, stands) = std::sync::mpsc::channel();
    let body = move || {
        if let Some(core) = core {
            pin(&[core]);
        }
        match Worker::new(listeners, book, faults) {
            Ok(worker) => {
                let _ = ready.send(Ok(worker.wake()));
                worker.run(&ended)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                (Book::new(0, false), Sunk::default())
            }
        }
    };
    let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(body);
    let thread = thread.map_err(|error| format!("the sink can't start a thread: {error}"))?;
    let wake = stands.recv_timeout(Duration::from_secs(10));
    Ok((wake.map_err(|_| "a sink thread died at its start".to_owned())??, thread))
}

fn add(sums: &mut Sunk, more: &Sunk) {
    sums.requests += more.requests;
    sums.items += more.items;
    sums.bytes += more.bytes;
    sums.unreadable += more.unreadable;
    sums.dropped_items += more.dropped_items;
    sums.doubled_items += more.doubled_items;
    sums.refused_requests += more.refused_requests;
}
