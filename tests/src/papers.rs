//! Certificates for tests: an authority, what it issues, and the files that a server reads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::forebay::PATIENCE;

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM and as DER.
pub struct Paper {
    pub pem: String,
    pub key_pem: String,
    pub der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

/// A folder with what a server needs.
pub struct Files(tempfile::TempDir);

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("keys can be made");
        Authority(CertifiedIssuer::self_signed(params, key).expect("it can be signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `localhost`, changed as you like.
    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Paper {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned()]).expect("a proper name");
        change(&mut params);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.0).expect("it can be signed");
        Paper {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    pub fn numbered(&self, serial: u64) -> Paper {
        self.issue(|params| params.serial_number = Some(SerialNumber::from(serial)))
    }

    pub fn expired(&self) -> Paper {
        self.issue(|params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    /// The PEM of a list that revokes these.
    pub fn revoke(&self, serials: &[u64]) -> String {
        self.revoke_until(serials, 2099)
    }

    /// As [`Authority::revoke`]; the next list is due at the beginning of that year.
    pub fn revoke_until(&self, serials: &[u64], year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).expect("it can be signed").pem().expect("PEM")
    }

    /// A client that trusts this authority, and shows `paper` if there is one.
    pub fn client(&self, paper: Option<&Paper>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_root_certificates(roots);
        Arc::new(match paper {
            Some(paper) => config
                .with_client_auth_cert(vec![paper.der.clone()], paper.key())
                .expect("its own key"),
            None => config.with_no_client_auth(),
        })
    }
}

impl Paper {
    /// A server that shows this, and speaks `protocol` above.
    pub fn server(&self, protocol: &str) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], self.key());
        let mut config = config.expect("its own key");
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key_der.clone()).expect("a key")
    }
}

impl Files {
    pub fn new(server: &Paper) -> Files {
        let files = Files(tempfile::tempdir().expect("a directory for certificates"));
        files.show(server);
        files
    }

    /// Replaces what the server shows.
    pub fn show(&self, server: &Paper) {
        self.write("server.pem", &server.pem);
        self.write("server.key", &server.key_pem);
    }

    /// Whole or not at all, as those do it who renew certificates.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        std::fs::write(&draft, text).expect("it can be written");
        std::fs::rename(draft, self.path(name)).expect("it can be renamed");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::join(self.0.path(), name)
    }

    /// The inside of a `tls` block, and more of it.
    pub fn block(&self, more: &str) -> String {
        let (chain, key) = (self.path("server.pem"), self.path("server.key"));
        format!("{{cert_file: {}, key_file: {}{more}}}", chain.display(), key.display())
    }
}

/// A connection with TLS, and with patience.
pub fn dial(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let name = ServerName::try_from("localhost").expect("a proper name");
    let tls = ClientConnection::new(config.clone(), name).expect("a proper configuration");
    StreamOwned::new(tls, stream)
}

/// An HTTP/1.1 POST, and the status of its answer.
///
/// # Errors
/// When the connection ends, or never begins.
pub fn post(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    path: &str,
    body: &[u8],
) -> std::io::Result<u16> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    stream.flush()?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 2048];
        match stream.read(&mut bytes)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&bytes[..read]),
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other(format!("no status in {text}")))
}
