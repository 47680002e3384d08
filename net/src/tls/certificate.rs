//! What is read out of a certificate: for whom it is, of whom, and until when; and out of a list of
//! revoked ones: whose it is, and when the next is due.
//!
//! Only facts: whether a certificate is to be trusted is rustls's to say. Bytes that are no
//! certificate, or no list, yield `None`. RFC 5280, and RFC 4514 for the subject's text.

use std::fmt::Write;

use super::der::{Element, Reader, oid_text, tag, unix_seconds};

const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
/// `[2]` and `[6]` of a GeneralName, primitive.
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
/// What RFC 4514 has short names for.
const NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) subject: String,
    pub(super) dns_names: Vec<String>,
    pub(super) uris: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_after: i64,
}

pub(super) fn read(der: &[u8]) -> Option<Certificate> {
    let outer = Reader(der).expect(tag::SEQUENCE)?;
    let mut fields = outer.inside().expect(tag::SEQUENCE)?.inside();
    fields.take_if(tag::CONTEXT_0);
    fields.expect(tag::INTEGER)?;
    fields.expect(tag::SEQUENCE)?; // The signature's algorithm,
    fields.expect(tag::SEQUENCE)?; // and the issuer.
    let mut validity = fields.expect(tag::SEQUENCE)?.inside();
    validity.next()?;
    let not_after = unix_seconds(validity.next()?)?;
    let subject = name_text(fields.expect(tag::SEQUENCE)?)?;
    fields.expect(tag::SEQUENCE)?; // The key.
    let mut certificate = Certificate { subject, not_after, ..Certificate::default() };
    while !fields.is_empty() {
        let element = fields.next()?;
        if element.tag == tag::CONTEXT_3 {
            read_extensions(element.inside().expect(tag::SEQUENCE)?, &mut certificate)?;
        }
    }
    Some(certificate)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct RevocationList {
    pub(super) issuer: String,
    /// Seconds since 1970.
    pub(super) next_update: i64,
}

/// `None` also for a list that names no day for the next.
pub(super) fn read_list(der: &[u8]) -> Option<RevocationList> {
    let outer = Reader(der).expect(tag::SEQUENCE)?;
    let mut fields = outer.inside().expect(tag::SEQUENCE)?.inside();
    fields.take_if(tag::INTEGER);
    fields.expect(tag::SEQUENCE)?; // The signature's algorithm.
    let issuer = name_text(fields.expect(tag::SEQUENCE)?)?;
    fields.next()?; // When it was made.
    let next_update = unix_seconds(fields.next()?)?;
    Some(RevocationList { issuer, next_update })
}

fn read_extensions(extensions: Element<'_>, certificate: &mut Certificate) -> Option<()> {
    let mut extensions = extensions.inside();
    while !extensions.is_empty() {
        let mut extension = extensions.expect(tag::SEQUENCE)?.inside();
        let id = extension.expect(tag::OID)?;
        extension.take_if(tag::BOOLEAN);
        let value = extension.expect(tag::OCTET_STRING)?;
        if id.contents == SUBJECT_ALT_NAME {
            read_names(value.inside().expect(tag::SEQUENCE)?, certificate)?;
        }
    }
    Some(())
}

fn read_names(names: Element<'_>, certificate: &mut Certificate) -> Option<()> {
    let mut names = names.inside();
    while !names.is_empty() {
        let name = names.next()?;
        // A name with bytes that no name has is left out: it can then match nothing.
        let is_plain = name.contents.iter().all(u8::is_ascii_graphic);
        let text = || name.contents.iter().map(|byte| char::from(*byte)).collect();
        match name.tag {
            DNS_NAME if is_plain => certificate.dns_names.push(text()),
            URI if is_plain => certificate.uris.push(text()),
            _ => {}
        }
    }
    Some(())
}

/// RFC 4514: the most specific part first.
fn name_text(name: Element<'_>) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = name.inside();
    while !sets.is_empty() {
        let mut values = sets.expect(tag::SET)?.inside();
        let mut texts = Vec::new();
        while !values.is_empty() {
            let mut value = values.expect(tag::SEQUENCE)?.inside();
            texts.push(attribute_text(value.expect(tag::OID)?, value.next()?)?);
        }
        parts.push(texts.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute_text(kind: Element<'_>, value: Element<'_>) -> Option<String> {
    let kind = oid_text(kind.contents)?;
    let short = NAMES.iter().find(|(oid, _)| *oid == kind).map(|(_, name)| *name);
    let is_text = matches!(value.tag, tag::UTF8 | tag::PRINTABLE | tag::IA5);
    let text = std::str::from_utf8(value.contents).ok().filter(|_| is_text);
    Some(match (short, text) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(text)),
        (name, _) => format!("{}=#{}", name.unwrap_or(&kind), hex(value.whole)),
    })
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (index, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', c]),
            ' ' if index == 0 || index == last => escaped.push_str("\\ "),
            '#' if index == 0 => escaped.push_str("\\#"),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(escaped, "\\{byte:02x}");
                }
            }
            c => escaped.push(c),
        }
    }
    escaped
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
