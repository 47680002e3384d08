//! A connected line to a server, in cleartext or through TLS, as protocols use it.
//!
//! Adds nothing of its own: each call is the stream's.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future::or;
use hyper::rt::ReadBufCursor;

use super::secured::Secured;
use crate::glommio_io::{Stream, sleep};

/// A peer that takes nothing gets no goodbye: nobody waits longer for it.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

/// Serves `hyper`, and whoever brings slices.
pub enum Line {
    Plain(Stream),
    Secured(Box<Secured>),
}

impl Line {
    /// The protocol that TLS agreed on, if it did.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Line::Plain(_) => None,
            Line::Secured(secured) => secured.protocol(),
        }
    }

    /// Closes a line that is needed no more, and of one with TLS tells the peer so, who could not
    /// know else whether somebody cut it off. Bounded in time, and nobody hears whether it went.
    pub async fn end(self) {
        if let Line::Secured(mut secured) = self {
            let goodbye = async { drop(poll_fn(|cx| secured.poll_shutdown(cx)).await) };
            or(goodbye, sleep(GOODBYE_PATIENCE)).await;
        }
    }

    /// What came, in the line's own buffer. Nothing: the peer sends no more.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        match self {
            Line::Plain(stream) => stream.poll_receive(cx),
            Line::Secured(secured) => secured.poll_receive(cx),
        }
    }

    /// Takes as much of `slices`, one behind the other, as can be taken now. It leaves while the
    /// line is polled for this or for what comes.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Line::Plain(stream) => stream.poll_send(cx, slices),
            Line::Secured(secured) => secured.poll_send(cx, slices),
        }
    }
}

impl hyper::rt::Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Line::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Line::Secured(secured) => {
                let came = ready!(secured.poll_receive_up_to(cx, buffer.remaining()))?;
                buffer.put_slice(came);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl hyper::rt::Write for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Line::Plain(stream) => stream.poll_send(cx, slices),
            Line::Secured(secured) => secured.poll_write(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Line::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Line::Secured(secured) => secured.poll_written(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Line::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Line::Secured(secured) => secured.poll_shutdown(cx),
        }
    }
}
