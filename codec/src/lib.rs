//! OTLP bytes and their meaning: check, splice, split, JSON, compression, answers.
//!
//! Never does I/O, never reads a clock, never starts a thread: bytes in, bytes or verdicts out.
//!
//! Always
//! - No input can panic it or make it recurse deeper than [`check::DEPTH_MAX`].
//! - What came in is what goes out: unknown fields survive, and bytes are cut, not decoded and
//!   written anew. Only `edit` and `mend` write: what they change, and the lengths around it.

pub mod check;
pub mod compress;
pub mod edit;
mod gather;
pub mod hash;
pub mod json;
pub mod mend;
mod rope;
pub mod schema;
pub mod signal;
pub mod splice;
pub mod split;
pub mod status;
pub mod view;
pub mod wire;
