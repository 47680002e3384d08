//! The circuit breaker of one endpoint, shared by all exporter cores without a lock.
//!
//! | state | admits | left when |
//! | --- | --- | --- |
//! | closed | everything | too many calls fail or are slow: open |
//! | open | nothing for [`Settings::recovery_timeout`], each time longer | it is over: half-open |
//! | half-open | one probe at a time in the whole process | one fails: open; enough pass: closed |
//!
//! Enough are [`Settings::success_threshold`] probes in a row.
//!
//! Two things open a breaker. [`Settings::failure_threshold`] calls in a row without a proper
//! answer, or a window of nothing but failures, say that the endpoint is **broken**: sending to it
//! costs a timeout, so it is always shut off. A high share of failures or of slow calls says that
//! it does worse than it should: it is **ejected**, but only while enough of the fleet remains (see
//! [`Fleet`]).
//!
//! Sans I/O: time and randomness are arguments. Never locks, never allocates.
//!
//! Always:
//! - The state is one atomic word, and each change of it is one compare-and-swap from the word that
//!   was judged. Each word has a serial, so a change is made, counted and told exactly once.
//! - A permit names the word that admitted it. What is recorded for another word comes from an
//!   earlier life of the endpoint and changes nothing: a call that hung since before the breaker
//!   opened can't open it again.
//! - A probe is a word of its own, made by one compare-and-swap: there is one at a time, over all
//!   cores. It holds a deadline: if whoever has the probe dies, the next may go after that.
//! - The serial has 12 bits. A permit that sleeps through exactly 4096 changes could be taken for a
//!   new one; it would count one call wrongly.
//! - The window and the count of failures in a row are separate atomics: a core that stalls between
//!   judging and counting adds its one call to the next closed period. That is bounded by one call
//!   for each core, and below any sensible threshold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod event;
mod fleet;
mod outcome;
#[cfg(test)]
mod tests;
mod window;
mod word;

pub use event::{Cause, State, Transition};
pub use fleet::{Fleet, FleetSettings};
pub use outcome::Outcome;

use window::{Kind, Window};
use word::{CLOSED, HALF_OPEN, OPEN, RETIRED, Word};

/// How much of an endpoint's trouble is too much.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Calls in a row without a proper answer ([`Outcome::Failure`]) that open the breaker; 0: none
    /// do. Default 5.
    pub failure_threshold: u32,
    /// Share of failed calls in the window that opens it; above 1.0: none does. Default 0.5.
    pub failure_rate: f64,
    /// Share of slow calls in the window that opens it; above 1.0: none does. Default 0.5.
    pub slow_call_rate: f64,
    /// A call that takes this long is slow. Default 2 s.
    pub slow_call_duration: Duration,
    /// The window is the last [`Settings::window_calls`] calls of the last this long. Default 10 s.
    pub window: Duration,
    /// Default 100, at most 40,000.
    pub window_calls: u32,
    /// Rates of fewer calls say nothing. Default 20.
    pub minimum_calls: u32,
    /// How long the breaker stays open the first time. Default 1 s.
    pub recovery_timeout: Duration,
    /// Each opening that follows soon lasts this many times longer. Default 2.
    pub recovery_multiplier: f64,
    /// Never longer than this, jitter aside. A breaker that was closed for this long starts again
    /// from the shortest. Default 30 s.
    pub recovery_timeout_max: Duration,
    /// Up to this share is added at random, so that breakers do not probe in step. Default 0.25.
    pub recovery_jitter: f64,
    /// Probes in a row that must succeed, 1 to 31. Default 3.
    pub success_threshold: u32,
    /// A probe that was not recorded by then has lost its holder. Longer than the longest attempt.
    /// Default 45 s.
    pub probe_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            failure_threshold: 5,
            failure_rate: 0.5,
            slow_call_rate: 0.5,
            slow_call_duration: Duration::from_secs(2),
            window: Duration::from_secs(10),
            window_calls: 100,
            minimum_calls: 20,
            recovery_timeout: Duration::from_secs(1),
            recovery_multiplier: 2.0,
            recovery_timeout_max: Duration::from_secs(30),
            recovery_jitter: 0.25,
            success_threshold: 3,
            probe_timeout: Duration::from_secs(45),
        }
    }
}

/// See the file's head.
pub struct Breaker {
    settings: Settings,
    fleet: Arc<Fleet>,
    /// A packed [`Word`].
    word: AtomicU64,
    failures_in_a_row: AtomicU32,
    /// Milliseconds since the fleet's epoch; 0: the endpoint has not asked for a pause.
    paused_until_ms: AtomicU64,
    window: Window,
}

/// Whether a call may go to the endpoint.
#[derive(Debug)]
pub enum Admission {
    Pass(Permit),
    /// This call decides for all: its outcome must be recorded, or its permit be given back.
    Probe(Permit),
    /// Not now. Asking again before that is of no use; afterwards another may have been faster.
    Refuse {
        retry_in: Duration,
    },
}

/// The right to one call. Give it back with [`Breaker::record`].
#[derive(Debug)]
#[must_use = "a probe that is not recorded holds up all others until it times out"]
pub struct Permit {
    serial: u16,
    is_probe: bool,
    /// Set if admitting this call changed the state: open to half-open.
    pub transition: Option<Transition>,
}

impl Permit {
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }
}

impl Breaker {
    /// Closed. Counts itself as a member of the fleet until [`Breaker::retire`].
    pub fn new(settings: Settings, fleet: Arc<Fleet>, now: Instant) -> Breaker {
        fleet.joined();
        let settings =
            Settings { success_threshold: settings.success_threshold.clamp(1, 31), ..settings };
        // The time of the first word is when the breaker was closed; nothing was ever opened.
        let word = Word { at_ms: fleet.ms(now), ..Word::default() };
        Breaker {
            window: Window::new(settings.window, settings.window_calls),
            settings,
            fleet,
            word: AtomicU64::new(word.pack()),
            failures_in_a_row: AtomicU32::new(0),
            paused_until_ms: AtomicU64::new(0),
        }
    }

    /// Asks for one call. Costs two loads while the breaker is closed.
    #[inline]
    pub fn admit(&self, now: Instant) -> Admission {
        let packed = self.word.load(Ordering::Acquire);
        if Word::kind_of(packed) == CLOSED && self.paused_until_ms.load(Ordering::Relaxed) == 0 {
            return pass(packed);
        }
        self.admit_guarded(packed, now)
    }

    /// Whether a call would pass without further thought.
    #[inline]
    pub fn is_closed(&self) -> bool {
        Word::kind_of(self.word.load(Ordering::Relaxed)) == CLOSED
            && self.paused_until_ms.load(Ordering::Relaxed) == 0
    }

    /// If a call made now would be refused: for how long. Asks for nothing.
    pub fn refuses(&self, now: Instant) -> Option<Duration> {
        let packed = self.word.load(Ordering::Acquire);
        let (word, now_ms) = (Word::unpack(packed), self.fleet.ms(now));
        let admission = match word.kind {
            CLOSED => self.admit_paused(packed, now_ms),
            RETIRED => Admission::Refuse { retry_in: self.probe_pause() },
            _ if now_ms >= word.at_ms => return None,
            _ => self.refuse(packed, now_ms),
        };
        match admission {
            Admission::Refuse { retry_in } => Some(retry_in),
            Admission::Pass(_) | Admission::Probe(_) => None,
        }
    }

    /// Enters what became of a call. Says so if that changed the state.
    pub fn record(
        &self,
        permit: Permit,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let packed = self.word.load(Ordering::Acquire);
        let word = Word::unpack(packed);
        if word.serial != permit.serial {
            return None;
        }
        match word.kind {
            CLOSED => self.record_closed(word, now, outcome, latency, rng),
            HALF_OPEN if permit.is_probe => self.record_probe(word, now, outcome, latency, rng),
            // Admitted in the fleet's panic although the breaker is open: it proves nothing.
            _ => None,
        }
    }

    /// The call was not made: a probe is free for the next.
    pub fn give_back(&self, permit: &Permit) {
        let packed = self.word.load(Ordering::Acquire);
        let word = Word::unpack(packed);
        if permit.is_probe && word.serial == permit.serial && word.kind == HALF_OPEN {
            self.change(packed, Word { at_ms: 0, ..word.next() });
        }
    }

    /// The endpoint has left the fleet: nothing more is admitted, and what is still under way
    /// changes nothing.
    pub fn retire(&self) {
        loop {
            let packed = self.word.load(Ordering::Acquire);
            let word = Word::unpack(packed);
            if word.kind == RETIRED {
                return;
            }
            if self.change(packed, Word { kind: RETIRED, ..word.next() }) {
                if word.kind != CLOSED {
                    self.fleet.closed_again(word.is_ejected);
                }
                return self.fleet.left();
            }
        }
    }

    /// For metrics, logs and the admin page.
    pub fn state(&self, now: Instant) -> State {
        let word = Word::unpack(self.word.load(Ordering::Acquire));
        let left = Duration::from_millis(word.at_ms.saturating_sub(self.fleet.ms(now)));
        match word.kind {
            OPEN => State::Open { retry_in: left, is_ejected: word.is_ejected },
            HALF_OPEN => {
                State::HalfOpen { successes: word.successes.into(), is_probing: !left.is_zero() }
            }
            RETIRED => State::Retired,
            _ => State::Closed,
        }
    }

    #[cold]
    fn admit_guarded(&self, packed: u64, now: Instant) -> Admission {
        let now_ms = self.fleet.ms(now);
        let mut packed = packed;
        loop {
            let word = Word::unpack(packed);
            let is_due = now_ms >= word.at_ms;
            if word.kind == CLOSED {
                return self.admit_paused(packed, now_ms);
            }
            if word.kind == RETIRED {
                return Admission::Refuse { retry_in: self.probe_pause() };
            }
            if !is_due {
                return self.refuse(packed, now_ms);
            }
            let lease_ms = (self.settings.probe_timeout.as_millis() as u64).max(1);
            let successes = if word.kind == OPEN { 0 } else { word.successes };
            let at_ms = now_ms + lease_ms;
            let probing = Word { kind: HALF_OPEN, at_ms, successes, ..word.next() };
            if self.change(packed, probing) {
                let transition = (word.kind == OPEN).then_some(Transition::HALF_OPENED);
                let transition = self.fleet.counted(transition);
                let serial = probing.serial;
                return Admission::Probe(Permit { serial, is_probe: true, transition });
            }
            packed = self.word.load(Ordering::Acquire);
        }
    }

    /// Closed, but the endpoint may have asked to be left alone for a while.
    fn admit_paused(&self, packed: u64, now_ms: u64) -> Admission {
        let paused_until_ms = self.paused_until_ms.load(Ordering::Relaxed);
        if now_ms < paused_until_ms {
            let retry_in = Duration::from_millis(paused_until_ms - now_ms);
            return Admission::Refuse { retry_in };
        }
        if paused_until_ms > 0 {
            // Another core may just have set a later one: then that stays.
            let _ = self.paused_until_ms.compare_exchange(
                paused_until_ms,
                0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        pass(packed)
    }

    fn refuse(&self, packed: u64, now_ms: u64) -> Admission {
        let word = Word::unpack(packed);
        if word.is_ejected && self.fleet.is_panicking() {
            return pass(packed);
        }
        let left = Duration::from_millis(word.at_ms - now_ms);
        let retry_in = match word.kind {
            // Nobody knows when the probe ends; its deadline is far too late.
            HALF_OPEN => left.min(self.probe_pause()),
            _ => left,
        };
        Admission::Refuse { retry_in }
    }

    fn probe_pause(&self) -> Duration {
        (self.settings.recovery_timeout / 10).max(Duration::from_millis(1))
    }

    fn record_closed(
        &self,
        word: Word,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let now_ms = self.fleet.ms(now);
        let is_slow = latency >= self.settings.slow_call_duration;
        match outcome {
            Outcome::Unsent => return None,
            Outcome::Answered => {
                self.failures_in_a_row.store(0, Ordering::Relaxed);
                return None;
            }
            Outcome::Overloaded { delay } => {
                self.pause(now_ms, delay);
                return None;
            }
            Outcome::Success => {
                if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
                    self.failures_in_a_row.store(0, Ordering::Relaxed);
                }
                self.window.record(now_ms, if is_slow { Kind::Slow } else { Kind::Good });
                if !is_slow {
                    return None;
                }
            }
            Outcome::Failure | Outcome::Unwell => {
                if outcome == Outcome::Failure {
                    self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
                }
                self.window.record(now_ms, if is_slow { Kind::SlowFailed } else { Kind::Failed });
            }
        }
        let cause = self.too_much(now_ms)?;
        self.trip(word, cause, now_ms, rng)
    }

    /// What the endpoint has done, if that is enough to open.
    fn too_much(&self, now_ms: u64) -> Option<Cause> {
        let settings = &self.settings;
        let in_a_row = self.failures_in_a_row.load(Ordering::Relaxed);
        if settings.failure_threshold > 0 && in_a_row >= settings.failure_threshold {
            return Some(Cause::FailuresInARow { failures: in_a_row });
        }
        let counts = self.window.counts(now_ms);
        let calls = counts.calls;
        if calls < settings.minimum_calls.max(1) {
            return None;
        }
        let reaches = |count: u32, rate: f64| f64::from(count) >= rate * f64::from(calls);
        if counts.failures > 0 && reaches(counts.failures, settings.failure_rate) {
            return Some(Cause::FailureRate { failures: counts.failures, calls });
        }
        (counts.slow > 0 && reaches(counts.slow, settings.slow_call_rate))
            .then_some(Cause::SlowCallRate { slow: counts.slow, calls })
    }

    fn trip(
        &self,
        word: Word,
        cause: Cause,
        now_ms: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let is_ejected = cause.is_ejection();
        if !self.fleet.opened(is_ejected) {
            return None;
        }
        let stable_ms = self.settings.recovery_timeout_max.as_millis() as u64;
        let was_stable = now_ms.saturating_sub(word.at_ms) >= stable_ms;
        let growth = if was_stable { 0 } else { word.growth };
        let transition = self.open(word, growth, is_ejected, cause, now_ms, Duration::ZERO, rng);
        if transition.is_none() {
            self.fleet.closed_again(is_ejected);
        }
        transition
    }

    fn record_probe(
        &self,
        word: Word,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let now_ms = self.fleet.ms(now);
        let is_slow = latency >= self.settings.slow_call_duration;
        // What was shut off for being slow must come back fast; what was broken must only work.
        let is_too_slow = is_slow && word.is_ejected && self.settings.slow_call_rate <= 1.0;
        match outcome {
            Outcome::Unsent => {
                self.change(word.pack(), Word { at_ms: 0, ..word.next() });
                None
            }
            Outcome::Overloaded { delay } => {
                let growth = word.growth.saturating_sub(1);
                let least = delay.unwrap_or(Duration::ZERO);
                let cause = Cause::ProbeTurnedAway;
                self.open(word, growth, word.is_ejected, cause, now_ms, least, rng)
            }
            Outcome::Success | Outcome::Answered if !is_too_slow => self.probe_passed(word, now_ms),
            _ => {
                let cause = Cause::ProbeFailed;
                let zero = Duration::ZERO;
                self.open(word, word.growth, word.is_ejected, cause, now_ms, zero, rng)
            }
        }
    }

    fn probe_passed(&self, word: Word, now_ms: u64) -> Option<Transition> {
        let successes = u32::from(word.successes) + 1;
        if successes < self.settings.success_threshold {
            let successes = word.successes + 1;
            self.change(word.pack(), Word { at_ms: 0, successes, ..word.next() });
            return None;
        }
        // Nobody counts while the breaker is not closed, so this is the time to forget.
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.paused_until_ms.store(0, Ordering::Relaxed);
        self.window.clear();
        let (kind, is_ejected) = (CLOSED, false);
        let closed = Word { kind, is_ejected, successes: 0, at_ms: now_ms, ..word.next() };
        if !self.change(word.pack(), closed) {
            return None;
        }
        self.fleet.closed_again(word.is_ejected);
        self.fleet.counted(Some(Transition::closed(successes)))
    }

    /// Opens from `word`, for at least `least`; `None` if another core was faster.
    #[expect(clippy::too_many_arguments, reason = "one place makes the word from what is known")]
    fn open(
        &self,
        word: Word,
        growth: u8,
        is_ejected: bool,
        cause: Cause,
        now_ms: u64,
        least: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let from_probe = word.kind == HALF_OPEN;
        let open_for =
            self.recovery(growth, rng.f64()).max(least.min(self.settings.recovery_timeout_max));
        let open_ms = (open_for.as_millis() as u64).max(1);
        let (kind, at_ms) = (OPEN, now_ms + open_ms);
        let growth = (growth + 1).min(word::GROWTH_MAX);
        let opened = Word { kind, is_ejected, at_ms, growth, successes: 0, ..word.next() };
        let open_for = Duration::from_millis(open_ms);
        let is_changed = self.change(word.pack(), opened);
        self.fleet.counted(is_changed.then_some(Transition::opened(from_probe, cause, open_for)))
    }

    fn recovery(&self, growth: u8, random: f64) -> Duration {
        let settings = &self.settings;
        let grown = settings.recovery_timeout.as_secs_f64()
            * settings.recovery_multiplier.max(1.0).powi(growth.into());
        let bounded = grown.min(settings.recovery_timeout_max.as_secs_f64());
        Duration::from_secs_f64(bounded * (1.0 + settings.recovery_jitter.max(0.0) * random))
    }

    /// Leaves the endpoint alone for as long as it asked, within reason, if others take its share.
    fn pause(&self, now_ms: u64, delay: Option<Duration>) {
        let Some(delay) = delay.filter(|_| self.fleet.may_pause()) else {
            return;
        };
        let pause = delay.min(self.settings.recovery_timeout);
        let until_ms = now_ms + pause.as_millis() as u64;
        self.paused_until_ms.fetch_max(until_ms, Ordering::Relaxed);
        self.fleet.paused(until_ms);
    }

    fn change(&self, from: u64, to: Word) -> bool {
        let (done, lost) = (Ordering::AcqRel, Ordering::Acquire);
        self.word.compare_exchange(from, to.pack(), done, lost).is_ok()
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.retire();
    }
}

fn pass(packed: u64) -> Admission {
    let serial = Word::serial_of(packed);
    Admission::Pass(Permit { serial, is_probe: false, transition: None })
}
