//! Keys where they do not belong: found in a text, and left out of what is shown.
//!
//! Knows PEM, whole or in part, and base64 of PEM or of DER. Always: what begins with a slash is a
//! path, and rather too much is left out of a message than a part of a key shown.

const MASK: &str = "[REDACTED]";
const PEM_BEGIN: &str = "-----BEGIN";
const PEM_END: &str = "-----END";
const PEM_KEY: &str = "PRIVATE KEY";
/// How base64 of [`PEM_BEGIN`] begins.
const ENCODED_BEGIN: &str = "LS0tLS1CRUdJTi";

/// Whether PEM is in a text, or a part of a key.
pub(crate) fn holds_pem(text: &str) -> bool {
    text.contains(PEM_BEGIN) || holds_key(text)
}

/// Whether a private key is in a text, or base64 of what may be one.
pub(crate) fn holds_key(text: &str) -> bool {
    text.contains(PEM_KEY) || encoded_key(text).is_some()
}

/// Whether base64 of anything stands where a path should. Names have dots, or slashes close by.
pub(crate) fn is_base64(text: &str) -> bool {
    const BYTES_MIN: usize = 100;
    const NAME_BYTES_MAX: usize = 40;
    let has = |wanted: fn(&char) -> bool| text.chars().any(|c| wanted(&c));
    text.len() >= BYTES_MIN
        && !text.starts_with('/')
        && text.chars().all(|c| is_of_base64(c) || c == '=' || c == ' ')
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_digit)
        && text.split('/').any(|name| name.len() > NAME_BYTES_MAX)
}

/// A text for people, without any key or certificate in it.
pub(crate) fn without_keys(text: String) -> String {
    let text = without_pem(text);
    match encoded_key(&text) {
        Some(begin) => format!("{}{MASK}", &text[..begin]),
        None => text,
    }
}

/// From where PEM begins to where the last of it ends; of what is cut off, to the text's own end.
fn without_pem(text: String) -> String {
    let Some(begin) = [PEM_BEGIN, PEM_KEY].iter().filter_map(|mark| text.find(mark)).min() else {
        return text;
    };
    // What ends and never began has begun before the text did.
    let is_cut_off = text.find(PEM_END).is_some_and(|end| end < begin);
    let begin = if is_cut_off { 0 } else { begin };
    let rest = &text[begin..];
    let last = &rest[rest.rfind(PEM_BEGIN).unwrap_or(0)..];
    let behind = last.split_once(PEM_END).and_then(|(_, label)| label.split_once("-----"));
    let behind = behind.map_or("", |(_, behind)| behind);
    let behind = if behind.contains(PEM_KEY) { "" } else { behind };
    format!("{}{MASK}{behind}", &text[..begin])
}

/// Where base64 of PEM or of a key begins.
fn encoded_key(text: &str) -> Option<usize> {
    let mut at = 0;
    let of_der = text.split_inclusive(|c| !is_of_base64(c)).find_map(|word| {
        let begin = at;
        at += word.len();
        is_key_of_der(word.trim_end_matches(|c| !is_of_base64(c))).then_some(begin)
    });
    [text.find(ENCODED_BEGIN), of_der].into_iter().flatten().min()
}

/// Both alphabets, without the filling at the end.
fn is_of_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/-_".contains(c)
}

/// A key of any kind is a sequence that begins with a small number, its version.
fn is_key_of_der(word: &str) -> bool {
    const BYTES_MIN: usize = 40;
    if word.len() < BYTES_MIN {
        return false;
    }
    match decoded_start(word.as_bytes()) {
        [0x30, 0x82, _, _, 2, 1, version, ..]
        | [0x30, 0x81, _, 2, 1, version, ..]
        | [0x30, 0..=0x7f, 2, 1, version, ..] => version <= 3,
        _ => false,
    }
}

/// The first nine bytes of a word of base64 that has them.
fn decoded_start(word: &[u8]) -> [u8; 9] {
    let mut bytes = [0; 9];
    for (bytes, digits) in bytes.chunks_exact_mut(3).zip(word.chunks_exact(4)) {
        let bits = digits.iter().fold(0, |bits, digit| (bits << 6) | value(*digit));
        bytes.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    bytes
}

fn value(digit: u8) -> u32 {
    u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        _ => 63,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_no_content_however_long_they_are() {
        let deep = "/var/lib/Kubernetes/pods/0123456789abcdef/volumes/Secrets/".repeat(4);
        let near = "Certs/production/eu-west-1/collectors/gateway-0017/tls-private-key/".repeat(3);
        let dotted = format!("{}.key.pem", "Gateway0".repeat(20));
        for path in [&deep, &near, &dotted, "/k", "tls.key", "MII.pem", "M", "", "certs/key"] {
            assert!(!is_base64(path) && !holds_pem(path), "{path}");
            assert_eq!(&without_keys(path.to_owned()), path);
        }
    }

    #[test]
    fn nothing_of_what_is_cut_off_is_shown_and_what_follows_a_whole_one_is() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        for (text, shown) in [
            (format!("a {certificate} b"), "a [REDACTED] b"),
            (format!("a {certificate}\n{certificate} b"), "a [REDACTED] b"),
            (format!("a {certificate}\n-----BEGIN PRIVATE KEY-----\nSECRET"), "a [REDACTED]"),
            (format!("a {certificate} -----BEGIN EC PRIV"), "a [REDACTED]"),
            ("a EC PRIVATE KEY-----\nSECRET".to_owned(), "a EC [REDACTED]"),
            ("SECRET\n-----END PRIVATE KEY----- b".to_owned(), "[REDACTED] b"),
            (format!("SECRET\n-----END X----- {certificate} b"), "[REDACTED] b"),
            ("no key".to_owned(), "no key"),
        ] {
            assert_eq!(without_keys(text.clone()), shown, "{text}");
        }
    }
}
