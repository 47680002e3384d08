//! How a part becomes several: by the endpoint that its items belong to, by size, in halves.
//!
//! Pieces are cut at item borders and keep what is known of the part's delivery. Never drops or
//! doubles an item. Always: items of one key are in one piece, and a piece holds the keys of one
//! endpoint; items without the key are together and go to any.
//!
//! A key whose endpoint's breaker is open is cut for the one that gets it meanwhile, so that a
//! trace stays together through an outage and does not follow whatever else was in its batch.

use std::time::Instant;

use forebay_codec::check::check;
use forebay_codec::hash::stable_hash;
use forebay_codec::split::by::{Request, Shard, split_by};
use forebay_codec::split::split;

use crate::balance::{RoutingKey, TURNS_MAX, hash_again};
use crate::dispatch::Delivery;
use crate::encode::join;
use crate::endpoints::Snapshot;
use crate::held::Part;

#[cfg(test)]
mod tests;

/// One piece for each endpoint that owns any of the part's keys.
pub(crate) fn by_key(
    mut part: Part,
    key: &RoutingKey,
    snapshot: &Snapshot,
    now: Instant,
) -> Vec<Part> {
    part.generation = Some(snapshot.generation());
    part.delivery.key_hash = None;
    let signal = part.batch().signal;
    if snapshot.endpoints().len() < 2 {
        return vec![part];
    }
    // Each endpoint's, and those without the key. Items are no bound: groups and metrics that have
    // none have keys, too.
    let shards_max = snapshot.endpoints().len() + 1;
    let mut owners = Owners::new(snapshot, now);
    let request = Request { parts: part.chain(), counts: part.counts, tenant: b"" };
    let key = key.of_signal(signal);
    let shards = split_by(signal, &[request], key, shards_max, |key| owners.shard_of(key));
    if let [shard] = shards.as_slice() {
        part.delivery.key_hash = owners.hash_of(shard.index);
        return vec![part];
    }
    let piece = |shard: Shard| {
        let mut piece = part.piece(shard.chain);
        piece.delivery.key_hash = owners.hash_of(shard.index);
        piece
    };
    shards.into_iter().map(piece).collect()
}

/// Pieces of at most `bytes_max`, but for a single item that is larger.
pub(crate) fn by_size(part: Part, bytes_max: u64) -> Vec<Part> {
    cut(part, 0, bytes_max)
}

/// Two halves, or the part itself if it is one already or cannot be cut.
pub(crate) fn halves(part: Part) -> Result<Vec<Part>, Part> {
    if part.is_half || part.counts.items < 2 {
        return Err(part);
    }
    let items_max = part.counts.items.div_ceil(2);
    let mut halves = cut(part, items_max, 0);
    if halves.len() == 1 {
        return Err(halves.remove(0));
    }
    for half in &mut halves {
        half.is_half = true;
        half.delivery = Delivery::new(half.delivery.key_hash);
    }
    Ok(halves)
}

/// A batch consists of checked requests, so their sum checks too; if it ever does not, the part
/// stays whole and the destination has the last word.
fn cut(part: Part, items_max: u64, bytes_max: u64) -> Vec<Part> {
    let checked = match check(part.batch().signal, join(part.chain())) {
        Ok(checked) => checked,
        Err(error) => {
            tracing::error!(
                error = ?error,
                items = part.counts.items,
                "A batch that was checked before does not check now and cannot be cut.",
            );
            return vec![part];
        }
    };
    let pieces = split(checked, items_max, bytes_max);
    if pieces.len() < 2 {
        return vec![part];
    }
    pieces.into_iter().map(|piece| part.piece(piece)).collect()
}

/// Who gets what, decided once per cut: breakers change while it goes on, and a key must not.
struct Owners<'s> {
    snapshot: &'s Snapshot,
    now: Instant,
    /// By endpoint.
    places: Vec<Place>,
    shards: Vec<Owned>,
    without_key: Option<usize>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    takes: Option<bool>,
    shard: Option<u16>,
}

#[derive(Default)]
struct Owned {
    /// Of one of its keys.
    hash: Option<u64>,
    /// That key is its endpoint's own, not one that is there for a while.
    is_own: bool,
}

impl<'s> Owners<'s> {
    fn new(snapshot: &'s Snapshot, now: Instant) -> Owners<'s> {
        let places = vec![Place::default(); snapshot.endpoints().len()];
        Owners { snapshot, now, places, shards: Vec::new(), without_key: None }
    }

    fn hash_of(&self, shard: usize) -> Option<u64> {
        self.shards[shard].hash
    }

    fn shard_of(&mut self, key: &[u8]) -> u64 {
        if key.is_empty() {
            let shard = self.without_key.unwrap_or_else(|| self.new_shard());
            self.without_key = Some(shard);
            return shard as u64;
        }
        let hash = stable_hash(key);
        let owner = self.owner(hash);
        let is_own = self.snapshot.owner(hash) == Some(owner);
        let shard = match self.places[owner].shard {
            Some(shard) => usize::from(shard),
            None => self.new_shard(),
        };
        self.places[owner].shard = Some(shard as u16);
        let known = &mut self.shards[shard];
        if known.hash.is_none() || (is_own && !known.is_own) {
            *known = Owned { hash: Some(hash), is_own };
        }
        shard as u64
    }

    fn new_shard(&mut self) -> usize {
        self.shards.push(Owned::default());
        self.shards.len() - 1
    }

    /// As [`crate::balance::Balancer::pick`] goes on from an owner that can't be used.
    fn owner(&mut self, hash: u64) -> usize {
        let snapshot = self.snapshot;
        let owner = |again| snapshot.owner(hash_again(hash, again)).unwrap_or(0);
        (0..TURNS_MAX).map(owner).find(|owner| self.takes(*owner)).unwrap_or_else(|| owner(0))
    }

    fn takes(&mut self, owner: usize) -> bool {
        let endpoint = &self.snapshot.endpoints()[owner];
        let now = self.now;
        *self.places[owner].takes.get_or_insert_with(|| {
            endpoint.breaker.is_closed() || endpoint.breaker.refuses(now).is_none()
        })
    }
}
