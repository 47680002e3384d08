//! Decoding: each format's whole stream into one `Vec`, bounded while it is made.
//!
//! A stream that says how large its content is gets an output of just that size. For one that does
//! not, the size is guessed from how much the streams before it grew, and a guess that is too low
//! is doubled. What a stream says is a hint, never a promise: it gets no more memory than the bytes
//! that really came could fill, as a rule, and never more than the limit.

use std::io::{self, Read};

use libdeflater::DecompressionError;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{self, DCtx};

use super::{DecompressError, Encoding};

/// Decoders with their tables, one per core, used again for each request.
pub struct Decompressor {
    deflate: libdeflater::Decompressor,
    zstd: DCtx<'static>,
    snappy: snap::raw::Decoder,
    /// How many times larger than its input an output of unknown size is expected to be.
    growth: usize,
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Decompressor {
    pub fn new() -> Self {
        Self {
            deflate: libdeflater::Decompressor::new(),
            zstd: DCtx::create(),
            snappy: snap::raw::Decoder::new(),
            growth: GROWTH_MIN,
        }
    }

    /// Decodes all of `input`: every member of a gzip stream, every frame of a zstd or lz4 one.
    /// `bytes_max` bounds the output; 0 allows only an empty one. No bytes at all are a valid
    /// `Identity` and corrupt in every other encoding.
    pub fn decompress(
        &mut self,
        encoding: Encoding,
        input: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<u8>, DecompressError> {
        let output = match encoding {
            Encoding::Identity => identity(input, bytes_max),
            _ if input.is_empty() => Err(Failure::corrupt("there are no bytes")),
            Encoding::Gzip => self.gzip(input, bytes_max),
            Encoding::Zlib => self.zlib(input, bytes_max),
            Encoding::Zstd => self.zstd(input, bytes_max),
            Encoding::Snappy if input.starts_with(SNAPPY_MAGIC) => snappy_framed(input, bytes_max),
            Encoding::Snappy => self.snappy(input, bytes_max),
            Encoding::SnappyFramed => snappy_framed(input, bytes_max),
            Encoding::Lz4 => lz4(input, bytes_max),
        };
        match output {
            Ok(output) => Ok(without_slack(output)),
            Err(Failure::TooLarge) => Err(DecompressError::TooLarge { bytes_max }),
            Err(Failure::Corrupt(reason)) => Err(DecompressError::Corrupt { encoding, reason }),
        }
    }

    /// A gzip stream ends with its length, so that libdeflate can decode it in one go. It decodes
    /// one member and does not say where that ended, only that its length stands behind it: where
    /// those four bytes are found first at the very end, there the member ends too. All else, rare
    /// as it is, streams.
    fn gzip(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let Some(length) = input.last_chunk() else {
            return Err(Failure::corrupt("the stream is cut off"));
        };
        let declared = u32::from_le_bytes(*length) as usize;
        if declared > input.len().saturating_mul(DEFLATE_GROWTH_MAX).min(bytes_max) {
            return gzip_members(input, bytes_max);
        }
        let mut output = vec![0; declared + DEFLATE_OUTPUT_SLACK];
        match self.deflate.gzip_decompress(input, &mut output) {
            Ok(bytes) if bytes == declared && is_first_at_the_end(length, input) => {
                output.truncate(declared);
                Ok(output)
            }
            Ok(_) | Err(DecompressionError::InsufficientSpace) => gzip_members(input, bytes_max),
            Err(DecompressionError::BadData) => {
                Err(Failure::corrupt("the stream is damaged or cut off"))
            }
        }
    }

    /// As with gzip, but the length is not known, and a checksum stands at the end.
    fn zlib(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        if !has_zlib_header(input) {
            return one_stream(input, bytes_max, false);
        }
        let output = with_room(self.guess(input), bytes_max, |room| {
            let mut output = vec![0; room];
            match self.deflate.zlib_decompress(input, &mut output) {
                Ok(bytes) => {
                    output.truncate(bytes);
                    Ok(Some(output))
                }
                Err(DecompressionError::InsufficientSpace) => Ok(None),
                Err(DecompressionError::BadData) => {
                    Err(Failure::corrupt("the stream is damaged or cut off"))
                }
            }
        })?;
        self.learn(input, &output);
        let checksum = libdeflater::adler32(&output).to_be_bytes();
        match input.ends_with(&checksum) && is_first_at_the_end(&checksum, input) {
            true => Ok(output),
            false => one_stream(input, bytes_max, true),
        }
    }

    /// Frames are decoded straight into the output, so that the window that one asks for costs
    /// nothing.
    fn zstd(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let declared = zstd_safe::get_frame_content_size(input).ok().flatten();
        if declared.is_some_and(|declared| declared > bytes_max as u64) {
            return Err(Failure::TooLarge);
        }
        let plausible = input.len().saturating_mul(ZSTD_GROWTH_USUAL).max(ZSTD_BLOCK_BYTES_MAX);
        let first = match declared {
            Some(declared) => plausible.min(declared as usize),
            None => self.guess(input),
        };
        let output = with_room(first, bytes_max, |room| {
            let mut output = Vec::with_capacity(room);
            match self.zstd.decompress(&mut output, input) {
                Ok(_) => Ok(Some(output)),
                Err(ZSTD_OUTPUT_TOO_SMALL) => Ok(None),
                Err(code) => Err(Failure::corrupt(zstd_safe::get_error_name(code))),
            }
        })?;
        self.learn(input, &output);
        Ok(output)
    }

    fn snappy(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let declared = snap::raw::decompress_len(input).map_err(Failure::corrupt)?;
        if declared > bytes_max {
            return Err(Failure::TooLarge);
        }
        // Three input bytes make at most 64 output bytes, so a larger claim cannot be true.
        if declared / 64 > input.len() {
            return Err(Failure::corrupt("the declared length is not in the input"));
        }
        self.snappy.decompress_vec(input).map_err(Failure::corrupt)
    }

    /// Room for an output of unknown size.
    fn guess(&self, input: &[u8]) -> usize {
        input.len().saturating_mul(self.growth)
    }

    /// Grows with what comes, and forgets slowly: a guess too low costs a second attempt.
    fn learn(&mut self, input: &[u8], output: &[u8]) {
        let growth = output.len().div_ceil(input.len().max(1));
        self.growth = growth.max(self.growth - 1).clamp(GROWTH_MIN, GROWTH_MAX);
    }
}

fn identity(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    match input.len() > bytes_max {
        true => Err(Failure::TooLarge),
        false => Ok(input.to_vec()),
    }
}

fn gzip_members(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let members = flate2::read::MultiGzDecoder::new(input);
    streamed(members, first_bytes(input, bytes_max), bytes_max)
}

/// A deflate stream with or without what zlib puts around it, and nothing behind it.
fn one_stream(input: &[u8], bytes_max: usize, is_zlib: bool) -> Result<Vec<u8>, Failure> {
    let mut rest = input;
    let first = first_bytes(input, bytes_max);
    let output = match is_zlib {
        true => streamed(flate2::bufread::ZlibDecoder::new(&mut rest), first, bytes_max),
        false => streamed(flate2::bufread::DeflateDecoder::new(&mut rest), first, bytes_max),
    }?;
    match rest.is_empty() {
        true => Ok(output),
        false => Err(Failure::corrupt("bytes follow the end of the stream")),
    }
}

fn snappy_framed(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let frames = snap::read::FrameDecoder::new(input);
    streamed(frames, first_bytes(input, bytes_max), bytes_max)
}

/// The frames are walked before they are decoded: the decoder itself takes a stream that is cut
/// off between two blocks for whole.
fn lz4(mut input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut output = Vec::with_capacity(first_bytes(input, bytes_max));
    for _ in 0..LZ4_FRAMES_MAX {
        let frame = lz4_frame(input).ok_or_else(|| Failure::corrupt("a frame is cut off"))?;
        let (now, later) = input.split_at(frame.bytes);
        if !frame.skippable {
            let mut decoder = lz4_flex::frame::FrameDecoder::new(now);
            // An empty block reads as an end; the frame ends where its bytes do.
            while !decoder.get_ref().is_empty() {
                let room = bytes_max.saturating_sub(output.len()) as u64;
                let limited = &mut (&mut decoder).take(room.saturating_add(1));
                limited.read_to_end(&mut output).map_err(Failure::of_stream)?;
                if output.len() > bytes_max {
                    return Err(Failure::TooLarge);
                }
            }
        }
        input = later;
        if input.is_empty() {
            return Ok(output);
        }
    }
    Err(Failure::Corrupt(format!("more than {LZ4_FRAMES_MAX} frames")))
}

struct Lz4Frame {
    bytes: usize,
    skippable: bool,
}

/// Where the frame at the start of `input` ends, or `None` if it does not.
/// Source: the LZ4 frame format description, version 1.6.
fn lz4_frame(input: &[u8]) -> Option<Lz4Frame> {
    let word = |at: usize| {
        let bytes = input.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    if word(0)? & 0xffff_fff0 == LZ4_SKIPPABLE_MAGIC {
        let bytes = 8 + word(4)? as usize;
        return (bytes <= input.len()).then_some(Lz4Frame { bytes, skippable: true });
    }
    if word(0)? != LZ4_MAGIC {
        return None;
    }
    let flags = *input.get(4)?;
    let bytes_if = |bit: u8, bytes: usize| if flags & (1 << bit) == 0 { 0 } else { bytes };
    let (block_checksum, content_checksum) = (bytes_if(4, 4), bytes_if(2, 4));
    let mut at = 7 + bytes_if(3, 8) + bytes_if(0, 4);
    loop {
        let block = word(at)?;
        at += 4;
        if block == 0 {
            let bytes = at + content_checksum;
            return (bytes <= input.len()).then_some(Lz4Frame { bytes, skippable: false });
        }
        // The highest bit says "not compressed".
        at += (block & 0x7fff_ffff) as usize + block_checksum;
    }
}

/// Decodes into ever more room, until the output fits or must not be larger.
/// `decode` gives `None` for "too little room".
fn with_room(
    first: usize,
    bytes_max: usize,
    mut decode: impl FnMut(usize) -> Result<Option<Vec<u8>>, Failure>,
) -> Result<Vec<u8>, Failure> {
    let mut room = first.min(bytes_max);
    loop {
        match decode(room)? {
            Some(output) => return Ok(output),
            None if room == bytes_max => return Err(Failure::TooLarge),
            None => room = room.saturating_mul(2).max(1).min(bytes_max),
        }
    }
}

/// Whether the four bytes that `input` ends with stand nowhere else in it.
fn is_first_at_the_end(end: &[u8; 4], input: &[u8]) -> bool {
    memchr::memmem::find(&input[..input.len() - 1], end).is_none()
}

fn streamed(source: impl Read, first_bytes: usize, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut output = Vec::with_capacity(first_bytes);
    let mut limited = source.take((bytes_max as u64).saturating_add(1));
    limited.read_to_end(&mut output).map_err(Failure::of_stream)?;
    match output.len() > bytes_max {
        true => Err(Failure::TooLarge),
        false => Ok(output),
    }
}

fn first_bytes(input: &[u8], bytes_max: usize) -> usize {
    input.len().saturating_mul(GROWTH_MIN).min(bytes_max)
}

/// RFC 1950: method 8, and the first two bytes are a multiple of 31.
fn has_zlib_header(input: &[u8]) -> bool {
    matches!(input, [cmf, flg, ..]
        if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)).is_multiple_of(31))
}

/// A request may live in a batch for a while; it must not hold memory that it does not use.
fn without_slack(mut output: Vec<u8>) -> Vec<u8> {
    if output.capacity() - output.len() > output.capacity() / 4 {
        output.shrink_to_fit();
    }
    output
}

enum Failure {
    TooLarge,
    Corrupt(String),
}

impl Failure {
    fn corrupt(reason: impl ToString) -> Self {
        Failure::Corrupt(reason.to_string())
    }

    fn of_stream(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::corrupt("the stream is cut off"),
            _ => Failure::corrupt(error),
        }
    }
}

/// libdeflate writes ahead while it has this much room, and goes byte by byte when it has less.
const DEFLATE_OUTPUT_SLACK: usize = 320;
/// How much deflate can grow at most: 258 bytes from two bits.
const DEFLATE_GROWTH_MAX: usize = 1032;
const SNAPPY_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";
const LZ4_MAGIC: u32 = 0x184d_2204;
const LZ4_SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// Each frame costs a decoder with buffers of its own; nobody sends a request in this many.
const LZ4_FRAMES_MAX: usize = 1024;
/// Frames that say they grow more are first taken for liars, and cost another attempt if not.
const ZSTD_GROWTH_USUAL: usize = 64;
const ZSTD_BLOCK_BYTES_MAX: usize = 128 << 10;
const ZSTD_OUTPUT_TOO_SMALL: usize =
    (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg();
const GROWTH_MIN: usize = 4;
const GROWTH_MAX: usize = 16;
