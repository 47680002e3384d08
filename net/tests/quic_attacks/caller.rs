//! A client by quinn that says over its streams whatever a test wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;
use forebay_net::request::Nanos;
use forebay_net::ring::fake::Dice;
use quinn_proto::{
    ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ReadError, Side,
    StreamEvent, StreamId, VarInt,
};

use crate::stage::SERVER;
use crate::talk::Made;
use crate::{terms, wire};

pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    pub(crate) quic: quinn_proto::Connection,
    pub(crate) lost: Option<ConnectionError>,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    is_open: bool,
    heard: BTreeMap<StreamId, Heard>,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ends: bool,
    reset: Option<u64>,
    stopped: Option<u64>,
}

impl Caller {
    pub(crate) fn new(address: SocketAddr, seed: u64, now: Nanos) -> Caller {
        let mut dice = Dice::new(seed);
        let config = terms::client_endpoint(&mut dice);
        let mut endpoint = Endpoint::new(config.into(), None, true, Some(terms::seed(&mut dice)));
        let config = terms::client(&mut dice);
        let (handle, quic) = endpoint
            .connect(terms::instant(now), config, SERVER.into(), terms::NAME)
            .expect("the address is one");
        let heard = BTreeMap::new();
        Caller { address, quic, lost: None, endpoint, handle, is_open: false, heard }
    }

    /// Its handshake is done and nobody has ended it.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open && self.lost.is_none()
    }

    pub(crate) fn send(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        let at = terms::instant(now);
        if self.quic.poll_timeout().is_some_and(|due| due <= at) {
            self.quic.handle_timeout(at);
            self.take_events();
        }
        let mut datagrams = Vec::new();
        let mut buffer = Vec::new();
        while self.quic.poll_transmit(at, 1, &mut buffer).is_some() {
            datagrams.push(std::mem::take(&mut buffer));
        }
        datagrams
    }

    pub(crate) fn receive(&mut self, now: Nanos, bytes: &[u8]) {
        let (at, bytes) = (terms::instant(now), BytesMut::from(bytes));
        let mut reply = Vec::new();
        let event = self.endpoint.handle(at, SERVER.into(), None, None, bytes, &mut reply);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.quic.handle_event(event);
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.is_open = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                Event::Stream(StreamEvent::Opened { dir }) => {
                    while let Some(id) = self.quic.streams().accept(dir) {
                        self.read(id);
                    }
                }
                Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    let heard = self.heard.entry(id).or_default();
                    heard.stopped = Some(error_code.into_inner());
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, id: StreamId) {
        let heard = self.heard.entry(id).or_default();
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => heard.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) => break heard.ends = true,
                Err(ReadError::Reset(code)) => break heard.reset = Some(code.into_inner()),
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize();
    }

    /// A new stream with these bytes in it; `None`: the server allows no more of them for now.
    pub(crate) fn open(&mut self, dir: Dir, bytes: &[u8], ends: bool) -> Option<StreamId> {
        let id = self.quic.streams().open(dir)?;
        self.write(id, bytes, ends);
        Some(id)
    }

    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8], ends: bool) {
        if !bytes.is_empty() {
            assert_eq!(self.quic.send_stream(id).write(bytes), Ok(bytes.len()), "there is room");
        }
        if ends {
            self.quic.send_stream(id).finish().expect("it is open");
        }
    }

    pub(crate) fn reset(&mut self, id: StreamId) {
        // Else it is over already.
        let _ = self.quic.send_stream(id).reset(VarInt::from_u32(0x10c));
    }

    pub(crate) fn stop(&mut self, id: StreamId) {
        let _ = self.quic.recv_stream(id).stop(VarInt::from_u32(0x10c));
    }

    /// A whole request with this body.
    pub(crate) fn ask(&mut self, body: &[u8]) -> StreamId {
        self.open(Dir::Bi, &request(body), true).expect("there is room for a request")
    }

    /// The status and body of a whole answer.
    pub(crate) fn answer(&self, id: StreamId) -> Option<(u16, Vec<u8>)> {
        let heard = self.heard.get(&id).filter(|heard| heard.ends)?;
        let got = wire::answer(&heard.bytes);
        Some((got.status, got.body))
    }

    /// With which code the server reset its side of a stream.
    pub(crate) fn reset_code(&self, id: StreamId) -> Option<u64> {
        self.heard.get(&id)?.reset
    }

    /// With which code the server asked for no more of a stream.
    pub(crate) fn stop_code(&self, id: StreamId) -> Option<u64> {
        self.heard.get(&id)?.stopped
    }

    /// The streams that the server's GOAWAYs named.
    pub(crate) fn goaways(&self) -> Vec<u64> {
        let control = StreamId::new(Side::Server, Dir::Uni, 0);
        let mut rest = self.heard.get(&control).map_or(&[][..], |heard| heard.bytes.as_slice());
        let mut goaways = Vec::new();
        assert!(rest.is_empty() || wire::number(&mut rest) == 0, "its control stream");
        while !rest.is_empty() {
            let (kind, length) = (wire::number(&mut rest), wire::number(&mut rest) as usize);
            let (mut payload, behind) = rest.split_at(length);
            if kind == 0x07 {
                goaways.push(wire::number(&mut payload));
            }
            rest = behind;
        }
        goaways
    }

    /// With which code of HTTP/3 the server ended the connection.
    pub(crate) fn close_code(&self) -> Option<u64> {
        match &self.lost {
            Some(ConnectionError::ApplicationClosed(close)) => Some(close.error_code.into_inner()),
            _ => None,
        }
    }
}

/// The bytes of a request's stream.
pub(crate) fn request(body: &[u8]) -> Vec<u8> {
    let made = Made { id: 1, path: "/r/1".into(), headers: vec![], body: body.to_vec() };
    wire::request(&made, false, &[])
}
