//! Equal groups under one header: a valid request with the same items, and smaller by what it says.
#![no_main]

use forebay_codec::check::check;
use forebay_codec::signal::Signal;
use forebay_codec::splice::{Chain, Merger};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(checked) = forebay_fuzz::checked(input) else { return };
    let signal = checked.signal();
    if signal == Signal::Profiles {
        return;
    }
    let mut chain = Chain::new(signal);
    (0..3).for_each(|_| chain.push(checked.clone()));
    let Some(merged) = Merger::new().merge(&chain, 1) else { return };
    let bytes = merged.chain.parts.concat();
    assert_eq!(bytes.len() as u64 + merged.saved_bytes, chain.bytes);
    let again = check(signal, bytes.into()).expect("what is merged is a valid request");
    assert_eq!((again.counts(), merged.chain.counts), (chain.counts, chain.counts));
});
