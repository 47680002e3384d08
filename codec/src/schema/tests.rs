//! The tables keep the promises that the walkers rely on.
