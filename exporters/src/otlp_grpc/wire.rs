//! A connection's stream for `h2`, which gives up at the first write that fails: here the reading
//! goes on, so that what the peer said before it closed is heard.
//!
//! Never hides an end: a stream that takes no more bytes ends for its reader too, after what was
//! still on the way.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use forebay_net::glommio_io::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Wire {
    stream: Stream,
    /// The peer takes no more: what is written from here on is lost.
    is_closed: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Wire {
        Wire { stream, is_closed: false }
    }

    /// `done` in place of an error that says that the peer takes no more.
    fn or_lost<T>(&mut self, wrote: Poll<io::Result<T>>, done: T) -> Poll<io::Result<T>> {
        match wrote {
            // Of these the reader hears too.
            Poll::Ready(Err(error))
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                self.is_closed = true;
                Poll::Ready(Ok(done))
            }
            wrote => wrote,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Ok(bytes.len()));
        }
        let wrote = AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, bytes);
        self.or_lost(wrote, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed {
            return Poll::Ready(Ok(()));
        }
        let flushed = AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx);
        self.or_lost(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed {
            return Poll::Ready(Ok(()));
        }
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}
