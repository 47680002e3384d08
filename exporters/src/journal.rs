//! What a destination's troubles look like in the log: the Collector's texts, never a flood.
//!
//! A line comes at most every ten seconds and counts those left out before it; trouble that had a
//! line gets one more when it is over. Breakers say each change at once, a few a second. Never
//! prints header values or payload. Time is an argument.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::batch::DropReason;
use crate::breaker::{Cause, Transition};
use crate::dispatch::Waiting;
use crate::verdict::{Failure, FailureKind};

const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Changes of breakers that are told in a second; a fleet that flaps has more.
const CHANGES_PER_SECOND: u32 = 4;

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
    held_up: Limiter,
    distrust: Limiter,
    failover: Limiter,
    refused: Limiter,
    drop: Limiter,
    partial: Limiter,
    changes: Burst,
}

/// Lets a line through if none went lately.
#[derive(Default)]
struct Limiter {
    last: Option<Instant>,
    suppressed: u64,
}

/// Lets a few lines a second through.
#[derive(Default)]
struct Burst {
    since: Option<Instant>,
    lines: u32,
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

    /// A part is held although nothing was sent. `taking`: endpoints that take calls, of how many.
    pub(crate) fn held_up(
        &self,
        now: Instant,
        why: Waiting,
        wait: Duration,
        items: u64,
        (taking, members): (u32, u32),
    ) {
        let mut state = self.state.borrow_mut();
        state.down_since.get_or_insert(now);
        let Some(suppressed) = state.held_up.pass(now) else {
            return;
        };
        state.told = true;
        let (reason, hint) = match why {
            Waiting::Breakers if members == 0 => {
                ("discovery has named no endpoint", "check the source of `endpoints`")
            }
            Waiting::Breakers => (
                "no endpoint takes requests at this time",
                "see why the endpoints' circuits are open, in the lines above or on the admin port",
            ),
            Waiting::Budget => (
                "the retry budget is used up",
                "most requests fail: mend the endpoints, or raise `retry_budget` if they can bear \
                 more retries",
            ),
            Waiting::Busy => (
                "the endpoint that the key belongs to has enough to do",
                "look at its load, or add endpoints",
            ),
            Waiting::Backoff => (
                "every endpoint that takes requests has just failed this one",
                "look at the endpoints: they share what is wrong",
            ),
        };
        tracing::warn!(
            destination = self.destination,
            reason,
            interval = ?wait,
            items,
            taking,
            members,
            suppressed,
            cost = "nothing is lost: the batch is kept; a full queue pushes back on clients",
            hint,
            "Held back. Will ask again after interval.",
        );
    }

    /// TLS stands between forebay and an endpoint that was looked at without a call.
    pub(crate) fn distrusts(&self, now: Instant, endpoint: &str, error: &str) {
        let Some(suppressed) = self.state.borrow_mut().distrust.pass(now) else {
            return;
        };
        tracing::warn!(
            destination = self.destination,
            endpoint,
            error,
            suppressed,
            cost = "the endpoint gets nothing; what is meant for it goes to others, or is kept",
            hint = hint(FailureKind::Tls),
            "No TLS with an endpoint. Will try it again.",
        );
    }

    /// Items go to another destination, because no endpoint of this one takes them.
    pub(crate) fn failed_over(&self, now: Instant, items: u64) {
        let mut state = self.state.borrow_mut();
        state.down_since.get_or_insert(now);
        let Some(suppressed) = state.failover.pass(now) else {
            return;
        };
        state.told = true;
        tracing::warn!(
            destination = self.destination,
            items,
            suppressed,
            cost = "nothing is lost: the items go to the next destination of their failover",
            hint = "see why the endpoints' circuits are open, in the lines above or on the admin \
                    port",
            "No endpoint takes requests. Failing over.",
        );
    }

    /// Items go to the dead-letter destination.
    pub(crate) fn refused(&self, now: Instant, reason: DropReason, message: &str, items: u64) {
        let Some(suppressed) = self.state.borrow_mut().refused.pass(now) else {
            return;
        };
        tracing::error!(
            destination = self.destination,
            error = message,
            reason = reason.name(),
            items,
            suppressed,
            cost = "the destination lacks these items; the dead-letter destination gets them",
            hint = drop_hint(reason),
            "Exporting failed. Passing data on as dead letters.",
        );
    }

    /// An endpoint's breaker has changed. `taking`: endpoints that take calls now, of how many.
    pub(crate) fn transition(
        &self,
        now: Instant,
        endpoint: &str,
        transition: &Transition,
        (taking, members): (u32, u32),
    ) {
        let Some(suppressed) = self.state.borrow_mut().changes.pass(now) else {
            return;
        };
        let destination = &self.destination;
        match transition {
            Transition::Opened { cause, open_for, .. } => tracing::warn!(
                destination,
                endpoint,
                cause = %cause,
                interval = ?open_for,
                taking,
                members,
                suppressed,
                cost = match taking {
                    0 => "no endpoint is left: batches are kept, or fail over where they may",
                    _ => "the other endpoints take its share",
                },
                hint = change_hint(*cause),
                "Circuit opened. Will try the endpoint after interval.",
            ),
            Transition::HalfOpened | Transition::Closed { .. } => {
                tracing::info!(destination, endpoint, taking, members, suppressed, "{transition}",)
            }
        }
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
        FailureKind::Tls => {
            "the error says what to mend; files that were mended are read by themselves \
             (tls.reload_interval), or at SIGHUP"
        }
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

impl Burst {
    /// As [`Limiter::pass`].
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == CHANGES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

fn change_hint(cause: Cause) -> &'static str {
    match cause {
        Cause::FailuresInARow { .. } | Cause::FailureRate { .. } | Cause::ProbeFailed => {
            "look at the endpoint: it is down, unreachable or failing; it is used again by itself \
             once it answers"
        }
        Cause::SlowCallRate { .. } => {
            "look at the endpoint's load; raise `slow_call_duration` if this is its usual pace"
        }
        Cause::ProbeTurnedAway => "the endpoint is overloaded: give it room or add endpoints",
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

    #[test]
    fn a_fleet_that_flaps_writes_a_few_lines_a_second_and_counts_the_rest() {
        let start = Instant::now();
        let mut burst = Burst::default();
        let mut lines = 0;
        let mut suppressed = 0;
        for ms in 0..3_000 {
            if let Some(left_out) = burst.pass(start + Duration::from_millis(ms)) {
                lines += 1;
                suppressed += left_out;
            }
        }
        assert_eq!(lines, 3 * CHANGES_PER_SECOND);
        // Those left out since the last line are told by the next.
        suppressed += burst.suppressed;
        assert_eq!(suppressed, 3_000 - u64::from(lines));
    }
}
