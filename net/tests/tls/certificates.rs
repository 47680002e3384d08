//! A small certification authority, for tests.

use std::sync::Arc;

use forebay_net::tls::settings::{Identity, Settings, Terms, Version, terms, tickets};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Paper {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("keys can be made");
        Authority(CertifiedIssuer::self_signed(params, key).expect("it can be signed"))
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Paper {
        self.issue_for(KeyPair::generate(), name, change)
    }

    pub(crate) fn issue_for(
        &self,
        key: Result<KeyPair, rcgen::Error>,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Paper {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a proper name");
        change(&mut params);
        let key = key.expect("keys can be made");
        let certificate = params.signed_by(&key, &self.0).expect("it can be signed");
        Paper { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    pub(crate) fn server(&self, name: &str) -> Paper {
        self.issue(name, |_| {})
    }

    /// A list that revokes certificates with these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).expect("it can be signed").pem().expect("PEM").into_bytes()
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self, paper: Option<&Paper>, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS12, &TLS13])
            .expect("versions that the provider has")
            .with_root_certificates(roots);
        let mut config = match paper {
            Some(paper) => config
                .with_client_auth_cert(vec![paper.der.clone()], paper.private_key())
                .expect("its own key"),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Paper {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key")
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity {
            name: "cert_file".to_owned(),
            chain_pem: self.pem.clone().into_bytes(),
            key_pem: self.key.serialize_pem().into_bytes(),
        }
    }
}

/// What a server has that shows these.
pub(crate) fn settings(papers: &[&Paper]) -> Settings {
    Settings {
        identities: papers.iter().map(|paper| paper.identity()).collect(),
        client_ca_pem: None,
        client_crl_pem: None,
        version_min: Version::Tls12,
        version_max: Version::Tls13,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
    }
}

pub(crate) fn terms_of(settings: &Settings) -> Terms {
    terms(settings, tickets().expect("randomness")).expect("proper settings")
}

/// Names for a certificate: a SPIFFE id, another URI and a wildcard.
pub(crate) fn names(params: &mut CertificateParams) {
    let text = |text: &str| Ia5String::try_from(text).expect("plain text");
    params.subject_alt_names = vec![
        SanType::URI(text("spiffe://example.org/edge/7")),
        SanType::DnsName(text("*.edge.example.org")),
        SanType::URI(text("https://example.org/second")),
        SanType::DnsName(text("agent.example.org")),
    ];
    params.distinguished_name.push(DnType::OrganizationName, "Wells, Fargo + Sons");
    params.distinguished_name.push(DnType::CommonName, "#7 ");
}
