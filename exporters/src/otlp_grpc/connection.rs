//! One HTTP/2 connection, kept: made when somebody wants it, made again when it ended.
//!
//! Always: whoever waits for the connection hears within two connect timeouts, and between two
//! failures lies a jittered, growing pause, in which attempts fail at once with the last reason
//! from the second failure on.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use forebay_net::dial::{Target, dial};
use forebay_net::glommio_io::{Stream, sleep, spawn};
use futures_lite::future::or;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};

use crate::destination::Keepalive;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// grpc-go's default for `keepalive.timeout`.
const PING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);
const WINDOW_BYTES: u32 = 1 << 20;

/// What attempts see of a connection.
#[derive(Default)]
pub(super) struct Slot {
    state: RefCell<State>,
    waiting: RefCell<Vec<Waker>>,
    /// The connection's task while it has nothing to do.
    keeper: RefCell<Option<Waker>>,
    active: Cell<usize>,
    retired: Cell<bool>,
    /// The connection has carried an answer: whatever ends it, it was one.
    answered: Cell<bool>,
}

#[derive(Default)]
enum State {
    /// Nobody has wanted it yet, or it ended.
    #[default]
    Idle,
    Connecting,
    /// It could not be made, and why. A pause is under way.
    Down(String),
    Up(SendRequest<Bytes>),
}

impl Slot {
    /// The connection, once it is there; the error says why it cannot be made.
    pub(super) async fn client(&self) -> Result<SendRequest<Bytes>, String> {
        poll_fn(|cx| {
            match &*self.state.borrow() {
                State::Up(client) => return Poll::Ready(Ok(client.clone())),
                State::Down(why) => return Poll::Ready(Err(why.clone())),
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

    /// Sends nothing more over the connection there is.
    pub(super) fn retire(&self) {
        if matches!(&*self.state.borrow(), State::Up(_)) {
            self.retired.set(true);
            if let Some(keeper) = self.keeper.take() {
                keeper.wake();
            }
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.get()
    }

    pub(super) fn mark_answered(&self) {
        self.answered.set(true);
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
        let why = match connect(&target, turn, timeout).await {
            Err(why) => why,
            Ok((client, connection)) => {
                slot.retired.set(false);
                slot.answered.set(false);
                slot.turn_into(State::Up(client));
                let ended = serve(connection, &slot, keepalive).await;
                match ended {
                    // Taken and dropped again: as good as refused.
                    Some(why) if !slot.answered.get() => why,
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
            slot.turn_into(State::Down(format!("{target}: {why}")));
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
) -> Result<(SendRequest<Bytes>, Connection<Stream, Bytes>), String> {
    let stream = dial(target, turn, timeout).await.map_err(|error| error.to_string())?;
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(64 << 10);
    // Sends the preface and the settings; whether the peer speaks HTTP/2 shows later.
    builder.handshake(stream).await.map_err(|error| format!("no HTTP/2: {error}"))
}

/// Runs the connection to its end and says why it ended; `None` when it was retired, and then
/// runs on beside until its last request has ended.
async fn serve(
    connection: Connection<Stream, Bytes>,
    slot: &Rc<Slot>,
    keepalive: Keepalive,
) -> Option<String> {
    let mut driving = Box::pin(drive(connection, Rc::clone(slot), keepalive));
    let ended = or(async { Some((&mut driving).await) }, async {
        slot.until(|| slot.retired.get()).await;
        None
    })
    .await;
    if ended.is_none() {
        spawn(async move { drop(driving.await) });
    }
    ended
}

async fn drive(
    mut connection: Connection<Stream, Bytes>,
    slot: Rc<Slot>,
    keepalive: Keepalive,
) -> String {
    let pings = connection.ping_pong();
    let end = async {
        match connection.await {
            Ok(()) => "the destination closed the connection".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let dead = async {
        match (pings, keepalive.time) {
            (Some(pings), Some(every)) => watch(pings, every, &slot, keepalive).await,
            _ => std::future::pending().await,
        }
    };
    or(end, dead).await
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
