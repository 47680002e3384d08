//! A connection of the load over HTTP/3, and the one after it: it is opened again when it broke,
//! was used up, or its server says goodbye.
//!
//! Always: a connection that is given up has no request in flight, or all of them are lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quinn::{Connection, Endpoint, ReadError, ReadToEndError, RecvStream, SendStream, WriteError};
use tokio::sync::Notify;

use super::Desk;
use crate::client::{Outcome, outcome};
use crate::h3;

/// An answer larger than this is none to us.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A control stream says little: what is longer is read, and not looked at.
const CONTROL_BYTES_MAX: usize = 16 << 10;
const NO_ERROR: u32 = 0x100;
/// A server that says this has not looked at the request.
const REQUEST_REJECTED: u64 = 0x10b;
/// Nobody knows what became of the request; tells it apart from a stream that was reset.
const LOST: Outcome = Outcome::Reset(u32::MAX);

/// One connection at a time.
pub(super) struct Link {
    endpoint: Endpoint,
    /// `None`: one is being opened, or none can be.
    line: RefCell<Option<Rc<Line>>>,
    is_dead: Cell<bool>,
    changed: Notify,
}

/// One connection.
pub(super) struct Line {
    connection: Connection,
    /// What must stay open as long as the connection.
    _control: SendStream,
    began: Cell<u64>,
    in_flight: Cell<usize>,
    /// An answer never came.
    has_lost: Cell<bool>,
    is_ending: Arc<AtomicBool>,
}

impl Link {
    pub(super) async fn open(desk: &Desk, endpoint: Endpoint) -> Result<Link, String> {
        let line = Line::open(desk, &endpoint).await?;
        Ok(Link {
            endpoint,
            line: RefCell::new(Some(Rc::new(line))),
            is_dead: Cell::new(false),
            changed: Notify::new(),
        })
    }

    /// The connection for one more request, which it counts. `None`: there is none any more.
    pub(super) async fn line(&self, desk: &Desk) -> Option<Rc<Line>> {
        loop {
            if self.is_dead.get() || desk.is_stopping.get() {
                return None;
            }
            let line = self.line.borrow().clone();
            match line {
                Some(line) if line.has_room(desk) => {
                    line.began.set(line.began.get() + 1);
                    line.in_flight.set(line.in_flight.get() + 1);
                    return Some(line);
                }
                Some(line) if line.in_flight.get() == 0 => self.renew(&line, desk).await,
                _ => self.changed.notified().await,
            }
        }
    }

    /// A request on `line` has ended.
    pub(super) async fn ended(&self, line: &Rc<Line>, desk: &Desk) {
        line.in_flight.set(line.in_flight.get() - 1);
        if line.in_flight.get() == 0 && !line.has_room(desk) && !desk.is_stopping.get() {
            self.renew(line, desk).await;
        }
    }

    /// Another connection in the place of `old`, unless somebody was faster.
    async fn renew(&self, old: &Rc<Line>, desk: &Desk) {
        let is_current = self.line.borrow().as_ref().is_some_and(|line| Rc::ptr_eq(line, old));
        if !is_current {
            return;
        }
        self.line.borrow_mut().take();
        old.close(desk);
        match Line::open(desk, &self.endpoint).await {
            Ok(line) => *self.line.borrow_mut() = Some(Rc::new(line)),
            Err(error) => {
                self.is_dead.set(true);
                let problem = format!("{} takes no new connection: {error}", desk.target);
                desk.tally.borrow_mut().problem(problem);
            }
        }
        self.changed.notify_waiters();
    }

    /// Lets everybody see that the load stops.
    pub(super) fn stop(&self) {
        self.changed.notify_waiters();
    }

    /// Until the socket's connections have ended.
    pub(super) async fn rest(&self) {
        self.endpoint.wait_idle().await;
    }

    /// Ends the connection; what is in flight is lost.
    pub(super) fn close(&self, desk: &Desk) {
        if let Some(line) = self.line.borrow_mut().take() {
            line.close(desk);
        }
    }
}

impl Line {
    async fn open(desk: &Desk, endpoint: &Endpoint) -> Result<Line, String> {
        let connecting = endpoint.connect_with(desk.config.clone(), desk.target, &desk.name);
        let connecting = connecting.map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let mut control = connection.open_uni().await.map_err(|error| error.to_string())?;
        let hello = control.write_all(&h3::control_stream()).await;
        hello.map_err(|error| error.to_string())?;
        let is_ending = Arc::new(AtomicBool::new(false));
        tokio::spawn(listen(connection.clone(), is_ending.clone()));
        Ok(Line {
            connection,
            _control: control,
            began: Cell::new(0),
            in_flight: Cell::new(0),
            has_lost: Cell::new(false),
            is_ending,
        })
    }

    fn has_room(&self, desk: &Desk) -> bool {
        self.began.get() < desk.requests_max
            && !self.is_ending.load(Ordering::Relaxed)
            && self.connection.close_reason().is_none()
    }

    /// Sends a request, and waits for its end.
    pub(super) async fn exchange(&self, request: Vec<u8>) -> Outcome {
        let Ok((mut send, mut receive)) = self.connection.open_bi().await else {
            return self.lost();
        };
        match send.write_chunk(Bytes::from(request)).await {
            Ok(()) => {
                // Fails only if the server wants no more, which its answer tells.
                let _ = send.finish();
            }
            Err(WriteError::Stopped(_)) => {}
            Err(_) => return self.lost(),
        }
        match receive.read_to_end(ANSWER_BYTES_MAX).await {
            Ok(stream) => match h3::answer(&stream) {
                Ok((status, message)) => outcome(status, None, &message),
                Err(_) => Outcome::Http(0),
            },
            Err(ReadToEndError::Read(ReadError::Reset(code))) => match code.into_inner() {
                REQUEST_REJECTED => Outcome::Refused,
                code => Outcome::Reset(code as u32),
            },
            Err(_) => self.lost(),
        }
    }

    fn lost(&self) -> Outcome {
        self.has_lost.set(true);
        LOST
    }

    fn close(&self, desk: &Desk) {
        let mut tally = desk.tally.borrow_mut();
        let is_broken = self.connection.close_reason();
        if let Some(reason) = is_broken.filter(|_| self.has_lost.get() || self.began.get() == 0) {
            tally.broken += 1;
            tally.problem(format!("a connection ended: {reason}"));
        }
        tally.sent_bytes += self.connection.stats().udp_tx.bytes;
        self.connection.close(NO_ERROR.into(), b"");
    }
}

/// Reads what the server says about the connection itself, to its end.
async fn listen(connection: Connection, is_ending: Arc<AtomicBool>) {
    while let Ok(stream) = connection.accept_uni().await {
        tokio::spawn(read(stream, is_ending.clone()));
    }
}

async fn read(mut stream: RecvStream, is_ending: Arc<AtomicBool>) {
    let mut said = Vec::new();
    while let Ok(Some(chunk)) = stream.read_chunk(CONTROL_BYTES_MAX, true).await {
        if said.len() < CONTROL_BYTES_MAX {
            said.extend_from_slice(&chunk.bytes);
            if h3::says_goaway(&said) == Some(true) {
                is_ending.store(true, Ordering::Relaxed);
            }
        }
    }
}
