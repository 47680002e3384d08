//! Who a client proves to be, by a certificate, and why it comes to nothing where it can't.

use std::sync::Arc;

use forebay_net::quic::{Config, Tls};
use forebay_net::tls::Failure;
use quinn_proto::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ED25519, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::edges::{Client, Pair, config};
use crate::{papers, terms};

struct Paper {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key()).expect("it can be signed")
}

fn issue(issuer: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Paper {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "agent-7");
    let uri = "spiffe://example.org/agent".try_into().expect("ASCII");
    params.subject_alt_names.push(SanType::URI(uri));
    change(&mut params);
    let key = key();
    let der = params.signed_by(&key, issuer).expect("it can be signed").der().clone();
    Paper { der, key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key") }
}

/// A server that lets in who has a certificate of `issuer`, and a client with `paper`.
fn meet(issuer: &Issuer, paper: Option<Paper>, alpn: &[u8]) -> Pair {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (shown, key) = papers::certificate();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is known")
        .with_client_cert_verifier(verifier.build().expect("a root"))
        .with_single_cert(vec![shown.clone()], key)
        .expect("the key is the certificate's");
    server.alpn_protocols = vec![b"h3".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(shown).expect("it is its own authority");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is known")
        .with_root_certificates(roots);
    let mut client = match paper {
        Some(Paper { der, key }) => client.with_client_auth_cert(vec![der], key).expect("its key"),
        None => client.with_no_client_auth(),
    };
    client.alpn_protocols = vec![alpn.to_vec()];
    let client = QuicClientConfig::try_from(client).expect("its suites are QUIC's");
    let tls = Tls::new(Arc::new(server)).expect("for QUIC");
    let mut pair = Pair::new(Config { tls, ..config(0, 1) });
    let address = pair.client.address;
    pair.client = Client::with(address, 2, |dice| terms::client_with(dice, Arc::new(client)));
    pair.exchange();
    pair
}

#[test]
fn a_request_comes_with_the_name_that_its_client_proved() {
    let issuer = issuer("ours");
    let mut pair = meet(&issuer, Some(issue(&issuer, |_| {})), b"h3");
    pair.client.ask();
    pair.exchange();
    let request = pair.requests.pop().expect("the request");
    let peer = request.head.peer.expect("it has a certificate");
    assert_eq!(peer.uri.as_deref(), Some("spiffe://example.org/agent"));
    assert_eq!(peer.subject, "CN=agent-7");
    let mut nobody = Pair::new(config(0, 1));
    nobody.exchange();
    nobody.client.ask();
    nobody.exchange();
    assert_eq!(nobody.requests.pop().expect("the request").head.peer, None);
}

#[test]
fn a_handshake_that_comes_to_nothing_is_counted_by_its_reason() {
    let (ours, theirs, liar) = (issuer("ours"), issuer("theirs"), issuer("ours"));
    let expired = issue(&ours, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let cases: [(Option<Paper>, &[u8], Failure); 5] = [
        (None, b"h3", Failure::BadCertificate),
        (Some(expired), b"h3", Failure::Expired),
        (Some(issue(&theirs, |_| {})), b"h3", Failure::UnknownCa),
        (Some(issue(&liar, |_| {})), b"h3", Failure::BadCertificate),
        (Some(issue(&ours, |_| {})), b"h9", Failure::NoCommonProtocol),
    ];
    for (paper, alpn, expected) in cases {
        let pair = meet(&ours, paper, alpn);
        let stats = pair.quic.stats();
        let counted = Failure::ALL.iter().zip(stats.failures).filter(|(_, count)| *count > 0);
        assert_eq!(counted.collect::<Vec<_>>(), [(&expected, 1)], "{stats:?}");
        assert_eq!((stats.handshakes, stats.handshakes_failed), (0, 1));
    }
}
