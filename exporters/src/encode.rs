//! From a chain of bytes to what goes on the wire: gathered, compressed, framed, or as JSON.
//!
//! Does no I/O. Always: what decodes at the other end is the chain, byte for byte (JSON: item for
//! item).

use bytes::{BufMut, Bytes, BytesMut};
use forebay_codec::compress::{Compressor, Decompressor, Encoding};
use forebay_codec::json::proto_to_json;
use forebay_codec::signal::Signal;

use crate::destination::{Algorithm, Compression};

/// Pieces smaller than this are joined: one DATA frame or write per client request costs more
/// than the copy.
const PIECE_BYTES_MIN: usize = 4 << 10;
const GATHER_BYTES: usize = 16 << 10;
const PREFIX_BYTES: usize = 5;

/// One core's compression contexts for one destination.
pub(crate) struct Codec {
    compression: Compression,
    compressor: Compressor,
    pub(crate) decompressor: Decompressor,
}

impl Codec {
    pub(crate) fn new(compression: Compression) -> Codec {
        let (compressor, decompressor) = (Compressor::new(), Decompressor::new());
        Codec { compression, compressor, decompressor }
    }

    /// The gRPC name of the compression, if messages are compressed. lz4 has none, and goes out
    /// as it is.
    pub(crate) fn grpc_name(&self) -> Option<&'static str> {
        match self.grpc_encoding() {
            Encoding::Identity => None,
            encoding => encoding.grpc_name(),
        }
    }

    /// The Content-Encoding, if bodies are compressed.
    pub(crate) fn http_name(&self) -> Option<&'static str> {
        Some(match self.compression.algorithm {
            Algorithm::None => return None,
            Algorithm::Gzip => "gzip",
            Algorithm::Zstd => "zstd",
            Algorithm::Snappy => "snappy",
            Algorithm::Zlib => "zlib",
            Algorithm::Deflate => "deflate",
            Algorithm::Lz4 => "lz4",
        })
    }

    /// A length-prefixed gRPC message. The error says why it could not be compressed.
    pub(crate) fn grpc_message(&mut self, chain: &[Bytes]) -> Result<Vec<Bytes>, String> {
        let encoding = self.grpc_encoding();
        if encoding == Encoding::Identity {
            let bytes: usize = chain.iter().map(Bytes::len).sum();
            return Ok(gather(Some(prefix(0, bytes)?), chain));
        }
        let message = self.compress(encoding, chain)?;
        let prefix = prefix(1, message.len())?;
        Ok(gather(Some(prefix), &[message]))
    }

    /// An HTTP body in protobuf.
    pub(crate) fn http_body(&mut self, chain: &[Bytes]) -> Result<Vec<Bytes>, String> {
        let encoding = match self.compression.algorithm {
            Algorithm::None => return Ok(gather(None, chain)),
            Algorithm::Gzip => Encoding::Gzip,
            Algorithm::Zstd => Encoding::Zstd,
            Algorithm::Snappy => Encoding::Snappy,
            // HTTP's "deflate" is the zlib format too (RFC 9110 section 8.4.1.2).
            Algorithm::Zlib | Algorithm::Deflate => Encoding::Zlib,
            Algorithm::Lz4 => Encoding::Lz4,
        };
        Ok(vec![self.compress(encoding, chain)?])
    }

    /// An HTTP body in JSON.
    pub(crate) fn json_body(
        &mut self,
        signal: Signal,
        chain: &[Bytes],
    ) -> Result<Vec<Bytes>, String> {
        let mut json = Vec::new();
        json_of(signal, chain, &mut json)?;
        self.http_body(&[json.into()])
    }

    fn grpc_encoding(&self) -> Encoding {
        match self.compression.algorithm {
            Algorithm::None | Algorithm::Lz4 => Encoding::Identity,
            Algorithm::Gzip => Encoding::Gzip,
            Algorithm::Zstd => Encoding::Zstd,
            Algorithm::Snappy => Encoding::SnappyFramed,
            Algorithm::Zlib | Algorithm::Deflate => Encoding::Zlib,
        }
    }

    fn compress(&mut self, encoding: Encoding, chain: &[Bytes]) -> Result<Bytes, String> {
        let compressed = self.compressor.compress(encoding, self.compression.level, chain);
        compressed.map(Bytes::from).map_err(|error| format!("{error:?}"))
    }
}

/// Appends the chain as one line of OTLP JSON, without the line's end.
pub(crate) fn json_of(signal: Signal, chain: &[Bytes], json: &mut Vec<u8>) -> Result<(), String> {
    proto_to_json(&join(chain), signal, json).map_err(|error| format!("{error:?}"))
}

/// The chain as one piece; copies only if it is not one already.
pub(crate) fn join(chain: &[Bytes]) -> Bytes {
    match chain {
        [one] => one.clone(),
        many => many.concat().into(),
    }
}

fn prefix(flag: u8, bytes: usize) -> Result<[u8; PREFIX_BYTES], String> {
    let length = u32::try_from(bytes)
        .map_err(|_| format!("{bytes} bytes are more than one gRPC message can hold"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([flag, a, b, c, d])
}

/// The same bytes in fewer pieces: small ones are copied together, large ones stay shared.
fn gather(prefix: Option<[u8; PREFIX_BYTES]>, chain: &[Bytes]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut small = BytesMut::new();
    if let Some(prefix) = prefix {
        small.put_slice(&prefix);
    }
    for bytes in chain {
        if bytes.len() < PIECE_BYTES_MIN {
            small.put_slice(bytes);
            if small.len() >= GATHER_BYTES {
                pieces.push(small.split().freeze());
            }
            continue;
        }
        if !small.is_empty() {
            pieces.push(small.split().freeze());
        }
        pieces.push(bytes.clone());
    }
    if !small.is_empty() {
        pieces.push(small.freeze());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_pieces_are_the_same_bytes_and_few() {
        let mut random = fastrand::Rng::with_seed(7);
        for case in 0..200 {
            let chain: Vec<Bytes> = (0..random.usize(0..60))
                .map(|_| {
                    let length = random.usize(0..9000) * random.usize(0..2);
                    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
                })
                .collect();
            let pieces = gather(Some([1, 0, 0, 0, 9]), &chain);
            let expected = [&[1, 0, 0, 0, 9], chain.concat().as_slice()].concat();
            assert_eq!(pieces.concat(), expected, "seed 7, case {case}");
            assert!(pieces.iter().all(|piece| !piece.is_empty()), "seed 7, case {case}");
            let small = pieces.windows(2).filter(|pair| pair.iter().all(|p| p.len() < 4096));
            assert_eq!(small.count(), 0, "seed 7, case {case}: small neighbours were not joined");
        }
    }
}
