//! TLS records made by hand, with the keys of a real handshake: what no library would send.

use std::sync::Arc;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use forebay_net::ring::fake::Client;
use forebay_net::tls::settings::Version;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConnectionTrafficSecrets, RootCertStore};

use crate::certificates::Authority;
use crate::place::Visitor;

const DATA: u8 = 23;
const TAG_BYTES: usize = 16;

/// A connection whose handshake is done, and which says whatever a test wants.
pub(crate) struct Forger {
    pub(crate) client: Client,
    version: Version,
    key: LessSafeKey,
    iv: [u8; 12],
    number: u64,
}

impl Forger {
    /// A client of one version, with the suites whose records are the same in both.
    pub(crate) fn config(authority: &Authority, version: Version) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).expect("a certificate");
        let mut provider = default_provider();
        provider.cipher_suites =
            vec![TLS13_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
        let versions = if version == Version::Tls12 { [&TLS12] } else { [&TLS13] };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        Arc::new(config)
    }

    pub(crate) fn new(visitor: Visitor, version: Version) -> Forger {
        let Visitor { client, tls, .. } = visitor;
        let secrets = tls.dangerous_extract_secrets().expect("the handshake is done");
        let (number, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets.tx else {
            panic!("the suites that it offered");
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("a key of its length");
        let iv = iv.as_ref().try_into().expect("12 bytes");
        Forger { client, version, key: LessSafeKey::new(key), iv, number }
    }

    /// One record of this kind.
    pub(crate) fn seal(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        let number = self.number.to_be_bytes();
        nonce[4..].iter_mut().zip(number).for_each(|(byte, counted)| *byte ^= counted);
        self.number += 1;
        let mut sealed = text.to_vec();
        let (shown, aad) = match self.version {
            // RFC 8446, 5.2: the kind is sealed as well.
            Version::Tls13 => {
                sealed.push(kind);
                (DATA, head(DATA, sealed.len() + TAG_BYTES).to_vec())
            }
            // RFC 5246, 6.2.3.3.
            Version::Tls12 => (kind, [&number[..], &head(kind, text.len())].concat()),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).expect("it fits");
        [&head(shown, sealed.len())[..], &sealed].concat()
    }
}

fn head(kind: u8, bytes: usize) -> [u8; 5] {
    let [high, low] = (bytes as u16).to_be_bytes();
    [kind, 3, 3, high, low]
}
