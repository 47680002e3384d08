//! The in-memory pipe that the `h2` crate reads and writes instead of a socket.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// With this much unsent the crate is told to wait: the peer does not read its answers.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// With this much unread the socket is not read: the crate waits for its answers to be read.
const INPUT_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Default)]
pub(super) struct Pipe(Rc<RefCell<Ends>>);

#[derive(Default)]
struct Ends {
    input: BytesMut,
    eof: bool,
    output: BytesMut,
}

impl Pipe {
    pub(super) fn feed(&self, bytes: &[u8]) {
        self.0.borrow_mut().input.extend_from_slice(bytes);
    }

    pub(super) fn feed_eof(&self) {
        self.0.borrow_mut().eof = true;
    }

    pub(super) fn take_output(&self) -> Bytes {
        std::mem::take(&mut self.0.borrow_mut().output).freeze()
    }

    pub(super) fn has_room(&self) -> bool {
        let ends = self.0.borrow();
        ends.input.len() < INPUT_BYTES_MAX && !ends.eof
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut ends = self.0.borrow_mut();
        if ends.input.is_empty() {
            return if ends.eof { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let bytes = ends.input.len().min(buffer.remaining());
        buffer.put_slice(&ends.input[..bytes]);
        ends.input.advance(bytes);
        if ends.input.is_empty() {
            // An idle connection holds no buffer.
            ends.input = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.0.borrow_mut();
        if ends.output.len() >= OUTPUT_BYTES_MAX {
            return Poll::Pending;
        }
        ends.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
