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

use forebay_net::dial::{Line, Target, dial};
use forebay_net::glommio_io::{sleep, spawn};
use futures_lite::future::or;

use super::exchange::Exchange;
use crate::destination::Keepalive;
use crate::verdict::{FailureKind, Verdict, again};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// So many requests in a row without an answer retire a connection: one may be a slow request's.
const TIMEOUTS_MAX: u32 = 2;

/// What attempts see of a connection.
#[derive(Default)]
pub(super) struct Slot {
    state: RefCell<State>,
    waiting: RefCell<Vec<Waker>>,
    /// The connection's task while it has nothing to do.
    keeper: RefCell<Option<Waker>>,
    retired: Cell<bool>,
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
    Up(Rc<Exchange>),
}

impl Absence {
    pub(super) fn connect(why: String) -> Absence {
        Absence { kind: FailureKind::Connect, why }
    }

    /// What came was something else, for this reason.
    pub(super) fn garbage(why: &str) -> Absence {
        let why = format!("what came is no HTTP/2: {why}; is this a gRPC endpoint?");
        Absence { kind: FailureKind::Garbage, why }
    }

    pub(super) fn verdict(self) -> Verdict {
        again(self.kind, self.why)
    }
}

impl Slot {
    /// The connection, once it is there; the error says why it cannot be made.
    pub(super) async fn exchange(&self) -> Result<Rc<Exchange>, Absence> {
        poll_fn(|cx| {
            match &*self.state.borrow() {
                State::Up(exchange) => return Poll::Ready(Ok(Rc::clone(exchange))),
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
    pub(super) fn retire(&self, exchange: &Rc<Exchange>) {
        let is_current =
            |state: &State| matches!(state, State::Up(current) if Rc::ptr_eq(current, exchange));
        if is_current(&self.state.borrow()) {
            exchange.leave();
            self.retired.set(true);
            if let Some(keeper) = self.keeper.take() {
                keeper.wake();
            }
        }
    }

    /// A request over this connection timed out.
    pub(super) fn mark_timeout(&self, exchange: &Rc<Exchange>) {
        if exchange.mark_timeout() >= TIMEOUTS_MAX {
            self.retire(exchange);
        }
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
        let mut absence = match dial(&target, turn, timeout, None).await {
            Err(error) => Absence::connect(error.to_string()),
            Ok(stream) => {
                // Whether the peer speaks HTTP/2 shows later.
                let exchange = Exchange::new(keepalive);
                slot.retired.set(false);
                slot.turn_into(State::Up(Rc::clone(&exchange)));
                let ended = serve(stream, &slot, &exchange, timeout).await;
                match ended {
                    // Taken and dropped again: as good as refused.
                    Some(absence) if !exchange.has_answered() => absence,
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

/// Runs the connection to its end and says why it ended; `None` when it was retired, and then
/// runs on beside until its last request has ended.
async fn serve(
    stream: Line,
    slot: &Rc<Slot>,
    exchange: &Rc<Exchange>,
    timeout: Duration,
) -> Option<Absence> {
    let (leaving, left) = (Rc::clone(slot), Rc::clone(exchange));
    let driving = Rc::clone(exchange).drive(stream, move || leaving.retire(&left));
    let mut driving = Box::pin(driving);
    let ended = or(
        async {
            (&mut driving).await;
            Some(exchange.absence())
        },
        async {
            slot.until(|| slot.retired.get()).await;
            None
        },
    )
    .await;
    if exchange.has_left() {
        return None;
    }
    if ended.is_none() {
        // A peer that vanished lets no connection end. No request is under way for longer than one
        // timeout until it may be sent and one until it is answered.
        spawn(or(driving, sleep(timeout.saturating_mul(2))));
    }
    ended
}
