//! What a destination's troubles look like in the log: the Collector's texts, never a flood.
//!
//! A line comes at most every ten seconds and counts those left out before it; trouble that had a
//! line gets one more when it is over. Never prints header values or payload. Time is an argument.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::batch::DropReason;
use crate::verdict::{Failure, FailureKind};

const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// One destination's log on one exporter core.
pub(crate) struct Journal {
    destination: String,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Since when nothing has been delivered; `None` while all is well.
    down_since: Option<Instant>,
    /// Whether a line said so.
    told: bool,
    retry: Limiter,
    drop: Limiter,
    partial: Limiter,
}

/// Lets a line through if none went lately.
#[derive(Default)]
struct Limiter {
    last: Option<Instant>,
    suppressed: u64,
}

impl Journal {
    pub(crate) fn new(destination: &str) -> Journal {
        Journal { destination: destination.to_owned(), state: RefCell::default() }
    }

    pub(crate) fn will_retry(&self, now: Instant, failure: &Failure, wait: Duration, items: u64) {
        let mut state = self.state.borrow_mut();
        state.down_since.get_or_insert(now);
        let Some(suppressed) = state.retry.pass(now) else {
            return;
        };
        state.told = true;
        tracing::warn!(
            destination = self.destination,
            error = failure.message,
            kind = failure.kind.name(),
            interval = ?wait,
            items,
            suppressed,
            cost = "nothing is lost: the batch is kept; a full queue pushes back on clients",
            hint = hint(failure.kind),
            "Exporting failed. Will retry the request after interval.",
        );
    }

    pub(crate) fn dropped(
        &self,
        now: Instant,
        reason: DropReason,
        message: &str,
        dropped_items: u64,
    ) {
        let Some(suppressed) = self.state.borrow_mut().drop.pass(now) else {
            return;
        };
        tracing::error!(
            destination = self.destination,
            error = message,
            reason = reason.name(),
            dropped_items,
            suppressed,
            hint = drop_hint(reason),
            "Exporting failed. Dropping data.",
        );
    }

    pub(crate) fn partial(&self, now: Instant, message: &str, dropped_items: u64) {
        let Some(suppressed) = self.state.borrow_mut().partial.pass(now) else {
            return;
        };
        tracing::warn!(
            destination = self.destination,
            message = message,
            dropped_items,
            suppressed,
            "Partial success response",
        );
    }

    pub(crate) fn delivered(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        let Some(since) = state.down_since.take() else {
            return;
        };
        if !std::mem::take(&mut state.told) {
            return;
        }
        let suppressed = std::mem::take(&mut state.retry.suppressed);
        tracing::info!(
            destination = self.destination,
            down = ?now.saturating_duration_since(since),
            suppressed,
            "Exporting works again.",
        );
    }
}

impl Limiter {
    /// How many lines were left out since the last one, if this one may pass.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let too_soon = |last| now.saturating_duration_since(last) < LINE_INTERVAL;
        if self.last.is_some_and(too_soon) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

fn hint(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Connect => "check the endpoint and that the destination is running",
        FailureKind::Disconnected => "check the destination's log and what lies in between",
        FailureKind::Timeout => "check the destination's load, or raise `timeout`",
        FailureKind::Unavailable => "the destination is overloaded or restarting",
        FailureKind::Garbage => "check that the endpoint is an OTLP one of this protocol",
        FailureKind::Write => "check the disk's free space and the path's permissions",
        FailureKind::Refused | FailureKind::TooLarge | FailureKind::Internal => {
            "please report this, with the log around it"
        }
    }
}

fn drop_hint(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Refused => {
            "the destination will never take this data: check its log, the endpoint's path, and \
             the credentials in `headers`"
        }
        DropReason::PartialSuccess => "the destination's log says which items it refused",
        DropReason::RetriesExhausted => {
            "raise `retry_on_failure.max_elapsed_time` (0: never give up)"
        }
        DropReason::Shutdown => "raise `engine.drain_timeout` to give destinations more time",
        DropReason::TooLarge => "one item alone is over the destination's request limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_pass_every_ten_seconds_and_count_those_left_out() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limiter = Limiter::default();
        assert_eq!(limiter.pass(at(0)), Some(0));
        assert_eq!(limiter.pass(at(1)), None);
        assert_eq!(limiter.pass(at(9)), None);
        assert_eq!(limiter.pass(at(10)), Some(2));
        assert_eq!(limiter.pass(at(20)), Some(0));
    }
}
