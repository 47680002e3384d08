//! A pipeline between its text and the plan, and what its exporters are to each other.

use forebay_codec::signal::Signal;

use super::assemble::near_or;
use super::connectors::Connector;
use super::exporters::{Exporter, Remote};
use super::plan::{self, Ack, Batch, Output, Pipeline};
use super::problem::{Problem, Report};
use super::wiring::{Routes, Way};

/// A pipeline by indices of what is configured, in the order of the configuration.
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) signal: Signal,
    /// Its place among the pipelines as they are written.
    pub(crate) written: usize,
    pub(crate) receivers: Vec<usize>,
    pub(crate) processors: Vec<usize>,
    pub(crate) ways: Vec<Way>,
    pub(crate) routes: Vec<Routes>,
    pub(crate) editing: Vec<plan::Processor>,
    pub(crate) batch: Batch,
    pub(crate) ack: Ack,
    pub(crate) priority: plan::Priority,
}

impl Draft {
    /// Whether what waits for this exporter may go to another instead.
    pub(crate) fn fails_over(&self, exporter: usize) -> bool {
        let is_level = |way: &Way| match way {
            Way::Failover(levels) => levels.len() > 1 && levels.contains(&exporter),
            _ => false,
        };
        self.ways.iter().any(is_level)
    }

    pub(crate) fn exporters(&self) -> Vec<usize> {
        self.ways.iter().flat_map(Way::exporters).collect()
    }

    /// Renumbers destinations and pipelines to those that are left.
    pub(crate) fn finish(
        self,
        index: &impl Fn(usize) -> u16,
        dead_letters: &[Option<usize>],
        connectors: &[Connector],
        kept: &[usize],
    ) -> Pipeline {
        let mut destinations: Vec<u16> = Vec::new();
        for exporter in self.exporters() {
            destinations.push(index(exporter));
            destinations.extend(dead_letters[exporter].map(index));
        }
        let mut seen = Vec::new();
        destinations.retain(|d| {
            !seen.contains(d) && {
                seen.push(*d);
                true
            }
        });
        let output = |way: Way| match way {
            Way::One(exporter) => Output::One(index(exporter)),
            Way::Failover(levels) => Output::Failover(levels.into_iter().map(index).collect()),
            Way::Shift(shares, by) => {
                let shares = shares.into_iter().map(|(exporter, share)| (index(exporter), share));
                Output::Shift { shares: shares.collect(), by }
            }
            Way::Mirror(exporter, percent) => {
                Output::Mirror { destination: index(exporter), percent }
            }
        };
        let places = |written: Vec<usize>| -> Vec<usize> {
            let place = |pipeline: usize| kept.iter().position(|kept| *kept == pipeline);
            written.into_iter().filter_map(place).collect()
        };
        let routing = |routes: Routes| plan::Routing {
            name: connectors[routes.connector].name.clone(),
            rows: routes
                .rows
                .into_iter()
                .map(|(condition, then)| plan::Row { condition, pipelines: places(then) })
                .collect(),
            otherwise: places(routes.otherwise),
        };
        let narrow = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        Pipeline {
            name: self.name,
            signal: self.signal,
            receivers: self.receivers.into_iter().map(narrow).collect(),
            outputs: self.ways.into_iter().map(output).collect(),
            routings: self.routes.into_iter().map(routing).collect(),
            destinations,
            processors: self.editing,
            batch: self.batch,
            ack: self.ack,
            priority: self.priority,
        }
    }
}

/// By exporter: the one that keeps what it refuses.
pub(crate) fn dead_letters(exporters: &[Exporter], report: &Report) -> Vec<Option<usize>> {
    let name = |exporter: &Exporter| exporter.destination.name.clone();
    let of = |exporter: &Exporter| {
        let (wanted, place) = exporter.remote.as_ref()?.dead_letter.as_ref()?;
        let own = name(exporter);
        let fault = |what: &str, hint: String| {
            let what = format!("exporters.{own}.dead_letter names \"{wanted}\", {what}");
            report.add(Problem::error(place, what).hint(hint));
        };
        let Some(index) = exporters.iter().position(|other| name(other) == *wanted) else {
            let names: Vec<String> = exporters.iter().map(name).collect();
            let hint = near_or(wanted, names.iter().map(String::as_str), || {
                format!("add \"{wanted}:\" under exporters, such as a file")
            });
            fault("which is not configured", hint);
            return None;
        };
        let has_its_own = |remote: &Remote| remote.dead_letter.is_some();
        if own == *wanted {
            fault("which is itself", "name another exporter, such as a file".to_owned());
            return None;
        } else if exporters[index].remote.as_ref().is_some_and(has_its_own) {
            fault("which has a dead_letter of its own", "remove one of the two".to_owned());
            return None;
        }
        Some(index)
    };
    exporters.iter().map(of).collect()
}

/// Exporters at which anything may end, in the order of the configuration.
pub(crate) fn used(drafts: &[Draft], dead_letters: &[Option<usize>]) -> Vec<usize> {
    let reached: Vec<usize> = drafts.iter().flat_map(Draft::exporters).collect();
    let letters = |index: &usize| reached.iter().any(|used| dead_letters[*used] == Some(*index));
    let is_used = |index: &usize| reached.contains(index) || letters(index);
    (0..dead_letters.len()).filter(is_used).collect()
}
