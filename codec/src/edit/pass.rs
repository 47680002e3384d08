//! One walk over one request: decides, level by level, and writes what comes of it.
//!
//! Nothing is written until something changes. From then on, `copied` says how far the request
//! has been written; everything up to the next change goes over in one run. A group whose length
//! may change is opened with room for its length; when it is left, the length is put there, and
//! its content moves by a byte if the length has become a longer or a shorter varint. Groups nest
//! four deep, so no byte moves more than four times.
//!
//! Always
//! - `bytes[..copied]` has been written, or dropped on purpose; `copied` never goes back.
//! - The open frames are the outermost ones: whoever opens one opens all around it.

use std::ops::Range;

use crate::schema::LEN;
use crate::signal::Signal;
use crate::wire::{self, Fields, RawField};

use super::attributes::{Edit, Entries, PARTS_MAX};
use super::condition::{Level, Scene};
use super::read::{self, Scalar};
use super::sample::{self, Digits, Note};
use super::{Rules, TooLarge};

/// The fields that hold one level in the other, the same in all three signals.
const GROUPS: u32 = 1;
const SCOPE_GROUPS: u32 = 2;
const ITEMS: u32 = 2;
const POINTS: u32 = 1;
/// The resource in its group, the scope in its own.
const OWNER: u32 = 1;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_ATTRIBUTES: u32 = 3;
/// The kinds of `Metric.data`.
const METRIC_DATA: [u32; 5] = [5, 7, 9, 10, 11];

/// Room for an output's insertions before it has to grow.
const SPARE_BYTES: usize = 256;

/// What a list keeps of its size from request to request.
const KEPT_EDITS: usize = 1 << 10;

/// Buffers that last from request to request.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    entries: Entries,
    item_edits: Vec<Edit>,
    resource_edits: Vec<Edit>,
    scope_edits: Vec<Edit>,
    resource_parts: Vec<Range<usize>>,
    scope_parts: Vec<Range<usize>>,
    frames: Vec<Frame>,
}

impl Scratch {
    pub(super) fn new(constants: &[u8]) -> Self {
        Self {
            entries: Entries::new(constants),
            item_edits: Vec::new(),
            resource_edits: Vec::new(),
            scope_edits: Vec::new(),
            resource_parts: Vec::new(),
            scope_parts: Vec::new(),
            frames: Vec::new(),
        }
    }
}

impl Scratch {
    /// Between requests.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink();
        for edits in [&mut self.item_edits, &mut self.resource_edits, &mut self.scope_edits] {
            edits.clear();
            edits.shrink_to(KEPT_EDITS);
        }
        for parts in [&mut self.resource_parts, &mut self.scope_parts] {
            parts.clear();
            parts.shrink_to(KEPT_EDITS);
        }
    }
}

/// A message that the walk is inside of.
#[derive(Clone, Debug)]
struct Frame {
    field: RawField,
    /// Where its tag and its content begin in the output, once it is open.
    written: Option<(usize, usize)>,
    /// Spans, log records or metrics; in a metric, points of the kind of data that counts.
    kept: u64,
    /// Whether something in it was dropped.
    has_lost: bool,
}

pub(super) struct Pass<'a> {
    bytes: &'a [u8],
    rules: &'a Rules,
    scratch: &'a mut Scratch,
    out: Option<Vec<u8>>,
    copied: usize,
    dropped_items: u64,
    /// What conditions read above the items.
    above: Vec<Scalar<'a>>,
    bytes_max: usize,
    /// Whether a resource or scope lies in more parts than anybody would send.
    has_too_many_parts: bool,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        bytes: &'a [u8],
        rules: &'a Rules,
        scratch: &'a mut Scratch,
        bytes_max: usize,
    ) -> Self {
        scratch.frames.clear();
        Self {
            bytes,
            rules,
            scratch,
            out: None,
            copied: 0,
            dropped_items: 0,
            above: vec![Scalar::Nil; rules.above.len()],
            bytes_max,
            has_too_many_parts: false,
        }
    }

    /// The new bytes, unless nothing has changed, and how many items were dropped.
    pub(super) fn request(mut self) -> Result<(Option<Vec<u8>>, u64), TooLarge> {
        let bytes = self.bytes;
        for group in Fields::new(bytes, 0..bytes.len()).filter(|field| field.number == GROUPS) {
            self.group(group);
            if self.is_too_large() {
                return Err(TooLarge);
            }
        }
        if self.out.is_some() {
            self.copy_to(self.bytes.len());
        }
        match self.is_too_large() {
            true => Err(TooLarge),
            false => Ok((self.out, self.dropped_items)),
        }
    }

    fn is_too_large(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.len() > self.bytes_max)
            || self.scratch.entries.has_too_many()
            || self.has_too_many_parts
    }

    /// Looks up what conditions read in the message of this level, which lies at `parts`.
    fn look_up(&mut self, level: Level, parts: &[Range<usize>]) {
        for (value, above) in self.above.iter_mut().zip(&self.rules.above) {
            if above.level() == level {
                *value = above.value(self.bytes, parts);
            }
        }
    }

    fn group(&mut self, group: RawField) {
        let (bytes, content) = (self.bytes, group.value.clone());
        self.scratch.entries.forget_all();
        let reads_resource = self.rules.conditions_read(Level::Resource);
        if reads_resource || !self.rules.resource.is_empty() {
            self.scratch.resource_parts.clear();
            let parts = read::parts_of(bytes, content.clone(), OWNER).take(PARTS_MAX + 1);
            self.scratch.resource_parts.extend(parts);
            self.has_too_many_parts |= self.scratch.resource_parts.len() > PARTS_MAX;
        }
        if reads_resource {
            let parts = std::mem::take(&mut self.scratch.resource_parts);
            self.look_up(Level::Resource, &parts);
            self.scratch.resource_parts = parts;
        }
        self.scratch.resource_edits.clear();
        if !self.rules.resource.is_empty() {
            let Scratch { entries, resource_edits, resource_parts, .. } = &mut *self.scratch;
            entries.edit(
                bytes,
                resource_parts,
                RESOURCE_ATTRIBUTES,
                &self.rules.resource,
                resource_edits,
            );
        }
        self.enter(group);
        self.add_missing_owner(content.start, Self::resource_edits);
        let mark = self.scratch.entries.mark();
        for field in Fields::new(bytes, content) {
            if self.is_too_large() {
                break;
            }
            match field.number {
                OWNER => self.owner(field, Self::resource_edits),
                SCOPE_GROUPS => {
                    self.scratch.entries.forget_from(mark);
                    self.scope_group(field);
                }
                _ => {}
            }
        }
        self.leave();
    }

    fn scope_group(&mut self, group: RawField) {
        let (bytes, content) = (self.bytes, group.value.clone());
        let reads_scope = self.rules.conditions_read(Level::Scope);
        if reads_scope || !self.rules.scope.is_empty() {
            self.scratch.scope_parts.clear();
            let parts = read::parts_of(bytes, content.clone(), OWNER).take(PARTS_MAX + 1);
            self.scratch.scope_parts.extend(parts);
            self.has_too_many_parts |= self.scratch.scope_parts.len() > PARTS_MAX;
        }
        if reads_scope {
            let parts = std::mem::take(&mut self.scratch.scope_parts);
            self.look_up(Level::Scope, &parts);
            self.scratch.scope_parts = parts;
        }
        self.scratch.scope_edits.clear();
        if !self.rules.scope.is_empty() {
            let Scratch { entries, scope_edits, scope_parts, .. } = &mut *self.scratch;
            entries.edit(bytes, scope_parts, SCOPE_ATTRIBUTES, &self.rules.scope, scope_edits);
        }
        self.enter(group);
        self.add_missing_owner(content.start, Self::scope_edits);
        let looks_at_items = self.rules.looks_at_items() || !self.rules.drop_metrics.is_empty();
        for field in Fields::new(bytes, content) {
            if self.is_too_large() {
                break;
            }
            match field.number {
                OWNER => self.owner(field, Self::scope_edits),
                ITEMS if !looks_at_items => self.count_kept(1),
                ITEMS if self.rules.signal == Signal::Metrics => self.metric(field),
                ITEMS => {
                    if self.item(field, 0) {
                        self.count_kept(1);
                    } else {
                        self.dropped_items += 1;
                    }
                }
                _ => {}
            }
        }
        let (_, kept) = self.leave();
        self.count_kept(kept);
    }

    fn metric(&mut self, metric: RawField) {
        let (bytes, content) = (self.bytes, metric.value.clone());
        self.look_up(Level::Metric, std::slice::from_ref(&content));
        let is_true =
            |condition: &super::Condition| condition.is_true(&self.scene(content.clone(), 0));
        if self.rules.drop_metrics.iter().any(is_true) {
            self.dropped_items += points(bytes, content);
            return self.cut(&metric);
        }
        if !self.rules.looks_at_items() {
            return self.count_kept(1);
        }
        self.enter(metric);
        // Of different kinds of data, the last one counts, as in `check`.
        let (mut kind, mut lost) = (0, 0);
        for data in Fields::new(bytes, content).filter(is_data) {
            if data.number != kind {
                (kind, lost) = (data.number, 0);
                (self.frame().kept, self.frame().has_lost) = (0, false);
            }
            lost += self.data(data);
        }
        self.dropped_items += lost;
        let (stays, _) = self.leave();
        self.count_kept(u64::from(stays));
    }

    /// Returns how many points were dropped.
    fn data(&mut self, data: RawField) -> u64 {
        let (kind, content, mut lost) = (data.number, data.value.clone(), 0);
        let mut kept = 0;
        self.enter(data);
        for point in Fields::new(self.bytes, content).filter(|field| field.number == POINTS) {
            if self.is_too_large() {
                break;
            }
            match self.item(point, kind) {
                true => kept += 1,
                false => lost += 1,
            }
        }
        self.close(true);
        self.frame().kept += kept;
        self.frame().has_lost |= lost > 0;
        lost
    }

    /// A span, a log record or a data point. Returns whether it stays.
    fn item(&mut self, item: RawField, data_kind: u32) -> bool {
        let (bytes, rules) = (self.bytes, self.rules);
        let attributes = rules.item_attributes(data_kind);
        if !rules.drop_items.is_empty() {
            let scene = self.scene(item.value.clone(), attributes);
            if rules.drop_items.iter().any(|condition| condition.is_true(&scene)) {
                self.cut(&item);
                return false;
            }
        }
        let mark = self.scratch.entries.mark();
        self.scratch.item_edits.clear();
        if let Some(sampler) = &rules.sampler {
            let Some(note) = sampler.keeps(bytes, item.value.clone()) else {
                self.cut(&item);
                return false;
            };
            self.take_note(&note, &item);
        }
        if !rules.item.is_empty() {
            let Scratch { entries, item_edits, .. } = &mut *self.scratch;
            let parts = std::slice::from_ref(&item.value);
            entries.edit(bytes, parts, attributes, &rules.item, item_edits);
            // That of the trace state came first, wherever it lies.
            item_edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
        }
        if !self.scratch.item_edits.is_empty() {
            self.rewrite(&item, Self::item_edits);
        }
        self.scratch.entries.forget_from(mark);
        true
    }

    /// Prepares what a sampler has to say to the next one: in a span's trace state, or in a
    /// record's attributes, which the item's steps write.
    fn take_note(&mut self, note: &Note, item: &RawField) {
        let Scratch { entries, item_edits, .. } = &mut *self.scratch;
        if self.rules.signal == Signal::Logs {
            entries.make(0, note.threshold_text().as_ref().map(Digits::as_bytes));
            entries.make(1, note.randomness_text().as_ref().map(Digits::as_bytes));
        } else if !note.is_empty() {
            let (at, state) = sample::trace_state(self.bytes, item.value.clone());
            let put = entries.write(|out| note.write_trace_state(&self.bytes[state], out));
            item_edits.push(Edit { at, put });
        }
    }

    /// One part of the resource or the scope, where it stands.
    fn owner(&mut self, part: RawField, edits: Edits) {
        if !within(edits(self.scratch), &part.value).is_empty() {
            self.rewrite(&part, edits);
        }
    }

    /// A resource or scope that is not there, for attributes that go into it.
    fn add_missing_owner(&mut self, at: usize, edits: Edits) {
        // Without an owner, the only edit there can be is one that belongs nowhere.
        let Some(edit) = edits(self.scratch).first().filter(|edit| edit.is_homeless()) else {
            return;
        };
        let put = edit.put.clone();
        self.open_frames();
        self.copy_to(at);
        let out = self.out.get_or_insert_default();
        wire::put_bytes(out, OWNER, self.scratch.entries.bytes(put));
    }

    /// Writes a message with those of its edits that lie in it.
    fn rewrite(&mut self, field: &RawField, edits: Edits) {
        self.open_frames();
        self.copy_to(field.whole.start);
        let Scratch { entries, .. } = &*self.scratch;
        let edits = within(edits(self.scratch), &field.value);
        let out = self.out.get_or_insert_default();
        let (put, cut) = edits
            .iter()
            .fold((0, 0), |(put, cut), edit| (put + edit.put.len(), cut + edit.at.len()));
        wire::put_tag(out, field.number, LEN);
        wire::put_varint(out, (field.value.len() + put - cut) as u64);
        let mut copied = field.value.start;
        for edit in edits {
            out.extend_from_slice(&self.bytes[copied..edit.at.start]);
            out.extend_from_slice(entries.bytes(edit.put.clone()));
            copied = edit.at.end;
        }
        out.extend_from_slice(&self.bytes[copied..field.value.end]);
        self.copied = field.whole.end;
    }

    fn cut(&mut self, field: &RawField) {
        self.open_frames();
        self.copy_to(field.whole.start);
        self.copied = field.whole.end;
        self.frame().has_lost = true;
    }

    fn enter(&mut self, field: RawField) {
        self.scratch.frames.push(Frame { field, written: None, kept: 0, has_lost: false });
    }

    /// Leaves the innermost frame, and removes it if it has lost all that it held. Returns
    /// whether it stays, and what it keeps.
    fn leave(&mut self) -> (bool, u64) {
        let Frame { kept, has_lost, .. } = *self.frame();
        let stays = !has_lost || kept > 0;
        self.close(stays);
        if let Some(parent) = self.scratch.frames.last_mut() {
            parent.has_lost |= !stays;
        }
        (stays, kept)
    }

    fn close(&mut self, stays: bool) {
        let Some(Frame { field, written, .. }) = self.scratch.frames.pop() else {
            return;
        };
        // A frame that lost something is open, so that what does not stay was written.
        let Some((tag_at, content_at)) = written else {
            return;
        };
        if stays {
            self.copy_to(field.value.end);
            self.close_length(content_at, field.value.len());
        } else {
            self.out.get_or_insert_default().truncate(tag_at);
            self.copied = field.whole.end;
        }
    }

    /// Writes the beginning of each frame that is not open yet.
    fn open_frames(&mut self) {
        if self.scratch.frames.last().is_none_or(|frame| frame.written.is_some()) {
            return;
        }
        for at in 0..self.scratch.frames.len() {
            let Frame { field, written, .. } = &self.scratch.frames[at];
            if written.is_some() {
                continue;
            }
            let (number, whole_start, value) =
                (field.number, field.whole.start, field.value.clone());
            self.copy_to(whole_start);
            let out = self.out.get_or_insert_default();
            let tag_at = out.len();
            wire::put_tag(out, number, LEN);
            wire::put_varint(out, value.len() as u64);
            self.scratch.frames[at].written = Some((tag_at, out.len()));
            self.copied = value.start;
        }
    }

    /// Puts the length of the content that begins at `content_at` and ends the output before it,
    /// where there is room for that of `length_before`.
    fn close_length(&mut self, content_at: usize, length_before: usize) {
        let out = self.out.get_or_insert_default();
        let length = (out.len() - content_at) as u64;
        let (room, need) = (wire::varint_bytes(length_before as u64), wire::varint_bytes(length));
        if need > room {
            let end = out.len();
            out.resize(end + need - room, 0);
            out.copy_within(content_at..end, content_at + need - room);
        } else if need < room {
            out.copy_within(content_at.., content_at - (room - need));
            out.truncate(out.len() - (room - need));
        }
        wire::write_varint(&mut out[content_at - room..][..need], length);
    }

    fn copy_to(&mut self, end: usize) {
        let out =
            self.out.get_or_insert_with(|| Vec::with_capacity(self.bytes.len() + SPARE_BYTES));
        out.extend_from_slice(&self.bytes[self.copied..end]);
        self.copied = end;
    }

    fn frame(&mut self) -> &mut Frame {
        self.scratch.frames.last_mut().expect("items lie in groups")
    }

    fn count_kept(&mut self, items: u64) {
        self.frame().kept += items;
    }

    fn scene(&self, item: Range<usize>, item_attributes: u32) -> Scene<'_> {
        Scene { bytes: self.bytes, item, item_attributes, above: &self.above }
    }

    fn resource_edits(scratch: &Scratch) -> &[Edit] {
        &scratch.resource_edits
    }

    fn scope_edits(scratch: &Scratch) -> &[Edit] {
        &scratch.scope_edits
    }

    fn item_edits(scratch: &Scratch) -> &[Edit] {
        &scratch.item_edits
    }
}

/// Which of the scratch's lists of edits is meant.
type Edits = fn(&Scratch) -> &[Edit];

/// Those of the edits, which are in the order of the request, that lie in this message. An
/// insertion at its end does: the next message's bytes begin later.
fn within<'e>(edits: &'e [Edit], message: &Range<usize>) -> &'e [Edit] {
    let start = edits.partition_point(|edit| edit.at.start < message.start);
    let count = edits[start..].partition_point(|edit| edit.at.end <= message.end);
    &edits[start..][..count]
}

fn is_data(field: &RawField) -> bool {
    METRIC_DATA.contains(&field.number)
}

/// How many data points a metric has: of different kinds of data, the last one counts.
fn points(bytes: &[u8], metric: Range<usize>) -> u64 {
    let (mut kind, mut count) = (0, 0);
    for data in Fields::new(bytes, metric).filter(is_data) {
        if data.number != kind {
            (kind, count) = (data.number, 0);
        }
        let points = Fields::new(bytes, data.value).filter(|field| field.number == POINTS);
        count += points.count() as u64;
    }
    count
}
