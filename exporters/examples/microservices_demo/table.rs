//! What is said before and after: what to look for, the three worlds side by side, the promises.
//!
//! Never prints. Always: a promise is judged by what was written down, and says the figures.

use std::fmt::Write as _;
use std::time::Duration;

use crate::account::{Ended, Story, percentile};
use crate::schedule::{Behaviour, CULPRIT, Phase, spans};

pub(crate) const PROLOGUE: &str = "\
load -> checkout -> payments -> ledger, three replicas each, 100 calls a second, 3 ms of work a hop.
payments-2 misbehaves. Each second: the load's calls; retries at payments, and how many more the
budget would pay for; tries at payments-1 / -2 / -3; where the breaker of payments-2 stands.
";

/// In all of the schedule, whatever the draws of jitter are.
const FAILED_MAX: usize = 10;
/// Once a trouble has lasted for [`SETTLING`]. Slow answers take 300 ms, timeouts 400.
const P99_MAX: Duration = Duration::from_millis(200);
const SETTLING: Duration = Duration::from_secs(1);
/// A call that begins this shortly before a phase's end may meet what comes next.
const BORDER: Duration = Duration::from_millis(50);
/// After the list has changed: until its watch has seen it.
const NOTICE: Duration = Duration::from_millis(500);

/// Failed calls, p99 after a phase's first second, and tries at payments for each call.
pub(crate) fn comparison(stories: &[Story]) -> String {
    let mut text = format!("{:26}", "");
    for story in stories {
        let _ = write!(text, "| {:^26} ", story.policy);
    }
    let _ = write!(text, "\n{CULPRIT:16}{:>9} ", "calls");
    for _ in stories {
        let _ = write!(text, "| {:>8}{:>9}{:>9} ", "failed", "p99", "tries");
    }
    for (phase, begins, ends) in spans() {
        let count = stories.first().map_or(0, |story| within(story, begins, ends).count());
        let _ = write!(text, "\n{:16}{count:9} ", phase.name);
        for story in stories {
            text.push_str(&cells(story, begins, ends));
        }
    }
    let (all, count) = (Duration::MAX, stories.first().map_or(0, |story| story.calls.len()));
    let _ = write!(text, "\n{:16}{count:9} ", "all of it");
    for story in stories {
        text.push_str(&cells(story, Duration::ZERO, all));
    }
    text.push_str("\n\np99: of calls after a phase's first second. tries: at payments, a call.\n");
    text
}

/// A line for each promise, and whether all of them hold.
pub(crate) fn promises(stories: &[Story]) -> (String, bool) {
    let mut lines = String::new();
    let mut all_hold = true;
    let mut promise = |holds: bool, what: String| {
        all_hold &= holds;
        let _ = writeln!(lines, "{}  {what}", if holds { "kept  " } else { "BROKEN" });
    };
    for story in stories {
        let (begun, ended) = (story.calls_begun, story.calls.len());
        promise(begun == ended, format!("{}: {ended} of {begun} calls ended", story.policy));
    }
    let [whole, .., bare] = stories else {
        promise(false, "there are worlds to compare".to_owned());
        return (lines, false);
    };
    let failed = failures(whole.calls.iter());
    promise(failed <= FAILED_MAX, format!("{failed} calls failed; at most {FAILED_MAX} may"));
    for (phase, begins, ends) in spans() {
        let p99 = p99(whole, begins, ends);
        let what = format!("{}: p99 after the first second is {} ms", phase.name, p99.as_millis());
        promise(p99 < P99_MAX, format!("{what}; it must be below {}", P99_MAX.as_millis()));
        promises_of_culprit(whole, (phase, begins, ends), &mut promise);
    }
    let lost = failures(bare.calls.iter());
    let what = format!("the trouble was real: with one try {lost} calls failed");
    promise(lost > 10 * FAILED_MAX, what);
    (lines, all_hold)
}

fn promises_of_culprit(
    story: &Story,
    (phase, begins, ends): (&Phase, Duration, Duration),
    promise: &mut impl FnMut(bool, String),
) {
    match phase.behaviour {
        Behaviour::Slow | Behaviour::Unavailable | Behaviour::Hangs => {
            let openings = story.openings_of_culprit.iter();
            let count = openings.filter(|at| (begins..ends).contains(*at)).count();
            let what = format!("{}: openings of {CULPRIT}'s circuit: {count}", phase.name);
            promise(count > 0, what);
        }
        Behaviour::Gone => {
            let noticed = begins + NOTICE..ends;
            let tries = story.tries.iter().filter(|tried| tried.replica == CULPRIT);
            let count = tries.filter(|tried| noticed.contains(&tried.at)).count();
            promise(count == 0, format!("{}: tries at {CULPRIT}: {count}", phase.name));
        }
        Behaviour::Well => {}
    }
}

fn cells(story: &Story, begins: Duration, ends: Duration) -> String {
    let calls = within(story, begins, ends).count().max(1);
    let tries = story.tries.iter().filter(|tried| (begins..ends).contains(&tried.at)).count();
    let failed = failures(within(story, begins, ends));
    let p99 = p99(story, begins, ends).as_millis();
    format!("| {failed:8}{p99:6} ms{:9.2} ", tries as f64 / calls as f64)
}

/// Calls that began then.
fn within(story: &Story, begins: Duration, ends: Duration) -> impl Iterator<Item = &Ended> {
    story.calls.iter().filter(move |call| (begins..ends).contains(&call.began))
}

/// Of calls that began once the phase had settled.
fn p99(story: &Story, begins: Duration, ends: Duration) -> Duration {
    percentile(within(story, begins + SETTLING, ends - BORDER), 99)
}

fn failures<'c>(calls: impl Iterator<Item = &'c Ended>) -> usize {
    calls.filter(|call| !call.is_ok).count()
}
