//! A request body that is a chain of bytes, of known length.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

pub(super) struct ChainBody {
    rest: std::vec::IntoIter<Bytes>,
    /// The sum of what `rest` still holds.
    bytes_left: u64,
}

impl ChainBody {
    pub(super) fn new(chain: Vec<Bytes>) -> ChainBody {
        let bytes_left = chain.iter().map(|piece| piece.len() as u64).sum();
        ChainBody { rest: chain.into_iter(), bytes_left }
    }
}

impl Body for ChainBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.next();
        self.bytes_left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
