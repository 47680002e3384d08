//! One HTTP/2 connection, kept: made when somebody wants it, made again when it ended.
//!
//! Always: whoever waits for the connection hears within two connect timeouts, and between two
//! failures lies a jittered, growing pause, in which attempts fail at once with the last reason
//! from the second failure on. A connection on which requests keep timing out is replaced: a peer
//! that vanished without a word says nothing else.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use forebay_net::dial::{Target, dial};
use forebay_net::glommio_io::{sleep, spawn};
use futures_lite::future::or;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};

use super::wire::Wire;
use crate::destination::Keepalive;
use crate::verdict::{FailureKind, Verdict, again};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// grpc-go's default for `keepalive.timeout`.
const PING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);
const WINDOW_BYTES: u32 = 1 << 20;
/// So many requests in a row without an answer retire a connection: one may be a slow request's.
const TIMEOUTS_MAX: u32 = 2;

/// What attempts see of a connection.
#[derive(Default)]
pub(super) struct Slot {
    state: RefCell<State>,
    waiting: RefCell<Vec<Waker>>,
    /// The connection's task while it has nothing to do.
    keeper: RefCell<Option<Waker>>,
    active: Cell<usize>,
    retired: Cell<bool>,
}

/// What one connection has shown of itself, for as long as anybody uses it.
#[derive(Default)]
pub(super) struct Record {
    /// It has carried an answer: whatever ends it, it was a connection.
    answered: Cell<bool>,
    /// Requests that timed out since the last answer.
    timeouts: Cell<u32>,
}

/// Why there is no connection.
#[derive(Clone)]
pub(super) struct Absence {
    kind: FailureKind,
    why: String,
}

#[derive(Default)]
enum State {
    /// Nobody has wanted it yet, or it ended.
    #[default]
    Idle,
    Connecting,
    /// It could not be made. A pause is under way.
    Down(Absence),
    Up(SendRequest<Bytes>, Rc<Record>),
}

impl Record {
    pub(super) fn has_answered(&self) -> bool {
        self.answered.get()
    }

    pub(super) fn mark_answered(&self) {
        self.answered.set(true);
        self.timeouts.set(0);
    }
}

impl Absence {
    pub(super) fn connect(why: String) -> Absence {
        Absence { kind: FailureKind::Connect, why }
    }

    /// The connection ended, or took nothing, for this reason.
    pub(super) fn ended(error: &h2::Error, record: &Record) -> Absence {
        match is_garbage(error, record) {
            true => Absence { kind: FailureKind::Garbage, why: no_http2(error) },
            false => Absence::connect(error.to_string()),
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        again(self.kind, self.why)
    }
}

impl Slot {
    /// The connection, once it is there; the error says why it cannot be made.
    pub(super) async fn client(&self) -> Result<(SendRequest<Bytes>, Rc<Record>), Absence> {
        poll_fn(|cx| {
            match &*self.state.borrow() {
                State::Up(client, record) => {
                    return Poll::Ready(Ok((client.clone(), Rc::clone(record))));
                }
                State::Down(absence) => return Poll::Ready(Err(absence.clone())),
                State::Idle | State::Connecting => {}
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            if let Some(keeper) = self.keeper.take() {
                keeper.wake();
            }
            Poll::Pending
        })
        .await
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(&*self.state.borrow(), State::Down(_))
    }

    /// Sends nothing more over this connection. One that took its place meanwhile stays.
    pub(super) fn retire(&self, record: &Rc<Record>) {
        let is_current =
            |state: &State| matches!(state, State::Up(_, current) if Rc::ptr_eq(current, record));
        if is_current(&self.state.borrow()) {
            self.retired.set(true);
            if let Some(keeper) = self.keeper.take() {
                keeper.wake();
            }
        }
    }

    /// A request over this connection timed out.
    pub(super) fn mark_timeout(&self, record: &Rc<Record>) {
        record.timeouts.set(record.timeouts.get() + 1);
        if record.timeouts.get() >= TIMEOUTS_MAX {
            self.retire(record);
        }
    }

    /// Counts a request in flight for as long as the guard lives.
    pub(super) fn activity(self: &Rc<Slot>) -> Activity {
        self.active.set(self.active.get() + 1);
        Activity(Rc::clone(self))
    }

    fn turn_into(&self, state: State) {
        self.state.replace(state);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    async fn wanted(&self) {
        self.until(|| !self.waiting.borrow().is_empty()).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        poll_fn(|cx| {
            if holds() {
                return Poll::Ready(());
            }
            self.keeper.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

pub(super) struct Activity(Rc<Slot>);

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// Keeps `slot` connected for as long as somebody wants it. Never ends by itself.
pub(super) async fn keep(
    slot: Rc<Slot>,
    target: Target,
    turn: usize,
    timeout: Duration,
    keepalive: Keepalive,
) {
    let mut pause = PAUSE_MIN;
    loop {
        slot.wanted().await;
        // Those who wait are woken by the next change; they register again if it is not theirs.
        slot.state.replace(State::Connecting);
        let mut absence = match connect(&target, turn, timeout).await {
            Err(why) => Absence::connect(why),
            Ok((client, connection)) => {
                let record = Rc::<Record>::default();
                slot.retired.set(false);
                slot.turn_into(State::Up(client, Rc::clone(&record)));
                let ended = serve(connection, &slot, &record, keepalive, timeout).await;
                match ended {
                    // Taken and dropped again: as good as refused.
                    Some(absence) if !record.has_answered() => absence,
                    _ => {
                        pause = PAUSE_MIN;
                        slot.turn_into(State::Idle);
                        continue;
                    }
                }
            }
        };
        // A first failure may be a moment's: who waits goes on waiting for the second try.
        if pause > PAUSE_MIN {
            absence.why = format!("{target}: {}", absence.why);
            slot.turn_into(State::Down(absence));
        } else {
            slot.state.replace(State::Connecting);
        }
        sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        pause = pause.mul_f64(1.6).min(PAUSE_MAX);
        slot.state.replace(State::Idle);
    }
}

async fn connect(
    target: &Target,
    turn: usize,
    timeout: Duration,
) -> Result<(SendRequest<Bytes>, Connection<Wire, Bytes>), String> {
    let stream = dial(target, turn, timeout).await.map_err(|error| error.to_string())?;
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(64 << 10);
    // Sends the preface and the settings; whether the peer speaks HTTP/2 shows later.
    builder.handshake(Wire::new(stream)).await.map_err(|error| format!("no HTTP/2: {error}"))
}

/// Runs the connection to its end and says why it ended; `None` when it was retired, and then
/// runs on beside until its last request has ended.
async fn serve(
    connection: Connection<Wire, Bytes>,
    slot: &Rc<Slot>,
    record: &Rc<Record>,
    keepalive: Keepalive,
    timeout: Duration,
) -> Option<Absence> {
    let mut driving = Box::pin(drive(connection, Rc::clone(slot), Rc::clone(record), keepalive));
    let ended = or(async { Some((&mut driving).await) }, async {
        slot.until(|| slot.retired.get()).await;
        None
    })
    .await;
    if ended.is_none() {
        // A peer that vanished lets no connection end. No request is under way for longer than one
        // timeout until it may be sent and one until it is answered.
        spawn(or(async move { drop(driving.await) }, sleep(timeout.saturating_mul(2))));
    }
    ended
}

async fn drive(
    mut connection: Connection<Wire, Bytes>,
    slot: Rc<Slot>,
    record: Rc<Record>,
    keepalive: Keepalive,
) -> Absence {
    let pings = connection.ping_pong();
    let end = async {
        match connection.await {
            Ok(()) => Absence::connect("the destination closed the connection".to_owned()),
            Err(error) => Absence::ended(&error, &record),
        }
    };
    let dead = async {
        match (pings, keepalive.time) {
            (Some(pings), Some(every)) => {
                Absence::connect(watch(pings, every, &slot, keepalive).await)
            }
            _ => std::future::pending().await,
        }
    };
    or(end, dead).await
}

/// Whether the peer has shown that it speaks no HTTP/2: what came from it was no frame, and
/// nothing better ever came over this connection.
pub(super) fn is_garbage(error: &h2::Error, record: &Record) -> bool {
    let is_theirs = error.is_library() && error.reason() != Some(h2::Reason::NO_ERROR);
    is_theirs && !record.has_answered()
}

pub(super) fn no_http2(error: &h2::Error) -> String {
    format!("what came is no HTTP/2: {error}; is this a gRPC endpoint?")
}

/// Pings while there is reason to, and ends when a ping stays unanswered.
async fn watch(mut pings: PingPong, every: Duration, slot: &Slot, keepalive: Keepalive) -> String {
    let timeout = keepalive.timeout.unwrap_or(PING_TIMEOUT_DEFAULT);
    loop {
        sleep(every).await;
        if slot.active.get() == 0 && !keepalive.permit_without_stream {
            continue;
        }
        let answered = or(async { pings.ping(Ping::opaque()).await.is_ok() }, async {
            sleep(timeout).await;
            false
        });
        if !answered.await {
            return format!("a keepalive ping stayed unanswered for {timeout:?}");
        }
    }
}
