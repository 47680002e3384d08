//! Measures forebay, and proves that nothing was lost while it did: load, sink, floor, reports.
//!
//! [`run`] starts the engine, a [`sink`] behind it and a [`load`] before it, each on its own cores,
//! and believes a figure only after the sink has accounted for every single item. [`floor`] moves
//! the same bytes without reading them: what any engine must pay on this machine.
//!
//! Always
//! - Items are counted where they arrive, by number, never where they are sent.
//! - CPU time is the kernel's account of the process; clocks are monotonic.
//! - A run that can't be trusted has no figures.

pub mod account;
pub mod certificates;
pub mod cli;
pub mod client;
pub mod compare;
pub mod control;
pub mod floor;
pub mod h1;
pub mod h2;
pub mod h3;
pub mod h3_service;
pub mod handshakes;
pub mod hpack;
pub mod items;
pub mod load;
pub mod lossy;
pub mod machine;
pub mod measure;
pub mod outbox;
pub mod payload;
pub mod process;
pub mod program;
pub mod report;
pub mod result;
pub mod run;
pub mod scenario;
pub mod sink;
pub mod summary;
pub mod syscalls;
pub mod target;
pub mod trust;
