//! QUIC, one endpoint of one receiver core, sans-I/O: datagrams and `now` in, requests and
//! datagrams out. The transport is quinn's (`quinn-proto`), driven directly.
//!
//! Whoever drives a [`Quic`] hands it what came ([`Quic::handle_datagram`]), lets it work
//! ([`Quic::poll`]), gives answers ([`Quic::answer`]), takes what is to be sent until there is no
//! more ([`Quic::poll_transmit`]), and sleeps until [`Quic::next_timeout`].
//!
//! Always
//! - A connection lives on the core that its IDs name ([`ids`]): what another core's filter let
//!   through to us goes to its owner, as a [`Stranger`], and is never lost silently.
//! - Connections, handshakes, streams, windows and what waits to be sent are bounded. Who can't be
//!   taken is refused; with many handshakes under way a client has to prove its address first.
//! - A connection may send little ahead at first; what more it may, and what of all of it is held
//!   behind gaps, is charged to the door's budget.
//! - No clock is read: quinn's instants are made of `now` and an [`Epoch`].
//! - All timers are in one heap, with one entry that counts for each connection.

mod config;
mod connection;
mod entry;
mod gaps;
mod ids;
mod lane;
mod moves;
mod timers;
mod windows;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{DatagramEvent, EcnCodepoint, Endpoint, Transmit as Sent};

pub(crate) use self::config::ARRIVAL_BYTES_MAX;
use self::config::WallClock;
pub use self::config::{Config, Epoch, Secrets, Tls, TlsError};
use self::connection::Connection;
use self::entry::Entry;
pub use self::ids::{CORES_MAX, CoreId, ID_BYTES};
use self::ids::{Destination, Ids};
use self::timers::Timers;
use crate::request::{Answer, Door, Nanos, Request, RequestId, Turn};
use crate::ring::Key;
use crate::server::lifetime::Chance;
use crate::tls::Failure;

/// In a [`Key`]'s index: names a connection of QUIC, and no socket of the ring.
const MARK: u32 = 1 << 31;
/// Answers to datagrams that belong to no connection, which wait to be sent.
const REPLIES_MAX: usize = 256;

/// Where a datagram came from, and what the network said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub from: SocketAddr,
    /// The address of ours that it came to.
    pub local_ip: Option<IpAddr>,
    /// The two bits of ECN.
    pub ecn: u8,
}

/// A datagram that belongs to another core.
#[derive(Clone, Debug)]
pub struct Stranger {
    pub core: usize,
    pub path: Path,
    pub bytes: Bytes,
}

/// What to send: one datagram, or several that the kernel cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub to: SocketAddr,
    pub local_ip: Option<IpAddr>,
    /// The two bits of ECN.
    pub ecn: u8,
    /// All datagrams but the last are this long; `None`: it is one.
    pub segment_bytes: Option<usize>,
    /// Of all datagrams together.
    pub bytes: usize,
}

/// Counters since the start, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicStats {
    /// Connections whose state is held, those that have ended a moment ago too.
    pub connections: u64,
    pub handshaking: u64,
    pub accepted: u64,
    pub handshakes: u64,
    /// Ended before their handshake did.
    pub handshakes_failed: u64,
    /// Why, in the order of [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
    /// First packets that had to wait for another turn, each once, and those that found no room to
    /// wait.
    pub put_off: u64,
    pub closed: u64,
    /// Refused: too many connections or handshakes, or we drain.
    pub refused: u64,
    /// First packets that began no connection: cut off, forged, or of one that is gone.
    pub unreadable: u64,
    pub retries: u64,
    /// Stateless resets that we sent.
    pub resets: u64,
    /// Datagrams that belonged to another core.
    pub strangers: u64,
    /// Datagrams of ours that another core had received.
    pub adopted: u64,
    /// Changes of a peer's address.
    pub migrated: u64,
    /// Datagrams from yet another address that were not taken.
    pub moves_refused: u64,
    pub lost_packets: u64,
    /// Deadlines missed: of handshakes, of requests, of idle connections.
    pub timeouts: u64,
    /// Replies that were not sent for want of room.
    pub replies_dropped: u64,
    /// What connections may send ahead beyond their first windows: a part of the budget.
    pub window_bytes: u64,
    /// What is held of streams behind their gaps: a part of the budget.
    pub held_bytes: u64,
    /// Not taken: longer than we said that they may be.
    pub datagrams_too_long: u64,
    pub received_datagrams: u64,
    pub received_bytes: u64,
    pub sent_datagrams: u64,
    pub sent_bytes: u64,
}

/// Whether a request came from here, and its answer is for [`Quic::answer`].
pub fn owns(key: Key) -> bool {
    key.index & MARK != 0
}

pub struct Quic {
    endpoint: Endpoint,
    config: Config,
    clock: Arc<WallClock>,
    ids: Ids,
    chance: Chance,
    /// By quinn's handle.
    slots: Vec<Slot>,
    /// Slots that are taken, and of those the ones whose handshake is not done.
    open: usize,
    handshaking: usize,
    entry: Entry,
    /// What connections may send ahead in sum, beyond their first windows.
    windows_bytes_max: usize,
    touched: Vec<usize>,
    sending: VecDeque<usize>,
    replies: VecDeque<(Transmit, Vec<u8>)>,
    timers: Timers,
    draining: bool,
    stats: QuicStats,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Quic {
    pub fn new(config: Config) -> Quic {
        let clock = Arc::new(WallClock::new(config.epoch.wall));
        let server = Arc::new(config.server(clock.clone()));
        let endpoint = Endpoint::new(Arc::new(config.endpoint()), Some(server), true, None);
        let seed = config.seed.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Quic {
            endpoint,
            clock,
            ids: Ids::new(config.core, config.secrets.ids.clone(), config.seed),
            chance: Chance(seed),
            config,
            slots: Vec::new(),
            open: 0,
            handshaking: 0,
            entry: Entry::default(),
            windows_bytes_max: usize::MAX,
            touched: Vec::new(),
            sending: VecDeque::new(),
            replies: VecDeque::new(),
            timers: Timers::default(),
            draining: false,
            stats: QuicStats::default(),
        }
    }

    /// Connections that begin from now on get these certificates.
    pub fn set_tls(&mut self, tls: Tls) {
        self.config.tls = tls;
        let server = self.config.server(self.clock.clone());
        self.endpoint.set_server_config(Some(Arc::new(server)));
    }

    /// Takes a datagram, or says whose it is.
    pub fn handle_datagram(&mut self, now: Nanos, path: Path, datagram: &[u8]) -> Option<Stranger> {
        self.handle_owned(now, path, BytesMut::from(datagram))
    }

    /// The same, where the bytes are ours to change. They may be part of a longer buffer, as the
    /// datagrams are that came together: it is free again once all of them are read.
    pub fn handle_owned(&mut self, now: Nanos, path: Path, datagram: BytesMut) -> Option<Stranger> {
        if let Some(core) = self.other_owner(&datagram) {
            self.stats.strangers += 1;
            return Some(Stranger { core, path, bytes: Bytes::copy_from_slice(&datagram) });
        }
        self.take_datagram(now, path, datagram);
        None
    }

    /// Takes a datagram of ours that another core had received.
    pub fn handle_stranger(&mut self, now: Nanos, stranger: &Stranger) {
        self.stats.adopted += 1;
        self.take_datagram(now, stranger.path, BytesMut::from(&stranger.bytes[..]));
    }

    /// Takes what the datagrams and time brought, and appends the requests that are complete.
    pub fn poll(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.clock.set(now);
        // What has come counts before anybody's time is up, or its place is wanted.
        self.settle_touched(now, door, requests);
        self.let_in_some(now);
        while let Some((at, index)) = self.timers.next_due(now) {
            let connection = self.slots[index].connection.as_ref();
            if connection.is_none_or(|connection| connection.timer_at != at) {
                continue;
            }
            let instant = self.instant(now);
            let missed = self.with(index, now, door, requests, |connection, turn| {
                connection.timer_at = Nanos::MAX;
                connection.take_time(instant, turn)
            });
            self.stats.timeouts += u64::from(missed == Some(true));
            let connection = self.slots[index].connection.as_ref();
            match connection.is_some_and(|connection| connection.is_overdue(now)) {
                true => self.expel(index),
                false => self.touch(index),
            }
        }
        self.settle_touched(now, door, requests);
    }

    /// Gives an answer; a request whose connection is gone is answered to nobody.
    pub fn answer(
        &mut self,
        id: RequestId,
        answer: Answer,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        let index = (id.key.index & !MARK) as usize;
        if self.slots.get(index).is_none_or(|slot| slot.generation != id.key.generation) {
            return;
        }
        let instant = self.instant(now);
        self.with(index, now, door, requests, |connection, turn| {
            connection.take_answer(id.stream, answer, instant, turn);
        });
        self.queue(index);
    }

    /// Writes what is to be sent next into `buffer`, in place of what is there. To be called until
    /// there is no more.
    pub fn poll_transmit(&mut self, now: Nanos, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        if let Some((transmit, bytes)) = self.replies.pop_front() {
            buffer.extend_from_slice(&bytes);
            return Some(self.counted(transmit));
        }
        let instant = self.instant(now);
        while let Some(index) = self.sending.pop_front() {
            let Some(connection) = self.slots[index].connection.as_deref_mut() else {
                continue;
            };
            let segments_max = self.config.segments_max;
            if let Some(sent) = connection.quic.poll_transmit(instant, segments_max, buffer) {
                // The others have their turn before it goes on.
                self.sending.push_back(index);
                return Some(self.counted(transmit(&sent)));
            }
            connection.is_sending = false;
            self.schedule(index, now);
        }
        None
    }

    /// When to call [`Quic::poll`] if nothing comes before.
    pub fn next_timeout(&self) -> Option<Nanos> {
        match self.entry.is_waiting() {
            true => Some(0),
            false => self.timers.next(),
        }
    }

    /// Takes no new connections and tells every peer: what is in flight is answered, then the
    /// connections close.
    pub fn drain(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.shut();
        let instant = self.instant(now);
        for index in 0..self.slots.len() {
            self.with(index, now, door, requests, |connection, turn| {
                connection.drain(instant, turn);
            });
            self.touch(index);
        }
    }

    /// Ends all connections at once.
    pub fn close(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.shut();
        let instant = self.instant(now);
        for index in 0..self.slots.len() {
            self.with(index, now, door, requests, |connection, turn| {
                connection.close(instant, turn);
            });
            self.touch(index);
        }
    }

    /// Whether any peer is still owed something: an answer, or to hear that we go.
    pub fn is_busy(&self) -> bool {
        let mut connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        let is_open = connections.any(|connection| !connection.quic.is_closed());
        is_open || !self.sending.is_empty() || !self.replies.is_empty()
    }

    /// Requests handed out and not answered.
    pub fn in_flight(&self) -> usize {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        connections.map(|connection| connection.in_flight()).sum()
    }

    /// Connections whose state is held.
    pub fn connections(&self) -> usize {
        self.open
    }

    /// Where the client of a connection is.
    pub fn peer(&self, key: Key) -> Option<SocketAddr> {
        let slot = self.slots.get((key.index & !MARK) as usize)?;
        let connection = slot.connection.as_ref().filter(|connection| connection.key == key)?;
        Some(connection.peer())
    }

    pub fn stats(&self) -> QuicStats {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        let (mut lost, mut held_bytes) = (0, 0);
        for connection in connections {
            lost += connection.quic.stats().path.lost_packets;
            held_bytes += connection.held_bytes() as u64;
        }
        QuicStats {
            connections: self.open as u64,
            handshaking: self.handshaking as u64,
            lost_packets: self.stats.lost_packets + lost,
            held_bytes,
            ..self.stats
        }
    }

    /// The other core that a datagram belongs to.
    fn other_owner(&self, datagram: &[u8]) -> Option<usize> {
        let core = self.config.core;
        let owner = match ids::destination(datagram)? {
            Destination::Short(id) => core.owner(id),
            // Before the seal is looked at, which costs more than the byte.
            Destination::Long(id) if id.len() != ID_BYTES || core.owner(id) == core.index => {
                return None;
            }
            Destination::Long(id) => self.ids.maker(id)?,
        };
        (owner != core.index).then_some(owner)
    }

    fn take_datagram(&mut self, now: Nanos, path: Path, bytes: BytesMut) {
        self.clock.set(now);
        self.stats.received_datagrams += 1;
        self.stats.received_bytes += bytes.len() as u64;
        if bytes.len() > usize::from(ARRIVAL_BYTES_MAX) {
            self.stats.datagrams_too_long += 1;
            return;
        }
        let Path { from, local_ip, ecn } = path;
        let ecn = EcnCodepoint::from_bits(ecn);
        let mut reply = Vec::new();
        let instant = self.instant(now);
        match self.endpoint.handle(instant, from, local_ip, ecn, bytes, &mut reply) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = &mut self.slots[handle.0].connection {
                    match connection.may_come_from(from, now) {
                        true => connection.quic.handle_event(event),
                        false => self.stats.moves_refused += 1,
                    }
                }
                self.touch(handle.0);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.decide(incoming),
            Some(DatagramEvent::Response(sent)) => {
                let is_short = reply.first().is_some_and(|first| first & 0x80 == 0);
                self.stats.resets += u64::from(is_short);
                self.reply(&sent, reply);
            }
            None => {}
        }
    }

    fn reply(&mut self, sent: &Sent, bytes: Vec<u8>) {
        match self.replies.len() < REPLIES_MAX {
            true => self.replies.push_back((transmit(sent), bytes)),
            false => self.stats.replies_dropped += 1,
        }
    }

    fn settle_touched(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        while let Some(index) = self.touched.pop() {
            self.settle(index, now, door, requests);
        }
    }

    /// Looks at what happened to a connection, tells the endpoint, and forgets it if it is over.
    fn settle(
        &mut self,
        index: usize,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        let instant = self.instant(now);
        let migrated = self.with(index, now, door, requests, |connection, turn| {
            connection.is_touched = false;
            connection.take_events(instant, turn)
        });
        self.stats.migrated += u64::from(migrated == Some(true));
        self.count_handshake(index);
        self.adjust_window(index, now, door);
        if self.tell_endpoint(index) {
            return self.forget(index);
        }
        self.queue(index);
        self.schedule(index, now);
    }

    /// Takes a connection out of those whose handshake is under way, once it is not.
    fn count_handshake(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.as_deref_mut() else {
            return;
        };
        if !connection.was_handshaking || connection.is_handshaking() {
            return;
        }
        if !connection.is_established() {
            let failure = connection.failure();
            return self.fail(index, failure);
        }
        connection.was_handshaking = false;
        self.handshaking -= 1;
        self.stats.handshakes += 1;
        self.entry.leave();
    }

    /// Counts a handshake that came to nothing, once.
    fn fail(&mut self, index: usize, failure: Failure) {
        if let Some(connection) = &mut self.slots[index].connection
            && std::mem::replace(&mut connection.was_handshaking, false)
        {
            self.handshaking -= 1;
            self.stats.handshakes_failed += 1;
            self.stats.failures[failure as usize] += 1;
        }
    }

    /// Passes on what a connection and the endpoint have to tell each other. Returns whether the
    /// connection is over.
    fn tell_endpoint(&mut self, index: usize) -> bool {
        let Some(connection) = self.slots[index].connection.as_deref_mut() else {
            return false;
        };
        let mut is_over = false;
        while let Some(event) = connection.quic.poll_endpoint_events() {
            is_over |= event.is_drained();
            if let Some(event) = self.endpoint.handle_event(connection.handle, event) {
                connection.quic.handle_event(event);
            }
        }
        is_over
    }

    fn forget(&mut self, index: usize) {
        if let Some(connection) = self.slots[index].connection.take() {
            self.open -= 1;
            self.stats.closed += 1;
            if !connection.is_established() {
                self.entry.leave();
            }
            self.stats.lost_packets += connection.quic.stats().path.lost_packets;
        }
    }

    /// Sees to it that the heap wakes us no later than a connection's deadline.
    fn schedule(&mut self, index: usize, now: Nanos) {
        let epoch = self.config.epoch.instant;
        let Some(connection) = self.slots[index].connection.as_deref_mut() else {
            return;
        };
        let nanos = |instant: Instant| {
            let since = instant.saturating_duration_since(epoch).as_nanos();
            Nanos::try_from(since).unwrap_or(Nanos::MAX)
        };
        let due = connection.due(&self.config.limits, nanos).map(|at| at.max(now + 1));
        if let Some(due) = due
            && due < connection.timer_at
        {
            connection.timer_at = due;
            self.timers.push(due, index);
            if self.timers.are_crowded(self.open) {
                let slots = &self.slots;
                self.timers.keep(|at, index| {
                    let connection = slots[index].connection.as_ref();
                    connection.is_some_and(|connection| connection.timer_at == at)
                });
            }
        }
    }

    fn touch(&mut self, index: usize) {
        if let Some(connection) = &mut self.slots[index].connection
            && !std::mem::replace(&mut connection.is_touched, true)
        {
            self.touched.push(index);
        }
    }

    fn queue(&mut self, index: usize) {
        if let Some(connection) = &mut self.slots[index].connection
            && !std::mem::replace(&mut connection.is_sending, true)
        {
            self.sending.push_back(index);
        }
    }

    fn with<T>(
        &mut self,
        index: usize,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
        act: impl FnOnce(&mut Connection, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let connection = self.slots.get_mut(index)?.connection.as_deref_mut()?;
        let peer = connection.identity().cloned();
        let mut turn = Turn {
            now,
            key: connection.key,
            listener: self.config.listener,
            limits: &self.config.limits,
            door,
            requests,
            // No answer of HTTP/2 or HTTP/3 carries one.
            date: "",
            peer,
        };
        Some(act(connection, &mut turn))
    }

    fn counted(&mut self, transmit: Transmit) -> Transmit {
        let segment = transmit.segment_bytes.unwrap_or(transmit.bytes).max(1);
        self.stats.sent_datagrams += transmit.bytes.div_ceil(segment) as u64;
        self.stats.sent_bytes += transmit.bytes as u64;
        transmit
    }

    fn instant(&self, now: Nanos) -> Instant {
        self.config.epoch.instant + Duration::from_nanos(now)
    }
}

fn transmit(sent: &Sent) -> Transmit {
    Transmit {
        to: sent.destination,
        local_ip: sent.src_ip,
        ecn: sent.ecn.map_or(0, |ecn| ecn as u8),
        segment_bytes: sent.segment_size,
        bytes: sent.size,
    }
}
