//! Any chain, compressed at any level, comes back; a level that does not exist is refused.
#![no_main]

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use libfuzzer_sys::fuzz_target;

const ENCODINGS: [Encoding; 7] = [
    Encoding::Gzip,
    Encoding::Zlib,
    Encoding::Zstd,
    Encoding::Snappy,
    Encoding::SnappyFramed,
    Encoding::Lz4,
    Encoding::Identity,
];

fuzz_target!(|input: &[u8]| {
    let [encoding, level, cut, content @ ..] = input else { return };
    let encoding = ENCODINGS[usize::from(*encoding) % ENCODINGS.len()];
    // The highest levels of zstd take more memory and time than a fuzzer has.
    let level = i32::from(*level as i8).min(12);
    let cut = usize::from(*cut).min(content.len());
    let chain = [&content[..cut], &[], &content[cut..]].map(Bytes::copy_from_slice);
    let Ok(packed) = Compressor::new().compress(encoding, Some(level), &chain) else { return };
    let output = forebay_fuzz::decompress(encoding, &packed, content.len());
    assert_eq!(output.as_deref(), Some(content));
});
