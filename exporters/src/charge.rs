//! Memory that a part holds beside its batch's own bytes: copies that were made to cut it, and what
//! it was packed into for its next attempt. It counts as held by the lane while it lasts.
//!
//! Always: what was charged is given back exactly once, with the part at the latest.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use crate::lane::Lane;

/// Bytes that the lane counts as held until this is dropped.
pub(crate) struct Charge {
    lane: Arc<Lane>,
    bytes: u64,
    is_spare: bool,
}

/// A part as it goes on the wire, if packing it was work: compressed, or as JSON.
#[derive(Default)]
pub(crate) struct Packed(RefCell<Option<Vec<Bytes>>>);

impl Charge {
    /// For what is there already: it may pass the limit, and closes the lane's door until it ends.
    pub(crate) fn of(lane: &Arc<Lane>, bytes: u64) -> Charge {
        lane.stats().charge(bytes);
        Charge { lane: Arc::clone(lane), bytes, is_spare: false }
    }

    /// For what can be done without: only while the lane has room to spare.
    pub(crate) fn of_spare(lane: &Arc<Lane>, bytes: u64) -> Option<Charge> {
        let is_taken = lane.stats().charge_spare(bytes);
        is_taken.then(|| Charge { lane: Arc::clone(lane), bytes, is_spare: true })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.lane.stats().bytes_released(self.bytes);
        if self.is_spare {
            self.lane.stats().spare_released(self.bytes);
        }
    }
}

impl Packed {
    /// What was packed before, or what `pack` makes now.
    pub(crate) fn get_or_pack(
        &self,
        pack: impl FnOnce() -> Result<Vec<Bytes>, String>,
    ) -> Result<Vec<Bytes>, String> {
        if let Some(pieces) = &*self.0.borrow() {
            return Ok(pieces.clone());
        }
        let pieces = pack()?;
        self.0.replace(Some(pieces.clone()));
        Ok(pieces)
    }

    pub(crate) fn bytes(&self) -> u64 {
        let pieces = self.0.borrow();
        pieces.iter().flatten().map(|piece| piece.len() as u64).sum()
    }

    pub(crate) fn forget(&self) {
        self.0.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_packed_once_until_what_it_was_packed_into_is_forgotten() {
        let (packed, mut times) = (Packed::default(), 0);
        let mut pack = || {
            packed.get_or_pack(|| {
                times += 1;
                Ok(vec![Bytes::from(vec![times; 3])])
            })
        };
        assert_eq!(pack(), Ok(vec![Bytes::from_static(&[1; 3])]));
        assert_eq!(pack(), Ok(vec![Bytes::from_static(&[1; 3])]), "not again");
        assert_eq!(packed.bytes(), 3);
        packed.forget();
        assert_eq!(packed.bytes(), 0);
        assert_eq!(packed.get_or_pack(|| Err("full".to_owned())), Err("full".to_owned()));
        assert_eq!(packed.bytes(), 0, "what failed is not kept");
    }
}
