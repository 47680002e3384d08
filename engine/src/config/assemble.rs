//! From the tree to a plan: the sections are read, the pipelines wired, and everything that only
//! shows when the parts are seen together is checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forebay_codec::signal::Signal;

use super::engine::{self, Acks};
use super::exporters::delivery::BatchWish;
use super::exporters::{self, Exporter, Remote};
use super::keys::{Table, block, refused, value};
use super::plan::{self, Ack, Batch, Lifetime, Listener, Pipeline, Plan};
use super::problem::{Place, Problem, Report, nearest};
use super::processors::{self, Processor};
use super::receivers::{self, Receiver};
use super::section::{Component, Section};
use super::service;
use super::tree::Node;

pub(crate) const ROOT: Table = Table {
    path: "(the whole file)",
    keys: &[
        block("receivers", "Where telemetry comes in."),
        block("processors", "What is done to items, and batching."),
        block("exporters", "Where it goes."),
        block("extensions", "Health."),
        block("service", "Which of these run, and how forebay shows itself."),
        block("engine", "What is forebay's own."),
        refused("connectors", "leave them to a Collector behind forebay"),
    ],
};

pub(crate) const PIPELINE: Table = Table {
    path: "service.pipelines.<signal>[/name]",
    keys: &[
        value("receivers", "list of names", "", "Required."),
        value(
            "processors",
            "list of names",
            "[]",
            "In their order. At most one that batches; the others act before it, wherever it \
             stands.",
        ),
        value(
            "exporters",
            "list of names",
            "",
            "Required. Each gets everything, and none waits \
            for another.",
        ),
    ],
};

/// Reads the whole tree. The plan is worth something only if the report has no error by then.
pub(crate) fn assemble(root: &Node, report: &Report) -> Plan {
    let root = Section::open(root, &root.place, "", &ROOT, report);
    let engine = engine::read(&root.block("engine", &engine::ENGINE));
    let lifetime = Lifetime {
        idle_timeout: engine.engine.limits.idle_timeout,
        age_max: engine.engine.limits.connection_age_max,
        age_grace: Duration::ZERO,
    };
    let receivers = receivers::read(&root.components("receivers"), lifetime, report);
    let processors = processors::read(&root.components("processors"), report);
    let exporters = exporters::read(&root.components("exporters"), report);
    let service = root.block("service", &service::SERVICE);
    let health = service::health(&root.components("extensions"), &service, report);
    let (telemetry, telemetry_place) = service::telemetry(&service);

    let parts = Parts {
        receivers: &receivers,
        processors: &processors,
        exporters: &exporters,
        acks: &engine.acks,
        batch_bytes_max: engine.batch_bytes_max,
        report,
    };
    let drafts = parts.pipelines(&service);
    report_unused(&parts, &drafts);

    let listeners: Vec<&(Listener, Place)> = receivers
        .iter()
        .enumerate()
        .filter(|(index, _)| drafts.iter().any(|draft| draft.receivers.contains(index)))
        .flat_map(|(_, receiver)| &receiver.listeners)
        .collect();
    let mut addresses: Vec<(SocketAddr, &Place)> =
        listeners.iter().map(|(listener, place)| (listener.address, place)).collect();
    addresses.extend(health.as_ref().map(|(address, place)| (*address, place)));
    addresses.extend(telemetry.metrics.map(|address| (address, &telemetry_place)));
    addresses_differ(&addresses, report);
    budget_fits_requests(&engine, &listeners, report);

    let used: Vec<usize> = (0..exporters.len())
        .filter(|index| drafts.iter().any(|draft| draft.exporters.contains(index)))
        .collect();
    Plan {
        listeners: listeners.into_iter().map(|(listener, _)| listener.clone()).collect(),
        destinations: used.iter().map(|index| exporters[*index].destination.clone()).collect(),
        pipelines: drafts.into_iter().map(|draft| draft.finish(&used)).collect(),
        engine: engine.engine,
        telemetry,
        health: health.map(|(address, _)| address),
    }
}

/// What pipelines are made of.
struct Parts<'a> {
    receivers: &'a [Receiver],
    processors: &'a [Processor],
    exporters: &'a [Exporter],
    acks: &'a Acks,
    batch_bytes_max: u64,
    report: &'a Report,
}

/// A pipeline by indices into [`Parts`].
struct Draft {
    name: String,
    signal: Signal,
    receivers: Vec<usize>,
    processors: Vec<usize>,
    exporters: Vec<usize>,
    editing: Vec<plan::Processor>,
    batch: Batch,
    ack: Ack,
}

impl Draft {
    /// Renumbers destinations to those in use.
    fn finish(self, used: &[usize]) -> Pipeline {
        // Components are far fewer than 65,536: a tree of the size taken holds no more.
        let narrow = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        let position = |index| used.iter().position(|used| *used == index);
        Pipeline {
            name: self.name,
            signal: self.signal,
            receivers: self.receivers.into_iter().map(narrow).collect(),
            destinations: self.exporters.into_iter().filter_map(position).map(narrow).collect(),
            processors: self.editing,
            batch: self.batch,
            ack: self.ack,
        }
    }
}

impl Parts<'_> {
    fn pipelines(&self, service: &Section<'_>) -> Vec<Draft> {
        let components = service.components("pipelines");
        if components.is_empty() {
            let problem = Problem::error(&service.place, "service.pipelines is missing or empty")
                .why("without a pipeline, nothing that comes in would go anywhere")
                .hint("add one, such as traces: {receivers: [otlp], exporters: [debug]}");
            self.report.add(problem);
        }
        for (name, (_, place)) in &self.acks.pipelines {
            let known = || components.iter().map(|component| component.id);
            if !known().any(|id| id == name) {
                let what = format!("engine.acks.pipelines names \"{name}\", which is no pipeline");
                self.report.add(
                    Problem::error(place, what).hint(near_or(name, known(), || {
                        "name one of service.pipelines".to_owned()
                    })),
                );
            }
        }
        components.iter().filter_map(|component| self.pipeline(component)).collect()
    }

    fn pipeline(&self, component: &Component<'_>) -> Option<Draft> {
        let path = format!("service.{}", component.path);
        let section = Section::open(component.node, component.place, path, &PIPELINE, self.report);
        let Some(signal) = Signal::ALL.into_iter().find(|s| s.name() == component.kind) else {
            let known = Signal::ALL.map(Signal::name);
            let what = format!("pipeline \"{}\" is of no known signal", component.id);
            self.report.add(Problem::error(component.place, what).hint(near_or(
                component.kind,
                known,
                || format!("a pipeline's name begins with {}", known.join(", ")),
            )));
            return None;
        };
        let receivers = self.named(&section, "receivers", self.receivers, |r| &r.name);
        let processors = self.named(&section, "processors", self.processors, |p| &p.name);
        let exporters = self.named(&section, "exporters", self.exporters, |e| &e.destination.name);
        for key in ["receivers", "exporters"] {
            if section.texts(key).is_empty() {
                section.fault(key, "is missing or empty: name at least one");
            }
        }
        self.urls_are_there(&section, signal, &exporters);
        Some(Draft {
            editing: self.editing(&section, signal, &processors),
            batch: self.batch(&section, &processors, &exporters),
            ack: self.ack(component, &exporters),
            name: component.id.to_owned(),
            signal,
            receivers,
            processors,
            exporters,
        })
    }

    /// Indices of the components that a pipeline names under `key`.
    fn named<T>(
        &self,
        section: &Section<'_>,
        key: &str,
        known: &[T],
        name: impl Fn(&T) -> &str,
    ) -> Vec<usize> {
        let mut indices = Vec::new();
        for (id, place) in section.texts(key) {
            let kind = key.trim_end_matches('s');
            match known.iter().position(|candidate| name(candidate) == id) {
                Some(index) if indices.contains(&index) => {
                    let what = format!("{} names \"{id}\" twice", section.key_path(key));
                    self.report.add(Problem::error(place, what).hint("remove one"));
                }
                Some(index) => indices.push(index),
                None => {
                    let path = &section.path;
                    let what = format!("{path} names the {kind} \"{id}\", which is not configured");
                    self.report.add(Problem::error(place, what).hint(near_or(
                        id,
                        known.iter().map(&name),
                        || format!("add \"{id}:\" under \"{key}:\""),
                    )));
                }
            }
        }
        indices
    }

    fn urls_are_there(&self, section: &Section<'_>, signal: Signal, exporters: &[usize]) {
        for exporter in exporters.iter().map(|index| &self.exporters[*index]) {
            if exporter.remote.as_ref().is_some_and(|r| r.signals_missing.contains(&signal)) {
                let name = &exporter.destination.name;
                let what = format!("exporters.{name} has no URL for {signal}");
                self.report.add(
                    Problem::error(&exporter.place, what)
                        .why(format!("{} sends {signal} to it", section.path))
                        .hint(format!("set endpoint, or {signal}_endpoint")),
                );
            }
        }
    }

    /// What the pipeline's processors do to its items.
    fn editing(
        &self,
        section: &Section<'_>,
        signal: Signal,
        processors: &[usize],
    ) -> Vec<plan::Processor> {
        let mut editing = Vec::new();
        for processor in processors.iter().map(|index| &self.processors[*index]) {
            let name = processor.name.clone();
            match processor.editor(signal) {
                Ok(editor) => {
                    editing.extend(editor.map(|editor| plan::Processor { name, editor }));
                }
                Err(why) => {
                    let what = format!("{} can't use processors.{name}", section.path);
                    self.report.add(
                        Problem::error(section.place_of("processors"), what)
                            .why(why)
                            .hint(format!("remove it from the {signal} pipeline")),
                    );
                }
            }
        }
        editing
    }

    /// One batch goes to all destinations, so everybody who has a wish must wish the same.
    fn batch(&self, section: &Section<'_>, processors: &[usize], exporters: &[usize]) -> Batch {
        let own = |remote: &Remote| remote.batch.clone();
        let processors = processors.iter().filter_map(|i| self.processors[*i].batch.clone());
        let remotes: Vec<&Remote> = self.remotes(exporters).map(|(_, remote)| remote).collect();
        let wishes: Vec<BatchWish> =
            processors.chain(remotes.iter().filter_map(|remote| own(remote))).collect();
        let wishing = remotes.iter().filter(|remote| remote.batch.is_some()).count();
        let from_exporters_only = wishes.len() == wishing;
        let agreed = wishes.windows(2).all(|pair| pair[0].batch == pair[1].batch);
        if !agreed || (from_exporters_only && wishing > 0 && wishing < remotes.len()) {
            let who: Vec<&str> = wishes.iter().map(|wish| wish.path.as_str()).collect();
            let what = format!("{} has more than one way to batch", section.path);
            self.report.add(
                Problem::error(&section.place, what)
                    .why(format!(
                        "one batch goes to all of its destinations, but the wishes of {} are not \
                        shared by all",
                        who.join(" and ")
                    ))
                    .hint("use one batch processor, or the same batch in each network exporter"),
            );
        }
        let mut batch = wishes.first().map_or(UNBATCHED, |wish| wish.batch);
        if batch.bytes_max == 0 {
            batch.bytes_max = self.batch_bytes_max;
        }
        if let Some(wish) = wishes.first().filter(|_| batch.bytes_min > batch.bytes_max) {
            let what = format!("{}.min_size is more than a batch may have", wish.path);
            self.report.add(
                Problem::error(&wish.place, what)
                    .why(format!("engine.limits.batch_bytes_max is {}", batch.bytes_max))
                    .hint("lower the one, or raise the other"),
            );
        }
        batch
    }

    fn ack(&self, component: &Component<'_>, exporters: &[usize]) -> Ack {
        let written = self.acks.pipelines.get(component.id);
        let remotes: Vec<(&str, &Remote)> = self.remotes(exporters).collect();
        let waiting = remotes.iter().find(|(_, remote)| remote.waits_for_result);
        let patient = remotes.iter().find(|(_, remote)| !remote.waits_for_result);
        let Some((waiting_name, remote)) = waiting else {
            return written.map(|(ack, _)| *ack).or(self.acks.default).unwrap_or(Ack::Accepted);
        };
        let id = component.id;
        match (written, patient) {
            (Some((Ack::Accepted, place)), _) => self.report.add(
                Problem::error(place, format!("engine.acks says \"accepted\" for {id}"))
                    .why(format!("exporters.{waiting_name} has wait_for_result: true"))
                    .hint("remove one of the two"),
            ),
            (None, Some((patient_name, _))) => self.report.add(
                Problem::error(
                    &remote.waits_place,
                    format!("pipeline \"{id}\" waits for only some of its destinations"),
                )
                .why(format!(
                    "exporters.{waiting_name} has wait_for_result: true, exporters.{patient_name} \
                    has not; an answer waits for all of them or for none"
                ))
                .hint(format!("set it on each, or set engine.acks.pipelines: {{{id}: delivered}}")),
            ),
            _ => {}
        }
        Ack::Delivered
    }

    fn remotes(&self, exporters: &[usize]) -> impl Iterator<Item = (&str, &Remote)> {
        exporters.iter().filter_map(|index| {
            let exporter = &self.exporters[*index];
            Some((exporter.destination.name.as_str(), exporter.remote.as_ref()?))
        })
    }
}

const UNBATCHED: Batch =
    Batch { items_min: 0, items_max: 0, bytes_min: 0, bytes_max: 0, flush_timeout: Duration::ZERO };

fn near_or<'k>(
    word: &str,
    known: impl IntoIterator<Item = &'k str>,
    otherwise: impl Fn() -> String,
) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => otherwise(),
    }
}

fn report_unused(parts: &Parts<'_>, drafts: &[Draft]) {
    let warn = |class: &str, name: &str, place: &Place| {
        let what = format!("{class}.{name} is in no pipeline, and does nothing");
        let hint = "name it in a pipeline under service.pipelines, or remove it";
        parts.report.add(Problem::warning(place, what).hint(hint));
    };
    for (index, receiver) in parts.receivers.iter().enumerate() {
        if !drafts.iter().any(|draft| draft.receivers.contains(&index)) {
            warn("receivers", &receiver.name, &receiver.place);
        }
    }
    for (index, processor) in parts.processors.iter().enumerate() {
        if !drafts.iter().any(|draft| draft.processors.contains(&index)) {
            warn("processors", &processor.name, &processor.place);
        }
    }
    for (index, exporter) in parts.exporters.iter().enumerate() {
        if !drafts.iter().any(|draft| draft.exporters.contains(&index)) {
            warn("exporters", &exporter.destination.name, &exporter.place);
        }
    }
}

/// Two listeners on one port work only where neither covers the other's address.
fn addresses_differ(addresses: &[(SocketAddr, &Place)], report: &Report) {
    let any = |ip: IpAddr| ip.is_unspecified();
    for (index, (address, place)) in addresses.iter().enumerate() {
        let clash = addresses[..index].iter().find(|(other, _)| {
            other.port() == address.port()
                && address.port() != 0
                && (other.ip() == address.ip() || any(other.ip()) || any(address.ip()))
        });
        if let Some((other, first)) = clash {
            let what = format!("{address} is taken by {other} at {first}");
            let hint =
                "give each its own port; only grpc and http of one receiver may share theirs";
            report.add(Problem::error(place, what).hint(hint));
        }
    }
}

fn budget_fits_requests(engine: &engine::Read, listeners: &[&(Listener, Place)], report: &Report) {
    let budget = engine.engine.memory_budget_bytes;
    for (listener, _) in listeners {
        let grpc = listener.grpc.as_ref().map(|grpc| grpc.request_bytes_max);
        let http = listener.http.as_ref().map(|http| http.request_bytes_max);
        let Some(largest) = grpc.max(http).filter(|largest| *largest > budget) else {
            continue;
        };
        let name = &listener.receiver_name;
        let what = format!("the memory budget of {budget} bytes is less than one request may have");
        report.add(
            Problem::error(&engine.budget_place, what)
                .why(format!("receivers.{name} takes requests of up to {largest} bytes"))
                .hint("raise engine.memory.budget_bytes, or lower the receiver's limit"),
        );
        return;
    }
}
