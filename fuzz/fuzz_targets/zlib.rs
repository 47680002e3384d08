//! Any bytes as zlib or raw deflate: refused, or decoded within the limit, to what another decoder
//! reads.
#![no_main]

use std::io::Read;

use flate2::read::ZlibDecoder;
use forebay_codec::compress::Encoding;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(output) = forebay_fuzz::decompress(Encoding::Zlib, input, forebay_fuzz::BYTES_MAX) {
        let mut theirs = Vec::new();
        if ZlibDecoder::new(input).read_to_end(&mut theirs).is_ok() {
            assert_eq!(output, theirs);
        }
    }
});
