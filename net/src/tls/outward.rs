//! TLS towards a server: from PEM texts and a name to what a connection is made with.
//!
//! Always
//! - Nothing is resumed: what the server shows is judged at each connection, by whom is trusted
//!   then.
//! - Faults are sentences for an operator, and never show a key.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::settings::{
    Identity, Shown, ShownKind, Version, certificates, read_identity, versions_of,
};
use crate::dial::Security;

/// What a destination with TLS has, shared by all cores.
pub struct Initiator(ArcSwap<Security>);

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator")
    }
}

impl Initiator {
    pub fn new(security: Security) -> Initiator {
        Initiator(ArcSwap::from_pointee(security))
    }

    /// From now on new connections are made with `security`.
    pub fn replace(&self, security: Security) {
        self.0.store(Arc::new(security));
    }

    /// What a new connection is made with.
    pub fn security(&self) -> Arc<Security> {
        self.0.load_full()
    }
}

/// All that the terms of a connection depend on.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub trust: Trust,
    /// What is shown to a server that asks for it.
    pub identity: Option<Identity>,
    /// What the server's certificate must be for; `None`: the host that is dialled.
    pub server_name: Option<String>,
    pub version_min: Version,
    pub version_max: Version,
    /// The one that is spoken above, by its ALPN name.
    pub protocol: &'static str,
}

/// Whose word is taken for who a server is.
#[derive(Clone, PartialEq, Eq)]
pub enum Trust {
    /// These CAs'.
    Cas {
        /// PEM; where it comes from is for messages.
        given: Option<(String, Vec<u8>)>,
        /// The system's, as DER: those that can't be read are left out.
        system: Vec<Vec<u8>>,
    },
    /// Nobody's: whoever answers is taken for the server.
    Unverified,
}

/// Settings that were read.
pub struct Terms {
    pub security: Security,
    /// Our own certificate, if there is one.
    pub shown: Vec<Shown>,
}

/// # Errors
/// What is wrong, to go on after the name of the settings.
pub fn terms(settings: &Settings) -> Result<Terms, String> {
    let provider = Arc::new(default_provider());
    let versions = versions_of(settings.version_min, settings.version_max)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| format!("cipher suites and versions do not fit: {error}"))?;
    let builder = match &settings.trust {
        Trust::Cas { given, system } => {
            builder.with_root_certificates(roots(given.as_ref(), system)?)
        }
        Trust::Unverified => {
            let anybody = anybody(provider.clone());
            builder.dangerous().with_custom_certificate_verifier(anybody)
        }
    };
    let (mut config, shown) = match &settings.identity {
        None => (builder.with_no_client_auth(), Vec::new()),
        Some(identity) => {
            let (resolver, shown) = own(identity, &provider)?;
            (builder.with_client_cert_resolver(resolver), vec![shown])
        }
    };
    config.alpn_protocols = vec![settings.protocol.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    let name = settings.server_name.as_deref().map(server_name).transpose()?;
    Ok(Terms { security: Security { config: Arc::new(config), name }, shown })
}

/// A host's name or address, as a certificate may be for it.
///
/// # Errors
/// No certificate can be.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("no certificate can be for the host \"{bare}\""))
}

fn roots(given: Option<&(String, Vec<u8>)>, system: &[Vec<u8>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some((name, pem)) = given {
        for der in certificates(pem).map_err(|why| format!("{name}: {why}"))? {
            roots.add(der).map_err(|error| format!("{name}: no CA's certificate: {error}"))?;
        }
    }
    roots.add_parsable_certificates(system.iter().map(|der| CertificateDer::from(der.as_slice())));
    match roots.is_empty() {
        true => Err("there is no CA to trust".to_owned()),
        false => Ok(roots),
    }
}

fn own(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<(Arc<dyn ResolvesClientCert>, Shown), String> {
    let (key, certificate) =
        read_identity(identity, provider).map_err(|why| format!("{}: {why}", identity.name))?;
    let (subject, not_after) = (certificate.subject, certificate.not_after);
    let shown =
        Shown { kind: ShownKind::Certificate, name: identity.name.clone(), subject, not_after };
    Ok((Arc::new(SingleCertAndKey::from(key)), shown))
}

/// Takes any certificate; that the server has its key is still proved.
pub fn anybody(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(provider))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_what_urls_and_resolvers_add() {
        let name = |host| server_name(host).map(|name| name.to_str().into_owned());
        assert_eq!(name("a.example").as_deref(), Ok("a.example"));
        assert_eq!(name("a.example.").as_deref(), Ok("a.example"));
        assert_eq!(name("10.0.0.1").as_deref(), Ok("10.0.0.1"));
        assert_eq!(name("[::1]").as_deref(), Ok("::1"));
        assert_eq!(name("::1").as_deref(), Ok("::1"));
        assert!(matches!(server_name("[::1]"), Ok(ServerName::IpAddress(_))));
        for host in ["", ".", "a b", "[a", "a\n"] {
            assert!(name(host).is_err(), "{host:?}");
        }
    }
}
