//! Destinations on this machine: `file`, `debug`, `nop`.

use std::path::PathBuf;

use forebay_exporters::destination::{Debug, File, Kind, Queue, Rotation, Verbosity};

use super::{Made, delivery};
use crate::config::keys::{Table, block, ignored, only, refused, value};
use crate::config::section::Section;
use crate::config::values;

pub(crate) const FILE: Table = Table {
    path: "exporters.file[/name]",
    keys: &[
        value("path", "path", "", "Required. OTLP JSON, one request a line."),
        value("append", "true or false", "false", "false: the file is emptied at start."),
        block("rotation", "Absent: the file grows without end. `{}`: the defaults."),
        only("format", "json", "only JSON lines can be written"),
        only("create_directory", "false", "create the folder before the start"),
        ignored("flush_interval", "each batch is written when it arrives"),
        refused(
            "compression",
            "files are written as they are: remove it, and compress rotated \
            files by other means",
        ),
        refused("encoding", "only JSON lines can be written: remove it"),
        refused("group_by", "one file per exporter: remove it"),
    ],
};

pub(crate) const ROTATION: Table = Table {
    path: "exporters.file[/name].rotation",
    keys: &[
        value("max_megabytes", "MiB", "100", "The file is rotated at this size."),
        value("max_days", "days", "0", "Rotated files older than this are removed. 0: never."),
        value("max_backups", "files", "100", "How many rotated files stay. 0: all."),
        ignored("localtime", "names of rotated files are in UTC"),
    ],
};

pub(crate) const DEBUG: Table = Table {
    path: "exporters.debug[/name]",
    keys: &[
        value(
            "verbosity",
            "basic, normal or detailed",
            "basic",
            "One line a batch, one an item, \
            or every field. On standard error.",
        ),
        value("sampling_initial", "batches", "2", "So many are shown in each second ..."),
        value("sampling_thereafter", "batches", "1", "... and after that every n-th."),
        block("sending_queue", "Only sizes, as below."),
        ignored("use_internal_logger", "it writes to standard error"),
        ignored("output_paths", "it writes to standard error"),
    ],
};

/// What `debug` may say of its queue.
pub(crate) const QUEUE: Table = Table {
    path: "exporters.debug[/name].sending_queue",
    keys: &[
        value("queue_size", "batches", "1000", "Batches that may wait, per exporter core."),
        ignored("num_consumers", "there is one, so that lines do not mix"),
        ignored("enabled", "each destination has a queue"),
    ],
};

pub(crate) const NOP: Table = Table { path: "exporters.nop[/name]", keys: &[] };

pub(crate) fn file(section: &Section<'_>) -> Option<Made> {
    let rotation =
        section.given("rotation").map(|_| rotation(&section.block("rotation", &ROTATION)));
    let append = section.flag("append");
    let path = section.read("path", |text| match text {
        "" => Err("must not be empty".to_owned()),
        text => Ok(PathBuf::from(text)),
    });
    if path.is_none() && section.given("path").is_none() {
        section.fault("path", "is missing: where shall the lines go?");
    }
    let kind = Kind::File(File { path: path?, append, rotation });
    Some(Made::local(kind, delivery::queue_default()))
}

fn rotation(section: &Section<'_>) -> Rotation {
    let count = |name, min| {
        u32::try_from(section.count(name, min..=1_000_000)).expect("the range is small")
    };
    Rotation {
        bytes_max: u64::from(count("max_megabytes", 1)) << 20,
        days_max: Some(count("max_days", 0)).filter(|days| *days > 0),
        backups_max: count("max_backups", 0),
    }
}

pub(crate) fn debug(section: &Section<'_>) -> Option<Made> {
    const VERBOSITIES: &[(&str, Verbosity)] = &[
        ("basic", Verbosity::Basic),
        ("normal", Verbosity::Normal),
        ("detailed", Verbosity::Detailed),
    ];
    let count = |name, min| {
        u32::try_from(section.count(name, min..=u32::MAX.into())).expect("the range is that of u32")
    };
    let debug = Debug {
        verbosity: section.value("verbosity", values::choice(VERBOSITIES)),
        sampling_initial: count("sampling_initial", 0),
        sampling_thereafter: count("sampling_thereafter", 1),
    };
    let size = section.block("sending_queue", &QUEUE).count("queue_size", 1..=1 << 20);
    let batches_max = usize::try_from(size).expect("the range is small");
    let queue = Queue { batches_max, ..delivery::queue_default() };
    Some(Made::local(Kind::Debug(debug), queue))
}
