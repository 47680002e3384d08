//! Reading text many bytes at a time: the end of a run in a string, of digits, of blanks.
//!
//! Nothing here knows the grammar, and nothing reads past the slice that it is given.
//!
//! Always: the wide and the bytewise way say the same of every text.

/// How many bytes stand for themselves inside a JSON string: up to the first quote, backslash or
/// control character, or all of them.
#[inline]
pub(super) fn plain_bytes(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk() {
        let special = special_bits(u64::from_le_bytes(*word));
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    at + text[at..].iter().take_while(|&&byte| is_plain(byte)).count()
}

/// The lowest bit set is the top bit of the first byte that does not stand for itself; 0: all do.
/// Bits above it mean nothing, since a subtraction borrows from the bytes above.
#[inline]
fn special_bits(word: u64) -> u64 {
    let quotes = (word ^ each(b'"')).wrapping_sub(each(1));
    let backslashes = (word ^ each(b'\\')).wrapping_sub(each(1));
    let controls = word.wrapping_sub(each(b' '));
    (quotes | backslashes | controls) & !word & each(0x80)
}

/// How many spaces stand in front.
pub(super) fn spaces(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk() {
        let others = u64::from_le_bytes(*word) ^ each(b' ');
        if others != 0 {
            return at + (others.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|&&byte| byte == b' ').count()
}

/// Reads decimal digits at `*at`, 19 at most, which any `u64` can hold. Returns the number and
/// how many digits it has.
#[inline]
pub(super) fn digits(text: &[u8], at: &mut usize) -> (u64, usize) {
    let (mut value, mut count) = (0, 0);
    while count <= DIGITS_MAX - 8 {
        let Some(word) = text.get(*at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
        let (group, more) = leading_digits(u64::from_le_bytes(*word));
        value = value * POWERS_OF_TEN[more] + group;
        (count, *at) = (count + more, *at + more);
        if more < 8 {
            return (value, count);
        }
    }
    while count < DIGITS_MAX
        && let Some(digit @ b'0'..=b'9') = text.get(*at)
    {
        value = value * 10 + u64::from(digit - b'0');
        (count, *at) = (count + 1, *at + 1);
    }
    (value, count)
}

/// The number that the first characters of a word spell in decimal, and how many they are.
#[inline]
fn leading_digits(word: u64) -> (u64, usize) {
    let values = word ^ each(b'0');
    // The top bit of each byte that is no digit.
    let others = (((values & each(0x7f)) + each(0x80 - 10)) | values) & each(0x80);
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    // Zeros in front, and then ones to tens, tens to hundreds, and so on, all at once.
    let ones = values << (64 - 8 * count);
    let twos = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
    let eight = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    (eight, count)
}

/// The four bytes that eight hex digits stand for. `None`: not all of them are hex digits.
#[inline]
pub(super) fn hex_word(digits: [u8; 8]) -> Option<[u8; 4]> {
    let text = u64::from_le_bytes(digits);
    let decimals = within(text, b'0', b'9');
    let letters = within(text | each(0x20), b'a', b'f');
    if (decimals | letters) & !text & each(0x80) != each(0x80) {
        return None;
    }
    let nibbles = (text & each(0x0f)) + ((letters >> 7) & each(1)) * 9;
    let pairs = ((nibbles << 4) | (nibbles >> 8)) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
    Some(((quads | (quads >> 16)) as u32).to_le_bytes())
}

/// Sets the top bit of each byte that lies between these two, its own top bit aside.
#[inline]
fn within(word: u64, first: u8, last: u8) -> u64 {
    let low = word & each(0x7f);
    (low + each(0x80 - first)) & !(low + each(0x7f - last))
}

/// A word of eight of this byte.
#[inline]
pub(super) const fn each(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

const DIGITS_MAX: usize = 19;
const POWERS_OF_TEN: [u64; 9] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of the characters that matter, with runs of all lengths.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(1);
        let odd = [b'"', b'\\', 0, 0x1f, b'\n', b' ', b'!', b'/', b':', b'9', 0x7f, 0x80, 0xff];
        (0..20_000).map(move |_| {
            let usual = *random.choice(b" 0x").expect("not empty");
            let mut text = vec![usual; random.usize(0..40)];
            for _ in 0..random.usize(0..3) {
                let at = random.usize(0..=text.len());
                text.insert(at, *random.choice(&odd).expect("not empty"));
            }
            text
        })
    }

    #[test]
    fn runs_end_where_a_look_at_each_byte_ends_them() {
        for text in texts() {
            let run = |matches: fn(u8) -> bool| {
                text.iter().position(|&byte| !matches(byte)).unwrap_or(text.len())
            };
            let plain = run(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
            assert_eq!(plain_bytes(&text), plain, "{text:?}");
            assert_eq!(spaces(&text), run(|byte| byte == b' '), "{text:?}");
            let mut at = 0;
            let (value, count) = digits(&text, &mut at);
            assert_eq!(count, run(|byte| byte.is_ascii_digit()).min(DIGITS_MAX), "{text:?}");
            assert_eq!((value, at), (spelled(&text[..count]), count), "{text:?}");
        }
    }

    #[test]
    fn digits_of_every_count_are_read_as_the_standard_library_reads_them() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..50_000 {
            let mut text: Vec<u8> =
                (0..random.usize(0..20)).map(|_| random.u8(b'0'..=b'9')).collect();
            let count = text.len();
            text.extend(b"/:e.\"5".iter().take(random.usize(0..7)));
            let mut at = 0;
            let (value, _) = digits(&text, &mut at);
            let taken = if text.get(count) == Some(&b'5') { count + 1 } else { count };
            assert_eq!((value, at), (spelled(&text[..taken]), taken), "{text:?}");
        }
    }

    fn spelled(digits: &[u8]) -> u64 {
        if digits.is_empty() { 0 } else { str::from_utf8(digits).unwrap().parse().unwrap() }
    }

    #[test]
    fn j1_a_hex_word_is_refused_for_any_other_character_at_any_place() {
        for at in 0..8 {
            for byte in 0..=0xffu8 {
                let mut digits = *b"09afAF7e";
                digits[at] = byte;
                let expected: Option<Vec<u8>> = digits
                    .chunks(2)
                    .map(|pair| {
                        let digit = |byte: u8| char::from(byte).to_digit(16);
                        Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)
                    })
                    .collect();
                let read = hex_word(digits).map(|bytes| bytes.to_vec());
                assert_eq!(read, expected, "{byte:#x} at {at}");
            }
        }
    }
}
