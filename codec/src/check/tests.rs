//! What the verdict says, case by case; `tests/oracle/verdict.rs` compares it with prost at random.
