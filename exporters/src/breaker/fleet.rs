//! What the breakers of one destination know of each other: how many there are and how many are
//! shut off, so that outlier ejection never takes away more than the rest can bear.
//!
//! Never touches a breaker. Always: each count is changed by whoever won the change of state it
//! stands for, so a count of shut breakers is exact once that change has returned.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::event::Transition;

/// How much of a fleet may be ejected.
#[derive(Clone, Copy, Debug)]
pub struct FleetSettings {
    /// At most this share of the fleet is ejected for a rate at a time, but of two or more always
    /// one may be. An only endpoint never is: what it does take is better than nothing. Default
    /// 10.
    pub max_ejection_percent: u32,
    /// With less than this share of the fleet closed there is panic: what was ejected for a rate
    /// is used again, because the few that are left would drown, and nothing more is ejected. What
    /// is broken stays shut. A fleet of one knows no panic. Default 50; 0: never.
    pub panic_percent: u32,
    /// Whether an only endpoint is left alone for the delay that it asks for, too: somebody else
    /// takes what it does not. Otherwise only the batch that was told so waits. Default false.
    pub pauses_alone: bool,
}

impl Default for FleetSettings {
    fn default() -> FleetSettings {
        FleetSettings { max_ejection_percent: 10, panic_percent: 50, pauses_alone: false }
    }
}

/// The counts that one destination's endpoints share, over all exporter cores.
#[derive(Debug)]
pub struct Fleet {
    settings: FleetSettings,
    epoch: Instant,
    members: AtomicU32,
    broken: AtomicU32,
    ejected: AtomicU32,
    /// The latest end of any pause that a member has asked for.
    paused_until_ms: AtomicU64,
    /// Ejections that were not made because too many were made already.
    spared: AtomicU64,
    outstanding: AtomicU32,
    /// Changes of state, by [`Transition::kind`].
    transitions: [AtomicU64; Transition::KINDS.len()],
}

impl Fleet {
    /// `epoch`: no later `now` may lie before it.
    pub fn new(settings: FleetSettings, epoch: Instant) -> Fleet {
        Fleet {
            settings,
            epoch,
            members: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            ejected: AtomicU32::new(0),
            paused_until_ms: AtomicU64::new(0),
            spared: AtomicU64::new(0),
            outstanding: AtomicU32::new(0),
            transitions: Default::default(),
        }
    }

    pub fn members(&self) -> u32 {
        self.members.load(Ordering::Relaxed)
    }

    /// Members whose breaker is closed, those that asked for a pause included.
    pub fn closed(&self) -> u32 {
        self.members().saturating_sub(self.broken() + self.ejected())
    }

    /// Whether some member may have asked for a pause that is not over.
    pub fn may_be_paused(&self, now: Instant) -> bool {
        let paused_until_ms = self.paused_until_ms.load(Ordering::Relaxed);
        paused_until_ms > 0 && self.ms(now) < paused_until_ms
    }

    /// Members whose breaker is open or half-open because nothing worked.
    pub fn broken(&self) -> u32 {
        self.broken.load(Ordering::Relaxed)
    }

    /// Members whose breaker is open or half-open for a rate.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Ejections that [`FleetSettings`] forbade since the start.
    pub fn spared(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    /// Calls under way to all members, those that have left included.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Changes of state since the start, by [`Transition::kind`].
    pub fn transitions(&self) -> [u64; Transition::KINDS.len()] {
        std::array::from_fn(|kind| self.transitions[kind].load(Ordering::Relaxed))
    }

    /// Whether an endpoint that asks for a pause has one.
    pub(super) fn may_pause(&self) -> bool {
        self.settings.pauses_alone || self.members() > 1
    }

    /// See [`FleetSettings::panic_percent`].
    pub fn is_panicking(&self) -> bool {
        self.would_panic(self.closed())
    }

    #[inline]
    pub(crate) fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    }

    pub(crate) fn call_began(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn call_ended(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// `made`, and counted if it is a change at all.
    pub(super) fn counted(&self, made: Option<Transition>) -> Option<Transition> {
        if let Some(transition) = &made {
            self.transitions[transition.kind()].fetch_add(1, Ordering::Relaxed);
        }
        made
    }

    pub(super) fn paused(&self, until_ms: u64) {
        self.paused_until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    pub(super) fn joined(&self) {
        self.members.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.members.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes note of an opening, or forbids it.
    pub(super) fn opened(&self, is_ejection: bool) -> bool {
        if !is_ejection {
            self.broken.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let members = self.members();
        let ejected_max = (members * self.settings.max_ejection_percent.min(100) / 100).max(1);
        let relaxed = Ordering::Relaxed;
        let reserved = self.ejected.fetch_update(relaxed, relaxed, |ejected| {
            let closed_after = members.saturating_sub(self.broken() + ejected + 1);
            let has_room = members > 1 && ejected < ejected_max;
            let is_allowed = has_room && !self.would_panic(closed_after);
            is_allowed.then_some(ejected + 1)
        });
        if reserved.is_err() {
            self.spared.fetch_add(1, Ordering::Relaxed);
        }
        reserved.is_ok()
    }

    pub(super) fn closed_again(&self, was_ejected: bool) {
        let count = if was_ejected { &self.ejected } else { &self.broken };
        count.fetch_sub(1, Ordering::Relaxed);
    }

    fn would_panic(&self, closed: u32) -> bool {
        let members = self.members();
        members > 1 && closed * 100 < members * self.settings.panic_percent
    }
}
