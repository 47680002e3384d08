//! One TLS connection: records in, plaintext out, and the other way round.
//!
//! Ciphertext is decrypted where it lies, in the buffer that it was received into. Only a record
//! that is cut off is kept, until its end has come: then what follows it is read in place again.
//! All that is due to the peer waits in one buffer until it is taken.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CertificateError, Error, HandshakeKind, ServerConfig, SupportedCipherSuite};

use super::peer::PeerIdentity;

const RECORD_HEAD_BYTES: usize = 5;
/// What a record may take that TLS 1.2 allows.
const RECORD_BYTES_MAX: usize = RECORD_HEAD_BYTES + (16 << 10) + 2048;
/// What may wait for the rest of a handshake message. The longest that anybody sends in earnest is
/// a client's certificate with its chain, a few KiB; rustls alone would wait for 64.
const PENDING_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;
/// With so much of a record here, its end is worth the memory: nobody gets it for a promise.
const PROOF_BYTES: usize = 1 << 10;
const PLAINTEXT_BYTES_MAX: usize = 16 << 10;
/// What a record adds to its plaintext, at most.
const RECORD_EXTRA_BYTES: usize = 40;
/// An alert, as a record.
const GOODBYE_BYTES: usize = 64;

pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message, whose rest has not come.
    pending: Vec<u8>,
    /// Records for the peer.
    output: Vec<u8>,
    has_spoken: bool,
    is_open: bool,
    is_broken: bool,
    /// The peer said that no more comes: what still does is not looked at.
    is_finished: bool,
    has_said_goodbye: bool,
    sealed_records: u64,
}

/// What comes out of a session.
pub(crate) enum Event<'a> {
    /// The handshake has ended well.
    Opened(Opened),
    Plaintext(&'a [u8]),
    /// The peer said that it will send no more.
    Finished,
}

pub(crate) struct Opened {
    pub(crate) is_resumed: bool,
    pub(crate) alpn: Option<Alpn>,
    pub(crate) peer: Option<Arc<PeerIdentity>>,
}

/// What the peer chose to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http1,
    Http2,
}

impl Session {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Session, Error> {
        Ok(Session {
            tls: UnbufferedServerConnection::new(config)?,
            pending: Vec::new(),
            output: Vec::new(),
            has_spoken: false,
            is_open: false,
            is_broken: false,
            is_finished: false,
            has_said_goodbye: false,
            sealed_records: 0,
        })
    }

    /// Takes ciphertext, and says what came of it. After an error the session only has its alert
    /// to give, if it has one.
    pub(crate) fn open(
        &mut self,
        mut input: &mut [u8],
        mut on: impl FnMut(Event<'_>),
    ) -> Result<(), Error> {
        if self.is_finished || self.is_broken {
            return Ok(());
        }
        while !self.pending.is_empty() && !input.is_empty() {
            let taken = self.missing().min(input.len());
            let (head, rest) = input.split_at_mut(taken);
            self.pending.extend_from_slice(head);
            input = rest;
            let mut pending = mem::take(&mut self.pending);
            let taken = self.advance(&mut pending, &mut on)?;
            if taken < pending.len() {
                pending.drain(..taken);
                self.pending = pending;
            }
        }
        if !input.is_empty() {
            let taken = self.advance(input, &mut on)?;
            self.keep(&input[taken..]);
        }
        if self.is_finished {
            self.pending = Vec::new();
        }
        match self.pending.len() > PENDING_BYTES_MAX {
            true => {
                self.is_broken = true;
                Err(Error::General("a handshake message is too long".to_owned()))
            }
            false => Ok(()),
        }
    }

    /// Seals `plaintext` behind what is due already, and takes all of it. `goodbye`: nothing will
    /// follow, and the peer is told so.
    pub(crate) fn seal(&mut self, plaintext: &[u8], goodbye: bool) -> Result<Bytes, Error> {
        let goodbye = goodbye && !self.has_said_goodbye;
        if self.is_open && !self.is_broken && (goodbye || !plaintext.is_empty()) {
            self.has_said_goodbye |= goodbye;
            self.write(plaintext, goodbye)?;
        }
        Ok(Bytes::from(mem::take(&mut self.output)))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether it ever had something for the peer.
    pub(crate) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Half of what its keys may seal has been sealed, and TLS 1.2 has no way to new ones: with the
    /// last record rustls would end the connection in the middle of an answer.
    pub(crate) fn is_worn(&self) -> bool {
        match self.tls.negotiated_cipher_suite() {
            Some(SupportedCipherSuite::Tls12(suite)) => {
                self.sealed_records >= suite.common.confidentiality_limit / 2
            }
            _ => false,
        }
    }

    /// How much more has to come before it is worth while to look.
    fn missing(&self) -> usize {
        let Some([_, _, _, length @ ..]) = self.pending.first_chunk::<RECORD_HEAD_BYTES>() else {
            return RECORD_HEAD_BYTES - self.pending.len();
        };
        let record_bytes = RECORD_HEAD_BYTES + usize::from(u16::from_be_bytes(*length));
        // Behind its first record lie more of a handshake: then all that comes is of interest.
        match record_bytes.min(RECORD_BYTES_MAX).checked_sub(self.pending.len()) {
            Some(missing @ 1..) if self.is_open => missing,
            _ => usize::MAX,
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.pending.extend_from_slice(rest);
        if rest.len() >= PROOF_BYTES && self.is_open {
            self.pending.reserve_exact(self.missing().min(RECORD_BYTES_MAX));
        }
    }

    /// Takes what `input` begins with, and says how much that is.
    fn advance(
        &mut self,
        input: &mut [u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, Error> {
        let mut taken = 0;
        loop {
            let status = self.tls.process_tls_records(&mut input[taken..]);
            let UnbufferedStatus { mut discard, state, .. } = status;
            let mut waits = false;
            match state {
                // Who it is has to be said before what it says.
                Ok(ConnectionState::ReadTraffic(_)) if !self.is_open => {}
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        on(Event::Plaintext(record.payload));
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    self.has_spoken = true;
                    put(&mut self.output, data)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {
                    self.is_finished = true;
                    on(Event::Finished);
                }
                Ok(_) => waits = true,
                Err(error) => {
                    self.is_broken = true;
                    self.put_alert(&mut input[taken + discard..]);
                    return Err(error);
                }
            }
            taken += discard;
            if !self.is_open && !self.tls.is_handshaking() {
                let opened = self.opened().inspect_err(|_| self.is_broken = true)?;
                self.is_open = true;
                on(Event::Opened(opened));
            }
            if waits {
                return Ok(taken);
            }
        }
    }

    /// rustls has an alert for most errors, and gives it when it is asked again. Not once more:
    /// it would go on with the input that broke it.
    fn put_alert(&mut self, input: &mut [u8]) {
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) =
                self.tls.process_tls_records(input).state
            else {
                return;
            };
            if put(&mut self.output, data).is_err() {
                return;
            }
        }
    }

    /// A client that proved to be somebody, nobody knows whom, is not taken for nobody.
    fn opened(&self) -> Result<Opened, Error> {
        let certificate = self.tls.peer_certificates().and_then(<[_]>::first);
        let identity = |der| PeerIdentity::of(der).ok_or(CertificateError::BadEncoding);
        Ok(Opened {
            is_resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: match self.tls.alpn_protocol() {
                Some(b"h2") => Some(Alpn::Http2),
                Some(_) => Some(Alpn::Http1),
                None => None,
            },
            peer: certificate.map(|der| identity(der)).transpose()?.map(Arc::new),
        })
    }

    fn write(&mut self, plaintext: &[u8], goodbye: bool) -> Result<(), Error> {
        loop {
            // What is pending stays so: rustls remembers how far it has looked into it.
            match self.tls.process_tls_records(&mut self.pending).state? {
                ConnectionState::EncodeTlsData(data) => put(&mut self.output, data)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    self.sealed_records += plaintext.len().div_ceil(PLAINTEXT_BYTES_MAX) as u64;
                    encrypt(&mut self.output, &mut traffic, plaintext)?;
                    if goodbye {
                        append(&mut self.output, GOODBYE_BYTES, |out| {
                            traffic.queue_close_notify(out)
                        })?;
                    }
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }
}

fn put<Data>(output: &mut Vec<u8>, mut data: EncodeTlsData<'_, Data>) -> Result<(), Error> {
    let start = output.len();
    loop {
        match data.encode(&mut output[start..]) {
            Ok(written) => {
                output.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => {
                output.resize(start + size.required_size, 0)
            }
            Err(EncodeError::AlreadyEncoded) => {
                return Err(Error::General("a record was to be encoded twice".to_owned()));
            }
        }
    }
}

fn encrypt<Data>(
    output: &mut Vec<u8>,
    traffic: &mut WriteTraffic<'_, Data>,
    plaintext: &[u8],
) -> Result<(), Error> {
    if plaintext.is_empty() {
        return Ok(());
    }
    let records = plaintext.len().div_ceil(PLAINTEXT_BYTES_MAX);
    let bytes = plaintext.len() + records * RECORD_EXTRA_BYTES;
    append(output, bytes, |out| traffic.encrypt(plaintext, out))
}

/// Appends what `write` writes, which is expected to take `bytes`.
fn append(
    output: &mut Vec<u8>,
    bytes: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    let start = output.len();
    output.resize(start + bytes, 0);
    loop {
        match write(&mut output[start..]) {
            Ok(written) => {
                output.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) => {
                output.resize(start + size.required_size, 0);
            }
            Err(EncryptError::EncryptExhausted) => {
                output.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}
