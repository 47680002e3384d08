//! Compression beside the libraries that make it: there and back, as a receiver and an exporter
//! meet it.
//!
//! Both sides decode into an output of their own, which is what an engine keeps. The libraries are
//! told its size before; forebay must find it in the stream, or guess.

use std::io::{Read, Write};

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Decompressor, Encoding};

use crate::timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

const BYTES_MAX: usize = 64 << 20;

pub(crate) fn run(session: &mut Session, bytes: &[u8]) {
    let chain: Vec<Bytes> = bytes.chunks(4_000).map(Bytes::copy_from_slice).collect();
    let gzip_bar = Bar::Ratio(1.0);
    unpacking(session, "gzip in, 100 spans", Encoding::Gzip, &gzip(&chain), bytes.len(), gzip_bar);
    for (name, packed) in [
        ("zstd in, 100 spans", zstd(&chain)),
        ("zstd in, 100 spans, size told", zstd::bulk::compress(bytes, 3).expect("to memory")),
    ] {
        unpacking(session, name, Encoding::Zstd, &packed, bytes.len(), Bar::None);
    }
    packing(session, "gzip out, 100 spans in 10 parts", Encoding::Gzip, &chain);
    packing(session, "zstd out, 100 spans in 10 parts", Encoding::Zstd, &chain);
}

fn unpacking(
    session: &mut Session,
    name: &'static str,
    encoding: Encoding,
    packed: &[u8],
    size: usize,
    bar: Bar,
) {
    let unpack = |decompressor: &mut Decompressor| {
        decompressor.decompress(encoding, packed, BYTES_MAX).expect("the library packed it")
    };
    let told = |bytes: Vec<u8>| Outcome::of(bytes.len() as u64, &bytes);
    let (mut ours, mut ours_told) = (Decompressor::new(), Decompressor::new());
    let (mut theirs, mut theirs_told) = (Unpacker::new(encoding), Unpacker::new(encoding));
    session.run(Contest {
        name,
        unit: "byte",
        bytes: size as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "Decompressor",
            work: Box::new(|| unpack(&mut ours).len() as u64),
            outcome: Box::new(|| told(unpack(&mut ours_told))),
        },
        theirs: Contender {
            name: if encoding == Encoding::Gzip { "libdeflate" } else { "zstd bulk" },
            work: Box::new(|| theirs.unpack(packed, size).len() as u64),
            outcome: Box::new(|| told(theirs_told.unpack(packed, size))),
        },
        bar,
    });
}

/// The decoders of the libraries, kept between calls, as those that use them well do.
enum Unpacker {
    Gzip(libdeflater::Decompressor),
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl Unpacker {
    fn new(encoding: Encoding) -> Unpacker {
        match encoding {
            Encoding::Gzip => Unpacker::Gzip(libdeflater::Decompressor::new()),
            _ => Unpacker::Zstd(zstd::bulk::Decompressor::new().expect("memory for a decoder")),
        }
    }

    /// `size` is that of the output, which these must be told.
    fn unpack(&mut self, packed: &[u8], size: usize) -> Vec<u8> {
        match self {
            Unpacker::Gzip(libdeflate) => {
                let mut output = vec![0; size];
                let written = libdeflate.gzip_decompress(packed, &mut output);
                assert_eq!(written, Ok(size));
                output
            }
            Unpacker::Zstd(zstd) => zstd.decompress(packed, size).expect("it packed it"),
        }
    }
}

fn packing(session: &mut Session, name: &'static str, encoding: Encoding, chain: &[Bytes]) {
    let is_gzip = encoding == Encoding::Gzip;
    let library = |chain: &[Bytes]| if is_gzip { gzip(chain) } else { zstd(chain) };
    let pack = |compressor: &mut Compressor| {
        compressor.compress(encoding, None, chain).expect("the usual level")
    };
    // Two encoders of one format need not write the same bytes; what comes out must be one.
    let told = |packed: &[u8]| {
        let mut bytes = Vec::new();
        match is_gzip {
            true => flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes),
            false => zstd::stream::read::Decoder::new(packed)
                .and_then(|mut decoder| decoder.read_to_end(&mut bytes)),
        }
        .expect("what was packed can be unpacked");
        Outcome::of(bytes.len() as u64, &bytes)
    };
    let input = chain.iter().map(|part| part.len() as u64).sum();
    let (mut ours, mut ours_told) = (Compressor::new(), Compressor::new());
    let packed_told = pack(&mut ours_told);
    let sizes = (packed_told.len(), library(chain).len());
    assert!(sizes.0 * 10 <= sizes.1 * 11, "{encoding}: larger than the library's: {sizes:?}");
    session.run(Contest {
        name,
        unit: "byte",
        bytes: input,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "Compressor",
            work: Box::new(|| {
                std::hint::black_box(pack(&mut ours));
                input
            }),
            outcome: Box::new(|| told(&packed_told)),
        },
        theirs: Contender {
            name: if is_gzip { "flate2 on zlib-rs, level 6" } else { "zstd stream, level 3" },
            work: Box::new(|| {
                std::hint::black_box(library(chain));
                input
            }),
            outcome: Box::new(|| told(&library(chain))),
        },
        bar: Bar::None,
    });
}

fn gzip(chain: &[Bytes]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    chain.iter().for_each(|part| encoder.write_all(part).expect("to memory"));
    encoder.finish().expect("to memory")
}

fn zstd(chain: &[Bytes]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("level 3 exists");
    chain.iter().for_each(|part| encoder.write_all(part).expect("to memory"));
    encoder.finish().expect("to memory")
}
