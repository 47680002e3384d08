//! A request written as JSON and read again is the same request, as prost sees it.
#![no_main]

use forebay_codec::json::{json_to_proto, proto_to_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(checked) = forebay_fuzz::checked(input) else { return };
    // Outside profiles, indices into a string table have no JSON form.
    if checked.warnings().strindex_outside_profiles {
        return;
    }
    let (signal, bytes) = (checked.signal(), checked.bytes());
    let mut json = Vec::new();
    proto_to_json(bytes, signal, &mut json).expect("it passed check");
    let again = json_to_proto(signal, &json, usize::MAX).expect("we wrote it");
    // Compared as JSON, in which all the bit patterns that are no number are one.
    let [before, after] = [bytes, &again[..]].map(|form| {
        let mut json = Vec::new();
        let canonical = forebay_fuzz::canonical_form(signal, form);
        proto_to_json(&canonical, signal, &mut json).expect("prost wrote it");
        String::from_utf8(json).expect("JSON is text")
    });
    assert_eq!(before, after, "{}", String::from_utf8_lossy(&json));
});
