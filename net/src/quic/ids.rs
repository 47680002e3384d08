//! Connection IDs that name their core, so that whoever steers datagrams needs no table.
//!
//! Byte 0 modulo the number of cores is the owner: in a short header that is the datagram's second
//! byte, where the kernel's filter can read it as well. The rest is from a keyed hash: nobody can
//! tell two IDs of one connection, and the last bytes show to whoever has the key that an ID is one
//! of ours, which a long header's need not be.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::HmacKey;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Of every ID of ours, so that a short header can be read.
pub const ID_BYTES: usize = 10;
/// The end of an ID, which the key makes from its beginning.
const SEAL_BYTES: usize = 4;
const OPEN_BYTES: usize = ID_BYTES - SEAL_BYTES;
/// As many as a byte can tell apart.
pub const CORES_MAX: usize = 256;

/// Which of the cores that share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreId {
    pub index: usize,
    pub count: usize,
}

impl CoreId {
    /// Of a connection that has this ID, or of some core if the ID is not ours.
    pub(super) fn owner(self, id: &[u8]) -> usize {
        id.first().map_or(self.index, |first| usize::from(*first) % self.count)
    }
}

/// Makes the IDs of one core's connections and recognizes those of all.
#[derive(Clone)]
pub(super) struct Ids {
    core: CoreId,
    key: Arc<dyn HmacKey>,
    seed: [u8; 32],
    drawn: u64,
}

impl Ids {
    /// `seed` is this core's own; `key` is shared by all.
    pub(super) fn new(core: CoreId, key: Arc<dyn HmacKey>, seed: [u8; 32]) -> Ids {
        Ids { core, key, seed, drawn: 0 }
    }

    /// The core that made this ID, if one of ours did.
    pub(super) fn maker(&self, id: &[u8]) -> Option<usize> {
        let (open, seal) = id.split_at_checked(OPEN_BYTES)?;
        (*seal == self.seal(open)).then(|| self.core.owner(open))
    }

    fn seal(&self, open: &[u8]) -> [u8; SEAL_BYTES] {
        let hash = self.hash(&[b"seal", open].concat());
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn hash(&self, text: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        self.key.sign(text, &mut hash);
        hash
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.drawn += 1;
        let index = self.core.index as u64;
        let text = [b"draw", &self.seed[..], &index.to_be_bytes(), &self.drawn.to_be_bytes()];
        let hash = self.hash(&text.concat());
        let mut id = [0; ID_BYTES];
        id[..OPEN_BYTES].copy_from_slice(&hash[..OPEN_BYTES]);
        id[0] = named(hash[0], self.core);
        let seal = self.seal(&id[..OPEN_BYTES]);
        id[OPEN_BYTES..].copy_from_slice(&seal);
        ConnectionId::new(&id)
    }

    /// No stateless reset for what can't have been an ID of ours.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.maker(id).map(drop).ok_or(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The first byte that is nearest to one drawn by chance and names the core.
fn named(drawn: u8, core: CoreId) -> u8 {
    let drawn = usize::from(drawn);
    let named = drawn - drawn % core.count + core.index;
    let named = if named < CORES_MAX { named } else { named - core.count };
    named as u8
}

/// The destination of a datagram's first packet.
pub(super) enum Destination<'a> {
    /// An ID of ours, if the datagram is for us at all.
    Short(&'a [u8]),
    /// Chosen by the client at first, then by us.
    Long(&'a [u8]),
}

/// RFC 9000, 17.2 and 17.3, and RFC 8999: what holds for every version.
pub(super) fn destination(datagram: &[u8]) -> Option<Destination<'_>> {
    const LONG: u8 = 0x80;
    const LENGTH_AT: usize = 5;
    let first = datagram.first()?;
    if first & LONG == 0 {
        return datagram.get(1..1 + ID_BYTES).map(Destination::Short);
    }
    let length = usize::from(*datagram.get(LENGTH_AT)?);
    datagram.get(LENGTH_AT + 1..LENGTH_AT + 1 + length).map(Destination::Long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::Secrets;

    fn ids(core: CoreId, seed: u8) -> Ids {
        Ids::new(core, Secrets::derive(&[7; 32]).ids, [seed; 32])
    }

    #[test]
    fn an_id_names_its_core_whatever_their_number() {
        for count in [1, 2, 3, 5, 7, 64, 100, 255, 256] {
            for index in [0, count / 2, count - 1] {
                let core = CoreId { index, count };
                let mut ids = ids(core, 1);
                for _ in 0..50 {
                    let id = ids.generate_cid();
                    assert_eq!(core.owner(&id), index, "{index} of {count}: {id}");
                    assert_eq!(ids.maker(&id), Some(index));
                }
            }
        }
    }

    #[test]
    fn every_core_knows_the_ids_of_the_others_and_nobody_elses() {
        let core = |index| CoreId { index, count: 3 };
        let (mut one, other) = (ids(core(1), 1), ids(core(2), 2));
        let stranger = Ids::new(core(1), Secrets::derive(&[8; 32]).ids, [1; 32]);
        for _ in 0..100 {
            let id = one.generate_cid();
            assert_eq!(other.maker(&id), Some(1));
            assert_eq!(stranger.maker(&id), None);
            for bit in 0..ID_BYTES * 8 {
                let mut forged = id;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(other.maker(&forged), None, "bit {bit} of {id}");
            }
        }
    }

    #[test]
    fn ids_follow_from_the_seed_and_differ() {
        let core = CoreId { index: 0, count: 2 };
        let draw = |seed| {
            let mut ids = ids(core, seed);
            (0..1_000).map(|_| ids.generate_cid()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        let mut all = [draw(3), draw(4)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2_000, "seeds 3 and 4");
    }
}
