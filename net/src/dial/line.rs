//! A connected line to a server, in cleartext or through TLS, as protocols use it.
//!
//! Adds nothing of its own: each call is the stream's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::ReadBufCursor;

use super::secured::Secured;
use crate::glommio_io::Stream;

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
