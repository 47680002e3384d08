//! How each pipeline stands: whether its destinations take more, and what of it is not said yet.

use std::time::Duration;

use forebay_net::request::Nanos;
use forebay_net::ring::Ring;

use super::Shard;
use crate::config::plan::Output;
use crate::ingest::admission::Standing;

/// How full a destination's lanes are is looked at so often, while it refuses.
const FILL_PAUSE: Nanos = 5_000_000;
/// A destination that gave something back for others to take is passed over for this long.
const GIVEN_BACK_PAUSE: Nanos = 100_000_000;
/// Lines about the same loss are this far apart.
const WARN_PAUSE: Nanos = 10_000_000_000;

/// What a destination's cluster said, and when.
#[derive(Clone, Copy, Default)]
pub(super) struct Word {
    asked_at: Option<Nanos>,
    retry_in: Option<Duration>,
    looked_at: Option<Nanos>,
    is_half_full: bool,
    gave_back_at: Option<Nanos>,
}

impl Word {
    /// The destination could not take what it had, and others may.
    pub(super) fn gave_back(&mut self, now: Nanos) {
        self.gave_back_at = Some(now);
    }

    /// Its lanes are not as full as they were.
    pub(super) fn has_changed(&mut self) {
        self.looked_at = None;
    }
}

impl<R: Ring> Shard<R> {
    /// If no endpoint of a destination takes anything: when the first may. Asked once a turn.
    pub(super) fn refuses(&mut self, destination: u16, now: Nanos) -> Option<Duration> {
        let index = usize::from(destination);
        let word = &mut self.flow.words[index];
        if word.asked_at != Some(now) {
            word.asked_at = Some(now);
            let instant = self.epoch + Duration::from_nanos(now);
            word.retry_in = self.flow.clusters[index].refuses(instant);
        }
        word.retry_in
    }

    /// If a level of a failover is not to be tried: when it may be. Also while its endpoints seem
    /// to take calls, when it has just given something back: it would do so again, and what comes
    /// would go in circles while another level has nothing to do.
    ///
    /// Not while its discovery may still give its first answer: its lane holds what comes.
    pub(super) fn is_passed_over(&mut self, level: u16, now: Nanos) -> Option<Duration> {
        let instant = self.epoch + Duration::from_nanos(now);
        if self.flow.clusters[usize::from(level)].is_first_answer_awaited(instant) {
            return None;
        }
        let gave_back_at = self.flow.words[usize::from(level)].gave_back_at;
        let rests_until = gave_back_at.map(|at| at + GIVEN_BACK_PAUSE).filter(|until| now < *until);
        let rests_for = rests_until.map(|until| Duration::from_nanos(until - now));
        self.refuses(level, now).max(rests_for)
    }

    pub(super) fn refresh_standings(&mut self, now: Nanos) {
        // A routing leads to pipelines that stand by then.
        for is_router in [false, true] {
            for pipeline in 0..self.plan.pipelines.len() {
                if self.plan.pipelines[pipeline].routings.is_empty() != is_router {
                    self.ingest.standings[pipeline] = self.standing(pipeline, now);
                }
            }
        }
    }

    fn standing(&mut self, pipeline: usize, now: Nanos) -> Standing {
        let (ways, mut standing) = (self.flow.ways.clone(), Standing::Open);
        for (output, way) in ways[pipeline].iter().enumerate() {
            standing = standing.and(self.standing_of(pipeline, output, way, now));
        }
        for routing in &self.plan.pipelines[pipeline].routings {
            let targets = routing.targets().map(|target| self.ingest.standings[target]);
            standing = standing.and(targets.reduce(Standing::or).unwrap_or_default());
        }
        standing
    }

    fn standing_of(
        &mut self,
        pipeline: usize,
        output: usize,
        way: &Output,
        now: Nanos,
    ) -> Standing {
        match way {
            Output::Mirror { .. } => Standing::Open,
            Output::One(destination) => self.standing_at(*destination, now),
            Output::Shift { shares, .. } => {
                let each =
                    shares.iter().map(|(destination, _)| self.standing_at(*destination, now));
                each.fold(Standing::Open, Standing::and)
            }
            Output::Failover(levels) => {
                let siding = self.flow.siding(pipeline, output);
                // What only rests has a place as soon as another level has one.
                let (is_empty, is_waiting) = (siding.is_empty(), siding.is_waiting());
                let each = levels.iter().map(|level| match self.is_passed_over(*level, now) {
                    Some(retry_in) if !is_empty => Standing::Refusing { retry_in },
                    None if is_waiting => Standing::Full,
                    _ => self.standing_at(*level, now),
                });
                each.reduce(Standing::or).unwrap_or_default()
            }
        }
    }

    /// A queue that is less than half full still takes: what is accepted then goes out as soon as
    /// the destination is back. Beyond that, waiting is better done by clients, who can go
    /// elsewhere; and who fills the other half finds out at the full queue.
    fn standing_at(&mut self, destination: u16, now: Nanos) -> Standing {
        let index = usize::from(destination);
        let retry_in = self.refuses(destination, now);
        let (outbox, word) = (&self.outboxes[index], &mut self.flow.words[index]);
        let has_full_letters =
            self.plan.dead_letters[index].is_some_and(|l| self.outboxes[usize::from(l)].is_full());
        match retry_in {
            None if outbox.is_full() || has_full_letters => Standing::Full,
            None => Standing::Open,
            Some(retry_in) => {
                if word.looked_at.is_none_or(|looked_at| now >= looked_at + FILL_PAUSE) {
                    word.looked_at = Some(now);
                    word.is_half_full = outbox.is_half_full();
                }
                match word.is_half_full || outbox.is_full() || has_full_letters {
                    true => Standing::Refusing { retry_in },
                    false => Standing::Open,
                }
            }
        }
    }

    /// What is lost by what the configuration says, and nobody was told of.
    pub(super) fn tell_losses(&mut self, now: Nanos) {
        let unrouted = self.ingest.unrouted_untold();
        if (unrouted == 0 && self.flow.mirror_full_untold == 0)
            || self.flow.warned_at.is_some_and(|at| now < at + WARN_PAUSE)
        {
            return;
        }
        self.flow.warned_at = Some(now);
        if unrouted > 0 {
            self.ingest.told_unrouted();
            tracing::warn!(
                items = unrouted,
                hint = "add a row, or default_pipelines, to the routing; see /ledger for which",
                "Items were in no row of a routing, and are dropped"
            );
        }
        let items = std::mem::take(&mut self.flow.mirror_full_untold);
        if items > 0 {
            tracing::warn!(
                items,
                cost = "copies only: the mirrored pipeline is not touched",
                hint = "check the mirror's destination, or lower its percent",
                "A mirror's queue is full, and copies are dropped"
            );
        }
    }
}
