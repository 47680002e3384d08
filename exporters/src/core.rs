//! An exporter core: a thread with an executor, the lanes' tasks on it, and its way to end.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use forebay_net::glommio_io::{join_task, start_executor};
use forebay_net::tls::outward::Initiator;

use crate::batch::Returns;
use crate::cluster::Cluster;
use crate::destination::Destination;
use crate::lane::Lane;
use crate::sender::Sender;

/// States of a [`Stop`]; 0 is running.
const CLOSED: u8 = 1;
const ABANDONED: u8 = 2;

/// Tells all exporter cores that share it to end. Goes one way only: running, closed, abandoned.
#[derive(Default)]
pub struct Stop {
    state: AtomicU8,
    lanes: Mutex<Vec<Arc<Lane>>>,
}

impl Stop {
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Lanes end once they hold nothing more. Retries go on until then.
    pub fn close(&self) {
        self.advance(CLOSED);
    }

    /// Lanes settle all they hold as dropped (`Shutdown`) and end. Requests in flight are called
    /// off: the destination may have taken them all the same.
    pub fn abandon(&self) {
        self.advance(ABANDONED);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) >= CLOSED
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.state.load(Ordering::SeqCst) == ABANDONED
    }

    fn advance(&self, state: u8) {
        self.state.fetch_max(state, Ordering::SeqCst);
        for lane in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            lane.wake();
        }
    }

    fn tell(&self, lane: &Arc<Lane>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(Arc::clone(lane));
    }
}

/// One destination's place on an exporter core.
pub struct Seat {
    pub destination: Arc<Destination>,
    pub cluster: Arc<Cluster>,
    pub lane: Arc<Lane>,
    /// TLS to every endpoint; `None`: cleartext.
    pub initiator: Option<Arc<Initiator>>,
}

/// Starts one exporter core: a thread, pinned if `core` is given, with the lanes' tasks on it. It
/// ends when `stop` says so and every batch that its lanes took is settled.
///
/// # Errors
/// The thread or its rings could not be made; the text says why (no io_uring, locked memory, a
/// core that is not there).
pub fn start(
    name: String,
    core: Option<usize>,
    seats: Vec<Seat>,
    returns: Arc<dyn Returns>,
    stop: Arc<Stop>,
) -> std::io::Result<JoinHandle<()>> {
    for seat in &seats {
        stop.tell(&seat.lane);
    }
    start_executor(name, core, move || run(seats, returns, stop))
}

async fn run(seats: Vec<Seat>, returns: Arc<dyn Returns>, stop: Arc<Stop>) {
    let (mut consumers, mut keepers) = (Vec::new(), Vec::new());
    for seat in seats {
        let sender = Sender::open(seat, Arc::clone(&returns), Arc::clone(&stop));
        for place in 0..sender.consumers() {
            consumers.push(join_task(sender.clone().consume(place)));
        }
        keepers.push(join_task(sender.keep()));
    }
    for keeper in keepers {
        keeper.await;
    }
    for consumer in consumers {
        consumer.await;
    }
}
