//! Whatever a policy mends passes `check`, and the items add up.
#![no_main]

use bytes::Bytes;
use forebay_codec::check::check;
use forebay_codec::mend::{InvalidUtf8, check_or_mend};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((signal, bytes)) = forebay_fuzz::request(input) else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    let verdict = check(signal, bytes.clone());
    let Ok(replaced) = check_or_mend(signal, bytes.clone(), InvalidUtf8::Replace, usize::MAX)
    else {
        assert!(verdict.is_err(), "valid as it was");
        return;
    };
    assert_eq!(replaced.items_refused, 0);
    assert_eq!(replaced.texts_replaced == 0, verdict.is_ok());
    if let Ok(left) = check_or_mend(signal, bytes, InvalidUtf8::RefuseItem, usize::MAX) {
        let items = left.checked.counts().items + left.items_refused;
        assert_eq!(items, replaced.checked.counts().items);
    }
});
