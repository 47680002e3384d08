//! Any bytes as snappy_framed: refused, or decoded within the limit.
#![no_main]

use forebay_codec::compress::Encoding;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    forebay_fuzz::decompress(Encoding::SnappyFramed, input, forebay_fuzz::BYTES_MAX);
});
