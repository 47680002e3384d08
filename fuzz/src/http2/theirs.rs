//! A server of the h2 crate behind a pipe, which answers nothing.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Connection, Handshake, SendResponse};

use crate::pipe::Pipe;
use crate::porch::{HEADER_BYTES_MAX, Told};

const WINDOW_BYTES: u32 = 1 << 20;
const MANY: usize = 100_000;

pub(super) struct Theirs {
    pipe: Pipe,
    stage: Stage,
    open: Vec<Open>,
    /// Kept: a stream whose ends are let go is reset.
    ended: Vec<Open>,
    /// Those that are complete.
    pub(super) requests: Vec<Told>,
    /// How its connection ended.
    pub(super) why: Option<h2::Error>,
}

enum Stage {
    Shaking(Pin<Box<Handshake<Pipe, Bytes>>>),
    Open(Connection<Pipe, Bytes>),
    Over,
}

struct Open {
    head: Told,
    body: RecvStream,
    bytes: BytesMut,
    _respond: SendResponse<Bytes>,
}

impl Theirs {
    pub(super) fn new() -> Theirs {
        let pipe = Pipe::default();
        let handshake = h2::server::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .max_concurrent_reset_streams(MANY)
            .max_pending_accept_reset_streams(MANY)
            .max_local_error_reset_streams(None)
            .handshake(pipe.clone());
        let stage = Stage::Shaking(Box::pin(handshake));
        Theirs { pipe, stage, open: Vec::new(), ended: Vec::new(), requests: Vec::new(), why: None }
    }

    /// Hears more, and says whether the connection goes on.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let context = &mut Context::from_waker(Waker::noop());
        self.pipe.feed(bytes);
        if let Stage::Shaking(handshake) = &mut self.stage {
            match handshake.as_mut().poll(context) {
                Poll::Pending => return true,
                Poll::Ready(Ok(connection)) => self.stage = Stage::Open(connection),
                Poll::Ready(Err(error)) => {
                    self.why = Some(error);
                    self.stage = Stage::Over;
                }
            }
        }
        let Stage::Open(connection) = &mut self.stage else { return false };
        loop {
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (parts, body) = request.into_parts();
                    let stream = respond.stream_id().as_u32();
                    let (method, headers) = (parts.method, parts.headers);
                    let path = parts.uri.path().to_owned();
                    let head = Told { stream, method, path, headers, body: Bytes::new() };
                    self.open.push(Open { head, body, bytes: BytesMut::new(), _respond: respond });
                }
                Poll::Ready(ended) => {
                    self.why = ended.and_then(Result::err);
                    self.stage = Stage::Over;
                    break;
                }
                Poll::Pending => break,
            }
        }
        self.read_bodies();
        // What it has to say is nobody's business here.
        self.pipe.take_output();
        matches!(self.stage, Stage::Open(_))
    }

    fn read_bodies(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        let mut nth = 0;
        while let Some(open) = self.open.get_mut(nth) {
            match open.body.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => {
                    open.bytes.extend_from_slice(&data);
                    // In vain if the stream was reset in the meantime.
                    let _ = open.body.flow_control().release_capacity(data.len());
                }
                Poll::Ready(None) => {
                    let (head, body) = (open.head.clone(), open.bytes.split().freeze());
                    // The end of the body may be the trailers, and those may be malformed.
                    match open.body.poll_trailers(context) {
                        Poll::Ready(Ok(_)) => self.requests.push(Told { body, ..head }),
                        Poll::Ready(Err(_)) => {}
                        Poll::Pending => panic!("a body that ended has no trailers to come"),
                    }
                    self.ended.push(self.open.remove(nth));
                }
                Poll::Ready(Some(Err(_))) => drop(self.open.remove(nth)),
                Poll::Pending => nth += 1,
            }
        }
    }
}
