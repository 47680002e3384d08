//! The bytes that one receiver core may hold: the bound of its memory, and the one place that
//! knows how full it is.
//!
//! A byte of a request is taken from the budget when it is kept, and given back when the last
//! destination is done with it.
//!
//! Always
//! - `taken_bytes <= bytes_max`.
//! - What was taken is given back exactly once; giving back more is our own mistake and stops us.

#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    taken_bytes: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, taken_bytes: 0 }
    }

    /// Takes `bytes`, or nothing if they don't fit.
    pub fn take(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes_max - self.taken_bytes {
            return false;
        }
        self.taken_bytes += bytes;
        true
    }

    pub fn give_back(&mut self, bytes: usize) {
        assert!(bytes <= self.taken_bytes, "more was given back than was taken");
        self.taken_bytes -= bytes;
    }

    pub fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.bytes_max - self.taken_bytes
    }

    pub fn taken_bytes(&self) -> usize {
        self.taken_bytes
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut budget = Budget::new(100);
        assert!(budget.take(60));
        assert!(!budget.take(41));
        assert!(budget.take(40) && !budget.has_room(1));
        budget.give_back(100);
        assert_eq!(budget.taken_bytes(), 0);
    }
}
