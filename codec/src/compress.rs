//! Compression: which names mean which format, and one context per core to do it with.
//!
//! Requests and answers are whole in memory, so decoding takes a slice and gives a `Vec`, with the
//! limit on the output enforced while decoding, not after. Encoding takes a chain of bytes, so that
//! a batch is not joined before it is compressed.
//!
//! Always
//! - No output is larger than `bytes_max`, and no buffer for it more than about twice that.
//! - What comes out of a decoder was checked by every checksum that the format carries.
//! - Nothing that is cut off, and nothing with a stray tail, is taken for whole.
//!
//! Not here: which encodings a receiver allows, and budgets over many requests (the engine).

use std::fmt;

mod decode;
mod encode;

pub use decode::Decompressor;
pub use encode::Compressor;

/// How the bytes of a request or an answer are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Identity,
    Gzip,
    /// What HTTP calls `deflate`: RFC 1950. Raw deflate (RFC 1951) is read too.
    Zlib,
    Zstd,
    /// One snappy block, as HTTP uses it; a framed stream is recognised and read too.
    Snappy,
    /// The framed snappy stream, as gRPC uses it.
    SnappyFramed,
    /// The lz4 frame format.
    Lz4,
}

impl Encoding {
    /// Reads a `Content-Encoding`, in any case. `None`: not one of ours, answer 415 or 400.
    pub fn from_http(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" | "none" => Some(Encoding::Identity),
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "zlib" | "deflate" => Some(Encoding::Zlib),
            "zstd" => Some(Encoding::Zstd),
            "snappy" => Some(Encoding::Snappy),
            "x-snappy-framed" => Some(Encoding::SnappyFramed),
            "lz4" => Some(Encoding::Lz4),
            _ => None,
        }
    }

    /// Reads a `grpc-encoding`, in any case. `None`: not one of ours, answer UNIMPLEMENTED.
    pub fn from_grpc(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Zlib),
            "zstd" => Some(Encoding::Zstd),
            "snappy" => Some(Encoding::SnappyFramed),
            _ => None,
        }
    }

    /// The name for `Content-Encoding` and `Accept-Encoding`.
    pub fn http_name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zlib => "deflate",
            Encoding::Zstd => "zstd",
            Encoding::Snappy => "snappy",
            Encoding::SnappyFramed => "x-snappy-framed",
            Encoding::Lz4 => "lz4",
        }
    }

    /// The name for `grpc-encoding` and `grpc-accept-encoding`. `None`: gRPC has no such format.
    pub fn grpc_name(self) -> Option<&'static str> {
        match self {
            Encoding::Identity => Some("identity"),
            Encoding::Gzip => Some("gzip"),
            Encoding::Zlib => Some("deflate"),
            Encoding::Zstd => Some("zstd"),
            Encoding::SnappyFramed => Some("snappy"),
            Encoding::Snappy | Encoding::Lz4 => None,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.http_name())
    }
}

/// Why compressed bytes gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecompressError {
    /// More than `bytes_max` would come out. Answer 413 or RESOURCE_EXHAUSTED.
    TooLarge { bytes_max: usize },
    /// Not this format, or cut off, or changed on the way. Answer 400 or INVALID_ARGUMENT.
    Corrupt { encoding: Encoding, reason: String },
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecompressError::TooLarge { bytes_max } => write!(
                f,
                "the request is larger than {bytes_max} bytes after decompression; \
                 send smaller requests or raise the limit"
            ),
            DecompressError::Corrupt { encoding, reason } => {
                write!(f, "the request is not valid {encoding}: {reason}")
            }
        }
    }
}

impl std::error::Error for DecompressError {}

/// Why a batch could not be compressed: a level that the format does not have, or a batch that is
/// larger than the format can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressError {
    pub encoding: Encoding,
    pub reason: String,
}

impl fmt::Display for CompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot compress as {}: {}", self.encoding, self.reason)
    }
}

impl std::error::Error for CompressError {}

#[cfg(test)]
mod tests;
