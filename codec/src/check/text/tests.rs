//! The quick looks against what the standard library says, at every length and every place.

use super::*;

/// More than any number of steps that is looked at in a way of its own.
const BYTES_MAX: usize = 140;

#[test]
fn a_mark_is_seen_wherever_it_stands_in_a_text_of_any_length() {
    for length in 0..BYTES_MAX {
        let mut bytes = vec![b'~'; length];
        assert!(is_ascii(&bytes) && is_text(&bytes), "{length} letters");
        for place in 0..length {
            bytes[place] = 0x80;
            assert!(!is_ascii(&bytes), "a mark at {place} of {length}");
            assert!(!is_text(&bytes), "half a character at {place} of {length}");
            bytes[place] = b'~';
        }
    }
}

#[test]
fn a_character_of_several_bytes_is_text_wherever_it_stands_and_no_text_without_its_end() {
    for character in ["é", "漢", "🦀"] {
        for before in 0..BYTES_MAX {
            let mut text = "a".repeat(before) + character;
            for _ in 0..40 {
                assert!(is_text(text.as_bytes()) && !is_ascii(text.as_bytes()), "{text}");
                text.push('z');
            }
            let cut = &text.as_bytes()[..before + character.len() - 1];
            assert_eq!(is_text(cut), std::str::from_utf8(cut).is_ok(), "{text}");
        }
    }
}
