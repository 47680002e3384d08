//! Sees what a handshake was: full if the certificate was looked at; and when a ticket came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, NamedGroup, SignatureScheme};
use tokio::sync::Notify;

use super::Settings;

/// Sessions of one client: one server has one, and TLS 1.3 several tickets of it.
const SESSIONS: usize = 4;

/// Stands between TLS and the verifier, and between TLS and its memory.
#[derive(Debug)]
pub(super) struct Witness {
    verifier: Arc<dyn ServerCertVerifier>,
    sessions: ClientSessionMemoryCache,
    looked: AtomicU64,
    tickets: AtomicU64,
    ticket_came: Notify,
}

impl Witness {
    /// A client's configuration, and who watches it. Its sessions are its own.
    pub(super) fn config(
        settings: &Settings,
        alpn: &[&str],
    ) -> Result<(ClientConfig, Arc<Witness>), String> {
        let witness = Arc::new(Witness {
            verifier: settings.trust.verifier()?,
            sessions: ClientSessionMemoryCache::new(SESSIONS),
            looked: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            ticket_came: Notify::new(),
        });
        let mut config = settings.trust.config_with(witness.clone(), alpn);
        config.resumption = match settings.full {
            true => Resumption::disabled(),
            false => Resumption::store(witness.clone()),
        };
        Ok((config, witness))
    }

    /// Certificates that were looked at.
    pub(super) fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    /// Tickets that came.
    pub(super) fn tickets(&self) -> u64 {
        self.tickets.load(Ordering::Relaxed)
    }

    /// Until more tickets came than `before`.
    pub(super) async fn ticket(&self, before: u64) {
        while self.tickets() == before {
            self.ticket_came.notified().await;
        }
    }

    fn note_ticket(&self) {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        self.ticket_came.notify_one();
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        self.verifier.verify_server_cert(certificate, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ClientSessionStore for Witness {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.sessions.set_tls12_session(name, value);
        self.note_ticket();
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.sessions.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.sessions.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(name, value);
        self.note_ticket();
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.sessions.take_tls13_ticket(name)
    }
}
