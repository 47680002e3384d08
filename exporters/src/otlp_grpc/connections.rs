//! The HTTP/2 connections to one endpoint: made as calls need them, up to a number.
//!
//! A call goes over the first connection that has room for it: a stream, and a window that takes
//! bytes. If none has, another connection is begun beside, and the call takes whichever is free
//! first. Each connection has a keeper ([`super::keeper`]), which alone changes its state.
//!
//! Always: whoever waits hears within two timeouts; while the endpoint can't be reached nobody
//! waits at all from the second failure on, but hears of the last one until its pause is over.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay_net::dial::Target;
use forebay_net::glommio_io::{sleep, spawn};
use forebay_net::tls::outward::Initiator;
use futures_lite::future::{or, yield_now};

use super::exchange::Exchange;
use super::keeper::{self, PAUSE_MIN};
use crate::destination::{Keepalive, OtlpGrpc, Pool};
use crate::lane::Lane;
use crate::verdict::{FailureKind, Verdict, again};

/// A connection that closes between being picked and being used is replaced this often before
/// the attempt counts as failed: nothing was sent yet.
const PICKS_MAX: usize = 3;

pub(super) struct Connections {
    pub(super) target: Target,
    pub(super) rules: Rules,
    pub(super) lane: Arc<Lane>,
    /// `None`: cleartext.
    pub(super) initiator: Option<Arc<Initiator>>,
    slots: Vec<Slot>,
    /// How many times the endpoint was dialled.
    pub(super) dialled: Cell<usize>,
    is_warm: Cell<bool>,
    is_closed: Cell<bool>,
    changes: Cell<u64>,
    /// Those who wait for a connection to come or go.
    waiting: RefCell<Vec<Waker>>,
}

/// How connections are kept. No time of zero.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) timeout: Duration,
    pub(super) keepalive: Keepalive,
    pub(super) age_max: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
}

impl Rules {
    pub(super) fn of(settings: &OtlpGrpc, pool: Pool) -> Rules {
        let above_zero = |time: &Duration| !time.is_zero();
        Rules {
            timeout: settings.timeout,
            keepalive: settings.keepalive,
            age_max: pool.age_max.filter(above_zero),
            idle_timeout: pool.idle_timeout.filter(above_zero),
        }
    }
}

/// The place of one connection.
pub(super) struct Slot {
    state: RefCell<State>,
    /// Somebody waits for it.
    pub(super) is_wanted: Cell<bool>,
    /// After the next failure.
    pub(super) pause: Cell<Duration>,
    keeper: RefCell<Option<Waker>>,
}

pub(super) enum State {
    /// There is none, and nobody makes one: it has no keeper.
    Idle,
    Connecting,
    /// It could not be made. A pause is under way.
    Down(Absence),
    Up(Rc<Exchange>),
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) struct Absence {
    pub(super) kind: FailureKind,
    pub(super) why: String,
}

impl Absence {
    pub(super) fn connect(why: String) -> Absence {
        Absence { kind: FailureKind::Connect, why }
    }

    /// What broke below HTTP/2; `doing` goes before the error's own words.
    pub(super) fn below(error: &io::Error, doing: &str) -> Absence {
        let kind = FailureKind::of_line(error, FailureKind::Connect);
        Absence { kind, why: format!("{doing}{error}") }
    }

    pub(super) fn is_of_tls(&self) -> bool {
        self.kind == FailureKind::Tls
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

/// Where a call may go now.
enum Choice {
    Roomy(Rc<Exchange>),
    /// None of these has room; the least busy first.
    Full(Vec<Rc<Exchange>>),
    /// A connection is being made.
    Coming,
    Nowhere(Absence),
}

impl Connections {
    /// Makes none yet.
    pub(super) fn new(
        target: Target,
        count: usize,
        rules: Rules,
        lane: Arc<Lane>,
        initiator: Option<Arc<Initiator>>,
    ) -> Connections {
        let slot = || Slot {
            state: RefCell::new(State::Idle),
            is_wanted: Cell::new(false),
            pause: Cell::new(PAUSE_MIN),
            keeper: RefCell::default(),
        };
        Connections {
            target,
            rules,
            lane,
            initiator,
            slots: std::iter::repeat_with(slot).take(count.max(1)).collect(),
            dialled: Cell::new(0),
            is_warm: Cell::new(false),
            is_closed: Cell::new(false),
            changes: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// A connection on which a call can begin now.
    pub(super) async fn take(self: &Rc<Self>) -> Result<Rc<Exchange>, Absence> {
        let limit = self.rules.timeout.saturating_mul(2);
        or(self.find(), async {
            sleep(limit).await;
            let why = format!("the destination took no further request for {limit:?}");
            Err(Absence::connect(why))
        })
        .await
    }

    /// Makes the first connection now, and again whenever it ends; or no more.
    pub(super) fn keep_warm(self: &Rc<Self>, is_warm: bool) {
        self.is_warm.set(is_warm);
        if is_warm && matches!(*self.slots[0].state.borrow(), State::Idle) {
            self.want(0);
        }
    }

    /// Ends each connection after its last call, and makes no more.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        for slot in &self.slots {
            slot.wake_keeper();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    pub(super) fn is_warm(&self, index: usize) -> bool {
        index == 0 && self.is_warm.get() && !self.is_closed()
    }

    pub(super) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// For the slot's keeper alone.
    pub(super) fn turn_into(&self, index: usize, state: State) {
        self.slots[index].state.replace(state);
        self.changes.set(self.changes.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    async fn find(self: &Rc<Self>) -> Result<Rc<Exchange>, Absence> {
        let mut picks = 0;
        loop {
            let exchanges = match self.choose() {
                Choice::Roomy(exchange) => return Ok(exchange),
                Choice::Nowhere(absence) => return Err(absence),
                Choice::Full(exchanges) => exchanges,
                Choice::Coming => Vec::new(),
            };
            let changed = Change::of(self);
            let ready = async { Some(first_ready(&exchanges).await) };
            let came = async {
                changed.come().await;
                None
            };
            match or(ready, came).await {
                Some(Ok(exchange)) => return Ok(exchange),
                Some(Err(absence)) => {
                    picks += 1;
                    if picks == PICKS_MAX {
                        return Err(absence);
                    }
                    yield_now().await;
                }
                None => {}
            }
        }
    }

    fn choose(self: &Rc<Self>) -> Choice {
        let (mut full, mut idle, mut down) = (Vec::new(), None, None);
        let mut is_coming = false;
        for (index, slot) in self.slots.iter().enumerate() {
            match &*slot.state.borrow() {
                State::Up(exchange) if exchange.has_room() => {
                    return Choice::Roomy(Rc::clone(exchange));
                }
                State::Up(exchange) if exchange.is_usable() => full.push(Rc::clone(exchange)),
                // Its keeper is about to see to it.
                State::Up(_) | State::Connecting => is_coming = true,
                State::Down(absence) => down = Some(absence.clone()),
                State::Idle => idle = idle.or(Some(index)),
            }
        }
        if let (Some(index), None, false) = (idle, &down, is_coming) {
            self.want(index);
            is_coming = true;
        }
        full.sort_by_key(|exchange| exchange.load());
        match (full.is_empty(), down) {
            (false, _) => Choice::Full(full),
            (true, Some(absence)) if !is_coming => Choice::Nowhere(absence),
            (true, _) => Choice::Coming,
        }
    }

    fn want(self: &Rc<Self>, index: usize) {
        let slot = &self.slots[index];
        slot.is_wanted.set(true);
        slot.state.replace(State::Connecting);
        spawn(keeper::keep(Rc::clone(self), index));
    }
}

impl Slot {
    /// For the slot's keeper: waits until `holds`, which it asks again when it is woken.
    pub(super) async fn until(&self, holds: impl Fn() -> bool) {
        poll_fn(|cx| {
            if holds() {
                return Poll::Ready(());
            }
            self.keeper.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }
}

/// The first of them on which a call may begin; it waits in all their queues. Of none: never.
async fn first_ready(exchanges: &[Rc<Exchange>]) -> Result<Rc<Exchange>, Absence> {
    let ready = |exchange: &Rc<Exchange>| {
        let exchange = Rc::clone(exchange);
        Box::pin(async move { exchange.ready().await.map(|()| exchange) })
    };
    let mut waits: Vec<_> = exchanges.iter().map(ready).collect();
    poll_fn(|cx| {
        let mut polled = waits.iter_mut().map(|wait| wait.as_mut().poll(cx));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// The next change of any connection's state.
struct Change<'a> {
    connections: &'a Connections,
    /// As many changes there were before.
    seen: u64,
    waker: RefCell<Option<Waker>>,
}

impl<'a> Change<'a> {
    fn of(connections: &'a Connections) -> Change<'a> {
        Change { connections, seen: connections.changes.get(), waker: RefCell::default() }
    }

    async fn come(&self) {
        poll_fn(|cx| self.poll_come(cx)).await;
    }

    fn poll_come(&self, cx: &Context<'_>) -> Poll<()> {
        if self.connections.changes.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.connections.waiting.borrow_mut().push(cx.waker().clone());
            waker.replace(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            self.connections.waiting.borrow_mut().retain(|other| !other.will_wake(&waker));
        }
    }
}
