//! One thread of the sink: a ring, its connections, and what becomes of their requests.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_codec::compress::{Decompressor, Encoding};
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Done, End, Key, Ring};
use forebay_net::wake::Wake;

use super::exchange::{Asked, Reply};
use super::faults::{Fate, Faults};
use crate::account::Book;
use crate::control::Sunk;
use crate::items::{bits_at, each_id};
use crate::outbox::{Outbox, ring};
use crate::{h1, h2};

/// A stop is looked for at least this often.
const PULSE: Duration = Duration::from_millis(100);
/// Once a stop is seen, what was sent before it is read: until nothing came for `QUIET`, and no
/// longer than `LEFTOVERS_MAX` where somebody sends on.
const QUIET: Duration = Duration::from_millis(50);
const LEFTOVERS_MAX: Duration = Duration::from_secs(2);
const BODY_BYTES_MAX: usize = 256 << 20;
const GRPC_PREFIX_BYTES: usize = 5;

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Grpc,
    /// HTTP/1.1, or HTTP/2 if it opens like it.
    Http,
    Raw,
}

enum Protocol {
    /// Nothing came yet.
    Unknown(Kind),
    H1(h1::Server),
    H2(Box<h2::server::Server>),
    Raw,
}

struct Connection {
    protocol: Protocol,
    outbox: Outbox,
    /// Close it once everything is sent.
    closing: bool,
    /// With a limited reading speed: no reading before this.
    read_after: Instant,
}

/// Something to do later.
enum Later {
    Answer { key: Key, stream: u32, is_grpc: bool, body: Vec<u8> },
    Read(Key),
}

pub(super) struct Worker {
    ring: Uring,
    kinds: Vec<Kind>,
    connections: HashMap<Key, Connection>,
    book: Book,
    faults: Faults,
    sunk: Sunk,
    decompressor: Decompressor,
    /// Ascending.
    later: VecDeque<(Instant, Later)>,
    asked: Vec<Asked>,
    handled: u64,
    seen_items: u64,
    started: Instant,
}

impl Worker {
    pub(super) fn new(
        listeners: Vec<(Kind, OwnedFd)>,
        book: Book,
        faults: Faults,
    ) -> Result<Worker, String> {
        let mut ring = ring()?;
        let mut kinds = Vec::new();
        for (kind, socket) in listeners {
            ring.listen(socket);
            kinds.push(kind);
        }
        Ok(Worker {
            ring,
            kinds,
            connections: HashMap::new(),
            book,
            faults,
            sunk: Sunk::default(),
            decompressor: Decompressor::new(),
            later: VecDeque::new(),
            asked: Vec::new(),
            handled: 0,
            seen_items: 0,
            started: Instant::now(),
        })
    }

    pub(super) fn wake(&self) -> Arc<Wake> {
        self.ring.wake()
    }

    /// Until `ended`, and what was sent before it is read: then what arrived.
    pub(super) fn run(mut self, ended: &AtomicBool) -> (Book, Sunk) {
        let wake = self.ring.wake();
        let mut stop_seen = None;
        loop {
            wake.about_to_sleep();
            if stop_seen.is_none() && ended.load(Ordering::Acquire) {
                stop_seen = Some(Instant::now());
            }
            let timeout = match self.later.front() {
                _ if stop_seen.is_some() => QUIET,
                Some((due, _)) => due.saturating_duration_since(Instant::now()).min(PULSE),
                None => PULSE,
            };
            if let Err(error) = self.ring.wait(Some(timeout)) {
                eprintln!("the sink's ring failed: {error}");
                return (self.book, self.sunk);
            }
            wake.awake();
            let mut is_quiet = true;
            while let Some(done) = self.ring.next_done() {
                is_quiet = false;
                self.done(done);
            }
            self.do_what_is_due();
            if stop_seen.is_some_and(|seen| is_quiet || seen.elapsed() > LEFTOVERS_MAX) {
                return (self.book, self.sunk);
            }
        }
    }

    fn done(&mut self, done: Done<OwnedFd>) {
        match done {
            Done::Accepted { listener, socket } => self.accepted(listener, socket),
            Done::AcceptEnded { listener, .. } => self.ring.accept(listener),
            Done::Received { key, chunk } => {
                let mut asked = std::mem::take(&mut self.asked);
                let bytes = self.ring.bytes(&chunk);
                let length = bytes.len();
                let outcome = match self.connections.get_mut(&key) {
                    Some(connection) => connection.handle(bytes, &mut asked, &mut self.sunk),
                    None => Ok(()),
                };
                self.ring.give_back(chunk);
                if let Err(error) = outcome {
                    eprintln!("the sink ends a connection: {error}");
                    self.sunk.unreadable += 1;
                    self.close(key);
                }
                for request in asked.drain(..) {
                    self.request(key, request);
                }
                self.asked = asked;
                self.slow_down(key, length);
                self.flush(key);
            }
            Done::ReceiveEnded { key, end: End::Again | End::NoBuffers } => {
                self.read_if_due(key, Instant::now());
            }
            Done::ReceiveEnded { key, .. } | Done::SendFailed { key, .. } => self.close(key),
            Done::Sent { key } => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.outbox.sent();
                    self.flush(key);
                }
            }
            Done::ReceivedInto { .. } | Done::ReceiveIntoEnded { .. } | Done::Woken => {}
            Done::Datagrams { .. } | Done::DatagramsEnded { .. } | Done::DatagramsSent { .. } => {}
        }
    }

    fn accepted(&mut self, listener: u16, socket: OwnedFd) {
        let kind = self.kinds[usize::from(listener)];
        let key = self.ring.open(socket);
        let connection = Connection {
            protocol: if kind == Kind::Raw { Protocol::Raw } else { Protocol::Unknown(kind) },
            outbox: Outbox::default(),
            closing: false,
            read_after: self.started,
        };
        self.connections.insert(key, connection);
        self.ring.receive(key);
    }

    fn request(&mut self, key: Key, asked: Asked) {
        self.handled += 1;
        let fate = self.faults.fate(self.handled, self.started.elapsed());
        match fate {
            Fate::Keep => {
                let body = self.keep(&asked);
                let (stream, is_grpc) = (asked.stream, asked.head.is_grpc);
                match body {
                    Err(why) => {
                        eprintln!("the sink got a request that it can't read: {why}");
                        self.sunk.unreadable += 1;
                        let reply = Reply::Refuse { code: 3, retry: None };
                        self.answer(key, stream, is_grpc, reply, asked.body);
                    }
                    Ok(()) if self.faults.latency_ms > 0 => {
                        let due = Instant::now() + Duration::from_millis(self.faults.latency_ms);
                        let body = asked.body;
                        let later = Later::Answer { key, stream, is_grpc, body };
                        self.do_later(due, later);
                    }
                    Ok(()) => self.answer(key, stream, is_grpc, Reply::Ok, asked.body),
                }
            }
            Fate::Refuse(reply) => {
                self.sunk.refused_requests += 1;
                self.answer(key, asked.stream, asked.head.is_grpc, reply, asked.body);
            }
            Fate::Reset => self.close(key),
            Fate::Stall => {}
            Fate::Garbage => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.outbox.filling.extend_from_slice(&[0xff; 64]);
                    connection.closing = true;
                }
            }
        }
    }

    /// Counts the items of a request.
    fn keep(&mut self, asked: &Asked) -> Result<(), String> {
        let signal = asked.head.signal.ok_or("its path means nothing")?;
        let mut encoding = asked.head.encoding.ok_or("its encoding is not known")?;
        let mut message = asked.body.as_slice();
        if asked.head.is_grpc {
            let (prefix, rest) =
                message.split_at_checked(GRPC_PREFIX_BYTES).ok_or("it has no gRPC prefix")?;
            if prefix[0] == 0 {
                encoding = Encoding::Identity;
            }
            message = rest;
        }
        let decompressed;
        if encoding != Encoding::Identity {
            decompressed = self
                .decompressor
                .decompress(encoding, message, BODY_BYTES_MAX)
                .map_err(|error| format!("{error:?}"))?;
            message = &decompressed;
        }
        self.sunk.requests += 1;
        self.sunk.bytes += message.len() as u64;
        each_id(signal, message, |place| {
            self.seen_items += 1;
            let bits = place.map(|place| bits_at(message, place));
            let times = self.faults.times(self.seen_items);
            (0..times).for_each(|_| self.book.note(bits));
            self.sunk.items += u64::from(times);
            self.sunk.dropped_items += u64::from(times == 0);
            self.sunk.doubled_items += u64::from(times == 2);
        });
        Ok(())
    }

    fn answer(&mut self, key: Key, stream: u32, is_grpc: bool, reply: Reply, body: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let out = &mut connection.outbox.filling;
        match &mut connection.protocol {
            Protocol::H1(server) => server.answer(reply, out),
            Protocol::H2(server) => {
                server.answer(stream, is_grpc, reply, out);
                server.recycle(body);
            }
            Protocol::Unknown(_) | Protocol::Raw => {}
        }
    }

    fn flush(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.outbox.flush(&mut self.ring, key);
        if connection.closing && !connection.outbox.is_sending() {
            self.close(key);
        }
    }

    /// Reads no more from a connection until `bytes` were worth their time.
    fn slow_down(&mut self, key: Key, bytes: usize) {
        if self.faults.read_bytes_per_s == 0 {
            return;
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let now = Instant::now();
        let nanos = bytes as u64 * 1_000_000_000 / self.faults.read_bytes_per_s;
        connection.read_after = connection.read_after.max(now) + Duration::from_nanos(nanos);
        self.ring.stop_receiving(key);
        let due = connection.read_after;
        self.do_later(due, Later::Read(key));
    }

    fn do_later(&mut self, due: Instant, later: Later) {
        let place = self.later.partition_point(|(other, _)| *other <= due);
        self.later.insert(place, (due, later));
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        while self.later.front().is_some_and(|(due, _)| *due <= now) {
            match self.later.pop_front() {
                Some((_, Later::Answer { key, stream, is_grpc, body })) => {
                    self.answer(key, stream, is_grpc, Reply::Ok, body);
                    self.flush(key);
                }
                Some((_, Later::Read(key))) => self.read_if_due(key, now),
                None => {}
            }
        }
    }

    fn read_if_due(&mut self, key: Key, now: Instant) {
        if self.connections.get(&key).is_some_and(|connection| connection.read_after <= now) {
            self.ring.receive(key);
        }
    }

    fn close(&mut self, key: Key) {
        if self.connections.remove(&key).is_some() {
            self.ring.close(key);
        }
    }
}

impl Connection {
    fn handle(
        &mut self,
        bytes: &[u8],
        asked: &mut Vec<Asked>,
        sunk: &mut Sunk,
    ) -> Result<(), String> {
        if let Protocol::Unknown(kind) = self.protocol {
            let opens_like_h2 = h2::PREFACE.starts_with(&bytes[..bytes.len().min(4)]);
            self.protocol = match kind {
                Kind::Http if !opens_like_h2 => Protocol::H1(h1::Server::default()),
                _ => Protocol::H2(Box::new(h2::server::Server::new(&mut self.outbox.filling))),
            };
        }
        let out = &mut self.outbox.filling;
        match &mut self.protocol {
            Protocol::H1(server) => server.handle(bytes, out, asked),
            Protocol::H2(server) => server.handle(bytes, out, asked),
            Protocol::Raw | Protocol::Unknown(_) => {
                sunk.bytes += bytes.len() as u64;
                Ok(())
            }
        }
    }
}
