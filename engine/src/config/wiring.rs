//! Which pipeline leads where: connectors are taken out, and what stands behind them is put in
//! their place.
//!
//! A pipeline behind a failover, shift or mirror becomes an output of each pipeline before it. One
//! behind a routing stays a pipeline, which is fed by others. One level of each is enough for
//! everybody so far: a routing may lead to a failover, shift or mirror, and that is the end.

use forebay_codec::signal::Signal;

use super::connectors::{Connector, Kind, Named, problem};
use super::plan::{Condition, ShiftBy};
use super::problem::{Place, Problem, Report};

/// What a pipeline's lists name: an own component, or a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Own(usize),
    Connector(usize),
}

/// A pipeline as it is written.
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) signal: Signal,
    pub(crate) receivers: Vec<End>,
    pub(crate) has_processors: bool,
    pub(crate) exporters: Vec<End>,
}

impl Written {
    pub(crate) fn own(ends: &[End]) -> impl Iterator<Item = usize> {
        ends.iter().filter_map(|end| match end {
            End::Own(index) => Some(*index),
            End::Connector(_) => None,
        })
    }

    fn connectors(ends: &[End]) -> impl Iterator<Item = usize> {
        ends.iter().filter_map(|end| match end {
            End::Own(_) => None,
            End::Connector(index) => Some(*index),
        })
    }
}

/// Where a pipeline's batches go, by exporters.
pub(crate) enum Way {
    One(usize),
    Failover(Vec<usize>),
    Shift(Vec<(usize, u32)>, ShiftBy),
    Mirror(usize, u32),
}

impl Way {
    pub(crate) fn exporters(&self) -> Vec<usize> {
        match self {
            Way::One(exporter) | Way::Mirror(exporter, _) => vec![*exporter],
            Way::Failover(levels) => levels.clone(),
            Way::Shift(shares, _) => shares.iter().map(|(exporter, _)| *exporter).collect(),
        }
    }
}

/// A routing by pipelines as they are written.
pub(crate) struct Routes {
    pub(crate) connector: usize,
    pub(crate) rows: Vec<(Condition, Vec<usize>)>,
    pub(crate) otherwise: Vec<usize>,
}

/// What stands behind one pipeline.
#[derive(Default)]
pub(crate) struct Wired {
    pub(crate) ways: Vec<Way>,
    pub(crate) routes: Vec<Routes>,
}

pub(crate) struct Wiring<'a> {
    pub(crate) connectors: &'a [Connector],
    pub(crate) pipelines: &'a [Written],
    pub(crate) report: &'a Report,
}

impl Wiring<'_> {
    /// Whether it stays a pipeline: something comes to it other than by being put in a
    /// connector's place.
    pub(crate) fn is_kept(&self, pipeline: &Written) -> bool {
        Written::own(&pipeline.receivers).next().is_some()
            || Written::connectors(&pipeline.receivers).any(|c| self.connectors[c].is_routing())
    }

    /// Reports connectors that do not stand between pipelines.
    pub(crate) fn check(&self) {
        for (index, connector) in self.connectors.iter().enumerate() {
            let feeds = |p: &&Written| p.exporters.contains(&End::Connector(index));
            let takes = |p: &&Written| p.receivers.contains(&End::Connector(index));
            let feeding = self.pipelines.iter().find(feeds);
            let taking = self.pipelines.iter().find(takes);
            match (feeding, taking) {
                (None, None) => {
                    let what = "is in no pipeline, and does nothing";
                    let hint = "name it as an exporter of one pipeline and as a receiver of others";
                    let place = &connector.place;
                    let text = format!("connectors.{} {what}", connector.name);
                    self.report.add(Problem::warning(place, text).hint(hint));
                    continue;
                }
                (None, Some(_)) => {
                    let what = "is fed by no pipeline";
                    let hint = "name it as an exporter of the pipeline whose items it shall get";
                    self.report.add(problem(connector, &connector.place, what).hint(hint));
                }
                _ => {}
            }
            for (name, place) in connector.pipelines() {
                self.stands_behind(index, name, place);
            }
            for pipeline in self.pipelines.iter().filter(takes) {
                let is_named = connector.pipelines().iter().any(|(name, _)| *name == pipeline.name);
                if !is_named {
                    let what = format!(
                        "is a receiver of pipeline \"{}\", and does not lead there",
                        pipeline.name
                    );
                    let hint = "name the pipeline in the connector, or remove the receiver";
                    self.report.add(problem(connector, &pipeline.place, &what).hint(hint));
                }
            }
        }
    }

    /// The pipeline that a connector names, if it may stand behind it.
    fn stands_behind(&self, index: usize, name: &str, place: &Place) {
        let connector = &self.connectors[index];
        let Some(behind) = self.pipelines.iter().find(|p| p.name == name) else {
            let what = format!("names \"{name}\", which is no pipeline");
            let known = self.pipelines.iter().map(|p| p.name.as_str());
            let hint = super::assemble::near_or(name, known, || {
                format!("add \"{name}:\" under service.pipelines")
            });
            return self.report.add(problem(connector, place, &what).hint(hint));
        };
        let fault = |what: String, hint: &str| {
            self.report.add(problem(connector, place, &what).hint(hint));
        };
        if !behind.receivers.contains(&End::Connector(index)) {
            let what = format!("leads to pipeline \"{name}\", which does not receive from it");
            fault(what, &format!("add \"{}\" to its receivers", connector.name));
        }
        for before in self.pipelines {
            if before.exporters.contains(&End::Connector(index)) && before.signal != behind.signal {
                let what = format!("leads from {} to \"{name}\"", before.signal);
                fault(what, "a connector joins pipelines of one signal");
            }
        }
        let further: Vec<usize> = Written::connectors(&behind.exporters).collect();
        if further.contains(&index) {
            let what = format!("leads from pipeline \"{name}\" back to itself: a circle");
            return fault(what, "send that pipeline to an exporter");
        }
        let is_deep = |c: &usize| !connector.is_routing() || self.connectors[*c].is_routing();
        if let Some(next) = further.into_iter().find(is_deep) {
            let next = &self.connectors[next].name;
            let what = format!("leads over pipeline \"{name}\" to connectors.{next}");
            fault(what, "only a routing may lead to another connector, and not to a routing");
        }
        if connector.is_routing() {
            return;
        }
        if behind.has_processors {
            let what = format!("leads to pipeline \"{name}\", which has processors");
            fault(
                what,
                "put them into the pipeline before the connector: all behind it share them",
            );
        }
        let exporters = Written::own(&behind.exporters).count();
        if exporters != 1 && !matches!(connector.kind, Kind::Mirror { .. }) {
            let what = format!("leads to pipeline \"{name}\", which has {exporters} exporters");
            fault(what, "name one there; a pipeline before the connector may have more");
        }
    }

    /// Where a pipeline leads. What is wrong on the way has been reported.
    pub(crate) fn wired(&self, pipeline: &Written) -> Wired {
        let mut wired = Wired::default();
        for end in &pipeline.exporters {
            match *end {
                End::Own(exporter) => wired.ways.push(Way::One(exporter)),
                End::Connector(index) => self.join(index, &mut wired),
            }
        }
        self.exporters_differ(pipeline, &wired);
        let by_trace = |way: &Way| matches!(way, Way::Shift(_, ShiftBy::TraceId));
        let kind = pipeline.name.split('/').next().unwrap_or_default();
        if wired.ways.iter().any(by_trace) && !["traces", "logs"].contains(&kind) {
            let what = format!("pipeline \"{}\" is shifted by traceID", pipeline.name);
            self.report.add(
                Problem::error(&pipeline.place, what)
                    .why(format!("{kind} have no trace, so all of them would go to one pipeline"))
                    .hint("leave out `by`: whole batches go in turn"),
            );
        }
        let is_mirror = |way: &Way| matches!(way, Way::Mirror(..));
        if wired.routes.is_empty() && !wired.ways.is_empty() && wired.ways.iter().all(is_mirror) {
            let what = format!("pipeline \"{}\" leads to mirrors only", pipeline.name);
            self.report.add(
                Problem::error(&pipeline.place, what)
                    .why("nobody waits for a mirror, so its items would be in nobody's hands")
                    .hint("add the exporter that they are for"),
            );
        }
        wired
    }

    fn join(&self, index: usize, wired: &mut Wired) {
        match &self.connectors[index].kind {
            Kind::Failover(levels) => {
                wired
                    .ways
                    .push(Way::Failover(levels.iter().flat_map(|l| self.behind(l)).collect()));
            }
            Kind::Shift { shares, by } => {
                let share =
                    |(named, weight): &(Named, u32)| Some((*self.behind(named).first()?, *weight));
                wired.ways.push(Way::Shift(shares.iter().filter_map(share).collect(), *by));
            }
            Kind::Mirror { pipelines, percent } => {
                let exporters = pipelines.iter().flat_map(|named| self.behind(named));
                wired.ways.extend(exporters.map(|exporter| Way::Mirror(exporter, *percent)));
            }
            Kind::Routing { rows, otherwise } => {
                let indices = |names: &[Named]| {
                    let position = |(name, _): &Named| {
                        self.pipelines.iter().position(|pipeline| pipeline.name == *name)
                    };
                    names.iter().filter_map(position).collect()
                };
                wired.routes.push(Routes {
                    connector: index,
                    rows: rows.iter().map(|(when, then)| (when.clone(), indices(then))).collect(),
                    otherwise: indices(otherwise),
                });
            }
        }
    }

    /// The exporters of the pipeline that a connector names.
    fn behind(&self, (name, _): &Named) -> Vec<usize> {
        let behind = self.pipelines.iter().find(|pipeline| pipeline.name == *name);
        behind.map(|pipeline| Written::own(&pipeline.exporters).collect()).unwrap_or_default()
    }

    fn exporters_differ(&self, pipeline: &Written, wired: &Wired) {
        let mut all: Vec<usize> = wired.ways.iter().flat_map(Way::exporters).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            let what = format!("pipeline \"{}\" leads to one exporter twice", pipeline.name);
            self.report.add(
                Problem::error(&pipeline.place, what)
                    .why("its items could not be told apart there, nor in the ledger")
                    .hint("name each exporter once, behind connectors and beside them"),
            );
        }
    }
}
