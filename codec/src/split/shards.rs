//! The shards while they grow: which headers each has open, and what a run of items goes to.
//!
//! The walk over the batch says which message it is inside of ([`Shards::enter`] and
//! [`Shards::leave`]) and where each item belongs ([`Shards::put`]). Adjacent items of one shard
//! are one run. A shard writes the headers above a run when the first run below them comes, and
//! the lengths of what it has open when it opens something else.
//!
//! Always
//! - What a shard has open is the path of the walk, or was, from the request down.
//! - No shard holds a group, a scope or a metric that nothing was put into.

use std::ops::Range;

use bytes::Bytes;

use super::REPEATED_RATIO_MAX;
use super::by::{Origin, Shard};
use crate::gather::{Gap, Gather};
use crate::rope::{Field, Rope};
use crate::signal::{Counts, Signal};
use crate::splice::Chain;

pub(super) struct Shards<'a> {
    signal: Signal,
    shards: Vec<Growing>,
    /// Profiles, which share a chain with nobody.
    alone: Vec<Shard>,
    /// The messages around what the walk looks at, from the request inwards.
    path: Vec<Level>,
    /// Their headers, as the bytes lie.
    headers: Vec<Bytes>,
    stamps: u64,
    request: usize,
    /// How many bytes of headers may still be written again.
    repeatable_bytes: u64,
    /// What a shard may expect to gather.
    gathered_bytes: usize,
    run: Option<Run<'a>>,
}

/// A message that the walk is inside of.
struct Level {
    /// Tells it from every other message of the batch.
    stamp: u64,
    /// 0 for the request.
    number: u32,
    bytes_max: usize,
    header: Range<usize>,
    header_bytes: u64,
    /// A shard that has it open.
    home: Option<usize>,
}

/// Items that lie side by side and go to the same shard.
struct Run<'a> {
    shard: usize,
    part: &'a Bytes,
    parts_left: usize,
    range: Range<usize>,
    counts: Counts,
}

#[derive(Default)]
struct Growing {
    out: Gather,
    open: Vec<Open>,
    counts: Counts,
    origins: Vec<Origin>,
}

struct Open {
    stamp: u64,
    gap: Option<Gap>,
}

impl<'a> Shards<'a> {
    /// `cuts_items`: small runs of items are expected, not whole groups.
    pub(super) fn new(signal: Signal, shards: usize, bytes: usize, cuts_items: bool) -> Self {
        let each = bytes / shards;
        Self {
            signal,
            shards: std::iter::repeat_with(Growing::default).take(shards).collect(),
            alone: Vec::new(),
            path: Vec::new(),
            headers: Vec::new(),
            stamps: 0,
            request: 0,
            repeatable_bytes: bytes as u64 * REPEATED_RATIO_MAX,
            gathered_bytes: if cuts_items { each + each / 8 + 256 } else { 0 },
            run: None,
        }
    }

    /// What is put in from now on comes from this request.
    pub(super) fn begin(&mut self, request: usize) {
        self.request = request;
    }

    /// Goes into a message; says how many children it has.
    pub(super) fn enter(
        &mut self,
        number: u32,
        message: Rope<'a>,
        is_child: impl Fn(u32) -> bool,
    ) -> u64 {
        self.enter_level(number, message.len());
        self.header(message, is_child)
    }

    /// Goes into a message that lies in several parts, around children of number 1.
    pub(super) fn enter_parts(
        &mut self,
        number: u32,
        parts: impl Iterator<Item = Rope<'a>> + Clone,
    ) {
        self.enter_level(number, parts.clone().map(|part| part.len()).sum());
        for part in parts {
            self.header(part, |number| number == 1);
        }
    }

    /// Goes back into the message around this one.
    pub(super) fn leave(&mut self) {
        self.flush();
        if let Some(level) = self.path.pop() {
            self.headers.truncate(level.header.start);
        }
    }

    /// A field of the message that the walk is inside of, as it lies there.
    #[inline]
    pub(super) fn put(&mut self, shard: usize, field: &Field<'a>, counts: Counts) {
        let Some(range) = field.whole() else { return self.put_parted(shard, field, counts) };
        let parts_left = field.parts_left();
        if let Some(run) = &mut self.run
            && run.shard == shard
            && run.range.end == range.start
            && run.parts_left == parts_left
        {
            run.range.end = range.end;
            run.counts += counts;
            return;
        }
        self.flush();
        self.run = Some(Run { shard, part: field.part(), parts_left, range, counts });
    }

    /// A field that lies in several parts.
    #[cold]
    fn put_parted(&mut self, shard: usize, field: &Field<'a>, counts: Counts) {
        self.flush();
        let shard = self.open(shard);
        for (part, range) in field.pieces() {
            self.shards[shard].out.put(part, range);
        }
        self.shards[shard].count(self.request, counts);
    }

    /// The headers of the message that the walk is inside of, around nothing.
    pub(super) fn put_headers(&mut self, shard: usize) {
        let shard = self.open(shard);
        self.shards[shard].count(self.request, Counts::default());
    }

    /// A request as it is.
    pub(super) fn put_request(&mut self, shard: usize, parts: &[Bytes], counts: Counts) {
        if self.signal == Signal::Profiles {
            let bytes = parts.iter().map(|part| part.len() as u64).sum();
            let parts = parts.iter().filter(|part| !part.is_empty()).cloned().collect();
            let chain = Chain { signal: self.signal, counts, bytes, parts };
            let origins = vec![Origin { request: self.request, counts }];
            return self.alone.push(Shard { index: shard, chain, origins });
        }
        let growing = &mut self.shards[shard];
        growing.close_to(0);
        parts.iter().for_each(|part| growing.out.put_bytes(part));
        growing.count(self.request, counts);
    }

    pub(super) fn finish(mut self) -> Vec<Shard> {
        self.flush();
        let signal = self.signal;
        let grown = self.shards.into_iter().enumerate();
        let mut all: Vec<Shard> =
            grown.filter_map(|(index, growing)| growing.finish(index, signal)).collect();
        self.alone.sort_by_key(|shard| shard.index);
        all.append(&mut self.alone);
        all
    }

    fn enter_level(&mut self, number: u32, bytes_max: usize) {
        self.flush();
        self.stamps += 1;
        let header = self.headers.len()..self.headers.len();
        let stamp = self.stamps;
        self.path.push(Level { stamp, number, bytes_max, header, header_bytes: 0, home: None });
    }

    /// Adds what is no child to the header of the innermost level; counts the children.
    fn header(&mut self, message: Rope<'a>, is_child: impl Fn(u32) -> bool) -> u64 {
        let Some(level) = self.path.last_mut() else { return 0 };
        let (mut children, mut bytes) = (0, 0);
        let mut run: Option<(&Bytes, Range<usize>)> = None;
        let mut rest = message;
        while let Some(field) = rest.next_field() {
            if is_child(field.number) {
                children += 1;
                continue;
            }
            for (part, range) in field.pieces() {
                bytes += range.len() as u64;
                match &mut run {
                    Some((last, run)) if std::ptr::eq(*last, part) && run.end == range.start => {
                        run.end = range.end;
                    }
                    _ => {
                        let before = run.replace((part, range));
                        keep(&mut self.headers, level.header.start, before);
                    }
                }
            }
        }
        keep(&mut self.headers, level.header.start, run);
        level.header.end = self.headers.len();
        level.header_bytes += bytes;
        children
    }

    fn flush(&mut self) {
        let Some(run) = self.run.take() else { return };
        let shard = self.open(run.shard);
        let growing = &mut self.shards[shard];
        growing.out.put(run.part, run.range);
        growing.count(self.request, run.counts);
    }

    /// Opens the path of the walk in a shard, or in another if that would repeat too much.
    #[inline]
    fn open(&mut self, shard: usize) -> usize {
        let innermost = self.path.last().map(|level| level.stamp);
        match innermost == self.shards[shard].open.last().map(|open| open.stamp) {
            true => shard,
            false => self.open_levels(shard),
        }
    }

    fn open_levels(&mut self, shard: usize) -> usize {
        let mut shard = shard;
        let mut same = self.levels_open(shard);
        let missing = self.path[same..].iter();
        let repeated: u64 =
            missing.filter_map(|level| level.home.map(|_| level.header_bytes)).sum();
        if repeated > self.repeatable_bytes {
            let home = self.path.iter().rev().find_map(|level| level.home);
            shard = home.unwrap_or(shard);
            same = self.levels_open(shard);
        } else {
            self.repeatable_bytes -= repeated;
        }
        let growing = &mut self.shards[shard];
        if growing.origins.is_empty() {
            growing.out = Gather::with_capacity(self.gathered_bytes);
        }
        growing.close_to(same);
        for level in &mut self.path[same..] {
            let gap = (level.number != 0).then(|| growing.out.open(level.number, level.bytes_max));
            self.headers[level.header.clone()].iter().for_each(|run| growing.out.put_bytes(run));
            growing.open.push(Open { stamp: level.stamp, gap });
            level.home = Some(shard);
        }
        shard
    }

    /// How much of the path a shard has open.
    fn levels_open(&self, shard: usize) -> usize {
        let open = self.shards[shard].open.iter();
        open.zip(&self.path).take_while(|(open, level)| open.stamp == level.stamp).count()
    }
}

/// Keeps a run of a header. Many short runs are copied together: a request may be millions.
fn keep(headers: &mut Vec<Bytes>, level_at: usize, run: Option<(&Bytes, Range<usize>)>) {
    let Some((part, range)) = run else { return };
    if headers.len() - level_at < HEADER_RUNS_MAX {
        return headers.push(part.slice(range));
    }
    let last = headers.pop().unwrap_or_default();
    let mut joined = match last.try_into_mut() {
        Ok(own) => own,
        Err(shared) => bytes::BytesMut::from(&shared[..]),
    };
    joined.extend_from_slice(&part[range]);
    headers.push(joined.freeze());
}

/// More runs than this have no header that an encoder writes.
const HEADER_RUNS_MAX: usize = 8;

impl Growing {
    #[inline]
    fn count(&mut self, request: usize, counts: Counts) {
        self.counts += counts;
        match self.origins.last_mut() {
            Some(last) if last.request == request => last.counts += counts,
            _ => self.origins.push(Origin { request, counts }),
        }
    }

    fn close_to(&mut self, levels: usize) {
        while self.open.len() > levels {
            if let Some(Open { gap: Some(gap), .. }) = self.open.pop() {
                self.out.close(gap);
            }
        }
    }

    fn finish(mut self, index: usize, signal: Signal) -> Option<Shard> {
        if self.origins.is_empty() {
            return None;
        }
        self.close_to(0);
        let bytes = self.out.bytes();
        let chain = Chain { signal, counts: self.counts, bytes, parts: self.out.finish() };
        Some(Shard { index, chain, origins: self.origins })
    }
}
