//! The exporter core's side of a lane: who sends, who waits, who wakes whom.
//!
//! A lane has `queue.consumers` sender tasks and one keeper, all started once. Senders take what is
//! due (from the queue or from the retries), make one attempt, and either settle the batch or put
//! it among the retries, where it waits on a clock beside the lane: a batch that fails holds up no
//! sender. The keeper sleeps until an offer, a due retry or a stop, and wakes as many senders as
//! there is work for.
//!
//! Always: each batch that was taken is settled exactly once, also when the process stops and when
//! an attempt panics.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_net::glommio_io::{sleep, yield_if_needed};
use futures_lite::future::or;

use crate::batch::{DropReason, Outcome, Returns, Settled};
use crate::cluster::Cluster;
use crate::core::Stop;
use crate::destination::Destination;
use crate::dispatch::{After, Dispatcher, Step as Next};
use crate::endpoints::{Call, Endpoint};
use crate::held::{Held, Part};
use crate::journal::Journal;
use crate::lane::Lane;
use crate::stats::LaneStats;
use crate::transport::{Request, Transport};
use crate::verdict::{Failure, FailureKind, Remedy, Verdict, again};

/// How soon a receiver whose queue was full is offered its settled batches again.
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// What the tasks of one lane share.
pub(crate) struct Sender {
    destination: Arc<Destination>,
    lane: Arc<Lane>,
    returns: Arc<dyn Returns>,
    stop: Arc<Stop>,
    transport: Transport,
    dispatcher: RefCell<Dispatcher>,
    journal: Journal,
    bytes_max: Option<u64>,
    /// By due time, and a number that keeps equal times apart.
    retries: RefCell<BTreeMap<(Instant, u64), Held>>,
    retries_made: Cell<u64>,
    /// Ended batches whose receiver had no room for the word yet.
    unsettled: RefCell<VecDeque<Settled>>,
    /// One place per sender task.
    places: Vec<Place>,
    /// Whether a retry goes before a fresh batch: they take turns, so that neither starves.
    retry_first: Cell<bool>,
    ended: Cell<bool>,
}

/// A sender task's waker, by what it waits for.
#[derive(Default)]
struct Place {
    idle: RefCell<Option<Waker>>,
    sending: RefCell<Option<Waker>>,
}

/// What follows an attempt.
enum Step {
    /// The batch has another part, or the same one in halves.
    Continue,
    /// Not before this long.
    Wait(Duration),
}

impl Sender {
    /// Opens the destination's transport; called on the executor that will send.
    pub(crate) fn open(
        destination: Arc<Destination>,
        cluster: Arc<Cluster>,
        lane: Arc<Lane>,
        returns: Arc<dyn Returns>,
        stop: Arc<Stop>,
    ) -> Rc<Sender> {
        let consumers = destination.queue.consumers.max(1);
        Rc::new(Sender {
            transport: Transport::open(&destination),
            dispatcher: RefCell::new(cluster.dispatcher(&destination, fastrand::Rng::new())),
            journal: Journal::new(&destination.name),
            bytes_max: Transport::request_bytes_max(&destination),
            destination,
            lane,
            returns,
            stop,
            retries: RefCell::default(),
            retries_made: Cell::new(0),
            unsettled: RefCell::default(),
            places: std::iter::repeat_with(Place::default).take(consumers).collect(),
            retry_first: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    /// How many times [`Sender::consume`] is to be run beside [`Sender::keep`].
    pub(crate) fn consumers(&self) -> usize {
        self.places.len()
    }

    /// One sender task. Ends when the lane has ended.
    pub(crate) async fn consume(self: Rc<Self>, place: usize) {
        while let Some(held) = self.next(place).await {
            self.work(place, held).await;
            yield_if_needed().await;
        }
    }

    /// The lane's clock and bell. Ends when the lane is stopped and holds nothing more.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            self.settle_waiting();
            if self.stop.is_abandoned() {
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
            self.wake_idle(now);
            self.something_to_do(now).await;
        }
        self.ended.set(true);
        self.lane.forget_waker();
        for place in &self.places {
            wake(&place.idle);
        }
    }

    /// The next batch that is due, waiting for it; `None` when the lane has ended.
    async fn next(&self, place: usize) -> Option<Held> {
        poll_fn(|cx| {
            if self.ended.get() {
                return Poll::Ready(None);
            }
            if let Some(held) = self.take(Instant::now()) {
                return Poll::Ready(Some(held));
            }
            self.places[place].idle.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    fn take(&self, now: Instant) -> Option<Held> {
        if self.stop.is_abandoned() {
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

    fn take_fresh(&self) -> Option<Held> {
        self.lane.pop().map(|batch| Held::new(batch, self.bytes_max))
    }

    fn take_retry(&self, now: Instant) -> Option<Held> {
        let mut retries = self.retries.borrow_mut();
        let first = retries.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let held = first.remove();
        self.stats().retries_waiting(retries.len() as u64);
        Some(held)
    }

    /// Attempts until the batch has settled or has to wait.
    async fn work(&self, place: usize, mut held: Held) {
        while let Some(part) = held.part() {
            if self.bytes_max.is_some_and(|bytes_max| part.bytes > bytes_max) {
                let failure = over_limit(part, self.bytes_max);
                self.stats().failed(failure.kind);
                self.shrink(&mut held, failure, Instant::now());
                continue;
            }
            // Borrowed for the question alone: never across an await.
            let next = self.dispatcher.borrow_mut().next(&mut held.delivery, Instant::now());
            let call = match next {
                Next::Call(call) => call,
                Next::Wait { wait, .. } => {
                    return self.retry_later(held, Instant::now() + wait);
                }
                Next::GiveUp => {
                    let failure = nobody_took_it();
                    self.drop_part(
                        &mut held,
                        DropReason::RetriesExhausted,
                        failure,
                        Instant::now(),
                    );
                    continue;
                }
            };
            let part = held.part().expect("it was there before the call was asked for");
            let signal = held.batch.signal;
            let Some(verdict) = self.attempt(place, signal, call.endpoint(), part).await else {
                break;
            };
            match self.judge(&mut held, call, verdict, Instant::now()) {
                Step::Continue => {}
                Step::Wait(wait) => return self.retry_later(held, Instant::now() + wait),
            }
        }
        self.finish(held);
    }

    /// One attempt; `None` when the lane was abandoned meanwhile.
    async fn attempt(
        &self,
        place: usize,
        signal: Signal,
        endpoint: &Arc<Endpoint>,
        part: &Part,
    ) -> Option<Verdict> {
        let _flight = Flight::begin(self.stats());
        let request =
            Request { signal, items: part.counts.items, chain: &part.chain, stats: self.stats() };
        let mut sending = pin!(self.transport.send(endpoint, &request));
        let place = &self.places[place];
        let verdict = poll_fn(|cx| {
            if self.stop.is_abandoned() {
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

    /// Enters a verdict into the breaker, the batch, the counters and the log.
    fn judge(&self, held: &mut Held, call: Call, verdict: Verdict, now: Instant) -> Step {
        let (after, transition) =
            self.dispatcher.borrow_mut().ended(&mut held.delivery, call, now, &verdict);
        if let Some(transition) = transition {
            tracing::warn!(destination = self.destination.name, "{transition}");
        }
        let failure = match verdict {
            Verdict::Delivered { rejected, warning } => {
                self.delivered(held, rejected, &warning, now);
                return Step::Continue;
            }
            Verdict::Failed(failure) => failure,
        };
        self.stats().failed(failure.kind);
        match after {
            After::Delivered | After::Elsewhere => Step::Continue,
            After::Wait(wait) => {
                self.journal.will_retry(now, &failure, wait, held.items_left());
                Step::Wait(wait)
            }
            After::GiveUp => {
                self.drop_part(held, DropReason::RetriesExhausted, failure, now);
                Step::Continue
            }
            After::Shrink => {
                self.shrink(held, failure, now);
                Step::Continue
            }
            After::Drop => {
                self.drop_part(held, DropReason::Refused, failure, now);
                Step::Continue
            }
        }
    }

    /// Too large: in halves, or not at all.
    fn shrink(&self, held: &mut Held, failure: Failure, now: Instant) {
        if !held.halve() {
            let is_ours = failure.code.is_none();
            let reason = if is_ours { DropReason::TooLarge } else { DropReason::Refused };
            self.drop_part(held, reason, failure, now);
        }
    }

    fn delivered(&self, held: &mut Held, rejected: u64, warning: &str, now: Instant) {
        let signal = held.batch.signal;
        let rejected_items = held.part().map_or(0, |part| rejected_items(signal, part, rejected));
        let items = held.part().map_or(0, |part| part.counts.items) - rejected_items;
        self.stats().delivered(signal, items);
        if rejected_items > 0 {
            self.stats().dropped(DropReason::PartialSuccess, signal, rejected_items);
        }
        if rejected_items > 0 || !warning.is_empty() {
            self.journal.partial(now, warning, rejected_items);
        }
        self.journal.delivered(now);
        held.delivered(rejected_items);
    }

    fn drop_part(&self, held: &mut Held, reason: DropReason, failure: Failure, now: Instant) {
        let Failure { code, message, .. } = failure;
        let items = held.dropped(reason, code, message.clone());
        self.stats().dropped(reason, held.batch.signal, items);
        self.journal.dropped(now, reason, &message, items);
    }

    fn retry_later(&self, held: Held, due: Instant) {
        let number = self.retries_made.get();
        self.retries_made.set(number + 1);
        let mut retries = self.retries.borrow_mut();
        retries.insert((due, number), held);
        self.stats().retries_waiting(retries.len() as u64);
        drop(retries);
        // The keeper may be asleep until something later.
        self.lane.wake();
    }

    /// The batch has ended, or the lane was abandoned and what is left of it is dropped.
    fn finish(&self, mut held: Held) {
        let mut abandoned_items = 0;
        while held.part().is_some() {
            let text = "the process stopped before the destination took it".to_owned();
            let items = held.dropped(DropReason::Shutdown, None, text);
            self.stats().dropped(DropReason::Shutdown, held.batch.signal, items);
            abandoned_items += items;
        }
        if abandoned_items > 0 {
            let text = "stopped before the destination took it";
            self.journal.dropped(Instant::now(), DropReason::Shutdown, text, abandoned_items);
        }
        let (batch, bytes) = (held.batch.id, held.batch.bytes);
        let outcome = held.outcome();
        if matches!(outcome, Outcome::Delivered { .. }) {
            self.stats().delivered_batch();
        }
        let destination = self.lane.destination_index();
        let settled = Settled { batch, destination, outcome, given_back: Vec::new() };
        self.stats().bytes_released(bytes);
        match self.returns.settle(settled) {
            Ok(()) => self.stats().unreserve(),
            Err(settled) => self.unsettled.borrow_mut().push_back(settled),
        }
        // A stop may be waiting for the last batch, and an unsettled one for its next try.
        self.lane.wake();
    }

    fn settle_waiting(&self) {
        let mut unsettled = self.unsettled.borrow_mut();
        for _ in 0..unsettled.len() {
            let Some(settled) = unsettled.pop_front() else {
                return;
            };
            match self.returns.settle(settled) {
                Ok(()) => self.stats().unreserve(),
                // Others may be for another receiver, so they are tried too.
                Err(settled) => unsettled.push_back(settled),
            }
        }
    }

    /// Ends everything that no sender has in hand, and calls off what they have.
    fn abandon(&self) {
        self.lane.end();
        while let Some(batch) = self.lane.pop() {
            self.finish(Held::new(batch, None));
        }
        let retries = self.retries.take();
        self.stats().retries_waiting(0);
        for held in retries.into_values() {
            self.finish(held);
        }
        for place in &self.places {
            wake(&place.sending);
        }
    }

    /// Wakes one idle sender for each batch that could be sent now.
    fn wake_idle(&self, now: Instant) {
        let due = self.retries.borrow().range(..=(now, u64::MAX)).take(self.places.len()).count();
        let work = self.lane.queued() + due;
        self.places.iter().filter(|place| wake(&place.idle)).take(work).for_each(drop);
    }

    /// Sleeps until an offer, a stop, a word from a sender, or a time that is due. Retries due by
    /// `now` have had their senders woken; if none was free, the first that becomes free looks.
    async fn something_to_do(&self, now: Instant) {
        let knock = poll_fn(|cx| {
            self.lane.listen(cx.waker());
            if self.lane.take_knock() { Poll::Ready(()) } else { Poll::Pending }
        });
        let later = (now, u64::MAX)..;
        let next_retry = self.retries.borrow().range(later).next().map(|((due, _), _)| *due);
        let next_settle = (!self.unsettled.borrow().is_empty()).then(|| now + SETTLE_PAUSE);
        match next_retry.into_iter().chain(next_settle).min() {
            None => knock.await,
            Some(due) => or(knock, sleep(due.saturating_duration_since(Instant::now()))).await,
        }
    }

    fn stats(&self) -> &LaneStats {
        self.lane.stats()
    }
}

/// An attempt counted as in flight, also when it is called off.
struct Flight<'a>(&'a LaneStats);

impl<'a> Flight<'a> {
    fn begin(stats: &'a LaneStats) -> Flight<'a> {
        stats.attempt_began();
        Flight(stats)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.attempt_ended();
    }
}

/// Over the client's own limit even alone: OTLP 1.11 forbids sending it. A part of several items
/// (cutting could not help) is tried in halves first.
fn over_limit(part: &Part, bytes_max: Option<u64>) -> Failure {
    let limit = bytes_max.unwrap_or(u64::MAX);
    Failure {
        kind: FailureKind::TooLarge,
        code: None,
        message: format!("{} bytes are over the limit of {limit} for one request", part.bytes),
        remedy: Remedy::Shrink,
    }
}

fn nobody_took_it() -> Failure {
    Failure {
        kind: FailureKind::Unavailable,
        code: None,
        message: "no endpoint could be called in time".to_owned(),
        remedy: Remedy::Drop,
    }
}

/// A partial success counts profiles where everything else counts samples: the share of the
/// profiles is taken for the share of the samples. Never more than were sent.
fn rejected_items(signal: Signal, part: &Part, rejected: u64) -> u64 {
    let items = part.counts.items;
    let profiles = part.counts.profiles;
    match signal {
        Signal::Profiles if profiles > 0 => {
            let rejected = u128::from(rejected.min(profiles));
            (u128::from(items) * rejected / u128::from(profiles)) as u64
        }
        _ => rejected.min(items),
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
