//! Any bytes as gzip: refused, or decoded within the limit, to what another decoder reads.
#![no_main]

use std::io::Read;

use flate2::read::MultiGzDecoder;
use forebay_codec::compress::Encoding;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(output) = forebay_fuzz::decompress(Encoding::Gzip, input, forebay_fuzz::BYTES_MAX) {
        let mut theirs = Vec::new();
        let read = MultiGzDecoder::new(input).read_to_end(&mut theirs);
        // Header fields that nobody needs are not looked at by all.
        if read.is_ok() {
            assert_eq!(output, theirs);
        }
    }
});
