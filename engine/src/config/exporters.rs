//! `exporters`: the destinations and how each is reached.

pub(crate) mod balancing;
pub(crate) mod delivery;
pub(crate) mod discovery;
pub(crate) mod endpoints;
pub(crate) mod guards;
pub(crate) mod headers;
pub(crate) mod load_balancing;
pub(crate) mod local;
pub(crate) mod otlp;
pub(crate) mod tls;

use forebay_codec::signal::Signal;
use forebay_exporters::destination::{Backends, Destination, Kind, Queue, Retry};

use super::plan::TlsOut;
use super::problem::{Place, Problem, Report};
use super::section::{Component, Section};
use delivery::BatchWish;

pub(crate) const KINDS: [&str; 6] =
    ["otlp_grpc", "otlp_http", "load_balancing", "file", "debug", "nop"];

/// The same with the Collector's old names, for suggestions.
const KINDS_AND_ALIASES: [&str; 9] = [
    "otlp_grpc",
    "otlp_http",
    "otlp",
    "otlphttp",
    "load_balancing",
    "loadbalancing",
    "file",
    "debug",
    "nop",
];

/// A destination, and what its pipelines must know of it.
pub(crate) struct Exporter {
    pub(crate) place: Place,
    pub(crate) destination: Destination,
    /// `None`: cleartext.
    pub(crate) tls: Option<TlsOut>,
    /// Of discovery's server.
    pub(crate) source_tls: Option<TlsOut>,
    /// Only exporters over the network have a say in batching and acks.
    pub(crate) remote: Option<Remote>,
}

pub(crate) struct Remote {
    pub(crate) batch: Option<BatchWish>,
    pub(crate) waits_for_result: bool,
    pub(crate) waits_place: Place,
    /// Who keeps what it refuses for good, and where that is said.
    pub(crate) dead_letter: Option<(String, Place)>,
    /// Signals for which no URL is given.
    pub(crate) signals_missing: Vec<Signal>,
}

pub(crate) fn read(components: &[Component<'_>], report: &Report) -> Vec<Exporter> {
    let mut exporters = Vec::new();
    for component in components {
        let open = |table| {
            Section::open(component.node, component.place, component.path.as_str(), table, report)
        };
        let made = match component.kind {
            "otlp_grpc" | "otlp" => otlp::grpc(&open(&otlp::GRPC)),
            "otlp_http" | "otlphttp" => otlp::http(&open(&otlp::HTTP)),
            "load_balancing" | "loadbalancing" => {
                load_balancing::read(&open(&load_balancing::LOAD_BALANCING))
            }
            "file" => local::file(&open(&local::FILE)),
            "debug" => local::debug(&open(&local::DEBUG)),
            "nop" => {
                open(&local::NOP);
                Some(Made::local(Kind::Nop, delivery::queue_default()))
            }
            _ => {
                report.add(unknown(component));
                continue;
            }
        };
        // What could not be made stands in as a nop: its problem is reported, and pipelines that
        // name it must not be reported, too.
        let made = made.unwrap_or(Made::local(Kind::Nop, delivery::queue_default()));
        exporters.push(Exporter {
            place: component.place.clone(),
            destination: Destination {
                name: component.id.to_owned(),
                backends: made.backends.unwrap_or_else(|| Backends::local(component.id)),
                kind: made.kind,
                queue: made.queue,
                retry: made.retry,
                fails_over: false,
                keeps_refused: false,
            },
            tls: made.tls,
            source_tls: made.source_tls,
            remote: made.remote,
        });
    }
    exporters
}

/// What the reader of one kind makes.
pub(crate) struct Made {
    pub(crate) kind: Kind,
    /// `None`: this machine.
    pub(crate) backends: Option<Backends>,
    /// `None`: cleartext.
    pub(crate) tls: Option<TlsOut>,
    /// Of discovery's server.
    pub(crate) source_tls: Option<TlsOut>,
    pub(crate) queue: Queue,
    pub(crate) retry: Retry,
    pub(crate) remote: Option<Remote>,
}

impl Made {
    pub(crate) fn local(kind: Kind, queue: Queue) -> Made {
        let (retry, tls, source_tls) = (Retry::default(), None, None);
        Made { kind, backends: None, tls, source_tls, queue, retry, remote: None }
    }
}

fn unknown(component: &Component<'_>) -> Problem {
    let problem = component.unknown("exporter", &KINDS_AND_ALIASES);
    match component.kind {
        "logging" => problem.hint("the Collector replaced it by \"debug\"; use that"),
        _ => problem,
    }
}
