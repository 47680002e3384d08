//! Numbers of JSON as numbers of protobuf, without losing a digit on the way.

use super::token::number_bytes;

/// The integer that a JSON number stands for: `7`, `-7`, `7.0`, `7e2`. `None`: it has a fraction,
/// or more digits than any 64-bit number.
pub(super) fn integer(text: &[u8]) -> Option<i128> {
    let text = str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = Vec::new();
    digits.extend(whole.bytes().chain(decimals.bytes()).skip_while(|&digit| digit == b'0'));
    let trailing_zeros = digits.iter().rev().take_while(|&&digit| digit == b'0').count();
    digits.truncate(digits.len() - trailing_zeros);
    if digits.is_empty() {
        return Some(0);
    }
    // The value is `digits` with this many zeros behind it; a minus means a fraction.
    let exponent: i64 = exponent.parse().ok()?;
    let zeros = exponent.checked_add(trailing_zeros as i64)?.checked_sub(decimals.len() as i64)?;
    let zeros = usize::try_from(zeros).ok()?;
    if digits.len().checked_add(zeros)? > DIGITS_MAX {
        return None;
    }
    let all = digits.into_iter().chain(std::iter::repeat_n(b'0', zeros));
    let value = all.fold(0, |value, digit| value * 10 + i128::from(digit - b'0'));
    Some(if negative { -value } else { value })
}

/// The nearest double. `None`: beyond the largest one.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    let text = str::from_utf8(text).ok()?;
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Whether this is a JSON number and nothing else, for numbers in strings.
pub(super) fn is_number(text: &[u8]) -> bool {
    number_bytes(text) == Some(text.len())
}

/// `u64::MAX` has 20 digits.
const DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j5_integers_are_exact_in_every_notation() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0.0e5", Some(0)),
            ("18446744073709551615", Some(u64::MAX.into())),
            ("-9223372036854775808", Some(i64::MIN.into())),
            ("9007199254740993", Some(9007199254740993)),
            ("9007199254740993.0", Some(9007199254740993)),
            ("1e3", Some(1000)),
            ("1.5E+3", Some(1500)),
            ("1200e-2", Some(12)),
            ("1200e-3", None),
            ("0.5", None),
            ("1e19", Some(10_000_000_000_000_000_000)),
            ("1e20", None),
            ("1e99999999999999999999", None),
            ("1e-99999999999999999999", None),
            ("1e9223372036854775807", None),
        ];
        for (text, expected) in cases {
            assert!(is_number(text.as_bytes()), "{text}");
            assert_eq!(integer(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn only_the_grammar_of_json_makes_a_number() {
        for text in ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "inf", "NaN", " 1", "1 "]
        {
            assert!(!is_number(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn j6_a_double_beyond_the_largest_is_none() {
        assert_eq!(double(b"1.7976931348623157e308"), Some(f64::MAX));
        assert_eq!(double(b"1e309"), None);
        assert_eq!(double(b"5e-400"), Some(0.0));
    }
}
