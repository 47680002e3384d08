//! Keeping a share of the items, chosen so that all who sample the same trace choose alike: the
//! Collector's `probabilistic_sampler`.
//!
//! The decisions of all three modes are the Collector's, bit by bit, and so is the [`Note`] that a
//! sampler leaves in what it keeps, so that the next one knows how much has been sampled. Where
//! the Collector refuses a trace state as malformed, this reads what it can of it.

use std::io::Write;
use std::ops::Range;

use crate::schema::LEN;
use crate::signal::Signal;
use crate::wire::{self, Fields};

use super::read::{self, Scalar};

/// As the Collector's configuration has it.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// 0 keeps nothing, 100 or more everything.
    pub percentage: f32,
    pub hash_seed: u32,
    /// `None`: proportional, unless there is a seed or the source is an attribute.
    pub mode: Option<Mode>,
    /// Whether an item that gives no randomness, or contradicts itself, is dropped.
    pub fail_closed: bool,
    /// Hexadecimal digits of a threshold, 1 to 14.
    pub precision: u8,
    /// Logs only, as the rest.
    pub attribute_source: AttributeSource,
    /// The attribute to hash; empty: none.
    pub from_attribute: String,
    /// The attribute that holds a higher percentage for its record; empty: none.
    pub sampling_priority: String,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            percentage: 0.0,
            hash_seed: 0,
            mode: None,
            fail_closed: true,
            precision: 4,
            attribute_source: AttributeSource::TraceId,
            from_attribute: String::new(),
            sampling_priority: String::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 14 bits of a hash of the trace id.
    HashSeed,
    /// The trace id's own 56 random bits, against the threshold.
    Equalizing,
    /// The same, with the share taken of what an earlier sampler has left.
    Proportional,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeSource {
    TraceId,
    Record,
}

/// Compiled: which spans or log records stay.
#[derive(Clone, Debug)]
pub struct Sampler {
    signal: Signal,
    decision: Decision,
    ratio: f64,
    sampling: Sampling,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Decision {
    Never,
    /// What has at least this much randomness stays.
    Hashed(u64),
    Equalizing(u64),
    Proportional,
}

/// Randomness and thresholds have 56 bits; the greatest threshold lets nothing pass.
const BITS: u64 = 1 << 56;
const BUCKETS: u32 = 1 << 14;
/// Hexadecimal digits of 56 bits.
const DIGITS: u8 = 14;

const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_TRACE_STATE: u32 = 3;
const SPAN_TRACE_ID: u32 = 1;
/// The attributes of a log record that stand for what a span has in its trace state.
pub(super) const THRESHOLD: &str = "sampling.threshold";
pub(super) const RANDOMNESS: &str = "sampling.randomness";
const RECORD_ATTRIBUTES: u32 = 6;
const RECORD_TRACE_ID: u32 = 9;

/// What an item says of itself.
#[derive(Clone, Copy, Default)]
struct Known {
    randomness: Option<u64>,
    /// Set by an earlier sampler.
    threshold: Option<u64>,
    is_faulty: bool,
}

/// What a sampler has to tell the next one; `None`: what stands there stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    threshold: Option<u64>,
    randomness: Option<u64>,
}

impl Note {
    pub(super) fn is_empty(&self) -> bool {
        *self == Note::default()
    }

    pub(super) fn threshold_text(&self) -> Option<Digits> {
        self.threshold.map(|threshold| Digits::of(threshold).trimmed())
    }

    pub(super) fn randomness_text(&self) -> Option<Digits> {
        self.randomness.map(Digits::of)
    }

    /// A span's `trace_state` field with this note in it: the member that was changed first, as
    /// W3C wants it, then whatever else there was.
    pub(super) fn write_trace_state(&self, before: &[u8], out: &mut Vec<u8>) {
        let mut length = 0;
        self.each_piece(before, |piece| length += piece.len());
        wire::put_tag(out, SPAN_TRACE_STATE, LEN);
        wire::put_varint(out, length as u64);
        self.each_piece(before, |piece| out.extend_from_slice(piece));
    }

    fn each_piece(&self, before: &[u8], mut put: impl FnMut(&[u8])) {
        let (threshold, randomness) = (self.threshold_text(), self.randomness_text());
        let mut separator: &[u8] = b"ot=";
        let mut put_field = |name: &[u8], value: &[u8]| {
            put(separator);
            put(name);
            put(value);
            separator = b";";
        };
        for (name, text) in [(b"th:", &threshold), (b"rv:", &randomness)] {
            if let Some(text) = text {
                put_field(name, text.as_bytes());
            }
        }
        let own = own_member(before).unwrap_or_default().split(|byte| *byte == b';');
        let is_replaced = |field: &&[u8]| {
            field.is_empty()
                || threshold.is_some() && field.starts_with(b"th:")
                || randomness.is_some() && field.starts_with(b"rv:")
        };
        own.filter(|field| !is_replaced(field)).for_each(|field| put_field(field, b""));
        let others = members(before).filter(|member| !member.starts_with(OWN_MEMBER));
        for member in others.filter(|member| !member.is_empty()) {
            put(b",");
            put(member);
        }
    }
}

/// Where a span's trace state lies, or where it would have to be put, and the text in it.
pub(super) fn trace_state(bytes: &[u8], span: Range<usize>) -> (Range<usize>, Range<usize>) {
    let mut found = None;
    let mut behind_ids = span.start;
    for field in Fields::new(bytes, span) {
        match field.number {
            SPAN_TRACE_STATE => found = Some((field.whole, field.value)),
            1 | 2 => behind_ids = field.whole.end,
            _ => {}
        }
    }
    found.unwrap_or((behind_ids..behind_ids, 0..0))
}

/// The member of a trace state that OpenTelemetry writes.
const OWN_MEMBER: &[u8] = b"ot=";

fn members(state: &[u8]) -> impl Iterator<Item = &[u8]> {
    state.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn own_member(state: &[u8]) -> Option<&[u8]> {
    members(state).find_map(|member| member.strip_prefix(OWN_MEMBER))
}

/// 56 bits in hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    text: [u8; DIGITS as usize],
    length: usize,
}

impl Digits {
    fn of(number: u64) -> Self {
        let mut text = [0; DIGITS as usize];
        for (place, shift) in text.iter_mut().rev().zip((0..).step_by(4)) {
            *place = b"0123456789abcdef"[(number >> shift) as usize & 15];
        }
        Self { text, length: text.len() }
    }

    /// Without the zeros at its end, of which one stays if there is nothing else.
    fn trimmed(mut self) -> Self {
        while self.length > 1 && self.text[self.length - 1] == b'0' {
            self.length -= 1;
        }
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl Sampler {
    /// For traces or logs; metrics and profiles can't be sampled.
    pub fn new(signal: Signal, sampling: Sampling) -> Option<Self> {
        if !matches!(signal, Signal::Traces | Signal::Logs) {
            return None;
        }
        let by_attribute =
            signal == Signal::Logs && sampling.attribute_source == AttributeSource::Record;
        let mode = sampling.mode.unwrap_or(match sampling.hash_seed != 0 || by_attribute {
            true => Mode::HashSeed,
            false => Mode::Proportional,
        });
        let percentage = sampling.percentage.clamp(0.0, 100.0);
        let ratio = (f64::from(percentage) / 100.0).max(1.0 / BITS as f64);
        // In 32 bits and rounded down, so that all who have ever hashed this way agree.
        let buckets = (percentage * (BUCKETS as f32 / 100.0)) as u32;
        let decision = match mode {
            _ if percentage == 0.0 => Decision::Never,
            Mode::Proportional => Decision::Proportional,
            Mode::Equalizing => {
                let threshold = threshold_of(ratio, sampling.precision);
                Decision::Equalizing(threshold.unwrap_or(0))
            }
            Mode::HashSeed if buckets == 0 => Decision::Never,
            Mode::HashSeed => Decision::Hashed(u64::from(BUCKETS - buckets) << 42),
        };
        Some(Self { signal, decision, ratio, sampling })
    }

    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Whether a span or log record stays, and what is to be noted in it.
    pub(super) fn keeps(&self, bytes: &[u8], item: Range<usize>) -> Option<Note> {
        let parts = std::slice::from_ref(&item);
        match self.signal {
            Signal::Traces => self.keeps_span(bytes, parts),
            _ => self.keeps_record(bytes, parts),
        }
    }

    fn keeps_span(&self, bytes: &[u8], span: &[Range<usize>]) -> Option<Note> {
        let priority = read::attribute(bytes, span, SPAN_ATTRIBUTES, b"sampling.priority");
        let wish = match priority_of(priority) {
            Some(0.0) => return None,
            Some(priority) if priority > 0.0 => Some(0),
            _ => None,
        };
        let trace_id = read::bytes_of(bytes, span.iter().cloned(), SPAN_TRACE_ID);
        let known = of_trace_state(read::bytes_of(bytes, span.iter().cloned(), SPAN_TRACE_STATE));
        let randomness = match self.hashes() {
            true => Some(self.hashed_id(trace_id)),
            false => known.randomness.or_else(|| of_trace_id(trace_id)),
        };
        self.verdict(randomness, &known, wish)
    }

    fn keeps_record(&self, bytes: &[u8], record: &[Range<usize>]) -> Option<Note> {
        let attribute =
            |key: &str| read::attribute(bytes, record, RECORD_ATTRIBUTES, key.as_bytes());
        let trace_id = read::bytes_of(bytes, record.iter().cloned(), RECORD_TRACE_ID);
        let known = of_attributes(attribute(THRESHOLD), attribute(RANDOMNESS));
        let hashed_attribute = || {
            let key = Some(&self.sampling.from_attribute).filter(|key| !key.is_empty())?;
            self.hashed_value(attribute(key)?)
        };
        let by_id = self.sampling.attribute_source == AttributeSource::TraceId;
        let randomness = match self.hashes() {
            true if by_id => Some(self.hashed_id(trace_id)),
            true => hashed_attribute(),
            false => {
                let own = known.randomness.or_else(|| of_trace_id(trace_id));
                own.or_else(hashed_attribute)
            }
        };
        let wish = Some(&self.sampling.sampling_priority).filter(|key| !key.is_empty());
        let wish = wish.and_then(|key| match attribute(key)? {
            Scalar::Int(percent) if percent > 0 => Some(percent as f64 / 100.0),
            Scalar::Float(percent) if percent > 0.0 => Some(percent / 100.0),
            _ => None,
        });
        let wish = wish.and_then(|ratio| threshold_of(ratio.min(1.0), self.sampling.precision));
        self.verdict(randomness, &known, wish)
    }

    fn hashes(&self) -> bool {
        matches!(self.decision, Decision::Hashed(_))
    }

    /// `wish`: a threshold of the item's own, which counts if it is lower.
    fn verdict(&self, randomness: Option<u64>, known: &Known, wish: Option<u64>) -> Option<Note> {
        // Hashing next to thresholds of consistent sampling: one of the stages is misconfigured.
        let clashes = self.hashes() && (known.randomness.is_some() || known.threshold.is_some());
        let contradicts = randomness.is_none_or(|own| known.threshold.is_some_and(|t| t > own));
        let threshold = match clashes || known.is_faulty || contradicts {
            true if self.sampling.fail_closed => BITS,
            true => 0,
            false => self.threshold(known),
        };
        let threshold = threshold.min(wish.unwrap_or(BITS));
        // What has no randomness passes any threshold but the one that lets nothing pass.
        if threshold > randomness.unwrap_or(BITS - 1) {
            return None;
        }
        if known.is_faulty {
            return Some(Note::default());
        }
        // Never lowered, unless it was a lie.
        let before = known.threshold.filter(|_| !contradicts);
        Some(Note {
            threshold: Some(threshold).filter(|t| before.is_none_or(|before| before < *t)),
            randomness: randomness.filter(|_| self.hashes() && !clashes),
        })
    }

    fn threshold(&self, known: &Known) -> u64 {
        match self.decision {
            Decision::Never => BITS,
            Decision::Hashed(threshold) | Decision::Equalizing(threshold) => threshold,
            Decision::Proportional => {
                let before = known.threshold.map_or(1.0, |t| (BITS - t) as f64 / BITS as f64);
                match threshold_of(before * self.ratio, self.sampling.precision) {
                    Some(threshold) => threshold,
                    None if before * self.ratio * (BITS as f64) < 1.0 => BITS,
                    None => 0,
                }
            }
        }
    }

    /// A missing trace id counts as one of zeros.
    fn hashed_id(&self, trace_id: &[u8]) -> u64 {
        match trace_id {
            [] => self.hashed(&[0; 16]),
            id => self.hashed(id),
        }
    }

    /// The hash of a value's bytes, or of its text. Maps and arrays have none here.
    fn hashed_value(&self, value: Scalar<'_>) -> Option<u64> {
        let mut room = [0; 400];
        let mut rest = &mut room[..];
        let written = match value {
            Scalar::Text(bytes) | Scalar::Bytes(bytes) => return Some(self.hashed(bytes)),
            Scalar::Int(value) => write!(rest, "{value}"),
            Scalar::Float(value) => write!(rest, "{value}"),
            Scalar::Bool(value) => write!(rest, "{value}"),
            Scalar::Nil => Ok(()),
            Scalar::Composite => return None,
        };
        written.ok()?;
        let length = 400 - rest.len();
        Some(self.hashed(&room[..length]))
    }

    /// Randomness from FNV-1a over the seed, little-endian, and the bytes. The hash's low 14 bits
    /// decide; they were once compared the other way round, hence their complement on top.
    fn hashed(&self, bytes: &[u8]) -> u64 {
        let seed = self.sampling.hash_seed.to_le_bytes();
        let hash = seed.iter().chain(bytes).fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let low = u64::from(hash & (BUCKETS - 1));
        let rest = u64::from(hash >> 18);
        (u64::from(BUCKETS) - 1 - low) << 42 | (rest ^ rest << 10) << 14 | low
    }
}

/// The random bits of a trace id: its last 56. An id of zeros has none.
fn of_trace_id(trace_id: &[u8]) -> Option<u64> {
    let id: [u8; 16] = trace_id.try_into().ok().filter(|id| *id != [0; 16])?;
    let low = u64::from_be_bytes(id[8..].try_into().ok()?);
    Some(low & (BITS - 1))
}

/// `ot=th:c;rv:9b8233f7e3a151` among the members of a W3C trace state.
fn of_trace_state(state: &[u8]) -> Known {
    let Some(own) = own_member(state) else {
        return Known::default();
    };
    let mut known = Known::default();
    for field in own.split(|byte| *byte == b';') {
        if let Some(text) = field.strip_prefix(b"th:") {
            known.threshold = threshold_text(text);
            known.is_faulty |= known.threshold.is_none();
        } else if let Some(text) = field.strip_prefix(b"rv:") {
            known.randomness = randomness_text(text);
            known.is_faulty |= known.randomness.is_none();
        }
    }
    known
}

fn of_attributes(threshold: Option<Scalar<'_>>, randomness: Option<Scalar<'_>>) -> Known {
    let text = |value| match value {
        Some(Scalar::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let (threshold, randomness) = (text(threshold), text(randomness));
    let known = Known {
        threshold: threshold.and_then(threshold_text),
        randomness: randomness.and_then(randomness_text),
        is_faulty: false,
    };
    let is_faulty = threshold.is_some() != known.threshold.is_some()
        || randomness.is_some() != known.randomness.is_some();
    Known { is_faulty, ..known }
}

/// 1 to 14 digits, zeros at the end left out.
fn threshold_text(text: &[u8]) -> Option<u64> {
    let digits = hexadecimal(text)?;
    Some(digits << (4 * (usize::from(DIGITS) - text.len())))
}

fn randomness_text(text: &[u8]) -> Option<u64> {
    hexadecimal(text).filter(|_| text.len() == usize::from(DIGITS))
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    let fits = (1..=usize::from(DIGITS)).contains(&text.len());
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
        _ => None,
    };
    fits.then_some(0).and_then(|zero| {
        text.iter().try_fold(zero, |number, byte| Some(number << 4 | digit(byte)?))
    })
}

/// The threshold that lets this share pass, rounded to so many digits behind leading zeros.
/// `None`: the share is out of range, or has more leading zeros than there are digits.
fn threshold_of(ratio: f64, precision: u8) -> Option<u64> {
    if !(1.0 / BITS as f64..=1.0).contains(&ratio) {
        return None;
    }
    if ratio == 1.0 {
        return Some(0);
    }
    let (mut digits, mut rejected) = (precision, 1.0 - ratio);
    while rejected * 16.0 < 1.0 {
        rejected *= 16.0;
        digits += 1;
    }
    if digits > DIGITS {
        return None;
    }
    let exact = BITS - (ratio * BITS as f64).round() as u64;
    let shift = 4 * u32::from(DIGITS - digits);
    let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
    Some((exact + half) >> shift << shift)
}

/// `sampling.priority` of a span as a number, whatever its type.
fn priority_of(value: Option<Scalar<'_>>) -> Option<f64> {
    match value? {
        Scalar::Int(value) => Some(value as f64),
        Scalar::Float(value) => Some(value),
        Scalar::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_over_seed_and_bytes() {
        // The published FNV-1a of "foobar" is 0xbf9cf968.
        let hash_seed = u32::from_le_bytes(*b"foob");
        let sampling = Sampling { hash_seed, ..Sampling::default() };
        let sampler = Sampler::new(Signal::Traces, sampling).unwrap();
        let low = 0xbf9c_f968_u64 & 0x3fff;
        assert_eq!(sampler.hashed(b"ar") >> 42, 0x3fff - low);
    }

    #[test]
    fn thresholds_are_those_of_the_specification() {
        let text = |ratio, precision| threshold_of(ratio, precision).map(|t| format!("{t:014x}"));
        assert_eq!(text(0.25, 4).as_deref(), Some("c0000000000000"));
        assert_eq!(text(0.5, 1).as_deref(), Some("80000000000000"));
        assert_eq!(text(1.0, 4).as_deref(), Some("00000000000000"));
        assert_eq!(text(1.0 / 3.0, 3).as_deref(), Some("aab00000000000"));
        assert_eq!(text(1.0 / 3.0, 14).as_deref(), Some("aaaaaaaaaaaaac"));
        assert_eq!(text(0.99, 3).as_deref(), Some("028f0000000000"));
        assert_eq!(text(1e-18, 4), None);
    }
}
