//! The Huffman code of HPACK (RFC 7541, appendix B), read.
//!
//! The code is canonical: within a length the codes are consecutive, in the order of their
//! symbols, and longer ones follow shorter ones. So the lengths alone say everything, and the
//! tables below are worked out from them when the program is built. Nothing here writes the code:
//! our answers are sent as they are.

use super::HpackError;

/// The length of each byte's code, in bits. The end of string is the last code of 30 bits.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const SHORT_BITS: u32 = 8;
const LENGTH_MAX: u32 = 30;

struct Tables {
    /// By the next 8 bits: a symbol and the length of its code; length 0 if the code is longer.
    short: [(u8, u8); 1 << SHORT_BITS],
    /// By length: the first code, how many there are, and where their symbols stand.
    first: [u32; LENGTH_MAX as usize + 1],
    count: [u32; LENGTH_MAX as usize + 1],
    start: [u32; LENGTH_MAX as usize + 1],
    /// All bytes in the order of their codes.
    symbols: [u8; 256],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables = Tables {
        short: [(0, 0); 1 << SHORT_BITS],
        first: [0; LENGTH_MAX as usize + 1],
        count: [0; LENGTH_MAX as usize + 1],
        start: [0; LENGTH_MAX as usize + 1],
        symbols: [0; 256],
    };
    let (mut code, mut placed, mut length) = (0u32, 0usize, 1u32);
    while length <= LENGTH_MAX {
        code <<= 1;
        tables.first[length as usize] = code;
        tables.start[length as usize] = placed as u32;
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as u32 == length {
                tables.symbols[placed] = symbol as u8;
                if length <= SHORT_BITS {
                    let spare = SHORT_BITS - length;
                    let mut tail = 0;
                    while tail < 1 << spare {
                        let at = (code << spare | tail) as usize;
                        tables.short[at] = (symbol as u8, length as u8);
                        tail += 1;
                    }
                }
                placed += 1;
                code += 1;
                tables.count[length as usize] += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    tables
}

/// Appends what `encoded` says to `decoded`.
pub(super) fn decode(encoded: &[u8], decoded: &mut Vec<u8>) -> Result<(), HpackError> {
    // No code is shorter than five bits.
    decoded.reserve(encoded.len() * 8 / 5);
    // The bits not taken yet, from the highest on; zeros below them.
    let (mut bits, mut held) = (0u64, 0u32);
    let mut rest = encoded;
    loop {
        (bits, held, rest) = refill(bits, held, rest);
        // Each code is as long as this at most, so no end can be met here.
        while held >= LENGTH_MAX {
            let Some((symbol, length)) = symbol(bits) else {
                return Err(HpackError("a Huffman code that does not exist"));
            };
            decoded.push(symbol);
            bits <<= length;
            held -= length;
        }
        if rest.is_empty() {
            break;
        }
    }
    while held > 0 {
        match symbol(bits) {
            Some((symbol, length)) if length <= held => {
                decoded.push(symbol);
                bits <<= length;
                held -= length;
            }
            // Less than a byte of ones is padding.
            _ if held < 8 && bits.leading_ones() == held => break,
            _ => return Err(HpackError("a Huffman code is cut off or does not exist")),
        }
    }
    Ok(())
}

fn refill(bits: u64, held: u32, rest: &[u8]) -> (u64, u32, &[u8]) {
    if let Some(eight) = rest.first_chunk() {
        let bytes = (64 - held) / 8;
        // What does not count yet is cut away, to be read again.
        let bits = bits | u64::from_be_bytes(*eight) >> held;
        let held = held + 8 * bytes;
        let bits = if held == 64 { bits } else { bits & !(u64::MAX >> held) };
        return (bits, held, &rest[bytes as usize..]);
    }
    let (mut bits, mut held, mut rest) = (bits, held, rest);
    while held <= 56
        && let Some((byte, behind)) = rest.split_first()
    {
        bits |= u64::from(*byte) << (56 - held);
        held += 8;
        rest = behind;
    }
    (bits, held, rest)
}

fn symbol(bits: u64) -> Option<(u8, u32)> {
    match TABLES.short[(bits >> (64 - SHORT_BITS)) as usize] {
        (_, 0) => long(bits),
        (symbol, length) => Some((symbol, u32::from(length))),
    }
}

fn long(bits: u64) -> Option<(u8, u32)> {
    (SHORT_BITS + 1..=LENGTH_MAX).find_map(|length| {
        let code = (bits >> (64 - length)) as u32;
        let nth = code.checked_sub(TABLES.first[length as usize])?;
        let exists = nth < TABLES.count[length as usize];
        exists.then(|| (TABLES.symbols[(TABLES.start[length as usize] + nth) as usize], length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(encoded, &mut out).ok().map(|()| out)
    }

    /// Writes by the tables, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in text {
            let place = TABLES.symbols.iter().position(|symbol| symbol == byte).unwrap() as u32;
            let length = u32::from(LENGTHS[*byte as usize]);
            let code = TABLES.first[length as usize] + place - TABLES.start[length as usize];
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(true);
        }
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit)))
            .collect()
    }

    #[test]
    fn the_strings_of_the_standard_are_read() {
        let examples: [(&[u8], &[u8]); 4] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", b"no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", b"custom-value"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\
                  \x1b\xff",
                b"Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (encoded, text) in examples {
            assert_eq!(decoded(encoded).as_deref(), Some(text));
            assert_eq!(encode(text), encoded);
        }
    }

    #[test]
    fn every_byte_has_a_code_of_its_own() {
        for byte in 0..=255u8 {
            let text = [byte, b'a', byte];
            assert_eq!(decoded(&encode(&text)).as_deref(), Some(&text[..]), "{byte}");
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones_and_the_end_is_never_written() {
        assert_eq!(decoded(b"").as_deref(), Some(&b""[..]));
        assert_eq!(decoded(b"\x1f").as_deref(), Some(&b"a"[..]), "three ones");
        assert_eq!(decoded(b"\x1e"), None, "a zero in the padding");
        assert_eq!(decoded(b"\x1f\xff"), None, "eleven ones");
        assert_eq!(decoded(b"\xff"), None, "eight ones");
        assert_eq!(decoded(b"\xff\xff\xff\xff"), None, "the end of string");
        assert_eq!(decoded(b"\x1f\xff\xff\xff\xff\x1f"), None, "the end of string inside");
    }
}
