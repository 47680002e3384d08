//! Any bytes as HTTP/1.1: the same requests however they are cut, and the same to hyper.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::http1::check(input));
