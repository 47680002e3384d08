//! Kept-alive HTTP/1.1 connections of one destination on one exporter core.
//!
//! Always: no more requests are in flight than there are permits, and no more connections are
//! idle than that; an idle connection is closed after the idle timeout. Starts one task per
//! connection, none per request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use forebay_net::dial::{Target, dial};
use forebay_net::glommio_io::{sleep, spawn};
use futures_lite::future::or;
use hyper::client::conn::http1::{self, SendRequest};

use super::body::ChainBody;

pub(super) struct Pool {
    /// The error is for the log: the configuration and discovery refuse such addresses.
    target: Result<Target, String>,
    permits: Rc<Permits>,
    connections_max: usize,
    idle: RefCell<Vec<Pooled>>,
    idle_timeout: Duration,
    connect_timeout: Duration,
    turn: Cell<usize>,
}

/// A connection that carries one request at a time.
pub(super) struct Pooled {
    pub(super) sender: SendRequest<ChainBody>,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    /// Since when it lies idle; `None` while it is in use. Read by the connection's own task.
    idle_since: Rc<Cell<Option<Instant>>>,
}

impl Pool {
    pub(super) fn new(
        address: &str,
        connections_max: usize,
        idle_timeout: Duration,
        connect_timeout: Duration,
    ) -> Pool {
        let connections_max = connections_max.max(1);
        let no_target = || format!("the endpoint {address} names no host and port");
        Pool {
            target: Target::parse(address).ok_or_else(no_target),
            permits: Rc::new(Permits {
                free: Cell::new(connections_max),
                waiting: RefCell::default(),
            }),
            connections_max,
            idle: RefCell::default(),
            idle_timeout,
            connect_timeout,
            turn: Cell::new(0),
        }
    }

    /// Leave to have one request in flight.
    pub(super) async fn permit(&self) -> Permit {
        poll_fn(|cx| {
            let free = self.permits.free.get();
            if free > 0 {
                self.permits.free.set(free - 1);
                return Poll::Ready(());
            }
            self.permits.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        Permit(Rc::clone(&self.permits))
    }

    /// The connection that was used last, or a new one.
    pub(super) async fn connection(&self) -> Result<Pooled, String> {
        while let Some(mut connection) = self.take_idle() {
            // Its task may not yet have seen that the last answer is read to its end.
            if connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        self.fresh().await
    }

    /// A connection that nobody has used yet.
    pub(super) async fn fresh(&self) -> Result<Pooled, String> {
        self.connect(self.target.clone()?).await
    }

    pub(super) fn give_back(&self, mut connection: Pooled) {
        if connection.sender.is_closed() {
            return;
        }
        connection.reused = true;
        connection.idle_since.set(Some(Instant::now()));
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.sender.is_closed());
        if idle.len() >= self.connections_max {
            idle.remove(0);
        }
        idle.push(connection);
    }

    fn take_idle(&self) -> Option<Pooled> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.sender.is_closed());
        let connection = idle.pop()?;
        connection.idle_since.set(None);
        Some(connection)
    }

    async fn connect(&self, target: Target) -> Result<Pooled, String> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let dialled = dial(&target, turn, self.connect_timeout, None).await;
        let stream = dialled.map_err(|error| format!("{target}: {error}"))?;
        let handshake = http1::handshake(stream).await;
        let (sender, connection) = handshake.map_err(|error| format!("{target}: {error}"))?;
        let idle_since = Rc::new(Cell::new(None));
        let (watched, idle_timeout) = (Rc::clone(&idle_since), self.idle_timeout);
        spawn(async move {
            // How it ended is told to whoever waits for an answer on it.
            or(async { drop(connection.await) }, long_idle(&watched, idle_timeout)).await;
        });
        Ok(Pooled { sender, reused: false, idle_since })
    }
}

/// Ends when the connection has been idle for `timeout`; zero: never.
async fn long_idle(idle_since: &Cell<Option<Instant>>, timeout: Duration) {
    if timeout.is_zero() {
        std::future::pending::<()>().await;
    }
    loop {
        let idle = idle_since.get().map_or(Duration::ZERO, |since| since.elapsed());
        match timeout.checked_sub(idle) {
            None | Some(Duration::ZERO) => return,
            Some(left) => sleep(left).await,
        }
    }
}

struct Permits {
    free: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

pub(super) struct Permit(Rc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        // All of them: one may have given up meanwhile, and there are no more than consumers.
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }
}
