//! From the tree to a plan: the sections are read, the pipelines wired, and everything that only
//! shows when the parts are seen together is checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forebay_codec::signal::Signal;

use super::connectors::{self, Connector};
use super::draft::{Draft, dead_letters, used};
use super::engine::{self, Acks, ByPipeline};
use super::exporters::delivery::BatchWish;
use super::exporters::{self, Exporter, Remote};
use super::keys::{Table, block, value};
use super::plan::{self, Ack, Batch, Lifetime, Listener, Plan};
use super::problem::{Place, Problem, Report, nearest};
use super::processors::{self, Processor};
use super::receivers::{self, Receiver};
use super::section::{Component, Section};
use super::service;
use super::tree::Node;
use super::wiring::{End, Routes, Way, Wired, Wiring, Written};

pub(crate) const ROOT: Table = Table {
    path: "(the whole file)",
    keys: &[
        block("receivers", "Where telemetry comes in."),
        block("processors", "What is done to items, and batching."),
        block("exporters", "Where it goes."),
        block("extensions", "Health."),
        block("connectors", "What stands between pipelines: failover, routing, shift, mirror."),
        block("service", "Which of these run, and how forebay shows itself."),
        block("engine", "What is forebay's own."),
    ],
};

pub(crate) const PIPELINE: Table = Table {
    path: "service.pipelines.<signal>[/name]",
    keys: &[
        value("receivers", "list of names", "", "Required. Connectors, too."),
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
            "Required. Each gets everything, and none waits for another. Connectors, too.",
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
    let connectors = connectors::read(&root.components("connectors"), report);
    let service = root.block("service", &service::SERVICE);
    let health = service::health(&root.components("extensions"), &service, report);
    let (telemetry, telemetry_place) = service::telemetry(&service);

    let dead_letters = dead_letters(&exporters, report);
    let parts = Parts {
        receivers: &receivers,
        processors: &processors,
        exporters: &exporters,
        connectors: &connectors,
        acks: &engine.acks,
        priorities: &engine.priorities,
        batch_bytes_max: engine.batch_bytes_max,
        dead_letters: &dead_letters,
        report,
    };
    let drafts = parts.pipelines(&service);
    let used = used(&drafts, &dead_letters);
    report_unused(&parts, &drafts, &used);

    let mut listeners: Vec<&(Listener, Place)> = receivers
        .iter()
        .enumerate()
        .filter(|(index, _)| drafts.iter().any(|draft| draft.receivers.contains(index)))
        .flat_map(|(_, receiver)| &receiver.listeners)
        .collect();
    listeners.sort_by_key(|(listener, _)| listener.is_quic);
    one_is_quic(&listeners, report);
    let of = |is_quic| listeners.iter().filter(move |(listener, _)| listener.is_quic == is_quic);
    let mut addresses: Vec<(SocketAddr, &Place)> =
        of(false).map(|(listener, place)| (listener.address, place)).collect();
    addresses.extend(health.as_ref().map(|(address, place)| (*address, place)));
    addresses.extend(telemetry.metrics.map(|address| (address, &telemetry_place)));
    addresses_differ(&addresses, report);
    budget_fits_requests(&engine, &listeners, report);

    // Components are far fewer than 65,536: a tree of the size taken holds no more.
    let index = |exporter: usize| {
        let position = used.iter().position(|used| *used == exporter);
        u16::try_from(position.unwrap_or_default()).unwrap_or(u16::MAX)
    };
    let fails_over = |exporter: usize| drafts.iter().any(|draft| draft.fails_over(exporter));
    let destination = |exporter: &usize| {
        let mut destination = exporters[*exporter].destination.clone();
        destination.fails_over = fails_over(*exporter);
        destination.backends.ejection.pauses_alone = destination.fails_over;
        destination.keeps_refused = dead_letters[*exporter].is_some();
        destination
    };
    let kept: Vec<usize> = drafts.iter().map(|draft| draft.written).collect();
    Plan {
        listeners: listeners.into_iter().map(|(listener, _)| listener.clone()).collect(),
        destinations: used.iter().map(destination).collect(),
        dead_letters: used.iter().map(|exporter| dead_letters[*exporter].map(index)).collect(),
        tls_out: used.iter().map(|exporter| exporters[*exporter].tls.clone()).collect(),
        source_tls: used.iter().map(|exporter| exporters[*exporter].source_tls.clone()).collect(),
        pipelines: drafts
            .into_iter()
            .map(|draft| draft.finish(&index, &dead_letters, &connectors, &kept))
            .collect(),
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
    connectors: &'a [Connector],
    acks: &'a Acks,
    priorities: &'a ByPipeline<plan::Priority>,
    batch_bytes_max: u64,
    dead_letters: &'a [Option<usize>],
    report: &'a Report,
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
        self.pipelines_are_there("acks", self.acks.pipelines.iter(), &components);
        self.pipelines_are_there("priorities", self.priorities.iter(), &components);
        let (mut sections, mut written) = (Vec::new(), Vec::new());
        for component in &components {
            let path = format!("service.{}", component.path);
            let section =
                Section::open(component.node, component.place, path, &PIPELINE, self.report);
            if let Some(signal) = self.signal(component) {
                written.push(self.written(component, signal, &section));
                sections.push((component, section));
            }
        }
        let wiring =
            Wiring { connectors: self.connectors, pipelines: &written, report: self.report };
        wiring.check();
        let mut drafts = Vec::new();
        for (index, (component, section)) in sections.iter().enumerate() {
            let Wired { ways, routes } = wiring.wired(&written[index]);
            let is_kept = wiring.is_kept(&written[index]);
            self.says_nothing(
                "acks",
                self.acks.pipelines.get(component.id),
                !ways.is_empty() && is_kept,
            );
            self.says_nothing("priorities", self.priorities.get(component.id), is_kept);
            let draft = self.draft(component, section, &written[index], (index, ways, routes));
            if is_kept {
                drafts.push(draft);
            }
        }
        drafts
    }

    /// `engine.{block}.pipelines` names pipelines that there are.
    fn pipelines_are_there<'p, T: 'p>(
        &self,
        block: &str,
        named: impl Iterator<Item = (&'p String, &'p (T, Place))>,
        components: &[Component<'_>],
    ) {
        for (name, (_, place)) in named {
            let known = || components.iter().map(|component| component.id);
            if !known().any(|id| id == name) {
                let what =
                    format!("engine.{block}.pipelines names \"{name}\", which is no pipeline");
                self.report.add(
                    Problem::error(place, what).hint(near_or(name, known(), || {
                        "name one of service.pipelines".to_owned()
                    })),
                );
            }
        }
    }

    /// Warns of what is said of a pipeline that has no batches of its own.
    fn says_nothing<T>(&self, block: &str, said: Option<&(T, Place)>, has_batches: bool) {
        if let Some((_, place)) = said.filter(|_| !has_batches) {
            let what = format!("engine.{block}.pipelines names a pipeline without batches");
            self.report.add(
                Problem::warning(place, what)
                    .why("what leads to it, or what it leads to, has them: connectors join them")
                    .hint("name the pipelines behind a routing, and before another connector"),
            );
        }
    }

    fn signal(&self, component: &Component<'_>) -> Option<Signal> {
        let signal = Signal::ALL.into_iter().find(|s| s.name() == component.kind);
        if signal.is_none() {
            let known = Signal::ALL.map(Signal::name);
            let what = format!("pipeline \"{}\" is of no known signal", component.id);
            self.report.add(Problem::error(component.place, what).hint(near_or(
                component.kind,
                known,
                || format!("a pipeline's name begins with {}", known.join(", ")),
            )));
        }
        signal
    }

    fn written(&self, component: &Component<'_>, signal: Signal, section: &Section<'_>) -> Written {
        let receivers: Vec<&str> = self.receivers.iter().map(|r| r.name.as_str()).collect();
        let exporters: Vec<&str> =
            self.exporters.iter().map(|e| e.destination.name.as_str()).collect();
        let written = Written {
            name: component.id.to_owned(),
            place: component.place.clone(),
            signal,
            receivers: self.ends(section, "receivers", &receivers),
            has_processors: !section.texts("processors").is_empty(),
            exporters: self.ends(section, "exporters", &exporters),
        };
        for key in ["receivers", "exporters"] {
            if section.texts(key).is_empty() {
                section.fault(key, "is missing or empty: name at least one");
            }
        }
        written
    }

    /// What a pipeline names under `key`, connectors among it.
    fn ends(&self, section: &Section<'_>, key: &str, own: &[&str]) -> Vec<End> {
        let connectors = self.connectors.iter().map(|connector| connector.name.as_str());
        let known: Vec<&str> = own.iter().copied().chain(connectors).collect();
        let end = |index: usize| match index.checked_sub(own.len()) {
            Some(connector) => End::Connector(connector),
            None => End::Own(index),
        };
        self.named(section, key, &known, |name| name).into_iter().map(end).collect()
    }

    fn draft(
        &self,
        component: &Component<'_>,
        section: &Section<'_>,
        pipeline: &Written,
        (written, ways, routes): (usize, Vec<Way>, Vec<Routes>),
    ) -> Draft {
        let signal = pipeline.signal;
        let processors = self.named(section, "processors", self.processors, |p| &p.name);
        let reached: Vec<usize> = ways.iter().flat_map(Way::exporters).collect();
        let is_awaited = |way: &&Way| !matches!(way, Way::Mirror(..));
        let awaited: Vec<usize> = ways.iter().filter(is_awaited).flat_map(Way::exporters).collect();
        let keepers = reached.iter().filter_map(|exporter| self.dead_letters[*exporter]);
        let ends: Vec<usize> = reached.iter().copied().chain(keepers).collect();
        self.urls_are_there(section, signal, &ends);
        let priority = self.priorities.get(component.id).map(|(priority, _)| *priority);
        Draft {
            editing: self.editing(section, signal, &processors),
            batch: self.batch(section, &processors, &reached),
            ack: self.ack(component, &awaited),
            name: component.id.to_owned(),
            signal,
            written,
            receivers: Written::own(&pipeline.receivers).collect(),
            processors,
            ways,
            routes,
            priority: priority.unwrap_or_default(),
        }
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

pub(super) fn near_or<'k>(
    word: &str,
    known: impl IntoIterator<Item = &'k str>,
    otherwise: impl Fn() -> String,
) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => otherwise(),
    }
}

fn report_unused(parts: &Parts<'_>, drafts: &[Draft], used: &[usize]) {
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
        if !used.contains(&index) {
            warn("exporters", &exporter.destination.name, &exporter.place);
        }
    }
}

/// A core has one endpoint of QUIC.
fn one_is_quic(listeners: &[&(Listener, Place)], report: &Report) {
    let mut quic = listeners.iter().filter(|(listener, _)| listener.is_quic);
    if let (Some((first, _)), Some((_, place))) = (quic.next(), quic.next()) {
        let what = "two receivers take HTTP/3, and one is supported";
        let why = format!("receivers.{} takes it already", first.receiver_name);
        let hint = "let one receiver take it, in as many pipelines as you like";
        report.add(Problem::error(place, what).why(why).hint(hint));
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
