//! What a task hears of a page: in order, whatever the writer does, and only while it listens.

use std::pin::pin;
use std::sync::mpsc::sync_channel;

use futures_lite::future::{block_on, poll_once, zip};

use super::*;
use crate::charge::Packed;
use crate::stats::LaneStats;

/// Says on `began` which page it has in hand, and goes on with it when told to.
struct Gated {
    began: Sender<u64>,
    go: Receiver<()>,
}

impl Write for Gated {
    fn write(&mut self, page: &Page) -> Result<u64, Verdict> {
        self.began.send(page.items).unwrap();
        self.go.recv().unwrap();
        assert!(page.items != 0, "a page of no items is more than this writer can bear");
        Ok(page.items)
    }
}

/// A scribe, which pages it began, and the way to let one pass.
fn gated() -> (Scribe<Gated>, Receiver<u64>, Sender<()>) {
    let ((began, begun), (pass, go)) = (channel(), channel());
    (Scribe::new("gated", Arc::new(Mutex::new(Gated { began, go }))), begun, pass)
}

async fn write(scribe: &Scribe<Gated>, items: u64) -> Result<u64, Verdict> {
    let stats = LaneStats::new(1, None);
    let packed = Packed::default();
    let (signal, chain, stats) = (Signal::Logs, [].as_slice(), &stats);
    scribe.write(&Request { signal, items, chain, packed: &packed, stats }).await
}

#[test]
fn pages_are_written_in_the_order_in_which_they_came() {
    let (scribe, begun, pass) = gated();
    for _ in 0..3 {
        pass.send(()).unwrap();
    }
    let written = block_on(zip(zip(write(&scribe, 1), write(&scribe, 2)), write(&scribe, 3)));
    assert_eq!(written, ((Ok(1), Ok(2)), Ok(3)));
    drop(scribe);
    assert_eq!(begun.iter().collect::<Vec<_>>(), [1, 2, 3], "and the thread ends with its sink");
}

#[test]
fn a_page_given_up_waits_for_nothing_and_is_not_begun_any_more() {
    let (scribe, begun, pass) = gated();
    {
        let (mut first, mut second) = (pin!(write(&scribe, 1)), pin!(write(&scribe, 2)));
        assert_eq!(block_on(poll_once(first.as_mut())), None);
        assert_eq!(begun.recv(), Ok(1));
        assert_eq!(block_on(poll_once(second.as_mut())), None);
    }
    // The first is stuck in its write all this time; that it ends after all does no harm.
    for _ in 0..2 {
        pass.send(()).unwrap();
    }
    assert_eq!(block_on(write(&scribe, 3)), Ok(3));
    drop(scribe);
    assert_eq!(begun.iter().collect::<Vec<_>>(), [3]);
}

#[test]
fn a_panic_is_a_failed_attempt_and_the_next_page_is_written() {
    let (scribe, _begun, pass) = gated();
    for _ in 0..2 {
        pass.send(()).unwrap();
    }
    let Err(Verdict::Failed(failure)) = block_on(write(&scribe, 0)) else {
        panic!("the page was never written");
    };
    assert_eq!(failure.kind, FailureKind::Internal);
    assert_eq!(block_on(write(&scribe, 4)), Ok(4));
}

#[test]
fn a_task_is_woken_from_the_thread_of_the_write() {
    let (scribe, begun, pass) = gated();
    let (ended, end) = sync_channel(1);
    std::thread::spawn(move || ended.send(block_on(write(&scribe, 5))));
    assert_eq!(begun.recv(), Ok(5));
    assert!(end.try_recv().is_err(), "written before it was");
    pass.send(()).unwrap();
    assert_eq!(end.recv(), Ok(Ok(5)));
}
