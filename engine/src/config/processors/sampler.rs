//! `probabilistic_sampler`: which share of the spans or log records goes on.

use forebay_codec::edit::{AttributeSource, Mode, Sampling};

use crate::config::keys::{Table, value};
use crate::config::section::Section;
use crate::config::values;

pub(crate) const SAMPLER: Table = Table {
    path: "processors.probabilistic_sampler[/name]",
    keys: &[
        value("sampling_percentage", "percent", "", "Required. 0: nothing; 100 or more: all."),
        value(
            "mode",
            "hash_seed, proportional or equalizing",
            "",
            "Absent: proportional, unless there is a `hash_seed` or `attribute_source` is record.",
        ),
        value("hash_seed", "number", "0", "The same in all that shall sample alike."),
        value(
            "fail_closed",
            "true or false",
            "true",
            "Whether an item without randomness, or with a tracestate that contradicts it, is \
             dropped.",
        ),
        value("sampling_precision", "hex digits", "4", "Of a threshold, 1 to 14."),
        value("attribute_source", "traceID or record", "traceID", "Logs: what is hashed."),
        value("from_attribute", "text", "", "Logs: the attribute to hash."),
        value(
            "sampling_priority",
            "text",
            "",
            "Logs: the attribute that holds a higher percentage for its record.",
        ),
    ],
};

pub(super) fn sampling(section: &Section<'_>) -> Sampling {
    const MODES: &[(&str, Mode)] = &[
        ("hash_seed", Mode::HashSeed),
        ("proportional", Mode::Proportional),
        ("equalizing", Mode::Equalizing),
    ];
    const SOURCES: &[(&str, AttributeSource)] =
        &[("traceID", AttributeSource::TraceId), ("record", AttributeSource::Record)];
    let percentage = section.read("sampling_percentage", |text| match values::number(text)? {
        percent if percent >= 0.0 => Ok(percent as f32),
        _ => Err("must not be negative".to_owned()),
    });
    if section.given("sampling_percentage").is_none() {
        section.fault("sampling_percentage", "is missing: which share shall go on?");
    }
    let narrow = |number: u64| u32::try_from(number).expect("the range is that of u32");
    let sampling = Sampling {
        percentage: percentage.unwrap_or_default(),
        hash_seed: narrow(section.count("hash_seed", 0..=u32::MAX.into())),
        mode: section.read("mode", values::choice(MODES)),
        fail_closed: section.flag("fail_closed"),
        precision: narrow(section.count("sampling_precision", 1..=14)) as u8,
        attribute_source: section.value("attribute_source", values::choice(SOURCES)),
        from_attribute: section.read("from_attribute", values::text).unwrap_or_default(),
        sampling_priority: section.read("sampling_priority", values::text).unwrap_or_default(),
    };
    if sampling.attribute_source == AttributeSource::Record && sampling.from_attribute.is_empty() {
        section.fault("from_attribute", "is missing: attribute_source is record");
    }
    sampling
}
