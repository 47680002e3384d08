//! Decoding: each format's whole stream into one `Vec`, bounded while it grows.
//!
//! The first buffer is as large as the stream says its content is, or four times the input, and
//! never above the limit; it then doubles. A length from the wire is a hint, never a promise.

use std::io::{self, Read};

use libdeflater::{DecompressionError, crc32};
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::{DecompressError, Encoding};

/// Decoders with their tables, one per core, used again for each request.
pub struct Decompressor {
    deflate: libdeflater::Decompressor,
    zstd: DCtx<'static>,
    snappy: snap::raw::Decoder,
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Decompressor {
    pub fn new() -> Self {
        let mut zstd = DCtx::create();
        zstd.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
            .expect("23 lies within what every zstd allows");
        Self { deflate: libdeflater::Decompressor::new(), zstd, snappy: snap::raw::Decoder::new() }
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

    /// libdeflate decodes one member and does not say where it ended. So it gets what can only be
    /// one member, and its trailer must then be the end of the input; the rare rest streams.
    fn gzip(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let tail = input.get(GZIP_MAGIC.len()..).unwrap_or_default();
        if memchr::memmem::find(tail, GZIP_MAGIC).is_some() {
            return gzip_members(input, bytes_max);
        }
        // Deflate can't grow by more than 1032 times: a trailer that says so lies, and must not
        // cost the memory that it names.
        let most = input.len().saturating_mul(1032);
        let declared = input.last_chunk().map_or(0, |isize| u32::from_le_bytes(*isize) as usize);
        let declared = declared.min(most);
        let output = whole(input.len(), declared, bytes_max, |output| {
            self.deflate.gzip_decompress(input, output)
        })?;
        let mut trailer = [0; GZIP_TRAILER_BYTES];
        trailer[..4].copy_from_slice(&crc32(&output).to_le_bytes());
        trailer[4..].copy_from_slice(&(output.len() as u32).to_le_bytes());
        match input.ends_with(&trailer) {
            true => Ok(output),
            false => Err(Failure::corrupt("bytes follow the end of the stream")),
        }
    }

    fn zlib(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        if !has_zlib_header(input) {
            return whole(input.len(), 0, bytes_max, |output| {
                self.deflate.deflate_decompress(input, output)
            });
        }
        let output =
            whole(input.len(), 0, bytes_max, |output| self.deflate.zlib_decompress(input, output))?;
        match input.ends_with(&libdeflater::adler32(&output).to_be_bytes()) {
            true => Ok(output),
            false => Err(Failure::corrupt("bytes follow the end of the stream")),
        }
    }

    fn zstd(&mut self, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let declared = zstd_safe::get_frame_content_size(input).ok().flatten().unwrap_or(0);
        if declared > bytes_max as u64 {
            return Err(Failure::TooLarge);
        }
        self.zstd.reset(ResetDirective::SessionOnly).map_err(zstd_failure)?;
        let mut output = Vec::with_capacity(first_bytes(input.len(), declared as usize, bytes_max));
        let mut source = InBuffer::around(input);
        loop {
            let filled = output.len();
            if filled > bytes_max {
                return Err(Failure::TooLarge);
            }
            if filled == output.capacity() {
                // One byte beyond the limit tells "just fits" from "too large".
                let wanted = (filled * 2).clamp(1024, bytes_max.saturating_add(1).max(1024));
                output.reserve_exact(wanted - filled);
            }
            let taken = source.pos();
            let mut target = OutBuffer::around_pos(&mut output, filled);
            let missing = self.zstd.decompress_stream(&mut target, &mut source);
            let missing = missing.map_err(zstd_failure)?;
            if missing == 0 && source.pos() == input.len() {
                break;
            }
            let stuck = source.pos() == taken && output.len() == filled;
            if source.pos() == input.len() && output.len() < output.capacity() || stuck {
                return Err(Failure::corrupt("the stream is cut off"));
            }
        }
        match output.len() > bytes_max {
            true => Err(Failure::TooLarge),
            false => Ok(output),
        }
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
}

fn identity(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    match input.len() > bytes_max {
        true => Err(Failure::TooLarge),
        false => Ok(input.to_vec()),
    }
}

fn gzip_members(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let members = flate2::read::MultiGzDecoder::new(input);
    streamed(members, first_bytes(input.len(), 0, bytes_max), bytes_max)
}

fn snappy_framed(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let frames = snap::read::FrameDecoder::new(input);
    streamed(frames, first_bytes(input.len(), 0, bytes_max), bytes_max)
}

/// The frames are walked before they are decoded: the decoder itself takes a stream that is cut
/// off between two blocks for whole.
fn lz4(mut input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut output = Vec::with_capacity(first_bytes(input.len(), 0, bytes_max));
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

/// Runs a decoder that needs its whole output at once, with ever larger outputs.
fn whole(
    input_bytes: usize,
    declared: usize,
    bytes_max: usize,
    mut decode: impl FnMut(&mut [u8]) -> Result<usize, DecompressionError>,
) -> Result<Vec<u8>, Failure> {
    let mut output_bytes = first_bytes(input_bytes, declared, bytes_max);
    loop {
        let mut output = vec![0; output_bytes];
        match decode(&mut output) {
            Ok(bytes) => {
                output.truncate(bytes);
                return Ok(output);
            }
            Err(DecompressionError::InsufficientSpace) if output_bytes == bytes_max => {
                return Err(Failure::TooLarge);
            }
            Err(DecompressionError::InsufficientSpace) => {
                output_bytes = output_bytes.saturating_mul(2).clamp(1, bytes_max);
            }
            Err(DecompressionError::BadData) => {
                return Err(Failure::corrupt("the stream is damaged or cut off"));
            }
        }
    }
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

fn first_bytes(input_bytes: usize, declared: usize, bytes_max: usize) -> usize {
    declared.max(input_bytes.saturating_mul(4)).min(bytes_max)
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

fn zstd_failure(code: usize) -> Failure {
    Failure::corrupt(zstd_safe::get_error_name(code))
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

const GZIP_MAGIC: &[u8] = b"\x1f\x8b\x08";
/// CRC-32 and length of the content, RFC 1952.
const GZIP_TRAILER_BYTES: usize = 8;
const SNAPPY_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";
const LZ4_MAGIC: u32 = 0x184d_2204;
const LZ4_SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// Each frame costs a decoder with buffers of its own; nobody sends a request in this many.
const LZ4_FRAMES_MAX: usize = 1024;
/// 8 MiB, the window that RFC 8878 asks every decoder to allow.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
