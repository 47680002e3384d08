//! Merging: resource groups and scope groups that are equal go under one header.
//!
//! Many requests of one client repeat its resource and scopes; a batch of them need say those only
//! once. Two groups are equal when everything of them but their children is, byte by byte
//! (resource, schema URL, unknown fields), and so are two scope groups of equal groups. Items are
//! never looked into: they are shared, or copied where they are small.
//!
//! Always
//! - What comes out decodes to what merging the decoded requests gives: groups, and scopes in them,
//!   in the order of their first, with the items of all equal ones in order.
//! - Whether it pays is known before anything is written.
//! - Work and memory are bounded: a chain of more than [`PLACES_MAX`] groups, scope groups and runs
//!   of items is left alone, and so few headers are compared that no choice of headers costs more
//!   than a missed merger.

use std::ops::Range;

use bytes::Bytes;

use super::Chain;
use crate::gather::Gather;
use crate::hash::stable_hash;
use crate::rope::{Field, Rope};
use crate::signal::Signal;
use crate::wire;

/// More groups, scope groups and runs than a batch of usual requests has.
pub const PLACES_MAX: usize = 1 << 14;

/// How many headers that fall on one place of the table are compared with a new one.
const PROBES_MAX: usize = 8;

/// A chain with equal groups under one header.
#[derive(Clone, Debug)]
pub struct Merged {
    pub chain: Chain,
    /// How much smaller it is than the chain that it was made of.
    pub saved_bytes: u64,
}

/// Merges chains one after another; what it needs for that, it keeps.
#[derive(Debug, Default)]
pub struct Merger {
    /// The request's own unknown fields, then the headers of all nodes.
    headers: Vec<u8>,
    nodes: Vec<Node>,
    runs: Vec<Run>,
    table: Vec<u32>,
}

/// A group or a scope group of the merged chain, with its header and what comes under it.
#[derive(Debug)]
struct Node {
    hash: u64,
    /// The group that a scope group lies in; [`NONE`] for a group.
    parent: u32,
    header: Range<usize>,
    /// For a group its scope groups, for a scope group its runs; linked in order.
    first: u32,
    last: u32,
    next: u32,
    children_bytes: u64,
}

/// Items that lie side by side in one part.
#[derive(Debug)]
struct Run {
    part: usize,
    range: Range<usize>,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Merger {
    pub fn new() -> Self {
        Self::default()
    }

    /// The chain with equal groups merged, if that saves at least `saved_bytes_min` bytes.
    ///
    /// `None` as well for profiles, whose groups share a dictionary, and for a chain with too many
    /// different places to be worth it.
    pub fn merge(&mut self, chain: &Chain, saved_bytes_min: u64) -> Option<Merged> {
        if chain.signal == Signal::Profiles || chain.parts.len() > PLACES_MAX {
            return None;
        }
        self.clear();
        let own = self.survey(Rope::new(&chain.parts), chain.parts.len())?;
        let bytes = own.len() as u64 + self.measure();
        let saved_bytes = chain.bytes.checked_sub(bytes)?;
        if saved_bytes < saved_bytes_min {
            return None;
        }
        let parts = self.written(chain, own);
        let chain = Chain { signal: chain.signal, counts: chain.counts, bytes, parts };
        Some(Merged { chain, saved_bytes })
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.headers.shrink_to(HEADERS_BYTES_KEPT);
        self.nodes.clear();
        self.runs.clear();
        self.table.clear();
        self.table.resize(TABLE_SIZE_MIN, NONE);
    }

    /// Finds the groups of the merged chain; returns the header of the request. `None`: too many,
    /// or parts that end inside something that lies in one part.
    fn survey(&mut self, mut request: Rope<'_>, parts: usize) -> Option<Range<usize>> {
        let own = self.header(request, 1);
        while let Some(mut group) = child(&mut request, 1) {
            let node = self.node(NONE, group.value)?;
            while let Some(mut scope) = child(&mut group.value, 2) {
                let node = self.node(node, scope.value)?;
                while let Some(item) = child(&mut scope.value, 2) {
                    self.item(node, &item, parts)?;
                }
                is_read(scope.value)?;
            }
            is_read(group.value)?;
        }
        is_read(request)?;
        Some(own)
    }

    /// The node for a group, or for a scope group in `parent`: an equal one, or a new one.
    fn node(&mut self, parent: u32, message: Rope<'_>) -> Option<u32> {
        let header = self.header(message, 2);
        let bytes = &self.headers[header.clone()];
        let hash = stable_hash(bytes) ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        for _ in 0..PROBES_MAX {
            let Some(node) = self.nodes.get(self.table[place] as usize) else { break };
            let is_equal = node.hash == hash && node.parent == parent;
            if is_equal && self.headers[node.header.clone()] == *bytes {
                self.headers.truncate(header.start);
                return Some(self.table[place]);
            }
            place = (place + 1) & mask;
        }
        let index = self.new_index(self.nodes.len())?;
        self.table[place] = index;
        let (first, last, next) = (NONE, NONE, NONE);
        self.nodes.push(Node { hash, parent, header, first, last, next, children_bytes: 0 });
        if let Some(group) = self.nodes.get_mut(parent as usize) {
            let before = std::mem::replace(&mut group.last, index);
            match self.nodes.get_mut(before as usize) {
                Some(before) => before.next = index,
                None => self.nodes[parent as usize].first = index,
            }
        }
        if self.nodes.len() * 4 > self.table.len() {
            self.grow();
        }
        Some(index)
    }

    fn item(&mut self, node: u32, item: &Field<'_>, parts: usize) -> Option<()> {
        for (part, (_, range)) in (parts - item.parts_left()..).zip(item.pieces()) {
            self.nodes[node as usize].children_bytes += range.len() as u64;
            let last = self.nodes[node as usize].last;
            if let Some(run) = self.runs.get_mut(last as usize)
                && (run.part, run.range.end) == (part, range.start)
            {
                run.range.end = range.end;
                continue;
            }
            let index = self.new_index(self.runs.len())?;
            self.runs.push(Run { part, range, next: NONE });
            self.nodes[node as usize].last = index;
            match self.runs.get_mut(last as usize) {
                Some(before) => before.next = index,
                None => self.nodes[node as usize].first = index,
            }
        }
        Some(())
    }

    fn new_index(&self, length: usize) -> Option<u32> {
        let has_room = self.nodes.len() + self.runs.len() < PLACES_MAX;
        u32::try_from(length).ok().filter(|_| has_room)
    }

    /// Copies all fields but the children.
    fn header(&mut self, message: Rope<'_>, child_number: u32) -> Range<usize> {
        let start = self.headers.len();
        for field in message.fields().filter(|field| field.number != child_number) {
            for (part, range) in field.pieces() {
                self.headers.extend_from_slice(&part[range]);
            }
        }
        start..self.headers.len()
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        self.table.clear();
        self.table.resize(size, NONE);
        for (index, node) in (0..).zip(&self.nodes) {
            let mut place = node.hash as usize & (size - 1);
            for _ in 0..PROBES_MAX {
                if self.table[place] == NONE {
                    break;
                }
                place = (place + 1) & (size - 1);
            }
            self.table[place] = index;
        }
    }

    /// The size of all groups as they will be written; fills in the sizes of their children.
    fn measure(&mut self) -> u64 {
        let mut bytes = 0;
        // A scope group stands behind its group, so the sizes of its children are known by then.
        for index in (0..self.nodes.len()).rev() {
            let node = &self.nodes[index];
            let content = node.header.len() as u64 + node.children_bytes;
            let whole = 1 + wire::varint_bytes(content) as u64 + content;
            let parent = node.parent;
            match self.nodes.get_mut(parent as usize) {
                Some(group) => group.children_bytes += whole,
                None => bytes += whole,
            }
        }
        bytes
    }

    fn written(&self, chain: &Chain, own: Range<usize>) -> Vec<Bytes> {
        let mut out = Gather::default();
        out.put_copy(&self.headers[own]);
        for group in self.nodes.iter().filter(|node| node.parent == NONE) {
            self.open(1, group, &mut out);
            let mut next = group.first;
            while let Some(scope) = self.nodes.get(next as usize) {
                self.open(2, scope, &mut out);
                let mut run = scope.first;
                while let Some(Run { part, range, next }) = self.runs.get(run as usize) {
                    out.put(&chain.parts[*part], range.clone());
                    run = *next;
                }
                next = scope.next;
            }
        }
        out.finish()
    }

    fn open(&self, number: u32, node: &Node, out: &mut Gather) {
        let header = &self.headers[node.header.clone()];
        out.open_sized(number, header.len() as u64 + node.children_bytes);
        out.put_copy(header);
    }
}

/// The next field with this number.
#[inline]
fn child<'a>(message: &mut Rope<'a>, number: u32) -> Option<Field<'a>> {
    loop {
        let field = message.next_field()?;
        if field.number == number {
            return Some(field);
        }
    }
}

fn is_read(rest: Rope<'_>) -> Option<()> {
    (rest.len() == 0).then_some(())
}

/// A power of two.
const TABLE_SIZE_MIN: usize = 64;

/// More than this is not kept for the next chain.
const HEADERS_BYTES_KEPT: usize = 1 << 20;

#[cfg(test)]
mod tests;
