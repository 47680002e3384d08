//! Fleets that misbehave, in virtual time: the policy of delivery (breaker, balancer, retry budget,
//! retry clock, set of endpoints) as several exporter cores use it, against endpoints that die,
//! hang, reset, slow down, flap, refuse, lie, leave and return.
//!
//! Everything follows from a seed. `SEED=n cargo test -p forebay-exporters --test simulation` runs
//! each story with that one alone. Each story asserts in every run what [`world::World`] promises
//! (conservation, one probe at a time, the retry budget), and its own isolation and liveness.

#[cfg(test)]
mod server;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod world;
