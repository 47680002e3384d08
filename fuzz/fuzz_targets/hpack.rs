//! Any bytes as header blocks: another decoder reads the same fields, and finds the same faults.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::hpack::check(input));
