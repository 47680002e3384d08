//! One listener's TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_net::quic;
use forebay_net::request::Nanos;
use forebay_net::tls::Acceptor;
use forebay_net::tls::settings::{self, Identity, Settings, Shown, Terms, TicketKeys, Version};

use super::files::{file, identity};
use super::watch::{Sign, Site, Watch};
use crate::config::plan::{Listener, Pem, PemPair, Tls};

pub struct Door {
    pub receiver: String,
    /// What is spoken behind it: `grpc`, `http`, or both; or `http3`.
    pub protocols: &'static str,
    pub acceptor: Arc<Acceptor>,
    tls: Tls,
    is_quic: bool,
    tickets: TicketKeys,
}

impl Door {
    pub(super) fn open(
        listener: &Listener,
        tls: &Tls,
        timeout: Nanos,
    ) -> Result<Watch<Door>, String> {
        let (settings, tickets) = (read(tls)?, settings::tickets()?);
        let terms = terms(&settings, tickets.clone(), listener.is_quic)?;
        let door = Door {
            receiver: listener.receiver_name.clone(),
            protocols: match (&listener.grpc, &listener.http) {
                _ if listener.is_quic => "http3",
                (Some(_), Some(_)) => "grpc, http",
                (Some(_), None) => "grpc",
                _ => "http",
            },
            acceptor: Arc::new(Acceptor::new(terms.config, timeout)),
            tls: tls.clone(),
            is_quic: listener.is_quic,
            tickets,
        };
        Ok(Watch::new(door, settings, terms.shown))
    }
}

impl Site for Door {
    type Settings = Settings;

    fn read(&self, _before: &Settings, _now: Instant) -> Result<Settings, String> {
        read(&self.tls)
    }

    fn adopt(&self, settings: &Settings) -> Result<Vec<Shown>, String> {
        let terms = terms(settings, self.tickets.clone(), self.is_quic)?;
        self.acceptor.replace(terms.config);
        Ok(terms.shown)
    }

    fn reload_interval(&self) -> Duration {
        self.tls.reload_interval
    }

    fn is_in_doubt(&self) -> bool {
        false
    }

    fn sign(&self) -> Sign<'_> {
        Sign {
            receiver: Some(&self.receiver),
            protocols: Some(self.protocols),
            exporter: None,
            registry: None,
            judges: "clients",
            is_unverified: false,
        }
    }
}

pub(super) fn terms(
    settings: &Settings,
    tickets: TicketKeys,
    is_quic: bool,
) -> Result<Terms, String> {
    let mut terms = settings::terms(settings, tickets)?;
    if is_quic {
        if settings.version_max < Version::Tls13 {
            return Err("HTTP/3 needs TLS 1.3, and max_version is 1.2".to_owned());
        }
        terms.config = terms.for_door(settings::Door::Quic);
        quic::Tls::new(terms.config.clone()).map_err(|error| error.to_string())?;
    }
    Ok(terms)
}

pub(super) fn read(tls: &Tls) -> Result<Settings, String> {
    let path =
        |path: &Option<PathBuf>, key: &str| path.as_ref().map(|path| file(path, key)).transpose();
    Ok(Settings {
        identities: tls.certificates.iter().enumerate().map(own).collect::<Result<_, _>>()?,
        client_ca_pem: path(&tls.client_ca_file, "client_ca_file")?,
        client_crl_pem: path(&tls.client_crl_file, "client_crl_file")?,
        version_min: tls.version_min,
        version_max: tls.version_max,
        cipher_suites: tls.cipher_suites.clone(),
        curves: tls.curves.clone(),
    })
}

fn own((index, pair): (usize, &PemPair)) -> Result<Identity, String> {
    let name = match &pair.chain {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) if index == 0 => "cert_pem".to_owned(),
        Pem::Text(_) => format!("certificates[{}].cert_pem", index - 1),
    };
    identity(name, pair)
}
