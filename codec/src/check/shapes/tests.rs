//! The quick look at a number against the reader of all numbers.

use super::*;
use crate::wire;

#[test]
fn a_number_of_any_length_is_one_where_the_general_rules_say_so() {
    for length in 0..=12 {
        for last in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut bytes = vec![0x80; length];
            if let Some(end) = bytes.last_mut() {
                *end = last;
            }
            same_verdict(&bytes);
            for place in 0..length {
                let before = std::mem::replace(&mut bytes[place], 0x7f);
                same_verdict(&bytes);
                bytes[place] = before;
            }
        }
    }
}

fn same_verdict(bytes: &[u8]) {
    let mut at = 0;
    let is_one = wire::varint(bytes, &mut at).is_ok() && at == bytes.len();
    assert_eq!(is_varint(bytes), is_one, "{bytes:02x?}");
}
