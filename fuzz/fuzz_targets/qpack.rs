//! Any bytes as field sections: read as a plain reading of the standard reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::qpack::check(input));
