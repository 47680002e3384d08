//! Certificates for a test: a CA of the moment, and one certificate of it for this machine's
//! loopback. Never for anything else: the keys lie in the open, and the CA's own is thrown away.

use std::path::{Path, PathBuf};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::trust;

const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What `certificates` is asked for.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where `ca.pem`, `cert.pem` and `key.pem` go
    pub folder: PathBuf,
}

/// Three files in PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The program: makes them, and says where they are.
pub fn main(settings: &Settings) -> Result<(), String> {
    std::fs::create_dir_all(&settings.folder)
        .map_err(|error| format!("{} can't be made: {error}", settings.folder.display()))?;
    let made = make(&settings.folder)?;
    for path in [&made.ca, &made.certificate, &made.key] {
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes a CA and a certificate for [`NAMES`] in `folder`, which exists: ECDSA with P-256, as most
/// servers have.
pub fn make(folder: &Path) -> Result<Certificates, String> {
    let (ca, certificate, key) =
        pem().map_err(|error| format!("certificates can't be made: {error}"))?;
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        let written = std::fs::write(&path, text);
        written.map_err(|error| format!("{} can't be written: {error}", path.display()))?;
        Ok::<PathBuf, String>(path)
    };
    Ok(Certificates {
        ca: write("ca.pem", ca)?,
        certificate: write("cert.pem", certificate)?,
        key: write("key.pem", key)?,
    })
}

/// A server's side of TLS 1.2 and 1.3 with this certificate and key, and the protocols of `alpn`.
pub fn server(
    certificate: &Path,
    key: &Path,
    alpn: &[&str],
) -> Result<rustls::ServerConfig, String> {
    let unusable = |path: &Path, why: String| format!("{} can't be used: {why}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(certificate, error.to_string()))?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    let builder = rustls::ServerConfig::builder_with_provider(trust::provider());
    let mut config = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| unusable(certificate, error.to_string()))?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

fn pem() -> Result<(String, String, String), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "forebay-bench CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let root = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let mut server = CertificateParams::new(NAMES.map(str::to_owned))?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &issuer)?;
    Ok((root.pem(), certificate.pem(), key.serialize_pem()))
}
