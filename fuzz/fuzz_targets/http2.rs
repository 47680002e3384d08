//! Any frames as HTTP/2: the same requests however they are cut, and the same to the h2 crate.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::http2::check(input));
