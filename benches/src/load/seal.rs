//! TLS around a connection's client: plaintext in, ciphertext out, and the other way; no socket.
//!
//! Always: what the client said between two sends is encrypted at once, so that small requests
//! share a record.

use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

pub(super) struct Seal {
    session: ClientConnection,
    /// What was said and is not encrypted yet; during the handshake it waits.
    pub(super) plain: Vec<u8>,
    /// What came, decrypted: taken by whoever calls [`Seal::open`].
    opened: Vec<u8>,
    /// What the peer must have agreed on, where that matters.
    protocol: Option<&'static [u8]>,
}

impl Seal {
    pub(super) fn new(
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
        protocol: Option<&'static [u8]>,
    ) -> Result<Seal, String> {
        let mut session = ClientConnection::new(config.clone(), name.clone())
            .map_err(|error| format!("TLS: {error}"))?;
        // What is in flight is bounded by the load's own streams.
        session.set_buffer_limit(None);
        Ok(Seal { session, plain: Vec::new(), opened: Vec::new(), protocol })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Writes what the peer should get now.
    pub(super) fn put(&mut self, out: &mut Vec<u8>) {
        if !self.session.is_handshaking() && !self.plain.is_empty() {
            self.session.writer().write_all(&self.plain).expect("the buffer has no limit");
            self.plain.clear();
        }
        while self.session.wants_write() {
            self.session.write_tls(out).expect("a vector takes everything");
        }
    }

    /// Decrypts what came. An error ends the connection.
    pub(super) fn open(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut opened = std::mem::take(&mut self.opened);
        let was_handshaking = self.session.is_handshaking();
        while !bytes.is_empty() {
            self.session.read_tls(&mut bytes).map_err(|error| format!("TLS: {error}"))?;
            self.session.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            let mut reader = self.session.reader();
            while let Ok(plain) = reader.fill_buf()
                && !plain.is_empty()
            {
                opened.extend_from_slice(plain);
                let count = plain.len();
                reader.consume(count);
            }
        }
        if was_handshaking && !self.session.is_handshaking() {
            self.check_protocol()?;
        }
        Ok(opened)
    }

    /// Gives [`Seal::open`]'s memory back.
    pub(super) fn give_back(&mut self, mut opened: Vec<u8>) {
        opened.clear();
        self.opened = opened;
    }

    fn check_protocol(&self) -> Result<(), String> {
        match (self.protocol, self.session.alpn_protocol()) {
            (Some(wanted), agreed) if agreed != Some(wanted) => Err(format!(
                "TLS: the server does not agree on {}",
                String::from_utf8_lossy(wanted)
            )),
            _ => Ok(()),
        }
    }
}
