//! TLS over a [`Stream`], the client's side: rustls between the socket and whoever speaks over it.
//!
//! Knows no protocol above and reads no file. Always: of ciphertext on its way out there is at most
//! one buffer, and nothing more is taken while it waits; who polls for bytes to come in also moves
//! those that have to go out, so what was taken leaves without being asked for. What the peer said
//! before it stopped listening is heard to its end.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::Write as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::glommio_io::Stream;
use crate::tls::fault::Fault;

/// So much plaintext is sealed at once: a few records.
const SEALED_AT_ONCE: usize = 64 << 10;
/// Plaintext that is handed out at once: a record's.
const PLAIN_BYTES: usize = 16 << 10;

const BROKEN_OFF: &str = "the server closed in the middle of the TLS handshake: does it speak TLS on \
                          this port?";

const CUT_OFF: &str = "the server closed without ending TLS (close_notify), so the end of what it \
                       said may be missing";

/// What a look at the line has brought.
enum Came {
    /// So many, of plaintext.
    Bytes(usize),
    /// The peer said that no more comes.
    Goodbye,
    /// No more comes, and nobody said so.
    CutOff,
}

/// A stream whose peer has proved who it is, and whose bytes nobody else reads.
pub struct Secured {
    stream: Stream,
    peer: SocketAddr,
    session: ClientConnection,
    /// Ciphertext to be sent, and how much of it has been.
    sealed: Vec<u8>,
    sent: usize,
    /// Ciphertext that the session had no room for.
    unread: Vec<u8>,
    plain: Box<[u8]>,
    /// Why nothing can be sent any more; told once there is nothing left to read.
    deaf: Option<io::Error>,
    /// Why nothing more can come; told once what came before is read.
    broken: Option<io::Error>,
}

impl Secured {
    /// Makes the handshake; bounded in time by the caller. The error says what the peer's
    /// certificate lacks.
    pub async fn connect(
        stream: Stream,
        peer: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Secured> {
        let mut session =
            ClientConnection::new(config, name).map_err(|error| refused(peer, error))?;
        session.set_buffer_limit(Some(SEALED_AT_ONCE));
        let plain = vec![0; PLAIN_BYTES].into_boxed_slice();
        let (sealed, unread) = (Vec::new(), Vec::new());
        let mut secured = Secured {
            stream,
            peer,
            session,
            sealed,
            sent: 0,
            unread,
            plain,
            deaf: None,
            broken: None,
        };
        poll_fn(|cx| secured.poll_handshake(cx)).await?;
        Ok(secured)
    }

    /// The protocol that both sides agreed on.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// What came. Nothing: the peer sends no more, whether it said so or not: this is for protocols
    /// in which every message has an end of its own.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let came = ready!(self.poll_came(cx, PLAIN_BYTES))?;
        Poll::Ready(Ok(match came {
            Came::Bytes(count) => &self.plain[..count],
            Came::Goodbye | Came::CutOff => &[],
        }))
    }

    /// The same for protocols in which a message may end with the line: a peer that closes without
    /// saying so is an error, for anybody could have cut it off. Never more than `bytes_max`, which
    /// is not zero.
    pub fn poll_receive_up_to(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<io::Result<&[u8]>> {
        match ready!(self.poll_came(cx, bytes_max.min(PLAIN_BYTES)))? {
            Came::Bytes(count) => Poll::Ready(Ok(&self.plain[..count])),
            Came::Goodbye => Poll::Ready(Ok(&[])),
            Came::CutOff => Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, CUT_OFF))),
        }
    }

    fn poll_came(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<Came>> {
        // What waits to be sent must not wait for an answer.
        if self.deaf.is_none()
            && let Poll::Ready(Err(error)) = self.poll_flush(cx)
        {
            self.deaf = Some(error);
        }
        loop {
            match self.session.reader().read(&mut self.plain[..room]) {
                Ok(0) => return Poll::Ready(self.ended(Came::Goodbye)),
                Ok(count) => return Poll::Ready(Ok(Came::Bytes(count))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(self.ended(Came::CutOff));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.broken.is_some() {
                return Poll::Ready(self.ended(Came::CutOff));
            }
            // An alert says more than a socket that takes nothing, and an answer before it counts.
            if let Err(error) = ready!(self.poll_feed(cx)) {
                let is_told = Fault::is_in(&error);
                let deaf = self.deaf.take().filter(|_| !is_told);
                self.broken = Some(deaf.unwrap_or(error));
            }
        }
    }

    /// Takes as much of `slices` as one buffer of ciphertext holds.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let taken = self.session.writer().write_vectored(slices)?;
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    /// As [`Secured::poll_send`], for who hears nothing more once it can't send: a peer that takes
    /// no more seems to take all, and the reader is told, after what the peer had to say.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.deaf.is_none() {
            match ready!(self.poll_send(cx, slices)) {
                Err(error) if is_of_a_deaf_peer(&error) => self.deaf = Some(error),
                sent => return Poll::Ready(sent),
            }
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    /// As [`Secured::poll_flush`], for the same.
    pub fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf.is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_flush(cx)) {
            Err(error) if is_of_a_deaf_peer(&error) => self.deaf = Some(error),
            flushed => return Poll::Ready(flushed),
        }
        Poll::Ready(Ok(()))
    }

    /// Hands all that was taken to the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.sent < self.sealed.len() {
                let rest = [IoSlice::new(&self.sealed[self.sent..])];
                self.sent += ready!(self.stream.poll_send(cx, &rest))?;
            }
            self.sealed.clear();
            self.sent = 0;
            if !self.session.wants_write() {
                return Poll::Ready(Ok(()));
            }
            while self.session.wants_write() {
                self.session.write_tls(&mut self.sealed)?;
            }
        }
    }

    /// Says goodbye and closes the sending side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn ended(&mut self, end: Came) -> io::Result<Came> {
        let broken = self.broken.take();
        broken.or_else(|| self.deaf.take()).map_or(Ok(end), Err)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            // A server that takes no more may have said why.
            if self.deaf.is_none()
                && let Err(error) = ready!(self.poll_flush(cx))
            {
                self.deaf = Some(error);
            }
            if self.session.is_handshaking() {
                let fed = ready!(self.poll_feed(cx));
                fed.map_err(|error| broken_off(self.deaf.take(), error))?;
            }
        }
        let deaf = self.deaf.take();
        let flushed =
            ready!(deaf.map_or_else(|| self.poll_flush(cx), |error| Poll::Ready(Err(error))));
        Poll::Ready(flushed.map_err(|error| broken_off(None, error)))
    }

    /// Brings ciphertext from the socket into the session.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let came = ready!(self.stream.poll_receive(cx))?;
            let fed = feed(&mut self.session, self.peer, came);
            if let Ok(count) = fed {
                self.unread.extend_from_slice(&came[count..]);
            }
            let is_end = came.is_empty();
            self.judged(cx, fed.map(drop))?;
            if is_end && self.session.is_handshaking() {
                return Poll::Ready(Err(Fault::because(BROKEN_OFF).into()));
            }
            return Poll::Ready(Ok(()));
        }
        let fed = feed(&mut self.session, self.peer, &self.unread);
        if let Ok(count) = fed {
            self.unread.drain(..count);
        }
        Poll::Ready(self.judged(cx, fed.map(drop)))
    }

    /// A fault of the peer's is told to it, as far as its socket takes the alert.
    fn judged(&mut self, cx: &mut Context<'_>, fed: io::Result<()>) -> io::Result<()> {
        if fed.is_err() {
            let _ = self.poll_flush(cx);
        }
        fed
    }
}

/// Hands ciphertext to the session until it has plaintext, or all of it; returns how much. None at
/// all means that the peer sends no more. What follows its goodbye is nobody's: it is thrown away.
fn feed(session: &mut ClientConnection, peer: SocketAddr, ciphertext: &[u8]) -> io::Result<usize> {
    let mut rest = ciphertext;
    loop {
        if session.read_tls(&mut rest)? == 0 {
            return Ok(ciphertext.len());
        }
        let state = session.process_new_packets().map_err(|error| refused(peer, error))?;
        if rest.is_empty() || state.plaintext_bytes_to_read() > 0 {
            return Ok(ciphertext.len() - rest.len());
        }
    }
}

fn is_of_a_deaf_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// What ended a handshake: `deaf` is why nothing could be sent, `error` why nothing more came. Only
/// what TLS itself says is better than to ask whether the server speaks it.
fn broken_off(deaf: Option<io::Error>, error: io::Error) -> io::Error {
    let is_gone = [Some(&error), deaf.as_ref()].into_iter().flatten().any(is_of_a_deaf_peer);
    match is_gone && !Fault::is_in(&error) {
        true => Fault::because(BROKEN_OFF).into(),
        false => deaf.filter(|_| !Fault::is_in(&error)).unwrap_or(error),
    }
}

fn refused(peer: SocketAddr, error: rustls::Error) -> io::Error {
    Fault::of(&error).with(peer).into()
}
