//! What the fuzz targets share: which request an input is, and the oracle that the codec's own
//! tests use, so that a target and a test mean the same by "right"; and for the protocols one
//! module each.

pub mod hpack;
pub mod http1;
pub mod http2;
pub mod http2_client;
pub mod http3;
mod porch;
pub mod qpack;
pub mod quic;

#[path = "../../net/tests/simulation_quic/papers.rs"]
mod papers;
#[path = "../../net/tests/protocols/pipe.rs"]
mod pipe;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../net/tests/protocols/streams.rs"]
mod streams;

#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../codec/tests/oracle/agreement.rs"]
mod agreement;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../codec/tests/oracle/canonical.rs"]
mod canonical;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../codec/tests/oracle/decoded.rs"]
mod decoded;
#[allow(dead_code, reason = "the targets use a part of it")]
#[path = "../../codec/tests/oracle/mangle.rs"]
mod mangle;

use bytes::Bytes;
use forebay_codec::check::{Checked, check};
use forebay_codec::compress::{DecompressError, Decompressor, Encoding};
use forebay_codec::signal::Signal;

/// The most that a target lets out of a decoder: small, so that a bomb is found soon.
pub const BYTES_MAX: usize = 1 << 20;

/// An input's first byte chooses the signal; the rest is the request.
pub fn request(input: &[u8]) -> Option<(Signal, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((Signal::ALL[usize::from(*first) % Signal::ALL.len()], rest))
}

/// Whether `check` and prost say the same of a request, or differ by a rule; `Err` says how not.
pub fn agreed(signal: Signal, bytes: &[u8]) -> Result<(), String> {
    agreement::agreement(signal, bytes).map(drop)
}

/// An input as a request that passed.
pub fn checked(input: &[u8]) -> Option<Checked> {
    let (signal, bytes) = request(input)?;
    check(signal, Bytes::copy_from_slice(bytes)).ok()
}

/// In prost's own form, so that equal requests are equal bytes.
///
/// # Panics
/// If prost refuses what passed `check`.
pub fn canonical_form(signal: Signal, bytes: &[u8]) -> Vec<u8> {
    let decoded = decoded::Decoded::from_proto(signal, bytes);
    decoded.expect("check took it, so prost does").to_proto()
}

/// Decodes within limits, and holds what comes out to them. The limit is at most [`BYTES_MAX`].
pub fn decompress(encoding: Encoding, input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    thread_local! {
        // One for all inputs, as a core has one for all requests: none may harm the next.
        static DECOMPRESSOR: std::cell::RefCell<Decompressor> = Decompressor::new().into();
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        match decompressor.decompress(encoding, input, bytes_max) {
            Ok(output) => {
                assert!(output.len() <= bytes_max);
                let again = decompressor.decompress(encoding, input, output.len());
                assert_eq!(again.as_ref(), Ok(&output), "just as large as allowed");
                Some(output)
            }
            Err(DecompressError::TooLarge { bytes_max: told }) => {
                assert_eq!(told, bytes_max);
                None
            }
            Err(DecompressError::Corrupt { .. }) => None,
        }
    })
}

/// Requests to begin with, each behind the byte that chooses its signal.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (first, signal) in Signal::ALL.into_iter().enumerate() {
        for (order, request) in ["ascending", "descending"].iter().zip(canonical::requests(signal))
        {
            seeds.push((format!("{signal}-{order}"), [&[first as u8], &request[..]].concat()));
        }
    }
    seeds
}
