//! Encoding: a chain of bytes into one compressed `Vec`, without joining the chain first.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::{CompressError, Encoding};

/// Encoders with their tables, one per core, used again for each batch.
pub struct Compressor {
    /// With the level it was made for; the header and trailer of gzip and zlib are written here.
    deflate: Option<(i32, Compress)>,
    zstd: Option<CCtx<'static>>,
    snappy: snap::raw::Encoder,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// Costs nothing until a format is used for the first time.
    pub fn new() -> Self {
        Self { deflate: None, zstd: None, snappy: snap::raw::Encoder::new() }
    }

    /// Compresses the concatenation of `chain`.
    ///
    /// `level`: gzip and zlib 0 to 9, zstd as the library has them (1 to 22 and negative ones);
    /// `None` is each format's usual one, -1 as well for gzip and zlib. Others have no levels.
    pub fn compress(
        &mut self,
        encoding: Encoding,
        level: Option<i32>,
        chain: &[Bytes],
    ) -> Result<Vec<u8>, CompressError> {
        let output = match encoding {
            Encoding::Identity => Ok(chain.concat()),
            Encoding::Gzip => self.gzip(level, chain),
            Encoding::Zlib => self.zlib(level, chain),
            Encoding::Zstd => self.zstd(level, chain),
            Encoding::Snappy => self.snappy(chain),
            Encoding::SnappyFramed => snappy_framed(chain),
            Encoding::Lz4 => lz4(chain),
        };
        output.map_err(|reason| CompressError { encoding, reason })
    }

    fn gzip(&mut self, level: Option<i32>, chain: &[Bytes]) -> Result<Vec<u8>, String> {
        let mut output = GZIP_HEADER.to_vec();
        self.deflate(level, chain, &mut output)?;
        let mut crc = libdeflater::Crc::new();
        chain.iter().for_each(|part| crc.update(part));
        output.extend_from_slice(&crc.sum().to_le_bytes());
        output.extend_from_slice(&(chain_bytes(chain) as u32).to_le_bytes());
        Ok(output)
    }

    fn zlib(&mut self, level: Option<i32>, chain: &[Bytes]) -> Result<Vec<u8>, String> {
        let mut output = ZLIB_HEADER.to_vec();
        self.deflate(level, chain, &mut output)?;
        let mut adler = libdeflater::Adler32::new();
        chain.iter().for_each(|part| adler.update(part));
        output.extend_from_slice(&adler.sum().to_be_bytes());
        Ok(output)
    }

    fn deflate(
        &mut self,
        level: Option<i32>,
        chain: &[Bytes],
        output: &mut Vec<u8>,
    ) -> Result<(), String> {
        let level = match level {
            None | Some(-1) => DEFLATE_LEVEL_USUAL,
            Some(level @ 0..=9) => level,
            Some(level) => return Err(format!("level {level} is not 0 to 9")),
        };
        if self.deflate.as_ref().is_none_or(|(made_for, _)| *made_for != level) {
            let compress = Compress::new(Compression::new(level as u32), false);
            self.deflate = Some((level, compress));
        }
        let (_, compress) = self.deflate.as_mut().expect("set by the line above");
        compress.reset();
        for part in chain {
            deflate_part(compress, part, FlushCompress::None, output)?;
        }
        deflate_part(compress, &[], FlushCompress::Finish, output)
    }

    fn zstd(&mut self, level: Option<i32>, chain: &[Bytes]) -> Result<Vec<u8>, String> {
        let level = level.unwrap_or(zstd_safe::CLEVEL_DEFAULT);
        let levels = zstd_safe::min_c_level()..=zstd_safe::max_c_level();
        if !levels.contains(&level) {
            return Err(format!("level {level} is not {} to {}", levels.start(), levels.end()));
        }
        let zstd = self.zstd.get_or_insert_with(CCtx::create);
        let bytes = chain_bytes(chain);
        let started = zstd
            .reset(ResetDirective::SessionOnly)
            .and_then(|_| zstd.set_parameter(CParameter::CompressionLevel(level)))
            .and_then(|_| zstd.set_pledged_src_size(Some(bytes as u64)));
        started.map_err(zstd_reason)?;
        let mut output = Vec::with_capacity(bytes / 8 + OUTPUT_BYTES_MIN);
        for part in chain {
            zstd_part(zstd, part, ZSTD_EndDirective::ZSTD_e_continue, &mut output)?;
        }
        zstd_part(zstd, &[], ZSTD_EndDirective::ZSTD_e_end, &mut output)?;
        Ok(output)
    }

    /// A block has no seams, so this one format joins the chain.
    fn snappy(&mut self, chain: &[Bytes]) -> Result<Vec<u8>, String> {
        let encoded = match chain {
            [one] => self.snappy.compress_vec(one),
            _ => self.snappy.compress_vec(&chain.concat()),
        };
        encoded.map_err(|error| error.to_string())
    }
}

fn deflate_part(
    compress: &mut Compress,
    part: &[u8],
    flush: FlushCompress,
    output: &mut Vec<u8>,
) -> Result<(), String> {
    let start = compress.total_in();
    loop {
        let taken = (compress.total_in() - start) as usize;
        let left = &part[taken..];
        if left.is_empty() && flush == FlushCompress::None {
            return Ok(());
        }
        if output.capacity() == output.len() {
            output.reserve(OUTPUT_BYTES_MIN.max(output.len()));
        }
        let status = compress.compress_vec(left, output, flush);
        if status.map_err(|error| error.to_string())? == Status::StreamEnd {
            return Ok(());
        }
    }
}

fn zstd_part(
    zstd: &mut CCtx<'static>,
    part: &[u8],
    end: ZSTD_EndDirective,
    output: &mut Vec<u8>,
) -> Result<(), String> {
    let mut source = InBuffer::around(part);
    loop {
        if output.capacity() == output.len() {
            output.reserve(OUTPUT_BYTES_MIN.max(output.len()));
        }
        let filled = output.len();
        let mut target = OutBuffer::around_pos(output, filled);
        let unflushed = zstd.compress_stream2(&mut target, &mut source, end);
        let unflushed = unflushed.map_err(zstd_reason)?;
        let done = match end {
            ZSTD_EndDirective::ZSTD_e_end => unflushed == 0,
            _ => source.pos() == part.len(),
        };
        if done {
            return Ok(());
        }
    }
}

fn snappy_framed(chain: &[Bytes]) -> Result<Vec<u8>, String> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    for part in chain {
        encoder.write_all(part).map_err(|error| error.to_string())?;
    }
    let mut output = encoder.into_inner().map_err(|error| error.to_string())?;
    // The encoder writes the stream's first chunk with the first data; without data it is due.
    if output.is_empty() {
        output.extend_from_slice(SNAPPY_MAGIC);
    }
    Ok(output)
}

fn lz4(chain: &[Bytes]) -> Result<Vec<u8>, String> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    for part in chain {
        encoder.write_all(part).map_err(|error| error.to_string())?;
    }
    encoder.finish().map_err(|error| error.to_string())
}

fn chain_bytes(chain: &[Bytes]) -> usize {
    chain.iter().map(Bytes::len).sum()
}

fn zstd_reason(code: usize) -> String {
    zstd_safe::get_error_name(code).to_owned()
}

/// Deflate, no flags, no time, unknown system: RFC 1952.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// A window of 32 KiB, usual compression: RFC 1950.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];
const SNAPPY_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";
const DEFLATE_LEVEL_USUAL: i32 = 6;
const OUTPUT_BYTES_MIN: usize = 4096;
