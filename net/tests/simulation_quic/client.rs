//! A socket of clients: connections of quinn that share an address, and what each asks over HTTP/3.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;
use forebay_net::request::Nanos;
use forebay_net::ring::fake::Dice;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, Event, StreamEvent, StreamId,
    VarInt,
};

use crate::book::Book;
use crate::network::{Network, Packet};
use crate::talk::Oracle;
use crate::{terms, wire};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Leaves when it has all answers.
    Polite,
    /// Keeps its connection until it is told to go.
    Stays,
    /// Gives up some of its requests, on either side.
    Fickle,
    /// Leaves in the middle.
    Leaves,
    /// Says no more from some moment on, and reads nothing.
    Vanishes,
}

pub(crate) struct Socket {
    pub(crate) address: SocketAddr,
    endpoint: Endpoint,
    visits: BTreeMap<usize, Visit>,
    dice: Dice,
}

/// One connection.
pub(crate) struct Visit {
    number: usize,
    quic: quinn_proto::Connection,
    handle: ConnectionHandle,
    manner: Manner,
    asks: Vec<Ask>,
    left: u64,
    /// Events until the misdeed, for who is up to one.
    fuse: u64,
    has_greeted: bool,
    /// The connection ended: why.
    lost: Option<String>,
    is_silent: bool,
}

struct Ask {
    id: u64,
    stream: StreamId,
    unsent: Vec<u8>,
    got: Vec<u8>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// The server said that it did not take it.
    Rejected,
    /// Given up by either side.
    GivenUp,
}

impl Socket {
    /// `number` is that of its first connection.
    pub(crate) fn drawn(
        address: SocketAddr,
        server: SocketAddr,
        number: usize,
        now: Nanos,
        mut dice: Dice,
    ) -> Socket {
        let config = terms::client_endpoint(&mut dice);
        let seed = terms::seed(&mut dice);
        let endpoint = Endpoint::new(config.into(), None, true, Some(seed));
        let mut socket = Socket { address, endpoint, visits: BTreeMap::new(), dice };
        for nth in 0..1 + socket.dice.below(3) as usize {
            let config = terms::client(&mut socket.dice);
            let (handle, quic) = socket
                .endpoint
                .connect(terms::instant(now), config, server, terms::NAME)
                .expect("the address is one");
            let dice = &mut socket.dice;
            let manner = match dice.below(12) {
                0 => Manner::Leaves,
                1 => Manner::Vanishes,
                2 | 3 => Manner::Fickle,
                4 => Manner::Stays,
                _ => Manner::Polite,
            };
            let visit = Visit {
                number: number + nth,
                quic,
                handle,
                manner,
                asks: Vec::new(),
                left: 1 + dice.below(12),
                fuse: 1 + dice.below(60),
                has_greeted: false,
                lost: None,
                is_silent: false,
            };
            socket.visits.insert(handle.0, visit);
        }
        socket
    }

    pub(crate) fn connections(&self) -> usize {
        self.visits.len()
    }

    pub(crate) fn receive(&mut self, now: Nanos, packet: Packet) {
        let mut reply = Vec::new();
        let handled = self.endpoint.handle(
            terms::instant(now),
            packet.from,
            None,
            EcnCodepoint::from_bits(packet.ecn),
            BytesMut::from(&packet.bytes[..]),
            &mut reply,
        );
        if let Some(DatagramEvent::ConnectionEvent(handle, event)) = handled
            && let Some(visit) = self.visits.get_mut(&handle.0)
            && !visit.is_silent
        {
            visit.quic.handle_event(event);
        }
    }

    /// Lets all its connections do what they have to.
    pub(crate) fn act(&mut self, now: Nanos, book: &mut Book, network: &mut Network) {
        let at = terms::instant(now);
        for visit in self.visits.values_mut().filter(|visit| !visit.is_silent) {
            if visit.quic.poll_timeout().is_some_and(|due| due <= at) {
                visit.quic.handle_timeout(at);
            }
            while let Some(event) = visit.quic.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(visit.handle, event) {
                    visit.quic.handle_event(event);
                }
            }
            visit.take_events(now, book, &mut self.dice);
            visit.go_on(now, book, &mut self.dice);
            let mut buffer = Vec::new();
            while let Some(sent) = visit.quic.poll_transmit(at, 4, &mut buffer) {
                for bytes in buffer.chunks(sent.segment_size.unwrap_or(sent.size)) {
                    let ecn = sent.ecn.map_or(0, |ecn| ecn as u8);
                    let (from, to, bytes) = (self.address, sent.destination, bytes.to_vec());
                    network.send(now, Packet { from, to, ecn, bytes });
                }
                buffer.clear();
            }
        }
    }

    pub(crate) fn next_at(&mut self) -> Option<Nanos> {
        let visits = self.visits.values_mut().filter(|visit| !visit.is_silent);
        visits.filter_map(|visit| visit.quic.poll_timeout()).min().map(terms::nanos)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.visits.values().all(|visit| visit.lost.is_some() || visit.is_silent)
    }

    /// Every request has its answer, or it is known why not.
    pub(crate) fn assert_content(&self) {
        for visit in self.visits.values() {
            let open = visit.asks.iter().filter(|ask| ask.end.is_none()).count();
            let is_excused = match visit.manner {
                Manner::Leaves | Manner::Vanishes => true,
                _ => visit.lost.as_ref().is_some_and(|why| why != "content"),
            };
            assert!(open == 0 || is_excused, "{} has {open} open: {:?}", visit.number, visit.lost);
        }
    }

    /// Why its connections ended.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &str> {
        self.visits.values().filter_map(|visit| visit.lost.as_deref())
    }
}

impl Visit {
    fn take_events(&mut self, now: Nanos, book: &mut Book, dice: &mut Dice) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.greet(dice),
                Event::ConnectionLost { reason } => {
                    self.lost.get_or_insert(reason.to_string());
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id, book),
                Event::Stream(StreamEvent::Opened { dir }) => {
                    while let Some(id) = self.quic.streams().accept(dir) {
                        self.read(id, book);
                    }
                }
                Event::Stream(StreamEvent::Stopped { id, .. }) => {
                    // The answer is complete without the rest of the request, or comes as a reset.
                    let _ = self.quic.send_stream(id).reset(VarInt::from_u32(0x100));
                    if let Some(ask) = self.asks.iter_mut().find(|ask| ask.stream == id) {
                        ask.unsent.clear();
                    }
                }
                _ => {}
            }
            self.fuse = self.fuse.saturating_sub(1);
            if self.fuse == 0 {
                self.misbehave(now, dice);
            }
        }
    }

    fn greet(&mut self, dice: &mut Dice) {
        self.has_greeted = true;
        let mut kinds = vec![wire::control()];
        if dice.of_1000(500) {
            kinds.extend([vec![0x02, 0x20], vec![0x03], b"\x40\x21unknown".to_vec()]);
        }
        for bytes in kinds {
            // The server may have closed the connection by now.
            let Some(id) = self.quic.streams().open(Dir::Uni) else {
                return assert!(self.quic.is_closed(), "three at least are allowed");
            };
            let written = self.quic.send_stream(id).write(&bytes);
            assert_eq!(written, Ok(bytes.len()));
        }
    }

    fn misbehave(&mut self, now: Nanos, dice: &mut Dice) {
        match self.manner {
            Manner::Leaves => {
                self.quic.close(terms::instant(now), VarInt::from_u32(0x100), "bye".into());
                self.lost.get_or_insert("left".into());
            }
            Manner::Vanishes => self.is_silent = true,
            Manner::Fickle => {
                self.fuse = 1 + dice.below(30);
                let open = self.asks.iter_mut().filter(|ask| ask.end.is_none());
                if let Some(ask) = open.last() {
                    ask.end = Some(End::GivenUp);
                    ask.unsent.clear();
                    let code = VarInt::from_u32(0x10c);
                    let only_one_side = dice.below(3);
                    if only_one_side != 0 {
                        let _ = self.quic.recv_stream(ask.stream).stop(code);
                    }
                    if only_one_side != 1 {
                        let _ = self.quic.send_stream(ask.stream).reset(code);
                    }
                }
            }
            Manner::Polite | Manner::Stays => {}
        }
    }

    /// Asks what it still wants to know, writes what has room, and leaves when it is content.
    fn go_on(&mut self, now: Nanos, book: &mut Book, dice: &mut Dice) {
        if !self.has_greeted || self.lost.is_some() {
            return;
        }
        while self.left > 0
            && let Some(stream) = self.quic.streams().open(Dir::Bi)
        {
            self.left -= 1;
            let made = book.make(self.number, 0, dice);
            let pieces: Vec<usize> =
                (0..dice.below(3)).map(|_| dice.below(2_000) as usize).collect();
            let unsent = wire::request(&made, dice.of_1000(600), &pieces);
            self.asks.push(Ask { id: made.id, stream, unsent, got: Vec::new(), end: None });
        }
        for ask in &mut self.asks {
            if ask.unsent.is_empty() {
                continue;
            }
            let Ok(bytes) = self.quic.send_stream(ask.stream).write(&ask.unsent) else {
                continue;
            };
            ask.unsent.drain(..bytes);
            if ask.unsent.is_empty() {
                let _ = self.quic.send_stream(ask.stream).finish();
            }
        }
        let is_content = self.left == 0 && self.asks.iter().all(|ask| ask.end.is_some());
        if is_content && self.manner != Manner::Stays {
            self.quic.close(terms::instant(now), VarInt::from_u32(0x100), "content".into());
            self.lost = Some("content".into());
        }
    }

    fn read(&mut self, id: StreamId, book: &mut Book) {
        let ask = self.asks.iter_mut().find(|ask| ask.stream == id);
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return;
        };
        let mut read = Vec::new();
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk.bytes),
                Ok(None) => break Some(End::Answered),
                Err(quinn_proto::ReadError::Reset(code)) => {
                    let was_rejected = code == VarInt::from_u32(0x10b);
                    break Some(if was_rejected { End::Rejected } else { End::GivenUp });
                }
                Err(quinn_proto::ReadError::Blocked) => break None,
            }
        };
        let _ = chunks.finalize();
        // Streams that the server opened, and answers that nobody waits for any more.
        let Some(ask) = ask.filter(|ask| ask.end.is_none()) else {
            return;
        };
        ask.got.extend_from_slice(&read);
        ask.end = end;
        if end == Some(End::Answered) {
            book.answer(ask.id, &wire::answer(&ask.got));
        }
    }
}
