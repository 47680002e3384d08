//! From batch to destination: OTLP out, file, debug, nop; pools and retry.
//!
//! `engine` makes one [`lane::Lane`] per destination and exporter core, offers batches to it and
//! hears of each batch's end exactly once through [`batch::Returns`]. Nothing here knows how a
//! batch came about, and nothing here drops one without saying so.
//!
//! The delivery policy stands by itself: a program that calls a fleet of its own needs
//! [`discovery`], [`endpoints`] with their [`breaker`]s, a [`balance::Balancer`], a
//! [`budget::RetryBudget`] and a [`dispatch::Dispatcher`], and nothing else of this crate. The
//! example `microservices_demo` puts them together, in its file `upstream.rs`.

pub mod balance;
pub mod batch;
pub mod breaker;
pub mod budget;
pub mod cluster;
pub mod core;
pub mod debug;
pub mod destination;
pub mod discovery;
pub mod dispatch;
pub mod endpoints;
pub mod lane;
pub mod retry;
pub mod stats;
pub mod verdict;
pub mod waiting;

mod charge;
mod checkup;
mod encode;
mod file;
mod held;
mod identity;
mod journal;
mod otlp_grpc;
mod otlp_http;
mod parts;
mod scribe;
mod sender;
mod transport;
