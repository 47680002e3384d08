//! One HTTP/2 connection at work: calls put their requests in, one task moves the bytes.
//!
//! Never waits for a call, nor lets one wait for another's answer. Always: all frames of the calls
//! that began since the last send leave together, uncopied; each call hears of its end once; and
//! what the peer said before it closed is heard, also when it takes nothing more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_net::dial::Line;
use forebay_net::glommio_io::{SLICES_MAX, sleep};
use forebay_net::http2::client::{
    Answer, Client, End, Failure, Keepalive as Pings, Output, RequestHead, Settings,
};
use forebay_net::request::Nanos;
use futures_lite::future::or;
use http::HeaderName;

use super::connections::Absence;
use crate::destination::Keepalive;
use crate::verdict::ANSWER_BYTES_MAX;

/// grpc-go's default for `keepalive.timeout`.
const PING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);
/// A peer that closes a fresh connection sooner did not want it.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// So much is taken from the calls for one send: what is taken can't be called back.
const SEND_BYTES_MAX: usize = 512 << 10;
/// After so many reads others have their turn.
const READS_MAX: usize = 8;
/// What a verdict looks at.
const HEADERS_READ: [&str; 5] =
    ["content-type", "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding"];

/// A connection as its calls see it.
pub(super) struct Exchange {
    client: RefCell<Client>,
    calls: RefCell<VecDeque<Waiting>>,
    /// Those who wait until they may open a stream, in the order in which they may.
    queued: RefCell<VecDeque<Queued>>,
    next_ticket: Cell<u64>,
    /// The task that moves the bytes.
    driver: RefCell<Option<Waker>>,
    /// What broke the connection below HTTP/2.
    lost: RefCell<Option<Absence>>,
    /// It has carried an answer: whatever ends it, it was a connection.
    answered: Cell<bool>,
    /// Requests that timed out since the last answer.
    timeouts: Cell<u32>,
    began: Instant,
    /// Since when there is no call; `None` while there is one.
    idle_since: Cell<Option<Instant>>,
    /// Those who wait for the peer's settings, or for the last call to have begun.
    watching: RefCell<Vec<Waker>>,
}

/// A call whose stream is open. In the order of their opening.
struct Waiting {
    stream: u32,
    waker: Option<Waker>,
    outcome: Option<Result<Answer, Failure>>,
}

impl Exchange {
    pub(super) fn new(keepalive: Keepalive) -> Rc<Exchange> {
        let began = Instant::now();
        let pings = keepalive.time.map(|every| Pings {
            every: nanos(every),
            timeout: nanos(keepalive.timeout.unwrap_or(PING_TIMEOUT_DEFAULT)),
            when_idle: keepalive.permit_without_stream,
        });
        let reads = |name: &HeaderName| HEADERS_READ.contains(&name.as_str());
        let settings = Settings { answer_bytes_max: ANSWER_BYTES_MAX, reads, keepalive: pings };
        Rc::new(Exchange {
            client: RefCell::new(Client::new(settings, 0)),
            calls: RefCell::default(),
            queued: RefCell::default(),
            next_ticket: Cell::new(0),
            driver: RefCell::default(),
            lost: RefCell::default(),
            answered: Cell::new(false),
            timeouts: Cell::new(0),
            began,
            idle_since: Cell::new(Some(began)),
            watching: RefCell::default(),
        })
    }

    /// Waits until a call may begin, behind those who wait already; the error says why none will.
    pub(super) async fn ready(&self) -> Result<(), Absence> {
        let place = Place::behind_all(self);
        poll_fn(|cx| {
            if !self.is_usable() {
                return Poll::Ready(Err(self.absence()));
            }
            if place.is_first() && self.client.borrow().can_open() {
                return Poll::Ready(Ok(()));
            }
            place.listen(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Sends a request; `None` if the connection can't take it now. Dropping the call resets its
    /// stream.
    pub(super) fn call(
        self: &Rc<Exchange>,
        head: &Rc<RequestHead>,
        message: Vec<Bytes>,
    ) -> Option<Call> {
        let stream = self.client.borrow_mut().open(head, message)?;
        self.calls.borrow_mut().push_back(Waiting { stream, waker: None, outcome: None });
        self.idle_since.set(None);
        self.wake_driver();
        Some(Call { exchange: Rc::clone(self), stream })
    }

    /// Takes no more calls, and ends when those that are under way have.
    pub(super) fn leave(&self) {
        self.client.borrow_mut().leave();
        self.wake_driver();
        self.wake_queued();
        self.wake_watching();
    }

    /// Waits until no more calls may begin.
    pub(super) async fn over(&self) {
        self.until(|| !self.is_usable()).await;
    }

    /// Waits for the peer's settings; false: the connection ended without.
    pub(super) async fn greeted(&self) -> bool {
        self.until(|| !self.is_usable() || self.client.borrow().has_settings()).await;
        self.is_usable()
    }

    /// Whether it was a connection to somebody: it carried an answer, or it stood for a while.
    /// Only such a one can have been closed in the wrong moment.
    pub(super) fn has_worked(&self) -> bool {
        let has_stood = || self.began.elapsed() >= LIFE_MIN;
        self.has_answered() || self.client.borrow().has_settings() && has_stood()
    }

    /// Whether it ended by itself before it was of any use: as good as refused.
    pub(super) fn has_fallen(&self) -> bool {
        let has_ended = !matches!(self.client.borrow().end(), None | Some(End::Left));
        has_ended && (self.is_garbage() || !self.has_worked())
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.get()
    }

    /// Counts a call that timed out; how many did since the last answer.
    pub(super) fn mark_timeout(&self) -> u32 {
        self.timeouts.set(self.timeouts.get() + 1);
        self.timeouts.get()
    }

    /// Whether a call may begin now and its message be sent, ahead of nobody.
    pub(super) fn has_room(&self) -> bool {
        let client = self.client.borrow();
        client.can_open() && !client.is_held_up() && self.queued.borrow().is_empty()
    }

    /// Calls that are under way or wait until they may be.
    pub(super) fn load(&self) -> usize {
        self.calls.borrow().len() + self.queued.borrow().len()
    }

    /// Since when there is no call; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since.get().filter(|_| self.queued.borrow().is_empty())
    }

    /// Whether calls may still begin, now or later.
    pub(super) fn is_usable(&self) -> bool {
        self.client.borrow().is_usable()
    }

    /// Whether the peer has shown that it speaks no HTTP/2: what came from it was none, and
    /// nothing better ever came over this connection.
    pub(super) fn is_garbage(&self) -> bool {
        let end = self.client.borrow().end();
        matches!(end, Some(End::Broken(..))) && !self.has_answered()
    }

    /// Why the connection takes nothing more.
    pub(super) fn absence(&self) -> Absence {
        match (self.is_garbage(), &*self.lost.borrow()) {
            (true, _) => Absence::garbage(&self.why()),
            (false, Some(lost)) => lost.clone(),
            (false, None) => Absence::connect(self.why()),
        }
    }

    /// Whether the peer has shown that it is not the one to speak to, or will not be spoken to.
    pub(super) fn is_hopeless(&self) -> bool {
        self.is_garbage() || self.lost.borrow().as_ref().is_some_and(Absence::is_of_tls)
    }

    pub(super) fn why(&self) -> String {
        if let Some(lost) = &*self.lost.borrow() {
            return lost.why.clone();
        }
        match self.client.borrow().end() {
            Some(end) => end.to_string(),
            None => "the destination takes no more requests over this connection".to_owned(),
        }
    }

    /// Moves bytes until the connection has ended.
    pub(super) async fn drive(self: Rc<Exchange>, stream: Line) {
        let mut cable = Cable { stream, output: Output::new(), is_deaf: false };
        let mut told = self.standing();
        let moving = poll_fn(|cx| {
            self.listen(cx);
            let turned = self.poll_turn(cx, &mut cable);
            // Seldom, where turns are many.
            if self.standing() != told {
                told = self.standing();
                self.wake_watching();
            }
            turned
        });
        or(moving, self.watch()).await;
        cable.stream.end().await;
    }

    /// One turn: what came is read, and what is due is sent.
    fn poll_turn(&self, cx: &mut Context<'_>, cable: &mut Cable) -> Poll<()> {
        let is_read = self.read(cx, cable);
        self.tell();
        if let Err(error) = self.send(cx, cable) {
            self.lose(&error);
            self.tell();
        }
        let client = self.client.borrow();
        if client.end().is_some() {
            return Poll::Ready(());
        }
        if !is_read && client.wants_input() {
            // Nothing else would have it read.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads what came. `false`: there may be more.
    fn read(&self, cx: &mut Context<'_>, cable: &mut Cable) -> bool {
        for _ in 0..READS_MAX {
            if !self.client.borrow().wants_input() {
                return false;
            }
            match cable.stream.poll_receive(cx) {
                Poll::Pending => return true,
                Poll::Ready(Ok([])) => self.client.borrow_mut().handle_eof(),
                Poll::Ready(Ok(bytes)) => self.client.borrow_mut().handle_input(bytes, self.now()),
                Poll::Ready(Err(error)) => self.lose(&error),
            }
        }
        false
    }

    /// Sends what is due, as far as the kernel takes it.
    fn send(&self, cx: &mut Context<'_>, cable: &mut Cable) -> io::Result<()> {
        loop {
            if cable.output.is_empty() {
                self.client.borrow_mut().poll_output(&mut cable.output, SEND_BYTES_MAX);
            }
            if cable.output.is_empty() {
                return Ok(());
            }
            if let Poll::Ready(sent) = cable.poll_send(cx) {
                sent?;
            } else {
                return Ok(());
            }
        }
    }

    /// Hands out what the connection has to say to its calls.
    fn tell(&self) {
        let mut client = self.client.borrow_mut();
        let mut calls = self.calls.borrow_mut();
        while let Some(event) = client.poll_event() {
            if !matches!(event.outcome, Err(Failure { began: false, .. })) {
                self.answered.set(true);
                self.timeouts.set(0);
            }
            let Some(place) = find(&calls, event.stream) else {
                continue;
            };
            let waiting = &mut calls[place];
            waiting.outcome = Some(event.outcome);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
        let (may_open, is_usable) = (client.can_open(), client.is_usable());
        drop(client);
        if !is_usable {
            self.wake_queued();
        } else if may_open {
            self.wake_first();
        }
    }

    /// Asks the peer whether it is there, when it is time to.
    async fn watch(&self) {
        loop {
            let deadline = self.client.borrow().deadline();
            let Some(deadline) = deadline else {
                return std::future::pending().await;
            };
            sleep(Duration::from_nanos(deadline.saturating_sub(self.now()))).await;
            self.client.borrow_mut().handle_timeout(self.now());
            self.wake_driver();
        }
    }

    /// The connection broke below HTTP/2.
    fn lose(&self, error: &io::Error) {
        let mut client = self.client.borrow_mut();
        // What ended it before is the better reason.
        if client.end().is_none() {
            self.lost.replace(Some(Absence::below(error, "the connection broke: ")));
        }
        client.handle_eof();
    }

    fn listen(&self, cx: &Context<'_>) {
        self.driver.replace(Some(cx.waker().clone()));
    }

    fn wake_driver(&self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn wake_queued(&self) {
        for queued in self.queued.borrow_mut().iter_mut() {
            if let Some(waker) = queued.waker.take() {
                waker.wake();
            }
        }
    }

    /// What those who watch want to know.
    fn standing(&self) -> (bool, bool) {
        let client = self.client.borrow();
        (client.is_usable(), client.has_settings())
    }

    fn wake_watching(&self) {
        for waker in self.watching.take() {
            waker.wake();
        }
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        poll_fn(|cx| {
            if holds() {
                return Poll::Ready(());
            }
            let mut watching = self.watching.borrow_mut();
            if !watching.iter().any(|waker| waker.will_wake(cx.waker())) {
                watching.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn mark_idle(&self, calls: &VecDeque<Waiting>) {
        if calls.is_empty() {
            self.idle_since.set(Some(Instant::now()));
        }
    }

    fn wake_first(&self) {
        if let Some(waker) = self.queued.borrow_mut().front_mut().and_then(|q| q.waker.take()) {
            waker.wake();
        }
    }

    fn now(&self) -> Nanos {
        nanos(self.began.elapsed())
    }
}

/// Who waits for a stream.
struct Queued {
    ticket: u64,
    waker: Option<Waker>,
}

/// A place among those who wait for a stream; given up when dropped, and the next is woken.
struct Place<'a> {
    exchange: &'a Exchange,
    ticket: u64,
}

impl<'a> Place<'a> {
    fn behind_all(exchange: &'a Exchange) -> Place<'a> {
        let ticket = exchange.next_ticket.get();
        exchange.next_ticket.set(ticket + 1);
        exchange.queued.borrow_mut().push_back(Queued { ticket, waker: None });
        Place { exchange, ticket }
    }

    fn is_first(&self) -> bool {
        self.exchange.queued.borrow().front().is_some_and(|first| first.ticket == self.ticket)
    }

    fn listen(&self, waker: &Waker) {
        let mut queued = self.exchange.queued.borrow_mut();
        if let Ok(place) = queued.binary_search_by_key(&self.ticket, |queued| queued.ticket) {
            queued[place].waker = Some(waker.clone());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queued = self.exchange.queued.borrow_mut();
        if let Ok(place) = queued.binary_search_by_key(&self.ticket, |queued| queued.ticket) {
            queued.remove(place);
        }
        drop(queued);
        self.exchange.wake_first();
    }
}

/// A call whose stream is open: the answer, or why there is none.
pub(super) struct Call {
    exchange: Rc<Exchange>,
    stream: u32,
}

impl Future for Call {
    type Output = Result<Answer, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut calls = self.exchange.calls.borrow_mut();
        let place = find(&calls, self.stream).expect("a call is polled until it has ended");
        let waiting = &mut calls[place];
        match waiting.outcome.take() {
            Some(outcome) => {
                calls.remove(place);
                self.exchange.mark_idle(&calls);
                Poll::Ready(outcome)
            }
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.exchange.calls.borrow_mut();
        let Some(place) = find(&calls, self.stream) else {
            return;
        };
        calls.remove(place);
        self.exchange.mark_idle(&calls);
        drop(calls);
        self.exchange.client.borrow_mut().cancel(self.stream);
        self.exchange.wake_driver();
        self.exchange.wake_first();
    }
}

/// The socket, and what is on its way into it.
struct Cable {
    stream: Line,
    output: Output,
    /// The peer takes no more: what is sent from here on is lost.
    is_deaf: bool,
}

impl Cable {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            self.output.clear();
            return Poll::Ready(Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.output.slices(&mut slices);
        match ready!(self.stream.poll_send(cx, &slices[..count])) {
            Ok(bytes) => self.output.advance(bytes),
            // Of these the reader hears too, after what was still on the way.
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                self.is_deaf = true;
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

fn find(calls: &VecDeque<Waiting>, stream: u32) -> Option<usize> {
    calls.binary_search_by_key(&stream, |waiting| waiting.stream).ok()
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
