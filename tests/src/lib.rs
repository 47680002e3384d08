//! What the end-to-end tests are made of: a running forebay, sinks behind it, requests for it.
//!
//! Every test starts the real program on free ports of the loopback and ends it with SIGTERM;
//! [`forebay::Process::stop`] asserts that the ledger balances, so no test can forget to.

pub mod dice;
pub mod forebay;
pub mod frames;
pub mod http3;
pub mod items;
pub mod papers;
pub mod recorder;
pub mod scene;
pub mod secure_peer;
pub mod sink;
pub mod wire;
