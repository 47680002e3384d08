//! From PEM texts and names to what rustls needs: a `ServerConfig` that no connection changes.
//!
//! One function for all doors: TCP and QUIC differ in their [`Door`] alone. Faults are sentences
//! for an operator, and never show a key.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, Ticketer, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, Error, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::certificate;

/// The names that `curve_preferences` may have, as the Collector writes them.
const CURVES: [(&str, &dyn SupportedKxGroup); 5] = [
    ("X25519", kx_group::X25519),
    ("P256", kx_group::SECP256R1),
    ("P384", kx_group::SECP384R1),
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("SecP256r1MLKEM768", kx_group::SECP256R1MLKEM768),
];

/// PEM texts: a chain, our own certificate first, and its key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// For messages: where the texts come from.
    pub name: String,
    pub chain_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tls12,
    Tls13,
}

/// All that the terms of a door depend on.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The first is what a client gets that names none of the others.
    pub identities: Vec<Identity>,
    /// If given, clients need a certificate that one of these CAs vouches for, each time: nothing
    /// is resumed.
    pub client_ca_pem: Option<Vec<u8>>,
    /// Revocation lists of those CAs, of each of them.
    pub client_crl_pem: Option<Vec<u8>>,
    pub version_min: Version,
    pub version_max: Version,
    /// IANA's names; none: all that are known. Those of TLS 1.3 are limited only if one is named.
    pub cipher_suites: Vec<String>,
    /// In the order of preference; none: rustls's own.
    pub curves: Vec<String>,
}

/// What is spoken behind TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// HTTP/2 and HTTP/1.1.
    Tcp,
    /// HTTP/3.
    Quic,
}

impl Door {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Door::Tcp => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Door::Quic => vec![b"h3".to_vec()],
        }
    }
}

/// Who we say we are, or by what we refuse clients: what is out of date one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub kind: ShownKind,
    pub name: String,
    /// Of a list its issuer.
    pub subject: String,
    /// Seconds since 1970; of a list when the next is due.
    pub not_after: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownKind {
    Certificate,
    RevocationList,
}

/// Settings that were read, and can serve every door.
#[derive(Clone, Debug)]
pub struct Terms {
    pub config: Arc<ServerConfig>,
    /// The server's own certificates, in the order of the settings, then the revocation lists.
    pub shown: Vec<Shown>,
    /// Those of its certificates that no client ever gets: it asks for a name, and they have none.
    pub never_shown: Vec<String>,
}

impl Terms {
    /// The same for another door.
    pub fn for_door(&self, door: Door) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = door.protocols();
        Arc::new(config)
    }
}

/// See [`tickets`].
#[derive(Clone, Debug)]
pub struct TicketKeys(Arc<dyn ProducesTickets>);

/// The keys that seal what a client needs to resume. Who shares them resumes the other's clients,
/// so they belong to one set of terms; a key is used for six hours, and read for six more. The
/// lock inside is a reader's lock: taken twice a handshake, and written to once in six hours.
pub fn tickets() -> Result<TicketKeys, String> {
    Ticketer::new()
        .map(TicketKeys)
        .map_err(|error| format!("no keys for session tickets can be made: {error}"))
}

/// Names that `cipher_suites` may have.
pub fn cipher_suite_names() -> Vec<String> {
    ALL_CIPHER_SUITES.iter().map(|suite| suite_name(suite.suite())).collect()
}

/// Names that `curve_preferences` may have.
pub fn curve_names() -> [&'static str; CURVES.len()] {
    CURVES.map(|(name, _)| name)
}

/// The terms for TCP.
///
/// # Errors
/// What is wrong, to go on after the name of the settings: `cert_file a.pem: no certificate ...`.
pub fn terms(settings: &Settings, tickets: TicketKeys) -> Result<Terms, String> {
    let provider = Arc::new(provider(settings)?);
    let (certificates, mut shown) = Certificates::read(&settings.identities, &provider)?;
    shown.extend(lists(settings));
    let never_shown = certificates.never_shown.clone();
    let versions = versions_of(settings.version_min, settings.version_max)?;
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| format!("cipher suites, curves and versions do not fit: {error}"))?
        .with_client_cert_verifier(verifier(settings, &provider)?);
    let mut config = config.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = Door::Tcp.protocols();
    match settings.client_ca_pem {
        // rustls looks at no certificate again when a session is resumed: one that has expired
        // since, or was revoked, would be good for ever.
        Some(_) => config.send_tls13_tickets = 0,
        None => config.ticketer = tickets.0,
    }
    // Tickets resume on every core; a store of sessions would be one lock for all.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Terms { config: Arc::new(config), shown, never_shown })
}

fn provider(settings: &Settings) -> Result<CryptoProvider, String> {
    let mut provider = default_provider();
    if !settings.cipher_suites.is_empty() {
        provider.cipher_suites = cipher_suites(&settings.cipher_suites)?;
    }
    if !settings.curves.is_empty() {
        provider.kx_groups = curves(&settings.curves)?;
    }
    Ok(provider)
}

fn cipher_suites(names: &[String]) -> Result<Vec<rustls::SupportedCipherSuite>, String> {
    for name in names {
        if !cipher_suite_names().contains(name) {
            let known = cipher_suite_names().join(", ");
            return Err(format!("unknown cipher suite \"{name}\"; known are {known}"));
        }
    }
    let is_named = |suite: CipherSuite| names.contains(&suite_name(suite));
    let is_13 = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
    let limits_13 = ALL_CIPHER_SUITES.iter().any(|s| is_13(s) && is_named(s.suite()));
    let mut suites: Vec<_> = ALL_CIPHER_SUITES.to_vec();
    suites.retain(|suite| is_named(suite.suite()) || (is_13(suite) && !limits_13));
    Ok(suites)
}

/// IANA's name: rustls writes TLS 1.3's otherwise.
fn suite_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or_default();
    name.replacen("TLS13_", "TLS_", 1)
}

fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    let find = |name: &String| {
        let found = CURVES.iter().find(|(known, _)| known == name).map(|(_, group)| *group);
        let known = || curve_names().join(", ");
        found.ok_or_else(|| format!("unknown curve \"{name}\"; known are {}", known()))
    };
    names.iter().map(find).collect()
}

pub(super) fn versions_of(
    min: Version,
    max: Version,
) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    if min > max {
        return Err("min_version is higher than max_version".to_owned());
    }
    let range = min..=max;
    let all = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
    Ok(all.into_iter().filter(|(v, _)| range.contains(v)).map(|(_, version)| version).collect())
}

fn verifier(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let Some(pem) = &settings.client_ca_pem else {
        return match settings.client_crl_pem {
            Some(_) => Err("client_crl_file without client_ca_file revokes nothing".to_owned()),
            None => Ok(WebPkiClientVerifier::no_client_auth()),
        };
    };
    let mut roots = RootCertStore::empty();
    for der in certificates(pem).map_err(|why| format!("client_ca_file: {why}"))? {
        roots.add(der).map_err(|error| format!("client_ca_file: no CA's certificate: {error}"))?;
    }
    let roots = Arc::new(roots);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    if let Some(pem) = &settings.client_crl_pem {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.map_err(|error| format!("client_crl_file: {}", pem_fault(&error)))?;
        if lists.is_empty() {
            return Err("client_crl_file: no X509 CRL in it".to_owned());
        }
        builder = builder.with_crls(lists);
    }
    builder.build().map_err(|error| format!("client_ca_file or client_crl_file: {error}"))
}

/// Those whose day is known. That they can be read is seen where they are used.
fn lists(settings: &Settings) -> impl Iterator<Item = Shown> {
    let pem = settings.client_crl_pem.as_deref().unwrap_or_default();
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).filter_map(Result::ok);
    let lists = lists.filter_map(|list| certificate::read_list(&list));
    lists.map(|list| Shown {
        kind: ShownKind::RevocationList,
        name: "client_crl_file".to_owned(),
        subject: list.issuer,
        not_after: list.next_update,
    })
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err("no CERTIFICATE in it".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(pem_fault(&error).to_owned()),
    }
}

/// The error's own words show the bytes at fault, and those may be a key.
fn pem_fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "not PEM: no section of the right kind in it",
        pem::Error::MissingSectionEnd { .. } => {
            "not PEM: a section has no END line: is the text cut off, or were its newlines turned \
             into spaces?"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "not PEM: a BEGIN line does not end with five dashes: is the text cut off, or were its \
             newlines lost?"
        }
        pem::Error::Base64Decode(_) => "not PEM: what lies between BEGIN and END is not base64",
        pem::Error::SectionTooLarge => "not PEM: a section is too long",
        _ => "not PEM",
    }
}

/// The server's certificates, by the names that they are for.
#[derive(Debug)]
struct Certificates {
    /// The first, and those that are for the same server: they differ in the kind of their key.
    default: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    never_shown: Vec<String>,
}

impl Certificates {
    fn read(
        identities: &[Identity],
        provider: &CryptoProvider,
    ) -> Result<(Certificates, Vec<Shown>), String> {
        let (mut default, mut by_name) = (Vec::new(), HashMap::<_, Vec<_>>::new());
        let (mut shown, mut never_shown) = (Vec::new(), Vec::new());
        let mut first_names = None;
        for identity in identities {
            let (key, certificate) = read_identity(identity, provider)
                .map_err(|why| format!("{}: {why}", identity.name))?;
            let key = Arc::new(key);
            let names = certificate.dns_names.iter().map(|name| name.to_ascii_lowercase());
            let names: Vec<String> = names.collect();
            for name in &names {
                by_name.entry(name.clone()).or_default().push(key.clone());
            }
            let first_names = first_names.get_or_insert_with(|| names.clone());
            let is_alike = *first_names == names || names.iter().any(|n| first_names.contains(n));
            if is_alike {
                default.push(key);
            } else if names.is_empty() {
                never_shown.push(identity.name.clone());
            }
            let (subject, not_after) = (certificate.subject, certificate.not_after);
            let (kind, name) = (ShownKind::Certificate, identity.name.clone());
            shown.push(Shown { kind, name, subject, not_after });
        }
        match default.is_empty() {
            true => Err("no certificate".to_owned()),
            false => Ok((Certificates { default, by_name, never_shown }, shown)),
        }
    }

    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let wildcard = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let exact = self.by_name.get(&name);
        let found = exact.or_else(|| wildcard().and_then(|wildcard| self.by_name.get(&wildcard)));
        found.map_or(&self.default, |found| found)
    }
}

pub(super) fn read_identity(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, certificate::Certificate), String> {
    let chain = certificates(&identity.chain_pem)?;
    let certificate = certificate::read(&chain[0]).ok_or("the first certificate is malformed")?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
        .map_err(|error| format!("no private key can be read: {}", pem_fault(&error)))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
        error => format!("the key can't be used: {error}"),
    })?;
    Ok((key, certificate))
}

impl ResolvesServerCert for Certificates {
    /// Of those for the name, the first that the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let fits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(fits).or(candidates.first()).cloned()
    }
}
