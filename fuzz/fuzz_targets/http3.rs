//! Any bytes on any streams as HTTP/3: the same requests however they are cut, and nothing is kept.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::http3::check(input));
