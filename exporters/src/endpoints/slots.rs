//! Which endpoint a key belongs to: weighted rendezvous hashing over a fixed number of slots.
//!
//! A key falls into one of [`SLOTS`] slots, for good; each endpoint draws a score for each slot
//! from both their hashes, and the best owns it. Compared with what else there is:
//! - A ring needs about a hundred points for each endpoint to be as even, and a search at each
//!   look-up; here a look-up is one load.
//! - Maglev is even, but a change moves a percent of the keys of endpoints that stay. Here nothing
//!   moves but what the leaver had or the joiner wins: the least that is possible.
//! - Jump hashing knows only numbered buckets that leave in order.
//! - Plain rendezvous asks every endpoint for every key.
//!
//! The price is that shares are as uneven as chance makes them: with a thousand endpoints 33 slots
//! each, give or take 6. Calls beyond an endpoint's bound go elsewhere anyway.
//!
//! Never reads a breaker: who owns a slot depends on addresses and weights alone, so all cores and
//! all processes agree on it.

use std::sync::Arc;

use super::Endpoint;

const SLOT_BITS: u32 = 15;
pub(super) const SLOTS: usize = 1 << SLOT_BITS;

/// The slot of a key.
#[inline]
pub(super) fn slot_of(key_hash: u64) -> usize {
    (key_hash >> (64 - SLOT_BITS)) as usize
}

/// Owners by slot, kept up to date change by change.
pub(super) struct Slots {
    owners: Vec<u16>,
    /// Of each owner; smaller is better.
    scores: Vec<f64>,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots { owners: vec![0; SLOTS], scores: vec![f64::INFINITY; SLOTS] }
    }
}

impl Slots {
    pub(super) fn table(&self) -> Arc<[u16]> {
        self.owners.as_slice().into()
    }

    /// The endpoint at `index` takes what it wins.
    pub(super) fn joins(&mut self, index: usize, endpoints: &[Arc<Endpoint>]) {
        let bid = Bid::of(&endpoints[index]);
        for (slot, (owner, score)) in self.owners.iter_mut().zip(&mut self.scores).enumerate() {
            if let Some(better) = bid.below(slot, *score) {
                (*owner, *score) = (index as u16, better);
            }
        }
    }

    /// What the endpoint at `index` had goes to the next best. Call it before it is removed.
    pub(super) fn leaves(&mut self, index: usize, endpoints: &[Arc<Endpoint>]) {
        let heirs: Vec<(u16, Bid)> = endpoints
            .iter()
            .enumerate()
            .filter(|(heir, _)| *heir != index)
            .map(|(heir, endpoint)| (heir as u16, Bid::of(endpoint)))
            .collect();
        for (slot, (owner, score)) in self.owners.iter_mut().zip(&mut self.scores).enumerate() {
            if usize::from(*owner) != index {
                continue;
            }
            *score = f64::INFINITY;
            for (heir, bid) in &heirs {
                if let Some(better) = bid.below(slot, *score) {
                    (*owner, *score) = (*heir, better);
                }
            }
        }
    }

    /// The endpoint at `from` is to be found at `to`.
    pub(super) fn moved(&mut self, from: usize, to: usize) {
        for owner in self.owners.iter_mut().filter(|owner| usize::from(**owner) == from) {
            *owner = to as u16;
        }
    }
}

/// What an endpoint offers for slots.
struct Bid {
    seed: u64,
    by_weight: f64,
}

impl Bid {
    fn of(endpoint: &Endpoint) -> Bid {
        // Weight zero wins only where nobody else bids.
        let weight = f64::from(endpoint.weight()).max(1e-9);
        Bid { seed: endpoint.address_hash, by_weight: 1.0 / weight }
    }

    /// The score for a slot if it is better than `best`: an exponential variate of rate `weight`,
    /// whose minimum falls to each endpoint in proportion to its weight.
    #[inline]
    fn below(&self, slot: usize, best: f64) -> Option<f64> {
        let hash = mixed(self.seed ^ (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        // The logarithm is dear, and 1 - u is a lower bound of -ln u.
        if (1.0 - uniform) * self.by_weight >= best {
            return None;
        }
        let score = -uniform.ln() * self.by_weight;
        (score < best).then_some(score)
    }
}

/// Spreads every bit over all.
fn mixed(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}
