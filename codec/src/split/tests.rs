//! Shapes by hand; `tests/oracle/cutting.rs` compares random requests with prost.

use super::*;
