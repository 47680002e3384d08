//! Every format there and back, bombs, cut-off and stray bytes, and other people's streams.

use std::io::Write;

use bytes::Bytes;

use super::*;

const COMPRESSED: [Encoding; 6] = [
    Encoding::Gzip,
    Encoding::Zlib,
    Encoding::Zstd,
    Encoding::Snappy,
    Encoding::SnappyFramed,
    Encoding::Lz4,
];
const MIB: usize = 1 << 20;

/// Text-like bytes that compress about threefold.
fn sample(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..bytes).map(|_| b"abcdefgh  \n{}"[random.usize(..13)]).collect()
}

fn compressed(encoding: Encoding, content: &[u8]) -> Vec<u8> {
    let chain = [Bytes::copy_from_slice(content)];
    Compressor::new().compress(encoding, None, &chain).unwrap()
}

#[test]
fn s1_every_encoding_comes_back_whatever_the_seams_and_the_level() {
    let mut compressor = Compressor::new();
    let mut decompressor = Decompressor::new();
    for (seed, bytes) in [(1, 0), (2, 1), (3, 127), (4, 5_000), (5, 200_000), (6, 3 * MIB)] {
        let content = sample(seed, bytes);
        let whole = Bytes::from(content.clone());
        let third = bytes / 3;
        let chain = [whole.slice(..third), Bytes::new(), whole.slice(third..)];
        for encoding in COMPRESSED.into_iter().chain([Encoding::Identity]) {
            for level in [None, Some(1), Some(9)] {
                let input = compressor.compress(encoding, level, &chain).unwrap();
                let output = decompressor.decompress(encoding, &input, bytes);
                assert_eq!(output.as_ref(), Ok(&content), "{encoding} of {bytes} bytes");
            }
        }
    }
}

#[test]
fn s6_output_is_bounded_to_the_byte_in_every_encoding() {
    let mut decompressor = Decompressor::new();
    let content = sample(7, 100_000);
    for encoding in COMPRESSED.into_iter().chain([Encoding::Identity]) {
        let input = compressed(encoding, &content);
        for bytes_max in [0, 1, 99_999] {
            let refused = decompressor.decompress(encoding, &input, bytes_max);
            assert_eq!(refused, Err(DecompressError::TooLarge { bytes_max }), "{encoding}");
        }
        let taken = decompressor.decompress(encoding, &input, 100_000);
        assert_eq!(taken.as_ref(), Ok(&content), "{encoding}");
    }
}

#[test]
fn s6_a_bomb_is_too_large_in_every_encoding() {
    let zeros = vec![0; 64 * MIB];
    let mut decompressor = Decompressor::new();
    for encoding in COMPRESSED {
        let bomb = compressed(encoding, &zeros);
        let refused = decompressor.decompress(encoding, &bomb, MIB);
        assert_eq!(refused, Err(DecompressError::TooLarge { bytes_max: MIB }), "{encoding}");
    }
}

#[test]
fn s6_a_gzip_bomb_that_lies_about_its_length_is_refused_too() {
    let mut bomb = compressed(Encoding::Gzip, &vec![0; 8 * MIB]);
    let trailer = bomb.len() - 4;
    bomb[trailer..].copy_from_slice(&[1, 0, 0, 0]);
    let refused = Decompressor::new().decompress(Encoding::Gzip, &bomb, MIB);
    assert_eq!(refused, Err(DecompressError::TooLarge { bytes_max: MIB }));
    let refused = Decompressor::new().decompress(Encoding::Gzip, &bomb, 16 * MIB);
    assert!(matches!(refused, Err(DecompressError::Corrupt { .. })));
}

#[test]
fn s6_a_bomb_of_many_gzip_members_is_refused() {
    let member = compressed(Encoding::Gzip, &vec![0; MIB]);
    let refused = Decompressor::new().decompress(Encoding::Gzip, &member.repeat(64), 2 * MIB);
    assert_eq!(refused, Err(DecompressError::TooLarge { bytes_max: 2 * MIB }));
}

#[test]
fn all_members_and_frames_count_even_when_they_are_equal() {
    let mut decompressor = Decompressor::new();
    for encoding in [Encoding::Gzip, Encoding::Zstd, Encoding::Lz4, Encoding::SnappyFramed] {
        let one = compressed(encoding, b"twice");
        let output = decompressor.decompress(encoding, &one.repeat(2), 100);
        assert_eq!(output, Ok(b"twicetwice".to_vec()), "{encoding}");
    }
}

#[test]
fn skippable_frames_are_skipped() {
    let skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc";
    for encoding in [Encoding::Zstd, Encoding::Lz4] {
        let data = compressed(encoding, b"data");
        let input = [skippable, &*data, skippable].concat();
        let output = Decompressor::new().decompress(encoding, &input, 100);
        assert_eq!(output, Ok(b"data".to_vec()), "{encoding}");
    }
}

#[test]
fn a_stream_that_is_cut_off_anywhere_is_corrupt() {
    let mut decompressor = Decompressor::new();
    let content = sample(8, 300);
    for encoding in COMPRESSED {
        let input = compressed(encoding, &content);
        // The framed snappy stream has no end mark, so it is whole behind each of its chunks.
        let whole_before_its_end = |cut| encoding == Encoding::SnappyFramed && cut == 10;
        for cut in (0..input.len()).filter(|&cut| !whole_before_its_end(cut)) {
            let refused = decompressor.decompress(encoding, &input[..cut], MIB);
            let corrupt = matches!(refused, Err(DecompressError::Corrupt { .. }));
            assert!(corrupt, "{encoding} cut at {cut} of {}: {refused:?}", input.len());
        }
        // The decoder works again after an error.
        assert_eq!(decompressor.decompress(encoding, &input, MIB).as_ref(), Ok(&content));
    }
}

#[test]
fn an_lz4_stream_of_many_blocks_that_is_cut_between_two_is_corrupt() {
    let content = sample(9, 300_000);
    let mut info = lz4_flex::frame::FrameInfo::new();
    info.block_size = lz4_flex::frame::BlockSize::Max64KB;
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&content).unwrap();
    let input = encoder.finish().unwrap();
    let mut decompressor = Decompressor::new();
    assert_eq!(decompressor.decompress(Encoding::Lz4, &input, MIB).as_ref(), Ok(&content));
    let first_block = u32::from_le_bytes(input[7..11].try_into().unwrap()) & 0x7fff_ffff;
    let refused = decompressor.decompress(Encoding::Lz4, &input[..11 + first_block as usize], MIB);
    assert!(matches!(refused, Err(DecompressError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn a_stray_tail_is_corrupt() {
    let mut decompressor = Decompressor::new();
    for encoding in COMPRESSED {
        let mut input = compressed(encoding, b"some content");
        input.extend_from_slice(b"tail");
        let refused = decompressor.decompress(encoding, &input, MIB);
        assert!(matches!(refused, Err(DecompressError::Corrupt { .. })), "{encoding}: {refused:?}");
    }
}

#[test]
fn no_bytes_are_corrupt_but_for_identity() {
    for encoding in COMPRESSED {
        let refused = Decompressor::new().decompress(encoding, b"", MIB);
        let reason = "there are no bytes".to_owned();
        assert_eq!(refused, Err(DecompressError::Corrupt { encoding, reason }));
    }
    assert_eq!(Decompressor::new().decompress(Encoding::Identity, b"", 0), Ok(Vec::new()));
}

#[test]
fn random_damage_never_panics_and_never_passes_a_format_with_checksums() {
    let seed = 42;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut decompressor = Decompressor::new();
    let content = sample(seed, 2_000);
    for encoding in COMPRESSED {
        let whole = compressed(encoding, &content);
        for round in 0..1_500 {
            let mut input = whole.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..input.len());
                input[at] = random.u8(..);
            }
            let output = decompressor.decompress(encoding, &input, 10_000);
            // gzip and zlib headers, and both snappy formats, have bits that nobody checks.
            if matches!(encoding, Encoding::Gzip | Encoding::SnappyFramed) {
                let unharmed = output.is_err() || output.as_ref() == Ok(&content);
                assert!(unharmed, "{encoding}, seed {seed}, round {round}");
            }
        }
    }
}

#[test]
fn a_snappy_block_cannot_declare_more_than_its_bytes_can_hold() {
    let claim = b"\xff\xff\xff\x1fabc";
    let refused = Decompressor::new().decompress(Encoding::Snappy, claim, 1 << 30);
    assert!(matches!(refused, Err(DecompressError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn the_name_snappy_over_http_takes_blocks_and_frames() {
    let framed = compressed(Encoding::SnappyFramed, b"framed");
    let output = Decompressor::new().decompress(Encoding::Snappy, &framed, 100);
    assert_eq!(output, Ok(b"framed".to_vec()));
}

#[test]
fn the_name_deflate_takes_zlib_and_raw_deflate() {
    let zlib = compressed(Encoding::Zlib, b"either way");
    let raw = &zlib[2..zlib.len() - 4];
    for input in [&zlib, raw] {
        let output = Decompressor::new().decompress(Encoding::Zlib, input, 100);
        assert_eq!(output, Ok(b"either way".to_vec()));
    }
}

#[test]
fn a_zstd_window_larger_than_the_limit_costs_nothing_and_passes() {
    let content = sample(10, MIB);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&content).unwrap();
    let input = encoder.finish().unwrap();
    let output = Decompressor::new().decompress(Encoding::Zstd, &input, MIB);
    assert_eq!(output, Ok(content));
}

#[test]
fn the_end_of_a_stream_is_found_where_its_last_bytes_stand_elsewhere_too() {
    let mut decompressor = Decompressor::new();
    for encoding in [Encoding::Gzip, Encoding::Zlib] {
        // Without compression, what the content repeats is in the stream as it is.
        let plain = Compressor::new().compress(encoding, Some(0), &[Bytes::from_static(b"abcd")]);
        let plain = plain.unwrap();
        let end = &plain[plain.len() - 4..];
        for content in [vec![], vec![0; 8], vec![4, 0, 0, 0], end.to_vec()] {
            let chain = [Bytes::from(content.clone())];
            let mut input = Compressor::new().compress(encoding, Some(0), &chain).unwrap();
            let output = decompressor.decompress(encoding, &input, MIB);
            assert_eq!(output.as_ref(), Ok(&content), "{encoding}");
            // A tail that looks like the end: the same checksum and length once more.
            let tail = input[input.len() - 8..].to_vec();
            for tail in [&tail[..], &tail[4..]] {
                input.extend_from_slice(tail);
                let refused = decompressor.decompress(encoding, &input, MIB);
                let corrupt = matches!(refused, Err(DecompressError::Corrupt { .. }));
                assert!(corrupt, "{encoding}: {refused:?}");
            }
        }
    }
}

#[test]
fn what_grows_a_thousandfold_comes_back_in_every_encoding_and_so_does_what_follows() {
    let (zeros, small) = (vec![0; 3 * MIB], sample(12, 3_000));
    let mut decompressor = Decompressor::new();
    for encoding in COMPRESSED {
        for content in [&zeros, &small, &zeros] {
            let input = compressed(encoding, content);
            let output = decompressor.decompress(encoding, &input, 3 * MIB);
            assert!(output.as_ref() == Ok(content), "{encoding} of {} bytes", content.len());
        }
    }
}

#[test]
fn members_of_equal_length_are_all_read() {
    let mut decompressor = Decompressor::new();
    let two = [compressed(Encoding::Gzip, b"one"), compressed(Encoding::Gzip, b"two")].concat();
    let output = decompressor.decompress(Encoding::Gzip, &two, 100);
    assert_eq!(output, Ok(b"onetwo".to_vec()));
}

#[test]
fn a_length_that_lies_gets_no_memory_for_it() {
    let gzip_of_nothing = compressed(Encoding::Gzip, b"");
    let mut gzip = gzip_of_nothing.clone();
    gzip.truncate(gzip_of_nothing.len() - 4);
    gzip.extend_from_slice(&(1u32 << 30).to_le_bytes());
    // A frame header that promises 1 GiB, and an empty last block.
    let zstd = b"\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x40\x01\x00\x00";
    for (encoding, input) in [(Encoding::Gzip, &gzip[..]), (Encoding::Zstd, zstd)] {
        let refused = Decompressor::new().decompress(encoding, input, 2 << 30);
        let corrupt = matches!(refused, Err(DecompressError::Corrupt { .. }));
        assert!(corrupt, "{encoding}: {refused:?}");
    }
}

#[test]
fn raw_deflate_that_is_cut_off_or_has_a_tail_is_corrupt() {
    let mut decompressor = Decompressor::new();
    let zlib = compressed(Encoding::Zlib, &sample(11, 300));
    let raw = &zlib[2..zlib.len() - 4];
    let with_tail = [raw, b"t"].concat();
    for input in (0..raw.len()).map(|cut| &raw[..cut]).chain([&with_tail[..]]) {
        let refused = decompressor.decompress(Encoding::Zlib, input, MIB);
        let corrupt = matches!(refused, Err(DecompressError::Corrupt { .. }));
        assert!(corrupt, "{} of {} bytes: {refused:?}", input.len(), raw.len());
    }
}

#[test]
fn gzip_with_every_header_field_is_read() {
    let mut encoder = flate2::GzBuilder::new()
        .filename("request")
        .comment("by hand")
        .extra(&b"extra"[..])
        .write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"content").unwrap();
    let input = encoder.finish().unwrap();
    let output = Decompressor::new().decompress(Encoding::Gzip, &input, 100);
    assert_eq!(output, Ok(b"content".to_vec()));
}

#[test]
fn levels_that_a_format_does_not_have_are_refused() {
    for (encoding, level) in [(Encoding::Gzip, 10), (Encoding::Zlib, -2), (Encoding::Zstd, 23)] {
        let refused = Compressor::new().compress(encoding, Some(level), &[]).unwrap_err();
        assert!(refused.to_string().contains(&format!("level {level} is not")), "{refused}");
    }
    assert!(Compressor::new().compress(Encoding::Gzip, Some(-1), &[]).is_ok());
}

#[test]
fn s1_names_are_read_in_any_case_and_written_as_peers_know_them() {
    for encoding in COMPRESSED.into_iter().chain([Encoding::Identity]) {
        assert_eq!(Encoding::from_http(encoding.http_name()), Some(encoding));
        if let Some(name) = encoding.grpc_name() {
            assert_eq!(Encoding::from_grpc(&name.to_uppercase()), Some(encoding));
        }
    }
    for name in ["", "identity", "none"] {
        assert_eq!(Encoding::from_http(name), Some(Encoding::Identity));
    }
    assert_eq!(Encoding::from_http("ZLib"), Some(Encoding::Zlib));
    assert_eq!(Encoding::from_grpc("snappy"), Some(Encoding::SnappyFramed));
    for name in ["br", "gzip, gzip", "x"] {
        assert_eq!((Encoding::from_http(name), Encoding::from_grpc(name)), (None, None));
    }
}
