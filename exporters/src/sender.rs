//! The exporter core's side of a lane: who sends, who waits, who wakes whom.
//!
//! A lane has `queue.consumers` sender tasks and one keeper, all started once. Senders take a part
//! that is due (from the queue or from the retries), make one attempt after another while another
//! endpoint may take it, and either end the part or put it among the retries, where it waits on a
//! clock beside the lane: a part that fails holds up no sender, not even of its own batch. The
//! keeper sleeps until an offer, a due retry or a stop, and wakes as many senders as there is work
//! for. It also knows when a destination that refuses everything may be asked again, and sees to it
//! that somebody asks then, however long all its parts would wait.
//!
//! Always: each batch that was taken is settled exactly once, also when the process stops and when
//! an attempt panics. A call that is not made, or called off, is given back to its endpoint.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use forebay_net::glommio_io::{sleep, yield_if_needed};
use futures_lite::future::or;

use crate::batch::{Returns, Settled};
use crate::cluster::Cluster;
use crate::core::{Seat, Stop};
use crate::destination::Destination;
use crate::dispatch::{Dispatcher, Step};
use crate::endpoints::Endpoint;
use crate::held::Part;
use crate::journal::Journal;
use crate::lane::Lane;
use crate::parts;
use crate::stats::LaneStats;
use crate::transport::{Request, Transport};
use crate::verdict::{FailureKind, Verdict, again};
use crate::waiting::Waiting;

mod ends;

/// How soon a receiver whose queue was full is offered its settled batches again.
const SETTLE_PAUSE: Duration = Duration::from_millis(1);
/// Between two parts that try before their time whether a destination that refused everything
/// works again.
const HURRY_PAUSE: Duration = Duration::from_millis(50);
/// How late a lane learns that other cores have found every endpoint dead.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What the tasks of one lane share.
pub(crate) struct Sender {
    destination: Arc<Destination>,
    cluster: Arc<Cluster>,
    lane: Arc<Lane>,
    returns: Arc<dyn Returns>,
    stop: Arc<Stop>,
    transport: Transport,
    dispatcher: RefCell<Dispatcher>,
    journal: Rc<Journal>,
    bytes_max: Option<u64>,
    /// Parts that may be sent at once: what was cut off from those in hand.
    ready: RefCell<VecDeque<Part>>,
    waiting: RefCell<Waiting<Part>>,
    /// Ended batches whose receiver had no room for the word yet.
    unsettled: RefCell<VecDeque<Settled>>,
    /// One place per sender task.
    places: Vec<Place>,
    /// Whether a retry goes before a fresh batch: they take turns, so that neither starves.
    retry_first: Cell<bool>,
    /// No part is hurried before.
    next_hurry: Cell<Option<Instant>>,
    ended: Cell<bool>,
}

/// A sender task's waker, by what it waits for.
#[derive(Default)]
struct Place {
    idle: RefCell<Option<Waker>>,
    sending: RefCell<Option<Waker>>,
}

impl Sender {
    /// Opens the destination's transport; called on the executor that will send.
    pub(crate) fn open(seat: Seat, returns: Arc<dyn Returns>, stop: Arc<Stop>) -> Rc<Sender> {
        let journal = Rc::new(Journal::new(&seat.destination.name));
        let transport = Transport::open(&seat, &journal);
        let Seat { destination, cluster, lane, .. } = seat;
        let consumers = destination.queue.consumers.max(1);
        Rc::new(Sender {
            transport,
            dispatcher: RefCell::new(cluster.dispatcher(&destination, fastrand::Rng::new())),
            journal,
            bytes_max: Transport::request_bytes_max(&destination),
            destination,
            cluster,
            lane,
            returns,
            stop,
            ready: RefCell::default(),
            waiting: RefCell::default(),
            unsettled: RefCell::default(),
            places: std::iter::repeat_with(Place::default).take(consumers).collect(),
            retry_first: Cell::new(false),
            next_hurry: Cell::new(None),
            ended: Cell::new(false),
        })
    }

    /// How many times [`Sender::consume`] is to be run beside [`Sender::keep`].
    pub(crate) fn consumers(&self) -> usize {
        self.places.len()
    }

    /// One sender task. Ends when the lane has ended.
    pub(crate) async fn consume(self: Rc<Self>, place: usize) {
        while let Some(part) = self.next(place).await {
            self.work(place, part).await;
            yield_if_needed().await;
        }
    }

    /// The lane's clock and bell. Ends when the lane is stopped and holds nothing more.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            self.settle_waiting();
            if self.is_abandoned() {
                self.abandon();
            }
            if self.stop.is_closed() && self.lane.stats().held_batches() == 0 {
                self.lane.end();
                // An offer may have come in just before the end was marked.
                if self.lane.stats().held_batches() == 0 {
                    break;
                }
            }
            let now = Instant::now();
            let look = self.look_at_cluster(now);
            self.wake_idle(now);
            self.something_to_do(now, look).await;
        }
        self.ended.set(true);
        self.lane.forget_waker();
        for place in &self.places {
            wake(&place.idle);
        }
    }

    /// The next part that is due, waiting for it; `None` when the lane has ended.
    async fn next(&self, place: usize) -> Option<Part> {
        poll_fn(|cx| {
            if self.ended.get() {
                return Poll::Ready(None);
            }
            if let Some(part) = self.take(Instant::now()) {
                return Poll::Ready(Some(part));
            }
            self.places[place].idle.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    fn take(&self, now: Instant) -> Option<Part> {
        if self.is_abandoned() {
            // What is left is the keeper's to settle.
            return None;
        }
        let retry_first = self.retry_first.replace(!self.retry_first.get());
        if retry_first {
            self.take_retry(now).or_else(|| self.take_fresh())
        } else {
            self.take_fresh().or_else(|| self.take_retry(now))
        }
    }

    /// The rest of a batch before another: what is begun ends first.
    fn take_fresh(&self) -> Option<Part> {
        let ready = self.ready.borrow_mut().pop_front();
        ready.or_else(|| self.lane.pop().map(Part::whole))
    }

    fn take_retry(&self, now: Instant) -> Option<Part> {
        let mut waiting = self.waiting.borrow_mut();
        let part = waiting.take_due(now)?;
        self.stats().retries_waiting(waiting.count());
        Some(part)
    }

    /// Attempts until the part has ended or has to wait.
    async fn work(&self, place: usize, mut part: Part) {
        loop {
            part = match self.cut_to_fit(part) {
                Some(part) => part,
                None => return,
            };
            let now = Instant::now();
            // Borrowed for the question alone: never across an await.
            let step = self.dispatcher.borrow_mut().next(&mut part.delivery, now);
            let call = match step {
                Step::Call(call) => call,
                Step::Wait { wait, why } => return self.hold_up(part, now, wait, why),
                Step::GiveUp => return self.give_up_unsent(part, now),
            };
            if let Some(transition) = call.transition() {
                self.tell(now, call.endpoint(), &transition);
            }
            let Some(verdict) = self.attempt(place, call.endpoint(), &part).await else {
                // The call goes back as not made: nobody knows how it would have ended.
                return self.shut_down([part]);
            };
            part = match self.judge(part, call, verdict, Instant::now()) {
                Some(part) => part,
                None => return,
            };
            yield_if_needed().await;
        }
    }

    /// The part as it may be sent: for one owner of its keys, and within the size limit. What was
    /// cut off goes to the other senders; `None`: all of it has ended.
    fn cut_to_fit(&self, mut part: Part) -> Option<Part> {
        if let Some(key) = &self.cluster.backends().routing_key {
            let mut dispatcher = self.dispatcher.borrow_mut();
            let snapshot = dispatcher.snapshot();
            if part.generation != Some(snapshot.generation()) {
                part = self.first_of(parts::by_key(part, key, snapshot, Instant::now()));
            }
        }
        let Some(bytes_max) = self.bytes_max.filter(|bytes_max| part.bytes > *bytes_max) else {
            return Some(part);
        };
        let part = self.first_of(parts::by_size(part, bytes_max));
        if part.bytes <= bytes_max {
            return Some(part);
        }
        self.over_limit(part, bytes_max);
        None
    }

    /// Keeps the first; the others are ready for whoever is free.
    fn first_of(&self, mut parts: Vec<Part>) -> Part {
        if parts.len() > 1 {
            parts.iter_mut().for_each(|part| part.charge_copies(&self.lane));
        }
        let others = parts.split_off(1);
        self.make_ready(others);
        parts.pop().expect("what is cut comes to one part at least")
    }

    fn make_ready(&self, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        self.ready.borrow_mut().extend(parts);
        self.lane.wake();
    }

    /// One attempt; `None` when the lane was abandoned meanwhile.
    async fn attempt(
        &self,
        place: usize,
        endpoint: &Arc<Endpoint>,
        part: &Part,
    ) -> Option<Verdict> {
        let stats = self.stats();
        let _flight = Flight::begin(stats, part.delivery.calls());
        let (signal, items) = (part.batch().signal, part.counts.items);
        let request = Request { signal, items, chain: part.chain(), packed: &part.packed, stats };
        let mut sending = pin!(self.transport.send(endpoint, &request));
        let place = &self.places[place];
        let verdict = poll_fn(|cx| {
            if self.is_abandoned() {
                return Poll::Ready(None);
            }
            // A panic in the task would end the whole process with everything it holds.
            let polled = catch_unwind(AssertUnwindSafe(|| sending.as_mut().poll(cx)));
            match polled {
                Ok(Poll::Ready(verdict)) => Poll::Ready(Some(verdict)),
                Err(_) => {
                    let text = "a defect in forebay stopped the attempt; its text is above";
                    Poll::Ready(Some(again(FailureKind::Internal, text)))
                }
                Ok(Poll::Pending) => {
                    place.sending.replace(Some(cx.waker().clone()));
                    Poll::Pending
                }
            }
        })
        .await;
        place.sending.take();
        verdict
    }

    /// Wakes one idle sender for each part that could be sent now.
    fn wake_idle(&self, now: Instant) {
        let due = self.waiting.borrow().due(now, self.places.len());
        let work = self.lane.queued() + self.ready.borrow().len() + due;
        self.places.iter().filter(|place| wake(&place.idle)).take(work).for_each(drop);
    }

    /// While parts wait: sees to it that a destination that refuses everything is asked again as
    /// soon as it may be, and that what may go elsewhere does. Says when to look again.
    fn look_at_cluster(&self, now: Instant) -> Option<Instant> {
        if self.waiting.borrow().is_empty() {
            return None;
        }
        if let Some(wait) = self.cluster.refuses(now) {
            self.fail_over_waiting(now);
            return Some(now + wait.max(HURRY_PAUSE));
        }
        if self.cluster.endpoints().fleet().closed() > 0 {
            return Some(now + LOOK_PAUSE);
        }
        let next = self.next_hurry.get().filter(|next| *next > now);
        if next.is_none() {
            self.waiting.borrow_mut().hurry(now);
            self.next_hurry.set(Some(now + HURRY_PAUSE));
        }
        self.next_hurry.get()
    }

    /// Sleeps until an offer, a stop, a word from a sender, or a time that is due. Retries due by
    /// `now` have had their senders woken; if none was free, the first that becomes free looks.
    async fn something_to_do(&self, now: Instant, look: Option<Instant>) {
        let knock = poll_fn(|cx| {
            self.lane.listen(cx.waker());
            if self.lane.take_knock() { Poll::Ready(()) } else { Poll::Pending }
        });
        let next_retry = self.waiting.borrow().next_due(now);
        let next_settle = (!self.unsettled.borrow().is_empty()).then(|| now + SETTLE_PAUSE);
        match next_retry.into_iter().chain(next_settle).chain(look).min() {
            None => knock.await,
            Some(due) => or(knock, sleep(due.saturating_duration_since(Instant::now()))).await,
        }
    }

    /// With all lanes, or alone.
    fn is_abandoned(&self) -> bool {
        self.stop.is_abandoned() || self.lane.is_abandoned()
    }

    fn stats(&self) -> &LaneStats {
        self.lane.stats()
    }
}

/// An attempt counted as in flight, also when it is called off.
struct Flight<'a>(&'a LaneStats);

impl<'a> Flight<'a> {
    fn begin(stats: &'a LaneStats, number: u32) -> Flight<'a> {
        stats.attempt_began(number);
        Flight(stats)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.attempt_ended();
    }
}

fn wake(waker: &RefCell<Option<Waker>>) -> bool {
    match waker.take() {
        Some(waker) => {
            waker.wake();
            true
        }
        None => false,
    }
}
