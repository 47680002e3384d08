//! `check` and prost give the same verdict and the same counts, but for the rules of the oracle.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((signal, bytes)) = forebay_fuzz::request(input) else { return };
    if let Err(difference) = forebay_fuzz::agreed(signal, bytes) {
        panic!("{difference}");
    }
});
