//! Any frames as a server's: each call ends once, the same way however they are cut, and boundedly.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::http2_client::check(input));
