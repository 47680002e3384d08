//! Splitting a batch by a key: trace id, resource attribute, tenant, metric name, item attribute.
//!
//! Each item goes to the shard that the caller's function names for its key. A shard repeats the
//! headers above its items, as a piece of [`split`](super::split) does, unknown fields included;
//! runs of items are shared when they are large and gathered in one buffer when they are small.
//! Nothing is decoded, and nothing is allocated per item.
//!
//! Always
//! - Every item is in one shard exactly, and a shard keeps the order in which its items came.
//! - The origins of a shard add up to its counts, and those of all shards to what each request
//!   held: a shard that failed can be retried alone, and each request be settled once.
//! - What has no items (a resource group, a scope group, a metric) goes with the empty key, and so
//!   does an item that has no such id, name or attribute.
//! - All repeated headers together are at most [`REPEATED_RATIO_MAX`] times the batch. What would
//!   need more (a huge header above items for hundreds of shards: an attack) goes to a shard that
//!   has the header already. Never reached with as many shards as that or fewer.
//! - A request of profiles comes out whole, and alone, by the resource of its first group; with a
//!   key that profiles lack, by the empty one.
//!
//! A span's trace id is the one that it begins with, where it begins with one. (Two trace ids in
//! one span are legal protobuf that no encoder makes; views show the last.) A metric whose data is
//! of several kinds (as legal, as unlikely) goes with the empty key when points are told apart.

use bytes::Bytes;

use super::layout::{self, METRIC, POINTS};
use super::shards::Shards;
use crate::rope::{self, Field, Rope};
use crate::signal::{Counts, Signal};
use crate::splice::Chain;
use crate::view::{DataKind, Group, KeySpace, attribute};

pub use super::REPEATED_RATIO_MAX;

/// What items are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'k> {
    /// The [`Request::tenant`] that the caller knows.
    Tenant,
    /// The value of a resource attribute: see [`Value::key`](crate::view::Value::key).
    Resource(&'k str),
    /// Of spans and log records.
    TraceId,
    MetricName,
    /// The value of an attribute of a span, log record or data point.
    Attribute(&'k str),
}

impl Key<'static> {
    pub const SERVICE_NAME: Key<'static> = Key::Resource("service.name");
}

/// One request of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Checked bytes, as a [`Chain`] holds them.
    pub parts: &'a [Bytes],
    /// What they hold.
    pub counts: Counts,
    /// Only [`Key::Tenant`] looks at it.
    pub tenant: &'a [u8],
}

/// What goes to one shard.
#[derive(Clone, Debug)]
pub struct Shard {
    pub index: usize,
    pub chain: Chain,
    /// By request, ascending. One that gave nothing but an empty group has counts of zero.
    pub origins: Vec<Origin>,
}

/// What one request gave to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its index in the batch.
    pub request: usize,
    pub counts: Counts,
}

/// Splits a batch into at most `shards` parts (profiles: one for each request), in the order of
/// their index; shards that nothing goes to are left out, and so are requests of zero bytes.
///
/// `shard_of` says where a key belongs: an index, or any number that is constant for the key, such
/// as its [`stable_hash`](crate::hash::stable_hash), which is then taken modulo `shards`.
pub fn split_by(
    signal: Signal,
    requests: &[Request<'_>],
    key: Key<'_>,
    shards: usize,
    shard_of: impl FnMut(&[u8]) -> u64,
) -> Vec<Shard> {
    let bytes = requests.iter().flat_map(|request| request.parts).map(Bytes::len).sum();
    let cuts_items = matches!(key, Key::TraceId | Key::MetricName | Key::Attribute(_));
    let joined: Vec<Option<Bytes>> =
        requests.iter().map(|request| joined_if_needed(signal, request)).collect();
    let out = Shards::new(signal, shards.max(1), bytes, cuts_items);
    let mut walk = Walk { signal, key, shard_of, shards: shards.max(1) as u64, out };
    for (index, (request, joined)) in requests.iter().zip(&joined).enumerate() {
        walk.out.begin(index);
        let parts = joined.as_ref().map_or(request.parts, std::slice::from_ref);
        walk.request(&Request { parts, ..*request });
    }
    walk.out.finish()
}

/// The request in one part, if its parts end where those of a [`Chain`] never do: a walk over them
/// would miss what lies there.
fn joined_if_needed(signal: Signal, request: &Request<'_>) -> Option<Bytes> {
    let is_chain = layout::ends_well(signal, 0, Rope::new(request.parts));
    (!is_chain).then(|| request.parts.concat().into())
}

struct Walk<'a, 'k, F> {
    signal: Signal,
    key: Key<'k>,
    shard_of: F,
    shards: u64,
    out: Shards<'a>,
}

impl<'a, F: FnMut(&[u8]) -> u64> Walk<'a, '_, F> {
    fn request(&mut self, request: &Request<'a>) {
        let rope = Rope::new(request.parts);
        if rope.len() == 0 {
            return;
        }
        match (self.key, self.signal) {
            (Key::Tenant, _) => self.whole(request, request.tenant),
            (Key::Resource(name), Signal::Profiles) => {
                let first = rope.fields().find(|field| field.number == 1);
                let shard = match first {
                    Some(group) => self.shard_of_group(&group, name),
                    None => self.shard(b""),
                };
                self.whole_to(request, shard);
            }
            (_, Signal::Profiles)
            | (Key::TraceId, Signal::Metrics)
            | (Key::MetricName, Signal::Traces | Signal::Logs) => self.whole(request, b""),
            _ => self.groups(rope, request.counts),
        }
    }

    fn whole(&mut self, request: &Request<'a>, key: &[u8]) {
        let shard = self.shard(key);
        self.whole_to(request, shard);
    }

    fn whole_to(&mut self, request: &Request<'a>, shard: usize) {
        self.out.put_request(shard, request.parts, request.counts);
    }

    fn groups(&mut self, request: Rope<'a>, counts: Counts) {
        let groups = self.out.enter(0, request, |number| number == 1);
        if groups == 0 {
            let shard = self.shard(b"");
            self.out.put_headers(shard);
        }
        let mut rest = request;
        while let Some(group) = rest.next_field() {
            match (group.number, self.key) {
                (1, Key::Resource(name)) => {
                    let shard = self.shard_of_group(&group, name);
                    let counts = match groups {
                        1 => counts,
                        _ => layout::counts(self.signal, 1, group.value, u64::MAX),
                    };
                    self.out.put(shard, &group, counts);
                }
                (1, _) => self.group(group),
                _ => {}
            }
        }
        self.out.leave();
    }

    fn group(&mut self, group: Field<'a>) {
        if self.out.enter(1, group.value, |number| number == 2) == 0 {
            self.out.leave();
            return self.put_empty(&group, 0);
        }
        let mut rest = group.value;
        while let Some(scope) = rest.next_field() {
            if scope.number == 2 {
                self.scope(scope);
            }
        }
        self.out.leave();
    }

    fn scope(&mut self, scope: Field<'a>) {
        if self.out.enter(2, scope.value, |number| number == 2) == 0 {
            self.out.leave();
            return self.put_empty(&scope, 0);
        }
        let in_item = if self.signal == Signal::Traces { 9 } else { 6 };
        let mut rest = scope.value;
        while let Some(item) = rest.next_field() {
            if item.number != 2 {
                continue;
            }
            match (self.signal, self.key) {
                (Signal::Metrics, Key::Attribute(name)) => self.metric(item, name),
                (Signal::Metrics, _) => {
                    let shard = self.shard(scalar(item.value, 1));
                    let counts = Counts { items: layout::points(item.value), profiles: 0 };
                    self.out.put(shard, &item, counts);
                }
                (_, Key::Attribute(name)) => {
                    let shard = self.shard_by_attribute(item.value, in_item, name);
                    self.out.put(shard, &item, ONE);
                }
                (Signal::Traces, _) => {
                    let shard = self.shard(span_trace_id(item.value));
                    self.out.put(shard, &item, ONE);
                }
                _ => {
                    let shard = self.shard(scalar(item.value, 9));
                    self.out.put(shard, &item, ONE);
                }
            }
        }
        self.out.leave();
    }

    /// A metric in as many parts as its points go to shards.
    fn metric(&mut self, metric: Field<'a>, name: &str) {
        let kind = layout::only_data_kind(metric.value);
        let Some((number, kind)) = kind.and_then(|number| Some((number, DataKind::of(number)?)))
        else {
            return self.put_empty(&metric, layout::points(metric.value));
        };
        let is_data = |field: &Field<'_>| field.number == number;
        let parts = || metric.value.fields().filter(is_data).map(|part| part.value);
        if !parts().any(|part| part.fields().any(|field| field.number == POINTS)) {
            return self.put_empty(&metric, 0);
        }
        self.out.enter(METRIC, metric.value, |field| field == number);
        self.out.enter_parts(number, parts());
        for part in parts() {
            for point in part.fields().filter(|field| field.number == POINTS) {
                let shard = self.shard_by_attribute(point.value, kind.attributes_number(), name);
                self.out.put(shard, &point, ONE);
            }
        }
        self.out.leave();
        self.out.leave();
    }

    /// What holds no items, or items that cannot be told apart.
    fn put_empty(&mut self, field: &Field<'a>, items: u64) {
        let shard = self.shard(b"");
        self.out.put(shard, field, Counts { items, profiles: 0 });
    }

    /// Where a resource group belongs.
    fn shard_of_group(&mut self, group: &Field<'_>, name: &str) -> usize {
        let resource = Group::new(self.signal, group.value).resource();
        let value = resource.attributes().value(name);
        let mut space = KeySpace::default();
        let key = value.as_ref().and_then(|value| value.key(&mut space));
        self.shard(key.unwrap_or_default())
    }

    fn shard_by_attribute(&mut self, item: Rope<'_>, number: u32, name: &str) -> usize {
        let value = attribute(item, number, name);
        let mut space = KeySpace::default();
        let key = value.as_ref().and_then(|value| value.key(&mut space));
        self.shard(key.unwrap_or_default())
    }

    #[inline]
    fn shard(&mut self, key: &[u8]) -> usize {
        let number = (self.shard_of)(key);
        (if number < self.shards { number } else { number % self.shards }) as usize
    }
}

const ONE: Counts = Counts { items: 1, profiles: 0 };

/// Tag and length of a trace id in a span.
const TRACE_ID_HEAD: [u8; 2] = [1 << 3 | 2, TRACE_ID_BYTES as u8];
const TRACE_ID_BYTES: usize = 16;

#[inline]
fn span_trace_id(span: Rope<'_>) -> &[u8] {
    match span.slice().and_then(|span| span.first_chunk::<{ 2 + TRACE_ID_BYTES }>()) {
        Some([first, second, id @ ..]) if [*first, *second] == TRACE_ID_HEAD => id,
        _ => scalar(span, 1),
    }
}

/// The value of a field: the last one on the wire, or nothing.
fn scalar(item: Rope<'_>, number: u32) -> &[u8] {
    match item.slice() {
        Some(item) => rope::values(item, number).last().unwrap_or_default(),
        None => {
            let values = item.fields().filter(|field| field.number == number);
            values.last().and_then(|field| field.value.slice()).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests;
