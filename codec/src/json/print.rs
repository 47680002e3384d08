//! Values as the text that JSON has for them, appended to bytes.
//!
//! Copies of a fixed size are a few instructions where those of a counted one are a call. So what
//! is short is copied with what stands behind it, which is cut off again.

use super::scan::{self, each};

/// The first bytes of `rest`, which may go on behind them, as a JSON string without its quotes.
#[inline]
pub(super) fn string(rest: &[u8], bytes: usize, out: &mut Vec<u8>) {
    let mut text = &rest[..bytes];
    let plain_bytes = scan::plain_bytes(text);
    if plain_bytes == bytes {
        return plain(rest, bytes, out);
    }
    loop {
        let plain_bytes = scan::plain_bytes(text);
        out.extend_from_slice(&text[..plain_bytes]);
        let Some((&special, behind)) = text[plain_bytes..].split_first() else { return };
        escape(special, out);
        text = behind;
    }
}

/// The first bytes of `rest`, which may go on behind them, as they are.
#[inline]
pub(super) fn plain(rest: &[u8], bytes: usize, out: &mut Vec<u8>) {
    match rest.first_chunk::<SHORT_BYTES>() {
        Some(block) if bytes <= SHORT_BYTES => {
            let end = out.len() + bytes;
            out.extend_from_slice(block);
            out.truncate(end);
        }
        _ => out.extend_from_slice(&rest[..bytes]),
    }
}

#[cold]
fn escape(special: u8, out: &mut Vec<u8>) {
    let letter = match special {
        b'"' | b'\\' => special,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            let digits = [special >> 4, special & 15];
            return out.extend(digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

#[inline]
pub(super) fn signed(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    unsigned(number.unsigned_abs(), out);
}

#[inline]
pub(super) fn unsigned(number: u64, out: &mut Vec<u8>) {
    const GROUP: u64 = 100_000_000;
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    let (leading, last) = (number / GROUP, number % GROUP);
    if leading == 0 {
        return leading_group(last, out);
    }
    if leading < GROUP {
        leading_group(leading, out);
    } else {
        leading_group(leading / GROUP, out);
        out.extend_from_slice(&eight_digits(leading % GROUP).to_le_bytes());
    }
    out.extend_from_slice(&eight_digits(last).to_le_bytes());
}

/// A number below 10^8 without zeros in front.
#[inline]
fn leading_group(number: u64, out: &mut Vec<u8>) {
    let digits = eight_digits(number);
    // The last digit stays, even if it is 0 too.
    let zeros = (((digits ^ each(b'0')) | 1 << 56).trailing_zeros() / 8) as usize;
    let end = out.len() + 8 - zeros;
    out.extend_from_slice(&(digits >> (8 * zeros)).to_le_bytes());
    out.truncate(end);
}

/// A number below 10^8 as eight digits, the first one lowest: halved into fours, those into twos,
/// and those into ones, all at once. The factors divide by 100 and by 10 in that range.
#[inline]
fn eight_digits(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((twos - tens * 10) << 8);
    ones | each(b'0')
}

/// Bytes as lower case hex digits; there are four of them or a multiple.
#[inline]
pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for word in bytes.as_chunks().0 {
        out.extend_from_slice(&hex_digits(*word));
    }
}

#[inline]
fn hex_digits(bytes: [u8; 4]) -> [u8; 8] {
    let all = u64::from(u32::from_le_bytes(bytes));
    let twos = (all | (all << 16)) & 0x0000_ffff_0000_ffff;
    let ones = (twos | (twos << 8)) & 0x00ff_00ff_00ff_00ff;
    let nibbles = ((ones >> 4) | (ones << 8)) & each(0x0f);
    let letters = ((nibbles + each(6)) >> 4) & each(1);
    // From behind '9' to 'a' it is 39.
    (nibbles + each(b'0') + letters * 39).to_le_bytes()
}

/// Most strings are not longer.
const SHORT_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_are_written_as_the_standard_library_writes_them() {
        let mut random = fastrand::Rng::with_seed(1);
        let edges = (0..20).flat_map(|power| {
            let ten = 10u64.pow(power);
            [ten - 1, ten, ten + 1, ten * (random.u64(1..=u64::MAX / ten) % 10)]
        });
        let mut numbers: Vec<u64> = edges.chain([u64::MAX, i64::MAX as u64]).collect();
        numbers.extend((0..100_000).map(|_| random.u64(..) >> random.u32(0..64)));
        for number in numbers {
            assert_eq!(written(|out| unsigned(number, out)), number.to_string());
            for number in [number as i64, (number as i64).wrapping_neg()] {
                assert_eq!(written(|out| signed(number, out)), number.to_string());
            }
        }
    }

    #[test]
    fn strings_are_written_as_serde_writes_them_wherever_the_escape_stands() {
        for special in (0..=0xffu8).filter(|&byte| byte < 0x30 || byte == b'\\' || byte == 0x7f) {
            for (before, behind) in (0..40).flat_map(|at| [(at, 0), (at, 3), (at, 40)]) {
                let middle = char::from(special);
                let text = format!("{}{middle}{}", "ä".repeat(before), "b".repeat(behind));
                let rest = [text.as_bytes(), &[b'\\'; 40]].concat();
                let ours = written(|out| string(&rest, text.len(), out));
                assert_eq!(format!("\"{ours}\""), serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn every_byte_has_two_hex_digits_that_read_back() {
        for byte in 0..=0xffu8 {
            let bytes = [byte, !byte, byte.rotate_left(3), 0x0f];
            let digits = written(|out| hex(&bytes, out));
            assert_eq!(digits, bytes.map(|byte| format!("{byte:02x}")).concat());
            let word = digits.as_bytes().try_into().unwrap();
            assert_eq!(scan::hex_word(word), Some(bytes));
        }
    }
}
