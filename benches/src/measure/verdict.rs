//! Whether a window can be trusted: what the sink says, what the program says, what the load knows.
//!
//! Always: whatever does not add up is an error, and then there is no figure.

use super::{Measured, PATIENCE};
use crate::account::Verdict;
use crate::control::{Event, Loaded, Order, Sunk};
use crate::process::Worker;
use crate::scenario::Row;

pub(super) fn audit(sink: &mut Worker, loaded: &Loaded) -> Result<(Verdict, Sunk), String> {
    sink.tell(&Order::Audit { claims: loaded.claims.clone() })?;
    match sink.hear(PATIENCE)? {
        Event::Audited { verdict, sunk } => Ok((verdict, sunk)),
        other => Err(format!("the sink says {other:?}")),
    }
}

/// What a program says of itself at its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    accepted_items: u64,
    pub(super) dropped_items: u64,
}

impl Ledger {
    /// What the ledger says. It must balance, and know of every item that was taken.
    pub(super) fn read(output: &str, loaded: &Loaded) -> Result<Ledger, String> {
        let line = output.lines().last().unwrap_or_default();
        let ledger: serde_json::Value = serde_json::from_str(line)
            .map_err(|_| format!("forebay's last line is no ledger: {line:?}"))?;
        let ledger = &ledger["ledger"];
        let number = |key: &str| ledger[key].as_u64().unwrap_or(u64::MAX);
        if ledger["balanced"] != true || number("in_flight_items") != 0 {
            return Err(format!("forebay's ledger does not balance: this run is void: {ledger}"));
        }
        if number("accepted_items") < loaded.progress.ok_items {
            return Err(format!(
                "forebay acknowledged {} items, and its ledger accepted {}: this run is void",
                loaded.progress.ok_items,
                number("accepted_items")
            ));
        }
        let (accepted_items, dropped_items) = (number("accepted_items"), number("dropped_items"));
        Ok(Ledger { accepted_items, dropped_items })
    }

    /// The verdict where nothing is sent on: as many items were accepted as were acknowledged. By
    /// number they can't be told apart, since nobody but the program saw them.
    pub(super) fn verdict(
        self,
        name: &str,
        loaded: &Loaded,
        sunk: &Verdict,
    ) -> Result<Verdict, String> {
        if self.accepted_items == 0 {
            return Err(format!(
                "{name} sends nothing on and keeps no ledger: nobody knows what it took, and so \
                 this run is void"
            ));
        }
        let most: u64 = loaded.claims.iter().map(|c| c.items * u64::from(c.times_max)).sum();
        Ok(Verdict {
            missing: loaded.progress.ok_items.saturating_sub(self.accepted_items),
            unexpected: self.accepted_items.saturating_sub(most),
            alien: sunk.arrivals,
            arrivals: self.accepted_items,
            duplicates: 0,
        })
    }
}

/// Nothing may be missing, and something must have been measured.
pub(super) fn conclude(
    name: &str,
    row: &Row,
    loaded: &Loaded,
    verdict: &Verdict,
    sunk: &Sunk,
    dropped: u64,
    measured: &mut Measured,
) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut count = |items: u64, what: &str| {
        if items > 0 {
            wrong.push(format!("{items} items {what}"));
        }
    };
    count(verdict.missing.saturating_sub(dropped), "were acknowledged and never arrived");
    count(dropped, "were acknowledged and dropped, as the ledger says");
    // At least once: a retry after a lost answer may repeat, and a call that timed out may arrive.
    if !row.faults.may_repeat() {
        count(verdict.duplicates, "arrived more often than they were sent");
    }
    if row.engine.acks == "accepted" {
        count(verdict.unexpected, "arrived although they were refused");
    }
    count(verdict.alien, "arrived that nobody sent");
    if sunk.unreadable > 0 {
        wrong.push(format!("{} requests reached the sink that it could not read", sunk.unreadable));
    }
    let failed = loaded.progress.failed_requests;
    if failed > 0 || loaded.connections_broken > 0 {
        wrong.push(format!("{failed} requests failed: {}", loaded.problems.join("; ")));
    }
    if measured.run.items == 0.0 {
        let problems = loaded.problems.join("; ");
        wrong.push(format!("no item was acknowledged within the window {problems}"));
    }
    if measured.run.engine_cpu_ns_per_item == 0.0 {
        wrong.push("its processes used no CPU time: others did the work".to_owned());
    }
    if !wrong.is_empty() {
        return Err(format!(
            "{name}, {}: {}\n  cost: this run is void, and so there is no figure",
            row.name,
            wrong.join(", ")
        ));
    }
    if measured.run.refused_requests > 0.0 {
        let share =
            measured.run.refused_requests / (measured.run.refused_requests + measured.run.requests);
        measured.notes.push(format!("{:.1} % of the requests were refused", share * 100.0));
    }
    Ok(())
}
