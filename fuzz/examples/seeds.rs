//! Writes the seed corpus: `cargo run --example seeds` in the folder of this crate.
//!
//! Small and legible inputs of the right shape, from which a fuzzer finds its way in seconds. What
//! it finds by itself stays out of the repository.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::json::proto_to_json;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(name), bytes)
    };
    for (name, seed) in forebay_fuzz::seeds() {
        for target in ["check", "json_round_trip", "merge", "view", "mend"] {
            write(target, &name, &seed)?;
        }
        // Two items at most in a piece, 300 bytes at most.
        write("split", &name, &[&[2, 44, 1], &seed[..]].concat())?;
        // All edits but the drop.
        write("edit", &name, &[&[31], &seed[..]].concat())?;
        // By trace id, to three shards.
        write("split_by", &name, &[&[0, 3], &seed[..]].concat())?;
        let (signal, request) = forebay_fuzz::request(&seed).expect("a seed has a first byte");
        let mut json = vec![seed[0]];
        proto_to_json(request, signal, &mut json).expect("a seed is a valid request");
        write("json_in", &name, &json)?;
    }
    for encoding in [
        Encoding::Gzip,
        Encoding::Zlib,
        Encoding::Zstd,
        Encoding::Snappy,
        Encoding::SnappyFramed,
        Encoding::Lz4,
    ] {
        let target = match encoding {
            Encoding::Zlib => "zlib".to_owned(),
            Encoding::SnappyFramed => "snappy_framed".to_owned(),
            other => other.http_name().to_owned(),
        };
        let text = Bytes::from("a request is text that repeats, as text does; ".repeat(8));
        let pack = |chain: &[Bytes]| {
            Compressor::new().compress(encoding, None, chain).expect("the usual level")
        };
        let whole = pack(&[text]);
        write(&target, "text", &whole)?;
        write(&target, "zeros", &pack(&[vec![0; 100_000].into()]))?;
        write(&target, "empty", &pack(&[]))?;
        write(&target, "twice", &whole.repeat(2))?;
    }
    // Level, and where to cut the chain.
    for (name, head) in [("gzip", [0, 6, 3]), ("zlib", [1, 1, 9]), ("zstd", [2, 3, 60])] {
        let text = "a batch is a chain of requests that look alike; ".repeat(4);
        write("compress", name, &[&head, text.as_bytes()].concat())?;
    }
    write("answers", "proto", b"\x08\x0e\x12\x04busy")?;
    write("answers", "json", br#"{"code":8,"message":"busy","details":[]}"#)?;
    write("answers", "partial", br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#)?;
    for (name, seed) in forebay_fuzz::http1::seeds() {
        write("http1", name, &seed)?;
    }
    for (name, seed) in forebay_fuzz::http2::seeds() {
        write("http2", name, &seed)?;
    }
    for (name, seed) in forebay_fuzz::http2_client::seeds() {
        write("http2_client", name, &seed)?;
    }
    for (name, seed) in forebay_fuzz::hpack::seeds() {
        write("hpack", name, seed)?;
    }
    for (name, seed) in forebay_fuzz::http3::seeds() {
        write("http3", name, &seed)?;
    }
    for (name, seed) in forebay_fuzz::qpack::seeds() {
        write("qpack", name, seed)?;
    }
    for (name, seed) in forebay_fuzz::quic::seeds() {
        write("quic", name, seed)?;
    }
    write("grpc", "framed", b"\0\0\0\0\x03abc")?;
    write("grpc", "two", b"\x01\0\0\0\x01a\0\0\0\0\0")?;
    write("grpc", "timeout", b"99999999m")?;
    write("grpc", "status", "50% of \u{e9}\n".as_bytes())
}
