//! Any text: refused, or turned into a request that passes `check`, within the limit on its bytes.
#![no_main]

use forebay_codec::check::check;
use forebay_codec::json::json_to_proto;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((signal, json)) = forebay_fuzz::request(input) else { return };
    match json_to_proto(signal, json, forebay_fuzz::BYTES_MAX) {
        Ok(proto) => {
            assert!(proto.len() <= forebay_fuzz::BYTES_MAX);
            let verdict = check(signal, proto.into());
            assert!(verdict.is_ok(), "{verdict:?}");
        }
        Err(error) => assert!(error.offset <= json.len(), "{error}"),
    }
});
