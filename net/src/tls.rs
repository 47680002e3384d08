//! TLS on TCP connections, sans-I/O: rustls behind a few calls.
//!
//! A listener with TLS has an [`Acceptor`]; each of its connections has a `Session`: ciphertext
//! goes in where it lies and comes out as plaintext, all answers of a turn leave as records of one
//! buffer. [`settings`] makes what rustls needs from PEM texts, for TCP and for QUIC; [`peer`] is
//! who a client proved to be. [`outward`] is what a client needs, and [`fault`] says why it got
//! nowhere; its connections are `dial`'s.
//!
//! Always
//! - A connection that exists keeps the terms that it began with; new ones get the newest, and
//!   take no lock for it.
//! - What waits is bounded: of ciphertext one record, or one handshake message; of plaintext none.
//! - No early data: what comes before the handshake's end could be a replay.
//!
//! Never here: files, sockets. The wall clock is read by rustls alone, to judge certificates and
//! tickets.

mod certificate;
mod der;
pub mod fault;
pub mod outward;
pub mod peer;
pub(crate) mod session;
pub mod settings;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{AlertDescription, CertificateError, Error, ServerConfig};

use crate::request::Nanos;

/// What a listener with TLS has, shared by all cores.
#[derive(Debug)]
pub struct Acceptor {
    config: ArcSwap<ServerConfig>,
    handshake_timeout: Nanos,
}

impl Acceptor {
    /// `handshake_timeout`: from a connection's beginning to the end of its handshake.
    pub fn new(config: Arc<ServerConfig>, handshake_timeout: Nanos) -> Acceptor {
        Acceptor { config: ArcSwap::new(config), handshake_timeout }
    }

    /// From now on new connections get `config`.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.config.store(config);
    }

    /// What a new connection gets.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Whether that is what a new connection gets. To ask costs other cores nothing.
    pub(crate) fn has(&self, config: &Arc<ServerConfig>) -> bool {
        Arc::ptr_eq(&self.config.load(), config)
    }

    pub fn handshake_timeout(&self) -> Nanos {
        self.handshake_timeout
    }
}

/// Why a connection came to nothing before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does not speak TLS.
    Plaintext,
    /// No version, cipher suite, curve or protocol (ALPN) that both have.
    NoCommonProtocol,
    /// A certificate is missing, malformed, for another use, or of unknown standing.
    BadCertificate,
    Expired,
    Revoked,
    UnknownCa,
    Timeout,
    /// As many handshakes are under way on this core as may be.
    TooMany,
    /// It left, or broke the protocol.
    Other,
}

impl Failure {
    pub const ALL: [Failure; 9] = [
        Failure::Plaintext,
        Failure::NoCommonProtocol,
        Failure::BadCertificate,
        Failure::Expired,
        Failure::Revoked,
        Failure::UnknownCa,
        Failure::Timeout,
        Failure::TooMany,
        Failure::Other,
    ];

    /// As a metric's attribute says it.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Plaintext => "plaintext",
            Failure::NoCommonProtocol => "no_common_protocol",
            Failure::BadCertificate => "bad_certificate",
            Failure::Expired => "expired",
            Failure::Revoked => "revoked",
            Failure::UnknownCa => "unknown_ca",
            Failure::Timeout => "timeout",
            Failure::TooMany => "too_many",
            Failure::Other => "other",
        }
    }

    pub(crate) fn of(error: &Error) -> Failure {
        match error {
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::NoCommonProtocol,
            Error::NoCertificatesPresented => Failure::BadCertificate,
            Error::InvalidCertificate(error) => Failure::of_certificate(error),
            Error::AlertReceived(alert) => Failure::of_alert(*alert),
            _ => Failure::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Failure {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::Expired,
            CertificateError::Revoked => Failure::Revoked,
            CertificateError::UnknownIssuer => Failure::UnknownCa,
            _ => Failure::BadCertificate,
        }
    }

    /// By the code that ended a QUIC connection: alerts stand above 0x100 (RFC 9001, 4.8).
    pub(crate) fn of_quic(code: u64) -> Failure {
        let alert = code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
        alert.map_or(Failure::Other, |alert| Failure::of_alert(AlertDescription::from(alert)))
    }

    /// What the client said of our certificate, or of what we offer; over QUIC, what we said, too.
    fn of_alert(alert: AlertDescription) -> Failure {
        match alert {
            AlertDescription::CertificateExpired => Failure::Expired,
            AlertDescription::CertificateRevoked => Failure::Revoked,
            AlertDescription::UnknownCA => Failure::UnknownCa,
            AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate => Failure::BadCertificate,
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::NoApplicationProtocol => Failure::NoCommonProtocol,
            _ => Failure::Other,
        }
    }
}

/// Counters since the start of one core, and a gauge.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsStats {
    /// Handshakes under way.
    pub pending: u64,
    /// Handshakes that ended well, the resumed ones too.
    pub completed: u64,
    pub resumed: u64,
    /// Connections that broke TLS once their handshake had ended well.
    pub broken: u64,
    /// In the order of [`Failure::ALL`].
    pub failed: [u64; Failure::ALL.len()],
    /// Connections that began TLS where none is spoken.
    pub misdirected: u64,
}

impl TlsStats {
    pub(crate) fn count_failure(&mut self, failure: Failure) {
        self.failed[failure as usize] += 1;
    }
}
