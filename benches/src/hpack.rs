//! Header blocks of HTTP/2: a decoder for whatever a peer writes, and the little that we write.
//!
//! Load and sink see the same few blocks a million times, so what a block means is remembered by
//! its bytes for as long as the dynamic table stays as it is.
//!
//! Source: RFC 7541.

use std::collections::{HashMap, VecDeque};

use httlib_huffman::DecoderSpeed;

/// What an encoder may use before it is told otherwise, and what we leave it at.
pub const TABLE_BYTES: usize = 4096;
/// Blocks remembered per connection; a peer whose blocks never repeat costs no more than this.
const CACHE_BLOCKS_MAX: usize = 64;
const ENTRY_OVERHEAD_BYTES: usize = 32;

pub type Field = (Vec<u8>, Vec<u8>);

/// Decodes one direction of a connection. `T` is what the caller wants to know of a block.
pub struct Decoder<T> {
    summarise: fn(&[Field]) -> T,
    dynamic: VecDeque<Field>,
    dynamic_bytes: usize,
    dynamic_bytes_max: usize,
    known: HashMap<Vec<u8>, T>,
    fields: Vec<Field>,
}

impl<T: Clone> Decoder<T> {
    pub fn new(summarise: fn(&[Field]) -> T) -> Decoder<T> {
        Decoder {
            summarise,
            dynamic: VecDeque::new(),
            dynamic_bytes: 0,
            dynamic_bytes_max: TABLE_BYTES,
            known: HashMap::new(),
            fields: Vec::new(),
        }
    }

    /// What a whole block (with its continuations) says. An error is the connection's end: the
    /// tables of both sides can't be trusted to agree any more.
    pub fn decode(&mut self, block: &[u8]) -> Result<T, String> {
        if let Some(known) = self.known.get(block) {
            return Ok(known.clone());
        }
        self.fields.clear();
        let mut at = 0;
        let mut changed = false;
        while at < block.len() {
            changed |= self.representation(block, &mut at)?;
        }
        let meaning = (self.summarise)(&self.fields);
        if changed || self.known.len() >= CACHE_BLOCKS_MAX {
            self.known.clear();
        }
        if !changed {
            self.known.insert(block.to_vec(), meaning.clone());
        }
        Ok(meaning)
    }

    /// Reads one representation (section 6); true if it changed the dynamic table.
    fn representation(&mut self, block: &[u8], at: &mut usize) -> Result<bool, String> {
        match block[*at] {
            0x80.. => {
                let index = integer(block, at, 7)?;
                let field = self.indexed(index)?;
                self.fields.push(field);
                Ok(false)
            }
            0x40.. => {
                let field = self.literal(block, at, 6)?;
                self.fields.push(field.clone());
                self.insert(field);
                Ok(true)
            }
            0x20.. => {
                let bytes_max = integer(block, at, 5)?;
                if bytes_max > TABLE_BYTES {
                    return Err("a header table larger than it may be".to_owned());
                }
                self.dynamic_bytes_max = bytes_max;
                self.evict();
                Ok(true)
            }
            _ => {
                let field = self.literal(block, at, 4)?;
                self.fields.push(field);
                Ok(false)
            }
        }
    }

    fn literal(&self, block: &[u8], at: &mut usize, prefix: u32) -> Result<Field, String> {
        let name = match integer(block, at, prefix)? {
            0 => string(block, at)?,
            index => self.indexed(index)?.0,
        };
        Ok((name, string(block, at)?))
    }

    fn indexed(&self, index: usize) -> Result<Field, String> {
        let missing = || format!("header table index {index} means nothing");
        match index.checked_sub(1).ok_or_else(missing)? {
            place if place < STATIC.len() => {
                let (name, value) = STATIC[place];
                Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            }
            place => self.dynamic.get(place - STATIC.len()).cloned().ok_or_else(missing),
        }
    }

    fn insert(&mut self, field: Field) {
        self.dynamic_bytes += entry_bytes(&field);
        self.dynamic.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.dynamic_bytes > self.dynamic_bytes_max {
            let Some(oldest) = self.dynamic.pop_back() else { break };
            self.dynamic_bytes -= entry_bytes(&oldest);
        }
    }
}

fn entry_bytes(field: &Field) -> usize {
    field.0.len() + field.1.len() + ENTRY_OVERHEAD_BYTES
}

/// Section 5.1; the same in QPACK.
pub fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Result<usize, String> {
    let full = (1usize << prefix) - 1;
    let mut value = usize::from(byte(block, at)?) & full;
    if value < full {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let next = byte(block, at)?;
        value += usize::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(value);
        }
    }
    Err("a header integer that is too long".to_owned())
}

/// Section 5.2; the same in QPACK.
pub fn string(block: &[u8], at: &mut usize) -> Result<Vec<u8>, String> {
    let is_huffman = block.get(*at).is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, at, 7)?;
    let raw = block.get(*at..).and_then(|rest| rest.get(..length)).ok_or(TRUNCATED)?;
    *at += length;
    if !is_huffman {
        return Ok(raw.to_vec());
    }
    let mut text = Vec::new();
    httlib_huffman::decode(raw, &mut text, DecoderSpeed::FourBits)
        .map_err(|error| format!("a header that is no Huffman code: {error:?}"))?;
    Ok(text)
}

fn byte(block: &[u8], at: &mut usize) -> Result<u8, String> {
    let byte = *block.get(*at).ok_or(TRUNCATED)?;
    *at += 1;
    Ok(byte)
}

const TRUNCATED: &str = "a header block that ends inside a field";

/// A field that is in the static table as a whole.
pub fn put_indexed(block: &mut Vec<u8>, index: u8) {
    block.push(0x80 | index);
}

/// A field that goes into the dynamic table (`is_kept`) or not, spelled out.
pub fn put_literal(block: &mut Vec<u8>, is_kept: bool, name: &str, value: &str) {
    block.push(if is_kept { 0x40 } else { 0 });
    put_string(block, name);
    put_string(block, value);
}

fn put_string(block: &mut Vec<u8>, text: &str) {
    put_integer(block, 0, 7, text.len());
    block.extend_from_slice(text.as_bytes());
}

fn put_integer(block: &mut Vec<u8>, head: u8, prefix: u32, mut value: usize) {
    let full = (1usize << prefix) - 1;
    if value < full {
        return block.push(head | value as u8);
    }
    block.push(head | full as u8);
    value -= full;
    while value >= 0x80 {
        block.push(value as u8 | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

/// Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder<Vec<Field>>, hex: &str) -> Vec<(String, String)> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let block: Vec<u8> = digits.chunks(2).map(|pair| byte(pair).unwrap()).collect();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let fields = decoder.decode(&block).unwrap();
        fields.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// The first and second request of RFC 7541, appendix C.4, which the second time stand in
    /// the dynamic table.
    #[test]
    fn the_examples_of_the_rfc_decode_with_huffman_and_the_dynamic_table() {
        let mut decoder = Decoder::new(|fields| fields.to_vec());
        let first = decode(&mut decoder, "828684418cf1e3c2e5f23a6ba0ab90f4ff");
        assert_eq!(first[3], (":authority".to_owned(), "www.example.com".to_owned()));
        let second = decode(&mut decoder, "828684be5886a8eb10649cbf");
        assert_eq!(second[3], first[3]);
        assert_eq!(second[4], ("cache-control".to_owned(), "no-cache".to_owned()));
    }

    #[test]
    fn a_block_that_is_remembered_is_forgotten_when_the_table_changes() {
        let mut decoder = Decoder::new(|fields| fields.to_vec());
        let insert = |value: &str, decoder: &mut Decoder<Vec<Field>>| {
            let mut block = Vec::new();
            put_literal(&mut block, true, "grpc-status", value);
            decoder.decode(&block).unwrap();
        };
        insert("0", &mut decoder);
        let newest = [0x80 | 62];
        assert_eq!(decoder.decode(&newest).unwrap()[0].1, b"0");
        assert_eq!(decoder.decode(&newest).unwrap()[0].1, b"0");
        insert("14", &mut decoder);
        assert_eq!(decoder.decode(&newest).unwrap()[0].1, b"14");
    }

    #[test]
    fn no_block_panics_the_decoder() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut decoder = Decoder::new(|fields| fields.len());
            let block: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            let _ = decoder.decode(&block);
        }
    }
}
