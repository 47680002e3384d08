//! Kept-alive HTTP/1.1 connections to one endpoint on one exporter core.
//!
//! Always: no more requests are in flight than there are permits, and no more connections are
//! idle than that; an idle connection is closed after the idle timeout, and one that is too old as
//! soon as a new one was made for its next request; one that nobody holds any more is closed at
//! once, whatever its peer does, but for the goodbye of TLS, which has a moment. Starts one task
//! per connection, none per request.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use forebay_net::dial::{Target, dial};
use forebay_net::glommio_io::{sleep, spawn};
use forebay_net::tls::outward::Initiator;
use futures_lite::future::or;
use hyper::client::conn::http1::{self, SendRequest};

use super::body::ChainBody;
use crate::destination::{self, OtlpHttp};
use crate::lane::Lane;
use crate::verdict::{FailureKind, Verdict, again};

/// A peer that closes a fresh connection sooner did not want it.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// Between two attempts to warm an endpoint up.
const WARM_PAUSE_MIN: Duration = Duration::from_millis(200);
const WARM_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How connections are kept.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) connections_max: usize,
    connect_timeout: Duration,
    /// Zero: never.
    idle_timeout: Duration,
    age_max: Option<Duration>,
}

impl Rules {
    pub(super) fn of(settings: &OtlpHttp, pool: destination::Pool) -> Rules {
        Rules {
            connections_max: settings.connections.max(1),
            connect_timeout: settings.timeout,
            idle_timeout: settings.idle_timeout,
            age_max: pool.age_max.filter(|age| !age.is_zero()),
        }
    }
}

pub(super) struct Pool {
    /// The error is for the log: the configuration and discovery refuse such addresses.
    target: Result<Target, Absence>,
    rules: Rules,
    permits: Rc<Permits>,
    idle: RefCell<Vec<Pooled>>,
    turn: Cell<usize>,
    lane: Arc<Lane>,
    /// `None`: cleartext.
    initiator: Option<Arc<Initiator>>,
    /// Connections there are, in use and idle.
    open: Rc<Cell<usize>>,
    is_warming: Cell<bool>,
    /// When it was done last, and how long before it may be done again.
    warmed: Cell<Option<Instant>>,
    warm_pause: Cell<Duration>,
}

/// A connection that carries one request at a time.
pub(super) struct Pooled {
    pub(super) sender: SendRequest<ChainBody>,
    /// Whether it was a connection to somebody, who may have closed it meanwhile: it has carried a
    /// request, or lain idle for a while.
    pub(super) has_worked: bool,
    expires: Option<Instant>,
    hold: Rc<Hold>,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) struct Absence {
    kind: FailureKind,
    why: String,
}

impl Absence {
    fn of(target: &Target, error: &(dyn Error + 'static)) -> Absence {
        let kind = FailureKind::of_line(error, FailureKind::Connect);
        Absence { kind, why: format!("{target}: {error}") }
    }

    pub(super) fn verdict(self) -> Verdict {
        again(self.kind, self.why)
    }
}

/// What the pool and the connection's own task know of each other.
#[derive(Default)]
struct Hold {
    /// Since when it lies idle; `None` while it is in use.
    idle_since: Cell<Option<Instant>>,
    is_let_go: Cell<bool>,
    /// The task's.
    waker: Cell<Option<Waker>>,
}

impl Pool {
    pub(super) fn new(
        address: &str,
        rules: Rules,
        lane: Arc<Lane>,
        initiator: Option<Arc<Initiator>>,
    ) -> Pool {
        let no_target = || Absence {
            kind: FailureKind::Connect,
            why: format!("the endpoint {address} names no host and port"),
        };
        Pool {
            target: Target::parse(address).ok_or_else(no_target),
            permits: Rc::new(Permits {
                free: Cell::new(rules.connections_max),
                waiting: RefCell::default(),
            }),
            rules,
            idle: RefCell::default(),
            turn: Cell::new(0),
            lane,
            initiator,
            open: Rc::default(),
            is_warming: Cell::new(false),
            warmed: Cell::new(None),
            warm_pause: Cell::new(WARM_PAUSE_MIN),
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
    pub(super) async fn connection(&self) -> Result<Pooled, Absence> {
        // A peer that answered a request without reading all of it keeps its connection from ever
        // being ready: it is let go when the time is up.
        let kept = or(self.kept(), async {
            sleep(self.rules.connect_timeout).await;
            None
        });
        match kept.await {
            Some(connection) => Ok(connection),
            None => self.fresh().await,
        }
    }

    /// An idle connection that can carry a request, or one in the place of one that is too old.
    async fn kept(&self) -> Option<Pooled> {
        while let Some(mut connection) = self.take_idle() {
            if connection.is_too_old()
                && let Ok(fresh) = self.fresh().await
            {
                return Some(fresh);
            }
            // Its task may not yet have seen that the last answer is read to its end.
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
        None
    }

    /// A connection that nobody has used yet.
    pub(super) async fn fresh(&self) -> Result<Pooled, Absence> {
        self.connect(self.target.clone()?).await
    }

    pub(super) fn give_back(&self, mut connection: Pooled) {
        connection.has_worked = true;
        self.put_by(connection);
    }

    /// Makes a connection now if there is none; called again and again while it is to be kept.
    pub(super) fn keep_warm(self: &Rc<Self>, is_warm: bool) {
        if !is_warm || self.open.get() > 0 || self.is_warming.get() {
            return;
        }
        let now = Instant::now();
        // Who takes a connection and drops it again is not to be hurried, nor who takes none.
        let pause = self.warm_pause.get();
        let waited = self.warmed.get().map_or(pause, |warmed| now - warmed);
        if waited < pause {
            return;
        }
        let is_soon = waited < WARM_PAUSE_MAX * 2;
        let longer = pause.mul_f64(1.6).min(WARM_PAUSE_MAX);
        self.warm_pause.set(if is_soon { longer } else { WARM_PAUSE_MIN });
        self.warmed.set(Some(now));
        self.is_warming.set(true);
        let pool = Rc::clone(self);
        spawn(async move {
            if let Ok(connection) = pool.fresh().await {
                pool.put_by(connection);
            }
            pool.is_warming.set(false);
        });
    }

    fn put_by(&self, connection: Pooled) {
        connection.hold.idle_since.set(Some(Instant::now()));
        let mut idle = self.idle.borrow_mut();
        idle.push(connection);
        idle.retain(|connection| !connection.sender.is_closed());
        if idle.len() > self.rules.connections_max {
            idle.remove(0);
        }
    }

    fn take_idle(&self) -> Option<Pooled> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.sender.is_closed());
        let mut connection = idle.pop()?;
        let since = connection.hold.idle_since.take();
        connection.has_worked |= since.is_some_and(|since| since.elapsed() >= LIFE_MIN);
        Some(connection)
    }

    async fn connect(&self, target: Target) -> Result<Pooled, Absence> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let security = self.initiator.as_ref().map(|initiator| initiator.security());
        let dialled = dial(&target, turn, self.rules.connect_timeout, security.as_deref()).await;
        let stream = dialled.map_err(|error| Absence::of(&target, &error))?;
        let handshake = http1::handshake(stream).await;
        let (sender, connection) = handshake.map_err(|error| Absence::of(&target, &error))?;
        let hold = Rc::<Hold>::default();
        let (watched, idle_timeout) = (Rc::clone(&hold), self.rules.idle_timeout);
        let counted = Counted::new(&self.open, &self.lane);
        spawn(async move {
            // How it ended is told to whoever waits for an answer on it.
            let unused = or(let_go(&watched), long_idle(&watched.idle_since, idle_timeout));
            let mut connection = connection;
            let is_over = async {
                drop((&mut connection).await);
                false
            };
            let is_unused = async {
                unused.await;
                true
            };
            if or(is_over, is_unused).await {
                connection.into_parts().io.end().await;
            }
            drop(counted);
        });
        let age = self.rules.age_max.map(|age| age.mul_f64(0.9 + 0.2 * fastrand::f64()));
        let expires = age.and_then(|age| Instant::now().checked_add(age));
        Ok(Pooled { sender, has_worked: false, expires, hold })
    }
}

impl Pooled {
    fn is_too_old(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.hold.is_let_go.set(true);
        if let Some(waker) = self.hold.waker.take() {
            waker.wake();
        }
    }
}

/// An open connection, as its pool and the lane count them.
struct Counted(Rc<Cell<usize>>, Arc<Lane>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>, lane: &Arc<Lane>) -> Counted {
        open.set(open.get() + 1);
        lane.stats().connection_made();
        Counted(Rc::clone(open), Arc::clone(lane))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.stats().connection_closed();
    }
}

/// Ends when nobody holds the connection any more.
async fn let_go(hold: &Hold) {
    poll_fn(|cx| match hold.is_let_go.get() {
        true => Poll::Ready(()),
        false => {
            hold.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        }
    })
    .await;
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
