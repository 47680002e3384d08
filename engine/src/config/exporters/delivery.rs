//! What every destination over the network has: a queue, batching wishes, retry.

use std::time::Duration;

use forebay_exporters::destination::{Queue, Retry, RetryCodes};

use crate::config::keys::{Key, Table, block, ignored, only, refused, value};
use crate::config::plan::Batch;
use crate::config::problem::{Place, Problem, nearest};
use crate::config::section::{Section, in_range};
use crate::config::values;

pub(crate) const SENDING_QUEUE: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].sending_queue",
    keys: &[
        value("num_consumers", "requests", "10", "Requests in flight at once, per exporter core."),
        value(
            "queue_size",
            "batches",
            "1000",
            "Batches that may wait, per exporter core. Full: \
            clients are asked to come back; nothing is dropped.",
        ),
        value(
            "queue_bytes_max",
            "size",
            "",
            "forebay's own: request bytes that may be held, per exporter core; one batch always \
            may. Copies count, too: those that are made when a batch is cut by key or size, which \
            may pass it and close the queue until they are sent, and what is kept compressed for \
            a retry, while less than half is taken. None: with one destination over the network \
            as many as `engine.memory.budget_bytes` allows; with several, half of that for each.",
        ),
        value(
            "wait_for_result",
            "true or false",
            "false",
            "true on all network exporters of a \
            pipeline: its acks are `delivered` (see `engine.acks`).",
        ),
        block(
            "batch",
            "When a batch is sent; absent: as the pipeline's `batch` processor says, \
            or each request by itself. All network exporters of a pipeline must agree.",
        ),
        ignored("block_on_overflow", "a full queue always pushes back, and nothing is dropped"),
        only(
            "enabled",
            "true",
            "a destination without a queue would hold up the others: leave it \
            on, and set wait_for_result for answers from the destination",
        ),
        only(
            "sizer",
            "requests",
            "queue_size counts batches; engine.memory.budget_bytes is what \
            bounds bytes",
        ),
        refused(
            "storage",
            "a queue on disk is not supported yet: remove it; wait_for_result lets \
            clients keep what is not delivered",
        ),
    ],
};

pub(crate) const BATCH_KEYS: &[Key] = &[
    value("flush_timeout", "duration", "200ms", "A batch waits no longer for more."),
    value(
        "min_size",
        "items or bytes",
        "8192",
        "A batch is sent when it has this much. 0: each \
        request is a batch of its own.",
    ),
    value(
        "max_size",
        "items or bytes",
        "0",
        "Larger batches are split. 0: only by \
        `engine.limits.batch_bytes_max`.",
    ),
    value("sizer", "items or bytes", "items", "What the two sizes count."),
    refused("partition", "batches by client metadata are not supported yet: remove it"),
];

pub(crate) const BATCH: Table =
    Table { path: "exporters.<otlp_grpc|otlp_http>[/name].sending_queue.batch", keys: BATCH_KEYS };

pub(crate) const RETRY: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].retry_on_failure",
    keys: &[
        value(
            "enabled",
            "true or false",
            "true",
            "false: what the destination refuses once is \
            dropped, and counted.",
        ),
        value(
            "initial_interval",
            "duration",
            "5s",
            "Before the second attempt; each wait is drawn \
            from 0 to the current interval.",
        ),
        value("multiplier", "factor", "1.5", "From one interval to the next."),
        value("max_interval", "duration", "30s", "Intervals grow no further."),
        value(
            "max_elapsed_time",
            "duration",
            "0",
            "After this a batch is dropped, and counted. 0: \
            never: forebay keeps what it acknowledged and pushes back. (Collector: 300s)",
        ),
        value(
            "max_attempts",
            "requests",
            "0",
            "forebay's own: a batch that was sent so often is dropped, and counted. 0: no limit.",
        ),
        value(
            "retryable_codes",
            "list of codes",
            "",
            "forebay's own: only these are tried again. For `otlp_grpc` names or numbers \
            (`UNAVAILABLE`, 14), for `otlp_http` statuses (503). None: those that OTLP says.",
        ),
        ignored("randomization_factor", "forebay draws each wait from 0 to the interval"),
    ],
};

/// What a batch's sizes count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizer {
    Items,
    Bytes,
}

/// How someone wants batches. `bytes_max` 0: as `engine.limits.batch_bytes_max` says.
#[derive(Clone, Debug)]
pub(crate) struct BatchWish {
    pub(crate) batch: Batch,
    pub(crate) place: Place,
    /// Who wants it: `processors.batch`.
    pub(crate) path: String,
}

pub(crate) fn queue_default() -> Queue {
    Queue { consumers: 10, batches_max: 1000, bytes_max: None }
}

pub(crate) fn queue(section: &Section<'_>) -> Queue {
    let count =
        |name, max| usize::try_from(section.count(name, 1..=max)).expect("the ranges are small");
    Queue {
        consumers: count("num_consumers", 10_000),
        batches_max: count("queue_size", 1 << 20),
        bytes_max: section
            .read("queue_bytes_max", |text| in_range(values::size(text)?, &(1..=1 << 44))),
    }
}

/// The exporter's own batching; `None`: it has none. `batch: {}` asks for the defaults.
pub(crate) fn queue_batch(queue: &Section<'_>) -> Option<BatchWish> {
    queue.given("batch")?;
    Some(batch(&queue.block("batch", &BATCH), Sizer::Items))
}

/// Both tables of the name `batch` have the same keys.
pub(crate) fn batch(section: &Section<'_>, default: Sizer) -> BatchWish {
    const SIZERS: &[(&str, Sizer)] = &[("items", Sizer::Items), ("bytes", Sizer::Bytes)];
    let sizer = section.read("sizer", values::choice(SIZERS)).unwrap_or(default);
    let (min, max) = (section.size("min_size", 0..=1 << 40), section.size("max_size", 0..=1 << 40));
    if max > 0 && max < min {
        section.fault("max_size", &format!("must be 0 or at least min_size ({min})"));
    }
    wish(section, min, max, section.duration_above_zero("flush_timeout"), sizer)
}

/// A minimum or a timeout of zero means: nothing waits for more.
pub(crate) fn wish(
    section: &Section<'_>,
    min: u64,
    max: u64,
    timeout: Duration,
    sizer: Sizer,
) -> BatchWish {
    let waits = min > 0 && !timeout.is_zero();
    let (min, flush_timeout) = if waits { (min, timeout) } else { (0, Duration::ZERO) };
    let batch = match sizer {
        Sizer::Items => {
            Batch { items_min: min, items_max: max, bytes_min: 0, bytes_max: 0, flush_timeout }
        }
        Sizer::Bytes => {
            Batch { items_min: 0, items_max: 0, bytes_min: min, bytes_max: max, flush_timeout }
        }
    };
    BatchWish { batch, place: section.place.clone(), path: section.path.clone() }
}

pub(crate) fn retry(section: &Section<'_>, speaks_grpc: bool) -> Retry {
    let attempts = section.count("max_attempts", 0..=1_000_000);
    let retry = Retry {
        enabled: section.flag("enabled"),
        initial_interval: section.duration_above_zero("initial_interval"),
        multiplier: section.value("multiplier", |text| match values::number(text)? {
            number if (1.0..=100.0).contains(&number) => Ok(number),
            number => Err(format!("must lie from 1 to 100; this is {number}")),
        }),
        max_interval: section.duration_above_zero("max_interval"),
        max_elapsed_time: Some(section.duration("max_elapsed_time"))
            .filter(|elapsed| !elapsed.is_zero()),
        max_attempts: u32::try_from(attempts).ok().filter(|attempts| *attempts > 0),
        codes: retry_codes(section, speaks_grpc),
    };
    if retry.max_interval < retry.initial_interval {
        section.fault("max_interval", "must be at least initial_interval");
    }
    if !retry.enabled {
        let what = format!("{} is off: what is refused once is lost", section.path);
        section.report.add(
            Problem::warning(section.place_of("enabled"), what)
                .why("an accepted request has been answered before it is delivered")
                .hint("leave it on, or use delivered acks so that clients retry"),
        );
    }
    retry
}

/// Names as gRPC writes them, by code.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn retry_codes(section: &Section<'_>, speaks_grpc: bool) -> RetryCodes {
    if section.given("retryable_codes").is_none() {
        return RetryCodes::default();
    }
    let (mut grpc, mut http) = (Vec::new(), Vec::new());
    for (text, place) in section.texts("retryable_codes") {
        let read = match speaks_grpc {
            true => grpc_code(text).map(|code| grpc.push(code)),
            false => http_status(text).map(|status| http.push(status)),
        };
        if let Err(fault) = read {
            let what = format!("{} {fault}", section.key_path("retryable_codes"));
            section.report.add(Problem::error(place, what));
        }
    }
    match speaks_grpc {
        true => RetryCodes { grpc: Some(grpc), http: None },
        false => RetryCodes { grpc: None, http: Some(http) },
    }
}

fn grpc_code(text: &str) -> Result<u32, String> {
    let upper = text.to_ascii_uppercase();
    let number = text.parse::<usize>().ok().filter(|code| *code < GRPC_CODES.len());
    match number.or(GRPC_CODES.iter().position(|name| *name == upper)) {
        Some(0) => Err("can't have OK: that is no failure".to_owned()),
        Some(code) => Ok(u32::try_from(code).expect("there are 17")),
        None => {
            let near = nearest(&upper, GRPC_CODES).map(|near| format!("; did you mean {near}?"));
            let near = near.unwrap_or_default();
            Err(format!("has \"{text}\", which is no code of gRPC's{near}"))
        }
    }
}

fn http_status(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(status) if (300..=599).contains(&status) => Ok(status),
        _ => Err(format!("has \"{text}\", which is no status of a failure, 300 to 599")),
    }
}
