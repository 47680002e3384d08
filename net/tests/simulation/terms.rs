//! The certificates of the simulation: made once, with signatures of one length, so that a day
//! goes the same way each time it is lived through.

use std::sync::{Arc, OnceLock};

use forebay_net::tls::settings::{Identity, Settings, Version, terms, tickets};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

#[derive(Clone)]
pub(crate) struct Both {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

/// For one day: its clients resume no session of another day's.
pub(crate) fn fresh() -> Both {
    let mut both = both().clone();
    let client = Arc::make_mut(&mut both.client);
    client.resumption = Resumption::in_memory_sessions(8);
    both
}

fn both() -> &'static Both {
    static BOTH: OnceLock<Both> = OnceLock::new();
    BOTH.get_or_init(make)
}

fn make() -> Both {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("keys can be made");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a proper name");
    let certificate = params.self_signed(&key).expect("it can be signed");
    let settings = Settings {
        identities: vec![Identity {
            name: "simulation".to_owned(),
            chain_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        }],
        client_ca_pem: None,
        client_crl_pem: None,
        version_min: Version::Tls12,
        version_max: Version::Tls13,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
    };
    let terms = terms(&settings, tickets().expect("randomness")).expect("proper settings");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Both { server: terms.config, client: Arc::new(client) }
}
