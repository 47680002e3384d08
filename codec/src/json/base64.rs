//! Base64 (RFC 4648): both alphabets in, padded or not; the standard one, padded, out.

/// Appends the decoded bytes. `None`, with `out` as it was: not base64.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digits = without_padding(text)?;
    if digits.len() % 4 == 1 || !digits.iter().all(|&digit| value(digit).is_some()) {
        return None;
    }
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, &digit| bits << 6 | value(digit).unwrap_or(0));
        let bits = bits << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(())
}

/// How many bytes [`decode`] makes of a text that it takes.
pub(super) fn decoded_bytes(text: &[u8]) -> usize {
    without_padding(text).map_or(0, |digits| digits.len() * 3 / 4)
}

/// Appends the text of these bytes.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(word);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit > group.len() { b'=' } else { ALPHABET[index as usize] });
        }
    }
}

fn without_padding(text: &[u8]) -> Option<&[u8]> {
    match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] => {
            text.len().is_multiple_of(4).then_some(digits)
        }
        digits => Some(digits),
    }
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text, &mut out).map(|()| out)
    }

    #[test]
    fn the_vectors_of_rfc_4648_go_both_ways_with_and_without_padding() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, text) in vectors {
            let mut out = Vec::new();
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
            for text in [text, text.trim_end_matches('=')] {
                assert_eq!(decoded(text.as_bytes()), Some(plain.as_bytes().to_vec()), "{text}");
                assert_eq!(decoded_bytes(text.as_bytes()), plain.len(), "{text}");
            }
        }
    }

    #[test]
    fn j6_both_alphabets_are_read() {
        assert_eq!(decoded(b"+/-_"), Some(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["A", "AAAAA", "A=", "AA=", "AAA==", "====", "A A A", "AA\n", "AA=A", "é"] {
            assert_eq!(decoded(text.as_bytes()), None, "{text:?}");
        }
    }
}
