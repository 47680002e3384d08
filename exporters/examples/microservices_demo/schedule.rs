//! What the culprit does, and when.
//!
//! Between the first three troubles it is well for a while, so that each is found on its own.

use std::time::Duration;

/// The replica that misbehaves.
pub(crate) const CULPRIT: &str = "payments-2";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Well,
    /// A hundred times as slow as usual.
    Slow,
    /// Answers 503 at once.
    Unavailable,
    /// Takes requests and never answers.
    Hangs,
    /// Well, but no longer in the list.
    Gone,
}

pub(crate) struct Phase {
    /// For the table.
    pub(crate) name: &'static str,
    /// For the story: what the culprit does.
    pub(crate) title: &'static str,
    pub(crate) behaviour: Behaviour,
    pub(crate) lasts: Duration,
}

static SCHEDULE: [Phase; 8] = [
    phase("well", "is well, like all others", Behaviour::Well, 2_000),
    phase("slow", "is slower by a hundred", Behaviour::Slow, 3_000),
    phase("well again", "is well again", Behaviour::Well, 2_500),
    phase("503", "answers 503", Behaviour::Unavailable, 3_000),
    phase("well again", "is well again", Behaviour::Well, 2_500),
    phase("hangs", "hangs: takes requests and says nothing", Behaviour::Hangs, 3_000),
    phase("gone", "is gone from discovery", Behaviour::Gone, 2_000),
    phase("back", "is back", Behaviour::Well, 2_500),
];

pub(crate) fn length() -> Duration {
    SCHEDULE.iter().map(|phase| phase.lasts).sum()
}

/// Each phase with its begin and end, from the schedule's begin.
pub(crate) fn spans() -> Vec<(&'static Phase, Duration, Duration)> {
    let mut begins = Duration::ZERO;
    let mut spans = Vec::new();
    for phase in &SCHEDULE {
        spans.push((phase, begins, begins + phase.lasts));
        begins += phase.lasts;
    }
    spans
}

const fn phase(
    name: &'static str,
    title: &'static str,
    behaviour: Behaviour,
    lasts_ms: u64,
) -> Phase {
    Phase { name, title, behaviour, lasts: Duration::from_millis(lasts_ms) }
}
