//! `engine`: what the Collector has no words for. Cores, the ring, limits, memory, acks.

use std::collections::BTreeMap;

use forebay_codec::mend::InvalidUtf8;
use forebay_tuning::cores::Placement;
use forebay_tuning::cpulist;
use http::HeaderName;

use super::keys::{Table, block, value};
use super::plan::{Ack, Engine, Limits, Priorities, Priority, Ring, Rung};
use super::problem::{Place, Problem};
use super::registration;
use super::section::Section;
use super::tree::{Node, Value};
use super::values;

pub(crate) const ENGINE: Table = Table {
    path: "engine",
    keys: &[
        value(
            "cores",
            "auto, or a block",
            "auto",
            "Which cores do what. `auto` looks at the \
            host: its CPUs, quota and caches.",
        ),
        block("limits", "What clients may ask for."),
        block("memory", "How much is held."),
        block("acks", "What an OK means."),
        block("priorities", "Who is refused first when memory runs short."),
        block("ring", "The io_uring of each receiver core."),
        value("drain_timeout", "duration", "10s", "From SIGTERM to exit."),
        value(
            "invalid_utf8",
            "refuse_request, refuse_item or replace",
            "refuse_request",
            "What becomes of protobuf with text that is not UTF-8, which backends refuse: all of \
            the request is refused (400, INVALID_ARGUMENT), or the items with such text are (a \
            partial success), or the bad bytes become U+FFFD.",
        ),
        value(
            "reflection",
            "true or false",
            "true",
            "gRPC server reflection: tools such as grpcurl ask which services there are and what \
            their messages look like.",
        ),
        block("registration", "Makes this process known to Consul or etcd; absent: it is not."),
    ],
};

pub(crate) const CORES: Table = Table {
    path: "engine.cores",
    keys: &[
        value(
            "receivers",
            "CPU list",
            "",
            "Required: `0-3,8`, or a YAML list. One receiver \
            thread each.",
        ),
        value(
            "exporters",
            "CPU list",
            "",
            "One exporter thread each. None: the receivers' cores, \
            shared.",
        ),
        value("control", "CPU", "", "For the control thread. None: it is not pinned."),
    ],
};

pub(crate) const RING: Table = Table {
    path: "engine.ring",
    keys: &[
        value("entries", "entries", "1024", "Submission entries, a power of two."),
        value(
            "buffers",
            "auto, or buffers",
            "auto",
            "Provided buffers per receiver core, a power of two. `auto`: a 32nd of the core's \
            memory budget, from 64 to 4096.",
        ),
        value("buffer_bytes", "size", "64KiB", "Of one provided buffer."),
        value(
            "rung",
            "auto, multishot or oneshot",
            "auto",
            "The newest kernel features to try; \
            `auto` finds out.",
        ),
    ],
};

pub(crate) const LIMITS: Table = Table {
    path: "engine.limits",
    keys: &[
        value("header_bytes_max", "size", "16KiB", "The header section of one request."),
        value("connections_max", "connections", "65536", "Open at once, per receiver core."),
        value(
            "connection_requests_max",
            "requests",
            "256",
            "In flight on one connection (HTTP/2 and HTTP/3 streams). Over HTTP/3 a connection may \
            have 16 at first, and twice as many each time that it uses more than half of them.",
        ),
        value(
            "requests_max",
            "requests",
            "65536",
            "Waiting for their delivery, per receiver core; open bodies are bounded by engine.memory.",
        ),
        value(
            "batch_bytes_max",
            "size",
            "4000000",
            "Batches are split to stay below, unless one \
            item alone is larger. The default fits the 4 MiB that a Collector takes over gRPC.",
        ),
        value(
            "header_timeout",
            "duration",
            "10s",
            "For the complete header of a request; over HTTP/3 for a stream to say what it is, too.",
        ),
        value(
            "body_timeout",
            "duration",
            "30s",
            "Between two arrivals of body bytes; and for a whole body, which gets a second more for \
            each 256 bytes that come. A request whose body takes longer is refused. The same over \
            HTTP/1.1, HTTP/2 and HTTP/3.",
        ),
        value(
            "idle_timeout",
            "duration",
            "15m",
            "Connections without any request are closed. 0: \
            never.",
        ),
        value(
            "connection_age_max",
            "duration",
            "30m",
            "Give or take a tenth; then a connection is told to leave, without losing a request, \
            and its client comes back: so load spreads over new cores and processes. A gRPC \
            receiver's `max_connection_age` goes first. 0: never.",
        ),
        value(
            "handshakes_max",
            "handshakes",
            "1024",
            "TLS handshakes under way at once, per receiver core; beyond that those that stall \
            give way to new ones, and if none does the new ones are sent away.",
        ),
        value(
            "handshake_timeout",
            "duration",
            "10s",
            "For a TLS handshake, from the connection's beginning.",
        ),
        value(
            "write_timeout",
            "duration",
            "30s",
            "A client that does not read its answers is cut \
            off.",
        ),
    ],
};

pub(crate) const MEMORY: Table = Table {
    path: "engine.memory",
    keys: &[value(
        "budget_bytes",
        "size",
        "128MiB",
        "Request bytes held per receiver core, from \
        the first byte of a body until its batch has ended at the last destination. Full: \
        clients are asked to come back. A 32nd of it, 1 to 16 MiB, is what one HTTP/2 \
        connection may send ahead; a quarter of it what all HTTP/3 connections may, beside 32 KiB \
        that each has. What of any of them waits behind a gap is charged, too.",
    )],
};

pub(crate) const ACKS: Table = Table {
    path: "engine.acks",
    keys: &[
        value(
            "default",
            "accepted or delivered",
            "accepted",
            "`accepted`: checked and queued. \
            `delivered`: each destination of the pipeline said OK.",
        ),
        value(
            "timeout",
            "duration",
            "30s",
            "A `delivered` answer that takes longer is a retryable \
            error; the batch goes on.",
        ),
        block("pipelines", "By pipeline: `traces/critical: delivered`."),
    ],
};

pub(crate) const PRIORITIES: Table = Table {
    path: "engine.priorities",
    keys: &[
        block(
            "pipelines",
            "By pipeline: `traces/critical: high`; also `low` and `normal`. Once anything is \
             named in this block, requests of low priority are refused from 70 % of the memory \
             budget on, normal ones from 90 %, high ones when it is full. Of several pipelines \
             that take a request the highest counts.",
        ),
        block("tenant", "By tenant, which goes before the pipelines'."),
    ],
};

pub(crate) const TENANT: Table = Table {
    path: "engine.priorities.tenant",
    keys: &[
        value("header", "header", "x-tenant", "Of HTTP, or gRPC metadata: names the tenant."),
        value("high", "list of texts", "[]", "Tenants that are refused last."),
        value("low", "list of texts", "[]", "Tenants that are refused first."),
    ],
};

const ACK_WORDS: &[(&str, Ack)] = &[("accepted", Ack::Accepted), ("delivered", Ack::Delivered)];

const PRIORITY_WORDS: &[(&str, Priority)] =
    &[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];

const INVALID_UTF8_WORDS: &[(&str, InvalidUtf8)] = &[
    ("refuse_request", InvalidUtf8::RefuseRequest),
    ("refuse_item", InvalidUtf8::RefuseItem),
    ("replace", InvalidUtf8::Replace),
];

/// The block, and those of its values that go to the pipelines.
pub(crate) struct Read {
    pub(crate) engine: Engine,
    pub(crate) budget_place: Place,
    pub(crate) batch_bytes_max: u64,
    pub(crate) acks: Acks,
    pub(crate) priorities: ByPipeline<Priority>,
}

/// What pipelines are said to be, and where.
pub(crate) type ByPipeline<T> = BTreeMap<String, (T, Place)>;

pub(crate) struct Acks {
    /// `None`: not written, so that other keys may decide.
    pub(crate) default: Option<Ack>,
    pub(crate) pipelines: ByPipeline<Ack>,
}

pub(crate) fn read(section: &Section<'_>) -> Read {
    let limits = section.block("limits", &LIMITS);
    let memory = section.block("memory", &MEMORY);
    let acks = section.block("acks", &ACKS);
    let priorities = section.block("priorities", &PRIORITIES);
    let by_pipeline = by_pipeline(&priorities, "priorities", PRIORITY_WORDS);
    let memory_budget_bytes = bytes(&memory, "budget_bytes", 1 << 20, 1 << 44);
    let (registration, registration_tls) = registration::read(section).unzip();
    Read {
        engine: Engine {
            cores: cores(section),
            ring: ring(&section.block("ring", &RING), memory_budget_bytes),
            limits: self::limits(&limits),
            memory_budget_bytes,
            ack_timeout: acks.duration_above_zero("timeout"),
            drain_timeout: section.duration("drain_timeout"),
            invalid_utf8: section
                .read("invalid_utf8", values::choice(INVALID_UTF8_WORDS))
                .unwrap_or_default(),
            reflection: section.flag("reflection"),
            registration,
            registration_tls: registration_tls.flatten(),
            priorities: self::priorities(&priorities, !by_pipeline.is_empty()),
        },
        budget_place: memory.place_of("budget_bytes").clone(),
        batch_bytes_max: limits.size("batch_bytes_max", 1 << 10..=1 << 30),
        acks: Acks {
            default: acks
                .given("default")
                .and_then(|_| acks.read("default", values::choice(ACK_WORDS))),
            pipelines: self::by_pipeline(&acks, "acks", ACK_WORDS),
        },
        priorities: by_pipeline,
    }
}

fn cores(section: &Section<'_>) -> Placement {
    let Some(node) = section.given("cores") else {
        return Placement::Auto;
    };
    match &node.value {
        Value::Scalar { text, .. } if text == "auto" => return Placement::Auto,
        Value::Map(_) => {}
        _ => {
            section.fault("cores", "must be auto, or a block with receivers and exporters");
            return Placement::Auto;
        }
    }
    let cores = section.block("cores", &CORES);
    let receivers = cpus(&cores, "receivers");
    if receivers.is_empty() && cores.given("receivers").is_none() {
        cores.fault("receivers", "is missing: name at least one core");
    }
    let exporters = match cores.given("exporters") {
        Some(_) => cpus(&cores, "exporters"),
        None => receivers.clone(),
    };
    let control = cores.read("control", |text| {
        cpulist::parse(text).and_then(|cpus| match cpus.as_slice() {
            [cpu] => Ok(*cpu),
            _ => Err("must be one CPU".to_owned()),
        })
    });
    Placement::Explicit { receivers, exporters, control }
}

/// A CPU list in either form; what is faulty is reported and yields no CPUs.
fn cpus(section: &Section<'_>, name: &str) -> Vec<usize> {
    let text = match section.given(name).map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => text.clone(),
        Some(Value::List(items)) => items.iter().map(scalar).collect::<Vec<_>>().join(","),
        Some(_) => {
            section.fault(name, "must be a CPU list such as \"0-3,8\" or [0, 1]");
            return Vec::new();
        }
        None => return Vec::new(),
    };
    match cpulist::parse(&text) {
        Ok(cpus) if cpus.is_empty() => {
            section.fault(name, "is empty: name at least one core");
            Vec::new()
        }
        Ok(cpus) => cpus,
        Err(fault) => {
            section.fault(name, &format!("is no CPU list such as \"0-3,8\": {fault}"));
            Vec::new()
        }
    }
}

/// What is no scalar becomes a text that is no CPU.
fn scalar(node: &Node) -> String {
    match &node.value {
        Value::Scalar { text, .. } => text.clone(),
        _ => node.form().to_owned(),
    }
}

fn ring(section: &Section<'_>, budget_bytes: usize) -> Ring {
    const RUNGS: &[(&str, Rung)] =
        &[("auto", Rung::Auto), ("multishot", Rung::Multishot), ("oneshot", Rung::Oneshot)];
    let power = |text: &str| match values::count(text)? {
        count if count.is_power_of_two() && (16..=32_768).contains(&count) => Ok(count),
        count => Err(format!("must be a power of two from 16 to 32768; this is {count}")),
    };
    let buffer_bytes = section.size("buffer_bytes", 512..=1 << 20);
    let buffers = section.value("buffers", |text| match text {
        "auto" => Ok(buffers_of(budget_bytes as u64, buffer_bytes)),
        text => power(text),
    });
    Ring {
        entries: u32::try_from(section.value("entries", power)).expect("the range is small"),
        buffers: u16::try_from(buffers).expect("the range is small"),
        buffer_bytes: u32::try_from(buffer_bytes).expect("the range is small"),
        rung: section.value("rung", values::choice(RUNGS)),
    }
}

/// How many buffers a 32nd of the budget pays for, rounded down to a power of two: enough that a
/// turn's worth of requests seldom finds none, too few to be felt.
fn buffers_of(budget_bytes: u64, buffer_bytes: u64) -> u64 {
    let paid_for = (budget_bytes / 32 / buffer_bytes).clamp(64, 4096);
    1 << paid_for.ilog2()
}

fn limits(section: &Section<'_>) -> Limits {
    let count =
        |name| usize::try_from(section.count(name, 1..=1 << 24)).expect("the range is small");
    Limits {
        header_bytes_max: bytes(section, "header_bytes_max", 1 << 10, 1 << 24),
        connections_max: count("connections_max"),
        connection_requests_max: count("connection_requests_max"),
        requests_max: count("requests_max"),
        header_timeout: section.duration_above_zero("header_timeout"),
        body_timeout: section.duration_above_zero("body_timeout"),
        idle_timeout: section.duration("idle_timeout"),
        connection_age_max: section.duration("connection_age_max"),
        handshakes_max: count("handshakes_max"),
        handshake_timeout: section.duration_above_zero("handshake_timeout"),
        write_timeout: section.duration_above_zero("write_timeout"),
    }
}

fn bytes(section: &Section<'_>, name: &str, min: u64, max: u64) -> usize {
    usize::try_from(section.size(name, min..=max)).expect("the range fits 64-bit machines")
}

fn priorities(section: &Section<'_>, are_told_apart: bool) -> Priorities {
    let Some(_) = section.given("tenant") else {
        return Priorities { are_told_apart, tenants: None };
    };
    let tenant = section.block("tenant", &TENANT);
    let header = tenant.value("header", |text| {
        HeaderName::try_from(text).map_err(|_| "must be the name of a header".to_owned())
    });
    let mut tenants: Vec<(String, Priority)> = Vec::new();
    for (key, priority) in [("high", Priority::High), ("low", Priority::Low)] {
        for (name, place) in tenant.texts(key) {
            if tenants.iter().any(|(known, _)| known == name) {
                let what = format!("engine.priorities.tenant names \"{name}\" twice");
                section.report.add(Problem::error(place, what).hint("remove one"));
            }
            tenants.push((name.to_owned(), priority));
        }
    }
    let are_told_apart = are_told_apart || !tenants.is_empty();
    Priorities { are_told_apart, tenants: Some((header, tenants)) }
}

fn by_pipeline<T: Copy>(
    section: &Section<'_>,
    block: &str,
    words: &'static [(&'static str, T)],
) -> ByPipeline<T> {
    let mut said = BTreeMap::new();
    for component in section.components("pipelines") {
        let read = match &component.node.value {
            Value::Scalar { text, .. } => values::choice(words)(text),
            _ => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(format!("must be {}", words.join(" or ")))
            }
        };
        match read {
            Ok(word) => {
                said.insert(component.id.to_owned(), (word, component.place.clone()));
            }
            Err(fault) => {
                let what = format!("engine.{block}.pipelines.{} {fault}", component.id);
                section.report.add(Problem::error(&component.node.place, what));
            }
        }
    }
    said
}
