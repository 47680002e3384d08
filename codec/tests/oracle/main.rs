//! The codec against prost: requests at random, legal and broken, and prost says what they mean.
//!
//! The oracle is the published crate `opentelemetry-proto`, which knows nothing of this one. Every
//! test prints the seed of the case that failed; `case(seed)` alone makes it again.

mod agreement;
mod canonical;
mod cutting;
mod decoded;
mod editing;
mod generate;
mod json;
mod mangle;
mod text;
mod verdict;
mod viewing;
