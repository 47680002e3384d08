//! The floor: what it costs on this machine to move the bytes, and nothing else.
//!
//! Takes requests of a fixed size on the same kind of ring as the engine's receivers, answers each
//! with constant bytes, and sends everything on over one connection in large writes. It looks at
//! no byte: it counts them. No engine that has to read what it moves can be cheaper.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, End, Key, Ring};
use forebay_net::server::listen::listen;
use forebay_net::wake::Wake;

use crate::client::ANSWER_BYTES;
use crate::control::{Event, Order, Ready, Sunk, orders, say};
use crate::machine::{pin, raise_file_limit};
use crate::outbox::{Outbox, ring};

const ANSWER: [u8; ANSWER_BYTES] = [b'.'; ANSWER_BYTES];
/// What is sent on at once, unless nothing more comes: enough for the writes to cost next to
/// nothing.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_WAIT: Duration = Duration::from_millis(200);

/// A floor, as the command line asks for it.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where to send the bytes on to: a sink's raw port
    #[arg(long)]
    pub to: SocketAddr,
    /// Bytes of one request
    #[arg(long)]
    pub request_bytes: usize,
    /// Cores, one thread each, as in `2,3`; none: one thread that is not pinned
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
}

/// The program: until it is told to stop.
pub fn main(settings: &Settings) -> Result<(), String> {
    raise_file_limit();
    let count = settings.cores.len().max(1);
    let (address, sockets) = listen(settings.listen, count)
        .map_err(|error| format!("the floor can't listen on {}: {error}", settings.listen))?;
    let ended = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        threads.push(spawn(settings, settings.cores.get(index).copied(), socket, ended.clone())?);
    }
    say(&Event::Ready(Ready { raw: Some(address), ..Ready::default() }));
    let _ = orders().find(|order| matches!(order, Order::Stop));
    ended.store(true, Ordering::Release);
    let mut bytes = 0;
    for (wake, thread) in threads {
        wake.wake();
        bytes += thread.join().expect("a floor thread does not panic");
    }
    say(&Event::Sunk(Sunk { bytes, ..Sunk::default() }));
    Ok(())
}

type Thread = (Arc<Wake>, JoinHandle<u64>);

fn spawn(
    settings: &Settings,
    core: Option<usize>,
    listener: OwnedFd,
    ended: Arc<AtomicBool>,
) -> Result<Thread, String> {
    let (to, request_bytes) = (settings.to, settings.request_bytes);
    let (ready, stands) = std::sync::mpsc::channel();
    let body = move || {
        if let Some(core) = core {
            pin(&[core]);
        }
        match Worker::new(listener, to, request_bytes) {
            Ok(worker) => {
                let _ = ready.send(Ok(worker.ring.wake()));
                worker.run(&ended)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                0
            }
        }
    };
    let thread = std::thread::Builder::new().name("floor".to_owned()).spawn(body);
    let thread = thread.map_err(|error| format!("the floor can't start a thread: {error}"))?;
    let stands = stands.recv().map_err(|_| "a floor thread died at its start".to_owned())?;
    Ok((stands?, thread))
}

#[derive(Default)]
struct Connection {
    outbox: Outbox,
    /// Bytes of a request that is not whole.
    partial: usize,
}

struct Worker {
    ring: Uring,
    request_bytes: usize,
    connections: HashMap<Key, Connection>,
    dirty: Vec<Key>,
    onward: Key,
    out: Outbox,
    /// When the oldest byte that waits in `out` came.
    waiting_since: Option<Instant>,
    moved_bytes: u64,
}

impl Worker {
    fn new(listener: OwnedFd, to: SocketAddr, request_bytes: usize) -> Result<Worker, String> {
        let mut ring = ring()?;
        let onward = TcpStream::connect(to)
            .map_err(|error| format!("the floor can't connect to {to}: {error}"))?;
        let onward = ring.open(OwnedFd::from(onward));
        ring.listen(listener);
        Ok(Worker {
            ring,
            request_bytes,
            connections: HashMap::new(),
            dirty: Vec::new(),
            onward,
            out: Outbox::default(),
            waiting_since: None,
            moved_bytes: 0,
        })
    }

    /// Until `ended`, and everything has been sent on: the bytes moved.
    fn run(mut self, ended: &AtomicBool) -> u64 {
        let wake = self.ring.wake();
        loop {
            let is_over = ended.load(Ordering::Acquire);
            self.send_on(is_over);
            if is_over && !self.out.is_sending() && self.out.filling.is_empty() {
                return self.moved_bytes;
            }
            for key in self.dirty.drain(..) {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.outbox.flush(&mut self.ring, key);
                }
            }
            wake.about_to_sleep();
            if ended.load(Ordering::Acquire) != is_over {
                wake.awake();
                continue;
            }
            if self.ring.wait(Some(BATCH_WAIT)).is_err() {
                return self.moved_bytes;
            }
            wake.awake();
            while let Some(done) = self.ring.next_done() {
                self.done(done);
            }
        }
    }

    fn send_on(&mut self, now: bool) {
        let Some(since) = self.waiting_since else { return };
        if now || self.out.filling.len() >= BATCH_BYTES || since.elapsed() >= BATCH_WAIT {
            self.out.flush(&mut self.ring, self.onward);
            if self.out.filling.is_empty() {
                self.waiting_since = None;
            }
        }
    }

    fn done(&mut self, done: Done<OwnedFd>) {
        match done {
            Done::Accepted { socket, .. } => {
                let key = self.ring.open(socket);
                self.connections.insert(key, Connection::default());
                self.ring.receive(key);
            }
            Done::AcceptEnded { listener, .. } => self.ring.accept(listener),
            Done::Received { key, chunk } => {
                let bytes = self.ring.bytes(&chunk);
                self.moved_bytes += bytes.len() as u64;
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.partial += bytes.len();
                    while connection.partial >= self.request_bytes {
                        connection.partial -= self.request_bytes;
                        connection.outbox.filling.extend_from_slice(&ANSWER);
                    }
                    self.dirty.push(key);
                }
                self.out.filling.extend_from_slice(bytes);
                self.waiting_since.get_or_insert_with(Instant::now);
                self.ring.give_back(chunk);
            }
            Done::Sent { key } if key == self.onward => self.out.sent(),
            Done::Sent { key } => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.outbox.sent();
                    self.dirty.push(key);
                }
            }
            Done::ReceiveEnded { key, end: End::Again | End::NoBuffers } => self.ring.receive(key),
            Done::ReceiveEnded { key, .. } | Done::SendFailed { key, .. } => {
                self.connections.remove(&key);
                self.ring.close(key);
            }
            Done::ReceivedInto { .. } | Done::ReceiveIntoEnded { .. } | Done::Woken => {}
            Done::Datagrams { .. } | Done::DatagramsEnded { .. } | Done::DatagramsSent { .. } => {}
        }
    }
}
