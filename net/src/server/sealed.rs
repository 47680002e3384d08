//! The TLS of one connection: from its first byte, by which it shows that it is TLS, to its end.
//!
//! Holds nothing before the first byte. What comes out of the session goes to the connection's
//! protocol; what became of the handshake waits here until the server has counted it.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use rustls::Error;

use super::handshakes::Progress;
use crate::request::Nanos;
use crate::tls::peer::PeerIdentity;
use crate::tls::session::{Alpn, Event, Session};
use crate::tls::{Acceptor, Failure};

/// With what every record of a handshake begins, and no request in cleartext.
pub(super) const HANDSHAKE: u8 = 0x16;
const PLAINTEXT_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 65\r\nconnection: close\r\n\r\n\
    This port speaks TLS only: use https, or a client with TLS set up";

pub(super) struct Sealed {
    stage: Stage,
    handshake_timeout: Nanos,
    /// What became of the handshake, until it is counted.
    outcome: Option<Outcome>,
    /// It broke after its handshake, which is not counted yet.
    has_broken: bool,
    peer: Option<Arc<PeerIdentity>>,
    alpn: Option<Alpn>,
}

enum Stage {
    /// Nothing has come yet.
    Silent,
    Talking(Box<Session>),
    /// It came to nothing, and this is the last word.
    Over(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Opened { is_resumed: bool },
    Failed(Failure),
}

/// What is to be done with a session's output.
pub(super) enum Said<'a> {
    Plaintext(&'a [u8], Option<Alpn>, Option<&'a Arc<PeerIdentity>>),
    /// The peer will say no more.
    Finished,
}

impl Sealed {
    pub(super) fn new(acceptor: &Acceptor) -> Sealed {
        Sealed {
            stage: Stage::Silent,
            handshake_timeout: acceptor.handshake_timeout(),
            outcome: None,
            has_broken: false,
            peer: None,
            alpn: None,
        }
    }

    /// Takes what came, and says what came of it. An error: the connection is to end, once its
    /// output is sent. `has_room`: one more handshake may begin.
    pub(super) fn handle_input(
        &mut self,
        input: &mut [u8],
        acceptor: &Acceptor,
        has_room: bool,
        mut on: impl FnMut(Said<'_>),
    ) -> Result<(), ()> {
        if let Stage::Silent = self.stage {
            self.begin(input, acceptor, has_room)?;
        }
        let Stage::Talking(session) = &mut self.stage else {
            return Err(());
        };
        let Sealed { outcome, peer, alpn, .. } = self;
        let result = session.open(input, |event| match event {
            Event::Opened(opened) => {
                *outcome = Some(Outcome::Opened { is_resumed: opened.is_resumed });
                (*peer, *alpn) = (opened.peer, opened.alpn);
            }
            Event::Plaintext(bytes) => on(Said::Plaintext(bytes, *alpn, peer.as_ref())),
            Event::Finished => on(Said::Finished),
        });
        result.map_err(|error| self.fail(&error))
    }

    fn begin(&mut self, input: &[u8], acceptor: &Acceptor, has_room: bool) -> Result<(), ()> {
        if input.first() != Some(&HANDSHAKE) {
            self.outcome = Some(Outcome::Failed(Failure::Plaintext));
            let speaks_http = input.first().is_some_and(u8::is_ascii_uppercase);
            let answer = if speaks_http { PLAINTEXT_ANSWER } else { &[] };
            self.stage = Stage::Over(Bytes::from_static(answer));
            return Err(());
        }
        if !has_room {
            self.outcome = Some(Outcome::Failed(Failure::TooMany));
            self.stage = Stage::Over(Bytes::new());
            return Err(());
        }
        match Session::new(acceptor.config()) {
            Ok(session) => self.stage = Stage::Talking(Box::new(session)),
            Err(error) => {
                self.fail(&error);
                return Err(());
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &Error) {
        tracing::debug!(%error, "a TLS connection broke");
        let last = match &mut self.stage {
            Stage::Talking(session) => {
                match session.is_open() {
                    true => self.has_broken = true,
                    false => self.outcome = Some(Outcome::Failed(Failure::of(error))),
                }
                session.seal(&[], false).unwrap_or_default()
            }
            _ => Bytes::new(),
        };
        self.stage = Stage::Over(last);
    }

    /// Seals what is due, and takes it. `goodbye`: it is the last that leaves.
    pub(super) fn seal(&mut self, plaintext: &[u8], goodbye: bool) -> Result<Bytes, ()> {
        match &mut self.stage {
            Stage::Silent => Ok(Bytes::new()),
            Stage::Talking(session) => {
                session.seal(plaintext, goodbye).map_err(|error| self.fail(&error))
            }
            Stage::Over(last) => Ok(mem::take(last)),
        }
    }

    /// The handshake did not end in time. Who said nothing at all did not begin one.
    pub(super) fn handle_timeout(&mut self) {
        if self.is_handshaking() {
            self.outcome = Some(Outcome::Failed(Failure::Timeout));
        }
    }

    /// The connection is gone.
    pub(super) fn handle_lost(&mut self) {
        if self.is_handshaking() && self.outcome.is_none() {
            self.outcome = Some(Outcome::Failed(Failure::Other));
        }
        self.stage = Stage::Over(Bytes::new());
    }

    /// Others need the place of its handshake.
    pub(super) fn give_way(&mut self) {
        self.outcome = Some(Outcome::Failed(Failure::TooMany));
        self.stage = Stage::Over(Bytes::new());
    }

    pub(super) fn is_worn(&self) -> bool {
        matches!(&self.stage, Stage::Talking(session) if session.is_worn())
    }

    pub(super) fn progress(&self) -> Progress {
        match &self.stage {
            Stage::Silent => Progress::Silent,
            Stage::Talking(session) if session.is_open() => Progress::Over,
            Stage::Talking(session) if session.has_spoken() => Progress::Answered,
            Stage::Talking(_) => Progress::Begun,
            Stage::Over(_) => Progress::Over,
        }
    }

    /// A handshake is under way.
    pub(super) fn is_handshaking(&self) -> bool {
        matches!(&self.stage, Stage::Talking(session) if !session.is_open())
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(&self.stage, Stage::Talking(session) if session.is_open())
    }

    pub(super) fn peer(&self) -> Option<&Arc<PeerIdentity>> {
        self.peer.as_ref()
    }

    pub(super) fn handshake_timeout(&self) -> Nanos {
        self.handshake_timeout
    }

    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    pub(super) fn take_breakage(&mut self) -> bool {
        mem::take(&mut self.has_broken)
    }
}
