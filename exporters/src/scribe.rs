//! A sink's thread: writes that may block, away from the executor.
//!
//! Never makes the executor wait: whoever hands over a page waits as a task, and a task that is
//! dropped waits for nothing. Always: one page at a time, in the order in which they were handed
//! over, and each that somebody still waits for gets an answer, also when its writing panics. The
//! queue holds at most one page per waiting task, and a page that nobody waits for any longer is
//! not written if its turn had not come. Nobody joins the thread: it ends when its sink was
//! dropped, and a process may exit while a write is stuck.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::thread::Builder;
use std::{fmt, io};

use bytes::Bytes;
use forebay_codec::signal::Signal;

use crate::transport::Request;
use crate::verdict::{FailureKind, Verdict, again};

#[cfg(test)]
mod tests;

/// What may block: one page, written now.
pub(crate) trait Write: Send + 'static {
    /// The bytes written; the error is what the attempt comes to.
    fn write(&mut self, page: &Page) -> Result<u64, Verdict>;
}

/// What one attempt writes.
pub(crate) struct Page {
    pub(crate) signal: Signal,
    pub(crate) items: u64,
    pub(crate) chain: Vec<Bytes>,
}

/// A writer and the thread it works on, started by the first page.
pub(crate) struct Scribe<W> {
    thread_name: &'static str,
    writer: Arc<Mutex<W>>,
    orders: Mutex<Option<Sender<Order>>>,
}

struct Order {
    page: Page,
    /// Gone when nobody waits any longer.
    answer: Weak<Mutex<Answer>>,
}

#[derive(Default)]
struct Answer {
    written: Option<Result<u64, Verdict>>,
    waker: Option<Waker>,
}

impl<W: Write> Scribe<W> {
    pub(crate) fn new(thread_name: &'static str, writer: Arc<Mutex<W>>) -> Scribe<W> {
        Scribe { thread_name, writer, orders: Mutex::default() }
    }

    /// Has the request written; what comes of it is [`Write::write`]'s answer. Drop the future to
    /// give up: a write under way ends whenever it ends, and nobody hears of it.
    pub(crate) async fn write(&self, request: &Request<'_>) -> Result<u64, Verdict> {
        let &Request { signal, items, chain, .. } = request;
        let answer = Arc::new(Mutex::new(Answer::default()));
        let page = Page { signal, items, chain: chain.to_vec() };
        self.hand_over(Order { page, answer: Arc::downgrade(&answer) })?;
        Wait(answer).written().await
    }

    fn hand_over(&self, order: Order) -> Result<(), Verdict> {
        let mut orders = lock(&self.orders);
        let sender = match orders.take() {
            Some(sender) => sender,
            None => self.start().map_err(|error| {
                again(FailureKind::Write, format!("no thread to write on could be made: {error}"))
            })?,
        };
        let sent = sender.send(order).map_err(|_| failed("its thread has ended"));
        // A thread that has ended is replaced by the next attempt.
        *orders = sent.is_ok().then_some(sender);
        sent
    }

    fn start(&self) -> io::Result<Sender<Order>> {
        let (sender, orders) = channel();
        let writer = Arc::clone(&self.writer);
        Builder::new().name(self.thread_name.to_owned()).spawn(move || work(&writer, &orders))?;
        Ok(sender)
    }

    #[cfg(test)]
    pub(crate) fn writer(&self) -> &Arc<Mutex<W>> {
        &self.writer
    }
}

/// The thread: ends when the sink is gone.
fn work<W: Write>(writer: &Mutex<W>, orders: &Receiver<Order>) {
    while let Ok(Order { page, answer }) = orders.recv() {
        if answer.strong_count() == 0 {
            continue;
        }
        let caught = catch_unwind(AssertUnwindSafe(|| lock(writer).write(&page)));
        let written =
            caught.unwrap_or_else(|_| Err(failed("a defect in forebay; its text is above")));
        // The page's memory is the batch's, which may be gone as soon as the answer is there.
        drop(page);
        if let Some(answer) = answer.upgrade() {
            let mut answer = lock(&answer);
            answer.written = Some(written);
            // Within the lock: see `Wait`'s drop.
            if let Some(waker) = answer.waker.take() {
                waker.wake();
            }
        }
    }
}

fn failed(why: impl fmt::Display) -> Verdict {
    again(FailureKind::Internal, format!("the batch could not be written: {why}"))
}

/// The task's end of an answer.
struct Wait(Arc<Mutex<Answer>>);

impl Wait {
    fn written(self) -> impl Future<Output = Result<u64, Verdict>> {
        poll_fn(move |cx| {
            let mut answer = lock(&self.0);
            match answer.written.take() {
                Some(written) => Poll::Ready(written),
                None => {
                    answer.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Wait {
    /// No waker outlives its task, nor is one woken later: the executor may be gone by then.
    fn drop(&mut self) {
        lock(&self.0).waker = None;
    }
}

/// A panic leaves nothing half done that the next user could not go on from.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
