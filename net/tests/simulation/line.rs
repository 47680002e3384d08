//! A customer's line to the server with TLS on it. What the network has no room for waits here,
//! and leaves with the next look at the line.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use forebay_net::ring::fake::{Client, LineEnd};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use crate::customer::Line;

pub(crate) struct Sealed(RefCell<Parts>);

struct Parts {
    client: Client,
    tls: ClientConnection,
    waiting: Vec<u8>,
    finishes: bool,
    has_moved: bool,
    /// The server broke the protocol, or said that we did.
    is_broken: bool,
}

impl Sealed {
    pub(crate) fn new(client: Client, config: &Arc<ClientConfig>) -> Sealed {
        let name = ServerName::try_from("localhost").expect("a proper name");
        let tls = ClientConnection::new(config.clone(), name).expect("a proper configuration");
        let (waiting, finishes, has_moved, is_broken) = (Vec::new(), false, false, false);
        Sealed(RefCell::new(Parts { client, tls, waiting, finishes, has_moved, is_broken }))
    }
}

impl Line for Sealed {
    fn read(&self, bytes_max: usize) -> Bytes {
        self.0.borrow_mut().read(bytes_max).into()
    }

    fn write(&self, bytes: &[u8]) -> usize {
        self.0.borrow_mut().write(bytes)
    }

    fn write_raw(&self, bytes: &[u8]) {
        self.0.borrow().client.write(bytes);
    }

    fn end(&self) -> Option<LineEnd> {
        self.0.borrow().client.end()
    }

    fn finish(&self) {
        self.0.borrow_mut().finish();
    }

    fn reset(&self) {
        self.0.borrow().client.reset();
    }

    fn is_flushed(&self) -> bool {
        self.0.borrow().waiting.is_empty()
    }

    fn has_moved(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().has_moved)
    }
}

impl Parts {
    /// All that there is to a read of so many sealed bytes: what is left would hide the end.
    fn read(&mut self, bytes_max: usize) -> Vec<u8> {
        self.push();
        let sealed = self.client.read(bytes_max);
        self.has_moved |= !sealed.is_empty();
        let (mut rest, mut plain) = (&sealed[..], Vec::new());
        while !rest.is_empty() && !self.is_broken {
            self.tls.read_tls(&mut rest).expect("a slice can be read");
            self.is_broken = self.tls.process_new_packets().is_err();
            // The end without a goodbye is an error, and there may be no more yet.
            let _ = self.tls.reader().read_to_end(&mut plain);
        }
        self.push();
        plain
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.push();
        if self.tls.is_handshaking() || !self.waiting.is_empty() || self.is_broken {
            return 0;
        }
        self.tls.writer().write_all(bytes).expect("it fits");
        self.push();
        bytes.len()
    }

    fn finish(&mut self) {
        self.tls.send_close_notify();
        self.finishes = true;
        self.push();
    }

    fn push(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.waiting).expect("a vector takes all");
        }
        let written = self.client.write(&self.waiting);
        self.waiting.drain(..written);
        self.has_moved |= written > 0;
        if self.finishes && self.waiting.is_empty() {
            self.finishes = false;
            self.client.finish();
        }
    }
}
