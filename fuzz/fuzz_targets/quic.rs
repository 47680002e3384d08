//! Real handshakes and requests over QUIC, bent on their way: bounded, and nothing is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::quic::check(input));
