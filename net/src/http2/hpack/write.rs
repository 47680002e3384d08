//! HPACK (RFC 7541), the writing side of its primitives: integers and texts. No table, no Huffman.

/// An integer behind `pattern`, which leaves `prefix` bits of its first byte to it (section 5.1).
pub(crate) fn put_integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let full = (1_usize << prefix) - 1;
    if value < full {
        return out.push(pattern | value as u8);
    }
    out.push(pattern | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A text as it is (section 5.2).
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}
