//! QUIC packets made by hand, with the keys of a real handshake: what no library would send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, DirectionalKeys, KeyChange, Keys, Secrets, Version};
use rustls::{ClientConfig, Side, SignatureScheme};

use crate::blind::Blind;
use crate::stage::Stage;
use crate::terms;

/// What a client's first datagrams are at least (RFC 9000, 14.1).
pub(crate) const INITIAL_BYTES_MIN: usize = 1_200;
/// So many bytes of frames make a first packet long enough.
pub(crate) const INITIAL_FRAMES_BYTES: usize = 1_160;
/// The client's own connection ID, in all that is forged.
const ID: &[u8] = b"forger!!";
const NUMBER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;

static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| Arc::new(config(&[b"h3"])));

/// Where a packet's keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Initial,
    Handshake,
    Data,
}

/// A client that says whatever a test wants.
pub(crate) struct Forge {
    pub(crate) address: SocketAddr,
    /// The error by which the server ended the connection, and whether it is HTTP/3's.
    pub(crate) closed: Option<(u64, bool)>,
    /// The ID by which the server is spoken to.
    pub(crate) server_id: Vec<u8>,
    tls: ClientConnection,
    spaces: [State; 3],
    /// The latest space whose keys are there to write with.
    writes: usize,
    /// What TLS has to say, and in which space.
    unsaid: Vec<(usize, Vec<u8>)>,
    /// Of the keys that follow.
    next: Option<Secrets>,
    /// The bit that tells one generation of keys from the next.
    phase: u8,
    /// The server said that the handshake is done.
    pub(crate) is_confirmed: bool,
}

#[derive(Default)]
struct State {
    keys: Option<Keys>,
    next_number: u64,
    crypto_sent: u64,
    crypto_read: u64,
    crypto_early: BTreeMap<u64, Vec<u8>>,
    largest: Option<u64>,
    is_ack_due: bool,
}

impl Forge {
    pub(crate) fn new(address: SocketAddr) -> Forge {
        Forge::with(address, CONFIG.clone(), parameters())
    }

    /// With these protocols (ALPN) and transport parameters.
    pub(crate) fn with(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        parameters: Vec<u8>,
    ) -> Forge {
        let name = ServerName::try_from(terms::NAME).expect("a proper name");
        let tls = ClientConnection::new(config, Version::V1, name, parameters);
        // As every client's, another one each time.
        let mut server_id = address.to_string().into_bytes();
        server_id.truncate(20);
        let initial = State { keys: Some(initial_keys(&server_id)), ..State::default() };
        Forge {
            address,
            closed: None,
            server_id,
            tls: tls.expect("a proper configuration"),
            spaces: [initial, State::default(), State::default()],
            writes: 0,
            unsaid: Vec::new(),
            next: None,
            phase: 0,
            is_confirmed: false,
        }
    }

    /// A client whose handshake is done.
    pub(crate) fn established(stage: &mut Stage, address: SocketAddr) -> Forge {
        let mut forge = Forge::new(address);
        forge.shake_hands(stage);
        assert!(forge.is_confirmed, "{:?}", forge.closed);
        forge
    }

    /// Goes through the handshake as far as the server lets it.
    pub(crate) fn shake_hands(&mut self, stage: &mut Stage) {
        let mut datagrams = self.speak();
        for _ in 0..6 {
            for datagram in std::mem::take(&mut datagrams) {
                stage.deliver(self.address, &datagram);
            }
            self.hear(stage);
            datagrams = self.speak();
        }
    }

    /// Says hello and hears the answer, and says no more: the handshake's keys are there.
    pub(crate) fn begin(&mut self, stage: &mut Stage) {
        for datagram in self.speak() {
            stage.deliver(self.address, &datagram);
        }
        self.hear(stage);
        let unsaid = self.speak();
        assert!(self.writes > 0 && !unsaid.is_empty(), "{:?}", self.closed);
    }

    /// Sends frames in a packet of their own, and hears what comes of it.
    pub(crate) fn say(&mut self, stage: &mut Stage, space: Space, frames: &[u8]) {
        let packet = self.packet(space, 0, frames);
        stage.deliver(self.address, &packet);
        self.hear(stage);
    }

    /// Takes what the server has to send now. Returns how many bytes of it are for this address.
    pub(crate) fn hear(&mut self, stage: &mut Stage) -> usize {
        stage.now += terms::MILLI;
        let mut bytes = 0;
        for packet in stage.work() {
            if packet.to == self.address {
                bytes += packet.bytes.len();
                self.receive(&packet.bytes);
            }
        }
        bytes
    }

    /// From now on speaks with the next keys (RFC 9001, 6), and hears with them.
    pub(crate) fn update_keys(&mut self) {
        let next = self.next.as_mut().expect("the handshake is done").next_packet_keys();
        let keys = self.spaces[2].keys.as_mut().expect("the handshake is done");
        (keys.local.packet, keys.remote.packet) = (next.local, next.remote);
        self.phase ^= 0x04;
    }

    /// One packet with these frames. `bits` are set in its first byte.
    pub(crate) fn packet(&mut self, space: Space, bits: u8, frames: &[u8]) -> Vec<u8> {
        let state = &mut self.spaces[space as usize];
        let keys = state.keys.as_ref().expect("the handshake has come so far");
        let number = state.next_number;
        state.next_number += 1;
        let bits = if space == Space::Data { bits | self.phase } else { bits };
        seal(&keys.local, space, &self.server_id, number, bits, frames)
    }

    /// The hello, which is then for somebody else to send.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        self.advance();
        let (_, hello) = self.unsaid.pop().expect("a client begins");
        self.spaces[0].crypto_sent = hello.len() as u64;
        hello
    }

    /// What the handshake has to say next, and acknowledgements.
    fn speak(&mut self) -> Vec<Vec<u8>> {
        self.advance();
        let mut datagrams = Vec::new();
        for (at, crypto) in std::mem::take(&mut self.unsaid) {
            datagrams.push(self.spoken(at, &crypto));
        }
        for at in 0..self.spaces.len() {
            if self.spaces[at].is_ack_due {
                datagrams.push(self.spoken(at, &[]));
            }
        }
        datagrams
    }

    /// Lets TLS go on: it has something to say, or new keys.
    fn advance(&mut self) {
        loop {
            let (at, mut crypto) = (self.writes, Vec::new());
            let change = self.tls.write_hs(&mut crypto);
            if !crypto.is_empty() {
                self.unsaid.push((at, crypto));
            }
            let (at, keys) = match change {
                Some(KeyChange::Handshake { keys }) => (1, keys),
                Some(KeyChange::OneRtt { keys, next }) => {
                    self.next = Some(next);
                    (2, keys)
                }
                None => return,
            };
            self.spaces[at].keys = Some(keys);
            self.writes = at;
        }
    }

    fn spoken(&mut self, at: usize, crypto: &[u8]) -> Vec<u8> {
        let space = [Space::Initial, Space::Handshake, Space::Data][at];
        let state = &mut self.spaces[at];
        let mut frames = Vec::new();
        if let Some(largest) = state.largest.filter(|_| state.is_ack_due) {
            frames.push(0x02);
            [largest, 0, 0, 0].into_iter().for_each(|value| put(&mut frames, value));
        }
        state.is_ack_due = false;
        if !crypto.is_empty() {
            frames.extend(crypto_frame(state.crypto_sent, crypto));
            state.crypto_sent += crypto.len() as u64;
        }
        if space == Space::Initial {
            frames.resize(frames.len().max(INITIAL_FRAMES_BYTES), 0);
        }
        self.packet(space, 0, &frames)
    }

    /// Takes a datagram, packet by packet.
    pub(crate) fn receive(&mut self, datagram: &[u8]) {
        let mut rest = datagram.to_vec();
        while let Some(first) = rest.first().copied() {
            let Some((space, number_at, end)) = self.layout(first, &rest) else { return };
            let behind = rest.split_off(end);
            self.open(space, number_at, &mut rest);
            self.advance();
            rest = behind;
        }
    }

    /// The space of the first packet of a datagram, where its number is, and where it ends.
    fn layout(&mut self, first: u8, datagram: &[u8]) -> Option<(Space, usize, usize)> {
        if first & 0x80 == 0 {
            return Some((Space::Data, 1 + ID.len(), datagram.len()));
        }
        let mut rest = &datagram[5..];
        let mut id = || {
            let (id, behind) = rest[1..].split_at(usize::from(rest[0]));
            rest = behind;
            id.to_vec()
        };
        let (_, theirs) = (id(), id());
        self.server_id = theirs;
        let space = match first >> 4 & 3 {
            0 => Space::Initial,
            2 => Space::Handshake,
            _ => return None,
        };
        if space == Space::Initial {
            let token_bytes = number(&mut rest)? as usize;
            rest = &rest[token_bytes..];
        }
        let length = number(&mut rest)? as usize;
        let at = datagram.len() - rest.len();
        Some((space, at, at + length))
    }

    fn open(&mut self, space: Space, at: usize, packet: &mut [u8]) {
        let state = &mut self.spaces[space as usize];
        let Some(DirectionalKeys { header, packet: key }) =
            state.keys.as_ref().map(|keys| &keys.remote)
        else {
            return;
        };
        let sample = packet[at + 4..at + 4 + header.sample_len()].to_vec();
        let (first, rest) = packet.split_at_mut(1);
        let unmasked =
            header.decrypt_in_place(&sample, &mut first[0], &mut rest[at - 1..at - 1 + 4]);
        unmasked.expect("a sample is long enough");
        let bytes = usize::from(first[0] & 3) + 1;
        let field = &packet[at..at + bytes];
        let low = field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let number = nearest(state.largest.map_or(0, |largest| largest + 1), low, 8 * bytes as u32);
        let (head, payload) = packet.split_at_mut(at + bytes);
        let Ok(payload) = key.decrypt_in_place(number, head, payload) else { return };
        let payload = payload.to_vec();
        state.largest = Some(number.max(state.largest.unwrap_or(0)));
        state.is_ack_due = true;
        self.take_frames(space, &payload);
    }

    fn take_frames(&mut self, space: Space, payload: &[u8]) {
        let mut rest = payload;
        while !rest.is_empty() {
            let mut next = || number(&mut rest).expect("the server cuts no frame off");
            let kind = next();
            match kind {
                0x06 => {
                    let (offset, length) = (next(), next() as usize);
                    let (crypto, behind) = rest.split_at(length);
                    rest = behind;
                    self.take_crypto(space, offset, crypto);
                }
                0x1c | 0x1d => {
                    let code = next();
                    self.closed.get_or_insert((code, kind == 0x1d));
                    return;
                }
                0x1e => self.is_confirmed = true,
                _ => skip(kind, &mut rest),
            }
        }
    }

    fn take_crypto(&mut self, space: Space, offset: u64, crypto: &[u8]) {
        let state = &mut self.spaces[space as usize];
        state.crypto_early.insert(offset, crypto.to_vec());
        while let Some((offset, crypto)) = state.crypto_early.pop_first() {
            let known = state.crypto_read.saturating_sub(offset) as usize;
            if offset > state.crypto_read {
                state.crypto_early.insert(offset, crypto);
                return;
            }
            if let Some(new @ [_, ..]) = crypto.get(known..) {
                state.crypto_read += new.len() as u64;
                self.tls.read_hs(new).expect("the server keeps to TLS");
            }
        }
    }
}

/// A first datagram of so many bytes, with a hello that is the same for all of them.
pub(crate) fn spoofed(server_id: &[u8], bytes: usize) -> Vec<u8> {
    static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut hello = Vec::new();
        let mut forge = Forge::new(([10, 0, 0, 9], 9).into());
        assert!(forge.tls.write_hs(&mut hello).is_none(), "no keys before an answer");
        hello
    });
    let mut frames = crypto_frame(0, &HELLO);
    let overhead = 7 + server_id.len() + ID.len() + 1 + 2 + NUMBER_BYTES + TAG_BYTES;
    frames.resize(bytes - overhead, 0);
    let datagram = seal(&initial_keys(server_id).local, Space::Initial, server_id, 0, 0, &frames);
    assert_eq!(datagram.len(), bytes);
    datagram
}

/// Keys for first packets, which everybody can make who has seen one.
pub(crate) fn initial_keys(server_id: &[u8]) -> Keys {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    suite.expect("QUIC's own suite").keys(server_id, Side::Client, Version::V1)
}

pub(crate) fn seal(
    keys: &DirectionalKeys,
    space: Space,
    server_id: &[u8],
    number: u64,
    bits: u8,
    frames: &[u8],
) -> Vec<u8> {
    // As much as a sample of the sealed packet needs.
    let mut payload = frames.to_vec();
    if !payload.is_empty() {
        payload.resize(payload.len().max(4), 0);
    }
    let mut packet = Vec::new();
    match space {
        Space::Data => {
            packet.push(0x43 | bits);
            packet.extend_from_slice(server_id);
        }
        Space::Initial | Space::Handshake => {
            packet.push(if space == Space::Initial { 0xc3 } else { 0xe3 } | bits);
            packet.extend_from_slice(&[0, 0, 0, 1, server_id.len() as u8]);
            packet.extend_from_slice(server_id);
            packet.push(ID.len() as u8);
            packet.extend_from_slice(ID);
            if space == Space::Initial {
                packet.push(0);
            }
            let length = NUMBER_BYTES + payload.len() + TAG_BYTES;
            packet.extend_from_slice(&(0x4000 | length as u16).to_be_bytes());
        }
    }
    let at = packet.len();
    packet.extend_from_slice(&(number as u32).to_be_bytes());
    let tag = keys.packet.encrypt_in_place(number, &packet, &mut payload).expect("it fits");
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(tag.as_ref());
    let sample_at = at + NUMBER_BYTES;
    let sample = packet[sample_at..sample_at + keys.header.sample_len()].to_vec();
    let (first, rest) = packet.split_at_mut(1);
    let field = &mut rest[at - 1..at - 1 + NUMBER_BYTES];
    keys.header.encrypt_in_place(&sample, &mut first[0], field).expect("a sample of its length");
    packet
}

/// Usual transport parameters.
pub(crate) fn parameters() -> Vec<u8> {
    parameters_with(1 << 18)
}

/// With so much room for each answer.
pub(crate) fn parameters_with(window: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in [(0x04, 1 << 20), (0x05, window), (0x07, 1 << 18), (0x08, 0), (0x09, 8)] {
        put_parameter(&mut out, id, &varint(value));
    }
    put_parameter(&mut out, 0x0f, ID);
    out
}

pub(crate) fn put_parameter(out: &mut Vec<u8>, id: u64, value: &[u8]) {
    put(out, id);
    put(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A client's TLS that trusts everybody.
pub(crate) fn config(protocols: &[&[u8]]) -> ClientConfig {
    let mut provider = default_provider();
    // A hello that fits into one datagram.
    provider.kx_groups = vec![kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is known")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind(SignatureScheme::ED25519)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

pub(crate) fn crypto_frame(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x06];
    put(&mut frame, offset);
    put(&mut frame, bytes.len() as u64);
    frame.extend_from_slice(bytes);
    frame
}

/// A frame of nothing but numbers.
pub(crate) fn frame(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| varint(*number)).collect()
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&varint(value));
}

pub(crate) fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let bytes = 1 << (rest.first()? >> 6);
    let (field, behind) = rest.split_at_checked(bytes)?;
    *rest = behind;
    let first = u64::from(field[0] & 0x3f);
    Some(field[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte)))
}

/// The packet number nearest to `expected` that ends in these bits (RFC 9000, A.3).
fn nearest(expected: u64, low: u64, bits: u32) -> u64 {
    let window = 1_u64 << bits;
    let candidate = expected & !(window - 1) | low;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// A frame that says nothing to us (RFC 9000, 19).
fn skip(kind: u64, rest: &mut &[u8]) {
    let mut next = || number(rest).expect("the server cuts no frame off");
    let bytes = match kind {
        0x02 | 0x03 => {
            next();
            next();
            let ranges = next();
            let numbers = 1 + 2 * ranges + if kind == 0x03 { 3 } else { 0 };
            for _ in 0..numbers {
                next();
            }
            0
        }
        0x07 => next() as usize,
        0x08..=0x0f => {
            next();
            if kind & 0x04 != 0 {
                next();
            }
            if kind & 0x02 != 0 { next() as usize } else { rest.len() }
        }
        0x18 => {
            next();
            next();
            next() as usize + 16
        }
        0x1a | 0x1b => 8,
        0x04 | 0x05 | 0x11 | 0x15 | 0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => {
            let numbers = match kind {
                0x04 => 3,
                0x05 | 0x11 | 0x15 => 2,
                _ => 1,
            };
            for _ in 0..numbers {
                next();
            }
            0
        }
        _ => 0,
    };
    *rest = &rest[bytes..];
}
