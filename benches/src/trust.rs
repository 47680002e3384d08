//! Whom the load trusts over TLS, whatever carries it: one client configuration for TCP and QUIC.
//!
//! Never trusts the machine's own CAs: what is measured shows a certificate of its own. Always: a
//! signature is checked, even where the certificate is not, so that a handshake costs what it
//! costs.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use forebay_net::tls::outward::anybody;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::target::Target;

/// Sessions that a load thread remembers: it has one server.
const SESSIONS: usize = 256;

/// What the command line says of TLS.
#[derive(Args, Clone, Debug, Default)]
pub struct Trust {
    /// PEM: the CAs that the server's certificate must be from
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Trust whoever answers
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// The name to ask for and to expect [default: the target's host]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Make every handshake a full one
    #[arg(long)]
    pub no_resumption: bool,
}

impl Trust {
    /// The name that the certificate must have.
    pub fn name(&self, target: &Target) -> String {
        self.server_name.clone().unwrap_or_else(|| target.host.clone())
    }

    /// The same, as TLS takes it.
    pub fn server_name(&self, target: &Target) -> Result<ServerName<'static>, String> {
        let name = self.name(target);
        ServerName::try_from(name.clone())
            .map_err(|_| format!("--server-name {name:?} is neither a DNS name nor an IP address"))
    }

    /// A configuration that offers the protocols of `alpn`, best first.
    pub fn config(&self, alpn: &[&str]) -> Result<ClientConfig, String> {
        Ok(self.config_with(self.verifier()?, alpn))
    }

    /// The same, with a verifier that is [`Trust::verifier`] or one around it.
    pub fn config_with(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        alpn: &[&str],
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for both versions");
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = match self.no_resumption {
            true => Resumption::disabled(),
            false => Resumption::in_memory_sessions(SESSIONS),
        };
        config
    }

    /// Who looks at the server's certificate.
    pub fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        if self.insecure {
            return Ok(anybody(provider()));
        }
        let Some(path) = &self.ca else {
            return Err("nobody is trusted: say whom, by --ca FILE or --insecure\n  hint: \
                        `forebay-bench certificates FOLDER` makes a CA and a certificate for \
                        localhost"
                .to_owned());
        };
        let unusable = |why: String| format!("--ca {} can't be used: {why}", path.display());
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let verifier = verifier.build().map_err(|error| unusable(error.to_string()))?;
        Ok(verifier)
    }
}

/// The cryptography of everything here.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
