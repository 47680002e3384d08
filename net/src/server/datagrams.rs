//! QUIC on a receiver core: datagrams of the ring in, requests out, and the datagrams that QUIC
//! wants sent back to the ring. One socket, shared with the other cores by its port.
//!
//! Always
//! - What another core's connection is owed goes to that core, and what it received of ours comes
//!   here ([`Crossing`]); this core does not sleep while any of it waits.
//! - QUIC is asked for no more than the ring has room for: what has none stays with its
//!   connection, which its own windows bound.
//! - What peers leave unfinished holds only so many of the ring's buffers ([`Ring::lend`]), and
//!   beyond that copies of what came.
//! - A failed send is a lost datagram, which QUIC repairs; a failed receive is tried again later.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;

use super::{ACCEPT_RETRY, Server, extras};
use crate::datagrams::{Crossing, CrossingStats, Datagram, WAITING_MAX};
use crate::quic::{ARRIVAL_BYTES_MAX, Config, Path, Quic, QuicStats, Stranger, Tls};
use crate::request::{Answer, Door, Nanos, Request, RequestId};
use crate::ring::datagrams::{Departure, SENDS_MAX};
use crate::ring::{Chunk, End, Ring};
use crate::tls::Acceptor;

/// Datagrams that share a copy, of those that came together. It saves half of the allocations;
/// with more, one byte behind a gap would hold more memory than QUIC's windows know of.
const SEGMENTS_TOGETHER: usize = 2;

/// What a server needs to serve QUIC.
pub struct QuicListener<S> {
    /// One of a group: its place there is the core's index in `config`.
    pub socket: S,
    pub config: Config,
    /// What it has at any time is what new connections get; `config` has the first of it.
    pub acceptor: Arc<Acceptor>,
    pub crossing: Arc<Crossing>,
    /// Of [`Quic::limit_windows`].
    pub windows_bytes_max: usize,
}

/// Counters since the start, and gauges.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatagramStats {
    pub quic: QuicStats,
    /// What other cores handed to this one.
    pub crossing: CrossingStats,
    pub receive_errors: u64,
    /// Those of probes for a longer packet among them.
    pub send_errors: u64,
}

/// A core's QUIC, and its way to the network.
pub(super) struct Datagrams {
    quic: Quic,
    pub(super) listener: u16,
    socket: u16,
    core: usize,
    crossing: Arc<Crossing>,
    acceptor: Arc<Acceptor>,
    /// What the acceptor had when it was last looked at.
    terms: Arc<ServerConfig>,
    /// Empty between sends.
    train: Vec<u8>,
    receive_again_at: Option<Nanos>,
    receive_errors: u64,
    send_errors: u64,
}

impl<R: Ring> Server<R> {
    /// Serves QUIC from now on, beside what it serves already.
    ///
    /// # Errors
    /// The ring has no memory for what datagrams are received into.
    pub fn open_quic(&mut self, listener: QuicListener<R::Socket>) -> io::Result<()> {
        let QuicListener { socket, config, acceptor, crossing, windows_bytes_max } = listener;
        let socket = self.ring.open_datagrams(socket)?;
        self.ring.receive_datagrams(socket);
        let core = config.core.index;
        crossing.join(core, self.ring.wake());
        let listener = config.listener;
        let mut quic = Quic::new(config);
        quic.limit_windows(windows_bytes_max);
        self.datagrams = Some(Box::new(Datagrams {
            listener,
            quic,
            socket,
            core,
            crossing,
            terms: acceptor.config(),
            acceptor,
            train: Vec::new(),
            receive_again_at: None,
            receive_errors: 0,
            send_errors: 0,
        }));
        Ok(())
    }

    /// Ends all connections of QUIC at once, and tells their peers.
    pub fn close_quic(&mut self, now: Nanos, door: &mut dyn Door, requests: &mut Vec<Request>) {
        self.with_quic(door, requests, |quic, door, requests| {
            quic.close(now, door, requests);
            quic.poll(now, door, requests);
        });
        self.send_datagrams(now);
    }

    /// Whether the kernel still has datagrams to send.
    pub fn is_sending_datagrams(&self) -> bool {
        let socket = self.datagrams.as_ref().map(|datagrams| datagrams.socket);
        socket.is_some_and(|socket| self.ring.datagram_room(socket) < SENDS_MAX)
    }

    pub(super) fn datagrams_came(&mut self, chunk: Chunk, now: Nanos) {
        let Some(datagrams) = &mut self.datagrams else {
            return self.ring.give_back(chunk);
        };
        datagrams.renew_terms();
        let arrival = self.ring.arrival(&chunk);
        let (from, local_ip) = (arrival.source, arrival.local);
        let path = Path { from, local_ip, ecn: arrival.ecn };
        // Of what comes on an established connection hardly anything is left after this turn, but
        // a handshake may wait for some.
        let lent = match is_short(self.ring.bytes(&chunk)) {
            true => self.ring.lend(chunk),
            false => Err(chunk),
        };
        match lent {
            Ok(lent) => datagrams.take(now, path, arrival.segment_bytes, lent),
            Err(chunk) => {
                let together = match arrival.segment_bytes > ARRIVAL_BYTES_MAX.into() {
                    // None is taken but maybe the last, which keeps nothing of the others.
                    true => arrival.segment_bytes,
                    false => SEGMENTS_TOGETHER * arrival.segment_bytes,
                };
                for some in self.ring.bytes(&chunk).chunks(together) {
                    datagrams.take(now, path, arrival.segment_bytes, BytesMut::from(some));
                }
                self.ring.give_back(chunk);
            }
        }
    }

    pub(super) fn datagrams_ended(&mut self, end: &End, now: Nanos) {
        let Some(datagrams) = &mut self.datagrams else {
            return;
        };
        let End::Failed(error) = end else {
            return self.ring.receive_datagrams(datagrams.socket);
        };
        if datagrams.receive_errors == 0 {
            tracing::error!(
                %error,
                "Receiving datagrams failed: HTTP/3 clients of this core wait. It is tried again \
                 by itself; the next failures are only counted"
            );
        }
        datagrams.receive_errors += 1;
        datagrams.receive_again_at = Some(now + ACCEPT_RETRY);
    }

    pub(super) fn datagrams_sent(&mut self, error: Option<&io::Error>) {
        if let (Some(datagrams), Some(error)) = (&mut self.datagrams, error) {
            tracing::debug!(%error, "datagrams were not sent");
            datagrams.send_errors += 1;
        }
    }

    /// Takes what other cores received for this one, and what all datagrams and time brought.
    pub(super) fn poll_quic(
        &mut self,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        let Some(datagrams) = &mut self.datagrams else {
            return;
        };
        if datagrams.receive_again_at.take_if(|at| *at <= now).is_some() {
            self.ring.receive_datagrams(datagrams.socket);
        }
        // Bounded: others may hand over more all the while.
        for _ in 0..WAITING_MAX {
            let Some(datagram) = datagrams.crossing.take(datagrams.core) else {
                break;
            };
            datagrams.renew_terms();
            datagrams.quic.handle_stranger(now, &arrived(datagram, datagrams.core));
        }
        self.with_quic(door, requests, |quic, door, requests| quic.poll(now, door, requests));
    }

    pub(super) fn answer_quic(
        &mut self,
        id: RequestId,
        answer: Answer,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        self.with_quic(door, requests, |quic, door, requests| {
            quic.answer(id, answer, now, door, requests);
        });
    }

    /// Gives the ring what QUIC has to send, as far as there is room.
    pub(super) fn send_datagrams(&mut self, now: Nanos) {
        let Some(datagrams) = &mut self.datagrams else {
            return;
        };
        let (socket, train) = (datagrams.socket, &mut datagrams.train);
        while self.ring.datagram_room(socket) > 0
            && let Some(transmit) = datagrams.quic.poll_transmit(now, train)
        {
            let departure = Departure {
                to: transmit.to,
                from: transmit.local_ip,
                ecn: transmit.ecn,
                segment_bytes: transmit.segment_bytes.unwrap_or(transmit.bytes),
                bytes: Bytes::copy_from_slice(&train[..transmit.bytes]),
            };
            self.ring.send_datagrams(socket, departure);
        }
    }

    pub(super) fn drain_quic(
        &mut self,
        now: Nanos,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
    ) {
        self.with_quic(door, requests, |quic, door, requests| quic.drain(now, door, requests));
    }

    pub(super) fn is_quic_busy(&self) -> bool {
        let is_busy = |datagrams: &Datagrams| datagrams.quic.is_busy();
        self.datagrams.as_deref().is_some_and(is_busy) || self.is_sending_datagrams()
    }

    /// When there is something to do if the ring brings nothing: at once if another core has.
    pub(super) fn quic_due(&self) -> Option<Nanos> {
        let datagrams = self.datagrams.as_deref()?;
        if datagrams.crossing.is_waiting(datagrams.core) {
            return Some(0);
        }
        [datagrams.quic.next_timeout(), datagrams.receive_again_at].into_iter().flatten().min()
    }

    pub(super) fn datagram_stats(&self) -> DatagramStats {
        self.datagrams.as_deref().map_or_else(DatagramStats::default, |datagrams| DatagramStats {
            quic: datagrams.quic.stats(),
            crossing: datagrams.crossing.stats(datagrams.core),
            receive_errors: datagrams.receive_errors,
            send_errors: datagrams.send_errors,
        })
    }

    fn with_quic(
        &mut self,
        door: &mut dyn Door,
        requests: &mut Vec<Request>,
        act: impl FnOnce(&mut Quic, &mut dyn Door, &mut Vec<Request>),
    ) {
        let Some(datagrams) = self.datagrams.as_deref_mut() else {
            return;
        };
        let (listener, first, mut porch) = (datagrams.listener, requests.len(), None);
        let extras = self.extras.as_deref();
        let door = extras::before(extras, listener, self.draining, door, &mut porch);
        act(&mut datagrams.quic, door, requests);
        extras::note(&mut self.extras, listener, &requests[first..]);
    }
}

impl Datagrams {
    /// Takes datagrams that are `segment_bytes` long each, the last one maybe less.
    fn take(&mut self, now: Nanos, path: Path, segment_bytes: usize, mut rest: BytesMut) {
        while !rest.is_empty() {
            let datagram = match rest.len() > segment_bytes {
                true => rest.split_to(segment_bytes),
                false => std::mem::take(&mut rest),
            };
            if let Some(stranger) = self.quic.handle_owned(now, path, datagram) {
                self.crossing.hand(stranger.core, on_its_way(stranger));
            }
        }
    }

    /// New certificates are for connections that begin from now on.
    fn renew_terms(&mut self) {
        if self.acceptor.has(&self.terms) {
            return;
        }
        let terms = self.acceptor.config();
        self.terms = terms.clone();
        match Tls::new(terms) {
            Ok(tls) => self.quic.set_tls(tls),
            Err(error) => tracing::error!(
                %error,
                "New terms of TLS can't be used for QUIC: the old ones stay in use for HTTP/3"
            ),
        }
    }
}

/// Whether a packet has the short header, which those have whose handshake is over.
fn is_short(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x80 == 0)
}

fn on_its_way(stranger: Stranger) -> Datagram {
    let Path { from, local_ip, ecn } = stranger.path;
    Datagram { source: from, local: local_ip, ecn, bytes: BytesMut::from(stranger.bytes) }
}

fn arrived(datagram: Datagram, core: usize) -> Stranger {
    let Datagram { source, local, ecn, bytes } = datagram;
    let path = Path { from: source, local_ip: local, ecn };
    Stranger { core, path, bytes: bytes.freeze() }
}
