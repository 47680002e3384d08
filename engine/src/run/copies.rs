//! At the end of the process: copies that a mirror does not take hold up nothing.
//!
//! While anything else is under way the process lives anyway, and copies are delivered beside it.
//! When they alone are left, they have what is left of [`PATIENCE`], and not all of the time for
//! draining. Always: what is given up is dropped with the reason `shutdown`, and counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::View;

/// From the beginning of the stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of them while the process drains.
pub(super) struct Copies {
    view: Arc<View>,
    /// By destination.
    needed: Vec<bool>,
    /// `None`: they were given up, or there can be none.
    until: Option<Instant>,
}

impl Copies {
    /// `now`: the stop begins.
    pub(super) fn new(view: &Arc<View>, now: Instant) -> Copies {
        let needed = view.plan.needed();
        let until = needed.contains(&false).then(|| now + PATIENCE);
        Copies { view: Arc::clone(view), needed, until }
    }

    /// Gives them up if their time is over and nothing else is under way.
    pub(super) fn look(&mut self, now: Instant) {
        if self.until.is_none_or(|until| now < until) || self.in_flight_items(true) > 0 {
            return;
        }
        self.until = None;
        let items = self.in_flight_items(false);
        if items > 0 {
            tracing::warn!(
                items,
                cost = "copies only: all else has been delivered, or is accounted for",
                hint = "check the mirror's destination",
                "Copies that their mirror has not taken do not hold up the end, and are dropped"
            );
        }
        let lanes = self.view.lanes.iter().zip(&self.needed).filter(|(_, is_needed)| !**is_needed);
        lanes.flat_map(|(lanes, _)| lanes).for_each(|lane| lane.abandon());
    }

    /// At the destinations that are needed, or at the others.
    fn in_flight_items(&self, needed: bool) -> u64 {
        let mut items = 0;
        for (index, pipeline) in self.view.plan.pipelines.iter().enumerate() {
            for (place, destination) in pipeline.destinations.iter().enumerate() {
                if self.needed[usize::from(*destination)] == needed {
                    let shards = self.view.ledger.shards.iter();
                    items += shards
                        .map(|shard| shard.route(index, place).in_flight_items.read())
                        .sum::<u64>();
                }
            }
        }
        items
    }
}
