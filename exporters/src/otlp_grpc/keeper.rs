//! Keeps one connection: makes it, makes it again when it ended, and ends it when it is too old or
//! has nothing to do.
//!
//! Always: between two failures lies a jittered, growing pause. A connection that is too old ends
//! only once another has heard the peer's settings in its place; if none can be made, it stays.
//! One that ends takes no more calls, and those that are under way on it finish. A keeper that is
//! wanted by nobody ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_net::dial::dial;
use forebay_net::glommio_io::{sleep, spawn};
use futures_lite::future::or;

use super::connections::{Absence, Connections, State};
use super::exchange::Exchange;
use crate::lane::Lane;

pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a connection's keeper hears.
enum Event {
    /// The connection takes no more calls.
    Over,
    /// Nobody needs this endpoint any more.
    Closed,
    /// It has had no call for too long.
    Idle,
    TooOld,
}

/// Keeps the connection at `index` for as long as somebody wants it. Its state is `Connecting`.
pub(super) async fn keep(connections: Rc<Connections>, index: usize) {
    let slot = connections.slot(index);
    let closed = || slot.until(|| connections.is_closed());
    let mut is_needed = !connections.is_closed();
    while is_needed {
        let began = Instant::now();
        let making = async {
            match index {
                0 => Some(connect(&connections).await),
                // Others are there already: what one more takes is better known first.
                _ => Some(connect_and_meet(&connections).await),
            }
        };
        let made = or(making, async {
            closed().await;
            None
        });
        let absence = match made.await {
            None => break,
            Some(Err(absence)) => Some(absence),
            Some(Ok(exchange)) => {
                slot.is_wanted.set(false);
                connections.turn_into(index, State::Up(Rc::clone(&exchange)));
                attend(&connections, index, exchange).await
            }
        };
        match absence {
            Some(absence) => {
                let was_quick = began.elapsed() < connections.rules.timeout / 2;
                or(rest(&connections, index, absence, was_quick), closed()).await;
            }
            None => slot.pause.set(PAUSE_MIN),
        }
        is_needed = slot.is_wanted.get() || connections.is_warm(index);
        is_needed &= !connections.is_closed();
        if is_needed {
            connections.turn_into(index, State::Connecting);
        }
    }
    connections.turn_into(index, State::Idle);
}

/// The pause after a failure. A first failure that was quick may be a moment's: those who wait go
/// on waiting for the second try.
async fn rest(connections: &Connections, index: usize, mut absence: Absence, was_quick: bool) {
    let slot = connections.slot(index);
    let pause = slot.pause.get();
    if was_quick && pause == PAUSE_MIN {
        connections.turn_into(index, State::Connecting);
        slot.is_wanted.set(true);
    } else {
        slot.is_wanted.set(false);
        absence.why = format!("{}: {}", connections.target, absence.why);
        connections.turn_into(index, State::Down(absence));
    }
    slot.pause.set(pause.mul_f64(1.6).min(PAUSE_MAX));
    sleep(jittered(pause)).await;
}

/// From a connection to its end, replacing it by another when it is time to. Says why there is
/// none, if the last one was of no use.
async fn attend(
    connections: &Rc<Connections>,
    index: usize,
    first: Rc<Exchange>,
) -> Option<Absence> {
    let mut exchange = first;
    let mut expires = expiry(connections.rules.age_max);
    // No replacement is tried before.
    let mut not_before = Instant::now();
    loop {
        match next_event(connections, index, &exchange, expires, not_before).await {
            Event::Over => return exchange.has_fallen().then(|| exchange.absence()),
            Event::Closed => {
                exchange.leave();
                return None;
            }
            Event::Idle if !connections.is_warm(index) => {
                exchange.leave();
                return None;
            }
            Event::Idle | Event::TooOld => {
                let replacement = or(async { connect_and_meet(connections).await.ok() }, async {
                    exchange.over().await;
                    None
                });
                let Some(fresh) = replacement.await else {
                    not_before = Instant::now() + jittered(PAUSE_MAX);
                    continue;
                };
                connections.turn_into(index, State::Up(Rc::clone(&fresh)));
                exchange.leave();
                exchange = fresh;
                expires = expiry(connections.rules.age_max);
            }
        }
    }
}

async fn next_event(
    connections: &Connections,
    index: usize,
    exchange: &Exchange,
    expires: Option<Instant>,
    not_before: Instant,
) -> Event {
    let over = async {
        exchange.over().await;
        Event::Over
    };
    let closed = async {
        connections.slot(index).until(|| connections.is_closed()).await;
        Event::Closed
    };
    let timed = async {
        sleep(not_before.saturating_duration_since(Instant::now())).await;
        time_out(exchange, connections.rules.idle_timeout, expires).await
    };
    or(over, or(closed, timed)).await
}

async fn time_out(
    exchange: &Exchange,
    idle_timeout: Option<Duration>,
    expires: Option<Instant>,
) -> Event {
    loop {
        let now = Instant::now();
        if expires.is_some_and(|at| at <= now) {
            return Event::TooOld;
        }
        let idles_out = idle_timeout.and_then(|timeout| {
            let since = exchange.idle_since().unwrap_or(now);
            since.checked_add(timeout)
        });
        if idles_out.is_some_and(|at| at <= now) {
            return Event::Idle;
        }
        match expires.into_iter().chain(idles_out).min() {
            Some(at) => sleep(at - now).await,
            None => std::future::pending().await,
        }
    }
}

/// A connection whose peer has sent its settings.
async fn connect_and_meet(connections: &Connections) -> Result<Rc<Exchange>, Absence> {
    let fresh = connect(connections).await?;
    let leaving = Leaving(Some(Rc::clone(&fresh)));
    let timeout = connections.rules.timeout;
    let met = or(fresh.greeted(), async {
        sleep(timeout).await;
        false
    });
    if !met.await {
        return Err(fresh.absence());
    }
    leaving.stay();
    Ok(fresh)
}

/// A connection that is left unless it is told to stay: also when nobody waits for it any more.
struct Leaving(Option<Rc<Exchange>>);

impl Leaving {
    fn stay(mut self) {
        self.0 = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(exchange) = &self.0 {
            exchange.leave();
        }
    }
}

/// Dials, and starts what moves the bytes. Whether the peer speaks HTTP/2 shows later.
async fn connect(connections: &Connections) -> Result<Rc<Exchange>, Absence> {
    let turn = connections.dialled.get();
    connections.dialled.set(turn.wrapping_add(1));
    let timeout = connections.rules.timeout;
    let security = connections.initiator.as_ref().map(|initiator| initiator.security());
    let dialled = dial(&connections.target, turn, timeout, security.as_deref()).await;
    let stream = dialled.map_err(|error| Absence::below(&error, ""))?;
    let exchange = Exchange::new(connections.rules.keepalive);
    let (driven, counted) = (Rc::clone(&exchange), Counted::new(&connections.lane));
    spawn(async move {
        let overstay = async {
            driven.over().await;
            // A peer that vanished lets no connection end. No request is under way for longer than
            // one timeout until it may be sent and one until it is answered.
            sleep(timeout.saturating_mul(2)).await;
        };
        or(Rc::clone(&driven).drive(stream), overstay).await;
        drop(counted);
    });
    Ok(exchange)
}

/// An open connection, as the lane counts them.
struct Counted(Arc<Lane>);

impl Counted {
    fn new(lane: &Arc<Lane>) -> Counted {
        lane.stats().connection_made();
        Counted(Arc::clone(lane))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats().connection_closed();
    }
}

/// When a connection made now is too old: give or take a tenth, so that many do not end at once.
fn expiry(age_max: Option<Duration>) -> Option<Instant> {
    let age = age_max?.mul_f64(0.9 + 0.2 * fastrand::f64());
    Instant::now().checked_add(age)
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * fastrand::f64())
}
